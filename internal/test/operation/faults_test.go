package operation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Requests while the store fails, hangs, or loses answers or writes.

// failing makes the first n Saves fail with a fault.
func failing(db *faults.Store, n int64, fault sitetest.SaveFault) {
	var left atomic.Int64
	left.Store(n)
	db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
		save := func(ctx context.Context) error { return db.Inner.Save(ctx, rec, base) }
		if left.Add(-1) >= 0 {
			return fault(ctx, save)
		}
		return save(ctx)
	}
}

func TestUnknownOutcomesAreResolved(t *testing.T) {
	for name, fault := range sitetest.SaveFaults {
		for what, f := range map[string]func(*sojourn.Session){
			"update":    func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
			"promotion": func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne); sitetest.Colour.Set(s, "red") },
			"login":     func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne); s.Login("anna") },
		} {
			t.Run(what+" when "+name, func(t *testing.T) {
				sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
						if what == "promotion" {
							sitetest.Colour.Set(s, "blue")
						} else {
							sitetest.Visits.Set(s, 0)
						}
					})
					failing(db, 1, fault)
					sitetest.Does(t, anna, shop, f)
					time.Sleep(time.Minute) // whatever is late arrives
					sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
						if n := sitetest.Visits.Get(s); n != 1 {
							t.Errorf("one increment made %d", n)
						}
						if (s.User() == "anna") != (what == "login") {
							t.Errorf("the user is %q", s.User())
						}
					})
				})
			})
		}
		t.Run("logout when "+name, func(t *testing.T) {
			sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
				thief := anna.Steal()
				failing(db, 1, fault)
				sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
				time.Sleep(time.Minute)
				if !sitetest.IsNew(t, thief, shop) {
					t.Error("the session goes on")
				}
			})
		})
	}
}

func TestOutcomeThatStaysUnknownIsAnErrorAndAtMostOnce(t *testing.T) {
	for name, fault := range sitetest.SaveFaults {
		for what, again := range map[string]bool{"answered": false, "saved again by the handler": true} {
			t.Run(name+" for as long as it is tried, "+what, func(t *testing.T) {
				sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
					var failures atomic.Bool
					failures.Store(true)
					db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
						save := func(ctx context.Context) error { return db.Inner.Save(ctx, rec, base) }
						if failures.Load() {
							return fault(ctx, save)
						}
						return save(ctx)
					}
					a := anna.Visit(shop, func(s *sojourn.Session) {
						sitetest.Visits.Update(s, sitetest.AddOne)
						if again {
							if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
								t.Errorf("Save said %v, want ErrUnavailable", err)
							}
							failures.Store(false)
						}
					})
					if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
						t.Errorf("got %d and cookies %v, want 503 and none", a.Status, a.SetCookies())
					}
					time.Sleep(time.Minute)
					failures.Store(false)
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
					sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
						if n := sitetest.Visits.Get(s); n != 1 && n != 2 {
							t.Errorf("one known and one unknown increment made %d", n)
						}
					})
				})
			})
		}
	}
}

func TestChangesThatCanBeRepeatedAreTriedAgainAfterAnUnknownOutcome(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			sitetest.Visits.Set(s, 1)
			failing(db, 4, sitetest.SaveFaults["the answer is lost"])
			if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
				t.Errorf("Save said %v, want ErrUnavailable", err)
			}
			if err := s.Save(t.Context()); err != nil {
				t.Errorf("the second Save said %v", err)
			}
		})
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if n := sitetest.Visits.Get(s); n != 1 {
				t.Errorf("the count is %d", n)
			}
		})
	})
}

func TestUnknownOutcomeIsNotAppliedTwiceHoweverMuchOthersSaved(t *testing.T) {
	for _, others := range []int{0, 1, store.RecentSaveIDs - 1, store.RecentSaveIDs, 50} {
		t.Run(fmt.Sprint(others, " other saves"), func(t *testing.T) {
			sitetest.Days(t, sojourn.Config{}, func(t *testing.T, _ *sitetest.Site, db *faults.Store) {
				keys := sitetest.Keys(t)
				shop := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys}))
				replica := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db.Inner, Keys: keys}))
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
				failing(db, 1, func(ctx context.Context, save func(context.Context) error) error {
					if err := save(ctx); err != nil {
						t.Error(err)
					}
					for range others {
						sitetest.Does(t, anna, replica, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
					}
					return faults.ErrLost
				})
				a := anna.Visit(shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
				if others < store.RecentSaveIDs && a.Status != http.StatusOK {
					t.Errorf("got %d although the save ID was still there", a.Status)
				}
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if n := sitetest.Visits.Get(s); n != others+1 {
						t.Errorf("%d increments made %d", others+1, n)
					}
				})
			})
		})
	}
}

