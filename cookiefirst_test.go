package sojourn_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/faults"
	"github.com/sojourn-go/sojourn/internal/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A fleet is two replicas of a CookieFirst manager on one store.
type fleet struct {
	*testing.T
	here, there *sitetest.Site
	db          *faults.Store
	silent      atomic.Bool // the feed does not answer
	down        atomic.Bool // nor does anything else
	replica     func() *sitetest.Site
}

func cookieFirst(t *testing.T, cfg sojourn.Config, f func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f0 := &fleet{T: t, db: faults.Wrap(memory.New())}
		f0.db.OnEnds = func(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
			if f0.silent.Load() || f0.down.Load() {
				return store.EndPage{}, faults.ErrLost
			}
			return f0.db.Inner.(store.EndFeed).Ends(ctx, cursor, limit)
		}
		f0.db.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
			if f0.down.Load() {
				return store.Record{}, faults.ErrLost
			}
			return f0.db.Inner.Load(ctx, id)
		}
		cfg.Placement, cfg.Store, cfg.Keys = sojourn.CookieFirst, f0.db, sitetest.Keys(t)
		f0.replica = func() *sitetest.Site { return sitetest.Local(sitetest.Manager(t, cfg)) }
		f0.here, f0.there = f0.replica(), f0.replica()
		f(f0)
	})
}

