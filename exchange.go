package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/caching"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/stored"
)

// A context that leads to a request is not yet that request's own. Servers that
// run inside a handler derive the requests that they read from its context: h2c,
// and whatever speaks HTTP over a hijacked connection or a CONNECT tunnel. Each
// of those is another visitor's.

// request returns the manager's request that ctx belongs to, or nil: none, or
// one that only lends its context to ctx's own.
func (m *Manager) request(ctx context.Context) *exchange {
	q, _ := ctx.Value(m).(*exchange)
	if q == nil || q.foreign(ctx) {
		return nil
	}
	return q
}

// foreign reports whether ctx is that of another request than q, derived from
// q's by a server inside q's handler. Such a server sets its own
// http.ServerContextKey, or at least http.LocalAddrContextKey, which q shadows
// for what is below it.
func (q *exchange) foreign(ctx context.Context) bool {
	if ctx.Value(http.ServerContextKey) != q.Context.Value(http.ServerContextKey) {
		return true
	}
	if !q.tunnels() {
		return false
	}
	if q.hijacked.Load() && offersHTTP2(q.r) {
		return true
	}
	addr, _ := ctx.Value(http.LocalAddrContextKey).(shadowedAddr)
	return addr.of != q
}

// tunnels reports whether another server may read requests from q's connection
// or body.
func (q *exchange) tunnels() bool {
	return q.hijacked.Load() || q.r.Method == http.MethodConnect
}

// offersHTTP2 reports whether a request is how HTTP/2 begins on a connection
// without TLS (RFC 9113, section 3.4, and RFC 7540, section 3.2).
func offersHTTP2(r *http.Request) bool {
	return r.Method == "PRI" || strings.EqualFold(r.Header.Get("Upgrade"), "h2c")
}

// shadowedAddr is the local address of a request that may be a tunnel.
type shadowedAddr struct {
	of   *exchange
	addr net.Addr
}

func (a shadowedAddr) Network() string {
	if a.addr == nil {
		return ""
	}
	return a.addr.Network()
}

func (a shadowedAddr) String() string {
	if a.addr == nil {
		return ""
	}
	return a.addr.String()
}

// passes reports whether r, which arrives at another Wrap of the same manager,
// is q's own request, so that it has its session already. A request with other
// cookies of ours, such as a clone for a part of a page, has a session of its
// own.
func (q *exchange) passes(r *http.Request) bool {
	return !q.foreign(r.Context()) && !q.tunnels() && q.m.cookies.Same(q.r.Header, r.Header)
}

// noMiddleware returns ErrNoMiddleware, and tells the operator where a server
// inside a handler is the reason for it.
func (m *Manager) noMiddleware(ctx context.Context) error {
	if ctx.Value(m) != nil {
		m.log.Once(slog.LevelError, "a request was read by a server that runs inside Manager.Wrap, such as h2c or a tunnel, so it has no session; "+
			"put Wrap around the handler of the inner server: h2c.NewHandler(sessions.Wrap(mux), …), not sessions.Wrap(h2c.NewHandler(mux, …))")
	}
	return ErrNoMiddleware
}

// Format keeps the request's header, and the session, out of what prints the
// context or the response writer of a wrapped request.
func (q *exchange) Format(f fmt.State, _ rune) { printText(f, "sojourn request of "+q.m.text()) }

// LogValue is what Format prints.
func (q *exchange) LogValue() slog.Value { return slog.StringValue("sojourn request of " + q.m.text()) }

// exchange is one request on its way through Wrap: at once its context and its
// response writer, so that an untouched request costs one allocation. It is
// never reused: handlers leak response writers into goroutines.
type exchange struct {
	context.Context
	m     *Manager
	inner http.ResponseWriter
	r     *http.Request
	// encoding is the Content-Encoding that was set outside Wrap, by a
	// compressor that an error answer passes through as well.
	encoding []string

	started bool  // the header is on its way; used by the response's goroutine only
	failed  error // the commit failed: the handler's writes reach nobody

	mu      sync.Mutex // guards what follows; never held during I/O
	s       *Session
	loadErr error
	loaded  chan struct{} // closed when loading ends; nil if nobody waits for that
	loading bool
	phase   phase
	late    error // why nothing is kept any more, once phase is phaseOver
	// read: the response depends on the session, because somebody asked for it,
	// with or without success.
	read bool
	// exposed: the response has started, and shared caches may keep it.
	exposed bool
	// discarded: ServeError answers, so nothing is kept but a Logout.
	discarded bool

	asked    atomic.Bool // anything but a plain pass-through is needed
	hijacked atomic.Bool
	flushed  atomic.Bool // by the handler: it sends something now, and more later
}

// anyManager is the context key that finds the innermost request of any manager.
type anyManager struct{}

// Value makes the request findable, by its manager or as the innermost one.
func (q *exchange) Value(key any) any {
	switch k := key.(type) {
	case *Manager:
		if k == q.m {
			return q
		}
	case anyManager:
		return q
	}
	if key == http.LocalAddrContextKey && q.tunnels() {
		addr, _ := q.Context.Value(key).(net.Addr)
		return shadowedAddr{q, addr}
	}
	return q.Context.Value(key)
}

