package memory_test

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return memory.New() }, storetest.Copies(memory.CopyRow))
}

func TestBoundedStoreWithRoomKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return memory.New(memory.MaxBytes(1 << 30)) })
}

func id(n int) store.ID {
	return store.HashIdentifier(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// session returns the first record of session n with that much data, whose
// deadline is n seconds after an hour from now.
func session(n, size int) store.Record {
	now := time.Now()
	return store.Record{
		ID:       id(n),
		Version:  1,
		SaveIDs:  []store.SaveID{store.SaveID(n + 1)},
		Created:  now,
		Seen:     now,
		Deadline: now.Add(time.Hour + time.Duration(n)*time.Second),
		Expires:  now.Add(24 * time.Hour),
		Data:     make([]byte, size),
	}
}

func insert(t *testing.T, s *memory.Store, rec store.Record) {
	t.Helper()
	if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatalf("Save: %v", err)
	}
}

func has(t *testing.T, s *memory.Store, id store.ID) bool {
	t.Helper()
	_, err := s.Load(t.Context(), id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Load: %v", err)
	}
	return err == nil
}

func count(t *testing.T, s *memory.Store) store.Counts {
	t.Helper()
	c, err := s.Count(t.Context())
	if err != nil {
		t.Fatalf("Count: %v", err)
	}
	return c
}

func TestBoundedStoreStaysWithinItsBytes(t *testing.T) {
	const limit = 1 << 20
	s := memory.New(memory.MaxBytes(limit))
	for n := range 2_000 {
		insert(t, s, session(n, 1024))
		if !has(t, s, id(n)) {
			t.Fatalf("session %d was evicted by its own save", n)
		}
	}
	c := count(t, s)
	if c.Bytes > limit {
		t.Errorf("%d bytes of data are kept, want at most %d", c.Bytes, limit)
	}
	if c.Bytes < limit/2 {
		t.Errorf("%d bytes of data are kept, want most of %d used", c.Bytes, limit)
	}
}

func TestBoundedStoreEvictsTheLongestIdleFirst(t *testing.T) {
	s := memory.New(memory.MaxBytes(1 << 20))
	const many = 2_000
	for n := range many {
		insert(t, s, session(n, 1024))
		// The first one is in use all the time.
		if err := s.Touch(t.Context(), id(0), time.Now(), time.Now().Add(24*time.Hour)); err != nil {
			t.Fatalf("Touch after %d inserts: %v, want the session in use to be kept", n, err)
		}
	}
	// Which of the recent ones is evicted depends on the shards a little.
	for n := many - 100; n < many; n++ {
		if !has(t, s, id(n)) {
			t.Errorf("session %d of %d was evicted before sessions that were idle for longer", n, many)
		}
	}
}

func TestBoundedStoreEvictsExpiredRecordsBeforeLiveOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.MaxBytes(64 << 10))
		for n := range 10 { // past their deadline, but not swept
			mark := session(n, 0)
			mark.Ended, mark.Deadline = time.Now(), time.Now().Add(time.Minute)
			insert(t, s, mark)
		}
		live := session(100, 56<<10)
		insert(t, s, live)
		time.Sleep(2 * time.Minute)
		insert(t, s, session(101, 2<<10))
		if !has(t, s, live.ID) {
			t.Error("a live session was evicted while expired marks were there")
		}
	})
}

