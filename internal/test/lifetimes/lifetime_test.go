package lifetimes_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Idle timeout, lifetime, values that expire, and the validity of rotated
// credentials, with a fake clock.

// It neither slid nor could be read, as reported in gorilla/sessions#281 and
// gofiber/fiber#2989.
func TestIdleTimeoutEndsASessionThatIsNotUsed(t *testing.T) {
	for what, f := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: 10 * time.Hour, Lifetime: 300 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, f)
			for range 5 { // used in time, it goes on for longer than one timeout
				time.Sleep(9 * time.Hour)
				// A request sees the times before its own activity, and the next one those after it.
				for _, want := range []time.Duration{time.Hour, 10 * time.Hour} {
					sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
						if left := time.Until(s.Info().IdleExpires); s.IsNew() || left != want {
							t.Errorf("an %s session that was used: new %v, %v are left, want %v", what, s.IsNew(), left, want)
						}
					})
				}
			}
			time.Sleep(10*time.Hour + time.Millisecond)
			if !sitetest.IsNew(t, anna, shop) {
				t.Errorf("an %s session outlived its idle timeout", what)
			}
		})
	}
}

func TestLifetimeEndsASessionWhateverHappens(t *testing.T) {
	for what, f := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, fmt.Sprint(time.Now())) },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: -1, Lifetime: 50 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, f)
			for range 4 {
				time.Sleep(10 * time.Hour)
				if sitetest.IsNew(t, anna.Clone(), shop) {
					t.Fatalf("an %s session ended early", what)
				}
				sitetest.Does(t, anna, shop, f)
			}
			thief := anna.Steal()
			time.Sleep(10*time.Hour + time.Millisecond)
			if !sitetest.IsNew(t, anna.Clone(), shop) || !sitetest.IsNew(t, thief, shop) {
				t.Errorf("an %s session outlived its lifetime", what)
			}
			time.Sleep(time.Second)
			if len(anna.Cookies()) != 0 {
				t.Errorf("the cookies of an %s session outlived it by more than a second", what)
			}
		})
	}
}

func TestLoginStartsTheLifetimeAnew(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: -1, Lifetime: 50 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		time.Sleep(40 * time.Hour)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
		time.Sleep(40 * time.Hour)
		if sitetest.IsNew(t, anna, shop) {
			t.Error("the login did not start a new lifetime")
		}
	})
}

// Each request was a write, as reported in alexedwards/scs#32.
func TestActivityIsNotedNowAndThenWithoutRewriting(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 100 * time.Hour, Lifetime: 400 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		saves := db.Saves.Load()
		var before, after sojourn.Info
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) { before = s.Info() })
		for range 4 * 60 { // four hours of one request a minute
			time.Sleep(time.Minute)
			if a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) }); len(a.SetCookies()) > 0 {
				t.Fatalf("a reader got cookies %v", a.SetCookies())
			}
		}
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) { after = s.Info() })
		if n := db.Touches.Load(); n != 4 {
			t.Errorf("240 requests in four hours made %d touches, want 4: one an hour", n)
		}
		if n := db.Saves.Load() - saves; n != 0 {
			t.Errorf("reading made %d saves", n)
		}
		if after.Version != before.Version || !after.LastSeen.After(before.LastSeen) || !after.IdleExpires.After(before.IdleExpires) {
			t.Errorf("the touches made %+v out of %+v", after, before)
		}
	})
}

func TestTouchNeverMovesTheEndBackwards(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 100 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		time.Sleep(10 * time.Hour)
		slow := anna.Begin(shop)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.SetExpiry(1000*time.Hour, 0) })
		var want, got time.Time
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) { want = s.Info().IdleExpires })
		slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Get(s) }) // touches by what it knew
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) { got = s.Info().IdleExpires })
		if got.Before(want) {
			t.Errorf("the idle end moved from %v back to %v", want, got)
		}
	})
}

func TestFailedTouchIsNoError(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return faults.ErrLost }
		time.Sleep(2 * time.Hour)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
		if st := ops.For(shop.Manager).Stats(); st.StoreErrors != 1 || st.Touches != 0 {
			t.Errorf("counted %d errors and %d touches", st.StoreErrors, st.Touches)
		}
	})
}

