package sojourn

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/caching"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/stored"
)

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
	if err := s.end(q.Context, discarded); err != nil {
		q.m.count.late.Add(1)
		q.m.log.Error("changes made after the response had started were lost",
			slog.String("session", s.Handle()), slog.Any("error", err))
	}
}

// leave is called in any case, also when the handler panicked: then nothing
// was committed, and nothing will be. A middleware outside may still answer.
func (q *exchange) leave() {
	q.mu.Lock()
	read := q.read
	q.mu.Unlock()
	if read && !q.started {
		q.m.limitCaching(q.inner.Header(), q.r.Pattern)
	}
	if s := q.close(errPanicked); s != nil { // or it has returned, before
		s.leave(errPanicked)
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

// Unwrap is for [http.ResponseController].
func (q *exchange) Unwrap() http.ResponseWriter { return q.inner }

// Header returns the response's header.
func (q *exchange) Header() http.Header { return q.inner.Header() }

// WriteHeader commits the session, unless status is informational.
func (q *exchange) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if q.failed == nil {
			q.inner.WriteHeader(status)
		}
		return
	}
	if q.started && status >= http.StatusInternalServerError {
		q.discard() // the handler failed halfway
	}
	if q.start(status) == nil {
		q.inner.WriteHeader(status)
	}
}

// Write commits the session before the first byte.
func (q *exchange) Write(b []byte) (int, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return q.inner.Write(b)
}

// WriteString is Write for a string.
func (q *exchange) WriteString(s string) (int, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.WriteString(q.inner, s)
}

// ReadFrom lets the connection use sendfile.
func (q *exchange) ReadFrom(src io.Reader) (int64, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.Copy(q.inner, src)
}

// Flush commits the session and sends what was written.
func (q *exchange) Flush() { _ = q.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (q *exchange) FlushError() error {
	err := q.start(http.StatusOK)
	if q.flushed.CompareAndSwap(false, true) {
		if s := q.ready(); s != nil {
			s.stream.Store(true)
		}
	}
	// Also if that was answered with an error: who calls Flush may go on for long.
	flushed := http.NewResponseController(q.inner).Flush()
	if err != nil {
		return err
	}
	return flushed
}

// Hijack commits the session and hands over the connection. The cookies are in
// Header then, for whoever writes the response by hand.
func (q *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	// Committing first and failing then would leave nothing to answer with.
	if !canHijack(q.inner) {
		return nil, nil, http.ErrNotSupported
	}
	if err := q.start(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(q.inner).Hijack()
	if err == nil {
		q.hijacked.Store(true)
	}
	return conn, rw, err
}

func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case *exchange: // is a Hijacker whatever is below
			w = t.inner
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}
