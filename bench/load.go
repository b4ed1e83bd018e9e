package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// visitor is one of many concurrent visitors. Each sends one request after the
// other.
type visitor interface {
	// next sends the visitor's i-th request and returns an error for a wrong
	// answer.
	next(i int) error
}

// load is the work of many visitors in one turn.
type load struct {
	requests  float64
	perSecond float64
	p50, p99  time.Duration
	allocs    float64 // per request, of the whole process
}

// loadResult is the result of one side.
type loadResult struct {
	side
	loads []load // by round
}

func loadResults(sides []side, loads [][]load) []loadResult {
	out := make([]loadResult, len(sides))
	for i, s := range sides {
		out[i] = loadResult{s, loads[i]}
	}
	return out
}

// crowd measures crowds of visitors in turns, like interleave.
func crowd(ctx context.Context, crowds [][]visitor, rounds int, turn time.Duration) ([][]load, error) {
	loads := make([][]load, len(crowds))
	for round := range rounds + 1 { // the first one warms up
		for k := range crowds {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			i := (round + k) % len(crowds)
			l, err := together(crowds[i], turn)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				loads[i] = append(loads[i], l)
			}
		}
	}
	return loads, nil
}

// together runs all visitors for the duration of a turn.
func together(visitors []visitor, turn time.Duration) (load, error) {
	times := make([][]time.Duration, len(visitors))
	errs := make([]error, len(visitors))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	var wg sync.WaitGroup
	for i, v := range visitors {
		wg.Go(func() {
			for n, now := i, time.Now(); now.Sub(start) < turn; n++ {
				if err := v.next(n); err != nil {
					errs[i] = fmt.Errorf("visitor %d: %w", i, err)
					return
				}
				then := now
				now = time.Now()
				times[i] = append(times[i], now.Sub(then))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	all := slices.Concat(times...)
	slices.Sort(all)
	for _, err := range errs {
		if err != nil {
			return load{}, err
		}
	}
	n := float64(len(all))
	return load{
		requests:  n,
		perSecond: n / took.Seconds(),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
		allocs:    float64(after.Mallocs-before.Mallocs) / n,
	}, nil
}
