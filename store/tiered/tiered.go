// Package tiered puts caches in front of a store.
//
//	db := …                                   // the origin: any store.Store
//	s, err := tiered.New(db,
//		tiered.Layer{Cache: tiered.NewMemory(64 << 20), MaxStale: time.Second},
//		tiered.Layer{Cache: shared, MaxStale: 30 * time.Second}, // memcached, Redis …
//	)
//
// The store is authoritative, and the caches only reduce its load. Any cache
// may fail, hang, lose entries or come back empty at any time. These rules keep
// that safe:
//
//   - A reader fills a cache only by compare-and-swap, on an entry that was
//     there before it loaded from the store: an older copy, or its own lease.
//     So it never fills in a state older than a change of which the cache was
//     notified.
//   - A writer, after the store has accepted its save, replaces an older copy by
//     compare-and-swap, and deletes a lease. It never adds.
//   - A process that ends or touches a session deletes the entry, after the store.
//   - Every copy lives for at most its layer's MaxStale, by the cache's own
//     clock. That bounds the age of a copy that missed a change.
//   - A copy in the process is used only until the layer's Unheard has passed
//     since its load, or since the last poll of the feed of ends, in which other
//     processes report ends. The feed is polled while copies are in use.
//   - A process that failed to update a cache does not use that entry from it
//     until it has deleted it.
//
// A request carries the version that its browser has seen. Older copies are not
// used. A request without a version loads from the store.
//
// # Outages
//
// A cache that fails costs one call its Timeout. Then it is skipped, first for
// MinRest and later up to MaxRest, and one call at a time tests whether it is
// back. Meanwhile farther caches and the store answer. The failure and the
// return are logged once each; [Store.Health] has the current state.
//
// When the store fails, writes fail, and reads succeed while caches have copies
// of at least the request's version: for at most MaxStale, or Unheard in a
// cache in the process, because the feed of ends also fails. See
// Layer.RefuseInOutage. This package does not repeat calls to the store.
package tiered

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Layer is one cache and how it is used.
type Layer struct {
	Cache store.Cache
	// MaxStale bounds the age of a copy that missed a change. It is the time to
	// live of every entry. 0 = 30 s. A copy that was taken from a farther layer
	// can be as old as the sum of both bounds.
	MaxStale time.Duration
	// Unheard bounds how long a [Memory] cache may still return a session that
	// another process has ended. While the origin's feed of ends is being read,
	// copies live for MaxStale and are deleted when their session ends. If that
	// fails, or the origin has no feed, they live for Unheard. 0 = 1 s, or
	// MaxStale if that is less. Loads start a poll of the feed in the
	// background, at most every 400 ms, so less than a second leaves no time
	// for a poll. With an Unheard of MaxStale or more, the feed is not read.
	// Shared caches do not need the feed: a process that ends a session deletes
	// the entry.
	Unheard time.Duration
	// Timeout bounds each call. 0 = 100 ms. A client without support for
	// contexts, such as memcached's, has its own timeout.
	Timeout time.Duration
	// MinRest and MaxRest bound how long the cache is skipped after a failure:
	// first MinRest, then twice as long after each further failure. 0 = 250 ms
	// and 5 s.
	MinRest, MaxRest time.Duration
	// RefuseInOutage disables the use of copies during an outage of the store:
	// from its first failure until it answers again, every load calls the store
	// and fails with it. Otherwise copies are used until MaxStale, or Unheard
	// if the feed of ends has failed.
	RefuseInOutage bool
	// Name is for logs and Health. "" = the cache's type.
	Name string
	// Logger gets a line when the cache fails and one when it is back. nil =
	// slog.Default().
	Logger *slog.Logger
}

// Store is a store with caches in front. It implements every optional interface
// of package store; those that its origin does not have answer [errors.ErrUnsupported].
type Store struct {
	origin store.Store
	layers []*layer
	loads  flights
	now    func() time.Time // the replica's clock
	ends   *hearing         // nil = not needed, or the origin has no feed

	hits, misses atomic.Uint64
	failing      atomic.Bool // the origin's last answer was a failure
}

