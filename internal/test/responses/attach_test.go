package responses_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// It serves frameworks that call handlers in their own way, with their own context,
// as asked for in alexedwards/scs#57, #106, #132 and #143.
func TestAttachLoadsOnDemandAndCommitSetsTheCookie(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	out := s.Call(v, func(session *sojourn.Session) {
		if !session.IsNew() {
			t.Error("not new")
		}
		sitetest.CartKey.Set(session, 1)
		if s.Calls() > 0 {
			t.Error("saved before the commit")
		}
	})
	if len(out["Set-Cookie"]) != 1 {
		t.Errorf("the header is %q", out)
	}
	if got := sitetest.CartOf(s, v); got != 1 { // the same session over HTTP
		t.Errorf("the cart is %d", got)
	}
}

func TestAnAttachedRequestThatIsNotAskedForItsSessionCostsNothing(t *testing.T) {
	s := sitetest.NewLab(t)
	ctx, x := s.Attach(t.Context(), func() sojourn.RequestInfo { t.Error("info was called"); return sojourn.RequestInfo{} })
	if !sojourn.Fail(ctx) || sojourn.Commit(ctx) != nil {
		t.Error("the context belongs to no request")
	}
	out := http.Header{}
	if err := errors.Join(x.Commit(http.StatusOK, out), x.Finish()); err != nil || len(out) > 0 || s.Calls() > 0 {
		t.Errorf("%v, the header is %q, %d calls", err, out, s.Calls())
	}
}

func TestInfoIsCalledOnceHoweverOftenALoadIsTried(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	calls := 0
	ctx, x := s.Attach(t.Context(), func() sojourn.RequestInfo {
		calls++
		return sojourn.RequestInfo{Method: "GET", Header: http.Header{"Cookie": {v.Header()}}}
	})
	defer func() { _ = x.Finish() }()
	gaveUp, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Get(gaveUp); err == nil {
		t.Error("loaded for somebody who had given up")
	}
	session, err := s.Get(ctx)
	if err != nil || sitetest.CartKey.Get(session) != 1 {
		t.Errorf("Get: %v", err)
	}
	if err := x.Commit(http.StatusOK, http.Header{}); err != nil || calls != 1 {
		t.Errorf("%v, info was called %d times", err, calls)
	}
}

// The ends of an exchange, and whether its changes and its logout are kept.
func TestWhatAnExchangeKeeps(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*sojourn.Exchange, http.Header) error
		kept bool
	}{
		"200":                      {func(x *sojourn.Exchange, h http.Header) error { return x.Commit(200, h) }, true},
		"404":                      {func(x *sojourn.Exchange, h http.Header) error { return x.Commit(404, h) }, true},
		"500":                      {func(x *sojourn.Exchange, h http.Header) error { return x.Commit(500, h) }, false},
		"503":                      {func(x *sojourn.Exchange, h http.Header) error { return x.Commit(503, h) }, false},
		"200 after Fail":           {func(x *sojourn.Exchange, h http.Header) error { x.Fail(); return x.Commit(200, h) }, false},
		"200 after package's Fail": {func(x *sojourn.Exchange, h http.Header) error { sojourn.Fail(x); return x.Commit(200, h) }, false},
		"the package's Commit after Fail": {func(x *sojourn.Exchange, h http.Header) error {
			sojourn.Fail(x)
			return errors.Join(sojourn.Commit(x), x.Commit(200, h))
		}, false},
		"the package's Commit, and then a failure": {func(x *sojourn.Exchange, h http.Header) error {
			return errors.Join(sojourn.Commit(x), x.Commit(500, h))
		}, true},
		"a second commit is the first": {func(x *sojourn.Exchange, h http.Header) error {
			return errors.Join(x.Commit(200, h), x.Commit(500, h))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			for _, leave := range []bool{false, true} {
				session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
				if err != nil {
					t.Fatal(err)
				}
				if leave {
					session.Logout()
				} else {
					sitetest.CartKey.Set(session, 2)
				}
				out := http.Header{}
				if err := errors.Join(test.end(x, out), x.Finish()); err != nil {
					t.Error(err)
				}
				if leave {
					if live := sitetest.Rows(t, s.Store); live != 0 || len(out["Set-Cookie"]) != 1 {
						t.Errorf("after a logout %d sessions are live, and the header is %q", live, out)
					}
				} else if got := sitetest.CartOf(s, v); (got == 2) != test.kept {
					t.Errorf("the cart is %d, kept: %t", got, test.kept)
				}
			}
		})
	}
}

