package sojourn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// Adopt lets visitors keep the sessions that another library gave them.
//
// A request that asks for its session, brings no live session of the manager
// and does bring a valid one of a legacy format has that one adopted, as a part
// of the load: Map turns its values into the manager's, and the result is stored
// as a session of its own right. Nothing is asked of a legacy format in any
// other request.
//
//   - The adopted session's identifier is a keyed hash of the legacy credential,
//     and it is inserted only where there is none. First requests at once, on
//     any replica, and a visitor whose first response got lost, all get the same
//     session.
//   - What has expired there is not adopted, and the adopted session lives no
//     longer than the legacy one would have, nor than Config allows. An idle
//     timeout of the legacy format goes on as one.
//   - A mapped user is logged in, in the user index, too. That is no
//     authentication: Info.LoggedIn is zero, and no other session is ended for
//     it where Config.Limit.Max leaves no room.
//   - Once the adopted session has ended, by Logout, Login, Rotate or for its
//     age, the legacy one does not bring it back. Logout also ends the legacy
//     session on its server; a failure of that is answered as a failed logout.
//   - Cookies that hold their values themselves are copies that no server can
//     take back, and an older copy may look like another session. So a Logout of
//     a session adopted from such a cookie refuses every one of that user's that
//     was issued before and is not adopted yet, on other devices, too.
//   - A legacy session that is refused, however hostile, is a new visitor, a
//     debug log line and a count; see [Manager.AdoptStats].
//
// A cross-site request with an unsafe method and no cookie of the manager adopts
// nothing, as it could not start a session either (see [ErrCrossSite]).
type Adopt struct {
	// From are the formats to look for, in order; the first that finds an
	// acceptable session wins. The packages below github.com/sojourn-go/sojourn/legacy
	// make them. Required.
	From []Legacy

	// Map fills a session from a legacy one: it sets values and flash messages,
	// and calls s.Login for a visitor who was logged in; s.SetExpiry and
	// s.Remember work, too. Saving is not its business. It runs at most once per
	// request. With an error nothing is adopted: the visitor is a new one. So is
	// one for whom Map sets nothing at all. Required.
	Map func(old *LegacySession, s *Session) error

	// Until is when adopting ends: from then on no legacy format is asked any
	// more, and no mark of an ended session is kept for longer. It does not
	// shorten adopted sessions. Required if a format's sessions never expire.
	// Zero = no end.
	Until time.Time

	// Keep leaves the legacy cookies in the browser, for an old application that
	// still answers a part of the requests. Then activity there counts: a
	// session that was idle for too long here is adopted again, up to its
	// lifetime since it first was. Otherwise adopting expires the cookies, and
	// an adopted session that has expired stays expired.
	//
	// The two sessions go on separately. To share one, see the package
	// github.com/sojourn-go/sojourn/legacy/share.
	Keep bool

	// SkipOutages makes a visitor whose legacy session cannot be asked for,
	// because its server does not answer, a new one. Otherwise that is
	// [ErrUnavailable], which [Manager.ServeError] answers with 503: better than
	// to look logged out, or to start a session that keeps the old one from being
	// adopted later.
	SkipOutages bool

	// Back keeps writing a legacy form of the sessions, so that the site can
	// roll back to the old application. nil = no. It implies Keep.
	Back *WriteBack
}

// WriteBack says how sessions are written in a legacy format as well.
//
// That happens after each commit that changed something, for every session of
// the manager, adopted or not. It is a copy for a roll-back, not the truth:
// where it cannot be written the response goes out all the same, and the failure
// is logged and counted. Logins, logouts and expiry go along. A login gets a
// fresh legacy session.
type WriteBack struct {
	// To is the format to write. Sessions written there are adopted only if it is
	// among Adopt.From as well.
	To LegacyWriter
	// Values returns the whole content of the legacy session. It reads from s and
	// changes nothing. Nil values write nothing. The manager adds one value,
	// "_sojourn", by which it knows its own copies: such a session is adopted only
	// if the session that it was copied from has merely been idle here, while it
	// was used in the old application, and for no longer than that one's lifetime.
	Values func(s *Session) (map[string]any, error)
}

