package sojourn

import (
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// sealInline makes the state cookie for a session in the cookie, from a record
// of which it takes possession. changed says that it is more than a refresh,
// and background that the request does not count as activity. mark is
// what the cookie says beside the session.
func (m *Manager) sealInline(r record.Record, who stored.Who, mark wire.Mark, changed, background bool, now time.Time) (st *stored.State, value string, err error) {
	h := &r.Header
	h.Identifier = who.Identifier
	if !background || h.Seen == 0 {
		h.Seen = now.UnixMilli()
	}
	if h.Created == 0 {
		h.Created = now.UnixMilli()
	}
	h.Expires = m.limits.LifetimeEnd(h).UnixMilli()
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
		return nil, "", fault.Size(n, m.cfg.MaxSize)
	}
	size := m.inlineSize(sealedLen(len(plain) - marked))
	if size > m.cfg.InlineLimit {
		return nil, "", fault.Size(size, m.cfg.InlineLimit)
	}
	value, err = m.sealCookie(seal.State, plain)
	if err != nil {
		return nil, "", err
	}
	return &stored.State{Where: rules.Inline, Who: who, Rec: r, Size: size}, value, nil
}
