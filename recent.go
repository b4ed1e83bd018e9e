package sojourn

import (
	"encoding/json"
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

// Status is what [Manager.StatusHandler] answers, as JSON.
type Status struct {
	Active   bool `json:"active"`    // there is a session
	LoggedIn bool `json:"logged_in"` // with a user
	// IdleExpiresIn and ExpiresIn are whole seconds until the session ends
	// without further activity, and until it ends in any case.
	IdleExpiresIn int64 `json:"idle_expires_in"`
	ExpiresIn     int64 `json:"expires_in"`
	// AuthAge is how many seconds ago the user authenticated; -1 = never.
	AuthAge int64 `json:"auth_age"`
}

// StatusHandler returns a handler that tells a page when its session will end,
// as a [Status] in JSON, so that it can warn the visitor. Asking extends
// nothing and sets no cookie. It wraps itself.
func (m *Manager) StatusHandler() http.Handler {
	return m.Handler(func(w http.ResponseWriter, r *http.Request, s *Session) {
		s.Background()
		status := Status{AuthAge: -1}
		info, now := s.Info(), m.now()
		if info.Placement != PlacementNone {
			status.Active, status.LoggedIn = true, info.User != ""
			status.IdleExpiresIn = int64(info.IdleExpires.Sub(now) / time.Second)
			status.ExpiresIn = int64(info.Expires.Sub(now) / time.Second)
			if !info.LoggedIn.IsZero() {
				status.AuthAge = max(0, int64(now.Sub(info.LoggedIn)/time.Second))
			}
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(status) // the client may have gone
	})
}
