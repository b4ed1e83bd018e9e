package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// stagedCache is a cache whose calls wait for their turn.
type stagedCache struct {
	*tiered.Memory
	st      *stage
	name    string
	process string // that asks
}

func (c stagedCache) step(ctx context.Context, what string, id store.ID, a access) {
	c.st.call(ctx, c.name+" "+what, c.process, c.name+string(id[:]), a)
}

func (c stagedCache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	c.step(ctx, "get", id, reads)
	return c.Memory.Get(ctx, id)
}

func (c stagedCache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	c.step(ctx, "add", id, writes)
	return c.Memory.Add(ctx, id, entry, ttl)
}

func (c stagedCache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	c.step(ctx, "swap", id, writes)
	return c.Memory.Swap(ctx, id, token, entry, ttl)
}

func (c stagedCache) Delete(ctx context.Context, id store.ID) error {
	c.step(ctx, "delete", id, writes)
	return c.Memory.Delete(ctx, id)
}

// stagedStore is an origin whose calls wait for their turn.
type stagedStore struct {
	*memory.Store
	st      *stage
	process string      // that asks
	silent  func() bool // the feed does not answer; nil = it does
}

var errCrash = errors.New("the process has died")

func (s stagedStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.st.call(ctx, "store load", s.process, "store", reads)
	if ctx.Value(actorKey{}) == "crash" {
		return store.Record{}, errCrash
	}
	return s.Store.Load(ctx, id)
}

func (s stagedStore) Save(ctx context.Context, rec store.Record, base store.Base) error {
	s.st.call(ctx, "store save", s.process, "store", writes)
	return s.Store.Save(ctx, rec, base)
}

func (s stagedStore) Delete(ctx context.Context, id store.ID, until time.Time) error {
	s.st.call(ctx, "store delete", s.process, "store", writes)
	return s.Store.Delete(ctx, id, until)
}

func (s stagedStore) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	s.st.call(ctx, "store ends", s.process, "store", reads)
	if s.silent != nil && s.silent() {
		return store.EndPage{}, errCrash
	}
	return s.Store.Ends(ctx, cursor, limit)
}

func (s stagedStore) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	s.st.call(ctx, "store touch", s.process, "store", writes)
	return s.Store.Touch(ctx, id, seen, deadline)
}

// setting is the initial state of a scene.
type setting struct {
	cached bool          // the caches hold the session when it begins
	near   bool          // replica 0 has a cache in its process
	skew   time.Duration // replica 0's clock is ahead by that much, replica 1's behind
	// volatile: the browsers know that there may be volatile values.
	volatile bool
}

// scene is one run: a session in version 1, replicas that share a cache, and
// what the actors have completed so far.
//
// A record's Data has its version and its volatile value, as for the session
// manager.
type scene struct {
	setting
	t      *testing.T
	st     *stage
	origin *memory.Store
	shared *tiered.Memory
	inside *tiered.Memory // in the process of replica 0; nil = none
	// Each replica has its own Store, without access to the others' calls under
	// way.
	replicas []*tiered.Store
	clocks   []time.Duration

	id       store.ID
	mu       sync.Mutex
	ended    bool            // an end has returned
	written  uint64          // newest version whose Save has returned
	writes   uint64          // how many Saves have returned
	saveIDs  [2]store.SaveID // by replica: they must not depend on who was first
	forgets  bool            // the shared cache may lose entries
	values   map[byte]uint64
	acked    map[uint64]byte // by version: a volatile value whose SaveVolatile has returned
	problems []string
}

func (sc *scene) fail(format string, args ...any) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.problems = append(sc.problems, fmt.Sprintf(format, args...))
}

