package sojourn_test

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

// loggedIn reports whether v is still logged in, without that being activity.
func loggedIn(s *site, v *guest) (in bool) {
	s.t.Helper()
	s.do(v.copy(), func(session *sojourn.Session) { session.Background(); in = session.User() != "" })
	return in
}

func TestALongRequestKeepsItsSessionAlive(t *testing.T) {
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request, *sojourn.Session){
		"an upload": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = session.User()
			wait(40 * time.Minute)
			io.WriteString(w, "thank you")
		},
		"an upload that changes something": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			wait(40 * time.Minute)
			cartKey.Update(session, func(n int) int { return n + 1 })
		},
		"a download": func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			io.WriteString(w, "the first of many bytes")
			wait(40 * time.Minute)
			io.WriteString(w, "the last")
		},
		"with saves in between": func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			for range 4 {
				wait(10 * time.Minute)
				cartKey.Update(session, func(n int) int { return n + 1 })
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
			wait(40 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s, v := newSite(t, idle), newGuest(t)
				s.do(v, func(session *sojourn.Session) { session.Login("anna") })
				wait(14 * time.Minute) // almost idle
				wantStatus(t, s.serve(v, handler), http.StatusOK)
				wait(quarter) // its end is activity as much as its start
				if !loggedIn(s, v) {
					t.Error("logged out within the idle timeout after its end")
				}
				wait(time.Second)
				if loggedIn(s, v) {
					t.Error("logged in beyond the idle timeout")
				}
			})
		})
	}
}

func TestAnUploadThatArrivesAtTheLastMomentKeepsItsSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		wait(quarter - 100*time.Millisecond)
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { wait(40 * time.Minute) })
		if !loggedIn(s, v) {
			t.Error("logged out")
		}
	})
}

func TestOtherRequestsDuringALongOneAreLoggedIn(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		wait(10 * time.Minute)
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			for range 40 {
				wait(time.Minute)
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

// toucherless hides what a store does beyond the contract.
type toucherless struct{ store.Store }

func TestALongRequestKeepsItsSessionAliveInAStoreThatCannotTouch(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle, func(c *sojourn.Config) { c.Store = toucherless{memory.New()} }), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna"); cartKey.Set(session, 1) })
		wait(10 * time.Minute)
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			themeKey.Set(session, "dark") // pending all the time
			for range 40 {
				wait(time.Minute)
				if !loggedIn(s, v) {
					t.Fatal("logged out during the upload")
				}
			}
			s.do(v.copy(), func(other *sojourn.Session) {
				if other.Has("theme") {
					t.Error("a pending change was kept before its time")
				}
			})
			cartKey.Update(session, func(n int) int { return n + 1 })
		})
		wait(14 * time.Minute)
		s.do(v, func(session *sojourn.Session) {
			if cartKey.Get(session) != 2 || themeKey.Get(session) != "dark" {
				t.Errorf("kept %d and %q", cartKey.Get(session), themeKey.Get(session))
			}
		})
	})
}

func TestALongRequestOfASessionInTheCookieRefreshesIt(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = themeKey.Get(session)
			wait(40 * time.Minute)
		})
		wait(14 * time.Minute)
		if !s.has(v, "theme") {
			t.Error("the session ended after the request")
		}
	})
}

// A long request that changes nothing must not bring back what its cookie held.
func TestALongRequestDoesNotUndoWhatOthersChangedInTheCookie(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t), newGuest(t)
		s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			_ = themeKey.Get(session)
			wait(2 * time.Hour)
			s.do(v, func(other *sojourn.Session) { themeKey.Set(other, "light") })
		})
		s.do(v, func(session *sojourn.Session) {
			if got := themeKey.Get(session); got != "light" {
				t.Errorf("the theme is %q", got)
			}
		})
	})
}

