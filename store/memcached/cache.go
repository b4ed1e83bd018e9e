package memcached

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/store"
)

// Cache keeps copies of records in memcached, for package tiered. The client
// library does not support contexts: a call takes at most Options.Timeout.
type Cache struct{ client }

var _ store.Cache = (*Cache)(nil)

// NewCache returns a cache on those servers, given as host:port or as the path
// of a Unix socket. It does not connect yet.
func NewCache(servers []string, o Options) (*Cache, error) {
	c, err := newClient(servers, o)
	if err != nil {
		return nil, err
	}
	return &Cache{c}, nil
}

// Every entry starts with a random number, its token. memcached's own CAS IDs
// restart with the server, so an old one could name another entry.
const tokenSize = 8

func withToken(entry []byte) (value []byte, token uint64) {
	value = make([]byte, tokenSize, tokenSize+len(entry))
	_, _ = rand.Read(value) // never fails
	return append(value, entry...), binary.BigEndian.Uint64(value)
}

func (c *Cache) get(id store.ID) (it *memcache.Item, token uint64, err error) {
	it, err = c.mc.Get(c.key(id))
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return nil, 0, store.ErrNotFound
	case err != nil:
		return nil, 0, failed("get", err)
	case len(it.Value) < tokenSize:
		return it, 0, nil // not ours: no token names it
	}
	return it, binary.BigEndian.Uint64(it.Value), nil
}

// Get implements [store.Cache].
func (c *Cache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	if err := alive(ctx, "get"); err != nil {
		return nil, 0, err
	}
	it, token, err := c.get(id)
	if err != nil {
		return nil, 0, err
	}
	return it.Value[min(tokenSize, len(it.Value)):], token, nil
}

// Add implements [store.Cache].
func (c *Cache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	if err := alive(ctx, "add"); err != nil {
		return 0, err
	}
	value, token := withToken(entry)
	if err := c.fits(id, value); err != nil {
		return 0, err
	}
	err := c.mc.Add(&memcache.Item{Key: c.key(id), Value: value, Expiration: expiry(ttl, time.Now())})
	switch {
	case errors.Is(err, memcache.ErrNotStored):
		return 0, store.ErrConflict
	case err != nil:
		return 0, failed("add", err)
	}
	return token, nil
}

// Swap implements [store.Cache]. It takes two round trips: one finds the entry
// that token names, the other replaces it if it is still there.
func (c *Cache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	if err := alive(ctx, "swap"); err != nil {
		return err
	}
	value, _ := withToken(entry)
	if err := c.fits(id, value); err != nil {
		return err
	}
	it, have, err := c.get(id)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && have != token:
		return store.ErrConflict
	case err != nil:
		return err
	}
	it.Value, it.Expiration = value, expiry(ttl, time.Now())
	err = c.mc.CompareAndSwap(it)
	switch {
	case errors.Is(err, memcache.ErrCASConflict), errors.Is(err, memcache.ErrNotStored), errors.Is(err, memcache.ErrCacheMiss):
		return store.ErrConflict
	case err != nil:
		return failed("swap", err)
	}
	return nil
}

// Delete implements [store.Cache].
func (c *Cache) Delete(ctx context.Context, id store.ID) error {
	if err := alive(ctx, "delete"); err != nil {
		return err
	}
	if err := c.mc.Delete(c.key(id)); err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
		return failed("delete", err)
	}
	return nil
}
