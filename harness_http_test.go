package sojourn_test

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
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// What the tests of HTTP behaviour have in common: a manager whose store counts
// its calls and fails when told to, a log that can be read, and a visitor with
// a cookie jar.

var errStoreDown = errors.New("the store is down")

// spy is a store in memory that counts its calls and can be switched off.
type spy struct {
	*memory.Store
	loads, saves, deletes, touches atomic.Int64

	down     atomic.Bool
	saveDown atomic.Bool
	// onSave, if set, runs inside each Save, before anything is kept.
	onSave atomic.Pointer[func(context.Context)]
	// onLoad likewise, inside each Load.
	onLoad atomic.Pointer[func()]
}

func newSpy() *spy { return &spy{Store: memory.New()} }

func (s *spy) calls() int64 {
	return s.loads.Load() + s.saves.Load() + s.deletes.Load() + s.touches.Load()
}

func (s *spy) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.loads.Add(1)
	if f := s.onLoad.Load(); f != nil {
		(*f)()
	}
	if s.down.Load() {
		return store.Record{}, errStoreDown
	}
	return s.Store.Load(ctx, id)
}

func (s *spy) Save(ctx context.Context, rec store.Record, base store.Base) error {
	s.saves.Add(1)
	if f := s.onSave.Load(); f != nil {
		(*f)(ctx)
	}
	if s.down.Load() || s.saveDown.Load() {
		return errStoreDown
	}
	return s.Store.Save(ctx, rec, base)
}

func (s *spy) Delete(ctx context.Context, id store.ID, until time.Time) error {
	s.deletes.Add(1)
	if s.down.Load() {
		return errStoreDown
	}
	return s.Store.Delete(ctx, id, until)
}

func (s *spy) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	s.touches.Add(1)
	if s.down.Load() {
		return errStoreDown
	}
	return s.Store.Touch(ctx, id, seen, deadline)
}

// rows is how many sessions are live, and how many records there are in all.
func (s *spy) rows(t *testing.T) (live, all int64) {
	t.Helper()
	n, err := s.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.Live, n.Live + n.Expired + n.Ended
}

// logBook keeps what was logged.
type logBook struct {
	mu    sync.Mutex
	lines []string // level, message and attributes
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// with returns the lines that contain text.
func (b *logBook) with(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, line := range b.lines {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

func (b *logBook) all() []string { return b.with("") }

// site is a manager and what belongs to it.
type site struct {
	*sojourn.Manager
	*ops.Ops
	t     *testing.T
	keys  *sojourn.KeyRing
	store *spy // nil if the manager has none
	log   *logBook
}

func newSite(t *testing.T, edit ...func(*sojourn.Config)) *site {
	t.Helper()
	s := &site{t: t, store: newSpy(), log: &logBook{}}
	c := sojourn.Config{Keys: newKeys(t), Store: s.store, Logger: slog.New(s.log)}
	for _, f := range edit {
		f(&c)
	}
	if c.Store == nil {
		s.store = nil
	} else {
		s.store, _ = c.Store.(*spy)
	}
	m, err := sojourn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	s.Manager, s.Ops, s.keys = m, ops.For(m), c.Keys
	return s
}

func cookieOnly(c *sojourn.Config) { c.Store, c.Mode = nil, sojourn.CookieOnly }
func storedOnly(c *sojourn.Config) { c.Mode = sojourn.StoredOnly }

func newKeys(t testing.TB) *sojourn.KeyRing {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// serve is Manager.Handler for one request of v.
func (s *site) serve(v *guest, f func(http.ResponseWriter, *http.Request, *sojourn.Session)) *http.Response {
	s.t.Helper()
	return v.get(s.Handler(f))
}

// do runs f with v's session in a request that is answered 200, and fails the
// test if it was not.
func (s *site) do(v *guest, f func(*sojourn.Session)) *http.Response {
	s.t.Helper()
	resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { f(session) })
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("the request was answered %s", resp.Status)
	}
	return resp
}

// has reports whether v's session has a value of that name.
func (s *site) has(v *guest, name string) bool {
	s.t.Helper()
	var ok bool
	s.do(v, func(session *sojourn.Session) { ok = session.Has(name) })
	return ok
}

// guest is a browser: it keeps cookies as the Set-Cookie lines say, as far as
// one host is concerned.
type guest struct {
	t       *testing.T
	cookies map[string]string
	// raw, if set, is sent as the Cookie header lines instead.
	raw []string
}

func newGuest(t *testing.T) *guest { return &guest{t: t, cookies: map[string]string{}} }

func (v *guest) copy() *guest {
	return &guest{t: v.t, cookies: maps.Clone(v.cookies)}
}

// header is the visitor's Cookie header line, its names in order.
func (v *guest) header() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(v.cookies)) {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(name + "=" + v.cookies[name])
	}
	return b.String()
}

// prepare puts the cookies into a request.
func (v *guest) prepare(r *http.Request) *http.Request {
	switch {
	case v.raw != nil:
		r.Header["Cookie"] = v.raw
	case len(v.cookies) > 0:
		r.Header.Set("Cookie", v.header())
	}
	return r
}

// keep does what a browser does with the response's cookies.
func (v *guest) keep(resp *http.Response) *http.Response {
	v.t.Helper()
	for _, line := range resp.Header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			v.t.Fatalf("Set-Cookie %q: %v", line, err)
		}
		if len(c.Name)+len(c.Value) > 4096 {
			v.t.Errorf("cookie %s has %d bytes of name and value", c.Name, len(c.Name)+len(c.Value))
			continue
		}
		if c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		} else {
			v.cookies[c.Name] = c.Value
		}
	}
	return resp
}

func (v *guest) request(h http.Handler, method, target string, edit ...func(*http.Request)) *http.Response {
	v.t.Helper()
	r := v.prepare(httptest.NewRequestWithContext(v.t.Context(), method, target, nil))
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return v.keep(w.Result())
}

func (v *guest) get(h http.Handler, edit ...func(*http.Request)) *http.Response {
	v.t.Helper()
	return v.request(h, http.MethodGet, "https://shop.example/", edit...)
}

// names of the cookies that a response sets, in order, deletions with a "-".
func setNames(resp *http.Response) []string {
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

func wantStatus(t *testing.T, resp *http.Response, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Fatalf("status %d, want %d", resp.StatusCode, want)
	}
}

func wantCookies(t *testing.T, resp *http.Response, want ...string) {
	t.Helper()
	if got := setNames(resp); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("the response sets %q, want %q", got, want)
	}
}

const (
	refCookie   = "__Host-session"
	stateCookie = "__Host-session-state"
)

var (
	themeKey = sojourn.NewKey[string]("theme")
	cartKey  = sojourn.NewKey[int]("cart", sojourn.ServerSide)
)

// inFakeTime runs f with a clock that [wait] moves.
func inFakeTime(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }

// wait lets the fake clock go on by d.
func wait(d time.Duration) { time.Sleep(d) }
