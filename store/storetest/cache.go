package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// RunCache checks that the caches returned by open satisfy the contract of
// [store.Cache].
//
// open is called once per subtest and must return an empty cache, with room for
// a few MiB. It reports failures through t and closes the cache with t.Cleanup.
//
// One subtest waits for an entry to expire. A cache may round to whole seconds.
// Only options that set the number of parallel writers apply.
func RunCache(t *testing.T, open func(t *testing.T) store.Cache, options ...Option) {
	t.Helper()
	set := set(options)
	for _, s := range cacheTests {
		t.Run(s.name, func(t *testing.T) {
			s.run(&cacheHarness{T: t, cache: open(t), settings: set})
		})
	}
}

type cacheScenario struct {
	name string
	run  func(h *cacheHarness)
}

// cacheHarness is a scenario's test and its own empty cache.
type cacheHarness struct {
	*testing.T
	settings
	cache store.Cache
}

// added stores an entry and returns its token.
func (h *cacheHarness) added(id store.ID, entry []byte) uint64 {
	h.Helper()
	token, err := h.cache.Add(h.Context(), id, entry, time.Hour)
	if err != nil {
		h.Fatalf("Add: %v, want it added", err)
	}
	return token
}

// holds fails the test unless the cache has that entry, and returns its token.
func (h *cacheHarness) holds(id store.ID, want []byte) uint64 {
	h.Helper()
	got, token, err := h.cache.Get(h.Context(), id)
	if err != nil {
		h.Fatalf("Get: %v, want an entry of %d bytes", err, len(want))
	}
	if !bytes.Equal(got, want) {
		h.Fatalf("Get: %d bytes, want %d others", len(got), len(want))
	}
	return token
}

func (h *cacheHarness) lacks(id store.ID) {
	h.Helper()
	if _, _, err := h.cache.Get(h.Context(), id); !errors.Is(err, store.ErrNotFound) {
		h.Fatalf("Get: %v, want store.ErrNotFound", err)
	}
}

func (h *cacheHarness) swapped(id store.ID, token uint64, entry []byte) {
	h.Helper()
	if err := h.cache.Swap(h.Context(), id, token, entry, time.Hour); err != nil {
		h.Fatalf("Swap: %v, want it replaced", err)
	}
}

// conflicts fails the test unless a swap is refused. why says what goes wrong
// otherwise.
func (h *cacheHarness) conflicts(id store.ID, token uint64, why string) {
	h.Helper()
	if err := h.cache.Swap(h.Context(), id, token, []byte("a stale copy"), time.Hour); !errors.Is(err, store.ErrConflict) {
		h.Fatalf("Swap: %v, want store.ErrConflict: %s", err, why)
	}
}

func (h *cacheHarness) deleted(id store.ID) {
	h.Helper()
	if err := h.cache.Delete(h.Context(), id); err != nil {
		h.Fatalf("Delete: %v", err)
	}
}

