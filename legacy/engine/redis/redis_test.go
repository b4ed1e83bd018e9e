//go:build linux

package redis_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/engine/redis"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

func client(t *testing.T) (valkey.Client, *servers.Server) {
	t.Helper()
	server := servers.Redis(t)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, server
}

func TestRecordedSessionsAreReadFromRedis(t *testing.T) {
	c, _ := client(t)
	store := redis.New(c)
	wanted := func(k *vectors.Case) bool { return recorded.Has(k, "redis") }
	recorded.Sessions(t, "../../testdata", 15, wanted, func(t *testing.T, k *vectors.Case) vectors.Backends {
		ctx := context.Background()
		if err := c.Do(ctx, c.B().Flushall().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for _, e := range k.Storage {
			if err := c.Do(ctx, c.B().Set().Key(e.Key.(string)).Value(valkey.BinaryString(e.Value)).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		// Written entries would expire at the recorded time, which is in the past.
		return vectors.Backends{Store: immortal{store}}
	})
}

// immortal stores entries without expiry.
type immortal struct{ legacy.Store }

func (s immortal) Set(ctx context.Context, key string, e legacy.Entry) error {
	e.Expires = time.Time{}
	return s.Store.Set(ctx, key, e)
}

func TestParallelChangesInRedisAreKept(t *testing.T) {
	c, _ := client(t)
	store := redis.New(c)
	secret := []byte("a secret of the old application!")
	one, err := beaker.New(beaker.Config{Type: beaker.Redis, Secret: secret, Store: store, Timeout: time.Hour})
	two, err2 := gorilla.New(gorilla.Config{Name: "s", Keys: []gorilla.KeyPair{{Hash: secret}}, Backend: gorilla.RedisStore, Store: store})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]legacy.Format{"beaker": one, "gorilla": two} {
		t.Run(name, func(t *testing.T) { recorded.Parallel(t, f) })
	}
}

func TestEntriesExpire(t *testing.T) {
	c, _ := client(t)
	store, ctx := redis.New(c), context.Background()
	if err := store.Set(ctx, "k", legacy.Entry{Value: []byte("\x00\xff"), Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if e, err := store.Get(ctx, "k"); err != nil || string(e.Value) != "\x00\xff" {
		t.Errorf("%q, %v", e.Value, err)
	}
	ttl, err := c.Do(ctx, c.B().Pttl().Key("k").Build()).AsInt64()
	if err != nil || ttl < 59*60*1000 || ttl > 60*60*1000 {
		t.Errorf("time to live %d ms, %v", ttl, err)
	}
	if err := store.Set(ctx, "k", legacy.Entry{Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if ttl, err := c.Do(ctx, c.B().Pttl().Key("k").Build()).AsInt64(); err != nil || ttl != -1 {
		t.Errorf("time to live %d ms, %v, want none", ttl, err)
	}
}

func TestAServerThatIsDownIsAnErrorWithoutTheKey(t *testing.T) {
	c, server := client(t)
	store := redis.New(c)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.Do(ctx, c.B().Lpush().Key("secret-id").Element("x").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(ctx, "secret-id"); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("another type: %v", err)
	}
	server.Kill()
	_, err := store.Get(ctx, "secret-id")
	for _, err := range []error{err, store.Set(ctx, "secret-id", legacy.Entry{}), store.Delete(ctx, "secret-id")} {
		if err == nil || errors.Is(err, legacy.ErrNoEntry) || strings.Contains(err.Error(), "secret-id") {
			t.Errorf("%v", err)
		}
	}
}
