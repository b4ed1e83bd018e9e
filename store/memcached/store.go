package memcached

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/store"
)

// Store keeps sessions in memcached alone. Everything is lost when a server
// restarts, and a full memcached drops records, including tombstones. Use it
// only if lost sessions are acceptable, and so is a logout after which a copied
// cookie may still work. Until a server restarts, compare-and-set is exact.
//
// It has no index by user and no Scan. Records expire by themselves.
type Store struct{ client }

var (
	_ store.Store   = (*Store)(nil)
	_ store.Toucher = (*Store)(nil)
)

// NewStore returns a store on those servers, given as host:port or as the path
// of a Unix socket. It does not connect yet.
func NewStore(servers []string, o Options) (*Store, error) {
	c, err := newClient(servers, o)
	if err != nil {
		return nil, err
	}
	return &Store{c}, nil
}

// get returns the item and its record, or ErrNotFound.
func (s *Store) get(ctx context.Context, id store.ID) (it *memcache.Item, rec store.Record, err error) {
	err = patiently(ctx, unreached, func() (err error) {
		it, err = s.mc.Get(s.key(id))
		return err
	})
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return nil, store.Record{}, store.ErrNotFound
	case err != nil:
		return nil, store.Record{}, failed("get", err)
	}
	rec, err = store.Decode(id, it.Value)
	if err != nil {
		err = failed("get", err)
	}
	return it, rec, err
}

// unwritten is the error of a call that failed before it wrote anything.
func unwritten(err error) error { return fmt.Errorf("%w: %w", store.ErrRefused, err) }

// missing reports whether there is no record; there may be another item in its place.
func missing(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged)
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := alive(ctx, "load"); err != nil {
		return store.Record{}, err
	}
	_, rec, err := s.get(ctx, id)
	return rec, err
}

// Save implements [store.Store].
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	for {
		if err := alive(ctx, "save"); err != nil {
			return unwritten(err)
		}
		it, have, err := s.get(ctx, rec.ID)
		if err != nil && !missing(err) {
			return unwritten(err)
		}
		absent := err != nil
		if !absent && have.HasSaveID(rec.SaveIDs[0]) {
			return nil
		}
		now := time.Now()
		switch {
		case base == (store.Base{}) && (absent || have.Expired(now)):
		case base != (store.Base{}) && !absent && !have.IsEnd() && have.Base() == base:
			keepLater(&rec, have)
		default:
			return store.ErrConflict
		}
		if err := s.put(ctx, it, rec, now); !errors.Is(err, errOvertaken) {
			return err
		}
	}
}

// keepLater keeps Seen and Deadline from moving backwards.
func keepLater(rec *store.Record, have store.Record) {
	if rec.Shorten || rec.IsEnd() {
		return
	}
	if have.Seen.After(rec.Seen) {
		rec.Seen = have.Seen
	}
	if have.Deadline.After(rec.Deadline) {
		rec.Deadline = have.Deadline
	}
}

var errOvertaken = errors.New("memcached: the item has changed")

// put stores rec in place of it, or as a new item if it is nil. It returns
// errOvertaken after a concurrent change.
func (s *Store) put(ctx context.Context, it *memcache.Item, rec store.Record, now time.Time) error {
	value, err := rec.MarshalBinary()
	if err != nil {
		return err
	}
	if err := s.fits(rec.ID, value); err != nil {
		return err
	}
	write := s.mc.CompareAndSwap
	if it == nil {
		it, write = &memcache.Item{Key: s.key(rec.ID)}, s.mc.Add
	}
	// Readers check the exact deadline; memcached's expiry only cleans up.
	it.Value, it.Expiration = value, expiry(rec.Deadline.Sub(now)+2*time.Second, now)
	err = patiently(ctx, notSent, func() error { return write(it) })
	switch {
	case errors.Is(err, memcache.ErrCASConflict), errors.Is(err, memcache.ErrNotStored), errors.Is(err, memcache.ErrCacheMiss):
		return errOvertaken
	case err != nil:
		return failed("save", told(err))
	}
	return nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	for {
		if err := alive(ctx, "delete"); err != nil {
			return unwritten(err)
		}
		it, have, err := s.get(ctx, id)
		if err != nil && !missing(err) {
			return unwritten(err)
		}
		now := time.Now().UTC()
		mark := store.Record{ID: id, Version: have.Version, SaveIDs: have.SaveIDs, User: have.User, Created: have.Created, Ended: now}
		if err != nil {
			mark.Created = now
		}
		if have.IsEnd() {
			mark.Ended = have.Ended
			if have.Deadline.After(until) {
				until = have.Deadline
			}
		}
		mark.Seen, mark.Deadline, mark.Expires = mark.Ended, until, until
		if err := s.put(ctx, it, mark, now); !errors.Is(err, errOvertaken) {
			return err
		}
	}
}

// Touch implements [store.Toucher]. It rewrites the item: memcached has nothing
// smaller.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	for {
		if err := alive(ctx, "touch"); err != nil {
			return unwritten(err)
		}
		it, rec, err := s.get(ctx, id)
		if missing(err) || err == nil && rec.IsEnd() {
			return store.ErrNotFound
		}
		if err != nil {
			return unwritten(err)
		}
		next := rec
		next.Seen, next.Deadline = seen, deadline
		keepLater(&next, rec)
		if err := s.put(ctx, it, next, time.Now()); !errors.Is(err, errOvertaken) {
			return err
		}
	}
}
