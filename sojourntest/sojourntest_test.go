package sojourntest_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/sojourntest"
)

var (
	theme  = sojourn.NewKey[string]("theme")
	visits = sojourn.NewKey[int]("visits")
)

// placements runs a test for each place where sessions can live.
func placements(t *testing.T, f func(t *testing.T, cfg sojourn.Config)) {
	for name, cfg := range map[string]sojourn.Config{
		"Auto":           {},
		"StoredOnly":     {Mode: sojourn.StoredOnly},
		"CookieOnly":     {Mode: sojourn.CookieOnly},
		"plain HTTP":     {Cookie: sojourn.Cookie{Insecure: true}},
		"another name":   {Name: "staff", Cookie: sojourn.Cookie{Path: "/page"}},
		"own domain":     {Cookie: sojourn.Cookie{Domain: "example.com"}},
		"browser cookie": {Cookie: sojourn.Cookie{BrowserSession: true}},
	} {
		t.Run(name, func(t *testing.T) { f(t, cfg) })
	}
}

// counter answers with the visitor's theme and how often the page was seen.
func counter(m *sojourn.Manager) http.Handler {
	return m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		n := visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "%s %s %d", s.User(), theme.Get(s), n)
	})
}

func TestARequestCarriesWhatWasPrepared(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		r := sojourntest.Request(t, m, "GET", "/page/1", nil, func(s *sojourn.Session) {
			theme.Set(s, "dark")
			s.Flash("info", "Welcome")
		})
		w := httptest.NewRecorder()
		counter(m).ServeHTTP(w, r)
		if got := w.Body.String(); got != " dark 1" {
			t.Errorf("the handler saw %q", got)
		}
		s := sojourntest.Session(t, m, r, w.Result())
		if visits.Get(s) != 1 || theme.Get(s) != "dark" || s.IsNew() {
			t.Errorf("kept: %d visits, theme %q, new %t", visits.Get(s), theme.Get(s), s.IsNew())
		}
		if f := s.Flashes(); len(f) != 1 || f[0].Text != "Welcome" {
			t.Errorf("the messages that the handler left alone: %v", f)
		}
	})
}

func TestALoginCanBePrepared(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		r := sojourntest.Request(t, m, "GET", "/page", nil, func(s *sojourn.Session) { s.Login("ada") })
		w := httptest.NewRecorder()
		counter(m).ServeHTTP(w, r)
		if got := w.Body.String(); got != "ada  1" {
			t.Errorf("the handler saw %q", got)
		}
	})
}

func TestARequestWithoutAPreparedSessionIsANewVisitors(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{})
	for name, prepare := range map[string]func(*sojourn.Session){
		"no function":        nil,
		"one without change": func(*sojourn.Session) {},
	} {
		r := sojourntest.Request(t, m, "POST", "/page", strings.NewReader("body"), prepare)
		if len(r.Cookies()) > 0 {
			t.Errorf("%s: it has cookies: %v", name, r.Cookies())
		}
		if body, _ := io.ReadAll(r.Body); string(body) != "body" || r.Method != "POST" || r.URL.Path != "/page" {
			t.Errorf("%s: %s %s with body %q", name, r.Method, r.URL, body)
		}
	}
}

func TestAnAnswerWithoutCookiesLeavesTheSessionAsItWas(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		r := sojourntest.Request(t, m, "GET", "/page", nil, func(s *sojourn.Session) { theme.Set(s, "dark") })
		w := httptest.NewRecorder()
		m.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
		if got := theme.Get(sojourntest.Session(t, m, r, w.Result())); got != "dark" {
			t.Errorf("the theme is %q", got)
		}
	})
}

func TestALogoutIsSeenInTheAnswer(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		r := sojourntest.Request(t, m, "POST", "/page", nil, func(s *sojourn.Session) { s.Login("ada") })
		w := httptest.NewRecorder()
		m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Logout() }).ServeHTTP(w, r)
		if s := sojourntest.Session(t, m, r, w.Result()); s.User() != "" || !s.IsNew() {
			t.Errorf("user %q, new %t", s.User(), s.IsNew())
		}
	})
}

