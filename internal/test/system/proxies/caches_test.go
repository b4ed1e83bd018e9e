//go:build linux

package proxies

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/klauspost/compress/gzhttp"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

var (
	name = sojourn.NewKey[string]("name")
	big  = sojourn.NewKey[string]("big", sojourn.ServerSide)
)

// number is the header with a request's unique number, which the handler
// repeats, so a response to another request has another number. This detects
// responses for other visitors, and outdated ones for the same visitor: a flash
// message, a page from before a logout or a revocation, the redirect of a
// formerly empty cart.
const number = "X-Number"

func who(s *sojourn.Session) string {
	if user := s.User(); user != "" {
		return user
	}
	if n := name.Get(s); n != "" {
		return n
	}
	return "nobody"
}

// kinds are the responses that depend on the session, by path. The test checks
// the header.
var kinds = map[string]func(*sojourn.Manager, http.ResponseWriter, *http.Request, *sojourn.Session){
	"/page": page,
	"/language": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		w.Header().Add("Vary", "Accept-Language")
		page(m, w, r, s)
	},
	"/max-age": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		w.Header().Set("Cache-Control", "max-age=600")
		page(m, w, r, s)
	},
	"/expires": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		w.Header().Set("Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		page(m, w, r, s)
	},
	"/validators": func(_ *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		w.Header().Set("ETag", `"`+who(s)+`"`)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.ServeContent(w, r, "", time.Now().Add(-time.Hour), strings.NewReader("page of "+who(s)))
	},
	"/cdn": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		for _, h := range []string{"CDN-Cache-Control", "Surrogate-Control"} {
			w.Header().Set(h, "max-age=600")
		}
		w.Header().Set("X-Accel-Expires", "600")
		w.Header().Set("Cache-Control", "max-age=600")
		page(m, w, r, s)
	},
	"/lower-case": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		w.Header()["cache-control"] = []string{"max-age=600"}
		w.Header()["vary"] = []string{"accept-language"}
		page(m, w, r, s)
	},
	"/redirect": func(_ *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		http.Redirect(w, r, "/home/"+who(s), http.StatusFound)
	},
	"/moved": func(_ *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		http.Redirect(w, r, "/home/"+who(s), http.StatusMovedPermanently)
	},
	"/not-found": func(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		http.Error(w, "no such page of "+who(s), http.StatusNotFound)
	},
	"/gone": func(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		http.Error(w, "the page is gone of "+who(s), http.StatusGone)
	},
	"/failed": func(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		http.Error(w, "the page failed of "+who(s), http.StatusBadGateway)
	},
	"/panic": func(*sojourn.Manager, http.ResponseWriter, *http.Request, *sojourn.Session) { panic("boom") },
	"/refused": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, _ *sojourn.Session) {
		m.ServeError(w, r, sojourn.ErrNotFound)
	},
	"/too-large": func(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		big.Set(s, strings.Repeat("x", 2<<20))
		io.WriteString(w, "kept of "+who(s))
	},
	"/stream": func(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d of %s\n\n", i, who(s))
			_ = http.NewResponseController(w).Flush()
		}
	},
	"/sets-a-cookie": func(m *sojourn.Manager, w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		if s.User() == "" { // a user's session is in the store, and its cookie stays
			s.Set("seen", r.Header.Get(number))
			w.Header().Set("Cache-Control", "public, max-age=600")
		}
		page(m, w, r, s)
	},
	// See site.
	"/opened":         nil,
	"/second-manager": nil,
}

func page(_ *sojourn.Manager, w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "page of %s%s", who(s), strings.Repeat(" and so on", 50))
}

