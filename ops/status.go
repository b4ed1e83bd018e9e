package ops

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// Status is what [Ops.StatusHandler] answers, as JSON.
type Status struct {
	Active   bool `json:"active"`    // there is a session
	LoggedIn bool `json:"logged_in"` // with a user
	// IdleExpiresIn and ExpiresIn are whole seconds until the session ends
	// without further activity, and until it ends at the latest.
	IdleExpiresIn int64 `json:"idle_expires_in"`
	ExpiresIn     int64 `json:"expires_in"`
	// AuthAge is how many seconds ago the user authenticated; -1 = never.
	AuthAge int64 `json:"auth_age"`
}

// StatusHandler returns a handler that answers with a [Status] in JSON, so that
// a page can warn the visitor before the session ends. A request to it does not
// extend the session and sets no cookie. The handler needs no Wrap.
func (o *Ops) StatusHandler() http.Handler {
	return o.m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Background()
		status := Status{AuthAge: -1}
		info, now := s.Info(), time.Now().Truncate(time.Millisecond)
		if info.Placement != sojourn.PlacementNone {
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
