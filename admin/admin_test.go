package admin_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
	iphone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
	policy  = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

var note = sojourn.NewKey[string]("note")

// site is an application with both handlers in it.
type site struct {
	t        *testing.T
	sessions *sojourn.Manager
	handler  http.Handler
	recorder *admin.Recorder

	mu      sync.Mutex
	actions []admin.Action
	log     strings.Builder
}

// set has the variations of a site.
type set struct {
	config  func(*sojourn.Config)
	devices func(*admin.DevicesOptions)
	ops     func(*admin.DashboardOptions)
}

func open(t *testing.T, change set) *site {
	t.Helper()
	s := &site{t: t, recorder: admin.NewRecorder()}
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(lockedLog{s}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := sojourn.Config{Keys: keys, Store: memory.New(), Cookie: sojourn.Cookie{Insecure: true}, Events: s.recorder.Record, Logger: logger}
	if change.config != nil {
		change.config(&config)
	}
	if s.sessions, err = sojourn.New(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.sessions.Close(); err != nil {
			t.Error(err)
		}
	})
	devicesOptions := admin.DevicesOptions{Path: "/account/devices/", LoginURL: "/login", Site: "Example", Logger: logger}
	if change.devices != nil {
		change.devices(&devicesOptions)
	}
	devices, err := admin.Devices(s.sessions, devicesOptions)
	if err != nil {
		t.Fatal(err)
	}
	opsOptions := admin.DashboardOptions{
		Path:      "/ops/",
		Authorize: func(r *http.Request) bool { return r.Header.Get("Operator") != "" },
		Operator:  func(r *http.Request) string { return r.Header.Get("Operator") },
		Recorder:  s.recorder,
		Logger:    logger,
		Audit: func(_ context.Context, a admin.Action) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.actions = append(s.actions, a)
		},
	}
	if change.ops != nil {
		change.ops(&opsOptions)
	}
	ops, err := admin.Dashboard(s.sessions, opsOptions)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/account/devices/", devices)
	mux.Handle("/ops/", ops)
	mux.Handle("/login", s.sessions.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Login(r.FormValue("user"), "pwd")
		note.Set(session, "value of "+r.FormValue("user"))
	}))
	mux.Handle("/rotate", s.sessions.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Rotate()
	}))
	mux.Handle("/handle", s.sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		fmt.Fprintf(w, "%s %s %s", session.Handle(), session.Info().Placement, session.User())
	}))
	s.handler = mux
	return s
}

type lockedLog struct{ *site }

func (l lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

// browser keeps cookies.
type browser struct {
	*site
	agent, ip string
	header    http.Header // sent with every request
	cookies   map[string]string
}

func (s *site) browser(agent, ip string) *browser {
	return &browser{site: s, agent: agent, ip: ip, header: http.Header{}, cookies: map[string]string{}}
}

// login is a browser in which a user has logged in.
func (s *site) login(user, agent, ip string) *browser {
	s.t.Helper()
	b := s.browser(agent, ip)
	if res := b.post("/login", "user", user); res.Code != http.StatusOK {
		s.t.Fatalf("login: %d %s", res.Code, res.Body)
	}
	return b
}

func (s *site) operator(name string) *browser {
	b := s.browser(firefox, "192.0.2.9")
	b.header.Set("Operator", name)
	return b
}

func (b *browser) get(target string) *httptest.ResponseRecorder {
	return b.send(httptest.NewRequest(http.MethodGet, target, nil))
}

func (b *browser) post(target string, fields ...string) *httptest.ResponseRecorder {
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.send(r)
}

func (b *browser) send(r *http.Request) *httptest.ResponseRecorder {
	r.RemoteAddr = net.JoinHostPort(b.ip, "4711")
	r.Header.Set("User-Agent", b.agent)
	for name, values := range b.header {
		r.Header[name] = values
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

// handle is the browser's session, and user its user.
func (b *browser) handle() string { return strings.Fields(b.get("/handle").Body.String())[0] }

func (b *browser) user() string {
	parts := strings.SplitN(b.get("/handle").Body.String(), " ", 3)
	return parts[2]
}

func (s *site) live(user string) int {
	s.t.Helper()
	all, err := s.sessions.Sessions(s.t.Context(), user)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

func (s *site) audited() []admin.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]admin.Action(nil), s.actions...)
}

func (s *site) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// wants fails the test unless the answer has the status and the texts.
func wants(t *testing.T, w *httptest.ResponseRecorder, status int, texts ...string) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d", w.Code, status)
	}
	for _, text := range texts {
		if !strings.Contains(w.Body.String(), text) {
			t.Errorf("the page does not say %q:\n%s", text, w.Body)
		}
	}
}

func lacks(t *testing.T, w *httptest.ResponseRecorder, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(w.Body.String(), text) {
			t.Errorf("the page says %q:\n%s", text, w.Body)
		}
	}
}

func goesTo(t *testing.T, w *httptest.ResponseRecorder, location string) {
	t.Helper()
	if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != location {
		t.Errorf("status %d to %q, want a redirect to %q", w.Code, got, location)
	}
}

