package logins_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

var errWrong = errors.New("wrong password")

func right(context.Context) error { return nil }

func TestLoginIfLogsInWhereTheCheckPasses(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	before := v.Copy()
	checks := 0
	s.Do(v, func(session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		err := session.LoginIf(t.Context(), "ada", func(context.Context) error { checks++; return nil }, "pwd")
		if err != nil || session.User() != "ada" || !session.Recent(1e9) {
			t.Errorf("LoginIf: %v, the user is %q", err, session.User())
		}
	})
	if checks != 2 {
		t.Errorf("it was checked %d times", checks)
	}
	s.Do(v, func(session *sojourn.Session) {
		if session.User() != "ada" || sitetest.CartKey.Get(session) != 1 || sitetest.ThemeKey.Get(session) != "dark" {
			t.Errorf("the session has %q, %d, %q", session.User(), sitetest.CartKey.Get(session), sitetest.ThemeKey.Get(session))
		}
	})
	s.Do(before, func(session *sojourn.Session) {
		if !session.IsNew() {
			t.Error("the session before is still there")
		}
	})
	if live := sitetest.Rows(t, s.Store); live != 1 {
		t.Errorf("%d sessions are live", live)
	}
}

func TestALoginThatTheCheckRefusesChangesNothing(t *testing.T) {
	for name, before := range map[string]func(*sojourn.Session){
		"a new visitor":  nil,
		"inline":         func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored":         func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
		"another user":   func(s *sojourn.Session) { s.Login("bob"); sitetest.CartKey.Set(s, 2) },
		"the same user":  func(s *sojourn.Session) { s.Login("ada"); sitetest.CartKey.Set(s, 3) },
		"after a logout": func(s *sojourn.Session) { s.Login("ada"); s.Logout() },
	} {
		for _, at := range []int{1, 2} {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			if before != nil {
				s.Do(v, before)
			}
			live := sitetest.Rows(t, s.Store)
			cookies := v.Header()
			resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				user, handle, names := session.User(), session.Handle(), strings.Join(session.Names(), " ")
				n := 0
				err := session.LoginIf(r.Context(), "ada", func(context.Context) error {
					if n++; n == at {
						return errWrong
					}
					return nil
				})
				if !errors.Is(err, errWrong) {
					t.Errorf("%s, check %d: LoginIf: %v", name, at, err)
				}
				if session.User() != user || session.Handle() != handle || strings.Join(session.Names(), " ") != names {
					t.Errorf("%s, check %d: the session has changed", name, at)
				}
				w.WriteHeader(http.StatusUnauthorized)
			})
			sitetest.WantStatus(t, resp, http.StatusUnauthorized)
			if v.Header() != cookies {
				t.Errorf("%s, check %d: the cookies have changed", name, at)
			}
			if got := sitetest.Rows(t, s.Store); got != live {
				t.Errorf("%s, check %d: %d sessions are live, before there were %d", name, at, got, live)
			}
			if got := s.Stats().Logins - map[bool]uint64{true: 1}[strings.Contains(name, "user")]; got != 0 {
				t.Errorf("%s, check %d: %d logins are counted", name, at, got)
			}
		}
	}
}

// A request's earlier changes stay pending when the login fails.
func TestALoginThatFailsLeavesThePendingChanges(t *testing.T) {
	for name, user := range map[string]string{"anonymous": "", "another user": "bob"} {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) {
			if sitetest.CartKey.Set(session, 1); user != "" {
				session.Login(user)
			}
		})
		s.Do(v, func(session *sojourn.Session) {
			sitetest.CartKey.Update(session, sitetest.AddOne)
			sitetest.ThemeKey.Set(session, "dark")
			n := 0
			_ = session.LoginIf(t.Context(), "ada", func(context.Context) error {
				if n++; n == 2 {
					return errWrong
				}
				return nil
			})
			sitetest.CartKey.Update(session, sitetest.AddOne)
		})
		s.Do(v, func(session *sojourn.Session) {
			if session.User() != user || sitetest.CartKey.Get(session) != 3 || sitetest.ThemeKey.Get(session) != "dark" {
				t.Errorf("%s: %q, %d, %q", name, session.User(), sitetest.CartKey.Get(session), sitetest.ThemeKey.Get(session))
			}
		})
	}
}