// A recovery outside Wrap answers, or net/http ends the connection.
func TestAPanicKeepsNothingButALogout(t *testing.T) {
	for name, before := range map[string]func(*sojourn.Session){
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"login":  func(s *sojourn.Session) { s.Login("ada"); sitetest.CartKey.Set(s, 1) },
	} {
		for _, started := range []bool{false, true} {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, before)
			old := v.Copy()
			panics := func(change func(*sojourn.Session)) http.Handler {
				inner := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
					if started {
						_, _ = w.Write([]byte("the page"))
					}
					change(session)
					panic("on purpose")
				})
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						if recover() != nil && !started {
							w.WriteHeader(http.StatusInternalServerError)
						}
					}()
					inner.ServeHTTP(w, r)
				})
			}
			v.Get(panics(func(session *sojourn.Session) { sitetest.CartKey.Set(session, 9); session.Login("eve") }))
			s.Do(v, func(session *sojourn.Session) {
				if session.IsNew() || session.User() == "eve" || sitetest.CartKey.Get(session) == 9 {
					t.Errorf("%s, started %t: a change was kept, or the session lost", name, started)
				}
			})
			v.Get(panics(func(session *sojourn.Session) { sitetest.CartKey.Set(session, 9); session.Logout() }))
			if !started && len(v.Cookies) > 0 {
				t.Errorf("%s: %d cookies are left", name, len(v.Cookies))
			}
			if name == "inline" {
				continue // a copy of the cookie has its values
			}
			s.Do(old, func(session *sojourn.Session) {
				if !session.IsNew() {
					t.Errorf("%s, started %t: the logout was lost", name, started)
				}
			})
		}
	}
}

func TestAnExchangeWithoutACommitKeepsNothing(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
	if err != nil {
		t.Fatal(err)
	}
	sitetest.CartKey.Set(session, 2)
	if err := x.Finish(); err != nil {
		t.Error(err)
	}
	if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) {
		t.Errorf("Save: %v", err)
	}
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}

func TestWhatAStreamChangesIsKeptByFinishOrByTheLastRelease(t *testing.T) {
	for name, hold := range map[string]bool{"Finish": false, "release": true} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
		if err != nil {
			t.Fatal(err)
		}
		release := func() {}
		if hold {
			release = x.Hold()
		}
		if err := x.Commit(http.StatusOK, http.Header{}); err != nil {
			t.Error(err)
		}
		if hold {
			if err := x.Finish(); err != nil {
				t.Error(err)
			}
		}
		sitetest.CartKey.Set(session, 2)
		release()
		if err := x.Finish(); err != nil {
			t.Error(err)
		}
		if got := sitetest.CartOf(s, v); got != 2 {
			t.Errorf("%s: the cart is %d", name, got)
		}
	}
}

func TestALostLateChangeIsAnErrorOfFinish(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Commit(http.StatusOK, http.Header{}); err != nil {
		t.Error(err)
	}
	sitetest.CartKey.Set(session, 2)
	s.Store.SaveDown.Store(true)
	if err := x.Finish(); !errors.Is(err, sojourn.ErrUnavailable) || s.Stats().LateChanges != 1 {
		t.Errorf("Finish: %v, %d late changes", err, s.Stats().LateChanges)
	}
}

func TestACommitThatFailsKeepsOnlyALogoutAndFailsTheRequest(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	for name, commit := range map[string]func(*sojourn.Exchange, http.Header) error{
		"the exchange's": func(x *sojourn.Exchange, h http.Header) error { return x.Commit(http.StatusOK, h) },
		"the package's": func(x *sojourn.Exchange, h http.Header) error {
			err := sojourn.Commit(x)
			s.Store.SaveDown.Store(false) // it must not be tried again
			if again := x.Commit(http.StatusOK, h); again != nil {
				t.Errorf("the second commit: %v", again)
			}
			return err
		},
	} {
		session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
		if err != nil {
			t.Fatal(err)
		}
		sitetest.CartKey.Set(session, 2)
		s.Store.SaveDown.Store(true)
		failed := s.Stats().FailedCommits
		err = commit(x, http.Header{})
		status, text := sojourn.ErrorStatus(err)
		if !errors.Is(err, sojourn.ErrUnavailable) || status != http.StatusServiceUnavailable || text == "" {
			t.Errorf("%s: %v, %d %q", name, err, status, text)
		}
		if got := s.Stats().FailedCommits - failed; got != 1 {
			t.Errorf("%s: %d failed commits are counted", name, got)
		}
		_ = x.Finish()
		s.Store.SaveDown.Store(false)
		if got := sitetest.CartOf(s, v); got != 1 {
			t.Errorf("%s: the cart is %d", name, got)
		}
	}
}

func TestFailAndCommitReachTheSessionsOfAllManagers(t *testing.T) {
	one := sitetest.NewLab(t)
	two := sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	for name, fail := range map[string]bool{"Fail": true, "Commit": false} {
		resp := sitetest.NewGuest(t).Get(one.Wrap(two.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, m := range []*sojourn.Manager{one.Manager, two.Manager} {
				session, err := m.Get(r.Context())
				if err != nil {
					t.Error(err)
					return
				}
				sitetest.CartKey.Set(session, 1)
			}
			ctx := context.WithoutCancel(r.Context())
			if fail {
				if !sojourn.Fail(ctx) {
					t.Error("Fail found no request")
				}
			} else if err := sojourn.Commit(ctx); err != nil {
				t.Error(err)
			}
		}))))
		if got := len(resp.Header["Set-Cookie"]); (got == 2) == fail || fail && got != 0 {
			t.Errorf("%s: %d cookies were set", name, got)
		}
	}
	if sojourn.Fail(t.Context()) || sojourn.Commit(t.Context()) != nil {
		t.Error("a context of no request has one")
	}
}

