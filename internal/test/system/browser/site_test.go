package browser

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

var (
	theme  = sojourn.NewKey[string]("theme")
	cart   = sojourn.NewKey[int]("cart", sojourn.ServerSide)
	visits = sojourn.NewKey[int]("visits", sojourn.ServerSide)
)

const (
	host    = "studio.example.com" // of the application
	foreign = "other.test"         // another site
)

func addOne(n int) int { return n + 1 }

// site is an application at https://studio.example.com/app/, and another site
// at https://other.test/, on one server.
type site struct {
	t      *testing.T
	server *httptest.Server
	keys   *sojourn.KeyRing
	db     store.Store
	served atomic.Pointer[deployment]

	sees chan string // what a page shows, sent when the visitor sees it
	// speculated receives a value when a request with Sec-Purpose was answered.
	speculated chan struct{}
	script     atomic.Value // of the page that is not shown

	mu    sync.Mutex
	pages map[string]string // of the other site, by path
	seen  []arrived
}

// deployment is one version of the application.
type deployment struct {
	sessions *sojourn.Manager
	handler  http.Handler
}

// arrived is a request that came to the application, and its answer.
type arrived struct {
	method, path, from, purpose string
	cookies                     int
	status                      int
	told                        bool
}

func (a arrived) String() string {
	return fmt.Sprintf("%s %s (%s, purpose %q, %d cookies): %d", a.method, a.path, a.from, a.purpose, a.cookies, a.status)
}

func newSite(t *testing.T, cfg sojourn.Config) *site {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, keys: keys, db: memory.New(), pages: map[string]string{}, sees: make(chan string, 100), speculated: make(chan struct{}, 1)}
	s.deploy(cfg)
	s.server = httptest.NewUnstartedServer(s)
	// Browsers repeat a request whose answer is lost, except over HTTP/2.
	s.server.EnableHTTP2 = true
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the application was asked:\n%s", s.history())
		}
	})
	return s
}

// deploy replaces the running application by another version, with the same
// keys and the same store.
func (s *site) deploy(cfg sojourn.Config) {
	s.t.Helper()
	cfg.Keys, cfg.Store, cfg.Logger = s.keys, s.db, slog.New(slog.DiscardHandler)
	m, err := sojourn.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = m.Close() })
	s.served.Store(&deployment{m, application(m, s.sees)})
}

func (s *site) sessions() *sojourn.Manager { return s.served.Load().sessions }

// url is an address of the application.
func (s *site) url(path string) string { return s.at(host, path) }

func (s *site) at(host, path string) string {
	_, port, err := net.SplitHostPort(s.server.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	return "https://" + net.JoinHostPort(host, port) + path
}

// foreign puts a page on the other site, and returns its address. What starts
// with "app:" in it becomes an address of the application. A page whose path ends
// in "/sandboxed" has no origin, and neither have the windows that it opens.
func (s *site) foreign(path, body string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[path] = strings.ReplaceAll(body, "app:", s.url(""))
	return s.at(foreign, path)
}

// unattended returns the address of a page of the application's site that runs
// a script.
func (s *site) unattended(script string) string {
	s.script.Store(script)
	select {
	case <-s.speculated: // of a page before
	default:
	}
	return s.url("/unattended")
}

// ServeHTTP serves both sites.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if (&url.URL{Host: r.Host}).Hostname() == foreign {
		s.mu.Lock()
		body, ok := s.pages[r.URL.Path]
		s.mu.Unlock()
		switch {
		case r.URL.Path == "/bounce":
			http.Redirect(w, r, s.url(r.FormValue("to")), http.StatusFound)
		case ok:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			if strings.HasSuffix(r.URL.Path, "/sandboxed") {
				w.Header().Set("Content-Security-Policy", "sandbox allow-scripts allow-forms allow-popups")
			}
			fmt.Fprintf(w, "<!doctype html><meta charset=utf-8><link rel=icon href=data:,>%s", body)
		default:
			http.NotFound(w, r)
		}
		return
	}
	switch r.URL.Path {
	case "/unattended":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><link rel=icon href=data:,><script>%s</script>", s.script.Load())
		return
	case "/speculated":
		select {
		case <-s.speculated:
		case <-r.Context().Done():
		}
		return
	}
	if r.URL.Query().Has("lost") { // the answer does not arrive
		s.served.Load().handler.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	noted := &status{ResponseWriter: w}
	defer func() {
		if r.Header.Get("Sec-Purpose") != "" {
			select {
			case s.speculated <- struct{}{}:
			default:
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, arrived{
			r.Method, r.URL.RequestURI(), r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Purpose"), len(r.Cookies()), noted.code, false,
		})
	}()
	s.served.Load().handler.ServeHTTP(noted, r)
}

// asked returns the requests to a path of the application since its last call,
// in the form "GET 409, GET 200".
func (s *site) asked(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for i := range s.seen {
		if a := &s.seen[i]; !a.told && strings.TrimSuffix(a.path, "?") == path {
			a.told = true
			list = append(list, fmt.Sprintf("%s %d", a.method, a.status))
		}
	}
	return strings.Join(list, ", ")
}

func (s *site) history() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, a := range s.seen {
		fmt.Fprintln(&b, a)
	}
	return b.String()
}

