package sojourn

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// commitVolatile keeps the pending changes in a cache, if they are changes of
// Volatile values only, and the store has a cache that keeps them. It reports
// whether they are settled one way or the other; if not, they are to be written
// durably.
func (s *Session) commitVolatile(ctx context.Context) (settled bool, err error) {
	m := s.m
	keeper, ok := m.cfg.Store.(store.VolatileKeeper)
	if !ok || s.last.placement != PlacementStored || s.last.mended || s.jar.lost != 0 || s.presentDue || s.activityDue(m.now()) ||
		s.changes.header != (headerChange{}) {
		return false, nil
	}
	cookies := s.phase == phaseOpen || s.phase == phaseLoose && s.jar.out != nil
	st := s.last
	if told := (wire.Floor{ID: st.id, Version: st.stored.Version, Volatile: true}); !cookies && s.jar.floor != told {
		return false, nil // the next request would not look for them
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	const tries = 4
	for attempt := range tries {
		now := m.now()
		rec, err := s.applyTo(st, now)
		if err != nil {
			return true, err
		}
		if !sameDurable(&st.rec, &rec, now) || rec.Size() > m.cfg.MaxSize {
			return false, nil
		}
		next := *st
		next.rec, next.volatile = rec, newSaveID()
		sealed, err := m.sealVolatile(&next)
		if err != nil {
			return true, err
		}
		err = keeper.SaveVolatile(ctx, st.id, st.stored.Base(), st.volatile,
			store.Volatile{SaveID: next.volatile, Data: sealed}, st.stored.Expires)
		if err == nil {
			m.count.volatile.Add(1)
			s.keepStored(&next, false)
			// The store was not asked: the session may have ended.
			s.unproven = s.setsReference()
			return true, nil
		}
		if !errors.Is(err, store.ErrConflict) || !backOff(ctx, attempt) {
			return false, nil
		}
		st = m.withVolatile(ctx, st)
	}
	return false, nil
}

// withVolatile returns st with the volatile values that a cache holds for it.
func (m *Manager) withVolatile(ctx context.Context, st *state) *state {
	keeper, ok := m.cfg.Store.(store.VolatileKeeper)
	if !ok || st.mended { // the values are sealed together with the end that it had
		return st
	}
	v, err := keeper.LoadVolatile(ctx, st.id, st.stored.Base())
	if err != nil {
		return st // lost, or out of reach
	}
	plain, _, err := m.cfg.Keys.current().Open(nil, seal.Record, v.Data, wire.BindVolatile(m.aad, &st.stored))
	var values record.Record
	if err == nil {
		values, err = record.Parse(plain)
	}
	if err != nil {
		if !errors.Is(err, seal.ErrUnknownKey) {
			_ = m.damaged(st.id, err)
		}
		return st
	}
	out := *st
	out.volatile = v.SaveID
	out.rec = replaceVolatile(&st.rec, &values)
	return &out
}

// fetchNewest loads a session from the store's origin, with its volatile
// values, in order to change it.
func (m *Manager) fetchNewest(ctx context.Context, who identity) (*state, error) {
	st, err := m.fetch(ctx, who, 0)
	if err != nil {
		return nil, err
	}
	return m.withVolatile(ctx, st), nil
}

// sealVolatile seals the volatile values of st, all of them: one that is
// lacking has been removed.
func (m *Manager) sealVolatile(st *state) ([]byte, error) {
	var values record.Record
	for _, f := range st.rec.Fields() {
		if f.Flags&record.Volatile != 0 {
			values.Put(f)
		}
	}
	plain := values.Append(make([]byte, 0, values.Size()))
	return m.cfg.Keys.current().Seal(make([]byte, 0, len(plain)+seal.Overhead), seal.Record, plain, wire.BindVolatile(m.aad, &st.stored))
}

// replaceVolatile returns rec with these volatile values instead of its own.
func replaceVolatile(rec, values *record.Record) record.Record {
	out := record.Record{Header: rec.Header}
	for _, f := range rec.Fields() {
		if f.Flags&record.Volatile == 0 {
			out.Put(f)
		}
	}
	for _, f := range values.Fields() {
		out.Put(f)
	}
	return out.Done()
}

// sameDurable reports whether two states of a session have the same values,
// apart from volatile ones and from those that are over.
func sameDurable(a, b *record.Record, now time.Time) bool {
	return slices.EqualFunc(durable(a, now), durable(b, now), func(f, g record.Field) bool {
		return f.Name == g.Name && f.Flags == g.Flags && f.Expiry == g.Expiry && bytes.Equal(f.Value, g.Value)
	})
}

func durable(r *record.Record, now time.Time) []record.Field {
	out := make([]record.Field, 0, r.Len())
	for _, f := range r.Fields() {
		if f.Flags&record.Volatile == 0 && f.Live(now.UnixMilli()) {
			out = append(out, f)
		}
	}
	return out
}

// floor is what the browser is told of a stored session.
func (st *state) floor() wire.Floor {
	return wire.Floor{ID: st.id, Version: st.stored.Version, Volatile: st.volatile != 0}
}
