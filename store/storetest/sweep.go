package storetest

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// sweep removes records that expired an hour ago, and checks that the count is within the limit.
func (h *harness) sweep(limit int) int {
	h.Helper()
	n, err := h.store.(store.Sweeper).Sweep(h.Context(), time.Hour, limit)
	if err != nil {
		h.Fatalf("Sweep: %v", err)
	}
	if n < 0 || n > limit {
		h.Fatalf("Sweep removed %d, want at most the limit %d", n, limit)
	}
	return n
}

// gone fails the test if there is still a record.
func (h *harness) gone(id store.ID) {
	h.Helper()
	if rec, err := h.store.Load(h.Context(), id); !errors.Is(err, store.ErrNotFound) {
		h.Fatalf("Load after the sweep: version %d, %v; want store.ErrNotFound", rec.Version, err)
	}
}

// over returns a record whose deadline passed the given time ago.
func over(ago time.Duration) store.Record {
	rec := first()
	rec.Deadline = now().Add(-ago)
	rec.Seen = rec.Deadline.Add(-time.Hour)
	rec.Created = rec.Seen
	return rec
}

var sweepTests = []scenario{
	{"removes what is over, and nothing else", func(h *harness) {
		old := h.inserted(over(2 * time.Hour))
		oldMark := ended(first(), -2*time.Hour)
		h.inserted(oldMark)
		deleted := h.inserted(first())
		h.deleted(deleted.ID, now().Add(-2*time.Hour))

		live := h.inserted(first())
		young := h.inserted(over(30 * time.Minute))
		base := h.inserted(first())
		mark := h.saved(ended(base, time.Minute), base.Base())
		youngMark := ended(first(), -30*time.Minute)
		h.inserted(youngMark)

		if n := h.sweep(100); n != 3 {
			h.Errorf("Sweep removed %d, want 3: a record and two tombstones whose deadline passed two hours ago", n)
		}
		for _, rec := range []store.Record{old, oldMark, deleted} {
			h.gone(rec.ID)
		}
		for _, rec := range []store.Record{live, young, mark, youngMark} {
			h.holds(rec)
		}
	}},

	{"of an empty store removes nothing", func(h *harness) {
		if n := h.sweep(10); n != 0 {
			h.Errorf("Sweep removed %d, want 0", n)
		}
	}},

	{"works in batches", func(h *harness) {
		for range 25 {
			h.inserted(over(2 * time.Hour))
		}
		keep := h.inserted(first())
		for _, want := range []int{10, 10, 5, 0} {
			if n := h.sweep(10); n != want {
				h.Fatalf("Sweep removed %d, want %d: of 25, ten at a time, fewer only when none are left", n, want)
			}
		}
		h.holds(keep)
	}},

	{"uses the newest deadline", func(h *harness) {
		revived := h.inserted(over(2 * time.Hour))
		later := next(revived)
		later.Seen, later.Deadline = now(), now().Add(time.Hour)
		h.saved(later, revived.Base())

		shortened := h.inserted(first())
		short := next(shortened)
		short.Shorten, short.Deadline = true, now().Add(-2*time.Hour)
		h.saved(short, shortened.Base())

		replaced := h.inserted(over(2 * time.Hour))
		insert := first()
		insert.ID = replaced.ID
		h.inserted(insert)

		marked := h.inserted(over(2 * time.Hour))
		h.deleted(marked.ID, now().Add(time.Hour))

		if n := h.sweep(100); n != 1 {
			h.Errorf("Sweep removed %d, want 1: only what was shortened is over", n)
		}
		h.gone(shortened.ID)
		h.holds(later)
		h.holds(insert)
		h.staysEnded(marked.ID)
	}},

	{"leaves what was touched", func(h *harness) {
		t, ok := h.store.(store.Toucher)
		if !ok {
			return
		}
		rec := h.inserted(over(2 * time.Hour))
		seen, deadline := now(), now().Add(time.Hour)
		switch err := t.Touch(h.Context(), rec.ID, seen, deadline); {
		case errors.Is(err, store.ErrNotFound): // the engine has expired it
		case err != nil:
			h.Fatalf("Touch: %v", err)
		default:
			if n := h.sweep(10); n != 0 {
				h.Errorf("Sweep removed %d, want 0: the touch moved the deadline", n)
			}
			rec.Seen, rec.Deadline = seen, deadline
			h.holds(rec)
		}
	}},

	{"may run several times at once, beside saves", func(h *harness) {
		const sweepers = 4
		old := h.some(300)
		for range old {
			h.inserted(over(2 * time.Hour))
		}
		keep := h.inserted(first())
		var removed atomic.Int64
		together(sweepers+1, func(i int) {
			if i == sweepers {
				for range 20 {
					save := next(keep)
					if err := h.store.Save(h.Context(), save, keep.Base()); err != nil {
						h.Errorf("Save beside a sweep: %v", err)
						return
					}
					keep = save
				}
				return
			}
			for {
				n, err := h.store.(store.Sweeper).Sweep(h.Context(), time.Hour, 10)
				if err != nil {
					h.Errorf("Sweep beside others: %v, want no error", err)
					return
				}
				removed.Add(int64(n))
				if n < 10 {
					return
				}
			}
		})
		for n := 10; n == 10; removed.Add(int64(n)) {
			n = h.sweep(10)
		}
		if removed.Load() != int64(old) {
			h.Errorf("the sweeps removed %d together, want %d: each record counted once", removed.Load(), old)
		}
		h.holds(keep)
	}},
}
