package sojourn

import (
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Background says that this request does not count as activity: it extends no
// idle timeout, also not while it lasts, takes no flash messages, and the
// credential is not replaced in its response. It is for what a page does by
// itself, such as polling. Such a request can also say so
// itself, with the header "Sojourn-Background: 1".
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

// Strip removes the manager's credentials, its cookies and those of
// Config.FormerCookies, from the header of a request that goes upstream, such as
// through [net/http/httputil.ReverseProxy]. Other cookies stay, in their order.
func (m *Manager) Strip(h http.Header) { m.cookies.Strip(h) }

// RequireRecent returns a middleware for what needs a recent authentication,
// such as a change of password: it calls the handler it wraps if the user has
// authenticated within the last maxAge, and otherwise the handler given here,
// which asks the user to authenticate and comes back. With nil, the answer is
// 401. It belongs inside [Manager.Wrap].
//
// After the user has authenticated again, call [Session.Login]: the session's
// values stay, and its authentication time is the new one.
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
