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

// Info describes a session as it was last loaded or saved. Zero times are
// unknown or unlimited.
type Info struct {
	Handle      string // public name; see [Session.Handle]
	Placement   Placement
	Version     uint64 // of a stored session; 0 otherwise
	Size        int    // bytes: of the cookie's name and value, or of the sealed record
	User        string
	Created     time.Time // start of the lifetime: first value, or login
	LastSeen    time.Time // last activity that was noted
	IdleExpires time.Time // when it ends without further activity
	Expires     time.Time // when it ends in any case
	LoggedIn    time.Time // when the user logged in, last
	Methods     []string  // how: what Session.Login was given
	UserAgent   string    // of the request that stored the session or logged in
	IP          string    // likewise: the request's RemoteAddr
	Persistent  bool      // the browser keeps it when it is closed
	Suspected   bool      // an outdated credential of it turned up: somebody may have copied the cookie
	Current     bool      // in the list of Manager.Sessions: the session of the request that asks
}

// Info returns the session's description, as it was last loaded or saved.
func (s *Session) Info() Info {
	s.lock()
	defer s.mu.Unlock()
	st := s.base()
	info := s.m.describe(st)
	info.Handle = s.identity().ID.String() // after Login, the new one
	return info
}

// describe makes the Info of a state.
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

// Remember overrides Config.Cookie.BrowserSession for this session: with true
// the browser keeps it until its absolute end, with false until it is closed.
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

// SetExpiry overrides the idle timeout and lifetime for this session, as in
// [Config]: 0 = as configured, [NoLimit] = none. A lifetime that is already over
// ends the session.
func (s *Session) SetExpiry(idle, lifetime time.Duration) {
	i, l := rules.Millis(idle), rules.Millis(min(lifetime, rules.MaxAge))
	s.lock()
	defer s.mu.Unlock()
	if s.draft.SetExpiry(i, l) {
		s.changing()
	}
}

// Done returns a channel that is closed when the session ends: by a logout, a
// login, a revocation or its expiry, here or, within a second, on any replica
// with the same store, or by [Manager.Close]. [Session.Err] says why. Waiting
// is no activity. The channel is released when the request ends; asked for only
// then, it is closed, and Err returns [ErrTooLate]. That of an anonymous session in the cookie is closed
// by its absolute expiry and by Close only.
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
// [ErrEnded], [ErrExpired] or [ErrClosed].
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

// whatBecameOf is what the feed of ends asks about a session that somebody waits
// for.
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

// Background says that this request, such as polling, is no activity: it
// extends no idle timeout, takes no flash messages, and rotates no credential.
// A request can say so itself, with the header "Sojourn-Background: 1".
func (s *Session) Background() {
	s.lock()
	defer s.mu.Unlock()
	s.background, s.rotateDue = true, false
}

// RequestInfo is what a session needs to know about its request, for servers
// that do not use [http.Request].
type RequestInfo struct {
	Header     http.Header // names in canonical form; it is never modified
	Method     string      // "" = not HTTP: no cross-site checks, no Vary, no Cache-Control
	Host       string
	RemoteAddr string // "ip:port" or "ip"; "" = unknown
	Encrypted  bool   // the connection to this process uses TLS
}

// InfoOf returns the RequestInfo of an HTTP request.
func InfoOf(r *http.Request) RequestInfo {
	return RequestInfo{Header: r.Header, Method: r.Method, Host: r.Host, RemoteAddr: r.RemoteAddr, Encrypted: r.TLS != nil}
}

// Format prints the method, whatever the verb: the header holds cookies.
func (i RequestInfo) Format(f fmt.State, _ rune) { printText(f, i.text()) }

// LogValue is what Format prints.
func (i RequestInfo) LogValue() slog.Value { return slog.StringValue(i.text()) }

// MarshalText is for encoding/json: what Format prints.
func (i RequestInfo) MarshalText() ([]byte, error) { return []byte(i.text()), nil }

func (i RequestInfo) text() string { return "sojourn.RequestInfo(" + i.Method + ")" }

// Export is a session with its values, for a user who asks what is kept about
// them. It prints without them; as JSON it is complete.
type Export struct {
	Info
	// Values by name, as any would decode them. One that is not CBOR (see
	// NewKeyCodec) is given as its bytes.
	Values map[string]any
	// Flashes are the messages that wait for the visitor's next page, the oldest
	// first. They stay.
	Flashes []Flash
}

func (e Export) text() string {
	return fmt.Sprintf("sojourn.Export(%s, %d values)", e.Handle, len(e.Values))
}

// Format prints the handle and the number of values, whatever the verb.
func (e Export) Format(f fmt.State, _ rune) { printText(f, e.text()) }

// LogValue is what Format prints.
func (e Export) LogValue() slog.Value { return slog.StringValue(e.text()) }

func (m *core) export(st *stored.State) Export {
	out := Export{Info: m.describe(st), Values: map[string]any{}}
	now := m.now().UnixMilli()
	for _, f := range st.Rec.Fields() {
		if !f.Live(now) || f.Value == nil { // damaged, as the observer has been told
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
