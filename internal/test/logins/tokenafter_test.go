package logins_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// A session that LoginIf or Save has stored in this request has no cookie in the browser yet.
func TestASessionThatThisRequestHasMadeAndSavedCanHaveAToken(t *testing.T) {
	for name, make := range map[string]func(context.Context, *sojourn.Session) error{
		"LoginIf": func(ctx context.Context, s *sojourn.Session) error { return s.LoginIf(ctx, "ada", right) },
		"Login":   func(ctx context.Context, s *sojourn.Session) error { s.Login("ada"); return s.Save(ctx) },
	} {
		for _, before := range []bool{false, true} {
			s, v := sitetest.NewLab(t, withTokens), sitetest.NewGuest(t)
			if before {
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			}
			a := &app{t: t}
			s.Do(v, func(session *sojourn.Session) {
				err := make(t.Context(), session)
				var none error
				if a.token, none = session.Token(t.Context()); err != nil || none != nil {
					t.Errorf("%s, with a session before: %t: %v, Token: %v", name, before, err, none)
				}
			})
			if got := v.Header(); got != "" {
				t.Errorf("%s, with a session before: %t: there is a cookie beside the token", name, before)
			}
			a.ask(s, func(session *sojourn.Session) {
				if session.User() != "ada" {
					t.Errorf("%s, with a session before: %t: the token leads to %q", name, before, session.User())
				}
			})
		}
	}
}

func TestASessionThatCameWithACookieHasNoTokenAfterASave(t *testing.T) {
	for name, put := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
	} {
		s, v := sitetest.NewLab(t, withTokens), sitetest.NewGuest(t)
		s.Do(v, put)
		s.Do(v, func(session *sojourn.Session) {
			sitetest.CartKey.Set(session, 2)
			err := session.Save(t.Context())
			if _, none := session.Token(t.Context()); err != nil || !errors.Is(none, sojourn.ErrHasCookie) {
				t.Errorf("%s: %v, Token: %v", name, err, none)
			}
		})
	}
}

// Adapters show clients the text of all other errors.
func TestMistakesOfTheProgramAreErrorsOfThisPackageToo(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		if _, err := session.Token(t.Context()); !sojourn.IsError(err) {
			t.Errorf("Token without Config.Bearer: %v", err)
		}
	})
	if _, err := sitetest.NewLab(t, byHost).Sessions(t.Context(), "ada"); !sojourn.IsError(err) {
		t.Errorf("Sessions without a tenant: %v", err)
	}
}
