package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// errand is a request with an outcome set by the test.
type errand struct {
	id     byte
	what   int
	bytes  int
	joins  bool
	before time.Duration // how long it takes
}

func (e errand) session() store.ID { return store.ID{e.id} }
func (e errand) kind() int         { return e.what }
func (e errand) size() int         { return e.bytes }
func (e errand) shares() bool      { return e.joins }

// flights are the sessions of each flight, in the order in which they started.
type flights struct {
	mu  sync.Mutex
	log [][]byte
}

// laneFor returns a lane that notes its flights; each takes as long as its
// slowest errand, or until it is canceled.
func laneFor(limit int, exclusive bool) (*lane[errand, string], *flights) {
	seen := &flights{}
	l := &lane[errand, string]{
		limit: limit, crowd: 1, timeout: time.Hour, exclusive: exclusive,
		busy: map[store.ID]*flight[errand, string]{},
		carry: func(ctx context.Context, calls []*call[errand, string]) ([]*call[errand, string], error) {
			var ids []byte
			var wait time.Duration
			for _, c := range calls {
				ids = append(ids, c.q.id)
				wait = max(wait, c.q.before)
			}
			seen.mu.Lock()
			seen.log = append(seen.log, ids)
			seen.mu.Unlock()
			err := error(nil)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				err = ctx.Err()
			}
			for _, c := range calls {
				c.settle(fmt.Sprint(c.q.id), err)
			}
			return nil, nil
		},
	}
	return l, seen
}

func (f *flights) want(t *testing.T, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	for _, ids := range f.log {
		got = append(got, fmt.Sprint(ids))
	}
	if !slices.Equal(got, want) {
		t.Errorf("flights %v, want %v", got, want)
	}
}

// send starts a request and returns once it waits or flies.
func send(t *testing.T, l *lane[errand, string], e errand) {
	t.Helper()
	go func() {
		if got, err := l.do(t.Context(), e); err != nil || got != fmt.Sprint(e.id) {
			t.Errorf("request %d: %q, %v", e.id, got, err)
		}
	}()
	synctest.Wait()
}

// idle fails the test unless nothing is left of the requests.
func idle(t *testing.T, l *lane[errand, string]) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.busy) != 0 || l.flying != 0 || len(l.waiting) != 0 {
		t.Errorf("left behind: %d sessions, %d flights, %d requests", len(l.busy), l.flying, len(l.waiting))
	}
}

const long = 10 * time.Millisecond // less than slowFlight

func TestALoneRequestLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, false)
		start := time.Now()
		for i := range byte(3) {
			if _, err := l.do(t.Context(), errand{id: i}); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("they waited for %v", d)
		}
		seen.want(t, "[0]", "[1]", "[2]")
	})
}

func TestWhatComesWhileAllFlightsAreUnderWayLeavesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, false)
		for i := range byte(6) {
			send(t, l, errand{id: i, before: long})
		}
		seen.want(t, "[0]", "[1]")
		time.Sleep(time.Second)
		seen.want(t, "[0]", "[1]", "[2 3 4 5]")
	})
}

func TestAnotherFlightTakesACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, false)
		l.crowd = 3
		send(t, l, errand{id: 0, before: long})
		send(t, l, errand{id: 1, before: 2 * long})
		send(t, l, errand{id: 2})
		seen.want(t, "[0]")
		send(t, l, errand{id: 3})
		seen.want(t, "[0]", "[1 2 3]")
		for i := range byte(5) {
			send(t, l, errand{id: 4 + i})
		}
		seen.want(t, "[0]", "[1 2 3]") // there are two
		time.Sleep(long)
		synctest.Wait()
		seen.want(t, "[0]", "[1 2 3]", "[4 5 6 7 8]")
		// Too few for a second flight, so they wait for the one under way.
		send(t, l, errand{id: 9})
		seen.want(t, "[0]", "[1 2 3]", "[4 5 6 7 8]")
		time.Sleep(long)
		synctest.Wait()
		seen.want(t, "[0]", "[1 2 3]", "[4 5 6 7 8]", "[9]")
		idle(t, l)
	})
}

func TestALoneRequestStaysInItsCallersGoroutine(t *testing.T) {
	l, _ := laneFor(1, true)
	carry := l.carry
	l.carry = func(context.Context, []*call[errand, string]) ([]*call[errand, string], error) { panic("broken") }
	func() {
		defer func() {
			if recover() != "broken" {
				t.Error("the caller did not carry its request")
			}
		}()
		_, _ = l.do(t.Context(), errand{id: 1})
	}()
	l.carry = carry
	if _, err := l.do(t.Context(), errand{id: 1}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if len(l.busy) != 0 || l.flying != 0 {
		t.Errorf("left behind: %d sessions, %d flights", len(l.busy), l.flying)
	}
}

func TestKindsAndTooManyBytesDoNotGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(1, false)
		send(t, l, errand{id: 0, before: long})
		for _, e := range []errand{
			{id: 1, what: 1}, {id: 2, what: 2}, {id: 3, what: 1, bytes: batchBytes - 1}, {id: 4, what: 1, bytes: 2}, {id: 5, bytes: 9 * batchBytes},
		} {
			send(t, l, e)
		}
		time.Sleep(time.Second)
		seen.want(t, "[0]", "[1 3]", "[2]", "[4]", "[5]")
	})
}

func TestAFlightHasABoundedLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(1, false)
		send(t, l, errand{before: long})
		for range batchLength + 1 {
			send(t, l, errand{})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(seen.log) != 3 || len(seen.log[1]) != batchLength || len(seen.log[2]) != 1 {
			t.Errorf("%d flights, want three, the second one full", len(seen.log))
		}
	})
}

func TestASessionIsInOneFlightOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, true)
		send(t, l, errand{id: 1, before: long})
		send(t, l, errand{id: 1}) // although a flight is free
		send(t, l, errand{id: 2, before: 2 * long})
		send(t, l, errand{id: 3})
		send(t, l, errand{id: 3})
		send(t, l, errand{id: 4, what: 1, joins: true})
		send(t, l, errand{id: 4, what: 1, joins: true})
		seen.want(t, "[1]", "[2]")
		time.Sleep(time.Second)
		seen.want(t, "[1]", "[2]", "[1 3]", "[3]", "[4 4]")
	})
}

func TestACallerWhoseContextEndsStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(1, true)
		start := time.Now()
		leaves := func(e errand, after time.Duration) {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				if _, err := l.do(ctx, e); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("request %d: %v, want context.DeadlineExceeded", e.id, err)
				}
				if d := time.Since(start); d != after {
					t.Errorf("request %d waited for %v, want %v", e.id, d, after)
				}
			}()
			synctest.Wait()
		}
		// No caller waits for the first flight any more, so it is canceled.
		leaves(errand{id: 1, before: 200 * time.Millisecond}, 10*time.Millisecond)
		// This one never leaves.
		leaves(errand{id: 2}, time.Millisecond)
		// One of these leaves, and the other is answered.
		leaves(errand{id: 3, before: 50 * time.Millisecond}, 20*time.Millisecond)
		send(t, l, errand{id: 4})
		time.Sleep(11 * time.Millisecond)
		seen.want(t, "[1]", "[3 4]")
		time.Sleep(time.Second)
		idle(t, l)
		if _, err := l.do(context.Background(), errand{id: 5}); err != nil {
			t.Error(err)
		}
		over, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.do(over, errand{id: 6}); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that was over before: %v", err)
		}
		seen.want(t, "[1]", "[3 4]", "[5]")
	})
}

func TestASlowFlightHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, true)
		send(t, l, errand{id: 1, before: time.Minute})
		send(t, l, errand{id: 2, before: time.Minute})
		send(t, l, errand{id: 3})
		send(t, l, errand{id: 1})
		seen.want(t, "[1]", "[2]")
		time.Sleep(slowFlight)
		synctest.Wait()
		seen.want(t, "[1]", "[2]", "[3]")
		// Their ends do not free places in the limit twice.
		time.Sleep(time.Minute)
		seen.want(t, "[1]", "[2]", "[3]", "[1]")
		idle(t, l)
	})
}

func TestAFlightThatBecomesSlowAsItEndsIsCountedOnce(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			l, seen := laneFor(1, true)
			send(t, l, errand{id: 1, before: slowFlight})
			send(t, l, errand{id: 2, before: slowFlight})
			send(t, l, errand{id: 3, before: slowFlight})
			time.Sleep(time.Minute)
			seen.mu.Lock()
			if n := len(seen.log); n > 3 {
				t.Errorf("%d flights, want at most 3", n)
			}
			seen.mu.Unlock()
			idle(t, l)
		})
	}
}

func TestAFlightEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := laneFor(1, false)
		l.timeout = time.Second
		start := time.Now()
		if _, err := l.do(context.Background(), errand{before: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want context.DeadlineExceeded", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("after %v, want the lane's timeout", d)
		}
	})
}

func TestWhatAFlightCouldNotDoFliesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(1, true)
		carry := l.carry
		l.carry = func(ctx context.Context, calls []*call[errand, string]) ([]*call[errand, string], error) {
			if len(calls) > 1 {
				rest, away := carry(ctx, calls[1:])
				return append(rest, calls[0]), away
			}
			return carry(ctx, calls)
		}
		send(t, l, errand{id: 0, before: long})
		send(t, l, errand{id: 1})
		send(t, l, errand{id: 2})
		time.Sleep(time.Second)
		seen.want(t, "[0]", "[2]", "[1]")
		idle(t, l)
	})
}