// warm lets both replicas hear the feed.
func (f *fleet) warm(b *sitetest.Browser) {
	f.Helper()
	for _, shop := range []*sitetest.Site{f.here, f.there} {
		look(f.T, b, shop, reads)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func placementOf(t *testing.T, b *sitetest.Browser, shop *sitetest.Site) (p sojourn.Placement) {
	t.Helper()
	look(t, b, shop, func(s *sojourn.Session) { p = s.Info().Placement })
	return p
}

func TestCookieFirst(t *testing.T) {
	for name, test := range map[string]func(f *fleet){
		"a login lives in the cookie, and reading and writing it asks no store": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			f.warm(anna)
			calls := f.db.Calls()
			does(f.T, anna, f.there, func(s *sojourn.Session) {
				if s.User() != "anna" || s.IsNew() || s.Info().Placement != sojourn.PlacementInline {
					f.Errorf("user %q, %v", s.User(), s.Info().Placement)
				}
				colour.Set(s, "red")
			})
			look(f.T, anna, f.here, func(s *sojourn.Session) {
				if colour.Get(s) != "red" {
					f.Error("the value was lost")
				}
			})
			if n := f.db.Calls() - calls; n != 0 {
				f.Errorf("%d calls of the store, want none", n)
			}
		},
		"a login keeps an anonymous visitor's values, in the cookie and in the store": func(f *fleet) {
			for _, first := range []func(*sojourn.Session){
				func(s *sojourn.Session) { colour.Set(s, "red") },
				func(s *sojourn.Session) { colour.Set(s, "red"); visits.Set(s, 1) },
			} {
				b := sitetest.NewBrowser()
				does(f.T, b, f.here, first)
				old := b.Steal()
				does(f.T, b, f.here, func(s *sojourn.Session) { s.Login("anna"); visits.Delete(s) })
				look(f.T, b, f.there, func(s *sojourn.Session) {
					if s.User() != "anna" || colour.Get(s) != "red" || s.Info().Placement != sojourn.PlacementInline {
						f.Errorf("after the login: user %q, colour %q, %v", s.User(), colour.Get(s), s.Info().Placement)
					}
				})
				look(f.T, old, f.there, func(s *sojourn.Session) {
					if s.User() != "" {
						f.Error("the cookies from before lead to the login")
					}
				})
			}
		},
		"a revocation counts everywhere within a second": func(f *fleet) {
			anna, handle := loginAs(f.T, f.here, "anna")
			f.warm(anna)
			if err := f.there.Manager.Revoke(f.Context(), "anna", handle); err != nil {
				f.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, shop := range []*sitetest.Site{f.here, f.there} {
				if !isNew(f.T, anna.Clone(), shop) {
					f.Error("a second later the session is live")
				}
			}
		},
		"a logout is final, whatever is replayed, on every replica and after a restart": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Set(s, "red") })
			stolen := anna.Steal()
			slow := anna.Begin(f.here)
			does(f.T, anna, f.here, (*sojourn.Session).Logout)
			late := slow.Finish(func(s *sojourn.Session) { colour.Set(s, "blue") })
			if late.Status != http.StatusConflict {
				f.Errorf("a request that was under way got %d, want 409", late.Status)
			}
			for _, wait := range []time.Duration{0, time.Second, time.Hour, 100 * time.Hour} {
				time.Sleep(wait)
				if wait == time.Hour {
					_, _ = f.here.Manager.Sweep(f.Context())
				}
				for what, shop := range map[string]*sitetest.Site{"here": f.here, "there": f.there, "after a restart": f.replica()} {
					if wait == 0 && what == "there" {
						continue // within a second
					}
					if !isNew(f.T, stolen, shop) {
						f.Errorf("%v later, %s: a copied cookie leads to the session", wait, what)
					}
				}
			}
		},
		"while the feed is not heard the store is asked, and without it nobody is let in": func(f *fleet) {
			anna, handle := loginAs(f.T, f.here, "anna")
			f.warm(anna)
			f.silent.Store(true)
			time.Sleep(1500 * time.Millisecond)
			loads := f.db.Loads.Load()
			if isNew(f.T, anna, f.here) {
				f.Error("a live session is refused")
			}
			if n := f.db.Loads.Load() - loads; n != 1 {
				f.Errorf("%d loads, want 1", n)
			}
			f.down.Store(true)
			if a := anna.Visit(f.here, reads); a.Status != http.StatusServiceUnavailable {
				f.Errorf("during an outage: %d, want 503", a.Status)
			}
			f.down.Store(false)
			if err := f.there.Manager.Revoke(f.Context(), "anna", handle); err != nil {
				f.Fatal(err)
			}
			if !isNew(f.T, anna.Clone(), f.here) {
				f.Error("a revoked session is live because the feed is not heard")
			}
			other, _ := loginAs(f.T, f.here, "anna")
			f.silent.Store(false)
			time.Sleep(2 * time.Second)
			if !isNew(f.T, anna, f.here) || isNew(f.T, other, f.here) {
				f.Error("after the outage the ends from during it are not known")
			}
		},
		"a late response of another session overwrites values, but no login": func(f *fleet) {
			b := sitetest.NewBrowser()
			does(f.T, b, f.here, func(s *sojourn.Session) { colour.Set(s, "red") })
			anonymous := b.Begin(f.here)
			does(f.T, b, f.here, func(s *sojourn.Session) { s.Login("anna") })
			anonymous.Finish(func(s *sojourn.Session) { colour.Set(s, "blue") }).Arrive()
			look(f.T, b, f.here, func(s *sojourn.Session) {
				if s.User() != "anna" {
					f.Error("the login was overwritten")
				}
			})
			does(f.T, b, f.here, func(s *sojourn.Session) { colour.Set(s, "green") })
			look(f.T, b, f.there, func(s *sojourn.Session) {
				if s.User() != "anna" || colour.Get(s) != "green" {
					f.Errorf("user %q, colour %q", s.User(), colour.Get(s))
				}
			})
		},
		"what does not fit, or belongs on the server, moves to the store for good": func(f *fleet) {
			for _, grow := range []func(*sojourn.Session){
				func(s *sojourn.Session) { visits.Set(s, 1) },
				func(s *sojourn.Session) { note.Set(s, strings.Repeat("long ", 1000)) },
				(*sojourn.Session).Rotate,
				func(s *sojourn.Session) { s.SetExpiry(time.Hour, 10*time.Hour) },
			} {
				anna, handle := loginAs(f.T, f.here, "anna")
				does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Set(s, "red") })
				inline := anna.Clone()
				slow := anna.Begin(f.there)
				does(f.T, anna, f.here, grow)
				slow.Finish(func(s *sojourn.Session) { colour.Set(s, "blue") }).Arrive() // puts an inline state back
				does(f.T, anna, f.here, func(s *sojourn.Session) {
					if s.User() != "anna" || colour.Get(s) != "red" || s.Handle() != handle || s.Info().Placement != sojourn.PlacementStored {
						f.Errorf("user %q, colour %q, %v, same handle: %v", s.User(), colour.Get(s), s.Info().Placement, s.Handle() == handle)
					}
				})
				does(f.T, anna, f.here, (*sojourn.Session).Logout)
				time.Sleep(time.Second)
				if !isNew(f.T, inline, f.there) {
					f.Error("the cookie from before leads to the session after its logout")
				}
			}
		},
		"parallel requests that outgrow the cookie meet in one session": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			slow := make([]*sitetest.Slow, 8)
			for i := range slow {
				slow[i] = anna.Begin([]*sitetest.Site{f.here, f.there}[i%2])
			}
			for _, r := range slow {
				if a := r.Finish(func(s *sojourn.Session) { visits.Update(s, func(n int) int { return n + 1 }) }).Arrive(); a.Status != http.StatusOK {
					f.Errorf("got %d %s", a.Status, a.Body)
				}
			}
			look(f.T, anna, f.here, func(s *sojourn.Session) {
				if visits.Get(s) != 8 || s.User() != "anna" {
					f.Errorf("%d visits of %q, want 8", visits.Get(s), s.User())
				}
			})
		},
		"what was removed when it moved to the store does not come back with a slower request": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Set(s, "red") })
			slow := anna.Clone().Begin(f.there)
			does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Delete(s); visits.Set(s, 1) })
			if a := slow.Finish(func(s *sojourn.Session) { note.Set(s, "hello"); visits.Set(s, 2) }); a.Status != http.StatusOK {
				f.Fatalf("the slower request got %d", a.Status)
			}
			look(f.T, anna, f.there, func(s *sojourn.Session) {
				if colour.Get(s) != "" || note.Get(s) != "hello" || s.Info().Placement != sojourn.PlacementStored {
					f.Errorf("colour %q, note %q, %v", colour.Get(s), note.Get(s), s.Info().Placement)
				}
			})
		},
		"a user's sessions are listed and limited": func(f *fleet) {
			var annas []*sitetest.Browser
			for range 4 {
				b, _ := loginAs(f.T, f.here, "anna")
				annas = append(annas, b)
				time.Sleep(time.Minute)
			}
			for i, b := range annas {
				if got, want := isNew(f.T, b, f.there), i < 2; got != want {
					f.Errorf("login %d is over: %v, want %v", i+1, got, want)
				}
			}
			all, err := f.there.Manager.Sessions(f.Context(), "anna")
			if err != nil || len(all) != 2 || all[0].IP == "" {
				f.Errorf("%v, %v", all, err)
			}
			time.Sleep(5 * 24 * time.Hour)
			f.warm(annas[3])
			if !isNew(f.T, annas[0], f.there) {
				f.Error("the cookie of a session beyond the limit is good again")
			}
			time.Sleep(8 * 24 * time.Hour)
			if n, err := f.there.Manager.RevokeUser(f.Context(), "anna"); err != nil || n != 0 {
				f.Errorf("after the idle timeout: %d, %v", n, err)
			}
		},
		"the anchor lives as long as the cookie is used": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			for range 25 {
				time.Sleep(24 * time.Hour)
				if isNew(f.T, anna, f.here) {
					f.Fatal("it has ended")
				}
				_, _ = f.here.Manager.Sweep(f.Context())
			}
			if all, err := f.here.Manager.Sessions(f.Context(), "anna"); err != nil || len(all) != 1 || time.Since(all[0].LastSeen) > time.Hour {
				f.Errorf("%+v, %v", all, err)
			}
			time.Sleep(6 * 24 * time.Hour)
			if !isNew(f.T, anna, f.here) {
				f.Error("it outlived its lifetime")
			}
		},
		"a failed touch of the anchor leaves the cookie as old as it is": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			f.db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return faults.ErrLost }
			for range 6 {
				time.Sleep(24 * time.Hour)
				does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Update(s, func(c string) string { return c + "!" }) })
			}
			time.Sleep(25 * time.Hour)
			ben, _ := loginAs(f.T, f.here, "ben")
			f.warm(ben) // so that the store is not asked
			if !isNew(f.T, anna, f.here) {
				f.Error("the cookie outlived its anchor, which nobody could list or revoke")
			}
		},
		"who authenticates again gets another session, and the one before is over": func(f *fleet) {
			anna, before := loginAs(f.T, f.here, "anna")
			does(f.T, anna, f.here, func(s *sojourn.Session) { colour.Set(s, "red") })
			old := anna.Steal()
			does(f.T, anna, f.here, func(s *sojourn.Session) { s.Login("anna", "pwd", "otp") })
			time.Sleep(time.Second)
			look(f.T, anna, f.there, func(s *sojourn.Session) {
				if s.Handle() == before || colour.Get(s) != "red" || len(s.Info().Methods) != 2 {
					f.Errorf("colour %q, methods %q, same handle: %v", colour.Get(s), s.Info().Methods, s.Handle() == before)
				}
			})
			if !isNew(f.T, old, f.here) || !isNew(f.T, old, f.there) {
				f.Error("the session from before is live")
			}
		},
		"a stream of a session in the cookie ends with it": func(f *fleet) {
			anna, handle := loginAs(f.T, f.here, "anna")
			anna.VisitHTTP(f.here, func(w http.ResponseWriter, r *http.Request) {
				s, _ := f.here.Manager.Get(r.Context())
				done := s.Done()
				if within(time.Hour, done) {
					f.Error("it ended by itself")
				}
				_ = f.there.Manager.Revoke(f.Context(), "anna", handle)
				if !within(time.Second, done) || !errors.Is(s.Err(), sojourn.ErrEnded) {
					f.Errorf("a second later it goes on: %v", s.Err())
				}
			})
		},
		"a state cookie without its reference is no login": func(f *fleet) {
			anna, _ := loginAs(f.T, f.here, "anna")
			half := sitetest.NewBrowser()
			half.SetCookie(reference+"-state", anna.Cookies()[reference+"-state"])
			if !isNew(f.T, half, f.here) {
				f.Error("it is one")
			}
		},
		"a dead login does not keep its visitor from starting anew": func(f *fleet) {
			anna, handle := loginAs(f.T, f.here, "anna")
			f.warm(anna)
			_ = f.there.Manager.Revoke(f.Context(), "anna", handle)
			time.Sleep(5 * time.Minute)
			ben, _ := loginAs(f.T, f.here, "ben")
			f.warm(ben) // so that the feed tells, with no time of the end
			does(f.T, anna, f.here, func(s *sojourn.Session) { visits.Set(s, 1) })
			look(f.T, anna, f.there, func(s *sojourn.Session) {
				if visits.Get(s) != 1 || s.User() != "" {
					f.Errorf("%d visits of %q", visits.Get(s), s.User())
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sojourn.Config{}
			if strings.Contains(name, "limited") {
				cfg.MaxPerUser = 2
			}
			cookieFirst(t, cfg, test)
		})
	}
}