func newScene(t *testing.T, set setting, o *orders) *scene {
	sc := &scene{
		setting: set, t: t, st: newStage(o), origin: memory.New(), id: store.ID{7}, written: 1,
		shared: tiered.NewMemory(1 << 20), clocks: []time.Duration{set.skew, -set.skew},
		values: map[byte]uint64{}, acked: map[uint64]byte{},
	}
	if set.near {
		sc.inside = tiered.NewMemory(1 << 20)
	}
	for i := range 2 {
		layers := []tiered.Layer{{Cache: stagedCache{sc.shared, sc.st, "cache", process(i)}, MaxStale: time.Hour, Logger: quiet}}
		if i == 0 && set.near {
			layers = slices.Insert(layers, 0, tiered.Layer{Cache: stagedCache{sc.inside, sc.st, "near", process(i)}, MaxStale: time.Hour, Logger: quiet})
		}
		s, err := tiered.New(stagedStore{sc.origin, sc.st, process(i), nil}, layers...)
		if err != nil {
			t.Fatal(err)
		}
		tiered.SetClock(s, func() time.Time { return sc.now(i) })
		if i == 0 && set.near {
			tiered.SetInProcess(s, 0)
		}
		sc.replicas = append(sc.replicas, s)
	}
	if err := sc.origin.Save(t.Context(), sc.version(0, 1, 0), store.Base{}); err != nil {
		t.Fatal(err)
	}
	if set.cached {
		for i := range sc.replicas {
			if _, err := sc.replicas[i].LoadFrom(t.Context(), sc.id, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	return sc
}

// now is the time on a replica's clock.
func (sc *scene) now(replica int) time.Time { return time.Now().UTC().Add(sc.clocks[replica]) }

// version is a record as a replica makes it. Its idle timeout is shorter than
// the difference between the clocks.
func (sc *scene) version(replica int, n uint64, value byte) store.Record {
	now := sc.now(replica)
	rec := store.Record{ID: sc.id, Version: n, Created: now, Seen: now, Deadline: now.Add(time.Minute), Expires: now.Add(time.Hour), Data: []byte{byte(n), value}}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.saveIDs[replica]++
	rec.SaveIDs = []store.SaveID{sc.saveIDs[replica] + store.SaveID(10*replica)}
	return rec
}

// sight is a request's view of the session.
type sight struct {
	rec    store.Record
	value  byte
	saveID store.SaveID // of the volatile values that value is from; 0 = the record's own
}

// look loads the session like a request with that floor; ok means that it is
// live. It fails the test for a state that no request may see.
func (sc *scene) look(ctx context.Context, replica int, floor uint64) (see sight, ok bool) {
	sc.st.uses(process(replica), writes)
	sc.st.uses("ended", reads)
	if sc.volatile {
		sc.st.uses("acked", reads)
	}
	sc.mu.Lock()
	ended, acked := sc.ended, maps.Clone(sc.acked)
	sc.mu.Unlock()
	rec, err := sc.replicas[replica].LoadFrom(ctx, sc.id, floor)
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, errCrash) {
		sc.fail("read: %v", err)
	}
	if err != nil || rec.IsEnd() {
		sc.st.sees(ctx, "nothing")
		return sight{}, false
	}
	if ended {
		sc.fail("a read that began after the end saw version %d alive", rec.Version)
	}
	if rec.Version < floor {
		sc.fail("a read saw version %d, below its floor %d", rec.Version, floor)
	}
	see = sight{rec: rec, value: rec.Data[1]}
	defer func() { sc.st.sees(ctx, see.rec.Version, " ", see.value, " ", see.saveID) }()
	if !sc.volatile {
		return see, true
	}
	if v, err := sc.replicas[replica].LoadVolatile(ctx, sc.id, rec.Base()); err == nil {
		see.value, see.saveID = v.Data[0], v.SaveID
	}
	sc.st.uses("values", reads)
	sc.st.uses("forgets", reads)
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if made := sc.values[see.value]; see.saveID != 0 && made != rec.Version {
		sc.problems = append(sc.problems, fmt.Sprintf("version %d shows a volatile value of version %d", rec.Version, made))
	}
	if acked[rec.Version] != 0 && see.saveID == 0 && !sc.forgets {
		sc.problems = append(sc.problems, fmt.Sprintf("version %d does not show the volatile value that was kept for it", rec.Version))
	}
	return see, true
}

// browser is the floor of a browser that has received all answers so far.
func (sc *scene) browser() uint64 {
	sc.st.uses("written", reads)
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.written
}

func (sc *scene) reader(replica int) func(context.Context) {
	return func(ctx context.Context) { sc.look(ctx, replica, sc.browser()) }
}

// crasher is a reader whose process dies while it asks the origin: its leases
// stay behind.
func (sc *scene) crasher(ctx context.Context) { sc.look(ctx, 1, sc.browser()) }

// writer saves the next version of the origin's state, with the volatile value.
func (sc *scene) writer(replica int) func(context.Context) {
	return func(ctx context.Context) {
		see, ok := sc.look(ctx, replica, sc.browser())
		if ok {
			sc.write(ctx, replica, see, func(s sight) byte { return s.value })
		}
	}
}

func (sc *scene) write(ctx context.Context, replica int, see sight, value func(sight) byte) {
	for ok := true; ok; see, ok = sc.look(ctx, replica, 0) {
		next := sc.version(replica, see.rec.Version+1, value(see))
		err := sc.replicas[replica].Save(ctx, next, see.rec.Base())
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			sc.fail("write: %v", err)
			return
		}
		sc.st.uses("written", writes)
		sc.mu.Lock()
		sc.written = max(sc.written, next.Version)
		sc.writes++
		sc.mu.Unlock()
		return
	}
}

// keeper keeps a volatile value in the cache, or else durably.
func (sc *scene) keeper(replica int, value byte) func(context.Context) {
	return func(ctx context.Context) {
		see, ok := sc.look(ctx, replica, sc.browser())
		for range 3 {
			if !ok {
				return
			}
			base := see.rec.Base()
			sc.st.uses("ended", reads)
			sc.st.uses("values", writes)
			sc.mu.Lock()
			ended := sc.ended
			sc.values[value] = base.Version
			sc.mu.Unlock()
			next := store.Volatile{SaveID: store.SaveID(100 + uint64(value)), Data: []byte{value}}
			err := sc.replicas[replica].SaveVolatile(ctx, sc.id, base, see.saveID, next, see.rec.Expires)
			if err == nil {
				sc.st.uses("acked", writes)
				sc.st.uses("forgets", reads)
				sc.mu.Lock()
				before := sc.acked[base.Version]
				sc.acked[base.Version] = value
				sc.mu.Unlock()
				if before != 0 && before != see.value && !sc.forgets {
					sc.fail("a volatile value took the place of one that its writer had not seen")
				}
				if ended {
					sc.fail("a volatile value was kept after the end")
				}
				return
			}
			if !errors.Is(err, store.ErrConflict) {
				break
			}
			see, ok = sc.look(ctx, replica, see.rec.Version)
		}
		sc.write(ctx, replica, see, func(sight) byte { return value })
	}
}

func (sc *scene) ender(replica int) func(context.Context) {
	return func(ctx context.Context) {
		sc.st.uses(process(replica), writes)
		if err := sc.replicas[replica].Delete(ctx, sc.id, sc.now(replica).Add(time.Hour)); err != nil {
			sc.fail("end: %v", err)
			return
		}
		sc.st.uses("ended", writes)
		sc.mu.Lock()
		sc.ended = true
		sc.mu.Unlock()
	}
}

func (sc *scene) toucher(replica int) func(context.Context) {
	return func(ctx context.Context) {
		sc.st.uses(process(replica), writes)
		now := sc.now(replica).Add(time.Second)
		if err := sc.replicas[replica].Touch(ctx, sc.id, now, now.Add(time.Minute)); err != nil && !errors.Is(err, store.ErrNotFound) {
			sc.fail("touch: %v", err)
		}
	}
}

// evictor makes the shared cache evict entries; a restart of its server has the
// same effect.
func (sc *scene) evictor(context.Context) {
	sc.st.uses("forgets", writes)
	for _, id := range []store.ID{sc.id, tiered.VolatileKey(sc.id)} {
		sc.st.uses("cache"+string(id[:]), writes)
	}
	sc.mu.Lock()
	sc.forgets = true
	sc.mu.Unlock()
	_ = sc.shared.Delete(context.Background(), sc.id)
	_ = sc.shared.Delete(context.Background(), tiered.VolatileKey(sc.id))
}

// restart restarts replica 0, which loses its cache in the process.
func (sc *scene) restart(context.Context) {
	sc.st.uses("near"+string(sc.id[:]), writes)
	_ = sc.inside.Delete(context.Background(), sc.id)
}

// settled checks the caches and the visitor's view after all actors are done,
// and returns the final state.
func (sc *scene) settled() (left []any) {
	for i := range sc.replicas {
		sc.look(sc.t.Context(), i, sc.browser())
	}
	origin, err := sc.origin.Load(sc.t.Context(), sc.id)
	if err != nil {
		sc.fail("origin: %v", err)
		return left
	}
	left = append(left, origin.Version, origin.IsEnd(), origin.Data, origin.Seen)
	for i, c := range []*tiered.Memory{sc.shared, sc.inside} {
		name := []string{"shared cache", "cache of replica 0"}[i]
		if c == nil {
			continue
		}
		left = append(left, name)
		b, _, err := c.Get(sc.t.Context(), sc.id)
		if err != nil || len(b) == 0 || b[0] != 1 {
			continue
		}
		left = append(left, b)
		var copied store.Record
		switch err := copied.UnmarshalBinary(b[1:]); {
		case err != nil:
			sc.fail("the %s holds garbage: %v", name, err)
		case origin.IsEnd():
			sc.fail("the %s holds version %d of a session that has ended", name, copied.Version)
		case copied.Version != origin.Version && c == sc.shared:
			sc.fail("the %s holds version %d, the origin %d", name, copied.Version, origin.Version)
		}
	}
	if !origin.IsEnd() && (origin.Version != sc.written || origin.Version != sc.writes+1) {
		sc.fail("the origin holds version %d after %d acknowledged writes, the last of which was %d", origin.Version, sc.writes, sc.written)
	}
	return left
}

type cast = func(sc *scene) map[string]func(context.Context)

// playAll plays every interleaving of a cast in each of the settings.
func playAll(t *testing.T, casts map[string]cast, settings ...setting) {
	for name, cast := range casts {
		for _, set := range settings {
			t.Run(fmt.Sprintf("%s, %+v", name, set), func(t *testing.T) {
				t.Parallel()
				n := everyOrder(t, func(o *orders) (outcome string) {
					synctest.Test(t, func(t *testing.T) {
						sc := newScene(t, set, o)
						sc.st.play(t, cast(sc))
						outcome = sc.st.outcome(sc.settled()...)
						if len(sc.problems) > 0 {
							t.Fatalf("%s\n%s", strings.Join(sc.problems, "\n"), strings.Join(sc.st.trace, "\n"))
						}
					})
					return outcome
				})
				t.Logf("%d interleavings", n)
			})
		}
	}
}

type actors = map[string]func(context.Context)

func TestNoInterleavingLeavesAStaleCopyBehind(t *testing.T) {
	playAll(t, map[string]cast{
		"reader, writer, end": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "writer": sc.writer(1), "end": sc.ender(0)}
		},
		"two readers, end": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "reader2": sc.reader(1), "end": sc.ender(1)}
		},
		"reader, end, eviction": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "end": sc.ender(1), "cache": sc.evictor}
		},
		"reader, writer, eviction": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "writer": sc.writer(1), "cache": sc.evictor}
		},
		"reader, touch, end": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "touch": sc.toucher(0), "end": sc.ender(1)}
		},
		"two writers": func(sc *scene) actors {
			return actors{"writer": sc.writer(0), "writer2": sc.writer(1)}
		},
		"reader that dies, reader, end": func(sc *scene) actors {
			return actors{"crash": sc.crasher, "reader": sc.reader(0), "end": sc.ender(0)}
		},
		"reader that dies, writer": func(sc *scene) actors {
			return actors{"crash": sc.crasher, "writer": sc.writer(0)}
		},
	}, setting{}, setting{cached: true}, setting{cached: true, skew: time.Minute}, setting{cached: true, skew: -time.Minute})
}