func TestCookieOnlySessionsMayTakeSeveralCookies(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.CookieOnly, InlineLimit: 15000})
	long := strings.Repeat("x", 8000)
	r := sojourntest.Request(t, m, "GET", "/", nil, func(s *sojourn.Session) { theme.Set(s, long) })
	if n := len(r.Cookies()); n < 2 {
		t.Errorf("the request has %d cookies", n)
	}
	w := httptest.NewRecorder()
	m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { theme.Set(s, "short") }).ServeHTTP(w, r)
	if got := theme.Get(sojourntest.Session(t, m, r, w.Result())); got != "short" {
		t.Errorf("then the theme has %d bytes", len(got))
	}
}

func TestABrowserIsOneVisitor(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		b := sojourntest.NewBrowser(t, counter(m))
		target := "/page/1"
		if cfg.Cookie.Insecure {
			target = "http://192.0.2.1:8080/page/1"
		}
		for want := 1; want <= 3; want++ {
			body, _ := io.ReadAll(b.Get(target).Body)
			if string(body) != fmt.Sprintf("  %d", want) {
				t.Errorf("visit %d: %q", want, body)
			}
		}
		b.Prepare(m, func(s *sojourn.Session) {
			s.Login("ada")
			theme.Set(s, "dark")
		})
		body, _ := io.ReadAll(b.Get(target).Body)
		if string(body) != "ada dark 4" {
			t.Errorf("after a login: %q", body)
		}
		if s := b.Session(m); s.User() != "ada" || visits.Get(s) != 4 {
			t.Errorf("the session has user %q and %d visits", s.User(), visits.Get(s))
		}
		other := sojourntest.NewBrowser(t, counter(m))
		if body, _ := io.ReadAll(other.Get(target).Body); string(body) != "  1" {
			t.Errorf("another visitor sees %q", body)
		}
	})
}

func TestABrowserHoldsTheCookiesOfSeveralManagers(t *testing.T) {
	shop := sojourntest.NewManager(t, sojourn.Config{})
	staff := sojourntest.NewManager(t, sojourn.Config{Name: "staff", Mode: sojourn.CookieOnly})
	b := sojourntest.NewBrowser(t, http.NotFoundHandler())
	b.Prepare(shop, func(s *sojourn.Session) { s.Login("ada") })
	b.Prepare(staff, func(s *sojourn.Session) { s.Login("grace") })
	if u, v := b.Session(shop).User(), b.Session(staff).User(); u != "ada" || v != "grace" {
		t.Errorf("the shop knows %q, the staff page %q", u, v)
	}
}

func TestABrowserShowsRedirectsAndFollowsThemWhenAsked(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/from/here", http.RedirectHandler("../to?q=1", http.StatusSeeOther))
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI, " at ", r.Host) })
	b := sojourntest.NewBrowser(t, mux)
	res := b.Get("/from/here")
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("the redirect is %s", res.Status)
	}
	if body, _ := io.ReadAll(b.Follow(res).Body); string(body) != "/to?q=1 at example.com" {
		t.Errorf("it leads to %q", body)
	}
}

func TestABrowsersTabsWorkAtOnce(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.StoredOnly})
	b := sojourntest.NewBrowser(t, counter(m))
	b.Get("/")
	var tabs sync.WaitGroup
	for range 16 {
		tabs.Go(func() { b.Get("/") })
	}
	tabs.Wait()
	if n := visits.Get(b.Session(m)); n != 17 {
		t.Errorf("17 visits were counted as %d", n)
	}
}

