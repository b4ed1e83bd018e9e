package lifetimes_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestAStreamEndsWithinASecondOfAnEndOnAnotherReplica(t *testing.T) {
	for name, end := range map[string]func(a *sitetest.Audience) error{
		"a logout": func(a *sitetest.Audience) error {
			sitetest.Does(a.T, a.Anna.Clone(), a.There, (*sojourn.Session).Logout)
			return nil
		},
		"another login": func(a *sitetest.Audience) error {
			sitetest.Does(a.T, a.Anna.Clone(), a.There, func(s *sojourn.Session) { s.Login("anna") })
			return nil
		},
		"a revocation":       func(a *sitetest.Audience) error { return a.There.Manager.Revoke(a.Context(), "anna", a.Handle) },
		"one by an operator": func(a *sitetest.Audience) error { return ops.For(a.There.Manager).End(a.Context(), a.Handle) },
		"one of all of a user": func(a *sitetest.Audience) error {
			_, err := a.There.Manager.RevokeUser(a.Context(), "anna")
			return err
		},
	} {
		for tiers, wrap := range map[string]func(store.Store) store.Store{
			"a store": nil,
			"a store without a feed": func(s store.Store) store.Store {
				return struct {
					store.Store
					store.UserIndex
				}{s, s.(store.UserIndex)}
			},
			"a cache in front": withCache,
		} {
			t.Run(name+", with "+tiers, func(t *testing.T) {
				sitetest.Listening(t, wrap, func(a *sitetest.Audience, done <-chan struct{}, why func() error) {
					if sitetest.EndsWithin(2*time.Minute, done) {
						t.Fatal("it ended by itself")
					}
					if err := end(a); err != nil {
						t.Fatal(err)
					}
					if !sitetest.EndsWithin(time.Second, done) || !errors.Is(why(), sojourn.ErrEnded) {
						t.Errorf("a second later the stream goes on (%v)", why())
					}
				})
			})
		}
	}
}

// withCache puts an in-process cache in front of a store.
func withCache(s store.Store) store.Store {
	front, err := tiered.New(s, tiered.Layer{Cache: tiered.NewMemory(1 << 20)})
	if err != nil {
		panic(err)
	}
	return front
}

func TestAnEndBetweenLoadAndDoneIsHeard(t *testing.T) {
	sitetest.Listening(t, nil, func(a *sitetest.Audience, _ <-chan struct{}, _ func() error) {
		// The feed is being read for the open stream. Another request loads
		// another session, which ends before the request calls Done.
		ben, handle := sitetest.LoginAs(t, a.Here, "ben")
		ben.VisitHTTP(a.Here, func(w http.ResponseWriter, r *http.Request) {
			s, _ := a.Here.Manager.Get(r.Context())
			if err := ops.For(a.There.Manager).End(a.Context(), handle); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if !sitetest.EndsWithin(time.Millisecond, s.Done()) || !errors.Is(s.Err(), sojourn.ErrEnded) {
				t.Error("a session that ended before Done was asked for goes on")
			}
		})
		eva, handle := sitetest.LoginAs(t, a.Here, "eva")
		eva.VisitHTTP(a.Here, func(w http.ResponseWriter, r *http.Request) {
			s, _ := a.Here.Manager.Get(r.Context())
			if err := ops.For(a.There.Manager).End(a.Context(), handle); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // longer than ends are remembered
			if !sitetest.EndsWithin(time.Second, s.Done()) {
				t.Error("a session that ended an hour before Done was asked for goes on")
			}
		})
	})
}

func TestAnEndFromBeforeTheFeedWasReadIsFound(t *testing.T) {
	for name, wrap := range map[string]func(store.Store) store.Store{
		"loaded before": nil,
		"loaded after, from a copy that is out of date": func(s store.Store) store.Store {
			// With an Unheard below MaxStale the cache would have received the end.
			front, err := tiered.New(s, tiered.Layer{Cache: tiered.NewMemory(1 << 20), MaxStale: time.Second})
			if err != nil {
				panic(err)
			}
			return front
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, keys := memory.New(), sitetest.Keys(t)
				replica := func(s store.Store) *sitetest.Site {
					return sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: s}))
				}
				there, here := replica(db), replica(db)
				if wrap != nil {
					here = replica(wrap(db))
				}
				ben, handle := sitetest.LoginAs(t, here, "ben")
				eva, _ := sitetest.LoginAs(t, here, "eva")
				sitetest.Does(t, ben, here, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
				sitetest.Look(t, ben, here, sitetest.Reads) // and so into the cache
				revoke := func() {
					if err := ops.For(there.Manager).End(t.Context(), handle); err != nil {
						t.Fatal(err)
					}
				}
				// listen starts reading the feed, for another visitor's stream.
				hangUp := make(chan struct{})
				listen := func() {
					go eva.VisitHTTP(here, func(_ http.ResponseWriter, r *http.Request) {
						s, _ := here.Manager.Get(r.Context())
						_ = s.Done()
						<-hangUp
					})
					synctest.Wait()
				}
				if wrap != nil {
					revoke()
					time.Sleep(100 * time.Millisecond)
					listen()
					time.Sleep(100 * time.Millisecond)
				}
				ben.VisitHTTP(here, func(_ http.ResponseWriter, r *http.Request) {
					s, _ := here.Manager.Get(r.Context())
					if s.User() != "ben" {
						t.Fatal("the session is not loaded: the test shows nothing")
					}
					if wrap == nil {
						revoke()
						time.Sleep(100 * time.Millisecond)
						listen()
						time.Sleep(time.Second)
					}
					if !sitetest.EndsWithin(time.Second, s.Done()) {
						t.Error("a second later the stream of a session that has ended goes on")
					}
				})
				close(hangUp)
				synctest.Wait()
			})
		})
	}
}

