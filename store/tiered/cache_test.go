package tiered_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/tiered"
)

var (
	errDead = errors.New("connection refused")
	quiet   = slog.New(slog.DiscardHandler)
)

// cache is a shared cache that counts its calls and can fail.
type cache struct {
	calls  atomic.Int64
	fail   atomic.Bool // every call fails at once
	freeze atomic.Bool // no call is answered

	onAdd func() error // after an Add was done: an answer that gets lost

	mu    sync.Mutex
	inner *tiered.Memory
	keys  map[store.ID]bool
}

func newCache() *cache {
	c := &cache{}
	c.clear()
	return c
}

// clear is an eviction of everything, or a restart.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inner, c.keys = tiered.NewMemory(8<<20), map[store.ID]bool{}
}

// len returns how many entries the cache holds.
func (c *cache) len() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.keys {
		if _, _, err := c.inner.Get(context.Background(), id); err == nil {
			n++
		}
	}
	return n
}

// call counts a call, and applies the active fault.
func (c *cache) call(ctx context.Context, id store.ID) (*tiered.Memory, error) {
	c.calls.Add(1)
	if c.fail.Load() {
		return nil, errDead
	}
	if c.freeze.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[id] = true
	return c.inner, nil
}

func (c *cache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	m, err := c.call(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	return m.Get(ctx, id)
}

func (c *cache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	m, err := c.call(ctx, id)
	if err != nil {
		return 0, err
	}
	token, err := m.Add(ctx, id, entry, ttl)
	if err == nil && c.onAdd != nil {
		err = c.onAdd()
	}
	return token, err
}

func (c *cache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	m, err := c.call(ctx, id)
	if err != nil {
		return err
	}
	return m.Swap(ctx, id, token, entry, ttl)
}

func (c *cache) Delete(ctx context.Context, id store.ID) error {
	m, err := c.call(ctx, id)
	if err != nil {
		return err
	}
	return m.Delete(ctx, id)
}
