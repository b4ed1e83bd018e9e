package sojourn

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// With CookieFirst a logged-in session is in the cookie, and a record without
// values in the store: its anchor. The anchor is what the index by user lists,
// what the limit of sessions per user counts, and what a logout or a revocation
// turns into an end mark. The marks are heard through the store's feed of ends,
// so that a request asks the store only when the feed is not heard.
//
// The reference cookie names the anchor, and only together with it the state
// cookie is a logged-in session. So a response of another session, however
// late, can overwrite values but no login.

// anchored reports whether st is a logged-in session in the cookie that has an
// anchor in the store.
func (m *Manager) anchored(st *state) bool {
	return m.cfg.Placement == CookieFirst && st.placement == PlacementInline && st.rec.Header.User != ""
}

var errNoAnchor = errors.New("sojourn: a login in a cookie without its reference")

// loadAnchored finds the logged-in session in the cookies. It returns nil if
// there is none any more; then neither cookie is worth anything.
func (s *Session) loadAnchored(ctx context.Context, inline *state, now time.Time) (*state, error) {
	err := s.m.checkAnchor(ctx, inline.identity, now)
	if errors.Is(err, errGone) {
		s.goneReference(ctx, err, inline.id, now)
		s.jar.state = jarJunk
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.touchDue = s.m.touchDue(&inline.rec.Header, record.Time(inline.rec.Header.Seen), now) && !s.background
	return inline, nil
}

// belongs reports whether a logged-in inline state is the session of the
// reference. Once the session has moved to the store, its reference is of
// another generation.
func belongs(inline *state, ref wire.Reference) bool {
	return ref.Generation == 0 && slices.Equal(ref.Identifier, inline.identifier)
}

// checkAnchor returns nil if the session has not ended, errGone if it has, or
// another error if that cannot be known.
func (m *Manager) checkAnchor(ctx context.Context, who identity, now time.Time) error {
	heard, over := m.heardEnd(who.id, now)
	switch {
	case !over.IsZero():
		return &goneError{ended: over}
	case heard:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	_, err := m.fetch(ctx, who, 0)
	return err
}

// feedFresh is how long ago the feed may have been heard last for its silence
// about a session to mean that the session is live.
const feedFresh = time.Second

// heardEnd reports whether the feed is heard, with every end mark there is. If
// the session's is among them, over is when it was heard, or some time before
// what was heard lately.
func (m *Manager) heardEnd(id store.ID, now time.Time) (heard bool, over time.Time) {
	f := &m.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start(m)
	f.used = now
	if _, ok := f.marks[id]; ok { // an end is final, however old the news
		if at, ok := f.heard[id]; ok {
			return true, at
		}
		return true, now.Add(-feedMemory)
	}
	return !f.complete.IsZero() && now.Sub(f.complete) <= feedFresh, time.Time{}
}

// touchAnchor notes activity in the anchor, where that is due. It reports
// whether it did: the cookie must not outlive its anchor.
func (s *Session) touchAnchor(ctx context.Context, now time.Time) (bool, error) {
	m, h := s.m, &s.last.rec.Header
	if _, over := m.heardEnd(s.last.id, now); !over.IsZero() {
		return false, ErrEnded
	}
	if !s.touchDue || s.background {
		return false, nil
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	anchor := &state{identity: s.last.identity, rec: s.last.rec, stored: store.Record{Expires: m.lifetimeEnd(h)}}
	err := m.touch(ctx, anchor, now)
	if errors.Is(err, store.ErrNotFound) {
		return false, ErrEnded
	}
	return err == nil, nil
}

// endAnchored keeps the Logout of an anchored session.
func (s *Session) endAnchored(ctx context.Context) error {
	m := s.m
	until := later(m.now().Add(store.MinEndMark), m.lifetimeEnd(&s.last.rec.Header))
	pause := 20 * time.Millisecond
	for try := 1; ; try++ {
		once, cancel := context.WithTimeout(ctx, 2*m.cfg.Timeout/5)
		err := m.cfg.Store.Delete(once, s.last.id, until)
		cancel()
		if err == nil {
			m.count.saves.Add(1)
			m.watches.end(s.last.id, ErrEnded)
			m.hear([]store.End{{ID: s.last.id, Until: until}})
			return nil
		}
		m.count.storeErrors.Add(1)
		if try == 4 || !sleep(ctx, pause) {
			return unavailable("end a session", err)
		}
		pause *= 4
	}
}

// anchorOf makes the anchor's record for a login that fits into the cookie, and
// the cookie's own state. inline is nil if the session has to be stored.
func (s *Session) anchorOf(rec record.Record, now time.Time) (anchor record.Record, inline *state, value string, err error) {
	m := s.m
	if m.cfg.Placement != CookieFirst {
		return rec, nil, "", nil
	}
	if where, err := m.place(PlacementNone, &rec, now); err != nil || where != PlacementInline {
		return rec, nil, "", err
	}
	inline, value, err = m.sealInline(rec.Clone(), s.identity(), true, false, now)
	if errors.Is(err, ErrTooLarge) {
		return rec, nil, "", nil
	}
	if err != nil {
		return rec, nil, "", err
	}
	anchor = record.Record{Header: rec.Header}
	anchor.Header.InlineUntil = m.lifetimeEnd(&rec.Header).UnixMilli()
	return anchor, inline, value, nil
}

// leaveCookie makes the header of an anchor that of a stored session: from is
// the state that its values come from. The reference changes, so that no late
// state cookie is taken for the session any more.
func (m *Manager) leaveCookie(h *record.Header, from *state, now time.Time) {
	if m.cfg.Placement != CookieFirst || h.User == "" || h.InlineUntil == 0 || h.Generation > 0 {
		return // it is none, or another request was faster
	}
	h.Generation, h.Rotated, h.Presented = 1, now.UnixMilli(), 0
	h.PromotedAt = from.rec.Header.Counter
}

// goneReference notes that a reference leads to a session that is over.
func (s *Session) goneReference(ctx context.Context, err error, id store.ID, now time.Time) {
	m := s.m
	var gone *goneError
	if errors.As(err, &gone) {
		if gone.expired && m.told.expired.first(id) {
			m.tell(ctx, s.event(EventExpired, &state{identity: identity{id: id}}))
		}
		// A session that ended a moment ago may just have been replaced by
		// another tab's login; its cookie must not be overwritten.
		s.jar.justEnded = !gone.ended.IsZero() && now.Sub(gone.ended) < store.MinEndMark
	}
	m.count.staleRefs.Add(1)
	m.log.Debug("reference to a session that is over", slog.String("session", id.String()))
}