func TestACommitAfterTheHeaderHasBeenSent(t *testing.T) {
	const over = "nothing is kept that would need one"
	for name, test := range map[string]struct {
		before func(*sojourn.Session) // nil: a new visitor
		change func(*sojourn.Session)
		late   bool
	}{
		"new, inline":                {nil, func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") }, true},
		"new, stored":                {nil, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, true},
		"new, login":                 {nil, func(s *sojourn.Session) { s.Login("anna") }, true},
		"inline, change":             {func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") }, func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "light") }, true},
		"inline, logout":             {func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") }, func(s *sojourn.Session) { s.Logout() }, true},
		"stored, rotate":             {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Rotate() }, true},
		"stored, login":              {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Login("anna") }, true},
		"stored, logout and a flash": {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Logout(); s.Flash("info", "bye") }, true},
		"stored, change":             {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, false},
		"stored, logout":             {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Logout() }, false},
		"stored, read":               {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, func(s *sojourn.Session) { sitetest.CartKey.Get(s) }, false},
		"new, read":                  {nil, func(s *sojourn.Session) { sitetest.ThemeKey.Get(s) }, false},
	} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		if test.before != nil {
			s.Do(v, test.before)
		}
		live := sitetest.Rows(t, s.Store)
		session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
		if err != nil {
			t.Fatal(err)
		}
		test.change(session)
		err = errors.Join(x.Commit(http.StatusOK, nil), x.Finish())
		if errors.Is(err, sojourn.ErrTooLate) != test.late || err != nil && !test.late {
			t.Errorf("%s: Commit: %v", name, err)
		}
		if now := sitetest.Rows(t, s.Store); test.late && now > live {
			t.Errorf("%s: %s", name, over)
		}
	}
}

func TestAfterTheHeaderAStoredSessionIsSavedEvenIfItsCookiesAreToBeRenewed(t *testing.T) {
	_, oldKey, _ := sitetest.KeyOfDay(1)
	_, newKey, _ := sitetest.KeyOfDay(2)
	before := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys = sitetest.Ring(t, oldKey) })
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = sitetest.Ring(t, oldKey, newKey), before.Store })
	v := sitetest.NewGuest(t)
	before.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	left := sitetest.NewGuest(t)
	before.Do(left, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	v.Cookies[sitetest.StateCookie] = left.Cookies[sitetest.StateCookie] // left over from before
	session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Commit(http.StatusOK, nil); err != nil {
		t.Error(err)
	}
	for n := range 3 {
		sitetest.CartKey.Set(session, 2+n)
		sitetest.Save(t, session)
	}
	if got := sitetest.CartOf(s, v); got != 4 {
		t.Errorf("the cart is %d", got)
	}
}

func TestACommitNotesTheActivityOfACallThatOnlyReads(t *testing.T) {
	for name, key := range map[string]sojourn.Key[int]{"inline": sojourn.NewKey[int]("small"), "stored": sitetest.CartKey} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = 20 * time.Hour })
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { key.Set(session, 1) })
				for range 5 {
					time.Sleep(15 * time.Hour)
					s.Call(v, func(session *sojourn.Session) {
						if key.Get(session) != 1 {
							t.Fatal("expired although it was used")
						}
					})
				}
			})
		})
	}
}

func TestAHeaderOfGarbageIsANewVisitor(t *testing.T) {
	s := sitetest.NewLab(t)
	for _, header := range []string{"", "=", ";;;", sitetest.RefCookie, sitetest.RefCookie + "=\x00", sitetest.RefCookie + "=" + strings.Repeat("A", 1<<20)} {
		session, _, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {header}})
		if err != nil || !session.IsNew() {
			t.Errorf("%.20q: %v", header, err)
		}
	}
	if _, _, err := sitetest.Begin(t.Context(), s.Manager, nil); err != nil {
		t.Errorf("no header at all: %v", err)
	}
	if s.Calls() > 0 {
		t.Error("the store was called")
	}
}

func TestALoadFailsOnlyWhenTheStoreDoes(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Store.Down.Store(true)
	if _, _, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}}); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, faults.ErrLost) {
		t.Errorf("Get: %v", err)
	}
	if _, _, err := sitetest.Begin(t.Context(), s.Manager, http.Header{}); err != nil {
		t.Errorf("Get for a new visitor: %v", err)
	}
}

func TestAFailedSaveKeepsNothingAndCanBeTriedAgain(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Call(v, func(session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		s.Store.SaveDown.Store(true)
		if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Save: %v", err)
		}
		s.Store.SaveDown.Store(false)
		sitetest.Save(t, session)
	})
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}
