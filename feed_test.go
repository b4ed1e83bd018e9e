package sojourn_test

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

// An audience is a replica with a stream of a user's session open, and another
// replica on the same store.
type audience struct {
	*testing.T
	here, there *sitetest.Site
	silent      *atomic.Bool // the feed does not answer
	anna        *sitetest.Browser
	handle      string
}

// listening runs f while a stream of anna's session is open on the replica
// here, with its Done channel.
func listening(t *testing.T, wrap func(store.Store) store.Store, f func(a *audience, done <-chan struct{}, why func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		var silent atomic.Bool
		db.OnEnds = func(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
			if silent.Load() {
				return store.EndPage{}, faults.ErrLost
			}
			return db.Inner.(store.EndFeed).Ends(ctx, cursor, limit)
		}
		keys := sitetest.Keys(t)
		replica := func() *sitetest.Site {
			var s store.Store = db
			if wrap != nil {
				s = wrap(s)
			}
			return sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: s, IdleTimeout: time.Hour}))
		}
		a := &audience{T: t, here: replica(), there: replica(), silent: &silent}
		a.anna, a.handle = loginAs(t, a.here, "anna")
		time.Sleep(time.Second)
		a.anna.VisitHTTP(a.here, func(w http.ResponseWriter, r *http.Request) {
			s, err := a.here.Manager.Get(r.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = http.NewResponseController(w).Flush()
			done := s.Done()
			synctest.Wait()
			f(a, done, s.Err)
		})
	})
}

// within reports whether the channel is closed after that time at the latest.
func within(d time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

func TestAStreamEndsWithinASecondOfAnEndOnAnotherReplica(t *testing.T) {
	for name, end := range map[string]func(a *audience) error{
		"a logout": func(a *audience) error {
			does(a.T, a.anna.Clone(), a.there, (*sojourn.Session).Logout)
			return nil
		},
		"another login": func(a *audience) error {
			does(a.T, a.anna.Clone(), a.there, func(s *sojourn.Session) { s.Login("anna") })
			return nil
		},
		"a revocation":         func(a *audience) error { return a.there.Manager.Revoke(a.Context(), "anna", a.handle) },
		"one by an operator":   func(a *audience) error { return ops.For(a.there.Manager).End(a.Context(), a.handle) },
		"one of all of a user": func(a *audience) error { _, err := a.there.Manager.RevokeUser(a.Context(), "anna"); return err },
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
				listening(t, wrap, func(a *audience, done <-chan struct{}, why func() error) {
					if within(2*time.Minute, done) {
						t.Fatal("it ended by itself")
					}
					if err := end(a); err != nil {
						t.Fatal(err)
					}
					if !within(time.Second, done) || !errors.Is(why(), sojourn.ErrEnded) {
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
	listening(t, nil, func(a *audience, _ <-chan struct{}, _ func() error) {
		// The feed is being read, for the stream that is open. Another request loads
		// another session, which ends, and asks for Done only then.
		ben, handle := loginAs(t, a.here, "ben")
		ben.VisitHTTP(a.here, func(w http.ResponseWriter, r *http.Request) {
			s, _ := a.here.Manager.Get(r.Context())
			if err := ops.For(a.there.Manager).End(a.Context(), handle); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if !within(time.Millisecond, s.Done()) || !errors.Is(s.Err(), sojourn.ErrEnded) {
				t.Error("a session that ended before Done was asked for goes on")
			}
		})
		eva, handle := loginAs(t, a.here, "eva")
		eva.VisitHTTP(a.here, func(w http.ResponseWriter, r *http.Request) {
			s, _ := a.here.Manager.Get(r.Context())
			if err := ops.For(a.there.Manager).End(a.Context(), handle); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // longer than anybody remembers
			if !within(time.Second, s.Done()) {
				t.Error("a session that ended an hour before Done was asked for goes on")
			}
		})
	})
}

func TestAnEndFromBeforeTheFeedWasReadIsFound(t *testing.T) {
	for name, wrap := range map[string]func(store.Store) store.Store{
		"loaded before": nil,
		"loaded after, from a copy that is out of date": withCache,
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
				ben, handle := loginAs(t, here, "ben")
				eva, _ := loginAs(t, here, "eva")
				does(t, ben, here, func(s *sojourn.Session) { visits.Set(s, 1) })
				look(t, ben, here, reads) // and so into the cache
				revoke := func() {
					if err := ops.For(there.Manager).End(t.Context(), handle); err != nil {
						t.Fatal(err)
					}
				}
				// listen lets the feed be read, for a stream of somebody else's.
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
					if !within(time.Second, s.Done()) {
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
	listening(t, nil, func(a *audience, done <-chan struct{}, why func() error) {
		if err := a.here.Manager.Revoke(a.Context(), "anna", a.handle); err != nil {
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
	listening(t, nil, func(a *audience, done <-chan struct{}, why func() error) {
		db := ops.For(a.there.Manager).Store()
		for i := range 8000 {
			id := store.HashIdentifier(fmt.Append(nil, i))
			if err := db.Delete(a.Context(), id, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := ops.For(a.there.Manager).End(a.Context(), a.handle); err != nil {
			t.Fatal(err)
		}
		if !within(time.Second, done) {
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
		anna, handle := loginAs(t, here, "anna")
		anna.VisitHTTP(here, func(_ http.ResponseWriter, r *http.Request) {
			s, _ := here.Manager.Get(r.Context())
			done := s.Done()
			time.Sleep(10 * time.Second)
			restarts.Add(1)
			time.Sleep(10 * time.Second)
			if err := ops.For(there.Manager).End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
			if !within(time.Second, done) {
				t.Error("the feed is not heard any more")
			}
		})
	})
}

func TestTheFeedGoesOnAfterAnOutage(t *testing.T) {
	for name, outage := range map[string]time.Duration{"of a second": time.Second, "of half an hour": 30 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			listening(t, nil, func(a *audience, done <-chan struct{}, why func() error) {
				time.Sleep(10 * time.Second)
				a.silent.Store(true)
				does(t, a.anna.Clone(), a.there, (*sojourn.Session).Logout)
				time.Sleep(outage)
				if within(time.Millisecond, done) {
					t.Fatal("the end was heard during the outage: the test shows nothing")
				}
				a.silent.Store(false)
				if !within(time.Second, done) || !errors.Is(why(), sojourn.ErrEnded) {
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
		anna, _ := loginAs(t, shop, "anna")
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
