package store

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// ClockSkew is the largest supported difference between the clocks of two replicas.
const ClockSkew = time.Minute

// InTheWay returns which of a user's sessions have to end so that rec has room
// within the limit, or [ErrLimit]. It is for a [UserLimiter] that can read all
// of a user's records. It reads the records' ID, User, Created, Deadline and
// Ended, and changes nothing.
//
// A session whose deadline passed less than ClockSkew before now may be live by
// another replica's clock. So it counts, and is the first to be ended, even if
// the limit refuses.
func (l UserLimit) InTheWay(sessions []Record, rec *Record, now time.Time) ([]ID, error) {
	others := make([]Record, 0, len(sessions))
	live := 0
	for _, o := range sessions {
		if o.ID == rec.ID || o.ID == l.Replaces || o.User != rec.User || o.IsEnd() || o.Expired(now.Add(-ClockSkew)) {
			continue
		}
		others = append(others, o)
		if !o.Expired(now) {
			live++
		}
	}
	if l.Refuse && live >= l.Max {
		return nil, ErrLimit
	}
	late := func(r *Record) int {
		if r.Expired(now) {
			return 0
		}
		return 1
	}
	slices.SortFunc(others, func(a, b Record) int {
		return cmp.Or(cmp.Compare(late(&a), late(&b)), a.Created.Compare(b.Created), bytes.Compare(a.ID[:], b.ID[:]))
	})
	over := max(len(others)-(l.Max-1), 0)
	ids := make([]ID, over)
	for i := range ids {
		ids[i] = others[i].ID
	}
	return ids, nil
}