// Legacy finds and ends the sessions of one format of another library.
type Legacy interface {
	// Name says which format this is, such as "webapp2 session": one text per
	// library and cookie. It is part of an adopted session's identity and of
	// the counters; do not change it while adopting goes on.
	Name() string

	// Expires reports whether every session ends by itself, at a time that Find
	// tells.
	Expires() bool

	// Find returns the session that a request's header leads to, verified and
	// not expired at now, or nil if there is none. An error that wraps a
	// [LegacyRefusal] says that there is one that cannot be accepted; any other,
	// that a server could not be asked.
	Find(ctx context.Context, in http.Header, now time.Time) (*LegacySession, error)

	// Forget returns the Set-Cookie fields that remove the session's cookies.
	Forget(old *LegacySession) (setCookie []string)

	// End ends a session on the library's servers and returns what Forget does.
	// Only old.State is sure to be set. It is idempotent.
	End(ctx context.Context, old *LegacySession) (setCookie []string, err error)
}

// LegacyWriter is a [Legacy] whose sessions can be written.
type LegacyWriter interface {
	Legacy

	// Write stores the session old.State names, or a new one if that is empty,
	// with old.Values in it, and returns the Set-Cookie fields to send. It sets
	// all other fields of old.
	Write(ctx context.Context, old *LegacySession, now time.Time) (setCookie []string, err error)
}

// LegacySession is a session of another library.
type LegacySession struct {
	// Source is the Name of the [Legacy] that it comes from.
	Source string

	// Values are the decoded values by name, as plain Go values: nil, bool,
	// int64, float64, string, []byte, time.Time, *big.Int, []any, map[string]any,
	// and, of Go libraries, what they kept. See [LegacySession.Get].
	Values map[string]any

	// User is who is logged in, where the library itself knows. Most do not:
	// there it is one of Values.
	User string

	// Credential is what the session is recognised by: its identifier, or the
	// cookie itself. It is secret.
	Credential []byte

	// State is what ending or writing the session needs. It is kept, sealed, in
	// the adopted session.
	State []byte

	Issued  time.Time // when it began, or when its cookie was made; zero = unknown
	Expires time.Time // when it is over if it is not used again; zero = never
	// Idle says that each use lets the session last for that long again.
	// 0 = Expires does not move.
	Idle time.Duration

	// Copies says that the cookie holds the values itself: a copy of it stays
	// valid for the library, whatever happens to the session.
	Copies bool

	// Native is what the library's package found, such as a *legacy.Session.
	Native any
}

// Get decodes the value of that name into the variable that into points to, as
// [Session.Get] does: a dictionary becomes a struct or a map, a number any type
// that it fits. It returns [ErrNoValue] or [ErrBadValue], and leaves the variable
// alone then.
func (l *LegacySession) Get(name string, into any) error {
	v, ok := l.Values[name]
	if !ok {
		return fmt.Errorf("%w: %.40q", ErrNoValue, name)
	}
	raw, err := values.Encode(v)
	if err != nil {
		return fmt.Errorf("%w: the legacy value %.40q is a %T", ErrBadValue, name, v)
	}
	return getInto(name, raw, into)
}

// LegacyRefusal is the reason why a request's legacy session is not accepted, a
// stable word such as "bad_signature" or "expired". It is an error for
// [Legacy.Find] to return.
type LegacyRefusal string

// Error returns the reason.
func (r LegacyRefusal) Error() string { return string(r) }

// The reasons of the manager itself.
const (
	refusedEmpty      LegacyRefusal = "empty"      // Map made nothing of it
	refusedUnmapped   LegacyRefusal = "unmapped"   // Map failed
	refusedEnded      LegacyRefusal = "ended"      // it was adopted, and that session has ended
	refusedSpent      LegacyRefusal = "spent"      // it was adopted, and that session has expired
	refusedSuperseded LegacyRefusal = "superseded" // it was adopted, and has another credential since
	refusedRevoked    LegacyRefusal = "revoked"    // issued before its user's logout
	refusedExpired    LegacyRefusal = "expired"
	refusedUnlimited  LegacyRefusal = "unlimited" // never expires, and there is no Until
	refusedTooLarge   LegacyRefusal = "too_large"
	refusedTooMany    LegacyRefusal = "too_many_sessions" // Config.Limit
)

