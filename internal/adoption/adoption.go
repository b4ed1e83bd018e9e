// Package adoption handles other libraries' sessions. It adopts them, refuses
// those that must not be adopted again, ends them together with the sessions
// that they became, and writes copies for a rollback. It has no access to an
// application's session: callbacks convert the values.
package adoption

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/trouble"
	"github.com/sojourn-go/sojourn/store"
)

// Options are the dependencies and settings of an Adoption. The zero values of
// From, Back, Until, Keep and SkipOutages adopt nothing.
type Options struct {
	From        []adopt.Format
	Back        adopt.Writer // nil = nothing is written back
	Until       time.Time    // when adopting ends; zero = never
	Keep        bool         // the legacy cookies stay in the browser
	SkipOutages bool

	Limits   *rules.Limits
	Sessions *stored.Sessions
	Now      func() time.Time
	Log      *trouble.Log
	// Identify returns a keyed hash of a credential or other data of a legacy format.
	Identify func(kind, source, what string) []byte
	// Limit returns the user's limit for an adopted session, and a function to
	// call with each session that is ended to make room.
	Limit func(ctx context.Context, user string) (store.UserLimit, func(store.ID))
	// Values returns the values of the copy for Back; nil = write nothing.
	Values func(st *stored.State) (map[string]any, error)
}

// Adoption takes over the sessions of other libraries. It is safe for concurrent
// use.
type Adoption struct {
	Options
	count *counters
}

// New returns an Adoption.
func New(o Options) *Adoption {
	a := &Adoption{Options: o, count: new(counters)}
	for _, from := range o.From {
		a.count.of(from.Name())
	}
	return a
}

// Within returns an Adoption with other options and the same counters.
func (a *Adoption) Within(o Options) *Adoption { return &Adoption{Options: o, count: a.count} }

// Found is the result for a request's legacy cookies.
type Found struct {
	State *stored.State // the session of a legacy one; nil = none
	// New is true if this request has made the session.
	New       bool
	SetCookie []string // to be sent
	Refused   []Refused
}

// Refused is a legacy credential that is no longer valid, although the browser
// may have a newer one of the same session.
type Refused struct {
	Credential string
	Live       bool // the session is live under another credential
}

// The reasons for not adopting a legacy session, in addition to those of its format.
const (
	refusedEmpty      adopt.Refusal = "empty"      // the application set no values
	refusedUnmapped   adopt.Refusal = "unmapped"   // the application's function failed
	refusedEnded      adopt.Refusal = "ended"      // it was adopted, and that session has ended
	refusedSpent      adopt.Refusal = "spent"      // it was adopted, and that session has expired
	refusedSuperseded adopt.Refusal = "superseded" // it was adopted, and now has another credential
	refusedRevoked    adopt.Refusal = "revoked"    // issued before its user's logout
	refusedExpired    adopt.Refusal = "expired"
	refusedUnlimited  adopt.Refusal = "unlimited" // never expires, and there is no Until
	refusedTooLarge   adopt.Refusal = "too_large"
	refusedTooMany    adopt.Refusal = "too_many_sessions"
)

// A legacy session is refused like a reference if the browser may have a newer
// credential.
var (
	errReplaced = fmt.Errorf("%w: a login or a logout has taken its place", refusedEnded)
	errOutdated = fmt.Errorf("%w: the session has a newer credential", refusedSuperseded)
)

var errOutage = errors.New("sojourn: a legacy store does not answer")

// Visitor is a request that may have a legacy session.
type Visitor struct {
	Header http.Header
	Visit  stored.Visit
	// Map makes a record of a legacy session, by the application's function. An
	// error is logged for developers, and refuses the session.
	Map func(old *adopt.Session) (record.Record, error)
}

// Active reports whether a request with that header may have a session to adopt.
func (a *Adoption) Active(in http.Header, now time.Time) bool {
	return len(a.From) > 0 && len(in["Cookie"]) > 0 && (a.Until.IsZero() || now.Before(a.Until))
}