func TestBoundedStoreKeepsTombstonesWhileThereAreSessions(t *testing.T) {
	s := memory.New(memory.MaxBytes(1 << 20))
	const marks = 100
	for n := range marks {
		insert(t, s, session(n, 100))
		if err := s.Delete(t.Context(), id(n), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2_000 {
		insert(t, s, session(marks+n, 1024))
	}
	if c := count(t, s); c.Ended != marks {
		t.Errorf("%d of %d tombstones are left, want all: the sessions would be live again", c.Ended, marks)
	}
}

func TestBoundedStoreFullOfTombstonesGivesUpTheOldest(t *testing.T) {
	s := memory.New(memory.MaxBytes(64 << 10))
	for n := range 1_000 {
		if err := s.Delete(t.Context(), id(n), time.Now().Add(time.Hour+time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if c := count(t, s); c.Ended < 100 || c.Ended > 200 {
		t.Errorf("%d tombstones are kept in 64 KiB, want about 187", c.Ended)
	}
	if !has(t, s, id(999)) {
		t.Error("the newest tombstone was evicted by its own Delete")
	}
}

func TestBoundedStoreRefusesWhatCanNeverFit(t *testing.T) {
	s := memory.New(memory.MaxBytes(64 << 10))
	small := session(1, 100)
	insert(t, s, small)
	if err := s.Save(t.Context(), session(2, 64<<10), store.Base{}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Save: %v, want store.ErrTooLarge", err)
	}
	if !has(t, s, small.ID) {
		t.Error("a record was evicted for one that cannot fit")
	}
}

func TestExpiryIsExactToTheMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		old := session(1, 1)
		insert(t, s, old)
		fresh := session(1, 1)
		fresh.SaveIDs = []store.SaveID{99}
		fresh.Deadline = fresh.Deadline.Add(time.Hour)

		time.Sleep(time.Until(old.Deadline))
		if err := s.Save(t.Context(), fresh, store.Base{}); !errors.Is(err, store.ErrConflict) {
			t.Fatalf("insert at the deadline: %v, want store.ErrConflict: the session is still valid", err)
		}
		time.Sleep(time.Millisecond)
		if err := s.Save(t.Context(), fresh, store.Base{}); err != nil {
			t.Fatalf("insert a millisecond after the deadline: %v, want it saved", err)
		}
	})
}

func TestScanRefusesAForeignCursor(t *testing.T) {
	s := memory.New()
	for _, cursor := range []string{"x", "1", "1.", ".1", "-1.0", "0.-1", "a.b"} {
		if _, _, err := s.Scan(t.Context(), cursor, 10); err == nil {
			t.Errorf("Scan from %q succeeded, want an error", cursor)
		}
	}
}

func TestScanReturnsStayingRecordsExactlyOnce(t *testing.T) {
	s := memory.New()
	for n := range 1_000 {
		insert(t, s, session(n, 1))
	}
	seen := map[store.ID]int{}
	n, cursor := 0, ""
	for {
		recs, next, err := s.Scan(t.Context(), cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range recs {
			seen[rec.ID]++
		}
		if next == "" {
			break
		}
		cursor = next
		if n < 500 { // the first half goes, others take the room
			over := session(n, 1)
			if err := s.Delete(t.Context(), over.ID, time.Now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Sweep(t.Context(), 0, 1); err != nil {
				t.Fatal(err)
			}
			insert(t, s, session(10_000+n, 1))
			n++
		}
	}
	for n := 500; n < 1_000; n++ {
		if seen[id(n)] != 1 {
			t.Fatalf("session %d was returned %d times, want once", n, seen[id(n)])
		}
	}
}

func TestNewStartsNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	s := memory.New(memory.MaxBytes(1 << 20))
	insert(t, s, session(1, 1))
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before New: want none started", after, before)
	}
}

func TestLoadAndSaveAllocateLittle(t *testing.T) {
	s := memory.New()
	rec := session(1, 200)
	insert(t, s, rec)
	ctx := context.Background()
	loads := testing.AllocsPerRun(100, func() {
		if _, err := s.Load(ctx, rec.ID); err != nil {
			t.Fatal(err)
		}
	})
	if loads > 1 {
		t.Errorf("Load allocates %v times, want once, for the save IDs", loads)
	}
	saves := testing.AllocsPerRun(100, func() {
		base := rec.Base()
		rec.Version++
		rec.SaveIDs[0]++
		if err := s.Save(ctx, rec, base); err != nil {
			t.Fatal(err)
		}
	})
	if saves > 0 {
		t.Errorf("Save over a record allocates %v times, want none", saves)
	}
}

func BenchmarkLoad(b *testing.B) {
	s := memory.New()
	ids := filled(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if _, err := s.Load(b.Context(), ids[n%len(ids)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSave(b *testing.B) {
	s := memory.New()
	filled(b, s)
	rec := session(1, 200)
	b.ReportAllocs()
	for b.Loop() {
		base := rec.Base()
		rec.Version++
		rec.SaveIDs[0] += 1 << 32
		rec.Deadline = rec.Deadline.Add(time.Millisecond)
		if err := s.Save(b.Context(), rec, base); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInsert(b *testing.B) {
	s := memory.New()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := s.Save(b.Context(), session(n, 200), store.Base{}); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// BenchmarkInsertFull inserts into a bounded store, so that each insert evicts.
func BenchmarkInsertFull(b *testing.B) {
	s := memory.New(memory.MaxBytes(64 << 20))
	filled(b, s)
	b.ReportAllocs()
	n := 1 << 20
	for b.Loop() {
		if err := s.Save(b.Context(), session(n, 200), store.Base{}); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

func BenchmarkTouch(b *testing.B) {
	s := memory.New()
	ids := filled(b, s)
	deadline := time.Now().Add(48 * time.Hour)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := s.Touch(b.Context(), ids[n%len(ids)], time.Now(), deadline.Add(time.Duration(n)*time.Millisecond)); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// filled puts 100,000 sessions into the store.
func filled(b *testing.B, s *memory.Store) []store.ID {
	b.Helper()
	ids := make([]store.ID, 100_000)
	for n := range ids {
		ids[n] = id(n)
		if err := s.Save(b.Context(), session(n, 200), store.Base{}); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}