// An outage took sites down or emptied carts, as reported in
// redis-store/redis-store#34, tj/connect-redis#94, redisson/redisson#1651 and
// colinmollenhour/Cm_RedisSession#75, or was a panic, as reported in
// gofiber/fiber#4059.
func TestStoreThatIsDown(t *testing.T) {
	down := func(db *faults.Store) {
		db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
		db.OnSave = func(context.Context, store.Record, store.Base) error { return faults.ErrLost }
		db.OnDelete = func(context.Context, store.ID, time.Time) error { return faults.ErrLost }
		db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return faults.ErrLost }
	}
	up := func(db *faults.Store) { db.OnLoad, db.OnSave, db.OnDelete, db.OnTouch = nil, nil, nil, nil }

	t.Run("a known visitor gets ErrUnavailable and keeps the cookies", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			down(db)
			var err error
			a := anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
				_, err = shop.Manager.Get(r.Context())
				shop.Manager.ServeError(w, r, err)
			})
			if !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, faults.ErrLost) || a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
				t.Errorf("got %v, %d and cookies %v", err, a.Status, a.SetCookies())
			}
			for what, asks := range map[string]bool{"needs no session": false, "can do without": true} {
				a := anna.VisitHTTP(shop, func(_ http.ResponseWriter, r *http.Request) {
					if asks {
						_, _ = shop.Manager.Get(r.Context())
					}
				})
				if a.Status != http.StatusOK || len(a.SetCookies()) > 0 {
					t.Errorf("a page that %s got %d and cookies %v", what, a.Status, a.SetCookies())
				}
			}
			up(db)
			if sitetest.IsNew(t, anna, shop) {
				t.Error("the outage logged the visitor out")
			}
		})
	})
	t.Run("an inline visitor notices nothing until the session grows", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			down(db)
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
			a := anna.Visit(shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
			if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
				t.Errorf("got %d and cookies %v, want 503 and none", a.Status, a.SetCookies())
			}
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if sitetest.Colour.Get(s) != "red" {
					t.Error("the session in the cookie is gone")
				}
			})
		})
	})
	for what, f := range map[string]func(*sojourn.Session){
		"a change":   func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
		"a login":    func(s *sojourn.Session) { s.Login("bob") },
		"a rotation": (*sojourn.Session).Rotate,
	} {
		t.Run(what+" in a session loaded before is answered 503 and not kept", func(t *testing.T) {
			sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
				slow := anna.Begin(shop)
				down(db)
				a := slow.Finish(f).Arrive()
				if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
					t.Errorf("got %d and cookies %v, want 503 and none", a.Status, a.SetCookies())
				}
				up(db)
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if s.User() != "anna" || sitetest.Visits.Get(s) != 1 {
						t.Errorf("the session is %q's with %d", s.User(), sitetest.Visits.Get(s))
					}
				})
			})
		})
	}
	t.Run("a logout is answered 503, and the browser forgets all the same", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			slow := anna.Begin(shop)
			down(db)
			if a := slow.Finish((*sojourn.Session).Logout).Arrive(); a.Status != http.StatusServiceUnavailable {
				t.Errorf("got %d, want 503", a.Status)
			}
			if left := anna.Cookies(); len(left) > 0 {
				t.Errorf("%d cookies are left", len(left))
			}
		})
	})
	t.Run("a logout of an attached request fails, and the browser forgets all the same", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			in, out := http.Header{}, http.Header{}
			for name, value := range anna.Cookies() {
				in.Add("Cookie", name+"="+value)
			}
			s, x, err := sitetest.Begin(t.Context(), shop.Manager, in)
			if err != nil {
				t.Fatal(err)
			}
			down(db)
			s.Logout()
			if err := x.Commit(http.StatusOK, out); !errors.Is(err, sojourn.ErrUnavailable) {
				t.Errorf("Commit said %v", err)
			}
			if lines := out["Set-Cookie"]; len(lines) != 1 || !strings.Contains(lines[0], "Max-Age=0") {
				t.Errorf("Set-Cookie: %q", lines)
			}
		})
	})
}

