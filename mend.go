package sojourn

import (
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// mend returns a state without times that lie further in the future than clocks
// may differ: the clock of a machine was ahead when they were noted. The lifetime
// is counted from now then, and a login at an unknown time is no recent one. Such
// a state is mended, and the next request that may writes it down.
func (m *Manager) mend(st *state, now time.Time) *state {
	latest := now.Add(clockSkew).UnixMilli()
	mended := false
	h := st.rec.Header
	for _, at := range [...]*int64{&h.Created, &h.Seen, &h.Rotated, &h.Presented, &h.Promoted} {
		if *at > latest {
			*at, mended = now.UnixMilli(), true
		}
	}
	if h.AuthTime > latest {
		h.AuthTime, mended = 0, true
	}
	if until := now.Add(m.grace() + clockSkew).UnixMilli(); h.OlderUntil > until {
		h.OlderUntil, mended = until, true
	}
	seen := st.stored.Seen
	if seen.UnixMilli() > latest {
		seen, mended = now, true
	}
	if !mended {
		return st
	}
	m.report(slog.LevelWarn, "a session was used or created in the future: the clock of a machine is wrong, or was; the session's lifetime begins now")
	out := *st
	out.mended = true
	out.rec.Header = h
	end := m.lifetimeEnd(&h)
	if st.placement == PlacementInline {
		out.rec.Header.Expires = min(h.Expires, end.UnixMilli())
		return &out
	}
	r := &out.stored
	r.Created, r.Seen = record.Time(h.Created), seen
	r.Expires = earlier(r.Expires, end)
	r.Deadline = earlier(r.Deadline, m.idleDeadline(&h, seen, r.Expires))
	return &out
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
