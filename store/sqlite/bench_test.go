package sqlite

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func BenchmarkSave(b *testing.B) {
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := open(b)
			const each = 64 // sessions per writer...
			recs := make([][]store.Record, writers)
			var wg sync.WaitGroup
			for w := range recs {
				recs[w] = make([]store.Record, each)
				wg.Go(func() {
					for i := range recs[w] {
						recs[w][i] = session(w*each+i, 200)
						if err := s.Save(b.Context(), recs[w][i], store.Base{}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			lat := make([][]time.Duration, writers)
			before := s.writer.commits.Load()
			b.ResetTimer()
			for w := range recs {
				wg.Go(func() {
					for n := w; n < b.N; n += writers {
						rec := &recs[w][n/writers%each]
						base := rec.Base()
						rec.Version++
						rec.Tags = append([]store.Tag{store.Tag(n)<<20 | 1}, rec.Tags[:min(len(rec.Tags), 7)]...)
						rec.Deadline = rec.Deadline.Add(time.Millisecond)
						t := time.Now()
						if err := s.Save(context.Background(), *rec, base); err != nil {
							b.Error(err)
							return
						}
						lat[w] = append(lat[w], time.Since(t))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(lat...)
			slices.Sort(all)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "saves/s")
			b.ReportMetric(float64(b.N)/float64(s.writer.commits.Load()-before), "saves/commit")
			for _, p := range []float64{0.5, 0.99, 0.999} {
				b.ReportMetric(float64(all[int(float64(len(all)-1)*p)].Microseconds()), fmt.Sprintf("p%v-µs", p*100))
			}
			b.ReportMetric(float64(all[len(all)-1].Microseconds()), "max-µs")
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	s := open(b)
	const many = 10_000
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := w; n < many; n += 64 {
				if err := s.Save(b.Context(), session(n, 200), store.Base{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if _, err := s.Load(context.Background(), id(n%many)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