func TestHangingStoreIsWaitedForAsLongAsTheTimeoutSays(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for what, f := range map[string]func(*sojourn.Session){
		"load":   nil,
		"change": func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
		"login":  func(s *sojourn.Session) { s.Login("bob") },
		"logout": (*sojourn.Session).Logout,
	} {
		t.Run(what, func(t *testing.T) {
			sitetest.Days(t, sojourn.Config{Timeout: 10 * time.Second}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
				var slow *sitetest.Slow
				if f != nil {
					slow = anna.Begin(shop)
				}
				db.OnLoad = func(ctx context.Context, _ store.ID) (store.Record, error) { return store.Record{}, hang(ctx) }
				db.OnSave = func(ctx context.Context, _ store.Record, _ store.Base) error { return hang(ctx) }
				db.OnDelete = func(ctx context.Context, _ store.ID, _ time.Time) error { return hang(ctx) }
				start := time.Now()
				var a *sitetest.Answer
				if f == nil {
					a = anna.Visit(shop, func(*sojourn.Session) {})
				} else {
					a = slow.Finish(f)
				}
				if took := time.Since(start); took > 10*time.Second || a.Status != http.StatusServiceUnavailable {
					t.Errorf("got %d after %v, want 503 after at most 10 s", a.Status, took)
				}
			})
		})
	}
	t.Run("changes that wait for each other", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Timeout: 10 * time.Second}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
			var up atomic.Bool
			db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
				if up.Load() {
					return db.Inner.Save(ctx, rec, base)
				}
				return hang(ctx)
			}
			sitetest.Together(5, func(i int) {
				time.Sleep(time.Duration(i) * time.Second)
				start := time.Now()
				a := anna.Send(shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
				if took := time.Since(start); took > 10*time.Second || a.Status != http.StatusServiceUnavailable {
					t.Errorf("request %d got %d after %v, want 503 after at most 10 s", i, a.Status, took)
				}
			})
			up.Store(true)
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if sitetest.Visits.Get(s) != 1 {
					t.Errorf("the count is %d, want 1", sitetest.Visits.Get(s))
				}
			})
		})
	})
	t.Run("login whose end of the old session hangs", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Timeout: 10 * time.Second}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
			db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
				if rec.IsEnd() {
					return hang(ctx)
				}
				return db.Inner.Save(ctx, rec, base)
			}
			db.OnDelete = func(ctx context.Context, _ store.ID, _ time.Time) error { return hang(ctx) }
			start := time.Now()
			a := anna.Visit(shop, func(s *sojourn.Session) { s.Login("anna") })
			// That time includes ending the new session again.
			if took := time.Since(start); took > 10*time.Second || a.Status != http.StatusServiceUnavailable {
				t.Errorf("got %d after %v, want 503 after at most 10 s", a.Status, took)
			}
		})
	})
}

func TestFailedLoginLeavesNoSessionAndMayBeTriedAgain(t *testing.T) {
	for name, fault := range sitetest.SaveFaults {
		for step, ends := range map[string]bool{"the new session": false, "the end of the old one": true} {
			t.Run(step+", "+name, func(t *testing.T) {
				sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
					memory := db.Inner.(*memory.Store)
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
					db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
						save := func(ctx context.Context) error { return db.Inner.Save(ctx, rec, base) }
						if rec.IsEnd() == ends {
							return fault(ctx, save)
						}
						return save(ctx)
					}
					var again error
					a := anna.Visit(shop, func(s *sojourn.Session) {
						s.Login("anna")
						if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
							t.Errorf("the first Save said %v", err)
						}
						time.Sleep(time.Minute) // whatever is late arrives
						if counts, err := memory.Count(t.Context()); err != nil || counts.LoggedIn != 0 {
							t.Errorf("%d logged-in sessions are left (%v)", counts.LoggedIn, err)
						}
						db.OnSave = nil
						again = s.Save(t.Context())
					})
					if again != nil || a.Status != http.StatusOK {
						t.Errorf("the second Save said %v, the answer was %d", again, a.Status)
					}
					sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
						if s.User() != "anna" || sitetest.Visits.Get(s) != 1 {
							t.Errorf("logged in as %q with %d", s.User(), sitetest.Visits.Get(s))
						}
					})
				})
			})
		}
	}
}

// fallenBack is a store that has lost writes, behind a cache with the newer
// state.
type fallenBack struct{ store.Store }

func (f fallenBack) LoadFrom(ctx context.Context, id store.ID, _ uint64) (store.Record, error) {
	return f.Load(ctx, id)
}

// version returns the version of the browser's session.
func version(t *testing.T, b *sitetest.Browser, at *sitetest.Site) (v uint64) {
	t.Helper()
	sitetest.Look(t, b, at, func(s *sojourn.Session) { v = s.Info().Version })
	return v
}