// Every action refuses forms from other sites.
func TestFormsFromOtherSitesChangeNothing(t *testing.T) {
	s := open(t, set{})
	here := s.login("ada", firefox, "192.0.2.1")
	there := s.login("ada", iphone, "192.0.2.2")
	ops := s.operator("olga")
	for name, header := range map[string][2]string{
		"another site":             {"Sec-Fetch-Site", "cross-site"},
		"a sibling domain":         {"Sec-Fetch-Site", "same-site"},
		"an older browser's":       {"Origin", "https://evil.example"},
		"a page without an origin": {"Origin", "null"},
	} {
		for _, b := range []*browser{here, ops} {
			b.header.Set(header[0], header[1])
		}
		for _, w := range []*httptest.ResponseRecorder{
			here.post("/account/devices/sign-out", "handle", there.handle()),
			here.post("/account/devices/sign-out-others"),
			ops.post("/ops/revoke", "handle", there.handle()),
			ops.post("/ops/revoke-user", "user", "ada"),
			ops.post("/ops/sweep"),
		} {
			wants(t, w, http.StatusForbidden)
		}
		for _, b := range []*browser{here, ops} {
			b.header.Del(header[0])
		}
		if n := s.live("ada"); n != 2 {
			t.Fatalf("%s: %d sessions are left, want 2", name, n)
		}
	}
	if got := s.audited(); len(got) != 0 {
		t.Errorf("actions: %v", got)
	}
}

func TestNothingChangesByGET(t *testing.T) {
	s := open(t, set{})
	here, there := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2")
	for _, target := range []string{"/account/devices/sign-out?handle=" + there.handle(), "/account/devices/sign-out-others"} {
		w := here.get(target)
		wants(t, w, http.StatusMethodNotAllowed)
		if got := w.Header().Get("Allow"); got != "POST" {
			t.Errorf("%s: Allow is %q", target, got)
		}
	}
	ops := s.operator("olga")
	wants(t, ops.get("/ops/sweep"), http.StatusMethodNotAllowed)
	wants(t, ops.get("/ops/revoke?handle="+there.handle()), http.StatusOK, "End this session?")
	wants(t, ops.get("/ops/revoke-user?user=ada"), http.StatusOK, "End all sessions of ada?")
	if n := s.live("ada"); n != 2 {
		t.Errorf("%d sessions are left, want 2", n)
	}
}

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	s := open(t, set{})
	here, ops := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
	nobody := s.browser(firefox, "192.0.2.3")
	for name, w := range map[string]*httptest.ResponseRecorder{
		"devices": here.get("/account/devices/"), "not signed in": nobody.get("/account/devices/"), "no such page": here.get("/account/devices/x"),
		"overview": ops.get("/ops/"), "refused": nobody.get("/ops/"), "sessions": ops.get("/ops/sessions?user=ada"),
		"session": ops.get("/ops/session?handle=" + here.handle()), "no such session": ops.get("/ops/session?handle=x"),
	} {
		h := w.Header()
		if h.Get("Content-Security-Policy") != policy || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", name, h)
		}
		lacks(t, w, "<script", "<style", " style=", " onclick", "http://", "https://")
	}
}

