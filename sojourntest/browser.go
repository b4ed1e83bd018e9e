package sojourntest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// A Browser is one visitor: it sends requests to a handler, without a network,
// and keeps the cookies of the answers for its next requests, as long as they
// last. Make one with [NewBrowser]. It is safe for concurrent use, like a
// browser with several tabs.
//
// If the handler panics, so does the method that sent the request. A response
// is complete when the method returns; streams that wait for another request
// need a real server.
type Browser struct {
	t       testing.TB
	handler http.Handler
	jar     *cookiejar.Jar

	mu   sync.Mutex
	page *url.URL // of the last request
}

// NewBrowser returns a new visitor of the site that handler serves.
func NewBrowser(t testing.TB, handler http.Handler) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatalf("sojourntest: making a cookie jar: %v", err)
	}
	return &Browser{t: t, handler: handler, jar: jar, page: &url.URL{Scheme: "https", Host: "example.com", Path: "/"}}
}

// Get requests target, a path or an absolute URL, and returns the response. It
// does not follow redirects, so that a test sees them; see [Browser.Follow].
func (b *Browser) Get(target string) *http.Response {
	return b.Do(b.Request(http.MethodGet, target, nil))
}

// PostForm sends a form to target, as Get requests one.
func (b *Browser) PostForm(target string, form url.Values) *http.Response {
	return b.Post(target, Form(form))
}

// Post sends a body to target, such as one of [Form] or [JSON].
func (b *Browser) Post(target string, body io.Reader) *http.Response {
	return b.Do(b.Request(http.MethodPost, target, body))
}

// Follow requests the page that res redirects to. A response that is no
// redirect fails the test at once.
func (b *Browser) Follow(res *http.Response) *http.Response {
	b.t.Helper()
	to, err := res.Location()
	if err != nil {
		b.t.Fatalf("sojourntest: following a response with status %d: %v", res.StatusCode, err)
	}
	// A site's own URL is sent as a path, as a browser does.
	if b.mu.Lock(); to.Host == b.page.Host && to.Scheme == b.page.Scheme {
		to = &url.URL{Path: to.Path, RawPath: to.RawPath, RawQuery: to.RawQuery}
	}
	b.mu.Unlock()
	return b.Get(to.String())
}

// Request returns a request with the browser's cookies as they are now, for
// [Browser.Do] after changing it, or for sending it later: a tab that was left
// open, or an attacker who has copied the cookies.
func (b *Browser) Request(method, target string, body io.Reader) *http.Request {
	r := newRequest(method, target, body)
	for _, c := range b.jar.Cookies(pageOf(r)) {
		r.AddCookie(c)
	}
	return r
}

// Do sends a request and keeps the cookies of the response. The request is sent
// as it is: it has the browser's cookies if it comes from [Browser.Request].
func (b *Browser) Do(r *http.Request) *http.Response {
	page := pageOf(r)
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r.Clone(r.Context())
	res.Request.URL = page // which makes relative redirects absolute
	b.jar.SetCookies(page, res.Cookies())
	b.mu.Lock()
	b.page = page
	b.mu.Unlock()
	return res
}

// Session returns the visitor's session as the next request to the current page
// would find it. It is for inspection, like the result of the function
// [Session].
func (b *Browser) Session(m *sojourn.Manager) *sojourn.Session {
	b.t.Helper()
	return look(b.t, m, sojourn.InfoOf(b.Request(http.MethodGet, b.current().String(), nil)))
}

// Prepare lets f change the visitor's session, as a request to the current page
// could, and keeps the resulting cookies: a shortcut past login forms and the
// like. If the session cannot be saved, the test fails at once.
func (b *Browser) Prepare(m *sojourn.Manager, f func(*sojourn.Session)) {
	b.t.Helper()
	page := b.current()
	b.jar.SetCookies(page, cookiesOf(save(b.t, m, sojourn.InfoOf(b.Request(http.MethodGet, page.String(), nil)), f)))
}

func (b *Browser) current() *url.URL {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.page
}

// pageOf returns the absolute URL that a handler's request is for.
func pageOf(r *http.Request) *url.URL {
	page := *r.URL
	page.Host = r.Host
	page.Scheme = "http"
	if r.TLS != nil {
		page.Scheme = "https"
	}
	return &page
}