func (a *Adopt) complete(c *Config) (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("sojourn: Config.Adopt"+format, args...))
	}
	if c.Mode == CookieOnly {
		bad(" needs a Store: adopting once, and for good, is kept there")
	}
	if len(a.From) == 0 {
		bad(".From is empty")
	}
	if a.Map == nil {
		bad(".Map is missing")
	}
	var names []string
	for i, f := range a.From {
		if f == nil {
			bad(".From[%d] is nil", i)
			continue
		}
		name := f.Name()
		switch {
		case name == "":
			bad(".From[%d] has no Name", i)
		case slices.Contains(names, name):
			bad(".From has two formats with the Name %q", name)
		}
		names = append(names, name)
		if !f.Expires() && a.Until.IsZero() {
			bad(".Until is missing: sessions of %q never expire, and a mark that one has ended cannot be kept for ever", name)
		}
	}
	if b := a.Back; b != nil {
		if b.To == nil || b.Values == nil {
			bad(".Back needs both To and Values")
		}
		a.Keep = true
	}
	return errs
}

// adopt looks for a legacy session in a request without one of the manager's.
func (s *Session) adopt(ctx context.Context, now time.Time) error {
	m := s.m
	a := m.cfg.Adopt
	if a == nil || len(s.in["Cookie"]) == 0 ||
		!a.Until.IsZero() && !now.Before(a.Until) ||
		s.barred(true) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	for _, from := range a.From {
		st, old, err := s.adoptFrom(ctx, from, now)
		var refused LegacyRefusal
		switch {
		case errors.As(err, &refused):
			m.adoptions.refused(from.Name(), refused)
			m.log.Debug("legacy session refused", slog.String("format", from.Name()), slog.String("reason", string(refused)))
			if errors.Is(err, errRefused) && s.jar.Refuse(string(old.Credential)) {
				s.outdated = errors.Is(err, errOutdated)
			}
			if old != nil && !a.Keep && (refused == refusedEnded || refused == refusedSpent || refused == refusedSuperseded || refused == refusedRevoked) {
				s.jar.SetForeign(from.Forget(old))
			}
		case errors.Is(err, errLegacyOutage):
			m.legacyFailed(ctx, from.Name(), "a legacy session could not be asked for", err)
			if !a.SkipOutages {
				return err
			}
		case err != nil:
			return err
		case st != nil:
			s.last, s.isNew = st, false
			if !a.Keep {
				s.jar.SetForeign(from.Forget(old))
			}
			s.setReference(st, now)
			if m.caches {
				s.setFloor(st, now)
			}
			return nil
		}
	}
	return nil
}

// A legacy session is refused like a reference if the browser may have a newer
// credential.
var (
	errLegacyReplaced = fmt.Errorf("%w: %w", refusedEnded, errRefused)
	errLegacyOutdated = fmt.Errorf("%w: %w", refusedSuperseded, errOutdated)
)

var errLegacyOutage = errors.New("sojourn: a legacy store does not answer")

// adoptFrom returns the session that one format's session has become, and that
// one; nil if there is none. An error that is no LegacyRefusal fails the load.
func (s *Session) adoptFrom(ctx context.Context, from Legacy, now time.Time) (*stored.State, *LegacySession, error) {
	m := s.m
	old, err := from.Find(ctx, s.in, now)
	var refused LegacyRefusal
	switch {
	case errors.As(err, &refused):
		return nil, nil, err
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w: %w", ErrUnavailable, errLegacyOutage, err)
	case old == nil:
		return nil, nil, nil
	}
	name := from.Name()
	m.adoptions.of(name).found.Add(1)
	old.Source = name
	switch {
	case len(old.Credential) == 0:
		return nil, nil, refusedUnmapped
	case !old.Expires.IsZero() && now.After(old.Expires):
		return nil, nil, refusedExpired
	case old.Expires.IsZero() && m.cfg.Adopt.Until.IsZero():
		return nil, nil, refusedUnlimited
	}
	of, err := takeOrigin(old)
	if err != nil {
		return nil, nil, err
	}
	st, err := s.exchange(ctx, old, of, now)
	return st, old, err
}

