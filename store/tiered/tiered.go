// Package tiered puts caches in front of a store.
//
//	db := …                                   // the truth: any store.Store
//	s, err := tiered.New(db,
//		tiered.Layer{Cache: tiered.NewMemory(64 << 20), MaxStale: time.Second},
//		tiered.Layer{Cache: shared, MaxStale: 30 * time.Second}, // memcached, Redis …
//	)
//
// The store decides, the caches only save it work: any cache may die, hang,
// forget or come back empty at any time. What keeps that safe is one rule for
// each party:
//
//   - A reader fills a cache only by compare-and-swap, on an entry that was
//     there before it asked the store: an older copy, or a lease that it put
//     there itself. So what it fills in is never older than a write or an end
//     that the cache was told of.
//   - A writer, after the store has accepted its save, replaces an older copy by
//     compare-and-swap, and deletes a lease. It never adds.
//   - Whoever ends a session deletes the entry, after the store.
//   - Every copy lives for at most its layer's MaxStale, by the cache's own
//     clock. That bounds what a cache answers that could not be told.
//
// A request carries the version that its browser has seen; a copy below it is
// not used. A request without one asks the store.
package tiered

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Layer is one cache and how it is used.
type Layer struct {
	Cache store.Cache
	// MaxStale bounds the age of a copy that could not be told of a change; it
	// is the time to live of every entry. 0 = 1 s for a [Memory] cache, 30 s for
	// any other. A copy that was itself taken from a farther layer can be as old
	// as both bounds together.
	MaxStale time.Duration
	// Timeout bounds each call. 0 = 100 ms.
	Timeout time.Duration
	// Name is for Health and errors. "" = the cache's type.
	Name string
}

// Store is a store with caches in front. It implements every optional interface
// of package store; those that its origin lacks answer [errors.ErrUnsupported].
type Store struct {
	origin store.Store
	layers []*layer
	loads  flights

	hits, misses atomic.Uint64
}

var (
	_ store.FloorLoader = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
	_ store.Counter     = (*Store)(nil)
)

// New returns origin with the layers in front of it, nearest first. The caller
// goes on owning all of them. It reports an error for a nil origin or cache and
// for negative durations.
func New(origin store.Store, layers ...Layer) (*Store, error) {
	if origin == nil {
		return nil, errors.New("tiered: the origin store is nil")
	}
	s := &Store{origin: origin}
	for i, l := range layers {
		if l.Cache == nil {
			return nil, fmt.Errorf("tiered: layer %d has no cache", i)
		}
		if l.MaxStale < 0 || l.Timeout < 0 {
			return nil, fmt.Errorf("tiered: layer %d: negative duration", i)
		}
		_, inProcess := l.Cache.(*Memory)
		if l.MaxStale == 0 {
			l.MaxStale = 30 * time.Second
			if inProcess {
				l.MaxStale = time.Second
			}
		}
		if l.Timeout == 0 {
			l.Timeout = 100 * time.Millisecond
		}
		if l.Name == "" {
			l.Name = fmt.Sprintf("%T", l.Cache)
		}
		s.layers = append(s.layers, &layer{Layer: l, inProcess: inProcess})
	}
	return s, nil
}

// CacheStats returns how many loads a cache answered, and how many had to go
// to the origin.
func (s *Store) CacheStats() (hits, misses uint64) { return s.hits.Load(), s.misses.Load() }

// Load asks the origin.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	return s.LoadFrom(ctx, id, 0)
}

// LoadFrom answers from the nearest cache that has a copy of at least version
// floor, or else from the origin. With floor 0 it asks the origin. When the
// origin fails, a copy that is not below the floor answers in its place.
func (s *Store) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	var found []lookup
	if floor > 0 {
		var rec store.Record
		var ok bool
		if rec, found, ok = s.fromCaches(ctx, id, floor); ok {
			s.hits.Add(1)
			return rec, nil
		}
	}
	s.misses.Add(1)
	rec, err := s.loads.do(ctx, id, func(ctx context.Context, sent func()) (store.Record, error) {
		return s.fromOrigin(ctx, id, found, sent)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		// A copy is within MaxStale by its very existence.
		if rec, _, ok := s.fromCaches(ctx, id, max(floor, 1)); ok {
			return rec, nil
		}
	}
	return rec, err
}

// lookup is what a reader found in one layer, and may fill in its place.
type lookup struct {
	layer *layer
	token uint64
	// fill: token names an entry that a fresh copy may replace.
	fill bool
}

