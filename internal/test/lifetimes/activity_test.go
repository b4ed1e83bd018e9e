package lifetimes_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Requests that last for longer than the idle timeout.

const quarter = 15 * time.Minute

func idle(c *sojourn.Config) { c.IdleTimeout = quarter }

// loggedIn reports whether v is still logged in, without counting as activity.
func loggedIn(s *sitetest.Lab, v *sitetest.Guest) (in bool) {
	s.T.Helper()
	s.Do(v.Copy(), func(session *sojourn.Session) { session.Background(); in = session.User() != "" })
	return in
}

func TestALongRequestKeepsItsSessionAlive(t *testing.T) {
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request, *sojourn.Session){
		"an upload": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = session.User()
			time.Sleep(40 * time.Minute)
			io.WriteString(w, "thank you")
		},
		"an upload that changes something": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			time.Sleep(40 * time.Minute)
			sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
		},
		"a download": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			io.WriteString(w, "the first of many bytes")
			time.Sleep(40 * time.Minute)
			io.WriteString(w, "the last")
		},
		"with saves in between": func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			for range 4 {
				time.Sleep(10 * time.Minute)
				sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
				if err := session.Save(r.Context()); err != nil {
					t.Errorf("Save: %v", err)
				}
			}
		},
		"a login at its start": func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			session.Login("anna")
			if err := session.Save(r.Context()); err != nil {
				t.Errorf("Save: %v", err)
			}
			time.Sleep(40 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
				time.Sleep(14 * time.Minute) // almost idle
				sitetest.WantStatus(t, s.Serve(v, handler), http.StatusOK)
				time.Sleep(quarter) // its end counts as activity, like its start
				if !loggedIn(s, v) {
					t.Error("logged out within the idle timeout after its end")
				}
				time.Sleep(time.Second)
				if loggedIn(s, v) {
					t.Error("logged in beyond the idle timeout")
				}
			})
		})
	}
}

func TestAnUploadThatArrivesAtTheLastMomentKeepsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		time.Sleep(quarter - 100*time.Millisecond)
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { time.Sleep(40 * time.Minute) })
		if !loggedIn(s, v) {
			t.Error("logged out")
		}
	})
}

func TestOtherRequestsDuringALongOneAreLoggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		time.Sleep(10 * time.Minute)
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			for range 40 {
				time.Sleep(time.Minute)
				if !loggedIn(s, v) {
					t.Fatal("logged out during the upload")
				}
			}
			if left := time.Until(session.Info().IdleExpires); left <= 0 {
				t.Errorf("Info says that the session is over since %v", -left)
			}
		})
	})
}

// toucherless hides a store's optional interfaces.
type toucherless struct{ store.Store }

func TestALongRequestKeepsItsSessionAliveInAStoreThatCannotTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle, func(c *sojourn.Config) { c.Store = toucherless{memory.New()} }), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 1) })
		time.Sleep(10 * time.Minute)
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			sitetest.ThemeKey.Set(session, "dark") // pending all the time
			for range 40 {
				time.Sleep(time.Minute)
				if !loggedIn(s, v) {
					t.Fatal("logged out during the upload")
				}
			}
			s.Do(v.Copy(), func(other *sojourn.Session) {
				if other.Has("theme") {
					t.Error("a pending change was kept before its time")
				}
			})
			sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
		})
		time.Sleep(14 * time.Minute)
		s.Do(v, func(session *sojourn.Session) {
			if sitetest.CartKey.Get(session) != 2 || sitetest.ThemeKey.Get(session) != "dark" {
				t.Errorf("kept %d and %q", sitetest.CartKey.Get(session), sitetest.ThemeKey.Get(session))
			}
		})
	})
}

func TestALongRequestOfASessionInTheCookieRefreshesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = sitetest.ThemeKey.Get(session)
			time.Sleep(40 * time.Minute)
		})
		time.Sleep(14 * time.Minute)
		if !s.Has(v, "theme") {
			t.Error("the session ended after the request")
		}
	})
}

// A long request without changes must not restore its cookie's old values.
func TestALongRequestDoesNotUndoWhatOthersChangedInTheCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = sitetest.ThemeKey.Get(session)
			time.Sleep(2 * time.Hour)
			s.Do(v, func(other *sojourn.Session) { sitetest.ThemeKey.Set(other, "light") })
		})
		s.Do(v, func(session *sojourn.Session) {
			if got := sitetest.ThemeKey.Get(session); got != "light" {
				t.Errorf("the theme is %q", got)
			}
		})
	})
}

