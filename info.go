package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// Info describes a session as last loaded or saved. Zero times are unknown or
// unlimited.
type Info struct {
	Handle      string // public name; see [Session.Handle]
	Placement   Placement
	Version     uint64 // of a stored session; 0 otherwise
	Size        int    // bytes of the cookie's name and value, or of the sealed record
	User        string
	Created     time.Time // start of the lifetime: first value, or login
	LastSeen    time.Time // last recorded activity
	IdleExpires time.Time // expires then without further activity
	Expires     time.Time // expires then at the latest
	LoggedIn    time.Time // last login
	Methods     []string  // of the last login; see Session.Login
	UserAgent   string    // of the request that stored the session or logged in
	IP          string    // RemoteAddr of that request
	Persistent  bool      // the browser keeps the session when it closes
	Suspected   bool      // an outdated credential was used: the cookie may have been copied
	Current     bool      // set by Manager.Sessions: the session of the request in ctx
}

// Info returns the session's description, as it was last loaded or saved.
func (s *Session) Info() Info {
	s.lock()
	defer s.mu.Unlock()
	st := s.base()
	info := s.m.describe(st)
	info.Handle = s.identity().ID.String() // after Login, the new handle
	return info
}

// describe returns the Info of a state.
func (m *core) describe(st *stored.State) Info {
	h := &st.Rec.Header
	info := Info{
		Handle:     st.ID.String(),
		Placement:  Placement(st.Where),
		Version:    st.Meta.Version,
		Size:       st.Size,
		User:       h.User,
		Created:    record.Time(h.Created),
		LoggedIn:   record.Time(h.AuthTime),
		Methods:    strings.Fields(h.Methods),
		UserAgent:  h.UserAgent,
		IP:         h.IP,
		Persistent: m.limits.Persistent(h),
		Suspected:  h.Suspected != 0,
	}
	switch st.Where {
	case rules.Inline:
		info.LastSeen = record.Time(h.Seen)
		info.Expires = record.Time(h.Expires)
		info.IdleExpires = m.limits.IdleDeadline(h, info.LastSeen, info.Expires)
	case rules.Stored:
		info.LastSeen = st.Meta.Seen
		info.Expires = st.Meta.Expires
		info.IdleExpires = st.Meta.Deadline
	}
	return info
}

// Remember overrides Config.Cookie.BrowserSession for this session: with true,
// the browser keeps it until it expires; with false, until the browser closes.
func (s *Session) Remember(persistent bool) {
	p := record.PersistBrowser
	if persistent {
		p = record.PersistAlways
	}
	s.lock()
	defer s.mu.Unlock()
	if s.draft.SetPersist(p) {
		s.changing()
	}
}

// SetExpiry overrides idle timeout and lifetime of this session. 0 = as in
// [Config], [NoLimit] = none. A lifetime that has already passed ends the
// session.
func (s *Session) SetExpiry(idle, lifetime time.Duration) {
	i, l := rules.Millis(idle), rules.Millis(min(lifetime, rules.MaxAge))
	s.lock()
	defer s.mu.Unlock()
	if s.draft.SetExpiry(i, l) {
		s.changing()
	}
}

// Done returns a channel that is closed when the session ends by logout, login,
// revocation, or expiry (within a second, if on another replica), or by
// [Manager.Close]; see [Session.Err]. Waiting is no activity. For an anonymous
// session in the cookie, only the absolute expiry and Close close it. The
// channel is released when the request ends. A first call of Done after that
// returns a closed channel, and Err returns [ErrTooLate].
func (s *Session) Done() <-chan struct{} {
	s.lock()
	defer s.mu.Unlock()
	if s.watch == nil {
		s.watch = s.watchEnd()
	}
	return s.watch.Done()
}

func (s *session) watchEnd() *ends.Watch {
	if s.phase == phaseOver || s.phase == phaseDraft {
		return ends.Over(ErrTooLate)
	}
	st := s.last
	var deadline time.Time
	var look ends.Look
	switch st.Where {
	case rules.Stored:
		deadline, look = st.Meta.Deadline, s.m.whatBecameOf
	case rules.Inline:
		deadline = s.m.limits.LifetimeEnd(&st.Rec.Header)
	}
	return s.m.ends.Watch(st.ID, look, s.loaded, deadline)
}

