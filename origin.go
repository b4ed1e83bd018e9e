package sojourn

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// A legacy session that a WriteBack writes is a second credential of a session.
// It says among its values which one, so wherever the old application takes
// them, no end of the session has to find it: whoever adopts it looks at the
// session that it is a copy of.

// originName is the name of that value in the legacy session.
const originName = "_sojourn"

// origin is the session that a legacy one is a copy of.
type origin struct {
	_       struct{} `cbor:",toarray"`
	Session [len(store.ID{})]byte
	Created int64 // ms: the start of its lifetime
	Expires int64 // ms: its absolute end
	Idle    int64 // ms: its idle timeout; 0 = none
}

// originOf describes a session that was just kept.
func (m *Manager) originOf(st *stored.State) origin {
	h := &st.Rec.Header
	return origin{
		Session: st.ID,
		Created: h.Created,
		Expires: m.limits.LifetimeEnd(h).UnixMilli(),
		Idle:    m.limits.IdleTimeout(h).Milliseconds(),
	}
}

// text returns the origin as a value that every format can keep.
func (o *origin) text() (string, error) {
	b, err := values.Encode(o)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// takeOrigin returns the origin that a legacy session names, and removes it from
// the values. It returns nil for a session of the old application's own, and an
// error if the value is not one that text wrote.
func takeOrigin(old *LegacySession) (*origin, error) {
	v, ok := old.Values[originName]
	if !ok {
		return nil, nil
	}
	old.Values = maps.Clone(old.Values) // they may be the format's own
	delete(old.Values, originName)
	text, ok := v.(string)
	if raw, is := v.([]byte); is { // some formats have no text
		text, ok = string(raw), true
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	var o origin
	if !ok || err != nil || values.Decode(b, &o) != nil {
		return nil, refusedUnmapped
	}
	return &o, nil
}

// checkOrigin returns why a legacy session must not be adopted that was copied
// from o: that session lives, so its own cookie is the credential; somebody or
// its lifetime ended it; or neither application was used for the idle timeout.
func (m *Manager) checkOrigin(ctx context.Context, o *origin, old *LegacySession, now time.Time) error {
	if now.After(record.Time(o.Expires)) {
		return refusedExpired
	}
	st, err := m.stored.Ask(ctx, store.ID(o.Session), 0)
	switch {
	case errors.Is(err, store.ErrNotFound): // expired long ago, or never stored
	case errors.Is(err, stored.ErrDamaged): // it may have ended
		return refusedEnded
	case st == nil:
		return err
	case st.Meta.IsEnd() && stored.EndOf(&st.Meta).ToldOf(now):
		return errLegacyReplaced
	case st.Meta.IsEnd():
		return refusedEnded
	case !st.Meta.Expired(now):
		return errLegacyOutdated
	}
	if o.Idle > 0 && now.Sub(lastUsed(old)) > time.Duration(o.Idle)*time.Millisecond {
		return refusedSpent
	}
	return nil
}

// lastUsed is when a legacy session was surely used in the old application.
func lastUsed(old *LegacySession) time.Time {
	if old.Idle > 0 && !old.Expires.IsZero() {
		return old.Expires.Add(-old.Idle)
	}
	return old.Issued
}
