package tiered_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func (n *nearby) end(id store.ID) {
	n.Helper()
	if err := n.origin.Delete(n.Context(), id, time.Now().Add(time.Hour)); err != nil {
		n.Fatal(err)
	}
}

func (n *nearby) ends(cursor string, limit int) store.EndPage {
	n.Helper()
	page, err := n.here.Ends(n.Context(), cursor, limit)
	if err != nil {
		n.Fatal(err)
	}
	return page
}

// A slow answer shows the state at the time of its request.
func TestAnAnswerOfTheFeedIsAsOldAsItsQuestion(t *testing.T) {
	for _, slow := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond} {
		for phase := range 10 {
			synctest.Test(t, func(t *testing.T) {
				n := newNearby(t)
				n.origin.slow.Store(int64(slow))
				n.asks(5*time.Second + time.Duration(phase)*170*time.Millisecond)
				within(t, n.goesOn(), time.Second+10*time.Millisecond)
			})
		}
	}
}

func TestALoadWaitsForNoFeedThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(3 * time.Second)
		n.origin.slow.Store(int64(time.Hour))
		start := time.Now()
		n.live()
		if d := time.Since(start); d != 0 {
			t.Errorf("a load took %v", d)
		}
		if got := n.asks(20 * time.Second); got < 15 {
			t.Errorf("the store was asked %d times in 20 s of a feed that hangs", got)
		}
		n.origin.polls.Store(0)
		if n.asks(20 * time.Second); n.origin.polls.Load() > 11 {
			t.Errorf("%d questions are under way", n.origin.polls.Load())
		}
		n.origin.slow.Store(0)
		n.asks(3 * time.Second)
		if got := n.asks(20 * time.Second); got > 1 {
			t.Errorf("the store was asked %d times in 20 s after the feed came back", got)
		}
	})
}

// The session ends after the store's answer and before its arrival, and the
// feed begins after that.
func TestACopyIsAsOldAsTheQuestionThatItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		poll := tiered.HearByHand(n.here)
		n.origin.answered.Store(func() {
			time.Sleep(100 * time.Millisecond)
			n.end(n.id)
			time.Sleep(100 * time.Millisecond)
			if err := poll(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		})
		n.live()
		for range 3 {
			time.Sleep(400 * time.Millisecond)
			if err := poll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n.live() {
			t.Error("an answer that was on its way when the session ended is used more than a second later")
		}
	})
}

// A copy in a shared cache replaced one that its reader had found half a minute
// earlier, so its state can be older than its time to live.
func TestASharedCopyCanBeOlderThanItsTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newCache()
		n := newNearby(t, tiered.Layer{Cache: shared, Logger: quiet})
		other, err := tiered.New(n.origin, tiered.Layer{Cache: shared, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		load := func() {
			if _, err := other.LoadFrom(t.Context(), n.id, 2); err != nil {
				t.Error(err)
			}
		}
		if _, err := other.LoadFrom(t.Context(), n.id, 1); err != nil {
			t.Fatal(err)
		}
		rec, err := n.origin.Store.Load(t.Context(), n.id)
		if err != nil {
			t.Fatal(err)
		}
		base := rec.Base()
		rec.Version, rec.SaveIDs = 2, []store.SaveID{2, 1}
		if err := n.origin.Save(t.Context(), rec, base); err != nil {
			t.Fatal(err)
		}
		n.origin.answered.Store(func() { time.Sleep(28 * time.Second) })
		go load()
		synctest.Wait()
		time.Sleep(time.Second)
		n.end(n.id)
		start := time.Now()
		n.ends(store.FeedFromNow, 1) // here the feed begins
		for time.Since(start) < 56*time.Second {
			time.Sleep(400 * time.Millisecond)
			_, _ = n.here.LoadFrom(t.Context(), store.ID{9}, 1)
		}
		if !n.live() {
			t.Fatal("the shared cache has no copy")
		}
		for time.Since(start) < 62*time.Second {
			time.Sleep(100 * time.Millisecond)
			_, _ = n.here.LoadFrom(t.Context(), store.ID{9}, 1)
		}
		if n.live() {
			t.Error("a copy of before the feed began is used although nobody can know that its session goes on")
		}
	})
}

