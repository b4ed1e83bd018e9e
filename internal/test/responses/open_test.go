package responses_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
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
func TestOpenLoadsAndSaveSetsTheCookie(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	out := s.Call(v, func(session *sojourn.Session, out http.Header) {
		if !session.IsNew() {
			t.Error("not new")
		}
		sitetest.CartKey.Set(session, 1)
		if s.Calls() > 0 || len(out["Set-Cookie"]) > 0 {
			t.Error("saved by itself")
		}
		sitetest.Save(t, session)
	})
	if got := out["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary %q", got)
	}
	if got := out.Get("Cache-Control"); got != "private" {
		t.Errorf("Cache-Control %q", got)
	}
	s.Call(v, func(session *sojourn.Session, out http.Header) {
		if session.IsNew() || sitetest.CartKey.Get(session) != 1 {
			t.Errorf("the cart is %d", sitetest.CartKey.Get(session))
		}
		sitetest.CartKey.Set(session, 2) // and forgets to save
	})
	if got := sitetest.CartOf(s, v); got != 1 { // the same session over HTTP
		t.Errorf("the cart is %d", got)
	}
}

func TestASecondSaveReplacesItsOwnLineAndNoOther(t *testing.T) {
	s := sitetest.NewLab(t)
	s.Call(sitetest.NewGuest(t), func(session *sojourn.Session, out http.Header) {
		out.Add("Set-Cookie", sitetest.StateCookie+"x=1")
		out.Add("Set-Cookie", "other=1")
		for _, theme := range []string{"dark", "light", "dark"} {
			sitetest.ThemeKey.Set(session, theme)
			sitetest.Save(t, session)
		}
		if got := out["Set-Cookie"]; len(got) != 3 || got[0] != sitetest.StateCookie+"x=1" || got[1] != "other=1" || !strings.HasPrefix(got[2], sitetest.StateCookie+"=") {
			t.Errorf("lines %q", got)
		}
		sitetest.CartKey.Set(session, 1)
		sitetest.Save(t, session)
		if got := out["Set-Cookie"]; len(got) != 4 || !strings.HasPrefix(got[2], sitetest.RefCookie+"=") || !strings.HasPrefix(got[3], sitetest.StateCookie+"=; Max-Age=0") {
			t.Errorf("lines %q", got)
		}
		session.Login("anna")
		sitetest.Save(t, session)
		session.Logout()
		sitetest.Save(t, session)
		if got := out["Set-Cookie"]; len(got) != 4 || !strings.HasPrefix(got[2], sitetest.StateCookie+"=; Max-Age=0") || !strings.HasPrefix(got[3], sitetest.RefCookie+"=; Max-Age=0") {
			t.Errorf("lines %q", got)
		}
	})
	if live := sitetest.Rows(t, s.Store); live != 0 {
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
		session, err := s.Open(t.Context(), http.Header{"Cookie": {v.Header()}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		test.change(session)
		err = session.Save(t.Context())
		if errors.Is(err, sojourn.ErrTooLate) != test.late || err != nil && !test.late {
			t.Errorf("%s: Save: %v", name, err)
		}
		if now := sitetest.Rows(t, s.Store); test.late && now > live {
			t.Errorf("%s: %s", name, over)
		}
	}
}

func TestWithoutAHeaderAStoredSessionIsSavedEvenIfItsCookiesWantToBeRenewed(t *testing.T) {
	_, oldKey, _ := sitetest.KeyOfDay(1)
	_, newKey, _ := sitetest.KeyOfDay(2)
	before := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys = sitetest.Ring(t, oldKey) })
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = sitetest.Ring(t, oldKey, newKey), before.Store })
	v := sitetest.NewGuest(t)
	before.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	left := sitetest.NewGuest(t)
	before.Do(left, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	v.Cookies[sitetest.StateCookie] = left.Cookies[sitetest.StateCookie] // left over from before
	session, err := s.Open(t.Context(), http.Header{"Cookie": {v.Header()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		sitetest.CartKey.Set(session, 2+n)
		sitetest.Save(t, session)
	}
	if got := sitetest.CartOf(s, v); got != 4 {
		t.Errorf("the cart is %d", got)
	}
}

func TestSaveNotesTheActivityOfACallThatOnlyReads(t *testing.T) {
	for name, key := range map[string]sojourn.Key[int]{"inline": sojourn.NewKey[int]("small"), "stored": sitetest.CartKey} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = 20 * time.Hour })
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { key.Set(session, 1) })
				for range 5 {
					time.Sleep(15 * time.Hour)
					s.Call(v, func(session *sojourn.Session, _ http.Header) {
						if key.Get(session) != 1 {
							t.Fatal("expired although it was used")
						}
						sitetest.Save(t, session)
					})
				}
			})
		})
	}
}

