package sojourn

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/caching"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/stored"
)

// ResponseHeader is the header of a response that has not been sent yet.
// [http.Header] implements it.
type ResponseHeader interface {
	Values(name string) []string
	Set(name, value string)
	Add(name, value string)
	Del(name string)
}

// Exchange is one request and its response, for servers and frameworks without
// an [http.ResponseWriter]. It is safe for concurrent use, and prints without
// header and session. It is also the context that [Manager.Attach] returns. A
// context holds it under the key of its *Manager, and holds the innermost
// exchange under (*Exchange)(nil).
type Exchange struct {
	context.Context
	m    *Manager
	r    *http.Request // nil with Attach
	info func() RequestInfo

	commit sync.Once
	result error // of the commit

	mu      sync.Mutex // guards the fields below; never held during I/O
	s       *Session
	loadErr error
	loaded  chan struct{} // closed when loading ends; nil without a waiting goroutine
	loading bool
	phase   phase
	late    error // in phaseOver: why nothing is saved any more
	// read: the response depends on the session, because the handler called Get,
	// with or without success.
	read bool
	// exposed: the response has started, and shared caches may keep it.
	exposed  bool
	failed   bool // only a Logout is saved
	finished bool // Finish was called
	holds    int  // calls of Hold without release

	asked    atomic.Bool // the request needs more than a plain pass-through
	hijacked atomic.Bool
	flushed  atomic.Bool // the handler has called Flush: the response is a stream
}

// Attach returns a context for [Manager.Get]. The first Get loads the session
// and calls info, once. The result of info must stay valid until Finish, so a
// server that reuses buffers, such as fasthttp, copies them. The server calls
// Commit before it sends the header, and always calls Finish:
//
//	ctx, exchange := sessions.Attach(ctx, info)
//	defer exchange.Finish()
//	err := handle(ctx)                      // the framework renders its own errors
//	err = exchange.Commit(status, header)   // an error: send it instead of the response
func (m *Manager) Attach(ctx context.Context, info func() RequestInfo) (context.Context, *Exchange) {
	x := &Exchange{Context: ctx, m: m, info: sync.OnceValue(info)}
	return x, x
}

// Commit saves the session's changes and adds cookies, Vary, and Cache-Control
// to h. On an error, nothing was saved except a Logout, whose cookies are in h;
// the server then sends [ErrorStatus]. Later calls return the first result.
//
// With a status of 500 or above, or after Fail, only a Logout is saved. RPC
// servers pass 200 or 500. Status 304 keeps flash messages; status 101 and the
// Content-Type text/event-stream prevent a rotation. A nil h means that the
// header has been sent: a change that needs a cookie is then [ErrTooLate].
func (x *Exchange) Commit(status int, h ResponseHeader) error {
	x.commit.Do(func() {
		fields, ok := h.(http.Header)
		if h != nil && !ok {
			known := request.Fields(h)
			fields = known.Clone()
			defer func() { request.Replace(h, known, fields) }()
		}
		x.result = x.start(status, fields)
	})
	return x.result
}

// start is the first call of Commit.
func (x *Exchange) start(status int, h http.Header) error {
	x.mu.Lock()
	if x.phase == phaseOver { // called from a goroutine that outlived the handler
		x.mu.Unlock()
		return nil
	}
	next := phaseBody
	if status >= http.StatusInternalServerError || x.failed {
		next, x.late = phaseOver, errAnswered
	}
	x.phase = next
	s, read := x.s, x.read
	x.exposed = !read && x.r != nil && status != http.StatusSwitchingProtocols && caching.Cacheable(x.r.Method, h)
	x.mu.Unlock()
	if !read {
		return nil
	}
	var err error
	if s != nil {
		err = s.answer(x.Context, h, status, next)
	}
	x.limitCaching(h)
	if err != nil {
		x.m.commitFailed(s, err)
		x.close(notKept(err))
	}
	return err
}

// limitCaching sets the cache headers of a response that depends on the
// session.
func (x *Exchange) limitCaching(h http.Header) {
	if h != nil && (x.r != nil || x.info().Method != "") {
		x.m.limitCaching(h, x.pattern())
	}
}

func (x *Exchange) pattern() string {
	if x.r == nil {
		return ""
	}
	return x.r.Pattern
}

// Fail is the package function [Fail] for this exchange only.
func (x *Exchange) Fail() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = true
	x.asked.Store(true)
}

func (x *Exchange) hasFailed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

// Hold keeps the exchange open after Finish until release is called, for a
// stream or a connection that outlives the handler.
func (x *Exchange) Hold() (release func()) {
	x.flushed.Store(true)
	if s := x.ready(); s != nil {
		s.stream.Store(true)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.holds++
	return sync.OnceFunc(func() {
		x.mu.Lock()
		x.holds--
		over := x.finished && x.holds == 0
		x.mu.Unlock()
		if over {
			_ = x.end() // logs its error
		}
	})
}

// Finish saves what a stored session changed after Commit, and releases
// [Session.Done]. An error means that these changes were lost; it was logged
// and counted. Without an earlier Commit, it saves only a Logout. Later calls
// do nothing.
func (x *Exchange) Finish() error {
	x.mu.Lock()
	waits := x.finished || x.holds > 0
	x.finished = true
	x.mu.Unlock()
	if waits {
		return nil
	}
	return x.end()
}

func (x *Exchange) end() error {
	_ = x.Commit(http.StatusInternalServerError, nil) // if there was none
	x.mu.Lock()
	failed := x.failed
	x.mu.Unlock()
	s := x.close(errReturned)
	if s == nil {
		return nil
	}
	defer s.release(errReturned)
	err := s.finish(x.Context, failed)
	if err != nil {
		x.m.count.late.Add(1)
		x.m.log.Error("changes made after the response had started were lost",
			slog.String("session", s.Handle()), slog.Any("error", err))
	}
	return err
}

// close ends the request for its session, and returns the session if it was
// loaded. From now on nothing is saved. why is the reason, unless there is an
// earlier one.
func (x *Exchange) close(why error) *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase != phaseOver {
		x.phase, x.late = phaseOver, why
	}
	return x.s
}

