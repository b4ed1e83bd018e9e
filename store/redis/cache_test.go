package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/storetest"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func cacheAt(t testing.TB, o Options) *Cache {
	t.Helper()
	c, err := NewCache(o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func TestCache(t *testing.T) {
	server := servers.Redis(t, "--maxmemory-policy", "allkeys-lru")
	n := 0
	storetest.RunCache(t, func(t *testing.T) store.Cache {
		n++
		o := at(server)
		o.Prefix = fmt.Sprintf("t%d:", n)
		return cacheAt(t, o)
	})
}

func TestTieredWithACache(t *testing.T) {
	server := servers.Redis(t)
	n := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		n++
		o := at(server)
		o.Prefix = fmt.Sprintf("t%d:", n)
		s, err := tiered.New(memory.New(), tiered.Layer{Cache: cacheAt(t, o), Timeout: 5 * time.Second})
		must(t, err)
		return s
	}, storetest.Records(2_000))
}

func TestACacheConnectsWhenItCan(t *testing.T) {
	server := servers.Redis(t)
	server.Kill()
	c := cacheAt(t, at(server))
	id := newID()
	for range 3 {
		if _, _, err := c.Get(within(t, time.Minute), id); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("a dead cache answered %v", err)
		}
	}
	server.Start()
	token, err := c.Add(t.Context(), id, []byte("one"), time.Hour)
	must(t, err)
	must(t, c.Swap(t.Context(), id, token, []byte("two"), time.Hour))

	server.Kill() // it forgets everything
	server.Start()
	eventually(t, "the cache answers", func() bool {
		_, _, err := c.Get(t.Context(), id)
		return errors.Is(err, store.ErrNotFound)
	})
	if err := c.Swap(t.Context(), id, token, []byte("three"), time.Hour); !errors.Is(err, store.ErrConflict) {
		t.Errorf("swap with a token from before: %v", err)
	}
}

func TestAFrozenCacheCostsACallItsDeadline(t *testing.T) {
	server := servers.Redis(t)
	server.Pause()
	c := cacheAt(t, at(server))
	if _, _, err := c.Get(within(t, 50*time.Millisecond), newID()); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a frozen cache answered %v", err)
	}
	server.Resume()
	eventually(t, "the cache answers", func() bool {
		_, _, err := c.Get(t.Context(), newID())
		return errors.Is(err, store.ErrNotFound)
	})
}

func TestAClosedCacheIsAnError(t *testing.T) {
	server := servers.Redis(t)
	for _, used := range []bool{false, true} {
		c := cacheAt(t, at(server))
		if used {
			_, _, _ = c.Get(t.Context(), newID())
		}
		must(t, c.Close())
		if _, _, err := c.Get(t.Context(), newID()); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("a closed cache answered %v", err)
		}
	}
}

func TestCacheCallsAreOneRoundTrip(t *testing.T) {
	server := servers.Redis(t)
	c := cacheAt(t, at(server))
	id := newID()
	token, err := c.Add(t.Context(), id, []byte("one"), time.Hour)
	must(t, err)
	must(t, c.Swap(t.Context(), id, token, []byte("two"), time.Hour)) // teaches the script
	_, token, err = c.Get(t.Context(), id)
	must(t, err)
	server.RedisCommand("CONFIG", "RESETSTAT")
	must(t, c.Swap(t.Context(), id, token, []byte("three"), time.Hour))
	if got := calls(server); got["evalsha"] != 1 || got["eval"] != 0 {
		t.Errorf("a swap took %v", got)
	}
	if ttl := strings.TrimSpace(server.RedisCommand("TTL", c.key(id))); ttl != "3600" && ttl != "3599" {
		t.Errorf("the entry expires in %s s, want an hour", ttl)
	}
}
