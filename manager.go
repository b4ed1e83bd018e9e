package sojourn

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Manager loads and saves the sessions of one cookie name. Make one with [New]
// for each kind of session, and wrap the application's handler with each. A
// Manager is safe for concurrent use and prints as its name.
type Manager struct {
	*core
	errorHandler func(http.ResponseWriter, *http.Request, error) // nil: the default response of ServeError
	tenantOf     func(*RequestInfo) string                       // nil: one tenant
}

// New returns a manager. An error lists every mistake in cfg. New does no I/O
// and starts no goroutine.
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Manager{core: newCore(&cfg), errorHandler: cfg.ErrorHandler, tenantOf: cfg.Tenant}, nil
}

// Handler returns a handler that calls f with the request's session. It
// combines Wrap, Get, and ServeError.
func (m *Manager) Handler(f func(http.ResponseWriter, *http.Request, *Session)) http.Handler {
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Get(r.Context())
		if err != nil {
			m.ServeError(w, r, err)
			return
		}
		f(w, r, s)
	}))
}

// Get returns the session of the request that ctx belongs to. The first call
// loads it, and may fail with [ErrUnavailable] or [ErrClosed]. Get returns
// [ErrNoMiddleware] without [Manager.Wrap] or [Manager.Attach], and for a
// request that a server inside the wrapped handler has read, such as h2c.
func (m *Manager) Get(ctx context.Context) (*Session, error) {
	x := m.request(ctx)
	if x == nil {
		return nil, m.noMiddleware(ctx)
	}
	return x.session(ctx)
}

// Close ends the streams that wait for [Session.Done], waits for running
// commits and [Key.Renew] calls, and then makes every load and commit fail with
// [ErrClosed]. It does not close the store.
func (m *Manager) Close() error {
	m.closing.Do(func() {
		m.stopNow()
		m.ends.Close(ErrClosed)
		m.open.Lock()
		m.outlive.Wait()
	})
	return nil
}

func (m *Manager) text() string {
	if m == nil {
		return "sojourn.Manager(none)"
	}
	return "sojourn.Manager(" + m.name + ")"
}

func (m *Manager) Format(f fmt.State, _ rune) { printText(f, m.text()) }

func (m *Manager) LogValue() slog.Value { return slog.StringValue(m.text()) }

// RequireRecent returns a middleware for use inside [Manager.Wrap]. It calls
// the next handler if the user authenticated within the last maxAge. Else it
// calls otherwise, which should ask for a new [Session.Login]; nil = a 401
// response.
func (m *Manager) RequireRecent(maxAge time.Duration, otherwise http.Handler) func(http.Handler) http.Handler {
	if otherwise == nil {
		otherwise = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "Please sign in again to continue.", http.StatusUnauthorized)
		})
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s, err := m.Get(r.Context())
			switch {
			case err != nil:
				m.ServeError(w, r, err)
			case s.Recent(maxAge):
				next.ServeHTTP(w, r)
			default:
				otherwise.ServeHTTP(w, r)
			}
		})
	}
}

// tenantKey is the context key of WithTenant.
type tenantKey struct{}

// WithTenant sets the tenant for methods of [Manager] and package ops that take
// a user or a handle, outside of a request or for another tenant. "" is the
// tenant of managers without Config.Tenant. [Manager.Get] does not use it.
func WithTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, strings.Clone(tenant))
}

// in returns the core of the tenant in ctx, or else of the request's tenant.
func (m *Manager) in(ctx context.Context) (*core, error) {
	if tenant, ok := ctx.Value(tenantKey{}).(string); ok {
		return m.within(tenant), nil
	}
	if m.tenantOf == nil {
		return m.core, nil
	}
	x := m.request(ctx)
	if x == nil {
		return nil, errNoTenant
	}
	return m.of(x), nil
}

// of returns the core of the request's tenant.
func (m *Manager) of(x *Exchange) *core {
	if m.tenantOf == nil {
		return m.core
	}
	info := x.about() // escapes to the heap through the application's function
	return m.within(m.tenantOf(&info))
}
