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

// Exchange is one request and its response, for servers and frameworks that
// have no [http.ResponseWriter]. [Manager.Wrap] uses one for net/http. It is
// also the context that [Manager.Attach] returns, and is safe for concurrent
// use. It is found under two keys of a context: its *Manager, and, the innermost
// one, (*Exchange)(nil).
type Exchange struct {
	context.Context
	m    *Manager
	r    *http.Request // nil with Attach
	info func() RequestInfo

	commit sync.Once
	result error // of the commit

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
	exposed  bool
	failed   bool // nothing is kept but a Logout
	finished bool // Finish was called
	holds    int  // by Hold, not released yet

	asked    atomic.Bool // anything but a plain pass-through is needed
	hijacked atomic.Bool
	flushed  atomic.Bool // by the handler: it sends something now, and more later
}

// Attach returns a context in which [Manager.Get] finds the request's session.
// The session is loaded by the first Get, which calls info, once. What info
// returns must stay valid until Finish: a server that reuses its buffers, such
// as fasthttp, has to copy them.
//
// The server calls Commit before it sends the header, and Finish in any case:
//
//	ctx, exchange := sessions.Attach(ctx, info)
//	defer exchange.Finish()
//	err := handle(ctx)                      // the framework renders its own errors
//	err = exchange.Commit(status, header)   // an error: send it instead of the response
func (m *Manager) Attach(ctx context.Context, info func() RequestInfo) (context.Context, *Exchange) {
	x := &Exchange{Context: ctx, m: m, info: sync.OnceValue(info)}
	return x, x
}

// Commit keeps the session's changes and puts cookies, Vary and Cache-Control
// into h. An error means that nothing was kept, except a Logout, whose cookies
// are in h nevertheless; the server answers with [ErrorStatus].
//
// A status of 500 or above, or Fail before, keeps only a Logout. RPC servers
// pass 200 or 500. A status of 304 leaves flash messages in the session; 101 and
// a Content-Type of text/event-stream rotate no credential. A nil h says that
// the header has been sent: then a change that needs a cookie is [ErrTooLate].
// Later calls return the result of the first.
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

// start is Commit, once.
func (x *Exchange) start(status int, h http.Header) error {
	x.mu.Lock()
	if x.phase == phaseOver { // a goroutine that the handler left behind
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

// limitCaching tells caches that the response depends on the session.
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

// Hold keeps the exchange open after its Finish, for a stream or a connection
// that outlives the handler, until release is called.
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
			_ = x.end() // an error was logged
		}
	})
}

// Finish says that the response is over: what a stored session changed since
// Commit is saved, and the channels of [Session.Done] are released. An error
// says that these changes were lost; it was logged and counted. Without a Commit
// before, as after a panic, only a Logout is kept. Later calls do nothing.
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

// close ends the request for its session, which is returned if it was asked for:
// from now on nothing is kept, for that reason, unless there was one before.
func (x *Exchange) close(why error) *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase != phaseOver {
		x.phase, x.late = phaseOver, why
	}
	return x.s
}

// Fail says that the request has failed, whatever its status will be: nothing
// that was not saved is kept, except a Logout, in the sessions of all managers
// in ctx. Adapters call it where a handler returns an error that is not visible
// in the HTTP status. It loads nothing and may be called at any time, more than
// once. It reports whether ctx belongs to a request of any manager.
func Fail(ctx context.Context) bool {
	found := false
	for x := range exchanges(ctx) {
		x.Fail()
		found = true
	}
	return found
}

// Commit saves the sessions of all managers in ctx that were asked for, before
// the response is rendered, so that a framework can render the error itself. An
// error means that the request has failed, as by [Fail]; [ErrorStatus] has the
// answer. After a Fail it does nothing. It loads nothing.
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

// innermost is the context key of the innermost request of any manager. Adapters
// whose contexts hide values, such as fiber's, set the key themselves.
var innermost = (*Exchange)(nil)

// exchanges are those of all managers that ctx belongs to, the innermost first.
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

// request returns the manager's request that ctx belongs to, or nil: none, or
// one that only lends its context to ctx's own.
func (m *Manager) request(ctx context.Context) *Exchange {
	x, _ := ctx.Value(m).(*Exchange)
	if x == nil || x.foreign(ctx) {
		return nil
	}
	return x
}

// session loads the request's session once, however many goroutines ask.
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
	returned := false // or the store panics, or a function of the application
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
		case ctx.Err() == nil || x.Context.Err() != nil: // else only this caller gave up
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

// about says what the session needs to know of the request.
func (x *Exchange) about() RequestInfo {
	if x.r != nil {
		return InfoOf(x.r)
	}
	return x.info()
}

// noteRead notes that the response depends on the session from now on.
func (x *Exchange) noteRead() {
	x.mu.Lock()
	late := x.exposed && !x.read
	x.read = true
	x.mu.Unlock()
	x.asked.Store(true)
	if x.r == nil {
		// A response that comes from inside Wrap depends on what it has read.
		if outer := x.m.request(x.Context); outer != nil {
			outer.noteRead()
		}
	}
	if late {
		x.m.log.Once(slog.LevelWarn, "a session was asked for after the response had started, so caches were not told that the response depends on it; "+
			"call Get before the first byte, or set Cache-Control: private", slog.String("pattern", x.pattern()))
	}
}

// ready returns the session if it was loaded.
func (x *Exchange) ready() *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.s
}

// checkNesting reports two nested managers of one name: they would overwrite
// each other's cookies.
func (x *Exchange) checkNesting() {
	for outer := range exchanges(x.Context) {
		if outer.m != x.m && outer.m.cookies.ReferenceName() == x.m.cookies.ReferenceName() {
			x.m.log.Once(slog.LevelError, "two session managers with the same cookie name are nested; give each its own Config.Name",
				slog.String("name", x.m.name))
		}
	}
}

// Format keeps the request's header, and the session, out of what prints the
// context or the response writer of a request.
func (x *Exchange) Format(f fmt.State, _ rune) { printText(f, "sojourn request of "+x.m.text()) }

// LogValue is what Format prints.
func (x *Exchange) LogValue() slog.Value { return slog.StringValue("sojourn request of " + x.m.text()) }
