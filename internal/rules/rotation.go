package rules

import (
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Credential says what a credential is worth for its session.
type Credential uint8

const (
	Newest     Credential = iota
	Previous              // replaced a moment ago: parallel requests of the visitor may carry it
	Outdated              // no good any more, and that says nothing
	Suspicious            // no good any more: somebody kept it
	Ahead                 // newer than the session: the store has lost the rotation
)

// Good reports whether a request with such a credential has the session.
func (c Credential) Good() bool { return c == Newest || c == Previous || c == Ahead }

// OldFor is for how long a credential that was replaced is accepted, by
// whichever replica's clock, counted from the first use of its successor. One that
// turns up later was kept by somebody: it was copied, or the browser's cookies
// come from a backup.
func (l *Limits) OldFor() time.Duration { return l.Grace + Skew }

// Judge says what a credential of that generation is worth at now.
func (l *Limits) Judge(generation uint64, h *record.Header, now time.Time) Credential {
	olderIsGood := h.OlderUntil != 0 && !now.After(record.Time(h.OlderUntil))
	switch {
	case generation == h.Generation:
		return Newest
	case generation > h.Generation:
		return Ahead // only this service can have made it
	case generation+1 == h.Generation && (h.Presented == 0 || !now.After(record.Time(h.Presented).Add(l.OldFor()))),
		generation+2 == h.Generation && olderIsGood:
		return Previous
	case generation+1 < h.Generation && olderIsGood: // replaced by several quick rotations
		return Outdated
	case h.Suspected == h.Generation: // reported already
		return Outdated
	default:
		return Suspicious
	}
}

// RotationDue reports whether the newest credential was in use for so long that
// it must be replaced. It never is before the one before it is worthless, so
// that at most two are good at any time.
func (l *Limits) RotationDue(h *record.Header, now time.Time) bool {
	if l.RotateEvery <= 0 {
		return false
	}
	if h.Generation > 0 && (h.Presented == 0 || now.Before(record.Time(h.Presented).Add(l.OldFor()))) {
		return false
	}
	return now.Sub(record.Time(max(h.Rotated, h.Created))) >= l.RotateEvery
}

// Joinable reports whether a request that arrived then with a session in its
// cookie may join the stored session that this one became: parallel requests
// carry the cookie for a while.
func (l *Limits) Joinable(stored *record.Header, arrived time.Time) bool {
	return !arrived.After(record.Time(stored.Promoted).Add(l.OldFor()))
}

// Mend corrects times that lie further in the future than clocks may differ: the
// clock of a machine was ahead when they were noted. The lifetime is counted from
// now then, and a login at an unknown time is no recent one. It returns when the
// session was last seen, and whether anything was wrong.
func (l *Limits) Mend(h *record.Header, seen, now time.Time) (time.Time, bool) {
	latest := now.Add(Skew).UnixMilli()
	mended := false
	for _, at := range [...]*int64{&h.Created, &h.Seen, &h.Rotated, &h.Presented, &h.Promoted, &h.Renewed} {
		if *at > latest {
			*at, mended = now.UnixMilli(), true
		}
	}
	if h.AuthTime > latest {
		h.AuthTime, mended = 0, true
	}
	if until := now.Add(l.OldFor() + Skew).UnixMilli(); h.OlderUntil > until {
		h.OlderUntil, mended = until, true
	}
	if seen.UnixMilli() > latest {
		seen, mended = now, true
	}
	return seen, mended
}
