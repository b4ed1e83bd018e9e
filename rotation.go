package sojourn

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// theftMargin is how long after its end an outdated credential may still turn
// up without being reported: the clocks of replicas may differ that much.
const theftMargin = time.Minute

// rotation is the change that replaces the credential as it was last seen.
func (s *Session) rotation() *rotation {
	return &rotation{from: s.last.rec.Header.Generation, grace: s.m.cfg.Grace.Milliseconds()}
}

// rotationDue reports whether the newest credential has been in use for
// Config.RotateEvery. It is never replaced before the one before it is
// worthless, so that at most two are good at any time.
func (m *Manager) rotationDue(h *record.Header, now time.Time) bool {
	if m.cfg.RotateEvery <= 0 {
		return false
	}
	if h.Generation > 0 && (h.Presented == 0 || now.Before(record.Time(h.Presented).Add(m.cfg.Grace))) {
		return false
	}
	return now.Sub(record.Time(max(h.Rotated, h.Created))) >= m.cfg.RotateEvery
}

// mayRotate reports whether the response of this request will surely leave its
// cookies in the browser, as far as that can be known: those of upgrades,
// prefetches and requests in the background may not.
func (s *Session) mayRotate() bool {
	h := s.in
	return !s.background && h.Get("Upgrade") == "" &&
		!strings.Contains(h.Get("Accept"), "text/event-stream") &&
		!strings.Contains(h.Get("Sec-Purpose"), "prefetch") &&
		(s.r == nil || s.r.Method != http.MethodHead)
}

// outdatedSince returns how long a credential of that generation has been
// worthless; below zero, it is still good.
func (m *Manager) outdatedSince(generation uint64, h *record.Header, now time.Time) time.Duration {
	switch {
	case generation+1 == h.Generation && h.Presented == 0:
		return math.MinInt64
	case generation+1 == h.Generation:
		return now.Sub(record.Time(h.Presented).Add(m.cfg.Grace))
	case generation+2 == h.Generation && h.OlderUntil != 0:
		return now.Sub(record.Time(h.OlderUntil))
	default: // it ended before that one
		return max(0, now.Sub(record.Time(h.OlderUntil)))
	}
}

// refuseOutdated deals with a credential that was replaced too long ago. One
// that is over for more than a minute is one that somebody kept: it was copied,
// or the browser's cookies come from a backup.
func (m *Manager) refuseOutdated(ctx context.Context, st *state, generation uint64, now time.Time, s *Session) {
	h := &st.rec.Header
	if m.outdatedSince(generation, h, now) <= theftMargin || h.Suspected == h.Generation {
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

// markUntil returns until when the end mark of a session must be kept: as long as a
// cookie that holds the session itself, or that it was adopted from, may turn up.
func (m *Manager) markUntil(h *record.Header, now time.Time) time.Time {
	return later(later(now.Add(store.MinEndMark), record.Time(h.InlineUntil)), m.legacyUntil(h, now))
}
