package sojourn

import (
	"log/slog"
	"time"
)

// mend corrects times of a session that lie further in the future than clocks may
// differ: the clock of a machine was ahead when they were noted. It reports
// whether there were any. The lifetime is counted from now then, and a login at
// an unknown time is no recent one.
func (m *Manager) mend(st *state, now time.Time) (next *state, mended bool) {
	latest := now.Add(clockSkew).UnixMilli()
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
		return st, false
	}
	m.report(slog.LevelWarn, "a session was used or created in the future: the clock of a machine is wrong, or was; the session's lifetime begins now")
	out := *st
	out.rec.Header = h
	end := m.lifetimeEnd(&h)
	if st.placement == PlacementInline {
		out.rec.Header.Expires = min(h.Expires, end.UnixMilli())
		return &out, true
	}
	out.stored.Seen = seen
	if end.Before(out.stored.Expires) {
		out.stored.Expires = end
	}
	if d := m.idleDeadline(&h, seen, out.stored.Expires); d.Before(out.stored.Deadline) {
		out.stored.Deadline = d
	}
	return &out, true
}