func TestRequestsThatWaitForThePageAreNoActivityWhileTheyLast(t *testing.T) {
	sleep := func(*sojourn.Session) { time.Sleep(40 * time.Minute) }
	for name, test := range map[string]struct {
		edit   func(*http.Request)
		handle func(http.ResponseWriter, *sojourn.Session)
	}{
		"an EventSource": {func(r *http.Request) { r.Header.Set("Accept", "text/event-stream") }, func(_ http.ResponseWriter, session *sojourn.Session) { sleep(session) }},
		"events for a script": {nil, func(w http.ResponseWriter, session *sojourn.Session) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			sleep(session)
		}},
		"lines of JSON": {nil, func(w http.ResponseWriter, session *sojourn.Session) {
			_ = http.NewResponseController(w).Flush()
			sleep(session)
		}},
		"whoever waits for its end": {nil, func(_ http.ResponseWriter, session *sojourn.Session) { _ = session.Done(); sleep(session) }},
		"one in the background":     {func(r *http.Request) { r.Header.Set("Sojourn-Background", "1") }, func(_ http.ResponseWriter, session *sojourn.Session) { sleep(session) }},
		"one that says so later": {nil, func(_ http.ResponseWriter, session *sojourn.Session) {
			time.Sleep(time.Minute)
			session.Background()
			sleep(session)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
				edit := test.edit
				if edit == nil {
					edit = func(*http.Request) {}
				}
				v.Get(s.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) { test.handle(w, session) }), edit)
				if loggedIn(s, v) {
					t.Error("an open page kept its session alive")
				}
				if n := s.Store.Touches.Load(); n != 0 {
					t.Errorf("%d touches", n)
				}
			})
		})
	}
}

// A message that comes in over a WebSocket, say.
func TestSaveDuringAStreamIsActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			_ = http.NewResponseController(w).Flush()
			done := session.Done()
			for range 240 {
				time.Sleep(10 * time.Second)
				if err := session.Save(r.Context()); err != nil {
					t.Fatalf("Save: %v", err)
				}
			}
			select {
			case <-done:
				t.Error("the session has ended")
			default:
			}
		})
		if !loggedIn(s, v) {
			t.Error("logged out")
		}
		if n := s.Store.Touches.Load(); n == 0 || n > 60 {
			t.Errorf("240 messages made %d touches", n)
		}
	})
}

// Logout is final: a long request does not restore the session.
func TestALongRequestDoesNotBringBackASessionThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest){
		"logout": func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) { s.Do(v.Copy(), (*sojourn.Session).Logout) },
		"login": func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v.Copy(), func(o *sojourn.Session) { o.Login("anna") })
		},
		"revocation": func(t *testing.T, s *sitetest.Lab, _ *sitetest.Guest) { _, _ = s.RevokeUser(t.Context(), "anna") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
				s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
					time.Sleep(5 * time.Minute)
					end(t, s, v)
					time.Sleep(40 * time.Minute)
				})
				if loggedIn(s, v) {
					t.Error("the session is back")
				}
				if n := s.Store.Touches.Load(); n != 0 {
					t.Errorf("%d touches", n)
				}
			})
		})
	}
}

func TestAnOutageDuringALongRequestIsSatOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			time.Sleep(time.Minute)
			s.Store.Down.Store(true)
			time.Sleep(13*time.Minute + 45*time.Second)
			s.Store.Down.Store(false)
			time.Sleep(26 * time.Minute)
		})
		if !loggedIn(s, v) {
			t.Error("logged out")
		}
	})
}

func TestAnOutageUntilTheEndOfASessionIsNotOutlived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			s.Store.Down.Store(true)
			time.Sleep(20 * time.Minute)
			before := s.Store.Calls()
			s.Store.Down.Store(false)
			time.Sleep(time.Hour)
			if n := s.Store.Calls() - before; n != 0 {
				t.Errorf("a session that is over was asked for %d times", n)
			}
		})
		if loggedIn(s, v) {
			t.Error("a session that others saw expire is back")
		}
	})
}

func TestALongRequestLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, idle), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { time.Sleep(time.Minute) })
		calls := s.Store.Calls()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := s.Store.Calls() - calls; n != 0 {
			t.Errorf("the store was called %d times after the request", n)
		}
	})
}

// A shorter timeout that another request has set counts from then on.
func TestALongRequestHonoursATimeoutThatWasShortened(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 100 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		var latest time.Time
		db.OnTouch = func(_ context.Context, _ store.ID, _, deadline time.Time) error {
			latest = deadline
			return nil
		}
		slow := anna.Begin(shop)
		time.Sleep(time.Hour)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.SetExpiry(quarter, 0) })
		time.Sleep(90 * time.Hour)
		slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Get(s) })
		if latest.After(time.Now().Add(quarter)) {
			t.Errorf("touched until %v", time.Until(latest))
		}
	})
}
