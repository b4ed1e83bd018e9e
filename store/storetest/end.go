package storetest

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

var endTests = []scenario{
	{"a tombstone replaces the session", func(h *harness) {
		rec := h.inserted(first())
		h.holds(h.saved(ended(rec, time.Hour), rec.Base()))
	}},

	{"a tombstone takes its own deadline, earlier than the session's", func(h *harness) {
		rec := h.inserted(first())
		h.holds(h.saved(ended(rec, time.Minute), rec.Base()))
	}},

	{"a tombstone is compared like every save", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		h.conflicts(ended(one, time.Hour), one.Base(), "a login that ends the old session must not miss the newer values in it")
		h.holds(two)
	}},

	{"a tombstone can be inserted", func(h *harness) {
		// A session that was only in its cookie can be ended.
		mark := ended(first(), time.Hour)
		mark.Version = 1
		h.holds(h.inserted(mark))
		rec := first()
		rec.ID = mark.ID
		h.conflicts(rec, store.Base{}, "the session has ended")
		h.holds(mark)
	}},

	{"a tombstone refuses every save", func(h *harness) {
		rec := h.inserted(first())
		mark := h.saved(ended(rec, time.Hour), rec.Base())
		const why = "logout must be final"
		h.conflicts(next(rec), rec.Base(), why)
		h.conflicts(next(mark), mark.Base(), why)
		again := next(mark)
		again.Ended = time.Time{}
		h.conflicts(again, mark.Base(), why)
		insert := first()
		insert.ID = rec.ID
		h.conflicts(insert, store.Base{}, why)
		h.conflicts(ended(mark, 2*time.Hour), mark.Base(), "a second end is for Delete")
		h.holds(mark)
	}},

	{"a tombstone past its deadline can be replaced by an insert", func(h *harness) {
		old := ended(expired(), -time.Hour)
		old.Version = 1
		h.inserted(old)
		rec := first()
		rec.ID = old.ID
		h.holds(h.inserted(rec))
	}},

	{"a tombstone past its deadline still refuses a save", func(h *harness) {
		rec := h.inserted(first())
		h.saved(ended(rec, -time.Hour), rec.Base())
		h.conflicts(next(rec), rec.Base(), "only an insert may use the place of a session that ended")
	}},

	{"Delete leaves a tombstone until the given time", func(h *harness) {
		rec := first()
		rec.User = newUser()
		h.inserted(rec)
		before := now()
		until := before.Add(10 * time.Minute) // earlier than the session's deadline
		h.deleted(rec.ID, until)
		mark := h.load(rec.ID)
		if !mark.IsEnd() || len(mark.Data) != 0 {
			h.Fatalf("after Delete: Ended %v and %d bytes of Data, want a tombstone without Data", mark.Ended, len(mark.Data))
		}
		if !mark.Deadline.Equal(until) {
			h.Errorf("the mark's deadline is %v, want %v as given", mark.Deadline, until)
		}
		if far := mark.Ended.Sub(before).Abs(); far > 10*time.Minute {
			h.Errorf("the mark's Ended is %v off, want the time of the Delete", far)
		}
		if mark.Version < rec.Version {
			h.Errorf("the mark's version is %d, want at least the record's %d", mark.Version, rec.Version)
		}
	}},

	{"Delete ends whatever version there is", func(h *harness) {
		rec := h.inserted(first())
		two := h.following(rec)
		h.deleted(rec.ID, now().Add(time.Hour))
		h.conflicts(next(two), two.Base(), "logout must be final")
		h.staysEnded(rec.ID)
	}},

	{"Delete of an unknown ID leaves a mark that refuses an insert", func(h *harness) {
		rec := first()
		h.deleted(rec.ID, now().Add(time.Hour))
		h.conflicts(rec, store.Base{}, "the session was revoked before its first save arrived")
		h.conflicts(next(rec), rec.Base(), "the session was revoked before its first save arrived")
		h.staysEnded(rec.ID)
	}},

	{"Delete again changes nothing but a later deadline", func(h *harness) {
		rec := first()
		rec.User = store.UserHash{1, 2, 3}
		rec = h.inserted(rec)
		mark := h.saved(ended(rec, time.Hour), rec.Base())
		for _, c := range []struct{ until, want time.Time }{
			{mark.Deadline, mark.Deadline},
			{mark.Deadline.Add(-30 * time.Minute), mark.Deadline},
			{mark.Deadline.Add(30 * time.Minute), mark.Deadline.Add(30 * time.Minute)},
			{mark.Deadline, mark.Deadline.Add(30 * time.Minute)},
		} {
			h.deleted(rec.ID, c.until)
			got := h.load(rec.ID)
			if !got.Deadline.Equal(c.want) {
				h.Errorf("Delete until %v: the mark's deadline is %v, want %v, the later one", c.until, got.Deadline, c.want)
			}
			if got.User != rec.User {
				h.Errorf("Delete again: the mark's user is %x, want %x", got.User, rec.User)
			}
			if !got.Ended.Equal(mark.Ended) {
				h.Errorf("Delete again: the mark's Ended moved from %v to %v, want it unchanged", mark.Ended, got.Ended)
			}
		}
		h.saved(mark, rec.Base()) // its save ID is still known
	}},

	{"Delete of a record past its deadline ends it", func(h *harness) {
		rec := h.inserted(expired())
		h.deleted(rec.ID, now().Add(time.Hour))
		h.staysEnded(rec.ID)
		insert := first()
		insert.ID = rec.ID
		h.conflicts(insert, store.Base{}, "logout must be final")
	}},

	{"after Delete no late save makes the session live", func(h *harness) {
		for range h.writers {
			rec := h.inserted(first())
			var gone atomic.Bool
			deleted := make(chan struct{})
			together(5, func(i int) {
				switch i {
				case 0:
					runtime.Gosched()
					if err := h.store.Delete(h.Context(), rec.ID, now().Add(time.Hour)); err != nil {
						h.Errorf("Delete: %v", err)
					}
					gone.Store(true)
					close(deleted)
				case 1: // saves one after the other, as fast as it can
					at := rec
					for !gone.Load() {
						save := next(at)
						if h.store.Save(h.Context(), save, at.Base()) != nil {
							break
						}
						at = save
					}
					<-deleted
					lateSave(h, next(at), at.Base())
				case 2: // a copy of the first save, and an insert by a request that found no record
					<-deleted
					lateSave(h, rec, store.Base{})
					insert := first()
					insert.ID = rec.ID
					lateSave(h, insert, store.Base{})
				case 3: // a save under way during the Delete
					lateSave(h, next(rec), rec.Base())
				case 4: // a touch, if the store has it
					if t, ok := h.store.(store.Toucher); ok {
						<-deleted
						if err := t.Touch(h.Context(), rec.ID, now(), now().Add(2*time.Hour)); !errors.Is(err, store.ErrNotFound) {
							h.Errorf("Touch after Delete: %v, want store.ErrNotFound", err)
						}
					}
				}
			})
			h.staysEnded(rec.ID)
		}
	}},

	{"after an end by compare-and-set no late save makes the session live", func(h *harness) {
		for range h.writers {
			rec := h.inserted(first())
			mark := ended(rec, time.Hour)
			save := next(rec)
			var markErr, saveErr error
			together(2, func(i int) {
				if i == 0 {
					markErr = h.store.Save(h.Context(), mark, rec.Base())
				} else {
					saveErr = h.store.Save(h.Context(), save, rec.Base())
				}
			})
			switch {
			case markErr == nil && errors.Is(saveErr, store.ErrConflict):
				h.holds(mark)
			case saveErr == nil && errors.Is(markErr, store.ErrConflict):
				h.holds(save)
			default:
				h.Fatalf("the end: %v, the save: %v; want one nil and one store.ErrConflict", markErr, saveErr)
			}
		}
	}},
}

// lateSave sends a save that may be refused or recognized; the test checks
// later whether it was applied.
func lateSave(h *harness, rec store.Record, base store.Base) {
	if err := h.store.Save(h.Context(), rec, base); err != nil && !errors.Is(err, store.ErrConflict) {
		h.Errorf("late Save: %v, want nil or store.ErrConflict", err)
	}
}
