package gae

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/appengine/v2/memcache"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// CacheOptions are a cache's settings. The zero value is a sensible default.
type CacheOptions struct {
	// Prefix begins every key: at most 224 bytes, since memcache takes keys of
	// at most 250. "" = "sojourn:".
	Prefix string

	// Namespace holds the entries: up to 100 letters, digits, ".", "_" and "-".
	// "" = the default namespace, whatever the request's context says.
	Namespace string
}

const (
	defaultPrefix = "sojourn:"

	maxKey   = 250
	maxValue = 1_000_000 // the service's limit

	// maxTTL is the longest time to live that memcache does not read as a date.
	maxTTL = 30 * 24 * time.Hour
)

// Cache keeps copies of records in the bundled memcache, for package tiered. It
// is safe for concurrent use, and holds nothing that needs closing.
type Cache struct{ prefix, space string }

var _ store.Cache = (*Cache)(nil)

// NewCache returns a cache. It calls no service.
func NewCache(o CacheOptions) (*Cache, error) {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if n := len(o.Prefix) + len(store.ID{}.String()); n > maxKey {
		return nil, fmt.Errorf("gae: prefix %.120q…: keys of %d bytes, at most %d are possible", o.Prefix, n, maxKey)
	}
	if err := entity.CheckNames("", o.Namespace); err != nil {
		return nil, fmt.Errorf("gae: %w", err)
	}
	return &Cache{prefix: o.Prefix, space: o.Namespace}, nil
}

// Every entry starts with a random number, its token. Memcache's own
// compare-and-swap number is not available.
const tokenSize = 8

// Get implements [store.Cache].
func (c *Cache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	ctx, err := begin(ctx, c.space, "get")
	if err != nil {
		return nil, 0, err
	}
	it, token, err := c.get(ctx, id)
	if err != nil {
		return nil, 0, failed(ctx, "get", err)
	}
	return it.Value[min(tokenSize, len(it.Value)):], token, nil
}

// Add implements [store.Cache]. An entry of over 999,992 bytes is
// store.ErrTooLarge. Times to live are whole seconds, and at most 30 days.
func (c *Cache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	ctx, err := begin(ctx, c.space, "add")
	if err != nil {
		return 0, err
	}
	value, token, err := withToken(entry)
	if err != nil {
		return 0, failed(ctx, "add", err)
	}
	err = memcache.Add(ctx, &memcache.Item{Key: c.key(id), Value: value, Expiration: expiry(ttl)})
	if errors.Is(err, memcache.ErrNotStored) {
		err = store.ErrConflict
	}
	return token, failed(ctx, "add", err)
}

// Swap implements [store.Cache]. It takes two calls: one finds the entry that
// token names, the other replaces it if it is still there.
func (c *Cache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	ctx, err := begin(ctx, c.space, "swap")
	if err != nil {
		return err
	}
	value, _, err := withToken(entry)
	if err != nil {
		return failed(ctx, "swap", err)
	}
	it, have, err := c.get(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && have != token {
		return store.ErrConflict
	}
	if err != nil {
		return failed(ctx, "swap", err)
	}
	it.Value, it.Expiration = value, expiry(ttl)
	err = memcache.CompareAndSwap(ctx, it)
	if errors.Is(err, memcache.ErrCASConflict) || errors.Is(err, memcache.ErrNotStored) {
		err = store.ErrConflict
	}
	return failed(ctx, "swap", err)
}

// Delete implements [store.Cache].
func (c *Cache) Delete(ctx context.Context, id store.ID) error {
	ctx, err := begin(ctx, c.space, "delete")
	if err != nil {
		return err
	}
	if err := memcache.Delete(ctx, c.key(id)); err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
		return failed(ctx, "delete", err)
	}
	return nil
}

func (c *Cache) key(id store.ID) string { return c.prefix + id.String() }

func (c *Cache) get(ctx context.Context, id store.ID) (it *memcache.Item, token uint64, err error) {
	it, err = memcache.Get(ctx, c.key(id))
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return nil, 0, store.ErrNotFound
	case err != nil:
		return nil, 0, err
	case len(it.Value) < tokenSize:
		return it, 0, nil // not ours: no token names it
	}
	return it, binary.BigEndian.Uint64(it.Value), nil
}

func withToken(entry []byte) (value []byte, token uint64, err error) {
	if n := tokenSize + len(entry); n > maxValue {
		return nil, 0, fmt.Errorf("an item of %d bytes, at most %d are possible: %w", n, maxValue, store.ErrTooLarge)
	}
	value = make([]byte, tokenSize, tokenSize+len(entry))
	_, _ = rand.Read(value) // never fails
	return append(value, entry...), binary.BigEndian.Uint64(value), nil
}

// expiry is a time to live in memcache's form: whole seconds, rounded up,
// because zero means no limit.
func expiry(ttl time.Duration) time.Duration {
	return min(max((ttl+time.Second-1).Truncate(time.Second), time.Second), maxTTL)
}