func TestARevocationEndsStreamsOfItsOwnReplicaAtOnce(t *testing.T) {
	sitetest.Listening(t, nil, func(a *sitetest.Audience, done <-chan struct{}, why func() error) {
		if err := a.Here.Manager.Revoke(a.Context(), "anna", a.Handle); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		default:
			t.Error("it waits for the feed")
		}
	})
}

func TestAFloodOfEndsHoldsUpNoStream(t *testing.T) {
	sitetest.Listening(t, nil, func(a *sitetest.Audience, done <-chan struct{}, why func() error) {
		db := ops.For(a.There.Manager).Store()
		for i := range 8000 {
			id := store.HashIdentifier(fmt.Append(nil, i))
			if err := db.Delete(a.Context(), id, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := ops.For(a.There.Manager).End(a.Context(), a.Handle); err != nil {
			t.Fatal(err)
		}
		if !sitetest.EndsWithin(time.Second, done) {
			t.Error("a second later the stream goes on: its end comes page by page")
		}
	})
}

func TestTheFeedStartsAnewWhereItsPlaceIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		var restarts atomic.Int64
		db.OnEnds = func(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
			now := fmt.Sprint(restarts.Load(), ":")
			if cursor != store.FeedFromNow {
				rest, ok := strings.CutPrefix(cursor, now)
				if !ok {
					return store.EndPage{}, errors.New("the feed has no such place")
				}
				cursor = rest
			}
			page, err := db.Inner.(store.EndFeed).Ends(ctx, cursor, limit)
			page.Cursor = now + page.Cursor
			return page, err
		}
		keys := sitetest.Keys(t)
		replica := func() *sitetest.Site {
			return sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: db}))
		}
		here, there := replica(), replica()
		anna, handle := sitetest.LoginAs(t, here, "anna")
		anna.VisitHTTP(here, func(_ http.ResponseWriter, r *http.Request) {
			s, _ := here.Manager.Get(r.Context())
			done := s.Done()
			time.Sleep(10 * time.Second)
			restarts.Add(1)
			time.Sleep(10 * time.Second)
			if err := ops.For(there.Manager).End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
			if !sitetest.EndsWithin(time.Second, done) {
				t.Error("the feed is not heard any more")
			}
		})
	})
}

func TestTheFeedGoesOnAfterAnOutage(t *testing.T) {
	for name, outage := range map[string]time.Duration{"of a second": time.Second, "of half an hour": 30 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			sitetest.Listening(t, nil, func(a *sitetest.Audience, done <-chan struct{}, why func() error) {
				time.Sleep(10 * time.Second)
				a.Silent.Store(true)
				sitetest.Does(t, a.Anna.Clone(), a.There, (*sojourn.Session).Logout)
				time.Sleep(outage)
				if sitetest.EndsWithin(time.Millisecond, done) {
					t.Fatal("the end was heard during the outage: the test shows nothing")
				}
				a.Silent.Store(false)
				if !sitetest.EndsWithin(time.Second, done) || !errors.Is(why(), sojourn.ErrEnded) {
					t.Errorf("a second after the outage the stream goes on (%v)", why())
				}
			})
		})
	}
}

func TestTheFeedIsReadWhileSomebodyWaitsAndByOnePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		shop := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
		anna, _ := sitetest.LoginAs(t, shop, "anna")
		time.Sleep(time.Hour)
		if n := db.Polls.Load(); n != 0 {
			t.Errorf("%d polls before anybody waits, want none", n)
		}
		hangUp := make(chan struct{})
		var streams sync.WaitGroup
		for range 100 {
			streams.Go(func() {
				anna.Clone().VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
					s, _ := shop.Manager.Get(r.Context())
					_ = s.Done()
					<-hangUp
				})
			})
		}
		synctest.Wait()
		before, loads := db.Polls.Load(), db.Loads.Load()
		time.Sleep(time.Minute)
		if n := db.Polls.Load() - before; n < 60 || n > 240 {
			t.Errorf("%d polls a minute for 100 streams, want one or a few a second", n)
		}
		if n := db.Loads.Load() - loads; n > 0 {
			t.Errorf("%d loads a minute for 100 streams that nothing happens to", n)
		}
		close(hangUp)
		streams.Wait()
		time.Sleep(time.Minute)
		before = db.Polls.Load()
		time.Sleep(time.Hour)
		if n := db.Polls.Load() - before; n != 0 {
			t.Errorf("%d polls although nobody waits any more", n)
		}
	})
}
