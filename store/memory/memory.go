// Package memory keeps sessions in this process's memory: for development,
// tests, and services that may lose every session when they stop.
//
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New()})
//
// It has every store feature, starts no goroutines, and needs no Close. The
// session manager sweeps old records.
package memory

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// shardCount is a power of two well above the number of cores that machines
// have, so that requests seldom wait for each other.
const shardCount = 64

// Store is a store.Store in memory, and all of its optional interfaces but
// FloorLoader. Make one with New.
type Store struct {
	shards [shardCount]shard
	limit  int64 // of used; 0 = none
	used   atomic.Int64

	// limiting serializes SaveLimited, by user.
	limiting [shardCount]sync.Mutex
	feed     feed
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
	_ store.Counter     = (*Store)(nil)
)

// Option is an option of New.
type Option func(*Store)

// MaxBytes limits the memory of the records to about n bytes: their Data and a
// fixed estimate for the rest of each. A Save that does not fit evicts other
// records, roughly in this order: records past their deadline, then sessions
// with the nearest deadline, and only when no session is left, tombstones.
//
// An evicted session is lost: its visitor is logged out. So limit a store only
// where that is acceptable. An evicted tombstone no longer refuses the insert
// of a session that ended. A record larger than n is refused with
// store.ErrTooLarge. Without this option, or with n <= 0, nothing is evicted.
func MaxBytes(n int64) Option {
	return func(s *Store) { s.limit = max(n, 0) }
}

// New returns an empty store.
func New(opts ...Option) *Store {
	s := &Store{}
	for _, opt := range opts {
		opt(s)
	}
	for i := range s.shards {
		s.shards[i].init()
	}
	return s
}

func (s *Store) shard(id store.ID) *shard { return &s.shards[id[0]%shardCount] }

// Load returns a record; see [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, fmt.Errorf("memory: load: %w", err)
	}
	sh := s.shard(id)
	sh.mu.RLock()
	e := sh.entries[id]
	if e == nil {
		sh.mu.RUnlock()
		return store.Record{}, store.ErrNotFound
	}
	r := e.row
	sh.mu.RUnlock()
	return r.record(), nil
}

// Save stores a record; see [store.Store]. It returns store.ErrTooLarge only
// if the store is bounded by MaxBytes.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: save: %w", err)
	}
	r := newRow(&rec)
	if s.limit > 0 && r.cost() > s.limit {
		return store.ErrTooLarge
	}
	sh := s.shard(rec.ID)
	sh.mu.Lock()
	grown, err := sh.save(r, base, rec.Shorten)
	sh.mu.Unlock()
	s.grow(grown, rec.ID)
	if err == nil && rec.IsEnd() {
		s.feed.add(rec.ID, rec.Deadline)
	}
	return err
}

// Delete ends a session; see [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: delete: %w", err)
	}
	sh := s.shard(id)
	sh.mu.Lock()
	grown := sh.end(id, until.UnixMilli())
	sh.mu.Unlock()
	s.grow(grown, id)
	s.feed.add(id, until)
	return nil
}

// Touch extends a session; see [store.Toucher]. It extends a record past its
// deadline that was not swept yet.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: touch: %w", err)
	}
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.touch(id, seen.UnixMilli(), deadline.UnixMilli())
}

// Sweep removes old records; see [store.Sweeper]. It locks one shard of the
// store at a time.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	before := time.Now().Add(-age).UnixMilli()
	removed := 0
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return removed, fmt.Errorf("memory: sweep: %w", err)
		}
		sh := &s.shards[i]
		sh.mu.Lock()
		n, freed := sh.sweep(before, limit-removed)
		sh.mu.Unlock()
		s.used.Add(-freed)
		removed += n
	}
	return removed, nil
}

// ByUser returns a user's records; see [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: list a user's sessions: %w", err)
	}
	var recs []store.Record
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		for e := sh.users[user]; e != nil; e = e.next {
			recs = append(recs, e.record())
		}
		sh.mu.RUnlock()
	}
	return recs, nil
}

