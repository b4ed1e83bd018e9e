package sitetest

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

var ErrStoreDown = errors.New("the store is down")

// Spy is a store in memory that counts its calls and can be switched off.
type Spy struct {
	*memory.Store
	Loads, Saves, Deletes, Touches atomic.Int64

	Down     atomic.Bool
	SaveDown atomic.Bool
	// onSave, if set, runs inside each Save, before anything is kept.
	OnSave atomic.Pointer[func(context.Context)]
	// onLoad likewise, inside each Load.
	OnLoad atomic.Pointer[func()]
}

func NewSpy() *Spy { return &Spy{Store: memory.New()} }

func (s *Spy) Calls() int64 {
	return s.Loads.Load() + s.Saves.Load() + s.Deletes.Load() + s.Touches.Load()
}

func (s *Spy) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.Loads.Add(1)
	if f := s.OnLoad.Load(); f != nil {
		(*f)()
	}
	if s.Down.Load() {
		return store.Record{}, ErrStoreDown
	}
	return s.Store.Load(ctx, id)
}

func (s *Spy) Save(ctx context.Context, rec store.Record, base store.Base) error {
	s.Saves.Add(1)
	if f := s.OnSave.Load(); f != nil {
		(*f)(ctx)
	}
	if s.Down.Load() || s.SaveDown.Load() {
		return ErrStoreDown
	}
	return s.Store.Save(ctx, rec, base)
}

func (s *Spy) Delete(ctx context.Context, id store.ID, until time.Time) error {
	s.Deletes.Add(1)
	if s.Down.Load() {
		return ErrStoreDown
	}
	return s.Store.Delete(ctx, id, until)
}

func (s *Spy) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	s.Touches.Add(1)
	if s.Down.Load() {
		return ErrStoreDown
	}
	return s.Store.Touch(ctx, id, seen, deadline)
}

// Rows is how many sessions are live, and how many records there are in all.
func (s *Spy) Rows(t *testing.T) (live, all int64) {
	t.Helper()
	n, err := s.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.Live, n.Live + n.Expired + n.Ended
}

// LogBook keeps what was logged.
type LogBook struct {
	Mu    sync.Mutex
	Lines []string // level, message and attributes
}

func (b *LogBook) Enabled(context.Context, slog.Level) bool { return true }

func (b *LogBook) WithAttrs([]slog.Attr) slog.Handler { return b }

func (b *LogBook) WithGroup(string) slog.Handler { return b }

func (b *LogBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.Lines = append(b.Lines, line)
	return nil
}

// With returns the lines that contain text.
func (b *LogBook) With(text string) []string {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	var out []string
	for _, line := range b.Lines {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

func (b *LogBook) All() []string { return b.With("") }

// Lab is a manager and what belongs to it: a store that counts its calls, a log
// that can be read. Guests visit it without a network.
type Lab struct {
	*sojourn.Manager
	*ops.Ops
	T     *testing.T
	Keys  *sojourn.KeyRing
	Store *Spy // nil if the manager has none
	Log   *LogBook
}

func NewLab(t *testing.T, edit ...func(*sojourn.Config)) *Lab {
	t.Helper()
	s := &Lab{T: t, Store: NewSpy(), Log: &LogBook{}}
	c := sojourn.Config{Keys: Keys(t), Store: s.Store, Logger: slog.New(s.Log)}
	for _, f := range edit {
		f(&c)
	}
	if c.Store == nil {
		s.Store = nil
	} else {
		s.Store, _ = c.Store.(*Spy)
	}
	m, err := sojourn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	s.Manager, s.Ops, s.Keys = m, ops.For(m), c.Keys
	return s
}

func CookieOnly(c *sojourn.Config) { c.Store, c.Mode = nil, sojourn.CookieOnly }

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

// Guest is a browser: it keeps cookies as the Set-Cookie lines say, as far as
// one host is concerned.
type Guest struct {
	T       *testing.T
	Cookies map[string]string
	// raw, if set, is sent as the Cookie header lines instead.
	Raw []string
}

func NewGuest(t *testing.T) *Guest { return &Guest{T: t, Cookies: map[string]string{}} }

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

// Keep does what a browser does with the response's cookies.
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

func (v *Guest) Get(h http.Handler, edit ...func(*http.Request)) *http.Response {
	v.T.Helper()
	return v.Request(h, http.MethodGet, "https://shop.example/", edit...)
}

// names of the cookies that a response sets, in order, deletions with a "-".
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

func WantStatus(t *testing.T, resp *http.Response, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Fatalf("status %d, want %d", resp.StatusCode, want)
	}
}

func WantCookies(t *testing.T, resp *http.Response, want ...string) {
	t.Helper()
	if got := SetNames(resp); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("the response sets %q, want %q", got, want)
	}
}

// The names of a manager's cookies by default: of the reference, and of the
// values that are kept in the cookie.
const (
	RefCookie   = "__Host-session"
	StateCookie = "__Host-session-state"
)

// Keys of values in the cookie, and in the store.
var (
	ThemeKey = sojourn.NewKey[string]("theme")
	CartKey  = sojourn.NewKey[int]("cart", sojourn.ServerSide)
)
