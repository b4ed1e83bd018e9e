package responses_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// Changes that come too late to be kept.

var lateChanges = map[string]func(*sojourn.Session){
	"Set":       func(session *sojourn.Session) { sitetest.CartKey.Set(session, 7) },
	"Update":    func(session *sojourn.Session) { sitetest.CartKey.Update(session, func(n int) int { return n + 1 }) },
	"Pop":       func(session *sojourn.Session) { sitetest.CartKey.Pop(session) },
	"Delete":    func(session *sojourn.Session) { sitetest.CartKey.Delete(session) },
	"by name":   func(session *sojourn.Session) { session.Set("colour", "red") },
	"Clear":     func(session *sojourn.Session) { session.Clear() },
	"Flash":     func(session *sojourn.Session) { session.Flash("info", "late") },
	"Login":     func(session *sojourn.Session) { session.Login("eve") },
	"Logout":    func(session *sojourn.Session) { session.Logout() },
	"Rotate":    func(session *sojourn.Session) { session.Rotate() },
	"Remember":  func(session *sojourn.Session) { session.Remember(false) },
	"SetExpiry": func(session *sojourn.Session) { session.SetExpiry(time.Hour, time.Hour) },
}

// wantLate checks that one change was counted, and logged with that reason.
func wantLate(t *testing.T, s *sitetest.Lab, before uint64, reason string) {
	t.Helper()
	if n := s.Stats().LateChanges - before; n != 1 {
		t.Errorf("LateChanges grew by %d, want 1", n)
	}
	if lines := s.Log.With("ERROR a change of a session was lost"); len(lines) != 1 || !strings.Contains(lines[0], reason) {
		t.Errorf("logged %q, want %q once", lines, reason)
	}
}

func TestAChangeAfterTheHandlerHasReturnedIsLoggedAndCounted(t *testing.T) {
	for name, change := range lateChanges {
		t.Run(name, func(t *testing.T) {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			var leaked *sojourn.Session
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1); leaked = session })
			before := s.Stats().LateChanges
			change(leaked)
			wantLate(t, s, before, "the handler has returned")
			if err := leaked.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) || !strings.Contains(err.Error(), "returned") {
				t.Errorf("Save: %v", err)
			}
			s.Do(v, func(session *sojourn.Session) {
				if sitetest.CartKey.Get(session) != 1 || session.User() != "" || session.Has("colour") {
					t.Error("it was kept")
				}
			})
		})
	}
}

func TestWhatChangesNothingIsNoLateChange(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var leaked *sojourn.Session
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1); leaked = session })
	sitetest.CartKey.Set(leaked, 1)
	sitetest.CartKey.Update(leaked, func(n int) int { return n })
	leaked.Delete("nothing")
	leaked.Background()
	leaked.Discard()
	_, _, _, _ = sitetest.CartKey.Get(leaked), leaked.Flashes(), leaked.User(), leaked.Info()
	// All changes have been kept, so success is correct.
	if err := leaked.Save(t.Context()); err != nil {
		t.Errorf("Save: %v", err)
	}
	if n := s.Stats().LateChanges; n != 0 {
		t.Errorf("LateChanges is %d", n)
	}
}

func TestAGoroutineThatOutlivesItsHandlerIsToldWhatBecameOfItsChange(t *testing.T) {
	for name, test := range map[string]struct {
		handler func(http.ResponseWriter)
		reason  string
	}{
		"nothing was written":  {func(http.ResponseWriter) {}, "the handler has returned"},
		"a page was written":   {func(w http.ResponseWriter) { io.WriteString(w, "page") }, "the handler has returned"},
		"a stream":             {func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, "the handler has returned"},
		"an error was written": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, "the response is an error"},
	} {
		t.Run(name, func(t *testing.T) {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			before := s.Stats().LateChanges
			returned := make(chan struct{})
			var wg sync.WaitGroup
			s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				wg.Go(func() {
					<-returned
					sitetest.CartKey.Set(session, 2)
					if err := session.Save(context.WithoutCancel(r.Context())); !errors.Is(err, sojourn.ErrTooLate) || !strings.Contains(err.Error(), test.reason) {
						t.Errorf("Save: %v", err)
					}
				})
				test.handler(w)
			})
			close(returned)
			wg.Wait()
			wantLate(t, s, before, test.reason)
			if got := sitetest.CartOf(s, v); got != 1 {
				t.Errorf("the cart is %d", got)
			}
		})
	}
}

