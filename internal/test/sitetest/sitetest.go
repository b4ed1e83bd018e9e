// Package sitetest simulates the visitors of a site, for tests. A test passes
// the handler's body with each request.
//
// A [Browser] visits a [Site], over HTTP or without a network. It keeps cookies as
// browsers do, has slow requests, and its responses may arrive late:
//
//	shop := sitetest.Serve(t, manager)
//	anna := sitetest.NewBrowser()
//	anna.Visit(shop, func(s *sojourn.Session) { cart.Update(s, add) })
//
// A [Guest] visits a [Lab], which is a manager with a store and a log that the
// test can inspect. It gives access to the headers of requests and responses:
//
//	shop := sitetest.NewLab(t)
//	anna := sitetest.NewGuest(t)
//	resp := shop.Do(anna, func(s *sojourn.Session) { cart.Update(s, add) })
package sitetest

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
)

// Keys returns a new key ring.
func Keys(t testing.TB) *sojourn.KeyRing {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Manager returns a manager that is closed when the test ends. Without Keys in
// cfg it gets new ones, without a Logger it logs nothing.
func Manager(t testing.TB, cfg sojourn.Config) *sojourn.Manager {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = Keys(t)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := sojourn.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// Site is a server whose handlers are passed with each request.
type Site struct {
	Manager *sojourn.Manager

	url  string
	send func(*http.Request) (*http.Response, error)

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	last     int
}

// Serve runs a site over real HTTP on loopback until the test ends.
func Serve(t testing.TB, m *sojourn.Manager) *Site {
	t.Helper()
	site := &Site{Manager: m, handlers: map[string]http.HandlerFunc{}}
	server := httptest.NewUnstartedServer(site.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are part of some tests
	server.Start()
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	site.url, site.send = server.URL, client.Do
	return site
}

// Local runs a site without a network, for tests with a fake clock.
func Local(m *sojourn.Manager) *Site { return LocalAt(m, "https://shop.test") }

// LocalAt is Local under another URL.
func LocalAt(m *sojourn.Manager, url string) *Site {
	site := &Site{Manager: m, handlers: map[string]http.HandlerFunc{}, url: url}
	h := site.Handler()
	site.send = func(r *http.Request) (resp *http.Response, err error) {
		r.RequestURI, r.RemoteAddr, r.TLS = r.URL.RequestURI(), "192.0.2.7:1234", &tls.ConnectionState{}
		r.Host = r.URL.Host
		w := httptest.NewRecorder()
		defer func() {
			if p := recover(); p != nil { // as net/http does
				resp, err = nil, fmt.Errorf("the handler panicked: %v", p)
			}
		}()
		h.ServeHTTP(w, r)
		return w.Result(), nil
	}
	return site
}

// Replicas returns n managers of the same configuration, each with its own
// site over real HTTP.
func Replicas(t testing.TB, n int, cfg sojourn.Config) []*Site {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = Keys(t)
	}
	sites := make([]*Site, n)
	for i := range sites {
		sites[i] = Serve(t, Manager(t, cfg))
	}
	return sites
}

// Handler returns the site's handler.
func (site *Site) Handler() http.Handler {
	return site.Manager.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site.mu.Lock()
		h := site.handlers[r.URL.Path]
		delete(site.handlers, r.URL.Path)
		site.mu.Unlock()
		if h == nil {
			http.NotFound(w, r)
			return
		}
		h(w, r)
	}))
}

// path registers the handler of one request.
func (site *Site) path(h http.HandlerFunc) string {
	site.mu.Lock()
	defer site.mu.Unlock()
	site.last++
	path := "/" + strconv.Itoa(site.last)
	site.handlers[path] = h
	return path
}

// Session makes a handler from a function on the session. It answers with "ok".
func (site *Site) Session(f func(*sojourn.Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := site.Manager.Get(r.Context())
		if err != nil {
			site.Manager.ServeError(w, r, err)
			return
		}
		f(s)
		_, _ = io.WriteString(w, "ok")
	}
}

// Browser is a cookie jar, and requests that are sent with it. It is safe for
// concurrent use.
type Browser struct {
	Header http.Header // sent with every request

	mu      sync.Mutex
	cookies map[place]cookie
	stored  int // cookies so far
}

// place is the key by which a browser distinguishes cookies.
type place struct {
	name, domain, path string // no domain: of the host only
	partitioned        bool
}

type cookie struct {
	value   string
	expires time.Time // zero = when the browser is closed
	order   int       // of its creation, which a change of its value keeps
}

// NewBrowser returns a browser without cookies.
func NewBrowser() *Browser {
	return &Browser{Header: http.Header{}, cookies: map[place]cookie{}}
}

// Steal returns a browser with the cookies of this one, which it never drops.
func (b *Browser) Steal() *Browser {
	thief := NewBrowser()
	for name, value := range b.Cookies() {
		thief.SetCookie(name, value)
	}
	return thief
}

// Clone returns a browser with a copy of the jar, as after a crash.
func (b *Browser) Clone() *Browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Browser{Header: b.Header.Clone(), cookies: maps.Clone(b.cookies), stored: b.stored}
}

// Cookies returns the names and values of the cookies that the browser would
// send now. Of several cookies of one name it has the one that is sent first.
func (b *Browser) Cookies() map[string]string {
	out := map[string]string{}
	for _, pair := range b.sends("") {
		name, value, _ := strings.Cut(pair, "=")
		if _, ok := out[name]; !ok {
			out[name] = value
		}
	}
	return out
}