var (
	_ store.FloorLoader    = (*Store)(nil)
	_ store.VolatileKeeper = (*Store)(nil)
	_ store.Toucher        = (*Store)(nil)
	_ store.Sweeper        = (*Store)(nil)
	_ store.UserIndex      = (*Store)(nil)
	_ store.UserLimiter    = (*Store)(nil)
	_ store.EndFeed        = (*Store)(nil)
	_ store.Scanner        = (*Store)(nil)
	_ store.Counter        = (*Store)(nil)
)

// New returns origin with the layers in front of it, nearest first. The caller
// still closes all of them. It returns an error for a nil origin or cache, for
// negative durations, and for a MinRest above MaxRest.
func New(origin store.Store, layers ...Layer) (*Store, error) {
	if origin == nil {
		return nil, errors.New("tiered: the origin store is nil")
	}
	s := &Store{origin: origin, now: time.Now}
	for i, l := range layers {
		if l.Cache == nil {
			return nil, fmt.Errorf("tiered: layer %d has no cache", i)
		}
		if l.MaxStale < 0 || l.Unheard < 0 || l.Timeout < 0 || l.MinRest < 0 || l.MaxRest < 0 {
			return nil, fmt.Errorf("tiered: layer %d: negative duration", i)
		}
		_, inProcess := l.Cache.(*Memory)
		if l.MaxStale == 0 {
			l.MaxStale = 30 * time.Second
		}
		if l.Unheard == 0 {
			l.Unheard = min(time.Second, l.MaxStale)
		}
		if l.Timeout == 0 {
			l.Timeout = 100 * time.Millisecond
		}
		if l.MinRest == 0 {
			l.MinRest = 250 * time.Millisecond
		}
		if l.MaxRest == 0 {
			l.MaxRest = max(5*time.Second, l.MinRest)
		}
		if l.MinRest > l.MaxRest {
			return nil, fmt.Errorf("tiered: layer %d: MinRest %v is above MaxRest %v", i, l.MinRest, l.MaxRest)
		}
		if l.Name == "" {
			l.Name = fmt.Sprintf("%T", l.Cache)
		}
		if l.Logger == nil {
			l.Logger = slog.Default()
		}
		s.layers = append(s.layers, &layer{
			Layer: l, inProcess: inProcess,
			breaker: breaker{shortest: l.MinRest, longest: l.MaxRest},
		})
	}
	s.hearEnds()
	return s, nil
}

// hearEnds makes the store poll the feed of ends, if that lets copies in the
// process live longer.
func (s *Store) hearEnds() {
	feed, ok := s.origin.(store.EndFeed)
	needed := slices.ContainsFunc(s.layers, func(l *layer) bool { return l.inProcess && l.Unheard < l.MaxStale })
	if !ok || !needed {
		return
	}
	s.ends = newHearing(feed, s.oldest(0), func(ctx context.Context, id store.ID) {
		for _, l := range slices.Backward(s.layers) { // see drop
			if l.inProcess {
				l.delete(ctx, id)
			}
		}
	})
}

// CacheStats returns how many loads a cache answered, and how many went to the
// origin.
func (s *Store) CacheStats() (hits, misses uint64) { return s.hits.Load(), s.misses.Load() }

// Load loads from the origin.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	return s.LoadFrom(ctx, id, 0)
}

// LoadFrom answers from the nearest cache that has a copy of at least version
// floor, or else from the origin. With floor 0 it loads from the origin, and
// fails if that fails.
func (s *Store) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	var found []lookup
	if floor > 0 {
		if s.ends != nil {
			s.ends.listen()
		}
		var rec store.Record
		var ok bool
		if rec, found, ok = s.fromCaches(ctx, id, floor); ok {
			s.hits.Add(1)
			return rec, nil
		}
	}
	s.misses.Add(1)
	return s.loads.do(ctx, id, func(ctx context.Context, sent func()) (store.Record, error) {
		return s.fromOrigin(ctx, id, found, sent)
	})
}

