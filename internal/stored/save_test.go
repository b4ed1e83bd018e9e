package stored

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/store"
)

// holdFirst lets the first save wait until release is called.
func (g *rig) holdFirst() (release func()) {
	free, first := make(chan struct{}), atomic.Bool{}
	g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
		if first.CompareAndSwap(false, true) {
			<-free
		}
		return g.rows.Save(ctx, r, base)
	}
	return func() { close(free) }
}

func TestCommitsThatWaitAreSavedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "n=")
		release := g.holdFirst()
		const n = 50
		var wg sync.WaitGroup
		results := make([]Result, n)
		for i := range n {
			wg.Go(func() {
				res, err := g.save(g.Sessions, change(st, update("n", more)))
				if err != nil {
					t.Error(err)
				}
				results[i] = res
			})
		}
		synctest.Wait() // one is being saved
		release()
		wg.Wait()
		if got, want := g.values(st.Who), "n="+strings.Repeat("x", n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if saves := g.db.Saves.Load(); saves != 3 || g.seen.of("conflict") != 0 {
			t.Errorf("%d saves, observed %v", saves, g.seen.count)
		}
		// Each gets the result of its own change, and whether later changes follow.
		mine, ahead := map[string]bool{}, 0
		for _, res := range results {
			mine[text(&res.Mine)] = true
			if !res.Behind {
				ahead++
				if text(&res.Mine) != text(&res.State.Rec) {
					t.Errorf("%q is not behind %q", text(&res.Mine), text(&res.State.Rec))
				}
			}
		}
		if len(mine) != n || ahead != 2 {
			t.Errorf("%d different results, %d of them the last of their save", len(mine), ahead)
		}
	})
}

func TestParallelIncrementsOfTwoProcessesAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "n=")
		var wg sync.WaitGroup
		for _, s := range []*Sessions{g.Sessions, g.other} {
			for range 30 {
				wg.Go(func() {
					if _, err := g.save(s, change(st, update("n", more))); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if got := g.values(st.Who); got != "n="+strings.Repeat("x", 60) {
			t.Errorf("got %q", got)
		}
	})
}

func TestAConflictIsMergedKeyByKey(t *testing.T) {
	for name, test := range map[string]struct {
		theirs, mine func(*draft.Draft)
		want         string
		err          error
	}{
		"other keys":            {set("a", "2"), set("b", "3"), "a=2 b=3", nil},
		"the same key":          {set("a", "2"), set("a", "3"), "a=3", nil},
		"an update runs again":  {set("a", "2"), update("a", more), "a=2x", nil},
		"removed":               {func(d *draft.Draft) { d.Remove("a") }, set("b", "3"), "b=3", nil},
		"taken by somebody":     {take("a"), take("a"), "", fault.Taken},
		"taken, another is set": {set("b", "2"), take("a"), "b=2", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "a=1")
			if _, err := g.save(g.other, change(st, test.theirs)); err != nil {
				t.Fatal(err)
			}
			res, err := g.save(g.Sessions, change(st, test.mine))
			if !errors.Is(err, test.err) || test.err == nil && (err != nil || text(&res.Mine) != test.want) || g.values(st.Who) != test.want {
				t.Errorf("%s: %v, %q, want %q", name, err, g.values(st.Who), test.want)
			}
			if g.seen.of("conflict") != 1 {
				t.Errorf("%s: observed %v", name, g.seen.count)
			}
		})
	}
}

// A save without an answer is sent again with its save ID and is applied once,
// and its real outcome is reported.
func TestAnUnknownOutcomeIsResolved(t *testing.T) {
	for name, test := range map[string]struct {
		applied func(try int) bool // before its answer is lost
		answers int                // which try is answered; 0 = none
		want    string
		err     error
		retried int
	}{
		"applied, and the answer lost":   {func(int) bool { return true }, 2, "n=x", nil, 1},
		"not applied":                    {func(int) bool { return false }, 2, "n=x", nil, 1},
		"the third try":                  {func(try int) bool { return try == 2 }, 3, "n=x", nil, 2},
		"the last try":                   {func(int) bool { return true }, 4, "n=x", nil, 3},
		"no answer at all, but applied":  {func(int) bool { return true }, 0, "n=x", fault.ErrUnknown, 3},
		"no answer at all, nor anything": {func(int) bool { return false }, 0, "n=", fault.ErrUnknown, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "n=")
			try := 0
			g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
				try++
				if try == test.answers {
					return g.rows.Save(ctx, r, base)
				}
				if test.applied(try) {
					_ = g.rows.Save(ctx, r, base)
				}
				return faults.ErrLost
			}
			_, err := g.save(g.Sessions, change(st, update("n", more)))
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) || err != nil && !errors.Is(err, fault.Unavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if got := g.values(st.Who); got != test.want || g.seen.of("retried") != test.retried {
				t.Errorf("%s: %q, observed %v", name, got, g.seen.count)
			}
		})
	}
}