// Find looks for a legacy session in a request without one of the manager's.
// The error means an outage of a legacy server or of the store.
func (a *Adoption) Find(ctx context.Context, v Visitor) (f Found, err error) {
	now := a.Now()
	for _, from := range a.From {
		st, made, old, err := a.findIn(ctx, from, &v, now)
		var refused adopt.Refusal
		switch {
		case errors.As(err, &refused):
			a.count.refused(from.Name(), refused)
			a.Log.Debug("legacy session refused", slog.String("format", from.Name()), slog.String("reason", string(refused)))
			if errors.Is(err, errReplaced) || errors.Is(err, errOutdated) {
				f.Refused = append(f.Refused, Refused{string(old.Credential), errors.Is(err, errOutdated)})
			}
			if old != nil && !a.Keep && isOver(refused) {
				f.SetCookie = append(f.SetCookie, from.Forget(old)...)
			}
		case errors.Is(err, errOutage):
			a.failed(ctx, from.Name(), "a legacy session could not be asked for", err)
			if !a.SkipOutages {
				return f, err
			}
		case err != nil:
			return f, err
		case st != nil:
			f.State, f.New = st, made
			if !a.Keep {
				f.SetCookie = append(f.SetCookie, from.Forget(old)...)
			}
			return f, nil
		}
	}
	return f, nil
}

// isOver reports whether a credential that was refused for that reason is
// permanently invalid.
func isOver(why adopt.Refusal) bool {
	return why == refusedEnded || why == refusedSpent || why == refusedSuperseded || why == refusedRevoked
}

// findIn returns the session that one format's session has become, and the
// legacy session; nil if there is none. An error other than a Refusal fails the
// load.
func (a *Adoption) findIn(ctx context.Context, from adopt.Format, v *Visitor, now time.Time) (st *stored.State, made bool, old *adopt.Session, err error) {
	old, err = from.Find(ctx, v.Header, now)
	var refused adopt.Refusal
	switch {
	case errors.As(err, &refused):
		return nil, false, nil, err
	case err != nil:
		return nil, false, nil, fmt.Errorf("%w: %w: %w", fault.Unavailable, errOutage, err)
	case old == nil:
		return nil, false, nil, nil
	}
	name := from.Name()
	a.count.of(name).found.Add(1)
	old.Source = name
	switch {
	case len(old.Credential) == 0:
		return nil, false, nil, refusedUnmapped
	case !old.Expires.IsZero() && now.After(old.Expires):
		return nil, false, nil, refusedExpired
	case old.Expires.IsZero() && a.Until.IsZero():
		return nil, false, nil, refusedUnlimited
	}
	of, err := takeOrigin(old)
	if err != nil {
		return nil, false, nil, err
	}
	st, made, err = a.exchange(ctx, old, of, v, now)
	return st, made, old, err
}

// exchange returns the session of a legacy one, and makes it on first use. of
// is the session from which the legacy one was copied, or nil.
func (a *Adoption) exchange(ctx context.Context, old *adopt.Session, of *origin, v *Visitor, now time.Time) (st *stored.State, made bool, err error) {
	own := a.identity(old) // by the credential alone
	spent := a.mark("spent", old.Source, string(old.Credential))

	// The note of an adoption is written after the session. So if the note
	// exists, and was read first, a missing session has expired.
	first, err := a.adoptedAt(ctx, spent, now)
	if err != nil {
		return nil, false, err
	}
	who, copied := own, []byte(nil)
	st, err = a.adoptedAs(ctx, own, nil, now)
	if st == nil && err == nil && of != nil {
		// All copies of the origin are adopted as one session, so they end
		// together.
		who, copied = a.heir(of), own.Identifier
		st, err = a.adoptedAs(ctx, who, copied, now)
	}
	if st == nil && of != nil && (err == nil || err == error(refusedEnded)) { //nolint:errorlint // a wrapping error has more information than the origin
		if err := a.checkOrigin(ctx, of, old, now); err != nil {
			return nil, false, err
		}
	}
	switch {
	case st != nil || err != nil:
		return st, false, err
	case !first.IsZero() && !a.Keep:
		return nil, false, refusedSpent
	case first.IsZero():
		first = now
	}
	if of != nil {
		first = record.Time(min(first.UnixMilli(), of.Created))
	}
	rec, err := a.translate(old, of, who, v, first, now)
	if err != nil {
		return nil, false, err
	}
	return a.take(ctx, old, rec, who, copied, spent, now)
}

