// Package sojourntest helps to test handlers that use sessions.
//
// A handler test has three steps. [Request] makes a request of a visitor with a
// session, the handler answers it, and [Session] returns the session that was
// kept:
//
//	func TestCheckoutEmptiesTheCart(t *testing.T) {
//		sessions := sojourntest.NewManager(t, sojourn.Config{})
//		handler := sessions.Wrap(shop(sessions))
//		r := sojourntest.Request(t, sessions, "POST", "/checkout", nil, func(s *sojourn.Session) {
//			s.Login("ada")
//			cart.Set(s, []string{"mug"})
//		})
//		w := httptest.NewRecorder()
//		handler.ServeHTTP(w, r)
//		if left := cart.Get(sojourntest.Session(t, sessions, r, w.Result())); len(left) > 0 {
//			t.Errorf("still in the cart: %v", left)
//		}
//	}
//
// [Serve] runs the handler and returns an [Outcome], whose methods check in one
// line each the user, the values, the placement, and whether anything was
// saved. [LoggedIn] makes a logged-in visitor's request. [Events] records what
// happened to sessions.
//
// A [Browser] does the same over several requests: it keeps cookies as a
// browser does, and calls the handler directly, without a network. A [Client]
// does so for an API: it keeps a token. [Form] and [JSON] are bodies with their
// Content-Type.
//
// The package works with each placement, with several managers, and with the
// service's own manager instead of one from [NewManager]. It also works within
// [testing/synctest] bubbles, so expiry can be tested without waiting: make the
// manager inside the bubble, and let [time.Sleep] pass the fake time.
package sojourntest

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// NewManager returns a manager for a test. It fills in the fields of cfg that
// are not set: new Keys, a new store in memory (none for [sojourn.CookieOnly]),
// and a Logger that writes to the test's log. The manager is closed when the
// test ends. A mistake in cfg fails the test at once.
func NewManager(t testing.TB, cfg sojourn.Config) *sojourn.Manager {
	t.Helper()
	if cfg.Keys == nil {
		keys, err := sojourn.ParseKeys(keys.Generate())
		if err != nil {
			t.Fatalf("sojourntest: making keys: %v", err)
		}
		cfg.Keys = keys
	}
	if cfg.Store == nil && cfg.Mode != sojourn.CookieOnly {
		cfg.Store = memory.New()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := sojourn.New(cfg)
	if err != nil {
		t.Fatalf("sojourntest: making a session manager: %v", err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// Request returns a request of a visitor whose session prepare has set up: it
// may set values, log a user in, or leave flash messages. The changes are saved
// as an earlier request would save them, and the returned request carries the
// cookies of that earlier response. With a nil prepare, or one that changes
// nothing, it is a new visitor's request.
//
// It is a server's request, made by [httptest.NewRequest]. target is a path or
// an absolute URL. A path means HTTPS, because session cookies are Secure by
// default. If the session cannot be saved, the test fails at once.
func Request(t testing.TB, m *sojourn.Manager, method, target string, body io.Reader, prepare func(*sojourn.Session)) *http.Request {
	t.Helper()
	r := newRequest(method, target, body)
	if prepare != nil {
		setCookies(r.Header, nil, cookiesOf(save(t, m, sojourn.InfoOf(r), prepare)))
	}
	return r
}

// Session returns the session as the visitor's next request would find it:
// after the handler has answered r with res. Use it for inspection only:
// changes that a test makes to it are not kept.
//
// r is the request that the handler received. It may be nil if it had no
// session. res comes from an [httptest.ResponseRecorder] or from a real server.
// If the session cannot be loaded, the test fails at once.
func Session(t testing.TB, m *sojourn.Manager, r *http.Request, res *http.Response) *sojourn.Session {
	t.Helper()
	next := sojourn.RequestInfo{Header: http.Header{}}
	var sent []*http.Cookie
	if r != nil {
		sent, next = r.Cookies(), sojourn.InfoOf(r)
		next.Header = http.Header{}
		setToken(next.Header, tokenOf(r.Header))
	}
	if renewed, ok := res.Header[tokenField]; ok {
		next.Header.Del("Authorization")
		setToken(next.Header, renewed[0])
	}
	setCookies(next.Header, sent, res.Cookies())
	return look(t, m, next)
}

// setCookies gives a request header the cookies of sent, changed by a
// response's Set-Cookie fields. A deleted cookie stays with an empty value,
// which means the same to a manager.
func setCookies(header http.Header, sent, set []*http.Cookie) {
	values := map[string]string{}
	for _, c := range slices.Concat(sent, set) {
		values[c.Name] = c.Value
	}
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, name+"="+value)
	}
	if slices.Sort(pairs); len(pairs) > 0 {
		header.Set("Cookie", strings.Join(pairs, "; "))
	}
}

// save lets f change the session that a request brings, saves it, and returns the
// header that a response would have.
func save(t testing.TB, m *sojourn.Manager, in sojourn.RequestInfo, f func(*sojourn.Session)) http.Header {
	t.Helper()
	out := http.Header{}
	x := attach(t, m, in)
	defer func() { _ = x.Finish() }()
	f(load(t, m, x))
	if err := x.Commit(http.StatusOK, out); err != nil {
		t.Fatalf("sojourntest: saving the session: %v", err)
	}
	return out
}

func cookiesOf(header http.Header) []*http.Cookie {
	return (&http.Response{Header: header}).Cookies()
}

// look returns the session that a request brings, until the test ends.
func look(t testing.TB, m *sojourn.Manager, in sojourn.RequestInfo) *sojourn.Session {
	t.Helper()
	x := attach(t, m, in)
	release := x.Hold() // the session of a held exchange still expires
	t.Cleanup(func() { release(); _ = x.Finish() })
	return load(t, m, x)
}

func attach(t testing.TB, m *sojourn.Manager, in sojourn.RequestInfo) *sojourn.Exchange {
	_, x := m.Attach(t.Context(), func() sojourn.RequestInfo { return in })
	return x
}

func load(t testing.TB, m *sojourn.Manager, x *sojourn.Exchange) *sojourn.Session {
	t.Helper()
	s, err := m.Get(x)
	if err != nil {
		t.Fatalf("sojourntest: loading the session: %v", err)
	}
	return s
}

// newRequest is httptest.NewRequest, over HTTPS if target is a path, and with
// the type of its body, if it has one.
func newRequest(method, target string, body io.Reader) *http.Request {
	typed, _ := body.(typedBody)
	if typed.Reader != nil {
		body = typed.Reader // httptest sets its length
	}
	r := httptest.NewRequest(method, target, body)
	if typed.contentType != "" {
		r.Header.Set("Content-Type", typed.contentType)
	}
	if r.URL.Host == "" {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: r.Host}
	}
	return r
}
