package tiered_test

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

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// watched is an origin that counts its calls, and whose feed can fail.
type watched struct {
	*memory.Store
	loads, polls atomic.Int64
	silent       atomic.Bool
	gone         atomic.Bool  // the feed refuses every cursor
	forgetful    atomic.Bool  // it has swept its tombstones, and returns none
	lacking      bool         // the store says that it has no feed
	slow         atomic.Int64 // how long an answer of the feed is on its way, as a time.Duration
	answered     atomic.Value // of func(), which is called, once, before a load returns
}

func (w *watched) Load(ctx context.Context, id store.ID) (store.Record, error) {
	w.loads.Add(1)
	rec, err := w.Store.Load(ctx, id)
	if f, _ := w.answered.Swap(func() {}).(func()); f != nil {
		f()
	}
	return rec, err
}

func (w *watched) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	w.polls.Add(1)
	switch {
	case w.lacking:
		return store.EndPage{}, errors.ErrUnsupported
	case w.silent.Load(), w.gone.Load() && cursor != store.FeedFromNow:
		return store.EndPage{}, errCrash
	}
	w.gone.Store(false)
	page, err := w.Store.Ends(ctx, cursor, limit)
	if w.forgetful.Load() {
		page.Ends = nil
	}
	select {
	case <-time.After(time.Duration(w.slow.Load())):
		return page, err
	case <-ctx.Done():
		return store.EndPage{}, ctx.Err()
	}
}

// nearby is a replica with a cache in its process, and an origin that others use.
type nearby struct {
	*testing.T
	origin *watched
	here   *tiered.Store
	id     store.ID
}

func newNearby(t *testing.T, layers ...tiered.Layer) *nearby {
	n := &nearby{T: t, origin: &watched{Store: memory.New()}, id: store.ID{7}}
	layers = append([]tiered.Layer{{Cache: tiered.NewMemory(1 << 20), Logger: quiet}}, layers...)
	here, err := tiered.New(n.origin, layers...)
	if err != nil {
		t.Fatal(err)
	}
	n.here = here
	t.Cleanup(func() { time.Sleep(3 * time.Second) }) // a poll may be under way
	now := time.Now()
	rec := store.Record{ID: n.id, Version: 1, SaveIDs: []store.SaveID{1}, Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: []byte("x")}
	if err := n.origin.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatal(err)
	}
	return n
}

// live reports whether a request here, whose browser has seen version 1, finds the
// session.
func (n *nearby) live() bool {
	n.Helper()
	rec, err := n.here.LoadFrom(n.Context(), n.id, 1)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		n.Fatal(err)
	}
	return err == nil && !rec.IsEnd()
}

// asks returns how often the origin was asked while requests came for d, every
// 100 ms.
func (n *nearby) asks(d time.Duration) int64 {
	n.Helper()
	before := n.origin.loads.Load()
	for start := time.Now(); time.Since(start) < d; time.Sleep(100 * time.Millisecond) {
		if !n.live() {
			n.Fatal("the session is not found")
		}
	}
	return n.origin.loads.Load() - before
}

// goesOn ends the session in another process and returns how long requests here
// still find it.
func (n *nearby) goesOn() time.Duration {
	n.Helper()
	if err := n.origin.Delete(n.Context(), n.id, time.Now().Add(time.Hour)); err != nil {
		n.Fatal(err)
	}
	start := time.Now()
	for n.live() {
		if time.Since(start) > time.Minute {
			n.Fatal("the session goes on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func within(t *testing.T, d, limit time.Duration) {
	t.Helper()
	if d > limit {
		t.Errorf("a session that has ended went on for %v, want at most %v", d, limit)
	}
}

func TestCopiesInTheProcessLiveLongWhileEndsAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(2 * time.Second) // the feed was read, and a copy was made since
		if got := n.asks(29 * time.Second); got > 1 {
			t.Errorf("the store was asked %d times in 29 s", got)
		}
		if polls := n.origin.polls.Load(); polls > 31000/400+2 {
			t.Errorf("the feed was read %d times in 31 s", polls)
		}
		within(t, n.goesOn(), time.Second)
	})
}

func TestCopiesInTheProcessLiveForASecondWhereEndsAreNotHeard(t *testing.T) {
	for name, silence := range map[string]func(*watched){
		"the feed does not answer": func(w *watched) { w.silent.Store(true) },
		"the store has none":       func(w *watched) { w.lacking = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNearby(t)
				silence(n.origin)
				if got := n.asks(20 * time.Second); got < 15 || got > 21 {
					t.Errorf("the store was asked %d times in 20 s, want about once a second", got)
				}
				within(t, n.goesOn(), time.Second+10*time.Millisecond)
			})
		})
	}
}

