package adaptertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The application's values.
var (
	theme = sojourn.NewKey[string]("adaptertest theme")                 // may be in the cookie
	cart  = sojourn.NewKey[int]("adaptertest cart", sojourn.ServerSide) // is in the store
)

// suite is one running check.
type suite struct {
	testing.TB
	Wiring
	ctx context.Context // bounds the check's waits
}

// site is a server of the wiring with its own manager.
type site struct {
	*suite
	sessions *sojourn.Manager
	store    *faults.Store
	client   Client
}

// start starts a server that runs app, and whose visits are counted with act.
func (t *suite) start(app func(s *site, call *Call) error) *site {
	t.Helper()
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	log := &logbook{}
	s := &site{suite: t, store: faults.Wrap(memory.New())}
	s.sessions, err = sojourn.New(sojourn.Config{
		Keys:   ring,
		Store:  s.store,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.sessions.Close()
		if t.Failed() {
			t.Logf("the manager's log:\n%s", log.text())
		}
	})
	s.client = t.Start(t.TB, s.sessions, func(call *Call) error {
		for a, missing := range map[Ability]bool{
			Streams: call.Stream == nil, WebSockets: call.WebSocket == nil, Hijacking: call.Hijack == nil,
			Files: call.File == nil, BodyLimits: call.Body == nil,
		} {
			if missing && t.can(a) {
				t.Errorf("the call has no function for %s, and Wiring.Cannot does not say so", a)
				return errApp
			}
		}
		return app(s, call)
	})
	return s
}

// logbook is a log in memory.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// visit is the application's action for a value of the parameter "do", with the
// request's session.
type visit func(call *Call, session *sojourn.Session) error

// serve starts a server that carries out the parameter "do". Without one it
// answers with the user, the cart and the theme.
func (t *suite) serve(visits map[string]visit) *site {
	t.Helper()
	return t.start(func(s *site, call *Call) error {
		session, err := s.sessions.Get(call.Context)
		if err != nil {
			return err
		}
		switch name := call.Param("do"); name {
		case "":
			return call.Respond(http.StatusOK, state{session.User(), cart.Get(session), theme.Get(session)}.text())
		case "login":
			session.Login(call.Param("user"))
			cart.Set(session, 1)
			return call.Respond(http.StatusOK, "hello")
		case "logout":
			session.Logout()
			return call.Respond(http.StatusOK, "goodbye")
		default:
			if visits[name] == nil {
				t.Errorf("the parameter \"do\" is %q", name)
				return errApp
			}
			return visits[name](call, session)
		}
	})
}

// state is the content of a visitor's session.
type state struct {
	user  string
	cart  int
	theme string
}

func (s state) text() string { return s.user + "|" + strconv.Itoa(s.cart) + "|" + s.theme }

// visitor keeps cookies, like a browser with one site only. It is used by one
// goroutine at a time; parallel requests use copies.
type visitor struct {
	s       *site
	cookies map[string]string
	agent   string
}

func (s *site) visitor() *visitor {
	return &visitor{s: s, cookies: map[string]string{}, agent: "adaptertest"}
}

func (v *visitor) copy() *visitor {
	c := v.s.visitor()
	for name, value := range v.cookies {
		c.cookies[name] = value
	}
	return c
}

func (v *visitor) header() http.Header {
	h := http.Header{"User-Agent": {v.agent}}
	var pairs []string
	for name, value := range v.cookies {
		pairs = append(pairs, name+"="+value)
	}
	if len(pairs) > 0 {
		h.Set("Cookie", strings.Join(pairs, "; "))
	}
	return h
}

// keep applies the answer's Set-Cookie lines, and returns how many there are.
func (v *visitor) keep(h http.Header) int {
	v.s.Helper()
	for _, line := range h.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			v.s.Errorf("a Set-Cookie line does not parse: %v", err)
			continue
		}
		if c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		} else {
			v.cookies[c.Name] = c.Value
		}
	}
	return len(h.Values("Set-Cookie"))
}

// params makes the parameters of a request from names and values.
func params(do string, more ...string) map[string]string {
	p := map[string]string{}
	if do != "" {
		p["do"] = do
	}
	for i := 0; i+1 < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return p
}