// Received ends stay known through a gap of the feed.
func TestAGapOfTheFeedMakesNobodyForget(t *testing.T) {
	for _, gap := range []time.Duration{5 * time.Second, 25 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := newNearby(t, tiered.Layer{Cache: newCache(), MaxStale: time.Minute, Logger: quiet})
			n.asks(3 * time.Second)
			within(t, n.goesOn(), time.Second) // the shared cache misses the end
			n.origin.silent.Store(true)
			for start := time.Now(); time.Since(start) < 2*gap; time.Sleep(100 * time.Millisecond) {
				if time.Since(start) > gap {
					n.origin.silent.Store(false)
				}
				if n.live() {
					t.Fatalf("%v later the session is back", time.Since(start))
				}
			}
		})
	}
}

// During an outage only copies answer: for Unheard, because the feed fails.
func TestInAnOutageOfTheStoreCopiesInTheProcessAnswerForUnheard(t *testing.T) {
	for _, test := range []struct{ unheard, answers time.Duration }{{0, time.Second}, {5 * time.Second, 5 * time.Second}, {time.Minute, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := newNearby(t)
			here, err := tiered.New(n.origin, tiered.Layer{Cache: tiered.NewMemory(1 << 20), Unheard: test.unheard, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			n.here = here
			n.asks(10 * time.Second)
			n.origin.silent.Store(true)
			start := time.Now()
			loads := n.origin.loads.Load()
			for n.live() && n.origin.loads.Load() == loads { // who asks has no copy
				time.Sleep(10 * time.Millisecond)
			}
			least := test.answers - 500*time.Millisecond
			if test.unheard > 30*time.Second {
				least = 0 // the copy was some seconds old already
			}
			if d := time.Since(start); d < least || d > test.answers+10*time.Millisecond {
				t.Errorf("Unheard %v: copies answered for %v of the outage, want %v", test.unheard, d, test.answers)
			}
		})
	}
}

// A mass logout: more sessions end than are remembered.
func TestManyEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(3 * time.Second)
		cursor := n.ends(store.FeedFromNow, 1).Cursor
		behind := cursor
		id, count, heard := store.ID{8}, 0, 0
		_, most := tiered.Remembered(n.here)
		for range 5 {
			for range most/3 + 1 {
				count++
				binary.BigEndian.PutUint32(id[1:], uint32(count))
				n.end(id)
			}
			for more := true; more; {
				page := n.ends(cursor, 1000)
				if len(page.Ends) > 1000 {
					t.Fatalf("a page of %d", len(page.Ends))
				}
				cursor, more = page.Cursor, page.More
				heard += len(page.Ends)
			}
		}
		if heard < count { // the store may tell of some again
			t.Errorf("heard of %d ends, want %d", heard, count)
		}
		if got, _ := tiered.Remembered(n.here); got > most+1000 {
			t.Errorf("%d ends are kept in mind", got)
		}
		if page, err := n.here.Ends(t.Context(), behind, 1000); err == nil {
			t.Errorf("whoever is too far behind gets %d ends, and does not know that some are missing", len(page.Ends))
		}
		n.live() // a copy from after what was forgotten
		if got := n.asks(20 * time.Second); got > 2 {
			t.Errorf("the store was asked %d times in 20 s", got)
		}
		within(t, n.goesOn(), time.Second)
		time.Sleep(2 * time.Minute)
		n.live()
		time.Sleep(time.Second)
		if got, _ := tiered.Remembered(n.here); got > 1 {
			t.Errorf("%d ends are kept in mind for ever", got)
		}
	})
}