// session loads the request's session once, however many goroutines ask.
func (q *exchange) session(ctx context.Context) (*Session, error) {
	q.noteRead()
	q.mu.Lock()
	for q.loading {
		if q.loaded == nil {
			q.loaded = make(chan struct{})
		}
		loaded := q.loaded
		q.mu.Unlock()
		select {
		case <-loaded:
		case <-ctx.Done():
			return nil, fault.Away("load", context.Cause(ctx))
		}
		q.mu.Lock()
	}
	if q.s != nil || q.loadErr != nil {
		defer q.mu.Unlock()
		return q.s, q.loadErr
	}
	q.loading = true
	q.asked.Store(true)
	q.mu.Unlock()

	q.checkNesting()
	s := newSession(&q.m.core)
	s.r, s.in = q.r, q.r.Header
	var err error
	returned := false // or the store panics
	defer func() {
		if !returned {
			err = fault.Away("load", stored.ErrAborted)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.loading = false
		if q.loaded != nil {
			close(q.loaded)
			q.loaded = nil
		}
		switch {
		case err == nil:
			s.lock()
			s.phase, s.late = q.phase, q.late
			s.stream.Store(q.hijacked.Load() || q.flushed.Load())
			s.keepAwake()
			s.mu.Unlock()
			q.s = s
		case ctx.Err() == nil || q.Context.Err() != nil: // else only this caller gave up
			q.loadErr = err
		}
	}()
	err = loader{s.session}.load(ctx)
	returned = true
	if err != nil {
		return nil, err
	}
	return s, nil
}

// noteRead notes that the response depends on the session from now on.
func (q *exchange) noteRead() {
	q.mu.Lock()
	late := q.exposed && !q.read
	q.read = true
	q.mu.Unlock()
	q.asked.Store(true)
	if late {
		q.m.log.Once(slog.LevelWarn, "a session was asked for after the response had started, so caches were not told that the response depends on it; "+
			"call Get before the first byte, or set Cache-Control: private", slog.String("pattern", q.r.Pattern))
	}
}

// ready returns the session if it was loaded.
func (q *exchange) ready() *Session {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.s
}

// checkNesting reports two nested managers of one name: they would overwrite
// each other's cookies.
func (q *exchange) checkNesting() {
	for outer, _ := q.Context.Value(anyManager{}).(*exchange); outer != nil; outer, _ = outer.Context.Value(anyManager{}).(*exchange) {
		if outer.m != q.m && outer.m.cookies.ReferenceName() == q.m.cookies.ReferenceName() {
			q.m.log.Once(slog.LevelError, "two session managers with the same cookie name are nested; give each its own Config.Name",
				slog.String("name", q.m.name))
		}
	}
}

// close ends the request for its session, which is returned if it was asked for:
// from now on nothing is kept, for that reason, unless there was one before.
func (q *exchange) close(why error) *Session {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.phase != phaseOver {
		q.phase, q.late = phaseOver, why
	}
	return q.s
}

// discard drops the session's pending changes, except a Logout, when the
// response starts; at its end if it has started.
func (q *exchange) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.discarded = true
	q.asked.Store(true)
}

// start commits before the response's first byte. It returns an error if the
// response was replaced by an error answer.
func (q *exchange) start(status int) error {
	if q.started {
		return q.failed
	}
	q.started = true
	q.mu.Lock()
	if q.phase == phaseOver { // a goroutine that the handler left behind
		q.mu.Unlock()
		return nil
	}
	next := phaseBody
	if status >= http.StatusInternalServerError || q.discarded {
		next, q.late = phaseOver, errAnswered
	}
	q.phase = next
	s, read, h := q.s, q.read, q.inner.Header()
	q.exposed = !read && status != http.StatusSwitchingProtocols && caching.Cacheable(q.r.Method, h)
	q.mu.Unlock()
	if !read {
		return nil
	}
	var err error
	if s != nil {
		err = s.answer(q.Context, h, status, next)
	}
	q.m.limitCaching(h, q.r.Pattern)
	if err != nil {
		q.failed = err
		q.m.commitFailed(s, err)
		q.close(notKept(err))
		q.m.answerError(q.inner, q.r, err, q.encoding)
		return err
	}
	return nil
}

// finish is called when the handler has returned without a panic.
func (q *exchange) finish() {
	if !q.asked.Load() {
		return
	}
	_ = q.start(http.StatusOK) // a failure was answered
	s := q.close(errReturned)
	if s == nil || q.failed != nil {
		return
	}
	q.mu.Lock()
	discarded := q.discarded
	q.mu.Unlock()
	if err := s.finish(q.Context, discarded); err != nil {
		q.m.count.late.Add(1)
		q.m.log.Error("changes made after the response had started were lost",
			slog.String("session", s.Handle()), slog.Any("error", err))
	}
}

// release is called in any case, also when the handler panicked: then nothing
// was committed, and nothing will be. A middleware outside may still answer.
func (q *exchange) release() {
	q.mu.Lock()
	read := q.read
	q.mu.Unlock()
	if read && !q.started {
		q.m.limitCaching(q.inner.Header(), q.r.Pattern)
	}
	if s := q.close(errPanicked); s != nil { // or it has returned, before
		s.release(errPanicked)
	}
}

func (m *Manager) commitFailed(s *Session, err error) {
	m.count.failed.Add(1)
	level := slog.LevelError
	if errors.Is(err, ErrEnded) || errors.Is(err, ErrExpired) || errors.Is(err, ErrTaken) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCrossSite) || errors.Is(err, ErrTooManySessions) {
		level = slog.LevelInfo // the visitor's doing, not a fault
	}
	m.log.Log(context.Background(), level, "the session could not be kept; the response was replaced by an error",
		slog.String("session", s.Handle()), slog.Any("error", err))
}
