package tiered

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Volatile values have their own key, in the nearest cache that all replicas
// share: not in the copies, which expire after MaxStale, and not in the
// process, where other replicas could not read them. They belong to one state
// of the session, identified by version and save ID, so any later state
// invalidates them without a delete.

// volatile is the entry under volatileKey: kindVolatile, then the version (8
// bytes) and save ID (8) of its state, its own save ID (8), and the sealed
// values.
type volatile struct {
	base store.Base
	store.Volatile
}

const volatileHeader = 1 + 3*8

// volatileKey is the cache key of a session's volatile values.
func volatileKey(id store.ID) store.ID {
	sum := sha256.Sum256(append([]byte("sojourn volatile "), id[:]...))
	return store.ID(sum[:len(store.ID{})])
}

func (v *volatile) encode() []byte {
	b := make([]byte, 0, volatileHeader+len(v.Data))
	b = append(b, kindVolatile)
	b = binary.BigEndian.AppendUint64(b, v.base.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(v.base.SaveID))
	b = binary.BigEndian.AppendUint64(b, uint64(v.SaveID))
	return append(b, v.Data...)
}

// decodeVolatile decodes the result of encode. Other data counts as the values
// of a state that no session has.
func decodeVolatile(b []byte) (v volatile) {
	if len(b) < volatileHeader || b[0] != kindVolatile {
		return v
	}
	v.base.Version = binary.BigEndian.Uint64(b[1:])
	v.base.SaveID = store.SaveID(binary.BigEndian.Uint64(b[9:]))
	v.SaveID = store.SaveID(binary.BigEndian.Uint64(b[17:]))
	v.Data = b[volatileHeader:]
	return v
}

// shared returns the layer for volatile values; nil = none.
func (s *Store) shared() *layer {
	for _, l := range s.layers {
		if !l.inProcess {
			return l
		}
	}
	return nil
}

func (l *layer) getVolatile(ctx context.Context, key store.ID) (v volatile, token uint64, err error) {
	if l.missed.has(key) && !l.delete(ctx, key) {
		return volatile{}, 0, errPassedOver
	}
	b, token, err := l.read(ctx, key)
	if err != nil {
		return volatile{}, 0, err
	}
	return decodeVolatile(b), token, nil
}

// LoadVolatile implements [store.VolatileKeeper]. Without a cache that replicas
// share it returns [errors.ErrUnsupported].
func (s *Store) LoadVolatile(ctx context.Context, id store.ID, base store.Base) (store.Volatile, error) {
	l := s.shared()
	if l == nil {
		return store.Volatile{}, errors.ErrUnsupported
	}
	v, _, err := l.getVolatile(ctx, volatileKey(id))
	if err != nil {
		return store.Volatile{}, err
	}
	if v.base != base {
		return store.Volatile{}, store.ErrNotFound
	}
	return v.Volatile, nil
}

// SaveVolatile implements [store.VolatileKeeper]. It requires a copy of that
// state in the cache: a missing copy may mean that the session has ended.
func (s *Store) SaveVolatile(ctx context.Context, id store.ID, base store.Base, prev store.SaveID, next store.Volatile, until time.Time) error {
	l := s.shared()
	if l == nil {
		return errors.ErrUnsupported
	}
	e, _, err := l.get(ctx, id)
	switch {
	case err != nil:
		return err
	case e.lease || e.rec.Base() != base:
		return store.ErrNotFound
	}
	key := volatileKey(id)
	ttl := max(until.Sub(s.now()), time.Second)
	value := (&volatile{base, next}).encode()
	have, token, err := l.getVolatile(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return l.call(ctx, func(ctx context.Context) error {
			_, err := l.Cache.Add(ctx, key, value, ttl)
			return err
		})
	case err != nil:
		return err
	case have.base == base && have.SaveID == next.SaveID:
		return nil // sent again
	case have.base == base && have.SaveID != prev:
		return store.ErrConflict
	case have.base.Version > base.Version:
		return store.ErrNotFound
	}
	return l.call(ctx, func(ctx context.Context) error {
		return l.Cache.Swap(ctx, key, token, value, ttl)
	})
}
