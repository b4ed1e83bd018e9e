package sojourn

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
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