func TestTombstoneOutlivesEveryInlineCookieOfItsSession(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 100 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		// A restored backup of the browser, or a copy of its cookies, is used independently.
		other := anna.Clone()
		var handle string
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1); handle = s.Handle() })
		time.Sleep(80 * time.Hour)
		sitetest.Look(t, other, shop, func(*sojourn.Session) {}) // 100 hours more
		late := other.Clone()
		write := func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }
		if a := other.Visit(shop, write); a.Status != http.StatusUnauthorized {
			t.Errorf("got %d for an outdated cookie", a.Status)
		}
		sitetest.Does(t, other, shop, write)
		sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
		time.Sleep(90 * time.Hour)
		if sitetest.IsNew(t, late, shop) {
			t.Fatal("the inline cookie is over, so nothing is tested")
		}
		sitetest.Does(t, late, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		sitetest.Look(t, late, shop, func(s *sojourn.Session) {
			if s.Handle() == handle || sitetest.Visits.Get(s) != 1 {
				t.Error("the ended session is back")
			}
		})
	})
}

func TestErrorAnswersAndStreamsDoNotCountAsActivity(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		time.Sleep(2 * time.Hour)
		anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
			_, _ = shop.Manager.Get(r.Context())
			w.WriteHeader(http.StatusInternalServerError)
		})
		if n := db.Touches.Load(); n != 0 {
			t.Errorf("%d touches", n)
		}
	})
}

// A session could have no deadline of its own, as reported in alexedwards/scs#149 and
// #259, and no idle timeout, as reported in alexedwards/scs#235.
func TestSetExpiryOverridesTheConfiguration(t *testing.T) {
	cfg := sojourn.Config{IdleTimeout: 10 * time.Hour, Lifetime: 100 * time.Hour}
	for _, c := range []struct {
		name           string
		idle, lifetime time.Duration
		wantIdle, want time.Duration
	}{
		{"longer", 20 * time.Hour, 200 * time.Hour, 20 * time.Hour, 200 * time.Hour},
		{"shorter", time.Hour, 2 * time.Hour, time.Hour, 2 * time.Hour},
		{"as configured", 0, 0, 10 * time.Hour, 100 * time.Hour},
		{"no idle timeout", -1, 0, 100 * time.Hour, 100 * time.Hour},
		{"the longest lifetime", -1, 400 * 24 * time.Hour, 400 * 24 * time.Hour, 400 * 24 * time.Hour},
		{"more than browsers keep", -1, 1000 * 24 * time.Hour, 400 * 24 * time.Hour, 400 * 24 * time.Hour},
		{"less than a millisecond", time.Nanosecond, 0, time.Millisecond, 100 * time.Hour},
	} {
		for _, where := range []string{"inline", "stored"} {
			t.Run(c.name+" "+where, func(t *testing.T) {
				sitetest.Days(t, cfg, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
						sitetest.Colour.Set(s, "red")
						if where == "stored" {
							sitetest.Visits.Set(s, 1)
						}
					})
					start := time.Now()
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.SetExpiry(c.idle, c.lifetime) })
					sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
						i := s.Info()
						if got := i.IdleExpires.Sub(start); got != c.wantIdle {
							t.Errorf("ends without activity after %v, want %v", got, c.wantIdle)
						}
						if got := i.Expires.Sub(start); got != c.want {
							t.Errorf("ends after %v, want %v", got, c.want)
						}
					})
					// Activity just before the end extends the session, up to
					// the lifetime; without it the session ends.
					use := c.wantIdle - time.Millisecond
					time.Sleep(use)
					if sitetest.IsNew(t, anna, shop) {
						t.Error("it ended early")
					}
					time.Sleep(min(c.wantIdle, c.want-use) + time.Millisecond)
					if !sitetest.IsNew(t, anna.Steal(), shop) {
						t.Error("it goes on")
					}
				})
			})
		}
	}
	for where, f := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
	} {
		t.Run("over already "+where, func(t *testing.T) {
			sitetest.Days(t, cfg, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, f)
				time.Sleep(2 * time.Hour)
				thief := anna.Steal()
				a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.SetExpiry(0, time.Hour) })
				if len(a.SetCookies()) != 1 || len(anna.Cookies()) != 0 {
					t.Errorf("the answer sets %q, the browser keeps %d cookies", a.SetCookies(), len(anna.Cookies()))
				}
				if where == "stored" && !sitetest.IsNew(t, thief, shop) {
					t.Error("the session goes on")
				}
			})
		})
	}
}

