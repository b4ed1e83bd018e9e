package tiered_test

import (
	"context"
	"errors"
	"fmt"
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

// The tests below run the real code through every interleaving of a few actors:
// each call to a cache or to the origin waits until a scheduler lets it go, and
// the scheduler tries all orders.

// stage is where the actors of one run meet.
type stage struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
	trace   []string
}

type actorKey struct{}

// step waits for the scheduler. Calls from outside an actor go ahead.
func (st *stage) step(ctx context.Context, what string) {
	name, _ := ctx.Value(actorKey{}).(string)
	if name == "" {
		return
	}
	st.mu.Lock()
	turn := make(chan struct{})
	st.waiting[name] = turn
	st.mu.Unlock()
	<-turn
	st.mu.Lock()
	st.trace = append(st.trace, name+" "+what)
	st.mu.Unlock()
}

// play starts the actors and lets them go one call at a time, in the order that
// choices says, then in the first possible one. It returns how many actors
// could go at each point.
func (st *stage) play(t *testing.T, actors map[string]func(ctx context.Context), choices []int) (options []int) {
	for name, act := range actors {
		ctx := context.WithValue(t.Context(), actorKey{}, name)
		go func() {
			st.step(ctx, "starts")
			act(ctx)
		}()
	}
	for {
		synctest.Wait()
		st.mu.Lock()
		names := make([]string, 0, len(st.waiting))
		for name := range st.waiting {
			names = append(names, name)
		}
		if len(names) == 0 {
			st.mu.Unlock()
			return options
		}
		slices.Sort(names)
		pick := 0
		if len(options) < len(choices) {
			pick = choices[len(options)]
		}
		options = append(options, len(names))
		turn := st.waiting[names[pick]]
		delete(st.waiting, names[pick])
		st.mu.Unlock()
		close(turn)
	}
}

// everyOrder calls run with every sequence of choices, and returns how many
// there are; the first 2000 of them under the race detector. run returns how
// many options each point had.
func everyOrder(run func(choices []int) (options []int)) int {
	var choices []int
	for n := 1; ; n++ {
		if raceDetector && n == 2000 {
			return n
		}
		options := run(choices)
		for len(choices) < len(options) {
			choices = append(choices, 0)
		}
		i := len(choices) - 1
		for ; i >= 0 && choices[i]+1 == options[i]; i-- {
		}
		if i < 0 {
			return n
		}
		choices = append(choices[:i:i], choices[i]+1)
	}
}

// stagedCache is a cache whose calls wait for their turn.
type stagedCache struct {
	*tiered.Memory
	st *stage
}

func (c stagedCache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	c.st.step(ctx, "cache get")
	return c.Memory.Get(ctx, id)
}

func (c stagedCache) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	c.st.step(ctx, "cache add")
	return c.Memory.Add(ctx, id, entry, ttl)
}

func (c stagedCache) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	c.st.step(ctx, "cache swap")
	return c.Memory.Swap(ctx, id, token, entry, ttl)
}

func (c stagedCache) Delete(ctx context.Context, id store.ID) error {
	c.st.step(ctx, "cache delete")
	return c.Memory.Delete(ctx, id)
}

// stagedStore is an origin whose calls wait for their turn.
type stagedStore struct {
	*memory.Store
	st *stage
}

func (s stagedStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.st.step(ctx, "store load")
	return s.Store.Load(ctx, id)
}

func (s stagedStore) Save(ctx context.Context, rec store.Record, base store.Base) error {
	s.st.step(ctx, "store save")
	return s.Store.Save(ctx, rec, base)
}

func (s stagedStore) Delete(ctx context.Context, id store.ID, until time.Time) error {
	s.st.step(ctx, "store delete")
	return s.Store.Delete(ctx, id, until)
}

func (s stagedStore) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	s.st.step(ctx, "store touch")
	return s.Store.Touch(ctx, id, seen, deadline)
}

// scene is one run: a session in version 1, replicas that share a cache, and
// what the actors have completed so far.
type scene struct {
	t      *testing.T
	st     *stage
	origin *memory.Store
	shared *tiered.Memory
	// Each replica has its own Store: what one has in flight the others cannot
	// know.
	replicas []*tiered.Store

	id       store.ID
	mu       sync.Mutex
	ended    bool   // an end has returned
	written  uint64 // newest version whose Save has returned
	problems []string
}

func (sc *scene) fail(format string, args ...any) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.problems = append(sc.problems, fmt.Sprintf(format, args...))
}

