package stored

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// cached is a rig whose store has a cache that keeps volatile values. Any other
// type than tiered.Memory counts as shared between replicas.
func cached(t *testing.T) (*rig, store.Cache) {
	shared := struct{ store.Cache }{tiered.NewMemory(1 << 20)}
	rows, err := tiered.New(memory.New(), tiered.Layer{Cache: shared, MaxStale: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	g := newRigOn(t, rows)
	g.Sessions, g.other = g.sessions(rows, g.Ring()), g.sessions(rows, g.Ring())
	return g, shared
}

// tick changes a volatile value.
func tick(value string) func(*draft.Draft) {
	return func(d *draft.Draft) { d.Set(draft.Slot{Name: "v", Flags: record.Volatile}, []byte(value), false) }
}

// fresh loads a session as a request does.
func (g *rig) fresh(s *Sessions, who Who) *State {
	g.t.Helper()
	st, err := s.Load(g.ctx(), who, 1)
	g.must(err)
	return s.WithVolatile(g.ctx(), st)
}

func TestVolatileValuesAreKeptInACache(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*draft.Draft)
		kept bool
		want string
	}{
		"a volatile value":              {tick("2"), true, "a=1 v=2"},
		"one is removed":                {func(d *draft.Draft) { d.Remove("v") }, true, "a=1"},
		"an update":                     {func(d *draft.Draft) { _, _, _ = d.Update(draft.Slot{Name: "v", Flags: record.Volatile}, more, false) }, true, "a=1 v=1x"},
		"a durable one, too":            {func(d *draft.Draft) { tick("2")(d); set("a", "2")(d) }, false, ""},
		"a durable one":                 {set("a", "2"), false, ""},
		"a durable one set to the same": {func(d *draft.Draft) { d.Set(draft.Slot{Name: "a"}, []byte("1"), true); tick("2")(d) }, true, "a=1 v=2"},
		"a value that becomes durable":  {func(d *draft.Draft) { d.Set(draft.Slot{Name: "a", Flags: record.Volatile}, []byte("1"), false) }, false, ""},
		"too large":                     {tick(string(make([]byte, 5000))), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := cached(t)
				st := g.put("", "a=1 v=1")
				st = g.fresh(g.Sessions, st.Who) // so that the cache has a copy
				version := g.row(st.ID).Version
				got, err := g.SaveVolatile(t.Context(), change(st, test.do))
				if err != nil || (got != nil) != test.kept || (g.seen.of("volatile") == 1) != test.kept {
					t.Fatalf("got %v, %v, observed %v", got, err, g.seen.count)
				}
				if g.row(st.ID).Version != version {
					t.Error("the record was written")
				}
				if !test.kept {
					return
				}
				seen := g.fresh(g.other, st.Who)
				if text(&seen.Rec) != test.want || text(&got.Rec) != test.want || seen.Volatile != got.Volatile || !got.Floor().Volatile {
					t.Errorf("others see %q, this one %q, want %q", text(&seen.Rec), text(&got.Rec), test.want)
				}
				// The next durable change writes them down.
				res, err := g.save(g.other, change(seen, set("b", "9")))
				g.must(err)
				if got := g.values(st.Who); got != text(&res.State.Rec) || g.fresh(g.Sessions, st.Who).Volatile != 0 {
					t.Errorf("written down: %q, want %q", got, text(&res.State.Rec))
				}
			})
		})
	}
}

func TestParallelVolatileIncrementsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := cached(t)
		st := g.fresh(g.Sessions, g.put("", "v=").Who)
		inc := func(d *draft.Draft) { _, _, _ = d.Update(draft.Slot{Name: "v", Flags: record.Volatile}, more, false) }
		for _, s := range []*Sessions{g.Sessions, g.other, g.Sessions} { // all on the same state
			if got, err := s.SaveVolatile(t.Context(), change(st, inc)); err != nil || got == nil {
				t.Fatalf("%v, %v", got, err)
			}
		}
		seen := g.fresh(g.other, st.Who)
		if text(&seen.Rec) != "v=xxx" {
			t.Errorf("got %q", text(&seen.Rec))
		}
		// A durable change that was made before them carries them over.
		if res, err := g.save(g.Sessions, change(seen, set("a", "1"))); err != nil || text(&res.State.Rec) != "a=1 v=xxx" {
			t.Errorf("%v, %q", err, text(&res.State.Rec))
		}
	})
}

func TestVolatileValuesOfAConflictAreCarriedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := cached(t)
		first := g.fresh(g.Sessions, g.put("", "v=").Who)
		_, err := g.save(g.other, change(first, set("a", "1")))
		g.must(err)
		second := g.fresh(g.other, first.Who)
		if got, err := g.other.SaveVolatile(t.Context(), change(second, tick("7"))); err != nil || got == nil {
			t.Fatalf("%v, %v", got, err)
		}
		if res, err := g.save(g.Sessions, change(first, set("b", "2"))); err != nil || text(&res.State.Rec) != "a=1 b=2 v=7" {
			t.Errorf("%v, %q", err, text(&res.State.Rec))
		}
	})
}

func TestWithoutTheCacheVolatileValuesAreWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, cache := cached(t)
		st := g.fresh(g.Sessions, g.put("", "a=1 v=1").Who)
		g.must(cache.Delete(t.Context(), st.ID)) // evicted, or ended elsewhere
		if got, err := g.SaveVolatile(t.Context(), change(st, tick("2"))); got != nil || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		plain := newRig(t)
		st = plain.put("", "v=1")
		if got, err := plain.SaveVolatile(t.Context(), change(st, tick("2"))); got != nil || err != nil || plain.KeepsVolatile() || !g.KeepsVolatile() {
			t.Errorf("a store without caches: %v, %v", got, err)
		}
		if plain.WithVolatile(t.Context(), st) != st {
			t.Error("it has other values")
		}
	})
}

// keeper is a store that keeps volatile values without checks.
type keeper struct {
	store.Store
	kept store.Volatile
	err  error
}

func (k *keeper) LoadVolatile(context.Context, store.ID, store.Base) (store.Volatile, error) {
	return k.kept, k.err
}

func (k *keeper) SaveVolatile(_ context.Context, _ store.ID, _ store.Base, _ store.SaveID, next store.Volatile, _ time.Time) error {
	if k.err == nil {
		k.kept = next
	}
	return k.err
}

func TestVolatileValuesOfAnotherStateAreNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		k := &keeper{Store: g.rows}
		s := g.sessions(k, g.Ring())
		st, other := g.put("", "v=1"), g.put("", "v=2")
		got, err := s.SaveVolatile(t.Context(), change(st, tick("9")))
		g.must(err)
		for name, test := range map[string]struct {
			st      *State
			want    string
			damaged int
		}{
			"that state":      {st, "v=9", 0},
			"another session": {other, "v=2", 1},
			"a later state": {func() *State {
				res, err := g.save(g.other, change(st, set("a", "1")))
				g.must(err)
				return res.State
			}(), "a=1 v=1", 1},
			"one whose times were mended": {func() *State { m := *st; m.Mended = true; return &m }(), "v=1", 0},
		} {
			before := g.seen.of("damaged")
			if seen := s.WithVolatile(t.Context(), test.st); text(&seen.Rec) != test.want || g.seen.of("damaged")-before != test.damaged {
				t.Errorf("%s: %q, want %q, observed %v", name, text(&seen.Rec), test.want, g.seen.count)
			}
		}
		// After four conflicts, or a failure, the record must be written.
		for _, err := range []error{store.ErrConflict, store.ErrNotFound, errors.New("away")} {
			k.err = err
			if got, err := s.SaveVolatile(t.Context(), change(st, tick("3"))); got != nil || err != nil {
				t.Errorf("%v: %v, %v", k.err, got, err)
			}
			if seen := s.WithVolatile(t.Context(), st); seen != st {
				t.Errorf("%v: %q", k.err, text(&seen.Rec))
			}
		}
		if got.Where != rules.Stored || got.Meta.Base() != st.Meta.Base() {
			t.Errorf("the state is another: %+v", got.Meta)
		}
	})
}

func TestAVolatileChangeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		s := g.sessions(&keeper{Store: g.rows}, g.Ring())
		st := g.put("", "v=1")
		no, calls := errors.New("no"), 0
		c := change(st, func(d *draft.Draft) {
			_, _, _ = d.Update(draft.Slot{Name: "v", Flags: record.Volatile}, func([]byte, bool) ([]byte, error) {
				if calls++; calls > 1 {
					return nil, no
				}
				return []byte("2"), nil
			}, false)
		})
		c.Base = g.put("", "v=3") // as if it had changed meanwhile
		if got, err := s.SaveVolatile(t.Context(), c); got != nil || !errors.Is(err, no) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}
