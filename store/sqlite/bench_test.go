package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// BenchmarkSave replaces sessions of 1 KB, each writer its own 64 ones, and
// reports how long callers wait besides how many saves are made.
func BenchmarkSave(b *testing.B) {
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := opened(b)
			sessions := fill(b, s, writers*64)
			took := make([][]time.Duration, writers)
			before := s.writer.commits.Load()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for n := w; n < b.N; n += writers {
						at := &sessions[w*64+rand.IntN(64)]
						rec := next(*at)
						rec.Deadline = rec.Deadline.Add(time.Second)
						start := time.Now()
						if err := s.Save(context.Background(), rec, at.Base()); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(start))
						*at = rec
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Sorted(slices.Values(slices.Concat(took...)))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "saves/s")
			b.ReportMetric(float64(b.N)/float64(s.writer.commits.Load()-before), "saves/commit")
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		})
	}
}

func BenchmarkTouch(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			s := opened(b)
			insert(b, s, session(1, size))
			at := time.Now().Add(time.Hour)
			for b.Loop() {
				at = at.Add(time.Second)
				must(b, s.Touch(context.Background(), id(1), at, at))
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	s := opened(b)
	sessions := fill(b, s, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Load(b.Context(), sessions[rand.IntN(len(sessions))].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCount(b *testing.B) {
	s := opened(b)
	fill(b, s, 100_000)
	for b.Loop() {
		if _, err := s.Count(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// fill stores n sessions of 1 KB and returns them.
func fill(b *testing.B, s *Store, n int) []store.Record {
	b.Helper()
	const writers = 64
	sessions := make([]store.Record, n)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				sessions[i] = session(i, 1000)
				if err := s.Save(context.Background(), sessions[i], store.Base{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return sessions
}
