//go:build linux

package memcached_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/engine/memcached"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/vectors"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

func client(t *testing.T) (*memcache.Client, *servers.Server) {
	t.Helper()
	server := servers.Memcached(t, 64)
	c := memcache.New(server.Addr)
	c.Timeout = 10 * time.Second
	t.Cleanup(func() { _ = c.Close() })
	return c, server
}

func TestRecordedSessionsAreReadFromMemcached(t *testing.T) {
	c, _ := client(t)
	store := memcached.New(c)
	wanted := func(c *vectors.Case) bool {
		for _, e := range c.Storage {
			if e.Backend == "datastore" {
				return false
			}
			if strings.ContainsAny(e.Key.(string), " \t") { // App Engine's allows that
				return false
			}
		}
		switch c.System {
		case "webapp2-memcache", "diy-memcache":
			return true
		}
		return recorded.Has(c, "memcached")
	}
	recorded.Sessions(t, "../../testdata", 100, wanted, func(t *testing.T, k *vectors.Case) vectors.Backends {
		if err := c.FlushAll(); err != nil {
			t.Fatal(err)
		}
		for _, e := range k.Storage {
			if !recorded.Live(k, e) || e.Namespace != "" {
				continue
			}
			item := &memcache.Item{Key: e.Key.(string), Value: e.Value}
			if e.Flags != nil {
				item.Flags = *e.Flags
			}
			if err := c.Set(item); err != nil {
				t.Fatal(err)
			}
		}
		return vectors.Backends{Memcache: store, Store: store}
	})
}

func TestParallelChangesInMemcachedAreKept(t *testing.T) {
	c, _ := client(t)
	store := memcached.New(c)
	secret := []byte("a secret of the old application!")
	one, err := webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Memcache, Memcache: store})
	two, err2 := beaker.New(beaker.Config{Type: beaker.Memcached, Secret: secret, Store: store})
	three, err3 := memcachevars.New(memcachevars.Config{Names: []string{"n"}, Memcache: store})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]legacy.Format{"webapp2": one, "beaker": two, "memcache variables": three} {
		t.Run(name, func(t *testing.T) { recorded.Parallel(t, f) })
	}
}

func TestEntriesExpire(t *testing.T) {
	c, _ := client(t)
	store, ctx := memcached.New(c), context.Background()
	if err := store.Set(ctx, "over", legacy.Entry{Value: []byte("x"), Expires: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(ctx, "over"); !errors.Is(err, legacy.ErrNoEntry) {
		t.Errorf("%v", err)
	}
	if err := store.Set(ctx, "later", legacy.Entry{Value: []byte("x"), Expires: time.Now().Add(60 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if e, err := store.Get(ctx, "later"); err != nil || string(e.Value) != "x" {
		t.Errorf("%v, %v", e, err)
	}
}

func TestAServerThatIsDownIsAnErrorWithoutTheKey(t *testing.T) {
	c, server := client(t)
	server.Kill()
	store, ctx := memcached.New(c), context.Background()
	_, err := store.Get(ctx, "secret-id")
	for _, err := range []error{err, store.Set(ctx, "secret-id", legacy.Entry{}), store.Delete(ctx, "secret-id")} {
		if err == nil || errors.Is(err, legacy.ErrNoEntry) || strings.Contains(err.Error(), "secret-id") {
			t.Errorf("%v", err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := store.Get(gone, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
