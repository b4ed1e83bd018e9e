package sojourn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/store"
)

// observer counts and logs the events of the store. It is a separate type so
// that Manager does not have its methods.
type observer struct{ m *core }

func (o observer) Loaded() { o.m.count.loads.Add(1) }

func (o observer) Saved() { o.m.count.saves.Add(1) }

func (o observer) Conflicted() { o.m.count.conflicts.Add(1) }

func (o observer) Retried() { o.m.count.retries.Add(1) }

func (o observer) Touched() { o.m.count.touches.Add(1) }

func (o observer) VolatileSaved() { o.m.count.volatile.Add(1) }

func (o observer) StoreFailed(ctx context.Context, doing string, err error) error {
	return o.m.storeFailed(ctx, doing, err)
}

func (o observer) Damaged(id store.ID, err error) {
	o.m.count.damaged.Add(1)
	o.m.log.Report(slog.LevelError, "a stored session cannot be opened: its record was damaged or moved",
		slog.String("session", id.String()), slog.Any("error", err))
}

func (o observer) KeyLacking(id store.ID) {
	o.m.log.Report(slog.LevelError, "a stored session cannot be opened: the key ring does not have its key",
		slog.String("session", id.String()))
}

func (o observer) LostWrites(id store.ID) {
	o.m.count.lost.Add(1)
	o.m.log.Error("the store returned an older version of a session than before: it has lost writes",
		slog.String("session", id.String()))
}

func (o observer) Mended() {
	o.m.log.Report(slog.LevelWarn, "a session has timestamps in the future: the clock of a machine is or was wrong; the session's lifetime starts now")
}

// gaveUp reports whether a call failed because it was canceled: the client
// disconnected, or Close was called.
func gaveUp(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// storeFailed counts and logs a failure of the store, and returns the error for
// it. A canceled call does not count as a failure; an exceeded deadline does.
func (m *core) storeFailed(ctx context.Context, doing string, err error) error {
	if !gaveUp(ctx) {
		m.count.storeErrors.Add(1)
		m.log.Report(slog.LevelError, "the session store failed: could not "+doing, slog.Any("error", err))
	}
	return fault.Away(doing, err)
}

// EventKind says what happened to a session.
type EventKind uint8

const (
	EventCreated        EventKind = iota + 1 // a visitor's session got its first value
	EventPromoted                            // it moved from the cookie to the store
	EventLogin                               // a user logged in; Session is the new handle
	EventLogout                              // Session.Logout ended it
	EventRotated                             // its credential was replaced
	EventRevoked                             // another request, a limit, or an operator ended it; see Reason
	EventExpired                             // a request came after its idle timeout or lifetime
	EventTheftSuspected                      // an outdated credential was used
	EventCookieRejected                      // a session cookie was damaged, foreign, or expired; see Reason
	EventAdopted                             // it was made from a legacy session; see Config.Adopt
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
	ReasonRevoked       = "revoked"        // Manager.Revoke, or an operator: see package ops
	ReasonRevokedUser   = "revoked_user"   // Manager.RevokeUser
	ReasonRevokedLinked = "revoked_linked" // Manager.RevokeLinked
	ReasonErased        = "erased"         // Manager.EraseUser
	ReasonLimit         = "limit"          // Config.Limit: a newer login replaced it
	ReasonTheft         = "theft"          // Config.Rotation
	ReasonLogout        = "logout"         // a login or logout in a browser that also had this session
)

// Event describes what happened to a session, without secrets, for audit logs
// and metrics.
type Event struct {
	Kind      EventKind
	Time      time.Time
	Manager   string // Config.Name
	Tenant    string // see Config.Tenant
	Session   string // handle; "" for EventCookieRejected
	User      string // "" = anonymous or unknown
	Reason    string // for EventRevoked and EventCookieRejected
	UserAgent string // of the request, if there is one
	IP        string // of the request, if there is one
}

// AuditLog returns a function for Config.Events that logs a line for each
// event, with handle, user, address, and user agent: suspected theft as a
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
		attrs := make([]slog.Attr, 0, 8)
		add := func(name, value string) {
			if value != "" {
				attrs = append(attrs, slog.String(name, value))
			}
		}
		add("event", e.Kind.String())
		add("manager", e.Manager)
		add("tenant", e.Tenant)
		add("session", e.Session)
		add("user", e.User)
		add("reason", e.Reason)
		add("ip", e.IP)
		add("user_agent", e.UserAgent)
		logger.LogAttrs(ctx, level, "session "+e.Kind.String(), attrs...)
	}
}