// Fail marks the request as failed, whatever its status will be: the sessions
// of all managers in ctx drop their unsaved changes, except a Logout. Adapters
// call it for an error that the HTTP status does not show. It loads nothing,
// can be called at any time and more than once, and reports whether ctx belongs
// to a request of any manager.
func Fail(ctx context.Context) bool {
	found := false
	for x := range exchanges(ctx) {
		x.Fail()
		found = true
	}
	return found
}

// Commit saves the loaded sessions of all managers in ctx before the response
// is rendered, so that a framework can render the error: see [ErrorStatus].
// After an error, the request has failed, as after [Fail]. After a Fail, Commit
// does nothing.
func Commit(ctx context.Context) error {
	for x := range exchanges(ctx) {
		s := x.ready()
		if s == nil || x.hasFailed() {
			continue
		}
		if err := s.Save(ctx); err != nil {
			x.m.commitFailed(s, err)
			Fail(ctx)
			return err
		}
	}
	return nil
}

// innermost is the context key of the innermost request of any manager.
// Adapters for contexts that hide values, such as fiber's, set the key
// themselves.
var innermost = (*Exchange)(nil)

// exchanges returns the exchanges of all managers in ctx, the innermost first.
func exchanges(ctx context.Context) iter.Seq[*Exchange] {
	return func(yield func(*Exchange) bool) {
		x, _ := ctx.Value(innermost).(*Exchange)
		for ; x != nil; x, _ = x.Context.Value(innermost).(*Exchange) {
			if !x.foreign(ctx) && !yield(x) {
				return
			}
		}
	}
}

// request returns the manager's request that ctx belongs to. It returns nil if
// there is none, or if ctx belongs to another request that was derived from it.
func (m *Manager) request(ctx context.Context) *Exchange {
	x, _ := ctx.Value(m).(*Exchange)
	if x == nil || x.foreign(ctx) {
		return nil
	}
	return x
}

// session loads the request's session once for all goroutines that call Get.
func (x *Exchange) session(ctx context.Context) (*Session, error) {
	x.noteRead()
	x.mu.Lock()
	for x.loading {
		if x.loaded == nil {
			x.loaded = make(chan struct{})
		}
		loaded := x.loaded
		x.mu.Unlock()
		select {
		case <-loaded:
		case <-ctx.Done():
			return nil, fault.Away("load", context.Cause(ctx))
		}
		x.mu.Lock()
	}
	if x.s != nil || x.loadErr != nil {
		defer x.mu.Unlock()
		return x.s, x.loadErr
	}
	x.loading = true
	x.mu.Unlock()

	var s *Session
	var err error
	returned := false // stays false if the store or a function of the application panics
	defer func() {
		if !returned {
			err = fault.Away("load", stored.ErrAborted)
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.loading = false
		if x.loaded != nil {
			close(x.loaded)
			x.loaded = nil
		}
		switch {
		case err == nil:
			s.lock()
			s.phase, s.late = x.phase, x.late
			s.stream.Store(x.hijacked.Load() || x.flushed.Load())
			s.keepAwake()
			s.mu.Unlock()
			x.s = s
		case ctx.Err() == nil || x.Context.Err() != nil: // else only this call was canceled
			x.loadErr = err
		}
	}()
	x.checkNesting()
	s = newSession(x.m.of(x))
	s.ctx, s.req = x, request.Info(x.about())
	err = loader{s.session}.load(ctx)
	returned = true
	if err != nil {
		return nil, err
	}
	return s, nil
}

// about returns the request's description.
func (x *Exchange) about() RequestInfo {
	if x.r != nil {
		return InfoOf(x.r)
	}
	return x.info()
}

// noteRead records that the response depends on the session from now on.
func (x *Exchange) noteRead() {
	x.mu.Lock()
	late := x.exposed && !x.read
	x.read = true
	x.mu.Unlock()
	x.asked.Store(true)
	if x.r == nil {
		// The outer response, of Wrap, then depends on this session as well.
		if outer := x.m.request(x.Context); outer != nil {
			outer.noteRead()
		}
	}
	if late {
		x.m.log.Once(slog.LevelWarn, "Get was called after the response had started, so the response has no Vary and Cache-Control for its session; "+
			"call Get before the first byte, or set Cache-Control: private", slog.String("pattern", x.pattern()))
	}
}

// ready returns the session if it was loaded, and otherwise nil.
func (x *Exchange) ready() *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.s
}

// checkNesting logs an error for two nested managers with one name, because
// they would overwrite each other's cookies.
func (x *Exchange) checkNesting() {
	for outer := range exchanges(x.Context) {
		if outer.m != x.m && outer.m.cookies.ReferenceName() == x.m.cookies.ReferenceName() {
			x.m.log.Once(slog.LevelError, "two session managers with the same cookie name are nested; give each its own Config.Name",
				slog.String("name", x.m.name))
		}
	}
}

func (x *Exchange) Format(f fmt.State, _ rune) { printText(f, "sojourn request of "+x.m.text()) }

func (x *Exchange) LogValue() slog.Value { return slog.StringValue("sojourn request of " + x.m.text()) }
