package sqlite

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// smallLimits make for a log of 1.6 MiB, 6.4 MiB at most.
var smallLimits = logLimits{check: 100, size: 400, most: 1600, wait: 10 * time.Second}

// bound is the maximum size of the log: its limit, and as much again for writes
// before the checkpointer runs on a busy machine.
var bound = 2 * smallLimits.most * pageSize

func TestTheLogStaysShortUnderConstantWriting(t *testing.T) {
	s := opened(t, func(o *options) { o.log = smallLimits })
	most := writeALot(t, s)
	if most > bound {
		t.Errorf("the log grew to %d KiB, want at most %d", most>>10, bound>>10)
	}
}

// TestTheLogStaysShortUnderConstantReading has overlapping readers, each of
// which keeps the log from being restarted.
func TestTheLogStaysShortUnderConstantReading(t *testing.T) {
	s := opened(t, func(o *options) { o.log = smallLimits })
	insert(t, s, session(0, 10))
	a, b := other(t, s.path), other(t, s.path)
	must(t, beginRead(a))
	var stop atomic.Bool
	relayed := make(chan error, 1)
	go func() {
		relayed <- func() error {
			for !stop.Load() {
				if err := beginRead(b); err != nil {
					return err
				}
				if err := a.run("COMMIT"); err != nil {
					return err
				}
				if err := b.run(busywork); err != nil {
					return err
				}
				a, b = b, a
			}
			return a.run("COMMIT")
		}()
	}()
	most := writeALot(t, s)
	stop.Store(true)
	must(t, <-relayed)
	if most > bound {
		t.Errorf("the log grew to %d KiB, want at most %d", most>>10, bound>>10)
	}
}

func TestAReaderThatStaysStopsNoSaveAndTheLogIsCutAfterIt(t *testing.T) {
	limits := smallLimits
	limits.wait = 10 * time.Millisecond
	s := opened(t, func(o *options) { o.log = limits })
	insert(t, s, session(0, 10))
	c := other(t, s.path)
	must(t, beginRead(c))
	most := writeALot(t, s)
	if most < limits.most*pageSize {
		t.Fatalf("the log is %d KiB: the reader did not stop it from being started over", most>>10)
	}
	must(t, c.run("COMMIT"))
	writeALot(t, s)
	if size := logSize(t, s); size > bound {
		t.Errorf("the log is still %d KiB after the reader has gone", size>>10)
	}
}

// beginRead begins a transaction that sees the database as it is now.
func beginRead(c client) error { return c.run("BEGIN; SELECT count(*) FROM sessions") }

// busywork is a statement that takes a while.
const busywork = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT max(i) FROM n`

// writeALot makes saves that fill the log to its limit four times, and returns
// how large it became.
func writeALot(t *testing.T, s *Store) int64 {
	t.Helper()
	const sessions, saves, pages = 16, 50, 8
	var most atomic.Int64
	var wg sync.WaitGroup
	for range sessions {
		rec := insert(t, s, session(int(s.writer.commits.Load())+1000, 10))
		wg.Go(func() {
			for range saves {
				base := rec.Base()
				rec = next(rec)
				rec.Data = bytes.Repeat([]byte{byte(rec.Version)}, pages*pageSize)
				if err := s.Save(t.Context(), rec, base); err != nil {
					t.Errorf("Save: %v", err)
					return
				}
				for size, old := logSize(t, s), most.Load(); size > old && !most.CompareAndSwap(old, size); old = most.Load() {
				}
			}
		})
	}
	wg.Wait()
	return most.Load()
}

func logSize(t *testing.T, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path + "-wal")
	if err != nil {
		t.Error(err)
		return 0
	}
	return info.Size()
}
