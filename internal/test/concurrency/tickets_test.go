package concurrency_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Concurrent commits of one session are saved together. Each request still gets
// the result of its own change in their order, so a counter can issue unique
// numbers.
func TestParallelIncrementsEachGetANumberOfTheirOwn(t *testing.T) {
	synctest.Test(t, parallelIncrements)
}

// slowSaves makes commits queue up while a save takes its time.
type slowSaves struct{ *memory.Store }

func (s slowSaves) Save(ctx context.Context, rec store.Record, base store.Base) error {
	time.Sleep(time.Millisecond) // of a synctest bubble: it takes no time
	return s.Store.Save(ctx, rec, base)
}

func parallelIncrements(t *testing.T) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: slowSaves{memory.New()}})
	if err != nil {
		t.Fatal(err)
	}
	tickets := sojourn.NewKey[int]("tickets", sojourn.ServerSide)
	log := sojourn.NewKey[[]int]("log", sojourn.ServerSide)
	next := func(n int) int { return n + 1 }

	out := http.Header{}
	s, x, err := sitetest.Begin(t.Context(), m, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	tickets.Set(s, 0)
	if err := x.Commit(http.StatusOK, out); err != nil {
		t.Fatal(err)
	}
	in := http.Header{}
	for _, c := range (&http.Response{Header: out}).Cookies() {
		in.Add("Cookie", c.Name+"="+c.Value)
	}

	const visitors = 64
	var mu sync.Mutex
	var drawn []int
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range visitors {
		wg.Go(func() {
			s, _, err := sitetest.Begin(t.Context(), m, in)
			if err != nil {
				t.Error(err)
				return
			}
			<-start
			for range 2 {
				tickets.Update(s, next)
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
					return
				}
				n := tickets.Get(s)
				mu.Lock()
				drawn = append(drawn, n)
				mu.Unlock()
				// Changes that were saved together with ours must survive our next save.
				log.Update(s, func(l []int) []int { return append(l, n) })
			}
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()

	slices.Sort(drawn)
	for i, n := range drawn {
		if n != i+1 {
			t.Fatalf("the numbers are %v", drawn)
		}
	}
	s, _, err = sitetest.Begin(t.Context(), m, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := tickets.Get(s); got != 2*visitors {
		t.Errorf("the counter is %d, want %d", got, 2*visitors)
	}
	logged := log.Get(s)
	slices.Sort(logged)
	if !slices.Equal(logged, drawn) {
		t.Errorf("logged %v", logged)
	}
	if c := ops.For(m).Stats(); c.Saves > visitors {
		t.Errorf("%d saves: little was saved together", c.Saves)
	}
}