// fromCaches returns a usable copy. If there is none it returns what it found
// in each layer. A copy from a farther layer is put into the nearer ones.
func (s *Store) fromCaches(ctx context.Context, id store.ID, floor uint64) (store.Record, []lookup, bool) {
	found := make([]lookup, 0, len(s.layers))
	for _, l := range s.layers {
		e, token, err := l.get(ctx, id)
		switch {
		case err != nil:
			// Absent, or out of reach: there is nothing to replace yet. In the
			// process a lease costs nothing, so a farther copy can fill it too.
			f := lookup{layer: l}
			if l.inProcess {
				f.token, f.fill = l.lease(ctx, id)
			}
			found = append(found, f)
		case e.lease:
			// Another reader's: it will fill this layer.
			found = append(found, lookup{})
		case e.rec.Version >= floor && !e.rec.Expired(time.Now()):
			s.fill(ctx, id, found, e.rec)
			return e.rec, nil, true
		default:
			found = append(found, lookup{layer: l, token: token, fill: true})
		}
	}
	return store.Record{}, found, false
}

// fromOrigin puts leases where no copy was found, asks the origin, and fills
// the layers. It calls sent right before it asks.
func (s *Store) fromOrigin(ctx context.Context, id store.ID, found []lookup, sent func()) (store.Record, error) {
	if found == nil {
		_, found, _ = s.fromCaches(ctx, id, noCopy)
	}
	for i := range found {
		if f := &found[i]; f.layer != nil && !f.fill {
			f.token, f.fill = f.layer.lease(ctx, id)
		}
	}
	sent()
	rec, err := s.origin.Load(ctx, id)
	if err == nil && !rec.IsEnd() {
		s.fill(ctx, id, found, rec)
	}
	return rec, err
}

// noCopy is a floor that no copy reaches.
const noCopy = ^uint64(0)

// fill replaces what was found, where it is still there, by a copy of rec.
func (s *Store) fill(ctx context.Context, id store.ID, found []lookup, rec store.Record) {
	for _, f := range found {
		if f.fill {
			_ = f.layer.swap(ctx, id, f.token, rec) // counted; the layer just stays without a copy
		}
	}
}

// Save saves in the origin and then tells the caches.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	err := s.origin.Save(ctx, rec, base)
	switch {
	case err == nil && !rec.IsEnd():
		for _, l := range s.layers {
			l.renew(ctx, rec)
		}
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrTooLarge):
	default:
		// It has ended, or nobody knows what the origin holds now.
		s.drop(ctx, rec.ID)
	}
	return err
}

// Delete ends the session in the origin and then deletes the copies.
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	err := s.origin.Delete(ctx, id, until)
	s.drop(ctx, id)
	return err
}

// drop deletes the copies. The caches are told even if the request is over:
// they would answer wrongly until MaxStale.
func (s *Store) drop(ctx context.Context, id store.ID) {
	ctx = context.WithoutCancel(ctx)
	for _, l := range s.layers {
		l.delete(ctx, id)
	}
}

// Touch touches the session in the origin, and in the copies.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	t, ok := s.origin.(store.Toucher)
	if !ok {
		return errors.ErrUnsupported
	}
	if err := t.Touch(ctx, id, seen, deadline); err != nil {
		return err
	}
	for _, l := range s.layers {
		l.touch(ctx, id, seen, deadline)
	}
	return nil
}

// Sweep sweeps the origin; copies expire by themselves.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if o, ok := s.origin.(store.Sweeper); ok {
		return o.Sweep(ctx, age, limit)
	}
	return 0, errors.ErrUnsupported
}

// ByUser asks the origin.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if o, ok := s.origin.(store.UserIndex); ok {
		return o.ByUser(ctx, user)
	}
	return nil, errors.ErrUnsupported
}

// Scan walks the origin.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if o, ok := s.origin.(store.Scanner); ok {
		return o.Scan(ctx, cursor, limit)
	}
	return nil, "", errors.ErrUnsupported
}

// Count counts in the origin.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	if o, ok := s.origin.(store.Counter); ok {
		return o.Count(ctx)
	}
	return store.Counts{}, errors.ErrUnsupported
}

// Health describes one layer.
type Health struct {
	Name     string        `json:"name"`
	MaxStale time.Duration `json:"max_stale"`
	// Reachable is false while the layer is passed over because its last call
	// failed.
	Reachable bool   `json:"reachable"`
	Errors    uint64 `json:"errors"` // calls that failed since New
}

// Health describes the layers, nearest first.
func (s *Store) Health() []Health {
	out := make([]Health, len(s.layers))
	for i, l := range s.layers {
		out[i] = Health{Name: l.Name, MaxStale: l.MaxStale, Reachable: !l.breaker.isOpen(time.Now()), Errors: l.failures.Load()}
	}
	return out
}

func newNonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