// hostile is a user name or User-Agent with markup.
const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(2)>`

func TestNamesAndUserAgentsAreNeverMarkup(t *testing.T) {
	s := open(t, set{ops: func(o *admin.DashboardOptions) { o.ShowValues = true }})
	here := s.login(hostile, "Mozilla/5.0 "+hostile, "192.0.2.1")
	s.login(hostile, hostile, "192.0.2.2")
	ops, user := s.operator("olga"), url.QueryEscape(hostile)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"devices":  here.get("/account/devices/"),
		"sessions": ops.get("/ops/sessions?user=" + user),
		"session":  ops.get("/ops/session?handle=" + here.handle()),
		"one":      ops.get("/ops/revoke?handle=" + here.handle()),
		"all":      ops.get("/ops/revoke-user?user=" + user),
		"nobody":   ops.get("/ops/sessions?user=" + user + "x"),
		"handle":   ops.get("/ops/session?handle=" + user),
		"page":     ops.get("/ops/sessions?user=ada&page=" + user),
		"span":     ops.get("/ops/?span=" + user),
	} {
		if strings.Contains(w.Body.String(), "<script") || strings.Contains(w.Body.String(), "<img") {
			t.Errorf("%s: markup came through:\n%s", name, w.Body)
		}
	}
	// The escaped name is submitted unchanged, so all of the user's sessions are ended.
	goesTo(t, ops.post("/ops/revoke-user", "user", hostile), "sessions?user="+user)
	if n := s.live(hostile); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestNoPageHoldsASecret(t *testing.T) {
	s := open(t, set{})
	here, there := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2")
	ops := s.operator("olga")
	secrets := []string{"value of ada"}
	for _, b := range []*browser{here, there} {
		for _, v := range b.cookies {
			secrets = append(secrets, v)
		}
	}
	if len(secrets) < 3 {
		t.Fatal("there are no cookies to look for")
	}
	for _, w := range []*httptest.ResponseRecorder{
		here.get("/account/devices/"),
		ops.get("/ops/"), ops.get("/ops/sessions?user=ada"), ops.get("/ops/session?handle=" + there.handle()),
		ops.get("/ops/revoke?handle=" + there.handle()), ops.get("/ops/revoke-user?user=ada"),
		ops.post("/ops/revoke", "handle", there.handle()),
	} {
		lacks(t, w, secrets...)
	}
	for _, secret := range secrets {
		if strings.Contains(s.logged(), secret) {
			t.Errorf("the log says %q", secret)
		}
	}
	// An end user sees no handles of others, and no user names.
	lacks(t, s.login("ben", firefox, "192.0.2.4").get("/account/devices/"), "ada", here.handle())
}

// broken is a store that does not answer.
type broken struct{ *memory.Store }

func (broken) ByUser(context.Context, store.UserHash) ([]store.Record, error) {
	return nil, fmt.Errorf("no answer from db.internal")
}

func (broken) Count(ctx context.Context) (store.Counts, error) {
	return store.Counts{}, fmt.Errorf("no answer from db.internal")
}

func TestAStoreThatFailsIsSaidSoWithoutDetails(t *testing.T) {
	s := open(t, set{config: func(c *sojourn.Config) { c.Store = broken{memory.New()} }})
	here, ops := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
	for _, w := range []*httptest.ResponseRecorder{
		here.get("/account/devices/"), here.post("/account/devices/sign-out-others"),
		ops.get("/ops/sessions?user=ada"), ops.post("/ops/revoke-user", "user", "ada"),
	} {
		wants(t, w, http.StatusServiceUnavailable, "<h1>")
		lacks(t, w, "db.internal")
	}
	wants(t, ops.get("/ops/"), http.StatusOK, "The store did not answer")
	if !strings.Contains(s.logged(), "db.internal") {
		t.Error("the log does not say why")
	}
	last := s.audited()[len(s.audited())-1]
	if last.Kind != admin.ActionRevokeUser || last.Err == nil {
		t.Errorf("the audit heard %+v", last)
	}
}

// plain is a store without optional interfaces.
type plain struct{ store.Store }

func TestAStoreWithoutAnIndexIsSaidSo(t *testing.T) {
	s := open(t, set{config: func(c *sojourn.Config) { c.Store = plain{memory.New()} }})
	here, ops := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
	wants(t, here.get("/account/devices/"), http.StatusNotImplemented, "Not available")
	wants(t, ops.get("/ops/sessions?user=ada"), http.StatusNotImplemented, "no index by user")
	wants(t, ops.get("/ops/"), http.StatusOK, "cannot count", "nothing to clean up")
}

func TestMistakesAreReportedAndTheHandlerIsClosed(t *testing.T) {
	s := open(t, set{})
	allow := func(*http.Request) bool { return true }
	for want, o := range map[string]admin.DevicesOptions{
		"Path":                               {LoginURL: "/login"},
		"Path \"/x\"":                        {Path: "/x", LoginURL: "/login"},
		"Path \"//x/\"":                      {Path: "//x/", LoginURL: "/login"},
		"LoginURL or ConfirmURL":             {Path: "/x/"},
		"LoginURL \"https://evil.example/\"": {Path: "/x/", LoginURL: "https://evil.example/"},
		"LoginURL \"//evil.example\"":        {Path: "/x/", LoginURL: "//evil.example"},
		"LoginURL \"///evil.example\"":       {Path: "/x/", LoginURL: "///evil.example"},
		"ConfirmURL":                         {Path: "/x/", ConfirmURL: `/\evil.example`},
		"Home \"javascript:alert(1)\"":       {Path: "/x/", LoginURL: "/login", Home: "javascript:alert(1)"},
	} {
		h, err := admin.Devices(s.sessions, o)
		closed(t, h, err, want)
	}
	for want, o := range map[string]admin.DashboardOptions{
		"Authorize is missing": {Path: "/x/"},
		"Path":                 {Authorize: allow},
		"Home":                 {Path: "/x/", Authorize: allow, Home: "https://evil.example"},
	} {
		h, err := admin.Dashboard(s.sessions, o)
		closed(t, h, err, want)
	}
	h, err := admin.Dashboard(nil, admin.DashboardOptions{Path: "/x/", Authorize: allow})
	closed(t, h, err, "manager is nil")
	h, err = admin.Devices(nil, admin.DevicesOptions{Path: "/x/", LoginURL: "/login"})
	closed(t, h, err, "manager is nil")
}

func closed(t *testing.T, h http.Handler, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want one about %q", err, want)
	}
	for _, target := range []string{"/x/", "/x/style.css", "/x/sessions?user=ada"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %s answers %d", want, target, w.Code)
		}
	}
}