func newScene(t *testing.T, cached bool) *scene {
	sc := &scene{t: t, st: &stage{waiting: map[string]chan struct{}{}}, origin: memory.New(), id: store.ID{7}, written: 1}
	sc.shared = tiered.NewMemory(1 << 20)
	for range 2 {
		s, err := tiered.New(stagedStore{sc.origin, sc.st}, tiered.Layer{Cache: stagedCache{sc.shared, sc.st}, MaxStale: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		sc.replicas = append(sc.replicas, s)
	}
	if err := sc.origin.Save(t.Context(), sc.version(1), store.Base{}); err != nil {
		t.Fatal(err)
	}
	if cached {
		if _, err := sc.replicas[0].LoadFrom(t.Context(), sc.id, 1); err != nil {
			t.Fatal(err)
		}
	}
	return sc
}

func (sc *scene) version(n uint64) store.Record {
	now := time.Now().UTC()
	rec := store.Record{ID: sc.id, Version: n, Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: []byte{byte(n)}}
	for i := n; i > 0; i-- {
		rec.Tags = append(rec.Tags, store.Tag(i))
	}
	return rec
}

// reader reads with the floor of a browser that has seen version 1.
func (sc *scene) reader(replica int) func(context.Context) {
	return func(ctx context.Context) {
		sc.mu.Lock()
		ended := sc.ended
		sc.mu.Unlock()
		rec, err := sc.replicas[replica].LoadFrom(ctx, sc.id, 1)
		switch {
		case err != nil && !errors.Is(err, store.ErrNotFound):
			sc.fail("read: %v", err)
		case err == nil && !rec.IsEnd() && ended:
			sc.fail("a read that began after the end saw version %d alive", rec.Version)
		case err == nil && !rec.IsEnd() && rec.Version < 1:
			sc.fail("a read saw version %d, below its floor", rec.Version)
		}
	}
}

// writer makes the next version of whatever the origin holds.
func (sc *scene) writer(replica int) func(context.Context) {
	return func(ctx context.Context) {
		for {
			cur, err := sc.replicas[replica].LoadFrom(ctx, sc.id, 0)
			if err != nil || cur.IsEnd() {
				return
			}
			next := sc.version(cur.Version + 1)
			err = sc.replicas[replica].Save(ctx, next, cur.Base())
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			if err != nil {
				sc.fail("write: %v", err)
				return
			}
			sc.mu.Lock()
			sc.written = max(sc.written, next.Version)
			sc.mu.Unlock()
			return
		}
	}
}

func (sc *scene) ender(replica int) func(context.Context) {
	return func(ctx context.Context) {
		if err := sc.replicas[replica].Delete(ctx, sc.id, time.Now().Add(time.Hour)); err != nil {
			sc.fail("end: %v", err)
			return
		}
		sc.mu.Lock()
		sc.ended = true
		sc.mu.Unlock()
	}
}

func (sc *scene) toucher(replica int) func(context.Context) {
	return func(ctx context.Context) {
		now := time.Now().UTC().Add(time.Minute)
		if err := sc.replicas[replica].Touch(ctx, sc.id, now, now.Add(time.Hour)); err != nil && !errors.Is(err, store.ErrNotFound) {
			sc.fail("touch: %v", err)
		}
	}
}

// evictor is the cache dropping what it has no room for; a restart of the
// server looks the same from outside.
func (sc *scene) evictor(ctx context.Context) {
	sc.st.step(ctx, "evicts")
	_ = sc.shared.Delete(context.Background(), sc.id)
}

// settled checks what the cache holds once everybody is done.
func (sc *scene) settled() {
	origin, err := sc.origin.Load(sc.t.Context(), sc.id)
	if err != nil {
		sc.fail("origin: %v", err)
		return
	}
	if b, _, err := sc.shared.Get(sc.t.Context(), sc.id); err == nil && len(b) > 0 && b[0] == 1 {
		var copied store.Record
		switch err := copied.UnmarshalBinary(b[1:]); {
		case err != nil:
			sc.fail("the cache holds garbage: %v", err)
		case origin.IsEnd():
			sc.fail("the cache holds version %d of a session that has ended", copied.Version)
		case copied.Version != origin.Version:
			sc.fail("the cache holds version %d, the origin %d", copied.Version, origin.Version)
		}
	}
	if !origin.IsEnd() && origin.Version < sc.written {
		sc.fail("the origin holds version %d, and %d was acknowledged", origin.Version, sc.written)
	}
}

func TestNoInterleavingLeavesAStaleCopyBehind(t *testing.T) {
	type cast = func(sc *scene) map[string]func(context.Context)
	casts := map[string]cast{
		"reader, writer, end": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"reader": sc.reader(0), "writer": sc.writer(1), "end": sc.ender(0)}
		},
		"two readers, end": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"reader": sc.reader(0), "reader2": sc.reader(1), "end": sc.ender(1)}
		},
		"reader, end, eviction": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"reader": sc.reader(0), "end": sc.ender(1), "cache": sc.evictor}
		},
		"reader, writer, eviction": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"reader": sc.reader(0), "writer": sc.writer(1), "cache": sc.evictor}
		},
		"reader, touch, end": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"reader": sc.reader(0), "touch": sc.toucher(0), "end": sc.ender(1)}
		},
		"two writers": func(sc *scene) map[string]func(context.Context) {
			return map[string]func(context.Context){"writer": sc.writer(0), "writer2": sc.writer(1)}
		},
	}
	for name, cast := range casts {
		for _, cached := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cached=%t", name, cached), func(t *testing.T) {
				t.Parallel()
				n := everyOrder(func(choices []int) (options []int) {
					synctest.Test(t, func(t *testing.T) {
						sc := newScene(t, cached)
						options = sc.st.play(t, cast(sc), choices)
						sc.settled()
						if len(sc.problems) > 0 {
							t.Fatalf("%s\n%s", strings.Join(sc.problems, "\n"), strings.Join(sc.st.trace, "\n"))
						}
					})
					return options
				})
				t.Logf("%d interleavings", n)
			})
		}
	}
}