func TestALoginThatFailsEndsNobodysOtherSessions(t *testing.T) {
	for name, refuse := range map[string]bool{"the oldest goes": false, "the limit refuses": true} {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Limit = sojourn.Limit{Max: 2, Refuse: refuse} })
		var guests []*sitetest.Guest
		for range 2 {
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) {
				if err := session.LoginIf(t.Context(), "ada", right); err != nil {
					t.Error(err)
				}
			})
			guests = append(guests, v)
		}
		alive := func() (n int) {
			for _, v := range guests {
				s.Do(v, func(session *sojourn.Session) {
					if session.User() == "ada" {
						n++
					}
				})
			}
			return n
		}
		third := sitetest.NewGuest(t)
		n := 0
		s.Do(third, func(session *sojourn.Session) {
			err := session.LoginIf(t.Context(), "ada", func(context.Context) error {
				if n++; n == 2 {
					if alive() != 2 {
						t.Errorf("%s: a session was ended before the login was sure", name)
					}
					return errWrong
				}
				return nil
			})
			if want := map[bool]error{false: errWrong, true: sojourn.ErrTooManySessions}[refuse]; !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if alive() != 2 {
			t.Errorf("%s: the login that failed has ended a session", name)
		}
		s.Do(third, func(session *sojourn.Session) {
			err := session.LoginIf(t.Context(), "ada", right)
			if refuse != errors.Is(err, sojourn.ErrTooManySessions) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got, want := alive(), map[bool]int{false: 1, true: 2}[refuse]; got != want {
			t.Errorf("%s: %d of the first sessions are alive, want %d", name, got, want)
		}
	}
}

func TestLoginIfWithALimitReplacesItsOwnSession(t *testing.T) {
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Limit = sojourn.Limit{Max: 2} })
	one, two := sitetest.NewGuest(t), sitetest.NewGuest(t)
	for _, v := range []*sitetest.Guest{one, two, two, two} { // signing in again is no other session
		s.Do(v, func(session *sojourn.Session) {
			if err := session.LoginIf(t.Context(), "ada", right); err != nil {
				t.Error(err)
			}
		})
	}
	for _, v := range []*sitetest.Guest{one, two} {
		s.Do(v, func(session *sojourn.Session) {
			if session.User() != "ada" {
				t.Error("a session has ended")
			}
		})
	}
}

func TestWhereLoginIfIsTooLate(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var leaked *sojourn.Session
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		leaked = session
		_, _ = w.Write([]byte("the page"))
		if err := session.LoginIf(r.Context(), "ada", right); !errors.Is(err, sojourn.ErrTooLate) {
			t.Errorf("after the first byte: %v", err)
		}
	})
	if err := leaked.LoginIf(t.Context(), "ada", right); !errors.Is(err, sojourn.ErrTooLate) {
		t.Errorf("after the request: %v", err)
	}
	for name, login := range map[string]func(*sojourn.Session) error{
		"an empty user":        func(session *sojourn.Session) error { return session.LoginIf(t.Context(), "", right) },
		"a method of a phrase": func(session *sojourn.Session) error { return session.LoginIf(t.Context(), "ada", right, "a phrase") },
	} {
		s.Do(v, func(session *sojourn.Session) {
			if err := login(session); !errors.Is(err, sojourn.ErrBadValue) || session.User() != "" {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestACheckMustNotUseTheSession(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		text := sitetest.Panics(func() {
			_ = session.LoginIf(t.Context(), "ada", func(context.Context) error { _ = session.User(); return nil })
		})
		if !strings.Contains(text, "must not use the session") {
			t.Errorf("the panic says %q", text)
		}
		if session.User() != "" {
			t.Error("the user is logged in")
		}
	})
}

func TestACheckThatPanicsLogsNobodyIn(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		n := 0
		text := sitetest.Panics(func() {
			_ = session.LoginIf(t.Context(), "ada", func(context.Context) error {
				if n++; n == 2 {
					panic("on purpose")
				}
				return nil
			})
		})
		if text != "on purpose" || session.User() != "" {
			t.Errorf("%q, the user is %q", text, session.User())
		}
	})
	if live := sitetest.Rows(t, s.Store); live != 0 {
		t.Errorf("%d sessions are live", live)
	}
}

func TestLoginIfInCookiesOnly(t *testing.T) {
	s, v := sitetest.NewLab(t, sitetest.CookieOnly), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		if err := session.LoginIf(t.Context(), "ada", func(context.Context) error { return errWrong }); !errors.Is(err, errWrong) || session.User() != "" {
			t.Errorf("%v, %q", err, session.User())
		}
		if err := session.LoginIf(t.Context(), "ada", right); err != nil {
			t.Error(err)
		}
	})
	s.Do(v, func(session *sojourn.Session) {
		if session.User() != "ada" {
			t.Error("not logged in")
		}
	})
}