// Another save comes between the save whose answer was lost and the second
// attempt: it was applied, and is not applied twice.
func TestAnUnknownOutcomeIsResolvedAfterOthersHaveSaved(t *testing.T) {
	for _, others := range []int{1, store.RecentSaveIDs - 1, store.RecentSaveIDs} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "n=")
			first := true
			mine := g.sessions(hooked{g.db, func(ctx context.Context, r store.Record, base store.Base) error {
				if !first {
					return g.rows.Save(ctx, r, base)
				}
				first = false
				g.must(g.rows.Save(ctx, r, base))
				for range others {
					cur, err := g.Load(g.ctx(), st.Who, 0)
					g.must(err)
					_, err = g.save(g.other, change(cur, update("n", more)))
					g.must(err)
				}
				return faults.ErrLost
			}}, g.Ring())
			_, err := g.save(mine, change(st, update("n", more)))
			known := others < store.RecentSaveIDs
			if known && err != nil || !known && !errors.Is(err, fault.ErrUnknown) {
				t.Errorf("%d others: %v", others, err)
			}
			if got, want := g.values(st.Who), "n="+strings.Repeat("x", others+1); got != want {
				t.Errorf("%d others: %q, want %q", others, got, want)
			}
		})
	}
}

// hooked is a store whose saves call a hook.
type hooked struct {
	store.Store
	save func(context.Context, store.Record, store.Base) error
}

func (h hooked) Save(ctx context.Context, r store.Record, base store.Base) error {
	return h.save(ctx, r, base)
}

func TestASaveEndsWithItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "n=")
		g.db.OnSave = func(ctx context.Context, _ store.Record, _ store.Base) error {
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 { // one at work, and two that wait
			wg.Go(func() {
				if _, err := g.save(g.Sessions, change(st, set("n", "1"))); !errors.Is(err, fault.Unavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > g.Timeout {
			t.Errorf("it took %v", took)
		}
		g.db.OnSave = nil
		if _, err := g.save(g.Sessions, change(st, set("n", "2"))); err != nil || g.values(st.Who) != "n=2" {
			t.Errorf("afterwards: %v, %q", err, g.values(st.Who))
		}
	})
}

// inline is an inline session.
func inline(counter uint64, values string) *State {
	st := &State{Who: NewWho(), Where: rules.Inline, Rec: rec("", values)}
	st.Rec.Header.Counter, st.Rec.Header.Created = counter, time.Now().UnixMilli()
	for i := range st.Rec.Fields() {
		st.Rec.Fields()[i].Stamp = counter
	}
	return st
}

func TestACookieJoinsTheSessionThatItBecameForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		began := time.Now()
		st := inline(2, "a=1")
		c := change(st, set("b", "2"))
		c.Visit = Visit{"agent", "::1"}
		res, err := g.save(g.Sessions, c)
		if h := res.State.Rec.Header; err != nil || h.PromotedAt != 2 || h.UserAgent != "agent" || h.IP != "::1" || h.Counter != 0 ||
			h.Promoted != time.Now().UnixMilli() || h.InlineUntil != time.Now().Add(24*time.Hour).UnixMilli() {
			t.Fatalf("%+v, %v", h, err)
		}
		later := *st // another request has changed the cookie
		later.Rec = inline(3, "a=1 c=3").Rec
		for i, step := range []struct {
			arrived time.Duration
			st      *State
			want    string
			err     error
		}{
			{0, st, "a=1 b=2 k=0", nil},
			{time.Second, &later, "a=1 b=2 c=3 k=1", nil},
			{g.limits.OldFor(), st, "a=1 b=2 c=3 k=2", nil},
			{g.limits.OldFor() + 1, st, "a=1 b=2 c=3 k=2", ErrMovedOn},
		} {
			c := change(step.st, set("k", fmt.Sprint(i)))
			c.Arrived = began.Add(step.arrived)
			if _, err := g.save(g.other, c); !errors.Is(err, step.err) || step.err == nil && err != nil {
				t.Errorf("step %d: %v", i, err)
			}
			if got := g.values(st.Who); got != step.want {
				t.Errorf("step %d: %q, want %q", i, got, step.want)
			}
		}
		time.Sleep(time.Hour / 2)
		slow := change(st, set("k", "9"))
		slow.Arrived = began
		if _, err := g.save(g.other, slow); err != nil {
			t.Errorf("a request that came in time is late to commit: %v", err)
		}
		g.must(g.Delete(g.ctx(), res.State))
		if _, err := g.save(g.other, change(st, set("k", "9"))); how(err) != "ended" {
			t.Errorf("the cookie brings it back: %v", err)
		}
	})
}

