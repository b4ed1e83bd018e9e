package sojourn

import (
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// place decides where a session with this content lives, given where it lived
// before. It never moves a session out of the store: that would not be atomic
// with the browser, and a lost response would lose the session.
func (m *Manager) place(before Placement, r *record.Record, now time.Time) (Placement, error) {
	if before == PlacementStored {
		return PlacementStored, nil
	}
	live, serverSide := false, false
	for i := range r.Fields() {
		f := &r.Fields()[i]
		if f.Live(now.UnixMilli()) {
			live = true
			serverSide = serverSide || f.Flags&record.ServerSide != 0
		}
	}
	user := r.Header.User != ""
	switch {
	case !live && !user:
		return PlacementNone, nil
	case m.cfg.Placement == StoredOnly:
		return PlacementStored, nil
	case m.cfg.Placement == CookieOnly && serverSide:
		return PlacementNone, fmt.Errorf("%w: a ServerSide key has a value", ErrNoStore)
	case m.cfg.Placement == CookieOnly:
		return PlacementInline, nil
	case serverSide, user:
		return PlacementStored, nil
	default:
		return PlacementInline, nil
	}
}

// lifetimeEnd is a session's absolute end.
func (m *Manager) lifetimeEnd(h *record.Header) time.Time {
	life := m.cfg.Lifetime
	switch {
	case h.Lifetime < 0:
		life = maxAge
	case h.Lifetime > 0:
		life = time.Duration(h.Lifetime) * time.Millisecond
	}
	return record.Time(h.Created).Add(life)
}

// idleTimeout is a session's idle timeout; 0 = none.
func (m *Manager) idleTimeout(h *record.Header) time.Duration {
	switch {
	case h.Idle > 0:
		return time.Duration(h.Idle) * time.Millisecond
	case h.Idle < 0 || m.cfg.IdleTimeout < 0:
		return 0
	default:
		return m.cfg.IdleTimeout
	}
}

// idleDeadline is when a session last seen at that time is over, at most
// expires.
func (m *Manager) idleDeadline(h *record.Header, seen, expires time.Time) time.Time {
	idle := m.idleTimeout(h)
	if idle == 0 {
		return expires
	}
	if d := seen.Add(idle); d.Before(expires) {
		return d
	}
	return expires
}

// touchDue reports whether activity at now is worth noting.
func (m *Manager) touchDue(h *record.Header, seen, now time.Time) bool {
	idle := m.idleTimeout(h)
	return idle > 0 && now.Sub(seen) >= min(idle/20, time.Hour)
}

// persistent reports whether the browser is asked to keep the cookies.
func (m *Manager) persistent(h *record.Header) bool {
	switch h.Persist {
	case record.PersistAlways:
		return true
	case record.PersistBrowser:
		return false
	default:
		return !m.cfg.Cookie.BrowserSession
	}
}

// sealInline makes the state cookie for a session in the cookie, from a record
// of which it takes possession. changed says that it is more than a refresh,
// and background that the request does not count as activity. mark is
// what the cookie says beside the session.
func (m *Manager) sealInline(r record.Record, who identity, mark wire.Mark, changed, background bool, now time.Time) (st *state, value string, err error) {
	h := &r.Header
	h.Identifier = who.identifier
	if !background || h.Seen == 0 {
		h.Seen = now.UnixMilli()
	}
	if h.Created == 0 {
		h.Created = now.UnixMilli()
	}
	h.Expires = m.lifetimeEnd(h).UnixMilli()
	// Whatever belongs to a stored session only.
	h.Generation, h.Presented, h.Rotated, h.OlderUntil, h.Suspected = 0, 0, 0, 0, 0
	h.PromotedAt, h.Promoted, h.InlineUntil = 0, 0, 0
	h.UserAgent, h.IP = "", ""
	if changed || h.Counter == 0 {
		h.Counter++
		for i := range r.Fields() {
			if f := &r.Fields()[i]; f.Stamp == 0 {
				f.Stamp = h.Counter
			}
		}
	}
	plain := mark.Append(make([]byte, 0, r.Size()+len(mark)+2))
	marked := len(plain) // is not counted: it goes away by itself
	plain = r.Append(append(plain, wire.StateInline))
	if n := len(plain) - marked - 1; n > m.cfg.MaxSize {
		return nil, "", tooLarge(n, m.cfg.MaxSize)
	}
	size := m.inlineSize(sealedLen(len(plain) - marked))
	if size > m.cfg.InlineLimit {
		return nil, "", tooLarge(size, m.cfg.InlineLimit)
	}
	value, err = m.sealCookie(seal.State, plain)
	if err != nil {
		return nil, "", err
	}
	return &state{placement: PlacementInline, identity: who, rec: r, size: size}, value, nil
}

// inlineUntil is until when a cookie that holds the session may turn up: a
// request under way may still refresh it once.
func (m *Manager) inlineUntil(st *state, now time.Time) time.Time {
	const underWay = time.Minute
	h := &st.rec.Header
	return m.idleDeadline(h, now.Add(underWay), m.lifetimeEnd(h))
}

// mergeInline adds to a stored session what an inline state of the same session
// knows and the stored one does not: parallel requests grew out of one cookie.
// The later change of each value wins, a change in the store always.
func mergeInline(stored record.Record, inline *record.Record) record.Record {
	out := stored.Clone()
	for _, f := range inline.Fields() {
		have, ok := out.Find(f.Name)
		switch {
		case ok && (have.Stamp == 0 || have.Stamp >= f.Stamp):
		case !ok && f.Stamp <= out.Header.PromotedAt: // removed since
		default:
			out.Put(f)
		}
	}
	return out.Done()
}

// sealRecord makes the store's record for a session, as the successor of prev
// (zero: the first), last used at seen. It takes possession of r.
func (m *Manager) sealRecord(r record.Record, who identity, prev *state, minimum uint64, now, seen time.Time) (*state, error) {
	h := &r.Header
	h.Identifier, h.Counter, h.Seen, h.Expires = nil, 0, 0, 0
	if h.Created == 0 {
		h.Created = now.UnixMilli()
	}
	rec := store.Record{
		ID:      who.id,
		Version: 1,
		SaveIDs: []store.SaveID{newSaveID()},
		Created: record.Time(h.Created),
		Seen:    seen,
		Expires: m.lifetimeEnd(h),
	}
	if prev != nil {
		p := &prev.stored
		rec.Version = max(p.Version, minimum) + 1
		rec.SaveIDs = append(rec.SaveIDs, p.SaveIDs[:min(len(p.SaveIDs), store.RecentSaveIDs-1)]...)
		ph := &prev.rec.Header
		rec.Shorten = h.Idle != ph.Idle || h.Lifetime != ph.Lifetime || prev.mended
		if !rec.Shorten && p.Seen.After(rec.Seen) {
			rec.Seen = p.Seen // another replica's clock is ahead
		}
	}
	rec.Deadline = m.idleDeadline(h, rec.Seen, rec.Expires)
	ring := m.cfg.Keys.current()
	if h.User != "" {
		rec.User = ring.UserHash(m.cfg.Name, h.User)
	}
	plain := r.Append(make([]byte, 0, r.Size()))
	if len(plain) > m.cfg.MaxSize {
		return nil, tooLarge(len(plain), m.cfg.MaxSize)
	}
	var err error
	rec.Data, err = ring.Seal(make([]byte, 0, len(plain)+seal.Overhead), seal.Record, plain, wire.BindRecord(m.aad, &rec))
	if err != nil {
		return nil, err
	}
	return &state{placement: PlacementStored, identity: who, rec: r, stored: rec, size: len(rec.Data)}, nil
}

// openRecord returns the content of a record that sealRecord made.
func (m *Manager) openRecord(rec store.Record) (record.Record, error) {
	plain, _, err := m.cfg.Keys.current().Open(nil, seal.Record, rec.Data, wire.BindRecord(m.aad, &rec))
	if err != nil {
		return record.Record{}, err
	}
	return record.Parse(plain)
}

func tooLarge(n, limit int) error {
	return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, limit)
}