// take stores the session that a legacy session has become.
func (a *Adoption) take(ctx context.Context, old *adopt.Session, rec record.Record, who stored.Who, copied []byte, spent store.ID, now time.Time) (st *stored.State, made bool, err error) {
	user := rec.Header.User
	if err := a.checkRevoked(ctx, old, user); err != nil {
		return nil, false, err
	}
	var limit store.UserLimit
	var evicted func(store.ID)
	if user != "" {
		limit, evicted = a.Limit(ctx, user)
	}
	st, err = a.Sessions.Insert(ctx, rec, who, limit, evicted)
	switch {
	case errors.Is(err, fault.TooMany):
		return nil, false, refusedTooMany
	case errors.Is(err, store.ErrConflict): // another request was faster
		if st, err = a.adoptedAs(ctx, who, copied, now); st == nil && err == nil {
			err = refusedEnded
		}
		return st, false, err
	case errors.Is(err, fault.TooLarge):
		return nil, false, refusedTooLarge
	case err != nil:
		return nil, false, err
	}
	// A concurrent logout of the same user may have refused it. A logout
	// refuses before it ends sessions, so this check suffices.
	if err := a.checkRevoked(ctx, old, user); err != nil {
		until := rules.Later(now.Add(store.MinTombstone), record.Time(st.Rec.Header.InlineUntil))
		if err := a.Sessions.Forget(ctx, who.ID, until); err != nil {
			return nil, false, err
		}
		return nil, false, err
	}
	// The old application may extend its session as long as this one lives.
	a.noteAdopted(ctx, spent, now, a.ComesBackUntil(&st.Rec.Header, st.Meta.Expires))
	a.count.of(old.Source).adopted.Add(1)
	return st, true, nil
}

// adoptedAs returns the live session that a legacy credential was adopted as,
// or nil if there is none. The error is refusedEnded, or wraps it, if it was
// ended, and errOutdated if it is live under another credential: after a
// Rotate, or if it was adopted from another copy.
func (a *Adoption) adoptedAs(ctx context.Context, who stored.Who, copied []byte, now time.Time) (*stored.State, error) {
	st, err := a.Sessions.Load(ctx, who, 0)
	var gone *stored.Gone
	switch {
	case errors.As(err, &gone) && gone.ToldOf(now):
		return nil, errReplaced
	case gone != nil && !gone.Ended.IsZero():
		return nil, refusedEnded
	case gone != nil:
		return nil, nil //nolint:nilerr // it has expired
	case err != nil:
		return nil, err
	}
	l, _ := linkOf(&st.Rec.Header)
	if st.Rec.Header.Generation > 0 || copied != nil && !bytes.Equal(l.Copied, copied) {
		return nil, errOutdated
	}
	return st, nil
}

// translate converts a legacy session, first adopted at that time, to a record.
func (a *Adoption) translate(old *adopt.Session, of *origin, who stored.Who, v *Visitor, first, now time.Time) (rec record.Record, err error) {
	if rec, err = v.Map(old); err != nil {
		a.Log.Debug("a legacy session could not be mapped", slog.String("format", old.Source), slog.Any("error", err))
		return rec, refusedUnmapped
	}
	rec.Expire(now.UnixMilli())
	rec.Settle()
	if rec.Len() == 0 && rec.Header.User == "" {
		return rec, refusedEmpty
	}
	h := &rec.Header
	h.UserAgent, h.IP = v.Visit.UserAgent, v.Visit.IP
	h.Created, h.AuthTime = first.UnixMilli(), 0
	l := link{
		Source: old.Source, State: old.State, Copies: old.Copies, Identifier: who.Identifier,
		Issued: record.Millis(old.Issued), Expires: record.Millis(old.Expires), Slides: old.Idle.Milliseconds(),
		Idle: h.Idle, Lifetime: h.Lifetime,
	}
	if of != nil {
		l.Copied = a.identity(old).Identifier
	}
	switch {
	case old.Idle > 0:
		if idle := a.Limits.IdleTimeout(h); idle == 0 || old.Idle < idle {
			h.Idle = rules.Millis(old.Idle)
		}
	case !old.Expires.IsZero() && a.Limits.LifetimeEnd(h).After(old.Expires):
		h.Lifetime = max(old.Expires.UnixMilli()-h.Created, 1)
	}
	if now.After(a.Limits.LifetimeEnd(h)) {
		return rec, refusedExpired
	}
	if of != nil && a.Limits.LifetimeEnd(h).After(record.Time(of.Expires)) {
		h.Lifetime = max(of.Expires-h.Created, 1)
	}
	h.Legacy = l.encode()
	h.InlineUntil = record.Millis(a.ComesBackUntil(h, now))
	return rec, nil
}

// failed counts and logs that a legacy format's server did not answer, unless
// the caller's context ended.
func (a *Adoption) failed(ctx context.Context, format, text string, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	a.count.of(format).outages.Add(1)
	a.Log.Report(slog.LevelWarn, text, slog.String("format", format), slog.Any("error", err))
}

func (a *Adoption) format(name string) adopt.Format {
	for _, from := range a.From {
		if from.Name() == name {
			return from
		}
	}
	if a.Back != nil && a.Back.Name() == name {
		return a.Back
	}
	return nil
}