func TestAPanicOfAnUpdateIsItsOwnCallersAlone(t *testing.T) {
	for who, bad := range map[string]int{"the one who leads": 1, "one that is led": 2} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st := g.put("", "n=")
				release := g.holdFirst()
				var wg sync.WaitGroup
				panicked := make([]any, 4)
				for i := range panicked {
					wg.Go(func() {
						defer func() { panicked[i] = recover() }()
						calls := 0
						c := change(st, update("n", func(raw []byte, ok bool) ([]byte, error) {
							if calls++; calls > 1 && i == bad {
								panic("boom")
							}
							return more(raw, ok)
						}))
						if _, err := g.save(g.Sessions, c); err != nil {
							t.Errorf("%d: %v", i, err)
						}
					})
					synctest.Wait() // so that it is known who leads
				}
				release()
				wg.Wait()
				for i, p := range panicked {
					if (p != nil) != (i == bad) {
						t.Errorf("%d panicked with %v", i, p)
					}
				}
				if got := g.values(st.Who); got != "n=xxx" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestAChangeThatFailsAloneFailsAlone(t *testing.T) {
	no := errors.New("no")
	for name, test := range map[string]struct {
		do  func(*draft.Draft)
		err error
	}{
		"an update fails": {update("n", func(raw []byte, _ bool) ([]byte, error) {
			if len(raw) > 0 {
				return nil, no
			}
			return []byte("x"), nil
		}), no},
		"too large":         {set("b", strings.Repeat("x", 5000)), fault.TooLarge},
		"taken by somebody": {take("one"), fault.Taken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st := g.put("", "n= one=1")
				release := g.holdFirst()
				var wg sync.WaitGroup
				for i, do := range []func(*draft.Draft){
					func(d *draft.Draft) { take("one")(d); update("n", more)(d) }, update("n", more), test.do, update("n", more),
				} {
					wg.Go(func() {
						want := error(nil)
						if i == 2 {
							want = test.err
						}
						if _, err := g.save(g.Sessions, change(st, do)); !errors.Is(err, want) || want == nil && err != nil {
							t.Errorf("%d: %v", i, err)
						}
					})
					synctest.Wait()
				}
				release()
				wg.Wait()
				if got := g.values(st.Who); got != "n=xxx" || g.db.Saves.Load() != 3 {
					t.Errorf("%q, %d saves", got, g.db.Saves.Load())
				}
			})
		})
	}
}

// A store may have its own limit. One change above it must not fail the others
// in its save.
func TestWhatIsTooLargeForTheStoreFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "n=")
		release := g.holdFirst()
		held := g.db.OnSave
		g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
			if len(r.Data) > 1000 {
				return store.ErrTooLarge
			}
			return held(ctx, r, base)
		}
		var wg sync.WaitGroup
		for i, do := range []func(*draft.Draft){update("n", more), update("n", more), set("b", strings.Repeat("x", 2000)), update("n", more)} {
			wg.Go(func() {
				if _, err := g.save(g.Sessions, change(st, do)); errors.Is(err, fault.TooLarge) != (i == 2) || i != 2 && err != nil {
					t.Errorf("%d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		release()
		wg.Wait()
		if got := g.values(st.Who); got != "n=xxx" {
			t.Errorf("got %q", got)
		}
	})
}

// After a store has lost writes, as in a failover, versions continue above
// those that browsers have seen, so that a later state does not look earlier.
func TestLostWritesAreContinuedAboveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		old := g.row(st.ID)
		cur := st
		for i := range 3 {
			res, err := g.save(g.Sessions, change(cur, set("a", fmt.Sprint(i))))
			g.must(err)
			cur = res.State
		}
		g.plant(old)
		res, err := g.save(g.Sessions, change(cur, set("b", "1")))
		if err != nil || res.State.Meta.Version != cur.Meta.Version+1 || g.seen.of("lost") != 1 || g.values(st.Who) != "a=1 b=1" {
			t.Errorf("%v, version %d after %d, %q, observed %v", err, res.State.Meta.Version, cur.Meta.Version, g.values(st.Who), g.seen.count)
		}
		above := change(res.State, set("b", "2"))
		above.Above = 90
		if res, err := g.save(g.Sessions, above); err != nil || res.State.Meta.Version != 91 {
			t.Errorf("%v, version %d, want 91", err, res.State.Meta.Version)
		}
	})
}

func TestWhatCountsAsActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		began := time.Now()
		save := func(quiet bool) time.Duration {
			time.Sleep(time.Minute)
			c := change(st, set("a", fmt.Sprint(quiet)))
			c.Quiet = quiet
			res, err := g.save(g.Sessions, c)
			g.must(err)
			st = res.State
			return st.Meta.Seen.Sub(began)
		}
		for i, want := range []time.Duration{0, 2 * time.Minute, 2 * time.Minute} {
			if got := save(i != 1); got != want {
				t.Errorf("step %d: seen after %v, want %v", i, got, want)
			}
		}
		// A slow clock does not move times backwards, but a new timeout does.
		g.Now = func() time.Time { return began }
		if got := save(false); got != 2*time.Minute {
			t.Errorf("a clock that is behind: seen after %v", got)
		}
		res, err := g.save(g.Sessions, change(st, func(d *draft.Draft) { d.SetExpiry(1000, 0) }))
		g.must(err)
		if row := g.row(st.ID); row.Deadline.Sub(began) != time.Second || !res.State.Meta.Deadline.Equal(row.Deadline) {
			t.Errorf("a shorter timeout: until %v", row.Deadline.Sub(began))
		}
	})
}

func TestOnlyOneOfASaveIsToldOfItsRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		release := g.holdFirst()
		var wg sync.WaitGroup
		var told atomic.Int64
		for i := range 4 {
			wg.Go(func() {
				res, err := g.save(g.Sessions, change(st, func(d *draft.Draft) {
					if i > 0 {
						d.Rotate(0, time.Minute)
					} else {
						d.Set(draft.Slot{Name: "b"}, nil, true)
					}
				}))
				if err != nil {
					t.Error(err)
				}
				if res.Rotated {
					told.Add(1)
				}
			})
			synctest.Wait()
		}
		release()
		wg.Wait()
		cur, err := g.Load(g.ctx(), st.Who, 0)
		if err != nil || cur.Rec.Header.Generation != 1 || told.Load() != 1 {
			t.Errorf("generation %d, told %d, %v", cur.Rec.Header.Generation, told.Load(), err)
		}
	})
}

func TestWhatIsKeptOfAHeaderInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		r := rec("ada", "a=1")
		r.Header.Identifier = make([]byte, record.IdentifierSize)
		r.Header.Counter, r.Header.Seen, r.Header.Expires = 5, 6, 7
		st, err := g.Insert(g.ctx(), r, NewWho(), store.UserLimit{}, nil)
		g.must(err)
		cur, err := g.Load(g.ctx(), st.Who, 0)
		g.must(err)
		if h := cur.Rec.Header; len(h.Identifier) != 0 || h.Counter != 0 || h.Seen != 0 || h.Expires != 0 || h.Created != time.Now().UnixMilli() {
			t.Errorf("kept %+v", h)
		}
		row := g.row(st.ID)
		if row.User != g.UserHash("ada") || row.Version != 1 || len(row.SaveIDs) != 1 || time.Until(row.Deadline) != time.Hour || time.Until(row.Expires) != 24*time.Hour {
			t.Errorf("the row is %v for %v of %v", row, row.Deadline, row.User)
		}
		if f := cur.Floor(); f.ID != st.ID || f.Version != 1 || f.Volatile {
			t.Errorf("the floor is %+v", f)
		}
	})
}