// An end is no longer remembered, and a shared cache that missed it has the
// session. Then that cache's MaxStale is the bound, not the sum of both.
func TestACopyOfWhatWasForgottenIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t, tiered.Layer{Cache: newCache(), Logger: quiet})
		pass := func(d time.Duration) {
			for start := time.Now(); time.Since(start) < d; time.Sleep(400 * time.Millisecond) {
				_, _ = n.here.LoadFrom(t.Context(), store.ID{9}, 1)
			}
		}
		pass(70 * time.Second)
		n.live() // fills the shared cache
		copied := time.Now()
		n.end(n.id)
		pass(time.Second)
		id := store.ID{8}
		_, most := tiered.Remembered(n.here)
		for i := range most + 2000 {
			binary.BigEndian.PutUint32(id[1:], uint32(i))
			n.end(id)
		}
		pass(2 * time.Second)
		pass(time.Until(copied.Add(29 * time.Second)))
		if !n.live() {
			t.Fatal("the end is known: the test shows nothing")
		}
		pass(time.Until(copied.Add(32 * time.Second)))
		if n.live() {
			t.Error("the session goes on")
		}
	})
}

func TestACursorOfAnotherStoreIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := newNearby(t), newNearby(t)
		for range 3 {
			cursor := there.ends(store.FeedFromNow, 1).Cursor
			here.ends(store.FeedFromNow, 1)
			if page, err := here.here.Ends(t.Context(), cursor, 10); err == nil {
				t.Errorf("%q: %+v", cursor, page)
			}
			here.end(store.ID{8})
			there.end(store.ID{8})
		}
	})
}

// Two managers read the feed independently, and both receive all ends.
func TestEveryReaderOfTheFeedHearsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		quick, lazy := n.ends(store.FeedFromNow, 1).Cursor, ""
		heard := map[string]map[store.ID]bool{"quick": {}, "lazy": {}}
		read := func(name, cursor string, limit int) string {
			for more := true; more; {
				page := n.ends(cursor, limit)
				for _, e := range page.Ends {
					heard[name][e.ID] = true
				}
				cursor, more = page.Cursor, page.More
			}
			return cursor
		}
		for i := range 100 {
			if i == 10 {
				lazy = read("lazy", store.FeedFromNow, 1)
			}
			n.end(store.ID{8, byte(i)})
			quick = read("quick", quick, 1)
			if i > 10 && i%25 == 0 {
				lazy = read("lazy", lazy, 3)
			}
			time.Sleep(time.Second)
		}
		read("lazy", lazy, 3)
		if len(heard["quick"]) != 100 || len(heard["lazy"]) < 90 {
			t.Errorf("heard of %d and %d ends, want 100 and 90", len(heard["quick"]), len(heard["lazy"]))
		}
	})
}

// A cursor is refused after a gap. Then a manager restarts the feed and checks
// each session.
func TestStreamsSurviveAGapOfTheFeed(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 1700 * time.Millisecond, 2100 * time.Millisecond, 10 * time.Second, time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNearby(t)
				stop, cancel := context.WithCancel(t.Context())
				defer cancel()
				var watches []*ends.Watch
				for i := range 2 { // managers
					time.Sleep(time.Duration(i) * 150 * time.Millisecond)
					f := ends.New(stop, ends.Options{
						Store: n.here, Now: time.Now,
						Read: func(ctx context.Context, feed store.EndFeed, cursor string, limit int) (store.EndPage, error) {
							return feed.Ends(ctx, cursor, limit)
						},
					})
					look := func(ctx context.Context, id store.ID) (time.Time, error) {
						rec, err := n.here.Load(ctx, id)
						if err == nil && rec.IsEnd() {
							err = fault.Ended
						}
						return rec.Deadline, err
					}
					w := f.Watch(n.id, look, time.Now(), time.Now().Add(time.Hour))
					defer w.Release()
					watches = append(watches, w)
				}
				n.asks(5 * time.Second)
				n.origin.silent.Store(true)
				n.asks(outage / 2)
				n.end(n.id)
				time.Sleep(outage / 2)
				n.origin.silent.Store(false)
				time.Sleep(2500 * time.Millisecond)
				for i, w := range watches {
					if !errors.Is(w.Err(), fault.Ended) {
						t.Errorf("manager %d has not heard of the end: %v", i, w.Err())
					}
				}
			})
		})
	}
}

