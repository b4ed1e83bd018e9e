package sojourn

import (
	"context"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// clockSkew is how far the clocks of two replicas may be apart.
const clockSkew = store.ClockSkew

// grace is for how long an outdated credential is accepted, by whichever
// replica's clock. One that turns up later is one that somebody kept: it was
// copied, or the browser's cookies come from a backup.
func (m *Manager) grace() time.Duration { return m.cfg.Grace + clockSkew }

// rotation is the change that replaces the credential as it was last seen.
func (s *Session) rotation() *rotation {
	return &rotation{from: s.last.rec.Header.Generation, grace: s.m.grace().Milliseconds()}
}

// rotationDue reports whether the newest credential has been in use for
// Config.RotateEvery. It is never replaced before the one before it is
// worthless, so that at most two are good at any time.
func (m *Manager) rotationDue(h *record.Header, now time.Time) bool {
	if m.cfg.RotateEvery <= 0 {
		return false
	}
	if h.Generation > 0 && (h.Presented == 0 || now.Before(record.Time(h.Presented).Add(m.grace()))) {
		return false
	}
	return now.Sub(record.Time(max(h.Rotated, h.Created))) >= m.cfg.RotateEvery
}

// accepts reports whether a credential of that generation, which is not the
// newest, is still good: parallel requests of the visitor may carry it.
func (m *Manager) accepts(generation uint64, h *record.Header, now time.Time) bool {
	switch generation + 1 {
	case h.Generation:
		return h.Presented == 0 || !now.After(record.Time(h.Presented).Add(m.grace()))
	case h.Generation - 1:
		return h.OlderUntil != 0 && !now.After(record.Time(h.OlderUntil))
	default:
		return false
	}
}

// joinable reports whether a request that arrived at that time with a session in
// its cookie may join the stored session that this one became: parallel requests
// carry the cookie for a while.
func (m *Manager) joinable(stored *record.Header, arrived time.Time) bool {
	return !arrived.After(record.Time(stored.Promoted).Add(m.grace()))
}

// refuseOutdated reports a credential that was replaced too long ago. One that
// was replaced by several quick rotations is no sign of theft.
func (m *Manager) refuseOutdated(ctx context.Context, st *state, generation uint64, now time.Time, s *Session) {
	h := &st.rec.Header
	quick := generation+1 < h.Generation && !now.After(record.Time(h.OlderUntil))
	if quick || h.Suspected == h.Generation {
		m.log.Debug("an outdated session credential was refused", slog.String("session", st.id.String()))
		return
	}
	m.count.thefts.Add(1)
	m.log.Warn("an outdated session credential turned up: somebody may have copied the cookie",
		slog.String("session", st.id.String()))
	m.tell(ctx, s.event(EventTheftSuspected, st))
	if m.cfg.EndOnTheft {
		if err := m.revoke(ctx, st, ReasonTheft); err != nil {
			m.log.Error("could not end a session whose credential was copied",
				slog.String("session", st.id.String()), slog.Any("error", err))
		}
		return
	}
	// It is noted with the session, so that it is told once. If somebody saves
	// the session just now, the next time will do.
	rec := st.rec.Clone()
	rec.Header.Suspected = h.Generation
	next, err := m.sealRecord(rec, st.identity, st, 0, now, st.stored.Seen)
	if err == nil {
		_ = m.send(ctx, next.stored, st.stored.Base())
	}
}

// markUntil returns until when the tombstone of a session must be kept: as long as a
// cookie that holds the session itself, or that it was adopted from, may turn up.
func (m *Manager) markUntil(h *record.Header, now time.Time) time.Time {
	return later(later(now.Add(store.MinTombstone), record.Time(h.InlineUntil)), m.legacyUntil(h, now))
}
