package memcached

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestConformance(t *testing.T) {
	server := servers.Memcached(t, 512)
	n := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		n++
		s, err := NewStore([]string{server.Addr}, Options{Prefix: fmt.Sprintf("t%d:", n), Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}, storetest.Copies(func(t *testing.T, st store.Store, from, to store.ID) {
		s := st.(*Store)
		it, err := s.mc.Get(s.key(from))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.mc.Set(&memcache.Item{Key: s.key(to), Value: it.Value}); err != nil {
			t.Fatal(err)
		}
	}))
}

// A foreign item is neither an outage nor a session.
func TestADamagedItemIsNoRecord(t *testing.T) {
	server := servers.Memcached(t, 64)
	s, err := NewStore([]string{server.Addr}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for i, bytes := range []string{"", "hello", "\x01", "\x01 and no more", "\x02 as a later release may write it"} {
		id := store.ID{byte(i)}
		if err := s.mc.Set(&memcache.Item{Key: s.key(id), Value: []byte(bytes)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), id); err == nil || errors.Is(err, store.ErrDamaged) == strings.HasPrefix(bytes, "\x02") {
			t.Errorf("%q: %v", bytes, err)
		}
	}
}

func TestARecordThatMemcachedWouldRefuseIsTooLarge(t *testing.T) {
	server := servers.Memcached(t, 64)
	s, err := NewStore([]string{server.Addr}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := store.ID{1}
	now := time.Now().UTC().Truncate(time.Millisecond)
	rec := store.Record{ID: id, Version: 1, SaveIDs: []store.SaveID{1}, Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	rec.Data = make([]byte, 1<<20-1000)
	if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatalf("just under the limit: %v", err)
	}
	next := rec
	next.Version, next.SaveIDs, next.Data = 2, []store.SaveID{2, 1}, make([]byte, 1<<20)
	if err := s.Save(t.Context(), next, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("over the limit: %v", err)
	}
	if got, err := s.Load(t.Context(), id); err != nil || got.Version != 1 {
		t.Fatalf("the old record is gone: version %d, %v", got.Version, err)
	}
}

func TestExpiryIsAUnixTimeAboveThirtyDays(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for ttl, want := range map[time.Duration]int32{
		0:                             1,
		time.Millisecond:              1,
		1900 * time.Millisecond:       1,
		30 * 24 * time.Hour:           30 * 24 * 3600,
		30*24*time.Hour + time.Second: 1_700_000_000 + 30*24*3600 + 1,
		400 * 24 * time.Hour:          1_700_000_000 + 400*24*3600,
		time.Duration(1<<63 - 1):      1<<31 - 1,
	} {
		if got := expiry(ttl, now); got != want {
			t.Errorf("expiry(%v) = %d, want %d", ttl, got, want)
		}
	}
}

func TestChangingTheListMovesFewKeys(t *testing.T) {
	four := []string{"a:1", "b:1", "c:1", "d:1"}
	before, err := newRendezvous(four)
	if err != nil {
		t.Fatal(err)
	}
	after, err := newRendezvous(append([]string{"e:1"}, four...))
	if err != nil {
		t.Fatal(err)
	}
	const keys = 10_000
	load := map[string]int{}
	moved := 0
	for i := range keys {
		key := fmt.Sprintf("sojourn:%d", i)
		x, _ := before.PickServer(key)
		y, _ := after.PickServer(key)
		load[x.String()]++
		if x != y {
			moved++
			if y.String() != "e:1" {
				t.Fatalf("%s moved from %s to %s, not to the new server", key, x, y)
			}
		}
	}
	if moved < keys/5-500 || moved > keys/5+500 {
		t.Errorf("%d of %d keys moved, want about a fifth", moved, keys)
	}
	for server, n := range load {
		if n < keys/4-500 || n > keys/4+500 {
			t.Errorf("%s has %d of %d keys, want about a quarter", server, n, keys)
		}
	}
}

func TestAKeyWhoseServerIsDownIsNotMoved(t *testing.T) {
	up, down := servers.Memcached(t, 64), servers.Memcached(t, 64)
	c, err := NewCache([]string{up.Addr, down.Addr}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	down.Kill()
	failures := 0
	for i := range 64 {
		id := store.ID{byte(i)}
		_, err := c.Add(t.Context(), id, []byte("x"), time.Minute)
		if err == nil {
			if _, _, err := c.Get(t.Context(), id); err != nil {
				t.Errorf("added, and then: %v", err)
			}
			continue
		}
		failures++
		if _, _, err := c.Get(t.Context(), id); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("a key of the dead server: %v", err)
		}
	}
	if failures < 16 || failures > 48 {
		t.Errorf("%d of 64 keys belong to the dead server, want about half", failures)
	}
}

func TestATokenFromBeforeARestartNamesNothing(t *testing.T) {
	server := servers.Memcached(t, 64)
	c, err := NewCache([]string{server.Addr}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := store.ID{1}
	token, err := c.Add(t.Context(), id, []byte("before"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	server.Start()
	// The first connection may still be the dead one.
	for range 10 {
		if _, err = c.Add(t.Context(), id, []byte("after"), time.Minute); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Swap(t.Context(), id, token, []byte("wrong"), time.Minute); !errors.Is(err, store.ErrConflict) {
		t.Errorf("swap with the old token: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, f := range map[string]func() error{
		"no server": func() error { _, err := NewCache(nil, Options{}); return err },
		"twice":     func() error { _, err := NewCache([]string{"a:1", "a:1"}, Options{}); return err },
		"no port":   func() error { _, err := NewCache([]string{"a"}, Options{}); return err },
		"space":     func() error { _, err := NewCache([]string{"a:1"}, Options{Prefix: "a b"}); return err },
		"negative":  func() error { _, err := NewStore([]string{"a:1"}, Options{Timeout: -1}); return err },
		"long prefix": func() error {
			_, err := NewStore([]string{"a:1"}, Options{Prefix: string(make([]byte, 300))})
			return err
		},
	} {
		if f() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