func TestSessionsEndInFakeTime(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		synctest.Test(t, func(t *testing.T) {
			cfg.IdleTimeout, cfg.Lifetime = time.Hour, 3*time.Hour
			m := sojourntest.NewManager(t, cfg)
			b := sojourntest.NewBrowser(t, counter(m))
			target := "/page"
			if cfg.Cookie.Insecure {
				target = "http://example.com/page"
			}
			b.Get(target)
			for range 5 {
				time.Sleep(30 * time.Minute)
				b.Get(target)
			}
			if n := visits.Get(b.Session(m)); n != 6 {
				t.Errorf("%d visits in two and a half hours of activity", n)
			}
			time.Sleep(31 * time.Minute)
			if !b.Session(m).IsNew() {
				t.Error("the session outlives its lifetime")
			}
			b.Get(target)
			time.Sleep(61 * time.Minute)
			if !b.Session(m).IsNew() {
				t.Error("the session outlives its idle timeout")
			}
		})
	})
}

func TestTheManagersLogGoesToTheTestsLog(t *testing.T) {
	rec := &recordingT{TB: t}
	m := sojourntest.NewManager(rec, sojourn.Config{})
	bad := sojourn.NewKey[string]("number")
	r := sojourntest.Request(t, m, "GET", "/", nil, func(s *sojourn.Session) { s.Set("number", 7) })
	m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { bad.Get(s) }).
		ServeHTTP(httptest.NewRecorder(), r)
	if !strings.Contains(rec.out.String(), "does not decode") {
		t.Errorf("the log: %q", rec.out.String())
	}
}

func TestTheManagerIsClosedWithItsTest(t *testing.T) {
	var m *sojourn.Manager
	t.Run("a test", func(t *testing.T) { m = sojourntest.NewManager(t, sojourn.Config{}) })
	if _, _, err := sitetest.Begin(t.Context(), m, http.Header{}); !errors.Is(err, sojourn.ErrClosed) {
		t.Errorf("afterwards it opens sessions: %v", err)
	}
}

func TestAGivenConfigurationIsKept(t *testing.T) {
	var log strings.Builder
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	cfg := sojourn.Config{Keys: keys, Mode: sojourn.CookieOnly, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	one, two := sojourntest.NewManager(t, cfg), sojourntest.NewManager(t, cfg)
	r := sojourntest.Request(t, one, "GET", "/", nil, func(s *sojourn.Session) { theme.Set(s, "dark") })
	w := httptest.NewRecorder()
	counter(two).ServeHTTP(w, r)
	if got := theme.Get(sojourntest.Session(t, two, r, w.Result())); got != "dark" {
		t.Errorf("managers with the same keys do not understand each other: %q", got)
	}
}

func TestMistakesFailTheTest(t *testing.T) {
	stored := sojourntest.NewManager(t, sojourn.Config{})
	cookies := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.CookieOnly})
	for name, f := range map[string]func(t testing.TB){
		"a configuration that is refused": func(t testing.TB) { sojourntest.NewManager(t, sojourn.Config{InlineLimit: -1}) },
		"a session that cannot be saved": func(t testing.TB) {
			sojourntest.Request(t, cookies, "GET", "/", nil, func(s *sojourn.Session) { cart.Set(s, []string{"mug"}) })
		},
		"a login of nobody": func(t testing.TB) {
			sojourntest.NewBrowser(t, http.NotFoundHandler()).Prepare(stored, func(s *sojourn.Session) { s.Login("") })
		},
		"following what is no redirect": func(t testing.TB) {
			b := sojourntest.NewBrowser(t, http.NotFoundHandler())
			b.Follow(b.Get("/"))
		},
	} {
		rec := &recordingT{TB: t}
		rec.run(f)
		if !strings.Contains(rec.fatal, "sojourntest: ") {
			t.Errorf("%s: the test goes on; it said %q", name, rec.fatal)
		}
	}
}

// recordingT is a test that may fail.
type recordingT struct {
	testing.TB
	out    strings.Builder
	fatal  string
	errors string
}

type stopped struct{}

func (r *recordingT) Output() io.Writer { return &r.out }

func (r *recordingT) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	panic(stopped{})
}

func (r *recordingT) Errorf(format string, args ...any) {
	r.errors += fmt.Sprintf(format, args...) + "\n"
}

func (r *recordingT) run(f func(testing.TB)) {
	defer func() {
		if p := recover(); p != nil && p != any(stopped{}) {
			panic(p)
		}
	}()
	f(r)
}
