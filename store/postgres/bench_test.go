package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// paths are the ways to send requests: batched by the store, or each with its
// own statement.
var paths = []struct {
	name string
	load func(*Store, context.Context, store.ID) (store.Record, error)
	save func(*Store, context.Context, store.Record, store.Base) error
}{
	{"one-row", loadAlone, saveAlone},
	{"batched", (*Store).Load, (*Store).Save},
}

func loadAlone(s *Store, ctx context.Context, id store.ID) (store.Record, error) {
	c := &loadCall{ctx: ctx, q: loading{id}, flight: new(flight[loading, store.Record])}
	err := s.use(ctx, func(db querier) error { return s.loadOne(ctx, db, map[store.ID][]*loadCall{id: {c}}) })
	return c.answer, err
}

func saveAlone(s *Store, ctx context.Context, rec store.Record, base store.Base) error {
	return s.use(ctx, func(db querier) error { return s.saveOne(ctx, db, rec, base) })
}

// crowds are the numbers of parallel goroutines.
var crowds = []int{1, 16, 64, 256}

// BenchmarkLoad reads sessions of 1 KB.
func BenchmarkLoad(b *testing.B) {
	s := benchStore(b)
	sessions := fill(b, s, 20_000)
	for _, crowd := range crowds {
		for _, p := range paths {
			b.Run(fmt.Sprintf("goroutines=%d/%s", crowd, p.name), func(b *testing.B) {
				inCrowd(b, crowd, func(int) error {
					_, err := p.load(s, context.Background(), sessions[rand.IntN(len(sessions))].ID)
					return err
				})
			})
		}
	}
}

// BenchmarkSave replaces sessions of 1 KB, each goroutine its own ones. Every
// save is on the disk when it returns.
func BenchmarkSave(b *testing.B) {
	s := benchStore(b)
	const each = 64
	sessions := fill(b, s, each*slices.Max(crowds))
	for _, crowd := range crowds {
		for _, p := range paths {
			b.Run(fmt.Sprintf("goroutines=%d/%s", crowd, p.name), func(b *testing.B) {
				inCrowd(b, crowd, func(i int) error {
					at := &sessions[i*each+rand.IntN(each)]
					rec := following(*at)
					err := p.save(s, context.Background(), rec, at.Base())
					*at = rec
					return err
				})
			})
		}
	}
}

// inCrowd does something b.N times in that many goroutines, and reports how
// long each time took.
func inCrowd(b *testing.B, crowd int, do func(i int) error) {
	took := make([][]time.Duration, crowd)
	var n atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				start := time.Now()
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "per-s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

func benchStore(b *testing.B) *Store {
	server := servers.Postgres(b, "shared_buffers=256MB")
	s, err := Open(b.Context(), server.PostgresURL()+"&pool_max_conns=16", Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func fill(b *testing.B, s *Store, n int) []store.Record {
	b.Helper()
	sessions := make([]store.Record, n)
	const crowd = 256
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() {
			for k := i; k < n; k += crowd {
				sessions[k] = session()
				if err := s.Save(context.Background(), sessions[k], store.Base{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return sessions
}

// session is the first record of a new session with 1 KB of data.
func session() store.Record {
	now := time.Now().UTC().Truncate(time.Millisecond)
	rec := store.Record{
		Version: 1, SaveIDs: []store.SaveID{store.SaveID(rand.Uint64())},
		Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Data: make([]byte, 1000),
	}
	rec.ID = store.HashIdentifier(fmt.Append(nil, rand.Uint64(), rand.Uint64()))
	return rec
}

// following is the record that a request makes from rec.
func following(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{store.SaveID(rand.Uint64())}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	rec.Deadline = rec.Deadline.Add(time.Second)
	return rec
}
