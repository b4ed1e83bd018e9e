package logins_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestALogoutBeforeATokenThatThereIsNotStillExpiresTheCookie(t *testing.T) {
	for name, put := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
		"login":  func(s *sojourn.Session) { s.Login("ada") },
	} {
		for then, change := range map[string]func(*sojourn.Session){
			"nothing":   func(*sojourn.Session) {},
			"too large": func(s *sojourn.Session) { s.Set("big", strings.Repeat("x", 2<<20)) },
		} {
			s, v := sitetest.NewLab(t, withTokens), sitetest.NewGuest(t)
			s.Do(v, put)
			s.Do(v, func(session *sojourn.Session) {
				session.Logout()
				change(session)
				if token, err := session.Token(t.Context()); err == nil || token != "" {
					t.Errorf("%s, %s: a token, %v", name, then, err)
				}
				session.Discard()
			})
			if got := v.Header(); got != "" {
				t.Errorf("%s, %s: the browser still has a cookie after the logout", name, then)
			}
			s.Do(v, func(session *sojourn.Session) {
				if !session.IsNew() || session.User() != "" || len(session.Names()) > 0 {
					t.Errorf("%s, %s: the session is back", name, then)
				}
			})
		}
	}
}

func TestATenantFunctionThatPanicsStopsNobodyWhoAsksAgain(t *testing.T) {
	s := sitetest.NewLab(t, func(c *sojourn.Config) {
		c.Tenant = func(*sojourn.RequestInfo) string { panic("no such host") }
	})
	s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		func() {
			defer func() { _ = recover() }() // as a middleware does
			_, _ = s.Get(r.Context())
			t.Error("there was no panic")
		}()
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Get(ctx); !errors.Is(err, sojourn.ErrUnavailable) || ctx.Err() != nil {
			t.Errorf("Get afterwards: %v; it has waited: %t", err, ctx.Err() != nil)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "https://a.example/", nil))
}

func TestALoginThatIsRefusedAfterALogoutLogsOutOnce(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("ada") })
	s.Do(v, func(session *sojourn.Session) {
		session.Logout()
		n := 0
		err := session.LoginIf(t.Context(), "bob", func(context.Context) error {
			if n++; n == 2 {
				return errWrong
			}
			return nil
		})
		if !errors.Is(err, errWrong) || session.User() != "" {
			t.Errorf("LoginIf: %v, user %q", err, session.User())
		}
	})
	if got := s.Stats().Logouts; got != 1 {
		t.Errorf("%d logouts are counted", got)
	}
}

func TestASlowCheckTakesNoneOfTheTimeOfTheStore(t *testing.T) {
	for name, before := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, v := sitetest.NewLab(t, func(c *sojourn.Config) { c.Timeout = time.Second }), sitetest.NewGuest(t)
			s.Do(v, before)
			s.Do(v, func(session *sojourn.Session) {
				if err := session.LoginIf(t.Context(), "ada", func(context.Context) error {
					time.Sleep(2 * time.Second)
					return nil
				}); err != nil {
					t.Errorf("%s: LoginIf: %v", name, err)
				}
			})
		})
	}
}