// It could not differ per user, as reported in alexedwards/scs#71 and #73.
func TestRememberDecidesWhetherTheBrowserKeepsTheCookies(t *testing.T) {
	for _, c := range []struct {
		name           string
		browserSession bool
		f              func(*sojourn.Session)
		kept           bool
	}{
		{"as configured", false, func(*sojourn.Session) {}, true},
		{"remembered anyway", false, func(s *sojourn.Session) { s.Remember(true) }, true},
		{"not remembered", false, func(s *sojourn.Session) { s.Remember(false) }, false},
		{"a browser session", true, func(*sojourn.Session) {}, false},
		{"remembered", true, func(s *sojourn.Session) { s.Remember(true) }, true},
		{"not remembered anyway", true, func(s *sojourn.Session) { s.Remember(false) }, false},
	} {
		for where, login := range map[string]func(*sojourn.Session){
			"inline": func(*sojourn.Session) {},
			"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
			"login":  func(s *sojourn.Session) { s.Login("anna") },
		} {
			sitetest.Days(t, sojourn.Config{Cookie: sojourn.Cookie{BrowserSession: c.browserSession}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red"); login(s); c.f(s) })
				closed := anna.Clone()
				closed.CloseWindow()
				if kept := !sitetest.IsNew(t, closed, shop); kept != c.kept {
					t.Errorf("%s %s: kept = %v after the window was closed", c.name, where, kept)
				}
				// It stays so for cookies that are set later.
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if s.Info().Persistent != c.kept {
						t.Errorf("%s %s: Info says %v", c.name, where, s.Info().Persistent)
					}
				})
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue"); s.Rotate() })
				anna.CloseWindow()
				if kept := !sitetest.IsNew(t, anna, shop); kept != c.kept {
					t.Errorf("%s %s: kept = %v after the window was closed later", c.name, where, kept)
				}
			})
		}
	}
}

func TestValuesWithATTLEndByThemselves(t *testing.T) {
	code := sojourn.NewKey[string]("code", sojourn.TTL(time.Hour))
	state := sojourn.NewKey[string]("state", sojourn.TTL(time.Hour), sojourn.ServerSide)
	for name, k := range map[string]sojourn.Key[string]{"inline": code, "stored": state} {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna := sitetest.NewBrowser()
			has := func() (ok bool) {
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					_, err := k.Lookup(s)
					ok = err == nil
					byName := s.Get(k.Name(), new(string))
					if listed := len(s.Names()) == 2; s.Has(k.Name()) != ok || listed != ok || (byName == nil) != ok || !ok && !errors.Is(err, sojourn.ErrNoValue) {
						t.Errorf("%s: Has = %v, Names = %v, Lookup: %v, Get: %v", name, s.Has(k.Name()), s.Names(), err, byName)
					}
				})
				return ok
			}
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { k.Set(s, "x"); sitetest.Colour.Set(s, "red") })
			time.Sleep(time.Hour)
			if !has() {
				t.Errorf("%s: ended early", name)
			}
			time.Sleep(time.Millisecond)
			if has() {
				t.Errorf("%s: is still there", name)
			}
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
				if _, ok := k.Pop(s); ok {
					t.Errorf("%s: an ended value was popped", name)
				}
				k.Update(s, func(v string) string { return v + "y" })
				if k.Get(s) != "y" {
					t.Errorf("%s: an Update went on from the ended value: %q", name, k.Get(s))
				}
			})
			time.Sleep(time.Hour)
			if !has() {
				t.Errorf("%s: an Update did not start its time anew", name)
			}
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { k.Set(s, "y") }) // the same value, for another hour
			time.Sleep(45 * time.Minute)
			if !has() {
				t.Errorf("%s: a Set of the same value did not start its time anew", name)
			}
		})
	}
}