// exchange returns the session that stands for a legacy one, made if it is
// presented for the first time. of is the session that it is a copy of, or nil.
func (s *Session) exchange(ctx context.Context, old *LegacySession, of *origin, now time.Time) (*stored.State, error) {
	m := s.m
	who := m.adoptedIdentity(old)
	own := who // by the credential alone
	spent := m.legacyMark("spent", old.Source, string(old.Credential))

	// A note that it was adopted is written after the session itself. So once the
	// note is there, and looked for first, a session that is not has expired.
	first, err := m.adoptedAt(ctx, spent, now)
	if err != nil {
		return nil, err
	}
	st, err := m.adoptedAs(ctx, who, nil, now)
	if st == nil && err == nil && of != nil {
		// The origin has one heir, whatever copies of it there are: when that one
		// ends, so do they all.
		who = m.heirIdentity(of)
		st, err = m.adoptedAs(ctx, who, own.Identifier, now)
	}
	if st == nil && of != nil && (err == nil || err == error(refusedEnded)) { //nolint:errorlint // what wraps it knows more than the origin
		if err := m.checkOrigin(ctx, of, old, now); err != nil {
			return nil, err
		}
	}
	switch {
	case st != nil || err != nil:
		return st, err
	case !first.IsZero() && !m.cfg.Adopt.Keep:
		return nil, refusedSpent
	case first.IsZero():
		first = now
	}
	if of != nil {
		first = record.Time(min(first.UnixMilli(), of.Created))
	}
	rec, err := s.translate(old, of, who, first, now)
	if err != nil {
		return nil, err
	}
	user := rec.Header.User
	if err := m.checkRevoked(ctx, old, user); err != nil {
		return nil, err
	}
	var limit store.UserLimit
	var evicted func(store.ID)
	if user != "" && m.cfg.Limit.Max > 0 {
		// Nobody has authenticated, and the login may be older than all others.
		limit, evicted = m.limitOf(ctx, user, true)
	}
	st, err = m.stored.Insert(ctx, rec, who, limit, evicted)
	switch {
	case errors.Is(err, ErrTooManySessions):
		return nil, refusedTooMany
	case errors.Is(err, store.ErrConflict):
		// Another request was faster.
		var copied []byte
		if of != nil {
			copied = own.Identifier
		}
		if st, err = m.adoptedAs(ctx, who, copied, now); st == nil && err == nil {
			err = refusedEnded
		}
		return st, err
	case errors.Is(err, ErrTooLarge):
		return nil, refusedTooLarge
	case err != nil:
		return nil, err
	}
	// A logout of the same user may just have refused it: it did so before it
	// ended anything, so now or never.
	if err := m.checkRevoked(ctx, old, user); err != nil {
		until := rules.Later(now.Add(store.MinTombstone), record.Time(st.Rec.Header.InlineUntil))
		if err := m.stored.Forget(ctx, who.ID, until); err != nil {
			return nil, err
		}
		return nil, err
	}
	// The old application may keep its session alive as long as this one lives.
	m.noteAdopted(ctx, spent, now, m.legacyUntil(&st.Rec.Header, st.Meta.Expires))
	m.count.created.Add(1)
	m.tell(ctx, s.event(EventAdopted, st))
	m.adoptions.of(old.Source).adopted.Add(1)
	return st, nil
}

// adoptedAs returns the live session that a legacy credential was adopted as, or
// nil if there is none. The error is refusedEnded, or wraps it, if it was ended,
// and errLegacyOutdated if it goes on under another credential: after a Rotate,
// or if it was adopted from another copy than the one that is named.
func (m *Manager) adoptedAs(ctx context.Context, who stored.Who, copied []byte, now time.Time) (*stored.State, error) {
	st, err := m.stored.Load(ctx, who, 0)
	var gone *stored.Gone
	switch {
	case errors.As(err, &gone) && gone.ToldOf(now):
		return nil, errLegacyReplaced
	case gone != nil && !gone.Ended.IsZero():
		return nil, refusedEnded
	case gone != nil:
		return nil, nil //nolint:nilerr // it is over, by its age: there is none
	case err != nil:
		return nil, err
	}
	l, _ := linkOf(&st.Rec.Header)
	if st.Rec.Header.Generation > 0 || copied != nil && !bytes.Equal(l.Copied, copied) {
		return nil, errLegacyOutdated
	}
	return st, nil
}

