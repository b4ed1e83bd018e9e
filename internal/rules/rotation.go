package rules

import (
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Credential is the validity of a credential for its session.
type Credential uint8

const (
	Newest     Credential = iota
	Previous              // just replaced: parallel requests of the visitor may still have it
	Outdated              // invalid, but not suspicious
	Suspicious            // invalid for so long that it was probably copied
	Ahead                 // newer than the session: the store has lost the rotation
)

// Good reports whether a request with such a credential gets the session.
func (c Credential) Good() bool { return c == Newest || c == Previous || c == Ahead }

// OldFor is how long a replaced credential is accepted after the first use of
// its successor, by any replica's clock. A credential that is sent later was
// copied, or the browser's cookies come from a backup.
func (l *Limits) OldFor() time.Duration { return l.Grace + Skew }

// Judge returns the validity of a credential of that generation at now.
func (l *Limits) Judge(generation uint64, h *record.Header, now time.Time) Credential {
	olderIsGood := h.OlderUntil != 0 && !now.After(record.Time(h.OlderUntil))
	switch {
	case generation == h.Generation:
		return Newest
	case generation > h.Generation:
		return Ahead // only this service can seal it
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
// it must be replaced. It is false until the previous credential is invalid, so
// that at most two are valid at any time.
func (l *Limits) RotationDue(h *record.Header, now time.Time) bool {
	if l.RotateEvery <= 0 {
		return false
	}
	if h.Generation > 0 && (h.Presented == 0 || now.Before(record.Time(h.Presented).Add(l.OldFor()))) {
		return false
	}
	return now.Sub(record.Time(max(h.Rotated, h.Created))) >= l.RotateEvery
}

// Joinable reports whether a request that arrived then with an inline session
// may join the stored session that it became: parallel requests still have the
// cookie for a while.
func (l *Limits) Joinable(stored *record.Header, arrived time.Time) bool {
	return !arrived.After(record.Time(stored.Promoted).Add(l.OldFor()))
}

// Mend corrects times that are further in the future than clocks may differ,
// because a machine's clock was ahead. The lifetime then starts now, and a
// login at an unknown time does not count as recent. It returns when the
// session was last seen, and whether it corrected anything.
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
