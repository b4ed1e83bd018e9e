package sojourn

import (
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Background says that this request, such as polling, is no activity: it
// extends no idle timeout, takes no flash messages, and rotates no credential.
// A request can say so itself, with the header "Sojourn-Background: 1".
func (s *Session) Background() {
	s.lock()
	defer s.mu.Unlock()
	s.background, s.rotateDue = true, false
}

// Recent reports whether the user has authenticated (see [Session.Login])
// within the last maxAge. It is false for an anonymous visitor.
func (s *Session) Recent(maxAge time.Duration) bool {
	s.lock()
	defer s.mu.Unlock()
	h := &s.draft.View().Header
	if h.User == "" || h.AuthTime == 0 {
		return false
	}
	return s.m.now().Sub(record.Time(h.AuthTime)) <= maxAge
}

// Strip removes the manager's cookies, former ones included, from the header
// of a request that goes upstream. Other cookies stay, in their order.
func (m *Manager) Strip(h http.Header) { m.cookies.Strip(h) }

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