// translate lets the application make a session, and so a record, of a legacy
// session that was first adopted at that time.
func (s *Session) translate(old *LegacySession, of *origin, who stored.Who, first, now time.Time) (rec record.Record, err error) {
	m := s.m
	made := m.newDraft(stored.Nothing)
	made.r, made.in = s.r, s.in
	if err := m.callMap(old, made); err != nil {
		m.log.Debug("a legacy session could not be mapped", slog.String("format", old.Source), slog.Any("error", err))
		return rec, refusedUnmapped
	}
	rec = made.draft.View().Clone()
	rec.Expire(now.UnixMilli())
	rec.Settle()
	if rec.Len() == 0 && rec.Header.User == "" {
		return rec, refusedEmpty
	}
	h := &rec.Header
	v := s.visit()
	h.UserAgent, h.IP = v.UserAgent, v.IP
	h.Created, h.AuthTime = first.UnixMilli(), 0
	l := link{
		Source: old.Source, State: old.State, Copies: old.Copies, Identifier: who.Identifier,
		Issued: record.Millis(old.Issued), Expires: record.Millis(old.Expires), Slides: old.Idle.Milliseconds(),
		Idle: h.Idle, Lifetime: h.Lifetime,
	}
	if of != nil {
		l.Copied = m.adoptedIdentity(old).Identifier
	}
	switch {
	case old.Idle > 0:
		if idle := m.limits.IdleTimeout(h); idle == 0 || old.Idle < idle {
			h.Idle = toMillis(old.Idle)
		}
	case !old.Expires.IsZero() && m.limits.LifetimeEnd(h).After(old.Expires):
		h.Lifetime = max(old.Expires.UnixMilli()-h.Created, 1)
	}
	if now.After(m.limits.LifetimeEnd(h)) {
		return rec, refusedExpired
	}
	if of != nil && m.limits.LifetimeEnd(h).After(record.Time(of.Expires)) {
		h.Lifetime = max(of.Expires-h.Created, 1)
	}
	h.Legacy = l.encode()
	h.InlineUntil = record.Millis(m.legacyUntil(h, now))
	return rec, nil
}

// newDraft returns a session that is not of a request, for the application's own
// functions.
func (m *Manager) newDraft(st *stored.State) *Session {
	s := newSession(m)
	s.last, s.phase, s.isNew = st, phaseDraft, st.Where == rules.Nowhere
	s.draft.Start(&st.Rec)
	return s
}

// callMap runs the application's function. What another library's data make of
// it is not to fail requests.
func (m *Manager) callMap(old *LegacySession, made *Session) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("Adopt.Map panicked", slog.String("format", old.Source), slog.String("type", fmt.Sprintf("%T", p)))
			err = errMapPanicked
		}
	}()
	err = m.cfg.Adopt.Map(old, made)
	return errors.Join(err, made.failed)
}

var errMapPanicked = errors.New("sojourn: Adopt.Map panicked")

// link is where an adopted session comes from. It goes along with the session
// until it ends.
type link struct {
	_          struct{} `cbor:",toarray"`
	Source     string
	State      []byte // what its format needs to end it
	Identifier []byte // of the session that it is adopted as
	Copied     []byte // of the one that its credential alone would be; nil = the same
	Copies     bool
	Issued     int64 // ms
	Expires    int64 // ms
	Slides     int64 // ms: each use in the old application extends it by that
	// Idle and Lifetime are the application's own settings. A login returns to
	// them: the limits of the legacy session are not those of a new one.
	Idle, Lifetime int64
}

func (l link) encode() string {
	b, err := values.Encode(l)
	if err != nil {
		return "" // cannot happen: numbers and bytes
	}
	return string(b)
}

func linkOf(h *record.Header) (l link, ok bool) {
	if h.Legacy == "" {
		return link{}, false
	}
	err := values.Decode([]byte(h.Legacy), &l)
	return l, err == nil
}

// carryLink takes the link of a session over into the one that a login makes.
func carryLink(to *record.Header, from *record.Header) {
	if l, ok := linkOf(from); ok {
		to.Legacy, to.Idle, to.Lifetime = from.Legacy, l.Idle, l.Lifetime
	}
}