// site is a shop whose pages are all different for each visitor, but for
// /untouched.
func site(t *testing.T) http.Handler {
	m := newManager(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/untouched", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		io.WriteString(w, "a page for everybody")
	})
	other := newManager(t, func(c *sojourn.Config) { c.Name = "other" })
	for path, m := range map[string]*sojourn.Manager{"": m, "/other": other} {
		mux.Handle("POST /login"+path, m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			s.Login(r.Header.Get("X-Login"))
		}))
		mux.Handle("POST /name"+path, m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			name.Set(s, r.Header.Get("X-Login"))
		}))
	}
	mux.HandleFunc("/opened", func(w http.ResponseWriter, r *http.Request) {
		s, _, err := sitetest.Begin(r.Context(), m, r.Header)
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("X-Who", who(s))
		page(m, w, r, s)
	})
	mux.HandleFunc("/second-manager", func(w http.ResponseWriter, r *http.Request) {
		s, err := other.Get(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("X-Who", who(s))
		page(other, w, r, s)
	})
	for path, answer := range kinds {
		if answer == nil {
			continue
		}
		mux.Handle(path, m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			w.Header().Set("X-Who", who(s))
			answer(m, w, r, s)
		}))
	}
	h := other.Wrap(m.Wrap(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(number, r.Header.Get(number))
		defer func() {
			if recover() != nil {
				http.Error(w, "something broke of "+w.Header().Get("X-Who"), http.StatusInternalServerError)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// cookieSecrets are the values of cookies that responses have set.
type cookieSecrets struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (c *cookieSecrets) firstTime(value string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.seen[value]
	c.seen[value] = true
	return !again
}

func TestNoCacheShowsOneVisitorsAnswerToAnother(t *testing.T) {
	compress := map[string]func(http.Handler) http.Handler{
		"":               func(h http.Handler) http.Handler { return h },
		"chi's Compress": middleware.Compress(5),
		"gzhttp":         func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) },
	}
	for name, test := range map[string]struct {
		outside string // of Wrap
		proxies []func(*testing.T, string) string
	}{
		"nginx, chi's Compress":            {"chi's Compress", []func(*testing.T, string) string{nginxCache}},
		"nginx, HAProxy that compresses":   {"", []func(*testing.T, string) string{haproxyCompressing, nginxCache}},
		"nginx, Caddy that compresses":     {"", []func(*testing.T, string) string{caddy, nginxCache}},
		"Varnish, chi's Compress":          {"chi's Compress", []func(*testing.T, string) string{varnish}},
		"HAProxy, gzhttp":                  {"gzhttp", []func(*testing.T, string) string{haproxyCache}},
		"nginx, Varnish, Caddy and gzhttp": {"gzhttp", []func(*testing.T, string) string{caddy, varnish, nginxCache}},
	} {
		t.Run(name, func(t *testing.T) {
			socket := serve(t, compress[test.outside](site(t)))
			for _, p := range test.proxies {
				socket = p(t, socket)
			}
			client := clientOf(socket)
			// Two users, an anonymous visitor with a cookie, and one who never
			// keeps a cookie.
			ada, bob, carol, dave := newVisitor("ada", client), newVisitor("bob", client), newVisitor("carol", client), newVisitor("nobody", client)
			var last atomic.Int64
			for v, path := range map[*visitor]string{ada: "/login", bob: "/login", carol: "/name"} {
				for _, path := range []string{path, path + "/other"} {
					a := v.ask(t, "POST", path, func(h http.Header) { h.Set("X-Login", v.name) })
					if len(a.Cookies()) == 0 {
						t.Fatalf("POST %s by %s: %s, and no cookie", path, v.name, a.Status)
					}
				}
			}
			secrets := cookieSecrets{seen: map[string]bool{}}
			check := func(v *visitor, method, path, encoding string, known ...string) {
				n := strconv.FormatInt(last.Add(1), 10)
				a := v.ask(t, method, path, func(h http.Header) {
					h.Set(number, n)
					if encoding != "" {
						h.Set("Accept-Encoding", encoding)
					}
					if len(known) > 0 {
						h.Set("If-None-Match", known[0])
					}
				})
				what := fmt.Sprintf("%s %s (%s) by %s", method, path, encoding, v.name)
				if got := a.Header.Get(number); got != n {
					t.Errorf("%s: request %s got the answer to request %s, of %q", what, n, got, a.Header.Get("X-Who"))
				}
				if got := a.Header.Get("X-Who"); got != v.name {
					t.Errorf("%s: the answer is %q's", what, got)
				}
				if got := a.Header.Get("Location"); got != "" && got != "/home/"+v.name {
					t.Errorf("%s: is sent to %s", what, got)
				}
				if _, of, ok := strings.Cut(a.body, " of "); ok && !strings.HasPrefix(of, v.name) {
					t.Errorf("%s: the body is %.100q", what, a.body)
				}
				for _, c := range a.Cookies() {
					if c.Value != "" && !secrets.firstTime(c.Value) {
						t.Errorf("%s: somebody has got that %s before", what, c.Name)
					}
				}
			}
			for path := range kinds {
				for _, how := range [][2]string{{"GET", ""}, {"GET", "gzip"}, {"HEAD", "gzip"}} {
					method, encoding := how[0], how[1]
					for _, v := range []*visitor{ada, bob, carol, dave, ada} {
						check(v, method, path, encoding)
						if v == dave {
							clear(v.cookies)
						}
					}
					check(bob, method, path, encoding, `"bob"`) // has a copy
					check(carol, method, path, encoding, `"bob"`)
				}
				// A cache may answer several waiting requests for a page at once.
				var all sync.WaitGroup
				for range 3 {
					for _, v := range []*visitor{ada, bob, carol} {
						all.Go(func() { check(v, "GET", path, "gzip") })
					}
				}
				all.Wait()
			}
			// Otherwise these caches keep nothing at all, and the test proves nothing.
			first := ada.ask(t, "GET", "/untouched", func(h http.Header) { h.Set(number, "first") })
			again := bob.ask(t, "GET", "/untouched", func(h http.Header) { h.Set(number, "second") })
			if first.Header.Get(number) != "first" || again.Header.Get(number) != "first" {
				t.Errorf("a page that does not ask for the session was not cached: numbers %q, %q", first.Header.Get(number), again.Header.Get(number))
			}
			for _, h := range []string{"Set-Cookie", "X-Who"} {
				if again.Header.Get(h) != "" {
					t.Errorf("and it has %s", h)
				}
			}
		})
	}
}

func TestAPageThatCachesMayShareOnPurposeIsKeptForEachCookie(t *testing.T) {
	for name, vary := range map[string]func(http.Header){
		"no Vary of its own":  func(http.Header) {},
		"Vary of its own":     func(h http.Header) { h.Set("Vary", "Accept-Language") },
		"two lines":           func(h http.Header) { h["Vary"] = []string{"Accept-Language", "Accept"} },
		"lower case":          func(h http.Header) { h["vary"] = []string{"accept-language"} },
		"set through the map": func(h http.Header) { h["VARY"] = []string{"Accept"} },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			mux := http.NewServeMux()
			mux.Handle("POST /login", m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) { s.Login(r.Header.Get("X-Login")) }))
			mux.Handle("/", m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
				vary(w.Header())
				w.Header().Set("Cache-Control", "public, max-age=600")
				w.Header().Set(number, r.Header.Get(number))
				page(m, w, r, s)
			}))
			client := clientOf(nginxCache(t, serve(t, mux)))
			ada, bob, stranger := newVisitor("ada", client), newVisitor("bob", client), newVisitor("nobody", client)
			for _, v := range []*visitor{ada, bob} {
				v.ask(t, "POST", "/login", func(h http.Header) { h.Set("X-Login", v.name) })
			}
			for i, v := range []*visitor{ada, bob, stranger, ada, bob, stranger} {
				a := v.ask(t, "GET", "/", func(h http.Header) { h.Set(number, strconv.Itoa(i)) })
				if !strings.HasPrefix(a.body, "page of "+v.name) {
					t.Errorf("%s got %.20q", v.name, a.body)
				}
				if want := strconv.Itoa(i % 3); a.Header.Get(number) != want {
					t.Errorf("%s got the answer to request %s, want the kept one to request %s", v.name, a.Header.Get(number), want)
				}
			}
		})
	}
}
