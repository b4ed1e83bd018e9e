//go:build linux

package proxies

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
)

// nginxOfTheGuide runs the configuration that the guide shows.
func nginxOfTheGuide(t *testing.T, behind string) (socket string) {
	t.Helper()
	guide, err := os.ReadFile("../../../../docs/run/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(guide), "```nginx\n")
	text, _, _ = strings.Cut(text, "```")
	before, inside, ok2 := strings.Cut(text, "location / {\n")
	inside, _, ok3 := strings.Cut(inside, "}")
	pass, rest, ok4 := strings.Cut(strings.TrimSpace(inside), "\n")
	if !ok || !ok2 || !ok3 || !ok4 || pass != "proxy_pass http://127.0.0.1:8080;" {
		t.Fatalf("the guide's configuration of nginx has another shape: %q", text)
	}
	return nginx(t, behind, before, rest)
}

// notes keeps the log.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func TestTheGuidesNginxPassesOnWhereARequestComesFrom(t *testing.T) {
	for name, test := range map[string]struct {
		host, origin string
		want         int
	}{
		"a name and a port":          {"shop.example:8080", "http://shop.example:8080", http.StatusOK},
		"the default port":           {"shop.example", "http://shop.example", http.StatusOK},
		"an address and a port":      {"192.0.2.7:8080", "http://192.0.2.7:8080", http.StatusOK},
		"IPv6":                       {"[2001:db8::7]:8080", "http://[2001:db8::7]:8080", http.StatusOK},
		"no Origin":                  {"shop.example:8080", "", http.StatusOK},
		"another site":               {"shop.example:8080", "http://evil.example:8080", http.StatusForbidden},
		"another program, same name": {"shop.example:8080", "http://shop.example:9090", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			var log notes
			m := newManager(t, func(c *sojourn.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			app := http.NewCrossOriginProtection().Handler(m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
				s.Login("ada")
				fmt.Fprint(w, r.Host)
			}))
			client := clientOf(nginxOfTheGuide(t, serve(t, app)))
			r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+test.host+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.origin != "" {
				r.Header.Set("Origin", test.origin) // and no Sec-Fetch-Site: the address is not https
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			host, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != test.want {
				t.Errorf("%s, %q", resp.Status, host)
			}
			if resp.StatusCode == http.StatusOK && string(host) != test.host {
				t.Errorf("the program was asked for %q", host)
			}
			// nginx was called over http, and forwards that.
			if got := strings.Contains(log.text.String(), "over plain HTTP"); got != (test.want == http.StatusOK) {
				t.Errorf("logged %q", log.text.String())
			}
		})
	}
}

// prices is the stream that the guide shows, with a shorter interval.
func prices(m *sojourn.Manager, values <-chan int, alive <-chan time.Time) http.Handler {
	return m.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Accel-Buffering", "no")
		flush := http.NewResponseController(w).Flush
		if err := flush(); err != nil {
			return
		}
		for {
			select {
			case p := <-values:
				fmt.Fprintf(w, "data: %d\n\n", p)
			case <-alive:
				fmt.Fprint(w, ": still here\n\n")
			case <-session.Done():
				fmt.Fprintf(w, "event: ended\ndata: %v\n\n", session.Err())
				return
			case <-r.Context().Done():
				return
			}
			if err := flush(); err != nil {
				return
			}
		}
	})
}

func TestAStreamDeliversEachEventBehindNginx(t *testing.T) {
	for name, proxy := range map[string]func(*testing.T, string) string{
		"as it is":        func(t *testing.T, behind string) string { return nginx(t, behind, "", "") },
		"with a cache":    nginxCache,
		"as in the guide": nginxOfTheGuide,
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			values, alive := make(chan int), make(chan time.Time)
			mux := http.NewServeMux()
			mux.Handle("/prices", prices(m, values, alive))
			mux.Handle("/login", m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Login("ada") }))
			client := clientOf(proxy(t, serve(t, mux)))
			ada := newVisitor("ada", client)
			ada.ask(t, "POST", "/login")
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://shop.example/prices", nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range ada.cookies {
				r.Header.Add("Cookie", name+"="+value)
			}
			resp, err := client.Do(r) // returns with the header, before any event
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			lines := bufio.NewReader(resp.Body)
			next := func(want string) {
				t.Helper()
				line, err := lines.ReadString('\n')
				if err != nil || strings.TrimSpace(line) != want {
					t.Fatalf("read %q, %v, want %q", line, err, want)
				}
			}
			values <- 42
			next("data: 42")
			next("")
			alive <- time.Time{}
			next(": still here")
			next("")
			if _, err := m.RevokeUser(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
			next("event: ended")
		})
	}
}

// A cache that sends GET for a visitor's HEAD hides that the page is not shown.
// The guide has the configuration that separates the two.
func TestAHeadBehindACacheLeavesTheFlashMessage(t *testing.T) {
	cache := filepath.Join(folder(t), "cache")
	m := newManager(t)
	mux := http.NewServeMux()
	mux.Handle("POST /save", m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Flash("success", "saved") }))
	mux.Handle("/", m.Handler(func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) { fmt.Fprint(w, s.Flashes()) }))
	v := newVisitor("ada", clientOf(nginx(t, serve(t, mux), "proxy_cache_path "+cache+" keys_zone=pages:1m;",
		"proxy_cache pages; proxy_cache_valid any 1m; proxy_cache_convert_head off; proxy_cache_key $request_method$request_uri;")))
	v.ask(t, "POST", "/save")
	for range 2 {
		v.ask(t, "HEAD", "/")
	}
	if a := v.ask(t, "GET", "/"); !strings.Contains(a.body, "saved") {
		t.Errorf("the page shows %q: the HEAD took the message", a.body)
	}
	if a := v.ask(t, "GET", "/"); strings.Contains(a.body, "saved") {
		t.Errorf("the page shows the message again: %q", a.body)
	}
}