// An identifier could not be renewed, as reported in kataras/iris#768.
func TestRotatedCredential(t *testing.T) {
	rotate := func(t *testing.T, shop *sitetest.Site) (anna, before *sitetest.Browser) {
		anna = sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
		before = anna.Clone()
		var handles [2]string
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { handles[0] = s.Handle(); s.Rotate() })
		sitetest.Look(t, before.Clone(), shop, func(s *sojourn.Session) { handles[1] = s.Handle() })
		if handles[0] != handles[1] {
			t.Error("the rotation changed the handle")
		}
		if anna.Cookies()["__Host-session"] == before.Cookies()["__Host-session"] {
			t.Error("the rotation did not change the cookie")
		}
		return anna, before
	}
	t.Run("the one before gets the newest, until the grace and the clocks' minute after that was first used", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna, before := rotate(t, shop)
			time.Sleep(time.Hour) // never presented: the response may have been lost
			lost := before.Clone()
			if a := sitetest.Does(t, lost, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) }); len(a.SetCookies()) != 1 {
				t.Errorf("the credential before got cookies %v, want the newest", a.SetCookies())
			}
			if sitetest.IsNew(t, anna, shop) || sitetest.IsNew(t, lost, shop) { // presents the newest
				t.Error("the newest credential is refused")
			}
			time.Sleep(2 * time.Minute)
			if sitetest.IsNew(t, before.Clone(), shop) {
				t.Error("the credential before is refused within the grace")
			}
			time.Sleep(time.Millisecond)
			if !sitetest.IsNew(t, before, shop) {
				t.Error("the credential before is accepted after the grace")
			}
			if n := ops.For(shop.Manager).Stats().StaleReferences; n != 1 {
				t.Errorf("%d refused credentials were counted, want 1", n)
			}
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if s.User() != "anna" || sitetest.Visits.Get(s) != 1 {
					t.Error("the session is not what it was")
				}
			})
		})
	})
	t.Run("its first use is noted by one write", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna, _ := rotate(t, shop)
			saves := db.Saves.Load()
			for range 3 {
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
			}
			if n := db.Saves.Load() - saves; n != 1 {
				t.Errorf("%d saves, want 1", n)
			}
		})
	})
	t.Run("two generations back is good for as long as it would have been, three back is refused", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna, before := rotate(t, shop)
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
			time.Sleep(30 * time.Second)
			sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
			time.Sleep(90 * time.Second)
			if sitetest.IsNew(t, before.Clone(), shop) {
				t.Error("two back is refused within its grace")
			}
			three := before.Clone()
			sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
			if !sitetest.IsNew(t, three, shop) {
				t.Error("three back is accepted")
			}
			time.Sleep(time.Millisecond)
			if !sitetest.IsNew(t, before, shop) {
				t.Error("two back is accepted after its grace")
			}
			if sitetest.IsNew(t, anna, shop) {
				t.Error("the newest is refused")
			}
			if n := ops.For(shop.Manager).Stats().TheftsSuspected; n != 0 {
				t.Errorf("%d thefts suspected: quick rotations are none", n)
			}
		})
	})
	t.Run("parallel rotations end in one successor", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			one, two := anna.Begin(shop), anna.Begin(shop)
			first := one.Finish((*sojourn.Session).Rotate)
			second := two.Finish((*sojourn.Session).Rotate)
			for what, order := range map[string][]*sitetest.Answer{"in order": {first, second}, "the other way round": {second, first}} {
				b := anna.Clone()
				for _, a := range order {
					a.ArriveAt(b)
				}
				if sitetest.IsNew(t, b, shop) {
					t.Errorf("%s: the browser has no session", what)
				}
			}
			if n := ops.For(shop.Manager).Stats().Rotations; n != 1 {
				t.Errorf("%d rotations, want 1", n)
			}
		})
	})
}