// legacyUntil is until when an adopted session's legacy credential, in any form
// that was issued up to now, could be adopted. Zero for other sessions.
func (m *Manager) legacyUntil(h *record.Header, now time.Time) time.Time {
	l, ok := linkOf(h)
	if !ok {
		return time.Time{}
	}
	if l.Expires == 0 {
		return m.refusalsUntil(now)
	}
	until := record.Time(l.Expires)
	if l.Slides > 0 {
		// The old application may extend it again and again.
		until = rules.Later(until, m.refusalsUntil(now))
	} else if l.Issued > 0 {
		until = rules.Later(until, now.Add(time.Duration(l.Expires-l.Issued)*time.Millisecond))
	}
	if a := m.cfg.Adopt; a != nil && !a.Until.IsZero() && until.After(a.Until) {
		until = a.Until
	}
	return until
}

// refusalsUntil is for how long something must be remembered that has no end of
// its own. A manager that adopts nothing itself, as the command's, does not know
// until when others do.
func (m *Manager) refusalsUntil(now time.Time) time.Time {
	if a := m.cfg.Adopt; a != nil && !a.Until.IsZero() {
		return a.Until
	}
	return now.Add(rules.MaxAge)
}

func (m *Manager) adoptedIdentity(old *LegacySession) stored.Who {
	return m.legacyIdentity("session", old.Source, string(old.Credential))
}

// heirIdentity is that of the session that goes on for the one that a legacy
// session is a copy of.
func (m *Manager) heirIdentity(of *origin) stored.Who {
	return m.legacyIdentity("heir", "", string(of.Session[:])) // in whatever format
}

func (m *Manager) legacyIdentity(kind, source, what string) stored.Who {
	b := m.ring().Legacy(kind, m.cfg.Name, source, what)
	return stored.WhoIs(b)
}

// legacyMark is the row key of a note about something of a legacy format.
func (m *Manager) legacyMark(kind, source, what string) store.ID {
	return store.HashIdentifier(m.ring().Legacy(kind, m.cfg.Name, source, what))
}

// adoptedAt returns when a legacy session was first adopted: zero if it was not,
// and a time long ago if that cannot be told any more.
func (m *Manager) adoptedAt(ctx context.Context, spent store.ID, now time.Time) (time.Time, error) {
	st, err := m.stored.Ask(ctx, spent, 0)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return time.Time{}, nil
	case errors.Is(err, stored.ErrDamaged), st != nil && st.Meta.Ended.After(now.Add(rules.Skew)):
		// When it was, and with it the start of the lifetime, is not known.
		return time.Unix(0, 0), nil
	case st == nil:
		return time.Time{}, err
	case st.Meta.Expired(now):
		return time.Time{}, nil
	}
	return st.Meta.Ended, nil
}

// noteAdopted leaves the note for adoptedAt: a tombstone of a session that never
// was. Without it an expired session could be adopted once more, at worst.
func (m *Manager) noteAdopted(ctx context.Context, spent store.ID, now, until time.Time) {
	if err := m.stored.Bury(ctx, spent, now, until); err != nil && !errors.Is(err, store.ErrConflict) {
		m.log.Debug("could not note that a legacy session was adopted", slog.Any("error", err))
	}
}

// RefuseLegacy makes legacy sessions of that user worthless for [Adopt]: those
// that were issued up to now, or at an unknown time, and are not adopted yet.
// [Manager.RevokeUser] and [Manager.EraseUser] do so, too. Call it where the old
// application ends all sessions of a user, such as after a change of the password
// there; and have that application do the same for itself.
func (m *Manager) RefuseLegacy(ctx context.Context, user string) error {
	if m.cfg.Adopt == nil || user == "" {
		return nil
	}
	if err := m.begin(); err != nil {
		return err
	}
	defer m.end()
	return m.refuseLegacy(ctx, user)
}

func (m *Manager) refuseLegacy(ctx context.Context, user string) error {
	if m.cfg.Adopt == nil {
		return nil
	}
	ctx, cancel := m.stored.Bounded(ctx)
	defer cancel()
	now := m.now()
	for _, from := range m.cfg.Adopt.From {
		if err := m.refuseIssued(ctx, from.Name(), user, now, now); err != nil {
			return err
		}
	}
	return nil
}

