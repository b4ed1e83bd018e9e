package sojourn

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Manager loads and keeps the sessions of one cookie name. It is safe for
// concurrent use and prints as its name. Make one with [New] for each kind of
// session, and wrap the application's handler with each of them.
type Manager struct {
	*core
	errorHandler func(http.ResponseWriter, *http.Request, error) // nil: ServeError's own answer
	tenantOf     func(*RequestInfo) string                       // nil: there is one tenant
}

// New checks the configuration, reports every mistake in it at once, and
// returns a manager. It starts no goroutine and does no I/O.
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Manager{core: newCore(&cfg), errorHandler: cfg.ErrorHandler, tenantOf: cfg.Tenant}, nil
}

// Handler returns a handler that calls f with the request's session: Wrap, Get
// and ServeError in one.
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
// of a request loads it, and may fail with [ErrUnavailable] or [ErrClosed].
// Without [Manager.Wrap] or [Manager.Attach] it returns [ErrNoMiddleware], also where a server
// inside the wrapped handler has read the request, as h2c does.
func (m *Manager) Get(ctx context.Context) (*Session, error) {
	x := m.request(ctx)
	if x == nil {
		return nil, m.noMiddleware(ctx)
	}
	return x.session(ctx)
}

// Close ends the streams that wait for [Session.Done], waits for commits in
// flight and for what [Key.Renew] is fetching, and then refuses every load and
// commit. It does not close the store.
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

// Format prints the manager's name, whatever the verb.
func (m *Manager) Format(f fmt.State, _ rune) { printText(f, m.text()) }

// LogValue is what Format prints.
func (m *Manager) LogValue() slog.Value { return slog.StringValue(m.text()) }

// RequireRecent returns a middleware, for use inside [Manager.Wrap]: it calls
// the handler it wraps if the user has authenticated within the last maxAge,
// and otherwise the one given here, which asks for a new [Session.Login]; nil
// answers 401.
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

// WithTenant names the tenant for methods of a [Manager], and of package ops, that
// are called outside of a request or for another tenant than the request's: those
// that take a user or a handle. "" is the tenant of managers without
// Config.Tenant. It does not change whose session [Manager.Get] returns.
func WithTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant)
}

// in returns the core of the tenant that ctx names, or of its request's.
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

// of returns the core of the tenant that a request belongs to.
func (m *Manager) of(x *Exchange) *core {
	if m.tenantOf == nil {
		return m.core
	}
	info := x.about() // on the heap, because of the application's function
	return m.within(m.tenantOf(&info))
}