func TestCookieFirstKeepsMarksOnlyAsLongAsTheyMatter(t *testing.T) {
	cookieFirst(t, sojourn.Config{Lifetime: 24 * time.Hour}, func(f *fleet) {
		for range 50 {
			anna, _ := loginAs(f.T, f.here, "anna")
			does(f.T, anna, f.here, (*sojourn.Session).Logout)
		}
		keep := func(d time.Duration) {
			b, _ := loginAs(f.T, f.here, "ben")
			for range d / (20 * time.Second) { // so that the feed goes on
				time.Sleep(20 * time.Second)
				_ = b.Visit(f.here, reads)
			}
		}
		keep(time.Hour)
		if n := f.here.Manager.Marks(); n != 50 {
			f.Errorf("%d marks in mind, want 50", n)
		}
		keep(24 * time.Hour)
		if n := f.here.Manager.Marks(); n > 1 {
			f.Errorf("%d marks in mind after the sessions' lifetime", n)
		}
	})
}

func TestFromCookieFirstToAutoAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, keys := memory.New(), sitetest.Keys(t)
		shop := func(p sojourn.Policy) *sitetest.Site {
			return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys, Placement: p}))
		}
		first, auto := shop(sojourn.CookieFirst), shop(sojourn.Auto)
		anna, _ := loginAs(t, first, "anna")
		ben, _ := loginAs(t, auto, "ben")
		does(t, ben, auto, func(s *sojourn.Session) { colour.Set(s, "red") })
		for what, b := range map[string]*sitetest.Browser{"anna": anna, "ben": ben} {
			for _, at := range []*sitetest.Site{first, auto, first} {
				look(t, b, at, func(s *sojourn.Session) {
					if s.User() != what {
						t.Errorf("%s was logged out by the change of placement", what)
					}
				})
			}
		}
		if placementOf(t, ben, first) != sojourn.PlacementStored {
			t.Error("a stored session has moved back into the cookie")
		}
	})
}
