package sitetest

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Lab is a manager with a store that counts its calls and can be switched off,
// and a log that can be read. A [Guest] visits it without a network.
type Lab struct {
	*sojourn.Manager
	*ops.Ops
	T     *testing.T
	Keys  *sojourn.KeyRing
	Store *faults.Store // nil if the manager has none, or another
	Log   *LogBook
}

// NewLab returns a lab whose configuration each edit has changed in turn. It is
// closed when the test ends.
func NewLab(t *testing.T, edit ...func(*sojourn.Config)) *Lab {
	t.Helper()
	s := &Lab{T: t, Store: faults.Wrap(memory.New()), Log: &LogBook{}}
	c := sojourn.Config{Keys: Keys(t), Store: s.Store, Logger: slog.New(s.Log)}
	for _, f := range edit {
		f(&c)
	}
	if c.Store == nil {
		s.Store = nil
	} else {
		s.Store, _ = c.Store.(*faults.Store)
	}
	m, err := sojourn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	s.Manager, s.Ops, s.Keys = m, ops.For(m), c.Keys
	return s
}

// CookieOnly is an edit of a configuration for [NewLab]: there is no store.
func CookieOnly(c *sojourn.Config) { c.Store, c.Mode = nil, sojourn.CookieOnly }

// StoredOnly is an edit of a configuration for [NewLab]: every session is stored.
func StoredOnly(c *sojourn.Config) { c.Mode = sojourn.StoredOnly }

// Serve is Manager.Handler for one request of v.
func (s *Lab) Serve(v *Guest, f func(http.ResponseWriter, *http.Request, *sojourn.Session)) *http.Response {
	s.T.Helper()
	return v.Get(s.Handler(f))
}

// Do runs f with v's session in a request that is answered 200, and fails the
// test if it was not.
func (s *Lab) Do(v *Guest, f func(*sojourn.Session)) *http.Response {
	s.T.Helper()
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { f(session) })
	if resp.StatusCode != http.StatusOK {
		s.T.Fatalf("the request was answered %s", resp.Status)
	}
	return resp
}

// Has reports whether v's session has a value of that name.
func (s *Lab) Has(v *Guest, name string) bool {
	s.T.Helper()
	var ok bool
	s.Do(v, func(session *sojourn.Session) { ok = session.Has(name) })
	return ok
}

// Guest is a browser for one host: it keeps cookies by the Set-Cookie lines.
type Guest struct {
	T       *testing.T
	Cookies map[string]string
	// Raw, if set, is sent as the Cookie header lines instead.
	Raw []string
}

// NewGuest returns a guest without cookies.
func NewGuest(t *testing.T) *Guest { return &Guest{T: t, Cookies: map[string]string{}} }

// Copy returns a guest with the cookies that this one has now.
func (v *Guest) Copy() *Guest {
	return &Guest{T: v.T, Cookies: maps.Clone(v.Cookies)}
}

// Header is the visitor's Cookie header line, its names in order.
func (v *Guest) Header() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(v.Cookies)) {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(name + "=" + v.Cookies[name])
	}
	return b.String()
}

// Prepare puts the cookies into a request.
func (v *Guest) Prepare(r *http.Request) *http.Request {
	switch {
	case v.Raw != nil:
		r.Header["Cookie"] = v.Raw
	case len(v.Cookies) > 0:
		r.Header.Set("Cookie", v.Header())
	}
	return r
}

// Keep keeps the response's cookies, like a browser.
func (v *Guest) Keep(resp *http.Response) *http.Response {
	v.T.Helper()
	for _, line := range resp.Header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			v.T.Fatalf("Set-Cookie %q: %v", line, err)
		}
		if len(c.Name)+len(c.Value) > 4096 {
			v.T.Errorf("cookie %s has %d bytes of name and value", c.Name, len(c.Name)+len(c.Value))
			continue
		}
		if c.MaxAge < 0 {
			delete(v.Cookies, c.Name)
		} else {
			v.Cookies[c.Name] = c.Value
		}
	}
	return resp
}

// Request sends a request to h, changed by each edit, and keeps the cookies of the
// response.
func (v *Guest) Request(h http.Handler, method, target string, edit ...func(*http.Request)) *http.Response {
	v.T.Helper()
	r := v.Prepare(httptest.NewRequestWithContext(v.T.Context(), method, target, nil))
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return v.Keep(w.Result())
}

// Get is [Guest.Request] for a page of the shop.
func (v *Guest) Get(h http.Handler, edit ...func(*http.Request)) *http.Response {
	v.T.Helper()
	return v.Request(h, http.MethodGet, "https://shop.example/", edit...)
}

// SetNames returns the names of the cookies that a response sets, in order,
// deletions with a "-".
func SetNames(resp *http.Response) []string {
	out := []string{}
	for _, line := range resp.Header["Set-Cookie"] {
		name, rest, _ := strings.Cut(line, "=")
		if strings.Contains(rest, "; Max-Age=0") {
			name = "-" + name
		}
		out = append(out, name)
	}
	return out
}

// WantStatus ends the test if a response has another status.
func WantStatus(t *testing.T, resp *http.Response, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Fatalf("status %d, want %d", resp.StatusCode, want)
	}
}

// WantCookies checks which cookies a response sets, as [SetNames] names them.
func WantCookies(t *testing.T, resp *http.Response, want ...string) {
	t.Helper()
	if got := SetNames(resp); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("the response sets %q, want %q", got, want)
	}
}

// The cookies of a manager by default.
const (
	// RefCookie is the name of the reference.
	RefCookie = "__Host-session"
	// StateCookie is the name of the state cookie, which holds values or a floor.
	StateCookie = "__Host-session-state"
)

var (
	// ThemeKey is of a value that may be in the cookie.
	ThemeKey = sojourn.NewKey[string]("theme")
	// CartKey is of a value that is in the store.
	CartKey = sojourn.NewKey[int]("cart", sojourn.ServerSide)
)