// answer is an Answer that was read to the end.
type answer struct {
	failed  bool
	status  int // 0 if none came
	header  http.Header
	closes  bool
	text    string
	cookies int // Set-Cookie lines
}

// ask sends a request and keeps the answer's cookies. A connection that ends
// without an answer is a failed call.
func (v *visitor) ask(p map[string]string) answer {
	v.s.Helper()
	return v.send(Request{Header: v.header(), Params: p})
}

func (v *visitor) send(r Request) answer {
	v.s.Helper()
	a, err := v.s.client.Send(v.s.ctx, r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			v.s.Errorf("no answer came in time: %v", err)
		}
		return answer{failed: true, header: http.Header{}, text: err.Error()}
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil && !a.Failed {
		a.Failed = true
		if errors.Is(err, context.DeadlineExceeded) {
			v.s.Errorf("the answer did not end in time: %v", err)
		}
	}
	got := answer{failed: a.Failed, status: a.Status, header: a.Header, closes: a.Closes, text: string(body)}
	got.cookies = v.keep(a.Header)
	return got
}

// does is ask for a request that must succeed.
func (v *visitor) does(do string, more ...string) answer {
	v.s.Helper()
	a := v.ask(params(do, more...))
	if a.failed {
		v.s.Fatalf("the request %q failed: %d %s", do, a.status, a.text)
	}
	return a
}

// has checks the content of the visitor's session.
func (v *visitor) has(want state, why string) {
	v.s.Helper()
	if got := v.does("").text; !strings.Contains(got, want.text()) {
		v.s.Errorf("%s: the session has user|cart|theme %q, want %q", why, got, want.text())
	}
}

// newCustomer is a visitor who has logged in as ada, with a cart of 1.
func (s *site) newCustomer() *visitor {
	s.Helper()
	v := s.visitor()
	if v.does("login", "user", "ada").cookies == 0 {
		s.Fatal("a login sets no cookie")
	}
	return v
}

// wants checks that a call failed, with that status if the wiring has any.
func (t *suite) wants(a answer, status ...int) {
	t.Helper()
	if !a.failed {
		t.Errorf("the call did not fail: %d %s", a.status, a.text)
		return
	}
	if !t.can(Statuses) || len(status) == 0 {
		return
	}
	for _, s := range status {
		if s == a.status {
			return
		}
	}
	t.Errorf("the status is %d, want %d: %s", a.status, status, a.text)
}

// eventually waits until done reports true.
func (t *suite) eventually(what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-t.ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// wait waits for a channel to be closed, and ends the check if it is not.
func (t *suite) wait(what string, c <-chan struct{}) {
	t.Helper()
	if t.await(what, c) != nil {
		t.FailNow()
	}
}

// await is wait in a handler.
func (t *suite) await(what string, c <-chan struct{}) error {
	t.Helper()
	select {
	case <-c:
		return nil
	case <-t.ctx.Done():
		t.Errorf("waited in vain: %s", what)
		return t.ctx.Err()
	}
}

// stream reads the lines of a streamed answer.
type stream struct {
	*suite
	answer *Answer
	hangUp context.CancelFunc
	read   lineReader
}

// open sends a request with a streamed answer, and keeps its cookies.
func (v *visitor) open(p map[string]string) *stream {
	v.s.Helper()
	ctx, hangUp := context.WithCancel(v.s.ctx)
	v.s.Cleanup(hangUp)
	a, err := v.s.client.Send(ctx, Request{Header: v.header(), Params: p})
	if err != nil {
		v.s.Fatalf("opening a stream: %v", err)
	}
	v.s.Cleanup(func() { a.Body.Close() })
	v.keep(a.Header)
	return &stream{v.s.suite, a, hangUp, newLineReader(a.Body)}
}

// expect reads up to a line that contains text, which may have the framework's
// text around it.
func (s *stream) expect(text string) {
	s.Helper()
	for {
		line, err := s.read.next()
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			s.Fatalf("the stream has no line %q: %v", text, err)
		}
	}
}

// rest reads to the end, and returns it.
func (s *stream) rest() string {
	s.Helper()
	var all strings.Builder
	for {
		line, err := s.read.next()
		all.WriteString(line)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				s.Fatalf("the stream does not end: %v", err)
			}
			return all.String()
		}
	}
}