func TestAFeedThatFallsSilentIsNoWordThatNobodyHasEnded(t *testing.T) {
	for _, silence := range []time.Duration{200 * time.Millisecond, 900 * time.Millisecond, 3 * time.Second, 40 * time.Second} {
		t.Run(silence.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNearby(t)
				n.asks(3 * time.Second)
				n.origin.silent.Store(true)
				time.AfterFunc(silence, func() { n.origin.silent.Store(false) })
				time.Sleep(silence / 2)
				within(t, n.goesOn(), time.Second+10*time.Millisecond)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(3 * time.Second)
		n.origin.silent.Store(true)
		if got := n.asks(10 * time.Second); got < 7 {
			t.Errorf("the store was asked %d times in 10 s without a feed", got)
		}
		n.origin.silent.Store(false)
		n.asks(2 * time.Second)
		if got := n.asks(20 * time.Second); got > 1 {
			t.Errorf("the store was asked %d times in 20 s after the feed came back", got)
		}
		within(t, n.goesOn(), time.Second)
	})
}

// Ends between two unrelated polls of the feed are missed.
func TestEndsInAGapOfTheFeedAreNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		poll := tiered.HearByHand(n.here)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(poll(t.Context()))
		time.Sleep(time.Millisecond)
		n.live() // a copy whose ends are read
		n.origin.silent.Store(true)
		for range 5 { // its place may be gone: it starts again
			if poll(t.Context()) == nil {
				t.Fatal("a silent feed has answered")
			}
		}
		must(n.origin.Delete(t.Context(), n.id, time.Now().Add(time.Hour)))
		n.origin.silent.Store(false)
		time.Sleep(900 * time.Millisecond)
		must(poll(t.Context()))
		time.Sleep(200 * time.Millisecond)
		if n.live() {
			t.Error("a copy of before the gap is used after it")
		}
	})
}

func TestAFeedThatStartsLateConfirmsNothingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		poll := tiered.HearByHand(n.here)
		n.live()
		time.Sleep(100 * time.Millisecond)
		if err := n.origin.Delete(t.Context(), n.id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(400 * time.Millisecond)
			if err := poll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n.live() {
			t.Error("a copy from before the feed was heard lives longer than a second")
		}
	})
}

func TestAnEndOfThisProcessCountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(3 * time.Second)
		if err := n.here.Delete(t.Context(), n.id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n.live() {
			t.Error("the session goes on")
		}
	})
}

// A shared cache may be unreachable for the process that ends a session. A
// process that receives the end ignores the cache's copy.
func TestAnEndThatWasHeardCountsMoreThanASharedCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t, tiered.Layer{Cache: newCache(), Logger: quiet})
		n.asks(3 * time.Second)
		within(t, n.goesOn(), time.Second) // the shared cache misses the end
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			if n.live() {
				t.Fatal("the session is back")
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // the feed begins when the copy is there already
		shared := newCache()
		n := newNearby(t, tiered.Layer{Cache: shared, Logger: quiet})
		n.live()
		other := newNearby(t, tiered.Layer{Cache: shared, Logger: quiet}) // with its own, unused origin
		if err := n.origin.Delete(t.Context(), n.id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for other.live() && other.origin.loads.Load() == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d > 31*time.Second {
			t.Errorf("a copy of the shared cache was used for %v", d)
		}
	})
}

func TestUnheardIsWhatIsConfigured(t *testing.T) {
	for _, test := range []struct {
		layer  tiered.Layer
		end    time.Duration
		noFeed bool
		lives  time.Duration
	}{
		{tiered.Layer{MaxStale: 500 * time.Millisecond}, 500 * time.Millisecond, true, 500 * time.Millisecond},
		{tiered.Layer{MaxStale: 5 * time.Second, Unheard: 5 * time.Second}, 5 * time.Second, true, 5 * time.Second},
		{tiered.Layer{MaxStale: 10 * time.Second, Unheard: 2 * time.Second}, 2 * time.Second, false, 10 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v, %v", test.layer.MaxStale, test.layer.Unheard), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNearby(t)
				test.layer.Cache, test.layer.Logger = tiered.NewMemory(1<<20), quiet
				here, err := tiered.New(n.origin, test.layer)
				if err != nil {
					t.Fatal(err)
				}
				n.here = here
				n.asks(3 * time.Second)
				if got, want := n.asks(20*time.Second), int64(20*time.Second/test.lives); got < want*4/5-1 || got > want*6/5+1 {
					t.Errorf("the store was asked %d times in 20 s, want about %d", got, want)
				}
				if polls := n.origin.polls.Load(); (polls == 0) != test.noFeed {
					t.Errorf("the feed was read %d times", polls)
				}
				within(t, n.goesOn(), test.end+10*time.Millisecond)
			})
		})
	}
}

func TestTheFeedIsReadOnlyWhileCopiesAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		time.Sleep(time.Minute)
		if got := n.origin.polls.Load(); got != 0 {
			t.Errorf("read %d times before anybody came", got)
		}
		n.asks(time.Second)
		time.Sleep(time.Minute)
		before := n.origin.polls.Load()
		time.Sleep(time.Minute)
		if got := n.origin.polls.Load() - before; got != 0 {
			t.Errorf("read %d times after everybody had gone", got)
		}
		if err := n.origin.Delete(t.Context(), n.id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n.live() {
			t.Error("what ended meanwhile is found")
		}
	})
}

