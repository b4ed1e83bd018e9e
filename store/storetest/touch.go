package storetest

import (
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// touched moves a record's times and fails the test if it cannot.
func (h *harness) touched(id store.ID, seen, deadline time.Time) {
	h.Helper()
	if err := h.touch(id, seen, deadline); err != nil {
		h.Fatalf("Touch: %v, want the session extended", err)
	}
}

func (h *harness) touch(id store.ID, seen, deadline time.Time) error {
	return h.store.(store.Toucher).Touch(h.Context(), id, seen, deadline)
}

var touchTests = []scenario{
	{"moves Seen and Deadline forward, and nothing else", func(h *harness) {
		rec := first()
		rec.User = newUser()
		h.inserted(rec)
		rec = h.following(rec)
		rec.Seen = rec.Seen.Add(time.Minute)
		rec.Deadline = rec.Deadline.Add(time.Minute)
		h.touched(rec.ID, rec.Seen, rec.Deadline)
		h.holds(rec)
		h.following(rec) // a touch does not change the base
	}},

	{"never moves either of them backwards", func(h *harness) {
		rec := h.inserted(first())
		h.touched(rec.ID, rec.Seen.Add(-time.Minute), rec.Deadline.Add(-time.Minute))
		h.holds(rec)
		h.touched(rec.ID, rec.Seen.Add(time.Minute), rec.Deadline.Add(-time.Minute))
		rec.Seen = rec.Seen.Add(time.Minute)
		h.holds(rec)
		h.touched(rec.ID, rec.Seen.Add(-time.Minute), rec.Deadline.Add(time.Minute))
		rec.Deadline = rec.Deadline.Add(time.Minute)
		h.holds(rec)
	}},

	{"is not undone by a save that did not know of it", func(h *harness) {
		rec := h.inserted(first())
		seen, deadline := rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
		h.touched(rec.ID, seen, deadline)
		rec = h.following(rec)
		rec.Seen, rec.Deadline = seen, deadline
		h.holds(rec)
	}},

	{"keeps the millisecond", func(h *harness) {
		rec := h.inserted(first())
		seen, deadline := rec.Seen.Add(time.Second), rec.Deadline.Add(time.Second)
		h.touched(rec.ID, seen.Add(999*time.Microsecond), deadline.Add(999*time.Microsecond).In(time.FixedZone("elsewhere", 3600)))
		rec.Seen, rec.Deadline = seen, deadline
		h.holds(rec)
	}},

	{"of an unknown ID is not found and creates nothing", func(h *harness) {
		id := newID()
		if err := h.touch(id, now(), now().Add(time.Hour)); !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Touch: %v, want store.ErrNotFound", err)
		}
		if _, err := h.store.Load(h.Context(), id); !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Load afterwards: %v, want store.ErrNotFound", err)
		}
	}},

	{"of an ended session is not found and changes nothing", func(h *harness) {
		rec := h.inserted(first())
		mark := h.saved(ended(rec, time.Hour), rec.Base())
		if err := h.touch(rec.ID, now().Add(time.Hour), now().Add(2*time.Hour)); !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Touch: %v, want store.ErrNotFound", err)
		}
		h.holds(mark)
	}},

	{"of a record past its deadline extends it or is not found", func(h *harness) {
		rec := h.inserted(expired())
		if err := h.touch(rec.ID, now(), now().Add(time.Hour)); err != nil && !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Touch: %v, want nil or store.ErrNotFound", err)
		}
	}},

	{"by many at once keeps the latest times", func(h *harness) {
		rec := h.inserted(first())
		together(h.writers, func(i int) {
			d := time.Duration(i*37%h.writers) * time.Second
			if err := h.touch(rec.ID, rec.Seen.Add(d), rec.Deadline.Add(d)); err != nil {
				h.Errorf("Touch: %v", err)
			}
		})
		last := time.Duration(h.writers-1) * time.Second
		rec.Seen = rec.Seen.Add(last)
		rec.Deadline = rec.Deadline.Add(last)
		h.holds(rec)
	}},

	{"during saves loses neither", func(h *harness) {
		const saves = 16
		rec := h.inserted(first())
		last := rec
		together(2, func(i int) {
			for n := range saves {
				if i == 0 {
					save := next(last)
					if err := h.store.Save(h.Context(), save, last.Base()); err != nil {
						h.Errorf("Save during touches: %v, want it saved: a touch changes neither version nor save ID", err)
						return
					}
					last = save
				} else {
					d := time.Duration(n+1) * time.Second
					if err := h.touch(rec.ID, rec.Seen.Add(d), rec.Deadline.Add(d)); err != nil {
						h.Errorf("Touch during saves: %v", err)
						return
					}
				}
			}
		})
		last.Seen = rec.Seen.Add(saves * time.Second)
		last.Deadline = rec.Deadline.Add(saves * time.Second)
		h.holds(last)
	}},
}
