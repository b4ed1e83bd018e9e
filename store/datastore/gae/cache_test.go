package gae_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/memcache"

	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func testCacheConformance(t *testing.T) {
	n := 0
	storetest.RunCache(t, func(t *testing.T) store.Cache {
		n++
		return openCache(t, gae.CacheOptions{Prefix: fmt.Sprintf("t%d:", n)})
	}, storetest.Emulated)
}

func testCacheLimits(t *testing.T) {
	t.Run("an entry over a million bytes is refused, and the one before stays", func(t *testing.T) {
		c := openCache(t, gae.CacheOptions{Prefix: strings.Repeat("p", 224)})
		id := store.HashIdentifier([]byte("a"))
		largest := make([]byte, 999_992)
		token, err := c.Add(t.Context(), id, largest, time.Hour)
		if err != nil {
			t.Fatalf("Add of the largest entry under the longest key: %v", err)
		}
		larger := append(largest, 0)
		if err := c.Swap(t.Context(), id, token, larger, time.Hour); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Swap with one byte more: %v, want ErrTooLarge", err)
		}
		if _, err := c.Add(t.Context(), store.HashIdentifier([]byte("b")), larger, time.Hour); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Add of one byte more: %v, want ErrTooLarge", err)
		}
		if got, _, err := c.Get(t.Context(), id); err != nil || !bytes.Equal(got, largest) {
			t.Errorf("Get afterwards: %d bytes, %v", len(got), err)
		}
	})

	t.Run("caches of different namespaces and prefixes are apart", func(t *testing.T) {
		id := store.HashIdentifier([]byte("c"))
		caches := []cacheInRequest{
			openCache(t, gae.CacheOptions{}),
			openCache(t, gae.CacheOptions{Prefix: "x"}),
			openCache(t, gae.CacheOptions{Namespace: "x"}),
		}
		for i, c := range caches {
			if _, err := c.Add(t.Context(), id, []byte{byte(i)}, time.Hour); err != nil {
				t.Errorf("Add to cache %d: %v", i, err)
			}
		}
		for i, c := range caches {
			if got, _, err := c.Get(t.Context(), id); err != nil || !bytes.Equal(got, []byte{byte(i)}) {
				t.Errorf("cache %d: %v, %v; want its own entry", i, got, err)
			}
		}
	})

	t.Run("what others put under a key is no entry that a token names", func(t *testing.T) {
		c := openCache(t, gae.CacheOptions{})
		id := store.HashIdentifier([]byte("d"))
		if err := memcache.Set(c.in(t.Context()), &memcache.Item{Key: "sojourn:" + id.String(), Value: []byte("short")}); err != nil {
			t.Fatal(err)
		}
		if _, token, err := c.Get(t.Context(), id); err != nil || token != 0 {
			t.Errorf("Get: token %d, %v; want 0", token, err)
		}
	})
}

// Checks the sent values, because the API server tolerates mistakes.
func TestCacheSendsTimesToLiveThatMemcacheUnderstands(t *testing.T) {
	c := openCache(t, gae.CacheOptions{})
	told := regexp.MustCompile(`expiration_time: *(\d+)`)
	for ttl, want := range map[time.Duration]string{
		0:                          "1", // 0 would mean no limit
		time.Nanosecond:            "1",
		1500 * time.Millisecond:    "2",
		30 * time.Second:           "30",
		30 * 24 * time.Hour:        "2592000",
		400 * 24 * time.Hour:       "2592000", // more would be a date
		-time.Second:               "1",
		100 * 365 * 24 * time.Hour: "2592000",
	} {
		sent := ""
		ctx := appengine.WithAPICallFunc(t.Context(), func(_ context.Context, _, _ string, in, _ protoiface.MessageV1) error {
			if found := told.FindStringSubmatch(in.String()); found != nil {
				sent = found[1]
			}
			return errors.New("not sent")
		})
		_, _ = c.Add(ctx, store.ID{}, nil, ttl)
		if sent != want {
			t.Errorf("for %v memcache is told %q seconds, want %s", ttl, sent, want)
		}
	}
}

func TestNewCacheRefusesKeysThatMemcacheWould(t *testing.T) {
	for _, o := range []gae.CacheOptions{
		{Prefix: strings.Repeat("p", 225)},
		{Namespace: "ä"},
	} {
		if _, err := gae.NewCache(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
