package sojourn

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/store"
)

// EventKind says what has happened to a session.
type EventKind uint8

const (
	EventCreated        EventKind = iota + 1 // a visitor's session got its first value
	EventPromoted                            // it moved from the cookie to the store
	EventLogin                               // a user logged in; Session is the new handle
	EventLogout                              // Session.Logout ended it
	EventRotated                             // its credential was replaced
	EventRevoked                             // it was ended from elsewhere; see Reason
	EventExpired                             // it was found to be past its idle timeout or lifetime
	EventTheftSuspected                      // an outdated credential of it turned up
	EventCookieRejected                      // a session cookie was damaged, foreign or expired; see Reason
	EventAdopted                             // it was made of a legacy session; see Config.Adopt
)

var eventNames = [...]string{
	EventCreated: "created", EventPromoted: "promoted", EventLogin: "login", EventLogout: "logout",
	EventRotated: "rotated", EventRevoked: "revoked", EventExpired: "expired",
	EventTheftSuspected: "theft_suspected", EventCookieRejected: "cookie_rejected",
	EventAdopted: "adopted",
}

// String returns the name in lower case, such as "login" or "theft_suspected".
func (k EventKind) String() string {
	if int(k) >= len(eventNames) || k == 0 {
		return "unknown"
	}
	return eventNames[k]
}

// Reasons of EventRevoked.
const (
	ReasonRevoked     = "revoked"      // Manager.Revoke, or an operator: see package ops
	ReasonRevokedUser = "revoked_user" // Manager.RevokeUser
	ReasonErased      = "erased"       // Manager.EraseUser
	ReasonLimit       = "limit"        // Config.Limit: a newer login took its place
	ReasonTheft       = "theft"        // Config.Rotation
	ReasonLogout      = "logout"       // a login or logout in a browser that had this session as well
)

// Event is something that happened to a session, for audit logs and metrics.
// It holds no secret: a session is named by its handle.
type Event struct {
	Kind      EventKind
	Time      time.Time
	Manager   string // Config.Name
	Session   string // handle; "" for EventCookieRejected
	User      string // "" = anonymous, or not known here
	Reason    string // of EventRevoked and EventCookieRejected
	UserAgent string // of the request, if there is one
	IP        string // likewise
}

// AuditLog returns a function for Config.Events that writes one line per
// event, with handle, user, address and user agent: suspected theft as a
// warning, rejected cookies as debug lines. nil = slog.Default().
func AuditLog(logger *slog.Logger) func(context.Context, Event) {
	if logger == nil {
		logger = slog.Default()
	}
	return func(ctx context.Context, e Event) {
		level := slog.LevelInfo
		switch e.Kind {
		case EventTheftSuspected:
			level = slog.LevelWarn
		case EventCookieRejected:
			level = slog.LevelDebug
		}
		if !logger.Enabled(ctx, level) {
			return
		}
		attrs := make([]slog.Attr, 0, 7)
		add := func(name, value string) {
			if value != "" {
				attrs = append(attrs, slog.String(name, value))
			}
		}
		add("event", e.Kind.String())
		add("manager", e.Manager)
		add("session", e.Session)
		add("user", e.User)
		add("reason", e.Reason)
		add("ip", e.IP)
		add("user_agent", e.UserAgent)
		logger.LogAttrs(ctx, level, "session "+e.Kind.String(), attrs...)
	}
}

// tell tells Config.Events, if there is one.
func (m *core) tell(ctx context.Context, e Event) {
	if m.events == nil {
		return
	}
	e.Time, e.Manager = m.now(), m.name
	m.events(ctx, e)
}

// event describes what this request did to a session.
func (s *session) event(kind EventKind, st *stored.State) Event {
	if s.m.events == nil {
		return Event{}
	}
	v := s.visit()
	e := Event{Kind: kind, UserAgent: v.UserAgent, IP: v.IP}
	if st != nil {
		e.Session, e.User = st.ID.String(), st.Rec.Header.User
	}
	return e
}

// context returns the context of the request that the session belongs to.
func (s *session) context() context.Context {
	switch {
	case s.r != nil:
		return s.r.Context()
	case s.ctx != nil:
		return s.ctx
	default:
		return context.Background()
	}
}

// onceSet remembers some thousand sessions, so that what their dead cookies do
// in every request is told once.
type onceSet struct {
	mu       sync.Mutex
	now, old map[store.ID]struct{}
}

const onceSize = 4096

// first reports whether id is new to the set, and adds it.
func (o *onceSet) first(id store.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.now[id]; ok {
		return false
	}
	_, known := o.old[id]
	if o.now == nil || len(o.now) >= onceSize {
		o.old, o.now = o.now, make(map[store.ID]struct{})
	}
	o.now[id] = struct{}{}
	return !known
}