var cacheTests = []cacheScenario{
	{"an entry copied under another key is not that session's copy", func(h *cacheHarness) {
		s, err := tiered.New(memory.New(), tiered.Layer{Cache: h.cache, MaxStale: time.Hour, Timeout: 10 * time.Second})
		if err != nil {
			h.Fatal(err)
		}
		victim, own := login(newUser()), first()
		for _, rec := range []store.Record{victim, own} {
			if err := s.Save(h.Context(), rec, store.Base{}); err != nil {
				h.Fatalf("Save: %v", err)
			}
			if _, err := s.Load(h.Context(), rec.ID); err != nil { // fills the cache
				h.Fatalf("Load: %v", err)
			}
		}
		entry, _, err := h.cache.Get(h.Context(), victim.ID)
		if err != nil {
			h.Fatalf("the cache has no copy to steal: %v", err)
		}
		if err := h.cache.Delete(h.Context(), own.ID); err != nil {
			h.Fatalf("Delete: %v", err)
		}
		h.added(own.ID, entry)
		for range 2 {
			rec, err := s.LoadFrom(h.Context(), own.ID, 1)
			if err != nil {
				h.Fatalf("LoadFrom: %v", err)
			}
			if diff := difference(rec, own); diff != "" {
				h.Fatalf("the store answers with the copy of another session:\n%s", diff)
			}
		}
		if rec, err := s.LoadFrom(h.Context(), victim.ID, 1); err != nil || rec.ID != victim.ID {
			h.Errorf("the session that it was copied from: %v", err)
		}
	}},

	{"an unknown key is not found", func(h *cacheHarness) {
		h.lacks(newID())
	}},

	{"what was added is there, under the token that Add returned", func(h *cacheHarness) {
		id := newID()
		token := h.added(id, []byte("one"))
		if got := h.holds(id, []byte("one")); got != token {
			h.Errorf("Get returned token %d, Add %d", got, token)
		}
		h.swapped(id, token, []byte("two"))
		h.holds(id, []byte("two"))
	}},

	{"Add does not replace", func(h *cacheHarness) {
		id := newID()
		token := h.added(id, []byte("one"))
		if _, err := h.cache.Add(h.Context(), id, []byte("two"), time.Hour); !errors.Is(err, store.ErrConflict) {
			h.Fatalf("a second Add: %v, want store.ErrConflict: two readers would both think that the lease is theirs", err)
		}
		if got := h.holds(id, []byte("one")); got != token {
			h.Errorf("the refused Add changed the token")
		}
	}},

	{"an entry can be swapped again and again", func(h *cacheHarness) {
		id := newID()
		h.added(id, []byte("0"))
		for i := range 10 {
			token := h.holds(id, fmt.Append(nil, i))
			h.swapped(id, token, fmt.Append(nil, i+1))
		}
		h.holds(id, []byte("10"))
	}},

	{"Swap refuses a token from before another Swap", func(h *cacheHarness) {
		id := newID()
		token := h.added(id, []byte("one"))
		h.swapped(id, token, []byte("two"))
		h.conflicts(id, token, "a slow reader would put an old copy over a newer one")
		h.holds(id, []byte("two"))
	}},

	{"Swap refuses a token of equal bytes from before", func(h *cacheHarness) {
		id := newID()
		token := h.added(id, []byte("one"))
		h.swapped(id, token, []byte("one"))
		h.conflicts(id, token, "it is not the same entry")
		deleted := h.holds(id, []byte("one"))
		h.deleted(id)
		if again := h.added(id, []byte("one")); again == deleted {
			h.Errorf("two entries have the same token %d", again)
		}
		h.conflicts(id, deleted, "a reader from before an end would bring the session back")
		h.holds(id, []byte("one"))
	}},

	{"Swap does not create", func(h *cacheHarness) {
		id := newID()
		const why = "a reader from before an end would bring the session back"
		h.conflicts(id, 0, why)
		h.conflicts(id, 1, why)
		token := h.added(id, []byte("one"))
		h.deleted(id)
		h.conflicts(id, token, why)
		h.lacks(id)
	}},

	{"Swap refuses another key's token", func(h *cacheHarness) {
		a, b := newID(), newID()
		h.added(a, []byte("a"))
		token := h.added(b, []byte("b"))
		if err := h.cache.Swap(h.Context(), a, token, []byte("b"), time.Hour); !errors.Is(err, store.ErrConflict) {
			h.Fatalf("Swap: %v, want store.ErrConflict", err)
		}
		h.holds(a, []byte("a"))
	}},

	{"Delete removes, and may find nothing", func(h *cacheHarness) {
		id := newID()
		h.deleted(id)
		h.added(id, []byte("one"))
		h.deleted(id)
		h.lacks(id)
		h.deleted(id)
		h.added(id, []byte("two"))
		h.holds(id, []byte("two"))
	}},

	{"an entry expires, and not before a Swap's own time", func(h *cacheHarness) {
		short, long := newID(), newID()
		for _, id := range []store.ID{short, long} {
			token, err := h.cache.Add(h.Context(), id, []byte("one"), time.Second)
			if err != nil {
				h.Fatalf("Add: %v", err)
			}
			if id == long {
				h.swapped(id, token, []byte("two"))
			}
		}
		deadline := time.Now().Add(30 * time.Second)
		for {
			_, _, err := h.cache.Get(h.Context(), short)
			if errors.Is(err, store.ErrNotFound) {
				break
			}
			if err != nil {
				h.Fatalf("Get: %v", err)
			}
			if time.Now().After(deadline) {
				h.Fatal("an entry for one second is still there after 30: an entry that cannot be deleted would be used forever")
			}
			<-time.After(20 * time.Millisecond)
		}
		h.holds(long, []byte("two"))
	}},

	{"a short or long time to live is one", func(h *cacheHarness) {
		for _, ttl := range []time.Duration{time.Nanosecond, time.Millisecond, 400 * 24 * time.Hour} {
			if _, err := h.cache.Add(h.Context(), newID(), []byte("one"), ttl); err != nil {
				h.Errorf("Add for %v: %v", ttl, err)
			}
		}
	}},

	{"every kind of entry is kept", func(h *cacheHarness) {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		for name, entry := range map[string][]byte{
			"empty":               {},
			"one zero byte":       {0},
			"every byte value":    all,
			"protocol look-alike": []byte("\r\nEND\r\n$-1\r\n*3\r\n\x00"),
			"512 KiB":             noise(512 << 10),
		} {
			id := newID()
			h.added(id, entry)
			got, token, err := h.cache.Get(h.Context(), id)
			if err != nil || !bytes.Equal(got, entry) {
				h.Errorf("%s: %d bytes and %v, want %d bytes", name, len(got), err, len(entry))
				continue
			}
			h.swapped(id, token, entry)
			h.holds(id, entry)
		}
	}},

	{"nearly equal keys are apart", func(h *cacheHarness) {
		a := newID()
		b, c := a, a
		b[15] ^= 1
		c[0] ^= 0x80
		h.added(a, []byte("a"))
		h.added(b, []byte("b"))
		h.lacks(c)
		h.deleted(a)
		h.lacks(a)
		h.holds(b, []byte("b"))
	}},

	{"of many that add at once, one wins", func(h *cacheHarness) {
		for range h.some(rounds) {
			id := newID()
			var wins atomic.Int64
			var winner atomic.Value
			together(h.writers, func(i int) {
				entry := fmt.Append(nil, i)
				switch _, err := h.cache.Add(h.Context(), id, entry, time.Hour); {
				case err == nil:
					wins.Add(1)
					winner.Store(entry)
				case !errors.Is(err, store.ErrConflict):
					h.Errorf("Add: %v", err)
				}
			})
			if n := wins.Load(); n != 1 {
				h.Fatalf("%d of %d added under the same key, want exactly 1", n, h.writers)
			}
			h.holds(id, winner.Load().([]byte))
		}
	}},

	{"of many that swap on one token, one wins", func(h *cacheHarness) {
		for range h.some(rounds) {
			id := newID()
			token := h.added(id, []byte("one"))
			var wins atomic.Int64
			var winner atomic.Value
			together(h.writers, func(i int) {
				entry := fmt.Append(nil, i)
				switch err := h.cache.Swap(h.Context(), id, token, entry, time.Hour); {
				case err == nil:
					wins.Add(1)
					winner.Store(entry)
				case !errors.Is(err, store.ErrConflict):
					h.Errorf("Swap: %v", err)
				}
			})
			if n := wins.Load(); n != 1 {
				h.Fatalf("%d of %d swapped on the same token, want exactly 1", n, h.writers)
			}
			h.holds(id, winner.Load().([]byte))
		}
	}},
}
