package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// Cache keeps copies of records in Redis or Valkey, for package tiered. Every
// call is one round trip. The servers may evict keys, and need no persistence.
type Cache struct {
	options *Options // a pointer, which fmt does not follow

	mu         sync.Mutex
	connecting *connecting
	closed     bool
}

var _ store.Cache = (*Cache)(nil)

// connecting is an attempt to connect, and its outcome once done is closed.
type connecting struct {
	done   chan struct{}
	client *client
	err    error
}

// NewCache returns a cache on those servers. It does not connect yet: so an
// application starts even if its cache is down.
func NewCache(o Options) (*Cache, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Cache{options: &o}, nil
}

// Close closes all connections. Calls under way fail.
func (c *Cache) Close() error {
	c.mu.Lock()
	attempt := c.connecting
	c.closed = true
	c.mu.Unlock()
	if attempt != nil {
		<-attempt.done
		if attempt.err == nil {
			attempt.client.shut()
		}
	}
	return nil
}

// connected returns the client, and connects first if there is none. All
// callers share one attempt. After a failed attempt, the next call starts
// another.
func (c *Cache) connected(ctx context.Context) (*client, error) {
	c.mu.Lock()
	attempt := c.connecting
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, errClosed
	case attempt == nil:
		attempt = &connecting{done: make(chan struct{})}
		c.connecting = attempt
		go c.connect(attempt)
	}
	c.mu.Unlock()
	select {
	case <-attempt.done:
		return attempt.client, attempt.err
	default:
	}
	select {
	case <-attempt.done:
		return attempt.client, attempt.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Cache) connect(attempt *connecting) {
	attempt.client, attempt.err = newClient(context.Background(), *c.options, 0)
	if attempt.err != nil {
		c.mu.Lock()
		if !c.closed {
			c.connecting = nil
		}
		c.mu.Unlock()
	}
	close(attempt.done)
}

func (c *Cache) key(id store.ID) string { return c.options.Prefix + cacheKeys + id.String() }

// Every entry starts with a random number, its token.
const tokenSize = 8

func withToken(entry []byte) (value []byte, token uint64) {
	value = make([]byte, tokenSize, tokenSize+len(entry))
	_, _ = rand.Read(value) // never fails
	return append(value, entry...), binary.BigEndian.Uint64(value)
}

// Get implements [store.Cache].
func (c *Cache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	r, err := c.connected(ctx)
	if err != nil {
		return nil, 0, failed("get", err)
	}
	value, err := r.ask(ctx, func() valkey.Completed { return r.build.Get().Key(c.key(id)).Build() })
	if valkey.IsValkeyNil(err) {
		return nil, 0, store.ErrNotFound
	}
	if err != nil {
		return nil, 0, failed("get", err)
	}
	if len(value) < tokenSize {
		return nil, 0, nil // not ours: no token names it
	}
	return value[tokenSize:], binary.BigEndian.Uint64(value), nil
}

// Add implements [store.Cache].
func (c *Cache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	r, err := c.connected(ctx)
	if err != nil {
		return 0, failed("add", err)
	}
	value, token := withToken(entry)
	_, err = r.message(ctx, false, func() valkey.Completed {
		return r.build.Set().Key(c.key(id)).Value(valkey.BinaryString(value)).Nx().PxMilliseconds(milliseconds(ttl)).Build()
	})
	switch {
	case valkey.IsValkeyNil(err):
		return 0, store.ErrConflict
	case err != nil:
		return 0, failed("add", err)
	}
	return token, nil
}

// swapScript replaces the entry that begins with a token. Its arguments are the
// token, the new entry, and its time to live in milliseconds.
var swapScript = newScript(`
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`)

// Swap implements [store.Cache].
func (c *Cache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	r, err := c.connected(ctx)
	if err != nil {
		return failed("swap", err)
	}
	value, _ := withToken(entry)
	got, err := r.run(ctx, swapScript, c.key(id), string(binary.BigEndian.AppendUint64(nil, token)),
		valkey.BinaryString(value), strconv.FormatInt(milliseconds(ttl), 10))
	result, _, err := outcome(got, err)
	switch {
	case err != nil:
		return failed("swap", err)
	case result == refused:
		return store.ErrConflict
	}
	return nil
}

// Delete implements [store.Cache].
func (c *Cache) Delete(ctx context.Context, id store.ID) error {
	r, err := c.connected(ctx)
	if err != nil {
		return failed("delete", err)
	}
	if _, err := r.message(ctx, false, func() valkey.Completed { return r.build.Del().Key(c.key(id)).Build() }); err != nil {
		return failed("delete", err)
	}
	return nil
}

// milliseconds is Redis's form of a time to live, which must not be zero.
func milliseconds(ttl time.Duration) int64 { return max(ttl.Milliseconds(), 1) }