func TestStoreBelowTheFloorIsCountedAndVersionsNeverRestart(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: fallenBack{db}}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	var backup store.Record
	for range 5 {
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		if backup.Version < 3 {
			backup = sitetest.Only(t, db)
		}
	}
	db.Inner = memory.New() // a replica that is behind takes over
	if err := db.Inner.Save(t.Context(), backup, store.Base{}); err != nil {
		t.Fatal(err)
	}
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != int(backup.Version) {
			t.Errorf("the count is %d at version %d", sitetest.Visits.Get(s), backup.Version)
		}
	})
	if n := ops.For(shop.Manager).Stats().LostVersions; n != 1 {
		t.Errorf("%d losses were counted, want 1", n)
	}
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
	if v := version(t, anna, shop); v != 7 {
		t.Errorf("the next version is %d, want 7: one above the floor", v)
	}
	before := ops.For(shop.Manager).Stats().LostVersions
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
	if n := ops.For(shop.Manager).Stats().LostVersions; n != before {
		t.Error("it is still counted as lost")
	}
}

func TestStoreThatFallsBackDuringARequestDoesNotRestartVersions(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.OpenShop(t, db)
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	backup := sitetest.Only(t, db)
	for range 5 {
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
	}
	slow := anna.Begin(shop)
	db.Inner = memory.New()
	if err := db.Inner.Save(t.Context(), backup, store.Base{}); err != nil {
		t.Fatal(err)
	}
	if a := slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }); a.Status != http.StatusOK {
		t.Fatalf("got %d", a.Status)
	}
	if v := version(t, anna, shop); v != 7 {
		t.Errorf("the next version is %d, want 7", v)
	}
	if n := ops.For(shop.Manager).Stats().LostVersions; n != 1 {
		t.Errorf("%d losses were counted, want 1", n)
	}
}

func TestLackingKeyOfARecordIsAnOutageAndOverwritesNothing(t *testing.T) {
	one, two := keys.Generate(), keys.Generate()
	db, log := faults.Wrap(memory.New()), &sitetest.LogBook{}
	site := func(text string) *sitetest.Site {
		return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: sitetest.Parse(t, text), Logger: slog.New(log)}))
	}
	before := site(sitetest.KeyText(one, sitetest.WithState(two, "published")))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, before, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	rec := sitetest.Only(t, db)
	// The cookie is sealed again with the second key; the record is not.
	both := site(sitetest.KeyText(sitetest.WithState(one, "retired"), two))
	sitetest.Look(t, anna, both, func(*sojourn.Session) {})
	lacking := site(two)
	for range 3 {
		a := anna.Visit(lacking, func(*sojourn.Session) { t.Error("served") })
		if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
			t.Errorf("got %d and cookies %v, want 503 and none", a.Status, a.SetCookies())
		}
	}
	if got := log.With("ERROR"); len(got) != 1 || !strings.Contains(got[0], "key ring does not have its key") {
		t.Errorf("logged: %q", got)
	}
	if now := sitetest.Only(t, db); now.Version != rec.Version || !slices.Equal(now.SaveIDs, rec.SaveIDs) {
		t.Error("the record was overwritten")
	}
	sitetest.Look(t, anna, both, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 1 {
			t.Errorf("the count is %d", sitetest.Visits.Get(s))
		}
	})
}