// answered records whether the origin answers.
func (s *Store) answered(ctx context.Context, err error) {
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict),
		errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrLimit), errors.Is(err, store.ErrDamaged):
		s.failing.Store(false)
	case !errors.Is(ctx.Err(), context.Canceled): // else the caller gave up
		s.failing.Store(true)
	}
}

// lookup is what a reader found in one layer, and whether it may replace it.
type lookup struct {
	layer *layer
	token uint64
	// fill: token names an entry that a fresh copy may replace.
	fill bool
}

// fromCaches returns a usable copy. If there is none, it returns what it found
// in each layer. It puts a copy from a farther layer into the nearer ones.
func (s *Store) fromCaches(ctx context.Context, id store.ID, floor uint64) (store.Record, []lookup, bool) {
	found := make([]lookup, 0, len(s.layers))
	looked := time.Now()
	for i, l := range s.layers {
		if l.RefuseInOutage && s.failing.Load() {
			found = append(found, lookup{})
			continue
		}
		e, token, err := l.get(ctx, id)
		switch {
		case err != nil:
			// Absent or unreachable: there is nothing to replace yet. In the
			// process a lease is cheap, so add one, which a farther copy can
			// also fill.
			f := lookup{layer: l}
			if l.inProcess {
				f.token, f.fill = l.lease(ctx, id)
			}
			found = append(found, f)
		case e.lease:
			// Another reader's lease: that reader will fill this layer.
			found = append(found, lookup{})
		case e.rec.Version >= floor && !e.rec.Expired(s.now()) && s.current(l, &e):
			s.fill(ctx, id, found, copied{e.rec, looked.Add(-s.oldest(i)), looked})
			return e.rec, nil, true
		default:
			found = append(found, lookup{layer: l, token: token, fill: true})
		}
	}
	return store.Record{}, found, false
}

// fromOrigin puts leases where no copy was found, loads from the origin, and
// fills the layers. It calls sent right before the load.
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
	asked := time.Now()
	rec, err := s.origin.Load(ctx, id)
	s.answered(ctx, err)
	if err == nil && !rec.IsEnd() {
		s.fill(ctx, id, found, copied{rec, asked, asked})
	}
	return rec, err
}

// oldest returns the maximum age of a copy from that layer: it lives for
// MaxStale, and replaced an entry that was found before the load and lived for
// as long.
func (s *Store) oldest(layer int) (age time.Duration) {
	for _, l := range s.layers[layer:] {
		age += 2 * l.MaxStale
	}
	return age
}

// current reports whether the copy may be used: its session cannot have ended long ago.
func (s *Store) current(l *layer, e *entry) bool {
	switch {
	case !l.inProcess: // ended sessions are deleted, or marked as missed
		return s.ends == nil || !s.ends.ended(e.rec.ID)
	case l.Unheard >= l.MaxStale:
		return true
	case time.Since(e.filled) <= l.Unheard:
		return true
	}
	return s.ends != nil && time.Since(s.ends.confirmed(e.asked)) <= l.Unheard
}

// noCopy is a floor that no copy reaches.
const noCopy = ^uint64(0)

// fill replaces the found entries by a copy, where they are still there.
func (s *Store) fill(ctx context.Context, id store.ID, found []lookup, c copied) {
	for _, f := range found {
		if f.fill {
			_ = f.layer.swap(ctx, id, f.token, c) // counted; the layer only stays without a copy
		}
	}
}

// Save saves in the origin and then updates the caches.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	asked := time.Now()
	err := s.origin.Save(ctx, rec, base)
	s.answered(ctx, err)
	ctx = context.WithoutCancel(ctx)
	switch {
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrTooLarge):
	case rec.IsEnd():
		// The session has ended, or may have: the origin's state is unknown.
		s.drop(ctx, rec.ID)
		s.dropVolatile(ctx, rec.ID)
	case err == nil:
		for _, l := range slices.Backward(s.layers) { // see drop
			l.renew(ctx, copied{rec, asked, asked})
		}
	default:
		// It may have been saved, but the caller got an error, so keep the
		// copies: during an outage only they can answer.
	}
	return err
}

