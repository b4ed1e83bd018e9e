package logins_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A CookieOnly manager that gets a store leaves logged-in cookies behind. They
// have no server side, so a copy of one would survive every logout.
func TestALoginInACookieIsWorthNothingOnceThereIsAStore(t *testing.T) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	before, err := sojourn.New(sojourn.Config{Keys: keys, Mode: sojourn.CookieOnly})
	if err != nil {
		t.Fatal(err)
	}
	after, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	out := http.Header{}
	s, x, err := sitetest.Begin(t.Context(), before, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	s.Login("ada")
	if err := x.Commit(http.StatusOK, out); err != nil {
		t.Fatal(err)
	}
	in := http.Header{}
	for _, c := range (&http.Response{Header: out}).Cookies() {
		in.Add("Cookie", c.Name+"="+c.Value)
	}
	for name, m := range map[string]*sojourn.Manager{"ada": before, "": after} {
		s, _, err := sitetest.Begin(t.Context(), m, in)
		if err != nil {
			t.Fatal(err)
		}
		if s.User() != name {
			t.Errorf("user %q, want %q", s.User(), name)
		}
	}
}

func TestTheAddressOfAVisitorIsKeptWithAndWithoutAPort(t *testing.T) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{
		"192.0.2.7:50000": "192.0.2.7", "192.0.2.7": "192.0.2.7", "[2001:db8::1]:443": "2001:db8::1", "2001:db8::1": "2001:db8::1",
		"@": "", "nonsense": "",
	} {
		var got string
		h := m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			s.Login("ada")
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			got = s.Info().IP
		})
		r := httptest.NewRequest(http.MethodGet, "https://example.com/", nil)
		r.RemoteAddr = given
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got != want {
			t.Errorf("RemoteAddr %q: IP %q, want %q", given, got, want)
		}
	}
}
