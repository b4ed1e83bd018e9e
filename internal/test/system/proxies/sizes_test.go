//go:build linux

package proxies

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// securityHeaders is 1,400 bytes of typical response headers, mostly a
// Content-Security-Policy. The guide promises space for that.
func securityHeaders() http.Header {
	h := http.Header{
		"Strict-Transport-Security": {"max-age=63072000; includeSubDomains; preload"},
		"X-Content-Type-Options":    {"nosniff"},
		"Referrer-Policy":           {"same-origin"},
		"Content-Security-Policy":   {"default-src 'self'; script-src 'self'"},
	}
	size := 0
	for name, lines := range h {
		size += len(name) + len(": \r\n") + len(lines[0])
	}
	for i := 0; size < 1400; i++ {
		host := fmt.Sprintf(" https://cdn-%02d.example", i)
		host = host[:min(len(host), 1400-size)]
		h["Content-Security-Policy"][0] += host
		size += len(host)
	}
	return h
}

// With the defaults, and up to the guide's limits, a session always fits
// through a proxy: it is kept, or it is refused, and the visitor can always log
// out.
func TestTheDefaultSizesFitBehindEveryProxy(t *testing.T) {
	cookieOnly := func(limit int) func(*sojourn.Config) {
		return func(c *sojourn.Config) { c.Store, c.Mode, c.InlineLimit = nil, sojourn.CookieOnly, limit }
	}
	const large = "CookieOnly, as large as the guide allows by default"
	for name, proxy := range map[string]func(*testing.T, string) string{
		"nginx":             func(t *testing.T, behind string) string { return nginx(t, behind, "", "") },
		"nginx that caches": nginxCache,
		"nginx with larger buffers": func(t *testing.T, behind string) string {
			return nginx(t, behind, "", "proxy_buffer_size 16k; proxy_buffers 8 16k;")
		},
		"Varnish": varnish,
		"HAProxy": func(t *testing.T, behind string) string { return haproxy(t, behind, "", "") },
		"Caddy":   caddy,
	} {
		for placement, edit := range map[string]func(*sojourn.Config){
			"Auto":       func(*sojourn.Config) {},
			"CookieOnly": cookieOnly(0),
			large:        cookieOnly(6000),
		} {
			if strings.HasPrefix(name, "nginx") && (placement == large) != (name == "nginx with larger buffers") {
				continue
			}
			t.Run(name+", "+placement, func(t *testing.T) {
				m := newManager(t, edit)
				mux := http.NewServeMux()
				handle := func(pattern string, f func(http.ResponseWriter, *http.Request, *sojourn.Session)) {
					mux.Handle(pattern, m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
						for name, lines := range securityHeaders() {
							w.Header()[name] = lines
						}
						w.Header().Set("Content-Type", "text/plain; charset=utf-8")
						f(w, r, s)
					}))
				}
				notes := sojourn.NewKey[string]("notes")
				handle("POST /add", func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
					notes.Update(s, func(n string) string { return n + strings.Repeat("x", 20) })
				})
				handle("GET /", func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) { fmt.Fprint(w, len(notes.Get(s))) })
				handle("POST /logout", func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Logout() })

				v := newVisitor("ada", clientOf(proxy(t, serve(t, mux))))
				kept := 0
				for n := 20; n <= 6000; n += 20 {
					a := v.ask(t, "POST", "/add")
					if a.StatusCode == http.StatusRequestEntityTooLarge {
						break
					}
					if a.StatusCode != http.StatusOK {
						t.Fatalf("%d bytes: %s", n, a.Status)
					}
					kept = n
				}
				least := 1300
				if placement == large {
					least = 4000
				}
				if kept < least || placement != "Auto" && kept == 6000 {
					t.Errorf("%d bytes were kept", kept)
				}
				if a := v.ask(t, "GET", "/"); a.body != fmt.Sprint(kept) {
					t.Errorf("%d bytes were kept, and then: %s, %.50q", kept, a.Status, a.body)
				}
				if a := v.ask(t, "POST", "/logout"); a.StatusCode != http.StatusOK || len(v.cookies) > 0 {
					t.Errorf("logout: %s, cookies %d", a.Status, len(v.cookies))
				}
			})
		}
	}
}
