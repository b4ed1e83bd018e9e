package stored

import (
	"context"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// SaveVolatile keeps the draft's changes in a cache, if they are changes of
// Volatile values only, and the store has a cache that keeps them. A nil state
// without an error means that they must be saved durably. It does not load from
// the store, so the session may have ended.
func (s *Sessions) SaveVolatile(ctx context.Context, c Change) (*State, error) {
	keeper, ok := s.Store.(store.VolatileKeeper)
	if !ok {
		return nil, nil
	}
	ctx, cancel := s.Bounded(ctx)
	defer cancel()
	const tries = 4
	st := c.Base
	for attempt := range tries {
		now := s.Now()
		rec, err := c.Draft.Apply(&st.Rec, now)
		if err == nil && (!sameDurable(&st.Rec, &rec, now) || rec.Size() > s.Limits.MaxSize) {
			return nil, nil
		}
		if !st.Rec.Whole() { // checked last, because it opens all values
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		next := *st
		next.Rec, next.Volatile = rec, newSaveID()
		sealed, err := s.sealVolatile(&next)
		if err != nil {
			return nil, err
		}
		err = keeper.SaveVolatile(ctx, st.ID, st.Meta.Base(), st.Volatile,
			store.Volatile{SaveID: next.Volatile, Data: sealed}, st.Meta.Expires)
		if err == nil {
			s.Observer.VolatileSaved()
			return &next, nil
		}
		if !errors.Is(err, store.ErrConflict) || !BackOff(ctx, attempt) {
			return nil, nil
		}
		st = s.WithVolatile(ctx, st)
	}
	return nil, nil
}

// KeepsVolatile reports whether the store has a cache that keeps volatile values.
func (s *Sessions) KeepsVolatile() bool {
	_, ok := s.Store.(store.VolatileKeeper)
	return ok
}

// WithVolatile returns st with the volatile values that a cache holds for it.
func (s *Sessions) WithVolatile(ctx context.Context, st *State) *State {
	keeper, ok := s.Store.(store.VolatileKeeper)
	if !ok || st.Mended { // the values are sealed together with its original end
		return st
	}
	v, err := keeper.LoadVolatile(ctx, st.ID, st.Meta.Base())
	if err != nil {
		return st // lost or unreachable
	}
	values, err := s.open(st.ID, v.Data, wire.BindVolatile(s.bound, &st.Meta))
	if err != nil {
		if !errors.Is(err, seal.ErrUnknownKey) {
			_ = s.damaged(st.ID, err)
		}
		return st
	}
	out := *st
	out.Volatile = v.SaveID
	out.Rec = replaceVolatile(&st.Rec, &values)
	return &out
}

// loadNewest loads a session from the store's origin, with its volatile
// values, in order to change it.
func (s *Sessions) loadNewest(ctx context.Context, who Who) (*State, error) {
	st, err := s.Load(ctx, who, 0)
	if err != nil {
		return nil, err
	}
	return s.WithVolatile(ctx, st), nil
}

// sealVolatile seals all volatile values of st: a missing one counts as
// removed.
func (s *Sessions) sealVolatile(st *State) ([]byte, error) {
	var values record.Record
	for _, f := range st.Rec.Fields() {
		if f.Flags&record.Volatile != 0 {
			values.Put(f)
		}
	}
	return SealRecord(s.Ring(), &values, wire.BindVolatile(s.bound, &st.Meta), s.Limits.MaxSize)
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
// except volatile and expired ones.
func sameDurable(a, b *record.Record, now time.Time) bool {
	return record.Equal(a, b, func(f *record.Field) bool {
		return f.Flags&record.Volatile == 0 && f.Live(now.UnixMilli())
	})
}