func TestRequestsThatWaitForThePageAreNoActivityWhileTheyLast(t *testing.T) {
	sleep := func(*sojourn.Session) { wait(40 * time.Minute) }
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
			wait(time.Minute)
			session.Background()
			sleep(session)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s, v := newSite(t, idle), newGuest(t)
				s.do(v, func(session *sojourn.Session) { session.Login("anna") })
				edit := test.edit
				if edit == nil {
					edit = func(*http.Request) {}
				}
				v.get(s.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) { test.handle(w, session) }), edit)
				if loggedIn(s, v) {
					t.Error("an open page kept its session alive")
				}
				if n := s.store.touches.Load(); n != 0 {
					t.Errorf("%d touches", n)
				}
			})
		})
	}
}

// A message that comes in over a WebSocket, say.
func TestSaveDuringAStreamIsActivity(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			_ = http.NewResponseController(w).Flush()
			done := session.Done()
			for range 240 {
				wait(10 * time.Second)
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
		if n := s.store.touches.Load(); n == 0 || n > 60 {
			t.Errorf("240 messages made %d touches", n)
		}
	})
}

// Logout is final: a long request brings nothing back.
func TestALongRequestDoesNotBringBackASessionThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *site, v *guest){
		"logout":     func(t *testing.T, s *site, v *guest) { s.do(v.copy(), (*sojourn.Session).Logout) },
		"login":      func(t *testing.T, s *site, v *guest) { s.do(v.copy(), func(o *sojourn.Session) { o.Login("anna") }) },
		"revocation": func(t *testing.T, s *site, _ *guest) { _, _ = s.RevokeUser(t.Context(), "anna") },
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s, v := newSite(t, idle), newGuest(t)
				s.do(v, func(session *sojourn.Session) { session.Login("anna") })
				s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
					wait(5 * time.Minute)
					end(t, s, v)
					wait(40 * time.Minute)
				})
				if loggedIn(s, v) {
					t.Error("the session is back")
				}
				if n := s.store.touches.Load(); n != 0 {
					t.Errorf("%d touches", n)
				}
			})
		})
	}
}

func TestAnOutageDuringALongRequestIsSatOut(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			wait(time.Minute)
			s.store.down.Store(true)
			wait(13*time.Minute + 45*time.Second)
			s.store.down.Store(false)
			wait(26 * time.Minute)
		})
		if !loggedIn(s, v) {
			t.Error("logged out")
		}
	})
}

func TestAnOutageUntilTheEndOfASessionIsNotOutlived(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			s.store.down.Store(true)
			wait(20 * time.Minute)
			before := s.store.calls()
			s.store.down.Store(false)
			wait(time.Hour)
			if n := s.store.calls() - before; n != 0 {
				t.Errorf("a session that is over was asked for %d times", n)
			}
		})
		if loggedIn(s, v) {
			t.Error("a session that others saw expire is back")
		}
	})
}

func TestALongRequestLeavesNothingBehind(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, v := newSite(t, idle), newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { wait(time.Minute) })
		calls := s.store.calls()
		wait(24 * time.Hour)
		synctest.Wait()
		if n := s.store.calls() - calls; n != 0 {
			t.Errorf("the store was called %d times after the request", n)
		}
	})
}

// A shorter timeout that another request has set counts from then on.
func TestALongRequestHonoursATimeoutThatWasShortened(t *testing.T) {
	days(t, sojourn.Config{IdleTimeout: 100 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		does(t, anna, shop, func(s *sojourn.Session) { visits.Set(s, 1) })
		var latest time.Time
		db.OnTouch = func(_ context.Context, _ store.ID, _, deadline time.Time) error {
			latest = deadline
			return nil
		}
		slow := anna.Begin(shop)
		time.Sleep(time.Hour)
		does(t, anna, shop, func(s *sojourn.Session) { s.SetExpiry(quarter, 0) })
		time.Sleep(90 * time.Hour)
		slow.Finish(func(s *sojourn.Session) { visits.Get(s) })
		if latest.After(time.Now().Add(quarter)) {
			t.Errorf("touched until %v", time.Until(latest))
		}
	})
}