// status records the status of a response.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *status) WriteHeader(code int) {
	if s.code == 0 && code >= 200 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Write(b []byte) (int, error) {
	if s.code == 0 {
		s.code = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// application is a simple site: pages that show the visitor's state, and
// buttons.
func application(m *sojourn.Manager, sees chan<- string) http.Handler {
	mux := http.NewServeMux()
	page := func(path string, f func(*sojourn.Session, *http.Request)) {
		mux.Handle("GET "+path, m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			f(s, r)
			show(w, s)
		}))
	}
	button := func(path string, f func(*sojourn.Session, *http.Request)) {
		mux.Handle("POST "+path, m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
			f(s, r)
			http.Redirect(w, r, "/app/", http.StatusSeeOther)
		}))
	}
	page("/app/{$}", func(*sojourn.Session, *http.Request) {})
	page("/app/visit", func(s *sojourn.Session, _ *http.Request) { visits.Update(s, addOne) })
	mux.Handle("GET /app/messages", m.Handler(func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		texts := []string{}
		for _, f := range s.Flashes() {
			texts = append(texts, f.Text)
		}
		show(w, s)
		fmt.Fprintf(w, messages, strings.Join(texts, ", "))
	}))
	mux.HandleFunc("POST /app/sees", func(_ http.ResponseWriter, r *http.Request) { sees <- r.FormValue("page") })
	button("/app/save", func(s *sojourn.Session, _ *http.Request) { s.Flash("info", "Saved") })
	button("/app/revoke", func(s *sojourn.Session, r *http.Request) { _, _ = m.RevokeUser(r.Context(), s.User(), s.Handle()) })
	button("/app/login", func(s *sojourn.Session, r *http.Request) { s.Login(r.FormValue("user")) })
	button("/app/logout", func(s *sojourn.Session, _ *http.Request) { s.Logout() })
	button("/app/theme", func(s *sojourn.Session, r *http.Request) { theme.Set(s, r.FormValue("to")) })
	button("/app/cart", func(s *sojourn.Session, _ *http.Request) { cart.Update(s, addOne) })
	return mux
}

// buttons are on each page, by the ID of the element.
var buttons = map[string]string{
	"login-ada": "/app/login?user=ada",
	"login-bob": "/app/login?user=bob",
	"logout":    "/app/logout",
	"dark":      "/app/theme?to=dark",
	"light":     "/app/theme?to=light",
	"add":       "/app/cart",
	"save":      "/app/save",
	"revoke":    "/app/revoke",
}

// messages is the rest of a page that shows messages. It sends a request when
// the visitor sees it, even if it was prerendered.
const messages = `<p id=messages>%s</p><script>
	const tell = () => fetch("/app/sees", {method: "POST", body: new URLSearchParams({
		page: document.querySelector("#messages").innerText,
	})});
	document.prerendering ? document.addEventListener("prerenderingchange", tell) : tell();
</script>`

func show(w http.ResponseWriter, s *sojourn.Session) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>The application</title>
<dl id=state data-user=%q data-theme=%q data-cart=%d data-visits=%d></dl>`,
		html.EscapeString(s.User()), html.EscapeString(theme.Get(s)), cart.Get(s), visits.Get(s))
	for _, id := range slices.Sorted(maps.Keys(buttons)) {
		fmt.Fprintf(&b, "<form method=post action=%q><button id=%q>%s</button></form>\n", buttons[id], id, id)
	}
	fmt.Fprint(&b, "<a id=visit href=/app/visit>visit</a> <a id=open href=/app/messages>messages</a>")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
