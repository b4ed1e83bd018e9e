// Package rules decides where a session lives, when it ends, when its activity
// is recorded, and whether a credential is valid for it. Its functions depend
// on their arguments alone, without a clock, a store or a request.
package rules

import (
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// Where is where a session lives.
type Where uint8

const (
	Nowhere Where = iota // it is empty
	Inline               // sealed in a cookie
	Stored               // in the store
)

// Mode is the configured placement of sessions.
type Mode uint8

const (
	Auto       Mode = iota // small anonymous sessions in the cookie, all others in the store
	StoredOnly             // all in the store
	CookieOnly             // all in cookies
)

// MaxAge is the longest time that browsers keep a cookie (RFC 6265bis, section
// 5.6), and so the longest lifetime.
const MaxAge = 400 * 24 * time.Hour

// Skew is the largest supported difference between the clocks of two replicas.
const Skew = store.ClockSkew

// Limits is the part of the configuration that decisions need.
type Limits struct {
	Mode           Mode
	InlineLimit    int // bytes
	MaxSize        int // bytes
	Idle           time.Duration
	Lifetime       time.Duration // negative = none
	RotateEvery    time.Duration // 0 = never by itself
	Grace          time.Duration
	BrowserSession bool // cookies last until the browser is closed, unless the session overrides it
}

// Place decides where a session with this content lives, given where it lived
// before. It never moves a session out of the store: that would not be atomic
// with the browser's cookies, and a lost response would lose the session.
func (l *Limits) Place(before Where, r *record.Record, now time.Time) (Where, error) {
	if before == Stored {
		return Stored, nil
	}
	live, serverSide := false, false
	for _, f := range r.Frames() {
		if f.Live(now.UnixMilli()) {
			live = true
			serverSide = serverSide || f.Flags&record.ServerSide != 0
		}
	}
	user := r.Header.User != ""
	switch {
	case !live && !user:
		return Nowhere, nil
	case l.Mode == StoredOnly:
		return Stored, nil
	case l.Mode == CookieOnly && serverSide:
		return Nowhere, fmt.Errorf("%w: a ServerSide key has a value", fault.NoStore)
	case l.Mode == CookieOnly:
		return Inline, nil
	case serverSide, user:
		return Stored, nil
	default:
		return Inline, nil
	}
}

// LifetimeEnd is a session's absolute end. A session without a lifetime also
// has one, so that its cookies, index entries and tombstones do not stay
// forever.
func (l *Limits) LifetimeEnd(h *record.Header) time.Time {
	if l.endless(h) {
		return record.Time(max(h.Created, h.Renewed)).Add(MaxAge)
	}
	life := l.Lifetime
	if h.Lifetime > 0 {
		life = time.Duration(h.Lifetime) * time.Millisecond
	}
	return record.Time(h.Created).Add(life)
}

// endless reports whether a session has no lifetime.
func (l *Limits) endless(h *record.Header) bool {
	return h.Lifetime < 0 || h.Lifetime == 0 && l.Lifetime < 0
}

// RenewalDue reports whether the end of a session without a lifetime must be
// extended: half of the time until then has passed.
func (l *Limits) RenewalDue(h *record.Header, now time.Time) bool {
	return l.endless(h) && l.LifetimeEnd(h).Sub(now) <= MaxAge/2
}

// Renew extends it, if that is due.
func (l *Limits) Renew(h *record.Header, now time.Time) {
	if l.RenewalDue(h, now) {
		h.Renewed = now.UnixMilli()
	}
}

// IdleTimeout is a session's idle timeout; 0 = none.
func (l *Limits) IdleTimeout(h *record.Header) time.Duration {
	switch {
	case h.Idle > 0:
		return time.Duration(h.Idle) * time.Millisecond
	case h.Idle < 0 || l.Idle < 0:
		return 0
	default:
		return l.Idle
	}
}

// IdleDeadline is when a session last seen at that time expires, at most
// expires.
func (l *Limits) IdleDeadline(h *record.Header, seen, expires time.Time) time.Time {
	idle := l.IdleTimeout(h)
	if idle == 0 {
		return expires
	}
	return Earlier(seen.Add(idle), expires)
}

// TouchDue reports whether activity at now must be recorded.
func (l *Limits) TouchDue(h *record.Header, seen, now time.Time) bool {
	idle := l.IdleTimeout(h)
	return idle > 0 && now.Sub(seen) >= min(idle/20, time.Hour)
}

// Persistent reports whether the browser is asked to keep the cookies.
func (l *Limits) Persistent(h *record.Header) bool {
	switch h.Persist {
	case record.PersistAlways:
		return true
	case record.PersistBrowser:
		return false
	default:
		return !l.BrowserSession
	}
}

// CookieAge is a cookie's Max-Age, in whole seconds: until the session's
// absolute end, because the idle timeout is extended without a new cookie; 0
// leaves it to the browser, and -1 removes it. Some browsers truncate the time
// at which they got the cookie to seconds, and would drop it up to a second too
// early. So the cookie lives a second longer than the session, unless that
// exceeds the maximum for cookies.
func (l *Limits) CookieAge(h *record.Header, expires, now time.Time) time.Duration {
	if !l.Persistent(h) {
		return 0
	}
	age := expires.Sub(now)
	if age <= 0 {
		return -1
	}
	const second = time.Second
	return min((age+second-1).Truncate(second)+second, MaxAge)
}

// InlineUntil is until when a cookie with the session may be sent: a request
// under way may still refresh it once.
func (l *Limits) InlineUntil(h *record.Header, now time.Time) time.Time {
	const underWay = time.Minute
	return l.IdleDeadline(h, now.Add(underWay), l.LifetimeEnd(h))
}

// TombstoneUntil is until when the tombstone of a stored session must be kept:
// as long as a cookie with the inline session may be sent, or a foreign
// credential, which is accepted until foreign.
func (l *Limits) TombstoneUntil(h *record.Header, foreign, now time.Time) time.Time {
	return Later(Later(now.Add(store.MinTombstone), record.Time(h.InlineUntil)), foreign)
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Millis is a duration in a header's form, in milliseconds, rounded away from
// zero, so that no setting becomes 0, which means "as configured".
func Millis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
