package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// subject is one of several things to measure.
type subject struct {
	name string
	// run does the work n times. No other goroutine may work meanwhile, because
	// its allocations would be counted.
	run func(n int) error
}

// cost is the cost of one operation in one round.
type cost struct {
	ns     float64
	bytes  float64
	allocs float64
}

// interleave measures the subjects in turns, A B C B C A C A B …, so that other
// load on the machine affects all of them alike. Each turn takes about the
// given time. It returns the costs by subject and round.
func interleave(ctx context.Context, subjects []subject, rounds int, turn time.Duration) ([][]cost, error) {
	counts := make([]int, len(subjects))
	for i, s := range subjects {
		n, err := calibrate(s, turn)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		counts[i] = n
	}
	costs := make([][]cost, len(subjects))
	for round := range rounds {
		for k := range subjects {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			i := (round + k) % len(subjects)
			c, err := measure(subjects[i], counts[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", subjects[i].name, err)
			}
			costs[i] = append(costs[i], c)
		}
	}
	return costs, nil
}

// calibrate returns how many operations take about that long. It warms up.
func calibrate(s subject, turn time.Duration) (int, error) {
	for n := 1; ; n *= 4 {
		start := time.Now()
		if err := s.run(n); err != nil {
			return 0, err
		}
		if took := time.Since(start); took > turn/8 {
			return max(1, int(float64(n)*float64(turn)/float64(took))), nil
		}
	}
}

func measure(s subject, n int) (cost, error) {
	var before, after runtime.MemStats
	runtime.GC() // earlier garbage is not counted
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := s.run(n)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return cost{
		ns:     float64(took.Nanoseconds()) / float64(n),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, err
}

// spread is the median of some rounds, and their extremes.
type spread struct{ median, min, max float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{median: (v[(n-1)/2] + v[n/2]) / 2, min: v[0], max: v[n-1]}
}

// each returns f of every element.
func each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}

// ratios divides round by round, so that a slow moment of the machine, which
// affects both, cancels out.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] / b[i]
	}
	return out
}
