package sojourn_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
)

// call is an RPC whose metadata are bare headers: it opens v's session, runs f,
// and lets the cookies that were set reach v.
func (s *site) call(v *guest, f func(session *sojourn.Session, out http.Header)) http.Header {
	s.t.Helper()
	in, out := http.Header{"User-Agent": {"rpc/1"}}, http.Header{}
	if len(v.cookies) > 0 {
		in.Set("Cookie", v.header())
	}
	session, err := s.Open(s.t.Context(), in, out)
	if err != nil {
		s.t.Fatalf("Open: %v", err)
	}
	f(session, out)
	v.keep(&http.Response{Header: out})
	return out
}

func save(t *testing.T, session *sojourn.Session) {
	t.Helper()
	if err := session.Save(t.Context()); err != nil {
		t.Errorf("Save: %v", err)
	}
}

func TestOpenLoadsAndSaveSetsTheCookie(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	out := s.call(v, func(session *sojourn.Session, out http.Header) {
		if !session.IsNew() {
			t.Error("not new")
		}
		cartKey.Set(session, 1)
		if s.calls() > 0 || len(out["Set-Cookie"]) > 0 {
			t.Error("saved by itself")
		}
		save(t, session)
	})
	if got := out["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary %q", got)
	}
	if got := out.Get("Cache-Control"); got != "private" {
		t.Errorf("Cache-Control %q", got)
	}
	s.call(v, func(session *sojourn.Session, out http.Header) {
		if session.IsNew() || cartKey.Get(session) != 1 {
			t.Errorf("the cart is %d", cartKey.Get(session))
		}
		cartKey.Set(session, 2) // and forgets to save
	})
	if got := cartOf(s, v); got != 1 { // the same session over HTTP
		t.Errorf("the cart is %d", got)
	}
}

func TestASecondSaveReplacesItsOwnLineAndNoOther(t *testing.T) {
	s := newSite(t)
	s.call(newGuest(t), func(session *sojourn.Session, out http.Header) {
		out.Add("Set-Cookie", stateCookie+"x=1")
		out.Add("Set-Cookie", "other=1")
		for _, theme := range []string{"dark", "light", "dark"} {
			themeKey.Set(session, theme)
			save(t, session)
		}
		if got := out["Set-Cookie"]; len(got) != 3 || got[0] != stateCookie+"x=1" || got[1] != "other=1" || !strings.HasPrefix(got[2], stateCookie+"=") {
			t.Errorf("lines %q", got)
		}
		cartKey.Set(session, 1)
		save(t, session)
		if got := out["Set-Cookie"]; len(got) != 4 || !strings.HasPrefix(got[2], refCookie+"=") || !strings.HasPrefix(got[3], stateCookie+"=; Max-Age=0") {
			t.Errorf("lines %q", got)
		}
		session.Login("anna")
		save(t, session)
		session.Logout()
		save(t, session)
		if got := out["Set-Cookie"]; len(got) != 4 || !strings.HasPrefix(got[2], stateCookie+"=; Max-Age=0") || !strings.HasPrefix(got[3], refCookie+"=; Max-Age=0") {
			t.Errorf("lines %q", got)
		}
	})
	if live, _ := s.store.rows(t); live != 0 {
		t.Errorf("%d sessions live", live)
	}
}