// refuseIssued notes that a user's sessions of one format which were issued up
// to that time are not to be adopted. The note is a record of its own, whose
// Seen is that time and never moves backwards.
func (m *Manager) refuseIssued(ctx context.Context, source, user string, issued, now time.Time) error {
	id := m.legacyMark("user", source, user)
	for attempt := 0; ; attempt++ {
		note, err := m.refusal(ctx, id, now)
		if err != nil {
			return err
		}
		until := rules.Later(note.rec.Expires, m.refusalsUntil(now))
		if note.total {
			return m.stored.Forget(ctx, id, until)
		}
		rec := note.rec
		if !rec.Seen.Before(issued) && !rec.Expires.Before(until) && !note.mended {
			return nil
		}
		err = m.stored.SaveDated(ctx, id, &rec, rules.Later(rec.Seen, issued), until, note.mended)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if !stored.BackOff(ctx, attempt) {
			return fault.Away("save", ctx.Err())
		}
	}
}

// refusal is a note of refuseIssued; the zero refusal is none.
type refusal struct {
	rec    store.Record // what was issued up to its Seen is refused
	mended bool         // a clock was ahead when it was written; the store still says so
	total  bool         // all is refused, whenever it was issued: nobody knows better
}

// refusal loads the note with that ID. One that was damaged, or ended as if it
// were a session, refuses whatever it may have been about.
func (m *Manager) refusal(ctx context.Context, id store.ID, now time.Time) (refusal, error) {
	st, err := m.stored.Ask(ctx, id, 0)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refusal{}, nil
	case errors.Is(err, stored.ErrDamaged):
		return refusal{total: true}, nil
	case st == nil:
		return refusal{}, err
	case st.Meta.Expired(now):
		return refusal{}, nil
	case st.Meta.IsEnd():
		return refusal{total: true}, nil
	}
	return refusal{rec: st.Meta, mended: st.Mended}, nil
}

// checkRevoked returns refusedRevoked for a session that refuseIssued speaks of.
func (m *Manager) checkRevoked(ctx context.Context, old *LegacySession, user string) error {
	if user == "" {
		return nil
	}
	now := m.now()
	note, err := m.refusal(ctx, m.legacyMark("user", old.Source, user), now)
	switch {
	case err != nil:
		return err
	case note.total:
		return refusedRevoked
	case note.rec.Version == 0:
		return nil
	case note.mended:
		// What the old application issues from now on is good again.
		if err := m.refuseIssued(ctx, old.Source, user, now, now); err != nil {
			return err
		}
	}
	if old.Issued.IsZero() || !old.Issued.After(note.rec.Seen) || old.Issued.After(now.Add(rules.Skew)) {
		return refusedRevoked
	}
	return nil
}

// leaveLegacy comes before the end of a session by Logout, or by the login of
// somebody else: from here on no copy of its legacy cookie is adopted.
func (m *Manager) leaveLegacy(ctx context.Context, last *stored.State) error {
	h := &last.Rec.Header
	l, ok := linkOf(h)
	if !ok {
		return nil
	}
	now := m.now()
	// The session may have moved on since it was adopted, by a login, or may never
	// have been, if its legacy form was written by a WriteBack.
	if id := store.HashIdentifier(l.Identifier); len(l.Identifier) > 0 && id != last.ID {
		until := rules.Later(m.legacyUntil(h, now), now.Add(store.MinTombstone))
		if err := m.stored.Forget(ctx, id, until); err != nil {
			return err
		}
	}
	if !l.Copies || h.User == "" {
		return nil
	}
	// The old application's clock may be ahead.
	return m.refuseIssued(ctx, l.Source, h.User, rules.Later(now, record.Time(l.Issued)), now)
}

// endLegacy ends a session in the library that it came from, and its cookies.
func (s *Session) endLegacy(ctx context.Context, h *record.Header) error {
	setCookie, err := s.m.endLegacy(ctx, h)
	if s.setsCookies() {
		s.jar.SetForeign(setCookie)
	}
	return err
}

func (m *Manager) endLegacy(ctx context.Context, h *record.Header) (setCookie []string, err error) {
	l, ok := linkOf(h)
	from := m.legacyFormat(l.Source)
	if !ok || from == nil {
		return nil, nil
	}
	setCookie, err = from.End(ctx, &LegacySession{Source: l.Source, State: l.State, Copies: l.Copies})
	if err != nil {
		m.legacyFailed(ctx, l.Source, "a legacy session could not be ended", err)
		return setCookie, fmt.Errorf("%w: %w: %w", ErrUnavailable, errLegacyOutage, err)
	}
	m.adoptions.of(l.Source).ended.Add(1)
	return setCookie, nil
}