// The streams of all managers, and the copies, share one poll of the feed.
func TestTheFeedIsReadOnceForAllInTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		var seen []store.End
		cursor := store.FeedFromNow
		read := func() {
			t.Helper()
			for more := true; more; {
				page, err := n.here.Ends(t.Context(), cursor, 2)
				if err != nil {
					t.Fatal(err)
				}
				cursor, more = page.Cursor, page.More
				seen = append(seen, page.Ends...)
			}
		}
		read()
		for i := range 50 {
			n.live()
			id := store.ID{8, byte(i)}
			if i < 5 {
				if err := n.origin.Delete(t.Context(), id, time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(400 * time.Millisecond)
			read()
		}
		if polls := n.origin.polls.Load(); polls > 75 {
			t.Errorf("the feed was read %d times while it was asked for 51 times in 20 s", polls)
		}
		ids := map[store.ID]bool{}
		for _, e := range seen {
			ids[e.ID] = true
		}
		if len(ids) != 5 {
			t.Errorf("heard of %d ends, want 5: %v", len(ids), seen)
		}
		for _, bad := range []string{"tiered.", "tiered.1", "tiered.x.1", "tiered.1.-1", "tiered.999.0", "tiered.0.0"} {
			if page, err := n.here.Ends(t.Context(), bad, 10); err == nil {
				t.Errorf("cursor %q: %+v", bad, page)
			} else if strings.Contains(err.Error(), "%!") {
				t.Error(err)
			}
		}
	})
}

// Every order of two processes' actions, of polls of the feed, and of passing
// time: an ended session is found for at most a second.
func TestNoInterleavingLetsAnEndGoUnheard(t *testing.T) {
	const bound = time.Second
	cast := func(started, filled, silent bool, asks, polls, times int) func(t *testing.T, o *orders) string {
		return func(t *testing.T, o *orders) string {
			st := newStage(o)
			origin := memory.New()
			isSilent := false
			db := stagedStore{origin, st, "here", func() bool { isSilent = silent && !isSilent; return isSilent }}
			n := newNearby(t)
			near := stagedCache{tiered.NewMemory(1 << 20), st, "near", "here"}
			here, err := tiered.New(db, tiered.Layer{Cache: near, MaxStale: 30 * time.Second, Unheard: bound, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			tiered.SetInProcess(here, 0)
			poll := tiered.HearByHand(here)
			rec, err := n.origin.Store.Load(t.Context(), n.id)
			if err == nil {
				err = origin.Save(t.Context(), rec, store.Base{})
			}
			if err != nil {
				t.Fatal(err)
			}
			if started {
				_ = poll(t.Context())
			}
			time.Sleep(time.Millisecond)
			if filled {
				_, _ = here.LoadFrom(t.Context(), n.id, 1)
			}
			var mu sync.Mutex
			var ended time.Time
			var problems []string
			read := func(ctx context.Context) {
				st.uses("here", writes)
				st.uses("ended", reads)
				mu.Lock()
				over := !ended.IsZero() && time.Since(ended) > bound
				mu.Unlock()
				rec, err := here.LoadFrom(ctx, n.id, 1)
				if err == nil && !rec.IsEnd() && over {
					mu.Lock()
					problems = append(problems, "a session that ended more than a second ago is found")
					mu.Unlock()
				}
			}
			st.play(t, actors{
				"reader": func(ctx context.Context) {
					for range asks {
						read(ctx)
					}
				},
				"end": func(ctx context.Context) {
					st.uses("store", writes)
					st.uses("ended", writes)
					if err := origin.Delete(ctx, n.id, time.Now().Add(time.Hour)); err != nil {
						t.Error(err)
					}
					mu.Lock()
					ended = time.Now()
					mu.Unlock()
				},
				"poll": func(ctx context.Context) {
					for range polls {
						st.uses("here", writes)
						_ = poll(ctx)
					}
				},
				timeActor: func(ctx context.Context) {
					for range times - 1 { // its start is one
						st.step(ctx, "passes")
					}
				},
			})
			time.Sleep(bound + time.Millisecond)
			read(t.Context())
			if len(problems) > 0 {
				t.Fatalf("%s\n%s", strings.Join(problems, "\n"), strings.Join(st.trace, "\n"))
			}
			return st.outcome()
		}
	}
	for name, run := range map[string]func(*testing.T, *orders) string{
		"a copy, and the feed is heard": cast(true, true, false, 1, 2, 3),
		"two reads":                     cast(true, true, false, 2, 1, 2),
		"the feed starts late":          cast(false, true, false, 1, 2, 2),
		"no copy yet":                   cast(true, false, false, 1, 1, 2),
		"the feed fails once":           cast(true, true, true, 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			count := everyOrder(t, func(o *orders) (outcome string) {
				synctest.Test(t, func(t *testing.T) { outcome = run(t, o) })
				return outcome
			})
			t.Logf("%d interleavings", count)
		})
	}
}