func TestWithoutAHeaderForCookies(t *testing.T) {
	const over = "nothing is kept that would need one"
	for name, test := range map[string]struct {
		before func(*sojourn.Session) // nil: a new visitor
		change func(*sojourn.Session)
		late   bool
	}{
		"new, inline":                {nil, func(s *sojourn.Session) { themeKey.Set(s, "dark") }, true},
		"new, stored":                {nil, func(s *sojourn.Session) { cartKey.Set(s, 1) }, true},
		"new, login":                 {nil, func(s *sojourn.Session) { s.Login("anna") }, true},
		"inline, change":             {func(s *sojourn.Session) { themeKey.Set(s, "dark") }, func(s *sojourn.Session) { themeKey.Set(s, "light") }, true},
		"inline, logout":             {func(s *sojourn.Session) { themeKey.Set(s, "dark") }, func(s *sojourn.Session) { s.Logout() }, true},
		"stored, rotate":             {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Rotate() }, true},
		"stored, login":              {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Login("anna") }, true},
		"stored, logout and a flash": {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Logout(); s.Flash("info", "bye") }, true},
		"stored, change":             {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { cartKey.Set(s, 2) }, false},
		"stored, logout":             {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { s.Logout() }, false},
		"stored, read":               {func(s *sojourn.Session) { cartKey.Set(s, 1) }, func(s *sojourn.Session) { cartKey.Get(s) }, false},
		"new, read":                  {nil, func(s *sojourn.Session) { themeKey.Get(s) }, false},
	} {
		s := newSite(t)
		v := newGuest(t)
		if test.before != nil {
			s.do(v, test.before)
		}
		live, _ := s.store.rows(t)
		session, err := s.Open(t.Context(), http.Header{"Cookie": {v.header()}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		test.change(session)
		err = session.Save(t.Context())
		if errors.Is(err, sojourn.ErrTooLate) != test.late || err != nil && !test.late {
			t.Errorf("%s: Save: %v", name, err)
		}
		if now, _ := s.store.rows(t); test.late && now > live {
			t.Errorf("%s: %s", name, over)
		}
	}
}

func TestWithoutAHeaderAStoredSessionIsSavedEvenIfItsCookiesWantToBeRenewed(t *testing.T) {
	_, oldKey, _ := keyOfDay(1)
	_, newKey, _ := keyOfDay(2)
	before := newSite(t, func(c *sojourn.Config) { c.Keys = ring(t, oldKey) })
	s := newSite(t, func(c *sojourn.Config) { c.Keys, c.Store = ring(t, oldKey, newKey), before.store })
	v := newGuest(t)
	before.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
	left := newGuest(t)
	before.do(left, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
	v.cookies[stateCookie] = left.cookies[stateCookie] // left over from before
	session, err := s.Open(t.Context(), http.Header{"Cookie": {v.header()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		cartKey.Set(session, 2+n)
		save(t, session)
	}
	if got := cartOf(s, v); got != 4 {
		t.Errorf("the cart is %d", got)
	}
}

func TestSaveNotesTheActivityOfACallThatOnlyReads(t *testing.T) {
	for name, key := range map[string]sojourn.Key[int]{"inline": sojourn.NewKey[int]("small"), "stored": cartKey} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout = 20 * time.Hour })
				v := newGuest(t)
				s.do(v, func(session *sojourn.Session) { key.Set(session, 1) })
				for range 5 {
					wait(15 * time.Hour)
					s.call(v, func(session *sojourn.Session, _ http.Header) {
						if key.Get(session) != 1 {
							t.Fatal("expired although it was used")
						}
						save(t, session)
					})
				}
			})
		})
	}
}

func TestOpenOfGarbageIsANewVisitor(t *testing.T) {
	s := newSite(t)
	for _, header := range []string{"", "=", ";;;", refCookie, refCookie + "=\x00", refCookie + "=" + strings.Repeat("A", 1<<20)} {
		session, err := s.Open(t.Context(), http.Header{"Cookie": {header}}, http.Header{})
		if err != nil || !session.IsNew() {
			t.Errorf("%.20q: %v", header, err)
		}
	}
	if _, err := s.Open(t.Context(), nil, nil); err != nil {
		t.Errorf("no header at all: %v", err)
	}
	if s.calls() > 0 {
		t.Error("the store was called")
	}
}

func TestOpenFailsOnlyWhenTheStoreDoes(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
	s.store.down.Store(true)
	if _, err := s.Open(t.Context(), http.Header{"Cookie": {v.header()}}, nil); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, errStoreDown) {
		t.Errorf("Open: %v", err)
	}
	if _, err := s.Open(t.Context(), http.Header{}, nil); err != nil {
		t.Errorf("Open for a new visitor: %v", err)
	}
}

func TestAFailedSaveKeepsNothingAndCanBeTriedAgain(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.call(v, func(session *sojourn.Session, out http.Header) {
		cartKey.Set(session, 1)
		s.store.saveDown.Store(true)
		if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Save: %v", err)
		}
		if len(out["Set-Cookie"]) > 0 {
			t.Errorf("lines %q", out["Set-Cookie"])
		}
		s.store.saveDown.Store(false)
		save(t, session)
	})
	if got := cartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}
