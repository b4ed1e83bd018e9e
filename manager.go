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
	core
	errorHandler func(http.ResponseWriter, *http.Request, error) // nil: ServeError's own answer
}

// New checks the configuration, reports every mistake in it at once, and
// returns a manager. It starts no goroutine and does no I/O.
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m := &Manager{errorHandler: cfg.ErrorHandler}
	furnish(&m.core, &cfg)
	adoptSessions(&m.core, cfg.Adopt)
	return m, nil
}

// Wrap returns a handler that makes sessions available to next. A request that
// asks for its session commits its changes once, right before the first byte
// of the response or, if nothing is written, when next returns; if that fails
// the visitor gets an error instead of the response (see
// [Manager.ServeError]). A status of 500 or above, a panic, and a first byte
// after the deadline of the request's context keep nothing, except a Logout.
//
// Several managers may wrap one handler; each commits for itself, the inner
// one first. Wrapping twice with the same manager is as good as once, unless
// the inner one gets a request with other cookies, or one that was read from a
// hijacked connection: that has a session of its own.
func (m *Manager) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q, _ := r.Context().Value(m).(*exchange); q != nil && q.passes(r) {
			next.ServeHTTP(w, r)
			return
		}
		q := &exchange{Context: r.Context(), m: m, inner: w, encoding: w.Header()["Content-Encoding"]}
		q.r = r.WithContext(q)
		defer q.release()
		next.ServeHTTP(q, q.r)
		q.finish()
	})
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
// Without [Manager.Wrap] it returns [ErrNoMiddleware], also where a server
// inside the wrapped handler has read the request, as h2c does.
func (m *Manager) Get(ctx context.Context) (*Session, error) {
	q := m.request(ctx)
	if q == nil {
		return nil, m.noMiddleware(ctx)
	}
	return q.session(ctx)
}

// Open returns the session that the request header in brings, for servers and
// tests outside [Manager.Wrap]. [Session.Save] keeps the changes and writes
// Set-Cookie to out; nothing is saved by itself. With a nil out, a Save that
// needs a cookie fails with [ErrTooLate]. The names in both headers are
// canonical, as http.Header's methods make them.
//
// Open and Save also set Vary: Cookie in out, and Cache-Control: private
// unless out says otherwise. With the context of a request inside Wrap, so
// does that request's response.
func (m *Manager) Open(ctx context.Context, in, out http.Header) (*Session, error) {
	if q := m.request(ctx); q != nil {
		q.noteRead()
	}
	if out != nil {
		m.limitCaching(out, "")
	}
	s := newSession(&m.core)
	s.phase, s.in, s.ctx = phaseLoose, in, ctx
	s.out = out
	if err := (loader{s.session}).load(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the streams that wait for [Session.Done], waits for commits in
// flight, and then refuses every load and commit. It does not close the store.
func (m *Manager) Close() error {
	m.closing.Do(func() {
		m.stopNow()
		m.ends.Close(ErrClosed)
		m.open.Lock()
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