func TestOpenOfGarbageIsANewVisitor(t *testing.T) {
	s := sitetest.NewLab(t)
	for _, header := range []string{"", "=", ";;;", sitetest.RefCookie, sitetest.RefCookie + "=\x00", sitetest.RefCookie + "=" + strings.Repeat("A", 1<<20)} {
		session, err := s.Open(t.Context(), http.Header{"Cookie": {header}}, http.Header{})
		if err != nil || !session.IsNew() {
			t.Errorf("%.20q: %v", header, err)
		}
	}
	if _, err := s.Open(t.Context(), nil, nil); err != nil {
		t.Errorf("no header at all: %v", err)
	}
	if s.Calls() > 0 {
		t.Error("the store was called")
	}
}

func TestOpenFailsOnlyWhenTheStoreDoes(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Store.Down.Store(true)
	if _, err := s.Open(t.Context(), http.Header{"Cookie": {v.Header()}}, nil); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, faults.ErrLost) {
		t.Errorf("Open: %v", err)
	}
	if _, err := s.Open(t.Context(), http.Header{}, nil); err != nil {
		t.Errorf("Open for a new visitor: %v", err)
	}
}

func TestAFailedSaveKeepsNothingAndCanBeTriedAgain(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Call(v, func(session *sojourn.Session, out http.Header) {
		sitetest.CartKey.Set(session, 1)
		s.Store.SaveDown.Store(true)
		if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Save: %v", err)
		}
		if len(out["Set-Cookie"]) > 0 {
			t.Errorf("lines %q", out["Set-Cookie"])
		}
		s.Store.SaveDown.Store(false)
		sitetest.Save(t, session)
	})
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}

// A mobile client gets its credential in the body and sends it as a token, as
// asked for in alexedwards/scs#100 and #108.
func TestAClientWithoutCookiesSendsItsCredentialAsAToken(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.StoredOnly)
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, out := http.Header{}, http.Header{}
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			in.Set("Cookie", sitetest.RefCookie+"="+token)
		}
		session, err := s.Open(r.Context(), in, out)
		if err != nil {
			s.ServeError(w, r, err)
			return
		}
		if r.URL.Path == "/login" {
			session.Login("anna")
		}
		if err := session.Save(r.Context()); err != nil {
			s.ServeError(w, r, err)
			return
		}
		if line := out.Get("Set-Cookie"); line != "" {
			c, err := http.ParseSetCookie(line)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(w, c.Value)
			return
		}
		io.WriteString(w, session.User())
	})
	client := sitetest.NewGuest(t)
	token := sitetest.Body(t, client.Request(api, "POST", "https://api.example/login"))
	resp := client.Request(api, "GET", "https://api.example/me", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	sitetest.WantCookies(t, resp)
	if got := sitetest.Body(t, resp); got != "anna" {
		t.Errorf("the API knows %q", got)
	}
	if got := sitetest.Body(t, client.Request(api, "GET", "https://api.example/me")); got != "" {
		t.Errorf("without a token the API knows %q", got)
	}
}