func TestABrowserThatCountsWholeSecondsKeepsTheSessionUntilItsVeryEnd(t *testing.T) {
	const life = 8 * time.Second
	stored := func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) }
	inline := func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") }
	for name, test := range map[string]struct {
		config func(*sojourn.Config)
		begin  func(*sojourn.Session)
	}{
		"stored":             {func(c *sojourn.Config) { c.Lifetime = life }, stored},
		"stored, never idle": {func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = life, -1 }, stored},
		"inline":             {func(c *sojourn.Config) { c.Lifetime = life }, inline},
		"inline, never idle": {func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = life, -1 }, inline},
		"login":              {func(c *sojourn.Config) { c.Lifetime = life }, func(session *sojourn.Session) { session.Login("ada") }},
		"cookie only": {func(c *sojourn.Config) { sitetest.CookieOnly(c); c.Lifetime = life }, func(session *sojourn.Session) {
			session.Login("ada")
		}},
		"an end of its own": {func(*sojourn.Config) {}, func(session *sojourn.Session) {
			session.SetExpiry(0, life)
			stored(session)
		}},
		"an end that is no whole second": {func(c *sojourn.Config) { c.Lifetime = life + time.Millisecond }, stored},
		"behind caches":                  {func(c *sojourn.Config) { c.Lifetime, c.Store = life, withCopies{faults.Wrap(memory.New())} }, stored},
	} {
		for _, begins := range []time.Duration{0, time.Millisecond, 420 * time.Millisecond, 999 * time.Millisecond} {
			t.Run(fmt.Sprint(name, ", begun at ", begins), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := sitetest.NewLab(t, test.config)
					v := sitetest.NewGuest(t)
					time.Sleep(begins)
					resp := s.Do(v, test.begin)
					// What Firefox and Python's http.cookiejar do: whole seconds, cut off.
					drops := map[string]int64{}
					for _, c := range resp.Cookies() {
						drops[c.Name] = time.Now().Unix() + int64(c.MaxAge)
					}
					sent := func() *sitetest.Guest {
						still := v.Copy()
						for name := range still.Cookies {
							if drops[name] <= time.Now().Unix() {
								delete(still.Cookies, name)
							}
						}
						return still
					}
					var end time.Time
					s.Do(v.Copy(), func(session *sojourn.Session) {
						if end = session.Info().Expires; end.IsZero() {
							t.Fatal("there is no session")
						}
					})
					is := func() (live bool) {
						s.Do(sent(), func(session *sojourn.Session) { live = session.Info().Placement != sojourn.PlacementNone })
						return live
					}
					for _, before := range []time.Duration{time.Second, 420 * time.Millisecond, time.Millisecond, 0} {
						time.Sleep(time.Until(end) - before)
						if !is() {
							t.Fatalf("the session is gone %v before Info().Expires", before)
						}
					}
					time.Sleep(time.Millisecond)
					if is() {
						t.Error("the session goes on after Info().Expires")
					}
				})
			})
		}
	}
}

// withCopies is a store with copies, so that the browser gets a floor.
type withCopies struct{ *faults.Store }

func (s withCopies) LoadFrom(ctx context.Context, id store.ID, _ uint64) (store.Record, error) {
	return s.Load(ctx, id)
}

// Expiries in three places disagreed, as reported in kataras/iris#301, #431, #1061
// and #1553.
func TestTheBrowserTheStoreAndInfoAgreeOnTheEnd(t *testing.T) {
	for what, f := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: -1, Lifetime: 77 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			for _, life := range []time.Duration{77 * time.Hour, 99 * time.Hour, 55 * time.Hour} {
				a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
					f(s)
					if life != 77*time.Hour {
						s.SetExpiry(-1, life)
					}
				})
				for _, line := range a.Header["Set-Cookie"] {
					if !strings.Contains(line, fmt.Sprintf("Max-Age=%d;", life/time.Second+1)) {
						t.Errorf("%s: the browser is told another age than %v: %s", what, life, line[strings.Index(line, ";"):])
					}
				}
				if what == "stored" {
					if rec := sitetest.Only(t, db); !rec.Expires.Equal(time.Now().Add(life)) || !rec.Deadline.Equal(rec.Expires) {
						t.Errorf("the store is told %v and %v", rec.Expires, rec.Deadline)
					}
				}
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if i := s.Info(); time.Until(i.Expires) != life || !i.IdleExpires.Equal(i.Expires) {
						t.Errorf("%s: Info says %v and %v", what, time.Until(i.Expires), time.Until(i.IdleExpires))
					}
				})
			}
		})
	}
}