// sends returns the cookies for a host, as name=value, in the order in which
// browsers send them (RFC 6265bis, section 5.8.3); all of them for "".
func (b *Browser) sends(host string) (pairs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	places := slices.SortedFunc(maps.Keys(b.cookies), func(p, q place) int {
		return cmp.Or(cmp.Compare(len(q.path), len(p.path)), cmp.Compare(b.cookies[p].order, b.cookies[q].order))
	})
	for _, p := range places {
		c := b.cookies[p]
		if (c.expires.IsZero() || time.Now().Before(c.expires)) && (host == "" || p.domain == "" || within(host, p.domain)) {
			pairs = append(pairs, p.name+"="+c.value)
		}
	}
	return pairs
}

func within(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// SetCookie plants a cookie. An empty value removes it.
func (b *Browser) SetCookie(name, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(place{name: name, path: "/"}, cookie{value: value})
	if value == "" {
		delete(b.cookies, place{name: name, path: "/"})
	}
}

func (b *Browser) put(p place, c cookie) {
	if old, ok := b.cookies[p]; ok {
		c.order = old.order
	} else {
		b.stored++
		c.order = b.stored
	}
	b.cookies[p] = c
}

// CloseWindow ends the browser's own session: cookies without an age are removed.
func (b *Browser) CloseWindow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.cookies, func(_ place, c cookie) bool { return c.expires.IsZero() })
}

// receive keeps a response's cookies, like browsers (RFC 6265bis, section 5.7).
func (b *Browser) receive(host string, h http.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range h["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil || len(c.Name)+len(c.Value) > 4096 {
			continue
		}
		if strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Domain != "" || c.Path != "/") {
			continue
		}
		if c.Domain != "" && !within(host, c.Domain) {
			continue
		}
		p := place{c.Name, c.Domain, c.Path, c.Partitioned}
		switch {
		case c.MaxAge < 0:
			delete(b.cookies, p)
		case c.MaxAge > 0:
			b.put(p, cookie{value: c.Value, expires: time.Now().Add(time.Duration(c.MaxAge) * time.Second)})
		default:
			b.put(p, cookie{value: c.Value})
		}
	}
}

// Answer is a response.
type Answer struct {
	Status int // 0 if the connection was aborted
	Header http.Header
	Body   string

	host string
	to   *Browser
}

// Arrive lets the answer's cookies reach the browser. It returns the answer.
func (a *Answer) Arrive() *Answer {
	a.to.receive(a.host, a.Header)
	return a
}

// ArriveAt lets the answer's cookies reach another browser, such as a clone of
// the one that asked.
func (a *Answer) ArriveAt(b *Browser) { b.receive(a.host, a.Header) }

// SetCookies returns the names of the cookies that the answer sets or expires,
// in order.
func (a *Answer) SetCookies() []string {
	var names []string
	for _, line := range a.Header["Set-Cookie"] {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	return names
}

// Visit sends a request that does f with its session, and receives the answer.
func (b *Browser) Visit(site *Site, f func(*sojourn.Session)) *Answer {
	return b.Send(site, f).Arrive()
}

// Send is Visit, except that the answer's cookies are still under way.
func (b *Browser) Send(site *Site, f func(*sojourn.Session)) *Answer {
	return b.SendHTTP(site, site.Session(f))
}

// VisitHTTP sends a request that is answered by h, and receives the answer.
func (b *Browser) VisitHTTP(site *Site, h http.HandlerFunc) *Answer {
	return b.SendHTTP(site, h).Arrive()
}

// SendHTTP is VisitHTTP, except that the answer's cookies are still under way.
func (b *Browser) SendHTTP(site *Site, h http.HandlerFunc) *Answer {
	r, err := http.NewRequest(http.MethodGet, site.url+site.path(h), nil)
	if err != nil {
		panic(err) // the URL is ours
	}
	r.Header = b.Header.Clone()
	for _, pair := range b.sends(r.URL.Hostname()) {
		r.Header.Add("Cookie", pair)
	}
	resp, err := site.send(r)
	if err != nil {
		return &Answer{Header: http.Header{}, Body: err.Error(), to: b}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body), host: r.URL.Hostname(), to: b}
}

// Slow is a request that has loaded its session and waits.
type Slow struct {
	act    chan http.HandlerFunc
	answer chan *Answer
	site   *Site
}

// Begin sends a request and returns when its handler has loaded the session,
// with the cookies that the browser has now.
func (b *Browser) Begin(site *Site) *Slow {
	slow := &Slow{act: make(chan http.HandlerFunc), answer: make(chan *Answer, 1), site: site}
	loaded := make(chan struct{})
	go func() {
		slow.answer <- b.SendHTTP(site, func(w http.ResponseWriter, r *http.Request) {
			_, _ = site.Manager.Get(r.Context()) // the handler calls Get again
			close(loaded)
			(<-slow.act)(w, r)
		})
	}()
	<-loaded
	return slow
}

// Finish lets the request do f with its session and returns the answer, whose
// cookies are still under way.
func (slow *Slow) Finish(f func(*sojourn.Session)) *Answer {
	return slow.FinishHTTP(slow.site.Session(f))
}

// FinishHTTP lets the request be answered by h.
func (slow *Slow) FinishHTTP(h http.HandlerFunc) *Answer {
	slow.act <- h
	return <-slow.answer
}

// Together runs f n times in parallel, and waits.
func Together(n int, f func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	all.Wait()
}
