package sojourn

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
)

// writer is the response writer of a request inside Wrap. Its Exchange is the
// request's context, so that a request that does not use its session costs two
// allocations. A writer is never reused, because handlers may leave one in a
// goroutine.
type writer struct {
	Exchange
	inner http.ResponseWriter
	// encoding is the Content-Encoding that was set outside of Wrap, by a compressor
	// that also compresses an error response.
	encoding []string
	started  bool  // the header was sent; used by the response's goroutine only
	failed   error // the commit failed: writes of the handler are dropped
}

// Wrap returns a handler that makes sessions available to next. If a request
// gets its session, its changes are committed once: right before the first byte
// of the response or, without one, when next returns. If that fails, the
// visitor gets an error instead: see [Manager.ServeError]. A status of 500 or
// above, a panic, and a first byte after the deadline of the request's context
// save nothing except a Logout.
//
// Several managers may wrap one handler; the inner one commits first. A second
// Wrap by the same manager has no effect, except for a request with other
// cookies, or from a hijacked connection: those have a session of their own.
func (m *Manager) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(inner http.ResponseWriter, r *http.Request) {
		if x, _ := r.Context().Value(m).(*Exchange); x != nil && x.passes(r) {
			next.ServeHTTP(inner, r)
			return
		}
		w := &writer{inner: inner, encoding: inner.Header()["Content-Encoding"]}
		w.Context, w.m = r.Context(), m
		w.r = r.WithContext(&w.Exchange)
		defer w.release()
		next.ServeHTTP(w, w.r)
		w.finish()
	})
}

// finish is called when the handler has returned without a panic.
func (w *writer) finish() {
	if !w.asked.Load() {
		w.close(errReturned)
		return
	}
	_ = w.start(http.StatusOK) // sends a response for its error
	_ = w.Finish()             // logs its error
}

// release always runs. After a panic of the handler, only a Logout is saved,
// and its cookies are in the header: a middleware outside of Wrap may still
// send a response.
func (w *writer) release() {
	if !w.started {
		_ = w.Commit(http.StatusInternalServerError, w.inner.Header())
	}
	w.Fail()
	_ = w.Finish() // does nothing after finish
}

// start commits before the response's first byte. It returns an error if it has
// sent an error response instead.
func (w *writer) start(status int) error {
	if w.started {
		return w.failed
	}
	w.started = true
	h := w.inner.Header()
	if err := w.Commit(status, h); err != nil {
		w.failed = err
		w.m.answerError(w.inner, w.r, err, w.encoding)
		return err
	}
	if status == http.StatusRequestEntityTooLarge && w.r.ProtoMajor == 1 {
		// http.MaxBytesReader does this only with net/http's own writer. The rest of the
		// body is not read.
		h.Set("Connection", "close")
	}
	return nil
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.inner }

// Header returns the response's header.
func (w *writer) Header() http.Header { return w.inner.Header() }

// WriteHeader commits the session, unless status is informational.
func (w *writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if w.failed == nil {
			w.inner.WriteHeader(status)
		}
		return
	}
	if w.started && status >= http.StatusInternalServerError {
		w.Fail() // the handler failed halfway
	}
	if w.start(status) == nil {
		w.inner.WriteHeader(status)
	}
}

// Write commits the session before the first byte.
func (w *writer) Write(b []byte) (int, error) {
	if err := w.start(http.StatusOK); err != nil {
		return 0, err
	}
	return w.inner.Write(b)
}

// WriteString is Write for a string.
func (w *writer) WriteString(s string) (int, error) {
	if err := w.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.WriteString(w.inner, s)
}

// ReadFrom lets the connection use sendfile.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	if err := w.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.Copy(w.inner, src)
}

// Flush commits the session and sends what was written.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (w *writer) FlushError() error {
	err := w.start(http.StatusOK)
	if w.flushed.CompareAndSwap(false, true) {
		if s := w.ready(); s != nil {
			s.stream.Store(true)
		}
	}
	// Also after an error response: the handler may run for a long time after Flush.
	flushed := http.NewResponseController(w.inner).Flush()
	if err != nil {
		return err
	}
	return flushed
}