// Err returns nil while the channel of [Session.Done] is open, and then
// [ErrEnded], [ErrExpired], or [ErrClosed].
func (s *Session) Err() error {
	s.lock()
	w := s.watch
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.Err()
}

func (s *session) unwatch() {
	if s.watch != nil {
		s.watch.Release()
	}
}

// whatBecameOf returns the idle deadline of a session with a waiting
// [Session.Done], or the reason of its end.
func (m *core) whatBecameOf(ctx context.Context, id store.ID) (deadline time.Time, err error) {
	if err := m.begin(); err != nil {
		return deadline, err
	}
	defer m.done()
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	st, err := m.stored.Load(ctx, stored.Who{ID: id}, 0)
	var gone *stored.Gone
	switch {
	case err == nil:
		return st.Meta.Deadline, nil
	case errors.As(err, &gone) && !gone.Ended.IsZero():
		return deadline, ErrEnded
	case errors.As(err, &gone):
		return deadline, ErrExpired
	default:
		return deadline, err
	}
}

// readEnds reads a page of the store's feed of ends.
func (m *core) readEnds(ctx context.Context, feed store.EndFeed, cursor string, limit int) (store.EndPage, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	page, err := feed.Ends(ctx, cursor, limit)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		err = m.storeFailed(ctx, "read which sessions have ended", err)
	}
	return page, err
}

// Background marks this request as no activity, for example polling: it extends
// no idle timeout, gets no flash messages, and rotates no credential. The
// request header "Sojourn-Background: 1" does the same.
func (s *Session) Background() {
	s.lock()
	defer s.mu.Unlock()
	s.background, s.rotateDue = true, false
}

// RequestInfo describes a request, for servers that do not use [http.Request].
// It prints only the method, because the header holds cookies.
type RequestInfo struct {
	Header     http.Header // names in canonical form; never modified
	Method     string      // "" = not HTTP: no cross-site checks, no Vary, no Cache-Control
	Host       string
	RemoteAddr string // "ip:port" or "ip"; "" = unknown
	Encrypted  bool   // the connection to this process uses TLS
}

// InfoOf returns the RequestInfo of an HTTP request.
func InfoOf(r *http.Request) RequestInfo {
	return RequestInfo{Header: r.Header, Method: r.Method, Host: r.Host, RemoteAddr: r.RemoteAddr, Encrypted: r.TLS != nil}
}

func (i RequestInfo) Format(f fmt.State, _ rune) { printText(f, i.text()) }

func (i RequestInfo) LogValue() slog.Value { return slog.StringValue(i.text()) }

func (i RequestInfo) MarshalText() ([]byte, error) { return []byte(i.text()), nil }

func (i RequestInfo) text() string { return "sojourn.RequestInfo(" + i.Method + ")" }

// Export is a session with its values, for a user who requests their data. It
// prints the handle and the number of values; its JSON form is complete.
type Export struct {
	Info
	Values  map[string]any // decoded as any; a value that is not CBOR (see NewKeyCodec) is a []byte
	Flashes []Flash        // pending messages, oldest first; they stay in the session
}

func (e Export) text() string {
	return fmt.Sprintf("sojourn.Export(%s, %d values)", e.Handle, len(e.Values))
}

func (e Export) Format(f fmt.State, _ rune) { printText(f, e.text()) }

func (e Export) LogValue() slog.Value { return slog.StringValue(e.text()) }

func (m *core) export(st *stored.State) Export {
	out := Export{Info: m.describe(st), Values: map[string]any{}}
	now := m.now().UnixMilli()
	for _, f := range st.Rec.Fields() {
		if !f.Live(now) || f.Value == nil { // nil: damaged, and already reported to the observer
			continue
		}
		if f.Name == flashName {
			for _, e := range decodeFlashes(f.Value, true) {
				out.Flashes = append(out.Flashes, Flash{Level: e.Level, Text: e.Text})
			}
		}
		if strings.HasPrefix(f.Name, "_") {
			continue
		}
		var v any
		if cbor.Wellformed(f.Value) != nil || values.Decode(f.Value, &v) != nil {
			v = slices.Clone(f.Value)
		}
		out.Values[f.Name] = v
	}
	return out
}