// SaveLimited stores a user's new session; see [store.UserLimiter].
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	mu := &s.limiting[rec.User[0]%shardCount]
	mu.Lock()
	defer mu.Unlock()
	switch known, err := s.Load(ctx, rec.ID); {
	case errors.Is(err, store.ErrNotFound), err == nil && known.Expired(time.Now()):
	case err != nil:
		return nil, err
	case known.HasSaveID(rec.SaveIDs[0]):
		return nil, nil
	default:
		return nil, store.ErrConflict
	}
	if s.limit > 0 && overhead+int64(len(rec.Data)) > s.limit {
		return nil, store.ErrTooLarge
	}
	others, err := s.ByUser(ctx, rec.User)
	if err != nil {
		return nil, err
	}
	victims, err := limit.InTheWay(others, &rec, time.Now())
	if err != nil {
		return nil, err
	}
	for _, id := range victims {
		if err := s.Delete(ctx, id, limit.Until); err != nil {
			return ended, err
		}
		ended = append(ended, id)
	}
	return ended, s.Save(ctx, rec, store.Base{})
}

// Ends returns the ends of sessions; see [store.EndFeed].
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	if err := ctx.Err(); err != nil {
		return store.EndPage{}, fmt.Errorf("memory: read the feed of ends: %w", err)
	}
	page, ok, err := s.feed.page(cursor, limit)
	if err != nil || ok {
		return page, err
	}
	now := time.Now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		for _, e := range sh.marks {
			if rec := e.record(); !rec.Expired(now) {
				page.Ends = append(page.Ends, store.End{ID: rec.ID, Until: rec.Deadline})
			}
		}
		sh.mu.RUnlock()
	}
	return page, nil
}

var errCursor = errors.New("memory: not a cursor of this store")

// Scan returns the next records; see [store.Scanner]. A record that stays is
// returned exactly once.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	shard, slot := 0, 0
	if cursor != "" {
		before, after, _ := strings.Cut(cursor, ".")
		var err1, err2 error
		shard, err1 = strconv.Atoi(before)
		slot, err2 = strconv.Atoi(after)
		if err1 != nil || err2 != nil || shard < 0 || slot < 0 {
			return nil, "", errCursor
		}
	}
	var recs []store.Record
	for ; shard < shardCount; shard++ {
		if err := ctx.Err(); err != nil {
			return nil, "", fmt.Errorf("memory: scan: %w", err)
		}
		sh := &s.shards[shard]
		sh.mu.RLock()
		for ; slot < len(sh.slots); slot++ {
			if len(recs) >= limit {
				sh.mu.RUnlock()
				return recs, fmt.Sprintf("%d.%d", shard, slot), nil
			}
			if e := sh.slots[slot]; e != nil {
				recs = append(recs, e.record())
			}
		}
		sh.mu.RUnlock()
		slot = 0
	}
	return recs, "", nil
}

// Count counts the records; see [store.Counter]. Its cost grows only with the
// number of records past their deadline.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	if err := ctx.Err(); err != nil {
		return store.Counts{}, fmt.Errorf("memory: count: %w", err)
	}
	var c store.Counts
	now := time.Now().UnixMilli()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		sh.count(now, &c)
		sh.mu.RUnlock()
	}
	return c, nil
}

// grow adds n bytes to the used memory for the record with that ID, and evicts
// other records if the store is now over its limit.
//
// Each round takes at most one record from each shard, starting with the one
// that grew: together the shards' next victims are close to the store's.
func (s *Store) grow(n int64, id store.ID) {
	used := s.used.Add(n)
	if s.limit == 0 || used <= s.limit {
		return
	}
	now := time.Now().UnixMilli()
	for _, marks := range []bool{false, true} {
		for found := true; found; {
			found = false
			for i := range s.shards {
				sh := &s.shards[(int(id[0])+i)%shardCount]
				sh.mu.Lock()
				if victim := sh.victim(now, id, marks); victim != nil {
					found = true
					used = s.used.Add(-victim.cost())
					sh.remove(victim)
				}
				sh.mu.Unlock()
				if used <= s.limit {
					return
				}
			}
		}
	}
}