func TestAChangeAfterAnErrorAnswerIsLoggedAndCounted(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 2) // an error answer keeps nothing, as documented
		session.Discard()
		w.WriteHeader(http.StatusInternalServerError)
		session.Flash("error", "Something went wrong")
	})
	wantLate(t, s, 0, "the response is an error")
}

func TestSaveAfterAFailedCommitSaysWhy(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Store.SaveDown.Store(true)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 2)
		io.WriteString(w, "page")
		s.Store.SaveDown.Store(false)
		err := session.Save(r.Context())
		if !errors.Is(err, sojourn.ErrTooLate) || !errors.Is(err, sojourn.ErrUnavailable) || !strings.Contains(err.Error(), "the commit has failed") {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
}

func TestSaveDuringAResponseSaysWhatItCannotKeep(t *testing.T) {
	for name, test := range map[string]struct {
		start, change func(*sojourn.Session)
		kept          bool
	}{
		"a value in the store":    {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, true},
		"a message in the store":  {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Flash("info", "x") }, true},
		"a logout in the store":   {func(s *sojourn.Session) { s.Login("anna") }, (*sojourn.Session).Logout, true},
		"a login in the store":    {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Login("anna") }, false},
		"a rotation in the store": {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, (*sojourn.Session).Rotate, false},
		"a value in the cookie":   {func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") }, func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "light") }, false},
		"a move to the store":     {func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") }, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, false},
		"a new session":           {func(*sojourn.Session) {}, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, test.start)
			s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				io.WriteString(w, "first byte")
				test.change(session)
				err := session.Save(r.Context())
				if test.kept && err != nil {
					t.Errorf("Save: %v", err)
				}
				if !test.kept && (!errors.Is(err, sojourn.ErrTooLate) || !strings.Contains(err.Error(), "needs a cookie")) {
					t.Errorf("Save: %v", err)
				}
			})
			want := uint64(1)
			if test.kept {
				want = 0
			}
			if n := s.Stats().LateChanges; n != want {
				t.Errorf("LateChanges is %d, want %d", n, want)
			}
		})
	}
}

func TestAChangeThatNeedsACookieIsTooLateOnceTheHeaderIsOut(t *testing.T) {
	s := sitetest.NewLab(t)
	session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Commit(http.StatusOK, nil); err != nil {
		t.Errorf("Commit: %v", err)
	}
	sitetest.CartKey.Set(session, 1)
	if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) || !strings.Contains(err.Error(), "needs a cookie") {
		t.Errorf("Save: %v", err)
	}
	if n := s.Stats().LateChanges; n != 0 {
		t.Errorf("LateChanges is %d, although Save has said so", n)
	}
}

func TestManyLateChangesAreCountedAndLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		var leaked *sojourn.Session
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1); leaked = session })
		for i := range 100 {
			sitetest.CartKey.Set(leaked, 2+i)
		}
		if n := s.Stats().LateChanges; n != 100 {
			t.Errorf("LateChanges is %d", n)
		}
		if lines := s.Log.With("a change of a session was lost"); len(lines) != 1 {
			t.Errorf("logged %d lines", len(lines))
		}
		time.Sleep(2 * time.Minute)
		sitetest.CartKey.Set(leaked, 1000)
		if lines := s.Log.With("not_logged_before=99"); len(lines) != 1 {
			t.Errorf("logged %q", s.Log.All())
		}
	})
}

// It was used again for another request, as reported in gofiber/fiber#4265.
func TestASessionThatOutlivesItsRequestIsNobodyElses(t *testing.T) {
	s := sitetest.NewLab(t)
	anna, bob := sitetest.NewGuest(t), sitetest.NewGuest(t)
	var leaked *sojourn.Session
	s.Do(anna, func(session *sojourn.Session) { session.Login("anna"); leaked = session })
	s.Do(bob, func(session *sojourn.Session) { session.Login("bob") })
	sitetest.ThemeKey.Set(leaked, "anna's")
	if err := leaked.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) {
		t.Errorf("Save: %v", err)
	}
	s.Do(bob, func(session *sojourn.Session) {
		if session.User() != "bob" || sitetest.ThemeKey.Get(session) != "" {
			t.Errorf("bob is %q with %q", session.User(), sitetest.ThemeKey.Get(session))
		}
	})
	if leaked.User() != "anna" {
		t.Errorf("the session of anna's request is %q's", leaked.User())
	}
}