func TestNoInterleavingKeepsAnEndFromTheCacheInTheProcess(t *testing.T) {
	playAll(t, map[string]cast{
		"reader, end": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "end": sc.ender(0)}
		},
		"reader, end, restart": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "end": sc.ender(0), "restart": sc.restart}
		},
		"reader, writer": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "writer": sc.writer(0)}
		},
		"reader, writer elsewhere": func(sc *scene) actors {
			return actors{"reader": sc.reader(0), "writer": sc.writer(1)}
		},
	}, setting{near: true}, setting{near: true, cached: true}, setting{near: true, cached: true, skew: time.Minute})
}

func TestNoInterleavingOfVolatileWritesHarmsTheSession(t *testing.T) {
	playAll(t, map[string]cast{
		"volatile, end": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "end": sc.ender(0)}
		},
		"volatile, reader": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "reader": sc.reader(1)}
		},
		"volatile, writer": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "writer": sc.writer(1)}
		},
		"two volatile": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "volatile2": sc.keeper(1, 12)}
		},
		"volatile, end, eviction": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "end": sc.ender(0), "cache": sc.evictor}
		},
		"volatile, touch": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "touch": sc.toucher(1)}
		},
	}, setting{volatile: true}, setting{volatile: true, cached: true}, setting{volatile: true, cached: true, near: true},
		setting{volatile: true, cached: true, skew: time.Minute})
	playAll(t, map[string]cast{
		"volatile, writer and then volatile": func(sc *scene) actors {
			return actors{"volatile": sc.keeper(0, 11), "writer": func(ctx context.Context) {
				sc.writer(1)(ctx)
				sc.keeper(1, 12)(ctx)
			}}
		},
	}, setting{volatile: true, cached: true})
}