// tell calls Config.Events.
func (m *core) tell(ctx context.Context, e Event) {
	if m.events == nil {
		return
	}
	e.Time, e.Manager, e.Tenant = m.now(), m.name, m.tenant
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
	if s.ctx == nil { // of a draft
		return context.Background()
	}
	return s.ctx
}

// onceSet holds the last few thousand sessions, so that an expiry is reported
// once although the browser sends its dead cookie with every request.
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

func init() { bridge.Operator = func(m any) any { return operator{m.(*Manager)} } }

// operator has the methods that package ops exports and documents.
type operator struct{ m *Manager }

func (o operator) Name() string { return o.m.name }

func (o operator) Store() store.Store { return o.m.store }

func (o operator) Find(ctx context.Context, handle string) (Export, error) {
	c, err := o.m.in(ctx)
	if err != nil {
		return Export{}, err
	}
	st, err := c.findHandle(ctx, handle, 0)
	if err != nil {
		return Export{}, err
	}
	return c.export(st), nil
}

func (o operator) End(ctx context.Context, handle string) error {
	c, err := o.m.in(ctx)
	if err != nil {
		return err
	}
	st, err := c.findHandle(ctx, handle, rules.Skew)
	if err != nil {
		return err
	}
	return c.revokeWithin(ctx, st, ReasonRevoked)
}

func (o operator) Streams() int { return o.m.ends.Waiting() }

func (o operator) Sweep(ctx context.Context) (int, error) { return o.m.sweep(ctx) }

func (o operator) SweepDue() time.Time {
	if _, ok := o.m.store.(store.Sweeper); !ok {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(time.Duration(o.m.nextSweep.Load()) - now.Sub(o.m.started)).UTC().Truncate(time.Millisecond)
}

func (o operator) AdoptStats() map[string]adopt.Stats { return o.m.adoption.Stats() }

// counters are the source of bridge.Stats.
type counters struct {
	loads, saves, conflicts, retries, touches, storeErrors      atomic.Uint64
	created, promoted, logins, logouts, rotations               atomic.Uint64
	revoked, thefts                                             atomic.Uint64
	rejected, unknownKeys, staleRefs, damaged, lost, unreadable atomic.Uint64
	late, failed, swept, volatile                               atomic.Uint64
}

// Stats returns the counters since New.
func (o operator) Stats() bridge.Stats {
	c := &o.m.count
	s := bridge.Stats{
		Loads:           c.loads.Load(),
		Saves:           c.saves.Load(),
		Conflicts:       c.conflicts.Load(),
		Retries:         c.retries.Load(),
		Touches:         c.touches.Load(),
		StoreErrors:     c.storeErrors.Load(),
		VolatileSaves:   c.volatile.Load(),
		Created:         c.created.Load(),
		Promoted:        c.promoted.Load(),
		Logins:          c.logins.Load(),
		Logouts:         c.logouts.Load(),
		Rotations:       c.rotations.Load(),
		Revoked:         c.revoked.Load(),
		TheftsSuspected: c.thefts.Load(),
		RejectedCookies: c.rejected.Load(),
		UnknownKeys:     c.unknownKeys.Load(),
		StaleReferences: c.staleRefs.Load(),
		DamagedRecords:  c.damaged.Load(),
		LostVersions:    c.lost.Load(),
		UnreadableValue: c.unreadable.Load(),
		LateChanges:     c.late.Load(),
		FailedCommits:   c.failed.Load(),
		Swept:           c.swept.Load(),
	}
	if cc, ok := o.m.store.(store.CacheCounter); ok {
		s.CacheHits, s.CacheMisses = cc.CacheStats()
	}
	return s
}

// unreadable counts a value that did not decode, and logs it once per name.
func (m *core) unreadable(name string, err error) {
	m.count.unreadable.Add(1)
	if m.log.First("value " + name) {
		m.log.Warn("a session value does not decode into its key's type; it stays unchanged until it is set",
			slog.String("key", name), slog.Any("error", err))
	}
}