// Hijack commits the session and hands over the connection. Header then has the
// cookies, for a handler that writes the response itself.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	// Checked first: after the commit, no error response could be sent.
	if !canHijack(w.inner) {
		return nil, nil, http.ErrNotSupported
	}
	if err := w.start(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.inner).Hijack()
	if err == nil {
		w.hijacked.Store(true)
	}
	return conn, rw, err
}

func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case *writer: // always has a Hijack method
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

// CloseNotify implements http.CloseNotifier, which some frameworks still need.
// The channel receives a value when the request's context ends.
func (w *writer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.Context, func() { gone <- true })
	return gone
}

// Push implements [http.Pusher], if the connection supports it.
func (w *writer) Push(target string, options *http.PushOptions) error {
	if p, ok := w.inner.(http.Pusher); ok {
		return p.Push(target, options)
	}
	return http.ErrNotSupported
}

// A context that is derived from a request may belong to another request. A server
// that runs inside a handler (h2c, or HTTP over a hijacked connection or a CONNECT
// tunnel) derives the contexts of its requests from the handler's context. Each of
// those requests may be of another visitor.

func (x *Exchange) Value(key any) any {
	switch k := key.(type) {
	case *Manager:
		if k == x.m {
			return x
		}
	case *Exchange:
		return x
	}
	if key == http.LocalAddrContextKey && x.tunnels() {
		addr, _ := x.Context.Value(key).(net.Addr)
		return shadowedAddr{x, addr}
	}
	return x.Context.Value(key)
}

// foreign reports whether ctx belongs to another request than x, derived from
// x's context by a server inside x's handler. Such a server sets its own
// http.ServerContextKey, or at least http.LocalAddrContextKey, which x shadows
// for contexts derived from it.
func (x *Exchange) foreign(ctx context.Context) bool {
	if ctx.Value(http.ServerContextKey) != x.Context.Value(http.ServerContextKey) {
		return true
	}
	if !x.tunnels() {
		return false
	}
	if x.hijacked.Load() && offersHTTP2(x.r) {
		return true
	}
	addr, _ := ctx.Value(http.LocalAddrContextKey).(shadowedAddr)
	return addr.of != x
}

// tunnels reports whether another server may read requests from x's connection
// or body.
func (x *Exchange) tunnels() bool {
	return x.hijacked.Load() || x.r != nil && x.r.Method == http.MethodConnect
}

// offersHTTP2 reports whether a request starts HTTP/2 on a connection without
// TLS (RFC 9113, section 3.4, and RFC 7540, section 3.2).
func offersHTTP2(r *http.Request) bool {
	return r.Method == "PRI" || strings.EqualFold(r.Header.Get("Upgrade"), "h2c")
}

// shadowedAddr is the local address of a request that may be a tunnel.
type shadowedAddr struct {
	of   *Exchange
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

func (x *Exchange) header() http.Header {
	if x.r != nil {
		return x.r.Header
	}
	return x.info().Header
}

// passes reports whether r, which arrives at another Wrap of the same manager,
// is x's own request and so has its session. A request with other cookies of
// the manager, such as a clone for a part of a page, has a session of its own.
func (x *Exchange) passes(r *http.Request) bool {
	return !x.foreign(r.Context()) && !x.tunnels() && x.m.cookies.Same(x.header(), r.Header)
}

// noMiddleware returns ErrNoMiddleware. If a server inside a handler is the
// cause, it logs that.
func (m *Manager) noMiddleware(ctx context.Context) error {
	if ctx.Value(m) != nil {
		m.log.Once(slog.LevelError, "a server that runs inside Manager.Wrap, such as h2c or a tunnel, read a request, which therefore has no session; "+
			"put Wrap around the handler of the inner server: h2c.NewHandler(sessions.Wrap(mux), …), not sessions.Wrap(h2c.NewHandler(mux, …))")
	}
	return ErrNoMiddleware
}