func TestRecordsThatWereTamperedWithAreRefused(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.OpenShop(t, db)
	anna, eve := sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
	older := sitetest.Only(t, db)
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) })
	hers := sitetest.Only(t, db)
	sitetest.Does(t, eve, shop, func(s *sojourn.Session) { s.Login("eve") })
	var eves store.Record
	recs, _, err := db.Inner.(store.Scanner).Scan(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		if rec.ID != hers.ID {
			eves = rec
		}
	}
	for name, tamper := range map[string]func(*store.Record){
		"another's data under one's own key": func(r *store.Record) { r.Data = hers.Data },
		"another's data, user, version and end": func(r *store.Record) {
			id := r.ID
			*r = hers
			r.ID = id
		},
		"another user":    func(r *store.Record) { r.User = hers.User },
		"a later end":     func(r *store.Record) { r.Expires = r.Expires.Add(time.Hour) },
		"a newer version": func(r *store.Record) { r.Version++ },
		"damaged data": func(r *store.Record) {
			r.Data = append([]byte{}, r.Data...)
			r.Data[40] ^= 1
		},
		"cut data": func(r *store.Record) { r.Data = r.Data[:len(r.Data)-1] },
		"no data":  func(r *store.Record) { r.Data = nil },
		"an older version's data as the newest's": func(r *store.Record) { *r = hers; r.Data = older.Data },
	} {
		t.Run(name, func(t *testing.T) {
			browser, rec := eve.Steal(), eves
			tamper(&rec)
			if rec.ID == hers.ID {
				browser = anna.Steal()
			}
			db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return rec, nil }
			defer func() { db.OnLoad = nil }()
			damaged := ops.For(shop.Manager).Stats().DamagedRecords
			a := browser.Visit(shop, func(s *sojourn.Session) {
				if !s.IsNew() || s.User() != "" || len(s.Names()) > 0 {
					t.Errorf("it is a session of %q", s.User())
				}
			})
			if a.Status != http.StatusOK {
				t.Errorf("got %d", a.Status)
			}
			if n := ops.For(shop.Manager).Stats().DamagedRecords - damaged; n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// By Config.MaxSize: TestMaxSizeIsExactAndLeavesTheOldStateUntouched.
func TestASessionTooLargeForTheStoreIsRefusedAndLeftAsItWas(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		db := faults.Wrap(memory.New())
		shop := sitetest.OpenShop(t, db)
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Essay.Set(s, "short"); sitetest.Visits.Set(s, 1) })
		db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			if len(rec.Data) > 5000 {
				return fmt.Errorf("engine: %w", store.ErrTooLarge)
			}
			return db.Inner.Save(ctx, rec, base)
		}
		tries := db.Saves.Load()
		a := anna.Visit(shop, func(s *sojourn.Session) { sitetest.Essay.Set(s, strings.Repeat("x", 6000)) })
		if a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d, want 413", a.Status)
		}
		if n := db.Saves.Load() - tries; n != 1 {
			t.Errorf("it was tried %d times", n)
		}
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if sitetest.Essay.Get(s) != "short" {
				t.Error("the session is not as it was")
			}
		})
	})
	t.Run("without harm to requests that are saved together with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db := faults.Wrap(memory.New())
			shop := sitetest.OpenShop(t, db)
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
			var once sync.Once
			busy, goOn := make(chan struct{}), make(chan struct{})
			db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
				once.Do(func() { close(busy); <-goOn })
				if len(rec.Data) > 5000 {
					return store.ErrTooLarge
				}
				return db.Inner.Save(ctx, rec, base)
			}
			var all sync.WaitGroup
			add := func() {
				if a := anna.Send(shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }); a.Status != 200 {
					t.Errorf("an innocent request got %d", a.Status)
				}
			}
			all.Go(add)
			<-busy
			all.Go(add)
			all.Go(func() {
				if a := anna.Send(shop, func(s *sojourn.Session) { sitetest.Essay.Set(s, strings.Repeat("x", 6000)) }); a.Status != 413 {
					t.Errorf("the large request got %d", a.Status)
				}
			})
			all.Go(add)
			synctest.Wait() // all of them are waiting for the first
			close(goOn)
			all.Wait()
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if sitetest.Visits.Get(s) != 3 || sitetest.Essay.Get(s) != "" {
					t.Errorf("%d increments were kept, want 3", sitetest.Visits.Get(s))
				}
			})
		})
	})
}

// A client that went away canceled the save, as reported in flamego/session#64 and
// aspnet/Session#193.
func TestCommitOutlivesTheClientAndStopsAtTheTimeout(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Timeout: 10 * time.Second}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		var ended error
		anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
			s, err := shop.Manager.Get(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			sitetest.Visits.Set(s, 2)
			gone, cancel := context.WithCancel(r.Context())
			cancel()
			if err := s.Save(gone); err != nil {
				t.Errorf("Save with a cancelled context said %v", err)
			}
			sitetest.Visits.Set(s, 3)
			db.OnSave = func(ctx context.Context, _ store.Record, _ store.Base) error {
				<-ctx.Done()
				ended = ctx.Err()
				return ctx.Err()
			}
			start := time.Now()
			if err := s.Save(gone); !errors.Is(err, sojourn.ErrUnavailable) || time.Since(start) != 10*time.Second {
				t.Errorf("a commit that hangs ended after %v with %v", time.Since(start), err)
			}
			db.OnSave = nil
			s.Discard()
		})
		if ended == nil {
			t.Error("the store was never told to stop")
		}
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if sitetest.Visits.Get(s) != 2 {
				t.Errorf("the count is %d, want 2", sitetest.Visits.Get(s))
			}
		})
	})
}