// limitUntil is until when the tombstones of sessions that Config.Limit.Max ends
// are kept. Which of them were adopted is not known there.
func (m *Manager) limitUntil(now time.Time) time.Time {
	until := now.Add(store.MinTombstone)
	if a := m.cfg.Adopt; a != nil && a.Keep { // else the note that they were adopted is there
		until = rules.Later(until, m.refusalsUntil(now))
	}
	return until
}

// legacyFailed counts and logs that a legacy format's server did not answer,
// unless the caller gave up.
func (m *Manager) legacyFailed(ctx context.Context, format, text string, err error) {
	if gaveUp(ctx) {
		return
	}
	m.adoptions.of(format).outages.Add(1)
	m.log.Report(slog.LevelWarn, text, slog.String("format", format), slog.Any("error", err))
}

func (m *Manager) legacyFormat(name string) Legacy {
	a := m.cfg.Adopt
	if a == nil {
		return nil
	}
	for _, from := range a.From {
		if from.Name() == name {
			return from
		}
	}
	if a.Back != nil && a.Back.To.Name() == name {
		return a.Back.To
	}
	return nil
}

// writesBack reports whether the pending changes are to be written to a legacy
// format as well.
func (s *Session) writesBack() bool {
	a := s.m.cfg.Adopt
	return a != nil && a.Back != nil && s.pending()
}

// writeBack writes the legacy form of the session as it was just kept. Nothing
// here fails a request. fresh says that it must not be the legacy session that
// it was before, because somebody has logged in; before is that one's link.
func (s *Session) writeBack(ctx context.Context, fresh bool, before *record.Header) {
	m := s.m
	b := m.cfg.Adopt.Back
	if s.last.Where == rules.Nowhere {
		return
	}
	name := b.To.Name()
	failed := func(err error) {
		m.adoptions.of(name).writeErrors.Add(1)
		m.log.Report(slog.LevelWarn, "a session could not be written in its legacy form", slog.String("format", name), slog.Any("error", err))
	}
	ctx, cancel := m.stored.Bounded(ctx)
	defer cancel()
	h := &s.last.Rec.Header
	l, ok := linkOf(h)
	reuse := ok && l.Source == name && !fresh
	cookies := s.setsCookies()
	if !cookies && (!reuse || l.Copies) {
		return // it would need a cookie
	}
	read := m.newDraft(s.last)
	values, err := b.Values(read)
	if err != nil {
		failed(err)
		return
	}
	if values == nil {
		return
	}
	now := m.now()
	of := m.originOf(s.last)
	values = maps.Clone(values)
	if values[originName], err = of.text(); err != nil {
		failed(err)
		return
	}
	old := &LegacySession{Source: name, Values: values, User: h.User}
	if reuse {
		old.State = l.State
	}
	setCookie, err := b.To.Write(ctx, old, now)
	if err != nil {
		failed(err)
		return
	}
	if cookies {
		s.jar.SetForeign(setCookie)
	}
	m.adoptions.of(name).written.Add(1)
	if fresh && before.Legacy != "" && !old.Copies {
		if prev, ok := linkOf(before); ok {
			if from := m.legacyFormat(prev.Source); from != nil {
				if _, err := from.End(ctx, &LegacySession{Source: prev.Source, State: prev.State}); err != nil {
					failed(err)
				}
			}
		}
	}
	if reuse && (old.Copies || string(old.State) == string(l.State)) {
		return
	}
	next := link{Copied: l.Copied, Source: name, State: old.State, Copies: old.Copies, Slides: old.Idle.Milliseconds(), Idle: h.Idle, Lifetime: h.Lifetime}
	if !old.Copies {
		next.Identifier = m.adoptedIdentity(old).Identifier
		next.Issued, next.Expires = record.Millis(old.Issued), record.Millis(old.Expires)
	}
	s.draft.SetLegacy(next.encode())
	if err := s.commitChanges(ctx); err != nil {
		s.discard()
		failed(err)
	}
}
