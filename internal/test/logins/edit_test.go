package logins_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

var roles = sojourn.NewKey[[]string]("roles", sojourn.ServerSide)

func TestEditChangesASessionThatSomebodyElseHas(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var handle string
	s.Do(v, func(session *sojourn.Session) {
		session.Login("ada")
		roles.Set(session, []string{"clerk"})
		sitetest.CartKey.Set(session, 1)
		handle = session.Handle()
	})
	err := s.Edit(t.Context(), handle, func(session *sojourn.Session) error {
		if session.User() != "ada" || session.IsNew() {
			t.Errorf("the user is %q", session.User())
		}
		roles.Set(session, append(roles.Get(session), "editor"))
		session.Flash("info", "You are an editor now.")
		return nil
	})
	if err != nil {
		t.Errorf("Edit: %v", err)
	}
	resp := s.Do(v, func(session *sojourn.Session) {
		if got := roles.Get(session); !slices.Equal(got, []string{"clerk", "editor"}) || sitetest.CartKey.Get(session) != 1 {
			t.Errorf("the roles are %q", got)
		}
		if got := session.Flashes(); len(got) != 1 {
			t.Errorf("messages: %v", got)
		}
	})
	sitetest.WantCookies(t, resp)
}

func TestWhatAnEditCannotDo(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var handle string
	s.Do(v, func(session *sojourn.Session) {
		session.Login("ada")
		sitetest.CartKey.Set(session, 1)
		handle = session.Handle()
	})
	mine := errors.New("mine")
	for name, test := range map[string]struct {
		f    func(*sojourn.Session) error
		want error
	}{
		"log in":          {func(s *sojourn.Session) error { s.Login("bob"); return nil }, sojourn.ErrTooLate},
		"log out":         {func(s *sojourn.Session) error { s.Logout(); return nil }, sojourn.ErrTooLate},
		"rotate":          {func(s *sojourn.Session) error { s.Rotate(); return nil }, sojourn.ErrTooLate},
		"save":            {func(s *sojourn.Session) error { return s.Save(t.Context()) }, sojourn.ErrTooLate},
		"log in if":       {func(s *sojourn.Session) error { return s.LoginIf(t.Context(), "bob", right) }, sojourn.ErrTooLate},
		"fail":            {func(s *sojourn.Session) error { sitetest.CartKey.Set(s, 9); return mine }, mine},
		"set a bad value": {func(s *sojourn.Session) error { s.Set("c", make(chan int)); return nil }, sojourn.ErrBadValue},
		"grow too large":  {func(s *sojourn.Session) error { s.Set("x", make([]byte, 2<<20)); return nil }, sojourn.ErrTooLarge},
	} {
		if err := s.Edit(t.Context(), handle, test.f); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		s.Do(v, func(session *sojourn.Session) {
			if session.User() != "ada" || sitetest.CartKey.Get(session) != 1 {
				t.Errorf("%s: it has changed the session", name)
			}
		})
	}
	saves := s.Stats().Saves
	if err := s.Edit(t.Context(), handle, func(s *sojourn.Session) error { _ = s.User(); return nil }); err != nil || s.Stats().Saves != saves {
		t.Errorf("an edit that changes nothing: %v, %d saves", err, s.Stats().Saves-saves)
	}
	for _, handle := range []string{"", "nobody's", "aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if err := s.Edit(t.Context(), handle, func(*sojourn.Session) error { t.Error("called"); return nil }); !errors.Is(err, sojourn.ErrNotFound) {
			t.Errorf("handle %q: %v", handle, err)
		}
	}
	s.Do(v, func(session *sojourn.Session) { session.Logout() })
	if err := s.Edit(t.Context(), handle, func(*sojourn.Session) error { t.Error("called"); return nil }); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("a session that is over: %v", err)
	}
}

// An edit and the visitor's requests change the same value, and the edit
// depends on the value that it has read.
func TestAnEditIsNoActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour }), sitetest.NewGuest(t)
		var handle string
		s.Do(v, func(session *sojourn.Session) { session.Login("ada"); handle = session.Handle() })
		for range 3 {
			time.Sleep(25 * time.Minute)
			err := s.Edit(t.Context(), handle, func(session *sojourn.Session) error {
				sitetest.CartKey.Update(session, sitetest.AddOne)
				return nil
			})
			if over := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) > time.Hour; over != errors.Is(err, sojourn.ErrNotFound) {
				t.Errorf("after %v: %v", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), err)
			}
		}
	})
}

func TestEditUserPassesOverWhatEndsMeanwhile(t *testing.T) {
	s := sitetest.NewLab(t)
	var handles []string
	for range 3 {
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { session.Login("ada"); handles = append(handles, session.Handle()) })
	}
	edits := 0
	n, err := s.EditUser(t.Context(), "ada", func(session *sojourn.Session) error {
		if edits++; edits == 1 {
			for _, h := range handles {
				if h != session.Handle() {
					if err := s.Revoke(t.Context(), "ada", h); err != nil {
						t.Error(err)
					}
				}
			}
		}
		roles.Set(session, []string{"editor"})
		return nil
	})
	if n != 1 || err != nil {
		t.Errorf("EditUser: %d, %v", n, err)
	}
	if n, err := s.EditUser(t.Context(), "nobody", func(*sojourn.Session) error { return nil }); n != 0 || err != nil {
		t.Errorf("EditUser for nobody: %d, %v", n, err)
	}
}