// The server has lost its data, including the position in the feed.
func TestAFeedWhosePlaceIsGoneIsBegunAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t)
		n.asks(3 * time.Second)
		n.origin.gone.Store(true)
		n.asks(5 * time.Second)
		if got := n.asks(20 * time.Second); got > 1 {
			t.Errorf("the store was asked %d times in 20 s after the feed had found a place", got)
		}
		within(t, n.goesOn(), time.Second)
	})
}

// No request has come for longer than the store keeps tombstones.
func TestWhatEndedWhileNobodyListenedIsNotConfirmed(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 20 * time.Second, time.Minute, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			n := newNearby(t)
			here, err := tiered.New(n.origin, tiered.Layer{Cache: tiered.NewMemory(1 << 20), MaxStale: time.Hour, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			n.here = here
			n.asks(3 * time.Second)
			n.end(n.id)
			time.Sleep(idle)
			n.origin.forgetful.Store(idle > 30*time.Second)
			start := time.Now()
			for range 100 {
				if n.live() && idle+time.Since(start) > time.Second {
					t.Errorf("%v after its end the session is found", idle+time.Since(start))
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

func TestHealthTellsWhetherEndsAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNearby(t, tiered.Layer{Cache: newCache(), Logger: quiet})
		want := func(heard bool) {
			t.Helper()
			if h := n.here.Health(); h[0].Heard != heard || h[0].Unheard != time.Second || h[1].Heard || h[1].Unheard != 0 {
				t.Errorf("%+v, want Heard %v", h, heard)
			}
		}
		want(false)
		n.asks(time.Second)
		want(true)
		n.origin.silent.Store(true)
		n.asks(time.Second)
		want(false)
		n.origin.silent.Store(false)
		n.asks(time.Second)
		want(true)
	})
}

// Every order of a reader that takes a copy from a farther cache, and of a poll
// of the feed, which deletes it: once the end was received, the session is
// gone.
func TestNoInterleavingBringsBackWhatWasHeardToHaveEnded(t *testing.T) {
	for name, farther := range map[string]bool{"a shared cache that nobody told": false, "two caches in the process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			count := everyOrder(t, func(o *orders) (outcome string) {
				synctest.Test(t, func(t *testing.T) {
					st := newStage(o)
					n := newNearby(t)
					origin := memory.New()
					rec, err := n.origin.Store.Load(t.Context(), n.id)
					if err == nil {
						err = origin.Save(t.Context(), rec, store.Base{})
					}
					if err != nil {
						t.Fatal(err)
					}
					near, far := stagedCache{tiered.NewMemory(1 << 20), st, "near", "here"}, stagedCache{tiered.NewMemory(1 << 20), st, "far", "here"}
					n.here, err = tiered.New(stagedStore{origin, st, "here", nil},
						tiered.Layer{Cache: near, MaxStale: 30 * time.Second, Unheard: time.Second, Logger: quiet},
						tiered.Layer{Cache: far, MaxStale: 30 * time.Second, Unheard: time.Second, Logger: quiet})
					if err != nil {
						t.Fatal(err)
					}
					tiered.SetInProcess(n.here, 0)
					if farther {
						tiered.SetInProcess(n.here, 1)
					}
					poll := tiered.HearByHand(n.here)
					if err := poll(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Millisecond)
					n.live()
					if err := near.Memory.Delete(t.Context(), n.id); err != nil {
						t.Fatal(err)
					}
					for _, id := range []store.ID{n.id, {8}} { // a reader may come between their deletions
						if err := origin.Delete(t.Context(), id, time.Now().Add(time.Hour)); err != nil {
							t.Fatal(err)
						}
					}
					st.play(t, actors{
						"reader": func(ctx context.Context) {
							st.uses("here", writes)
							_, _ = n.here.LoadFrom(ctx, n.id, 1)
						},
						"poll": func(ctx context.Context) {
							st.uses("here", writes)
							_ = poll(ctx)
						},
					})
					if n.live() {
						t.Fatalf("the session is back\n%s", strings.Join(st.trace, "\n"))
					}
					outcome = st.outcome()
				})
				return outcome
			})
			t.Logf("%d interleavings", count)
		})
	}
}