// Delete ends the session in the origin and then deletes its copies.
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	err := s.origin.Delete(ctx, id, until)
	s.answered(ctx, err)
	ctx = context.WithoutCancel(ctx)
	s.drop(ctx, id)
	s.dropVolatile(ctx, id)
	return err
}

// drop deletes the copies, the farthest first: a reader could otherwise fill a
// nearer cache again from a farther one. Callers pass a context that outlives
// the request, because remaining copies would be used until MaxStale.
func (s *Store) drop(ctx context.Context, id store.ID) {
	for _, l := range slices.Backward(s.layers) {
		l.delete(ctx, id)
	}
}

// dropVolatile frees the space of values that are no longer used.
func (s *Store) dropVolatile(ctx context.Context, id store.ID) {
	if l := s.shared(); l != nil {
		l.delete(ctx, volatileKey(id))
	}
}

// Touch touches the session in the origin, and deletes the copies: keeping a
// copy with the new times would extend its life without a check of its version.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	t, ok := s.origin.(store.Toucher)
	if !ok {
		return errors.ErrUnsupported
	}
	err := t.Touch(ctx, id, seen, deadline)
	if errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	s.answered(ctx, err)
	if err == nil {
		s.drop(context.WithoutCancel(ctx), id)
	}
	return err
}

// Sweep sweeps the origin; copies expire by themselves.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if o, ok := s.origin.(store.Sweeper); ok {
		return o.Sweep(ctx, age, limit)
	}
	return 0, errors.ErrUnsupported
}

// ByUser reads from the origin.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if o, ok := s.origin.(store.UserIndex); ok {
		return o.ByUser(ctx, user)
	}
	return nil, errors.ErrUnsupported
}

// SaveLimited saves in the origin, and then deletes ended sessions from the caches.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	o, ok := s.origin.(store.UserLimiter)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	ended, err := o.SaveLimited(ctx, rec, limit)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	s.answered(ctx, err)
	ctx = context.WithoutCancel(ctx)
	for _, id := range ended {
		s.drop(ctx, id)
		s.dropVolatile(ctx, id)
	}
	return ended, err
}

// Ends returns the ends that the store has read for its own copies, or calls the origin.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	if s.ends != nil && cursor != store.FeedFromStart && (cursor == store.FeedFromNow || strings.HasPrefix(cursor, cursorPrefix)) {
		return s.ends.page(ctx, cursor, limit)
	}
	if o, ok := s.origin.(store.EndFeed); ok {
		return o.Ends(ctx, cursor, limit)
	}
	return store.EndPage{}, errors.ErrUnsupported
}

// Scan scans the origin.
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
	// Unheard is how long copies live while Heard is false; 0 = MaxStale.
	Unheard time.Duration `json:"unheard,omitempty"`
	// Heard is true if the last poll of the origin's feed of ends succeeded.
	Heard bool `json:"heard,omitempty"`
	// Reachable is false from the cache's first failure until it answers again.
	Reachable bool   `json:"reachable"`
	Errors    uint64 `json:"errors"` // calls that failed since New
}

// Health describes the layers, nearest first.
func (s *Store) Health() []Health {
	out := make([]Health, len(s.layers))
	for i, l := range s.layers {
		out[i] = Health{Name: l.Name, MaxStale: l.MaxStale, Reachable: !l.breaker.isOpen(), Errors: l.failures.Load()}
		if l.inProcess && l.Unheard < l.MaxStale {
			out[i].Unheard, out[i].Heard = l.Unheard, s.ends != nil && s.ends.heard.Load() != nil && !s.ends.failing.Load()
		}
	}
	return out
}

func newNonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
