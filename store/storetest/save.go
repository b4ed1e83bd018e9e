package storetest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

var saveTests = []scenario{
	{"an unknown ID is not found", func(h *harness) {
		if _, err := h.store.Load(h.Context(), newID()); !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Load: %v, want store.ErrNotFound", err)
		}
	}},

	{"a first save is loaded as it was given", func(h *harness) {
		rec := first()
		rec.User = newUser()
		h.holds(h.inserted(rec))
	}},

	{"a following save replaces the record", func(h *harness) {
		rec := h.inserted(first())
		later := next(rec)
		later.User = newUser()
		later.Seen = rec.Seen.Add(time.Second)
		later.Deadline = rec.Deadline.Add(time.Minute)
		later.Expires = rec.Expires.Add(time.Minute)
		h.holds(h.saved(later, rec.Base()))
	}},

	{"every kind of data is kept", func(h *harness) {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		for name, data := range map[string][]byte{
			"none":                nil,
			"empty":               {},
			"one zero byte":       {0},
			"every byte value":    all,
			"not UTF-8":           {0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80},
			"protocol look-alike": []byte("\r\nEND\r\n$-1\r\n*3\r\n'; DROP TABLE sessions; --\x00"),
			"digits":              []byte("0123456789"),
			"64 KiB":              bytes.Repeat(all, 256),
		} {
			rec := first()
			rec.Data = data
			h.inserted(rec)
			if got := h.load(rec.ID); !bytes.Equal(got.Data, data) {
				h.Errorf("data %q: got %d bytes, want the same %d bytes", name, len(got.Data), len(data))
			}
			shrunk := next(rec)
			shrunk.Data = data[:len(data)/2]
			h.holds(h.saved(shrunk, rec.Base()))
		}
	}},

	{"every kind of ID, user and number is kept", func(h *harness) {
		for _, fill := range []byte{0, ' ', '\r', '\n', '\'', '%', ':', '*', '/', 0x7f, 0x80, 0xff} {
			rec := first()
			for i := range rec.ID {
				rec.ID[i] = fill
			}
			rec.User = store.UserHash(rec.ID)
			rec.Version = 1<<53 + 1 // a number that a float64 cannot hold
			rec.SaveIDs = []store.SaveID{math.MaxUint64, 1, 1 << 63, 1<<63 - 1, 1<<53 + 1, 256, 10, 13}
			h.inserted(rec)
			h.holds(rec)
			h.holds(h.following(rec))
		}
	}},

	{"records with nearly the same ID are apart", func(h *harness) {
		a := first()
		b := first()
		b.ID = a.ID
		b.ID[15] ^= 1
		c := first()
		c.ID = a.ID
		c.ID[0] ^= 0x80
		for _, rec := range []store.Record{a, b, c} {
			h.inserted(rec)
		}
		for _, rec := range []store.Record{a, b, c} {
			h.holds(rec)
		}
	}},

	{"times are kept to the millisecond, in UTC", func(h *harness) {
		rec := first()
		in := time.FixedZone("elsewhere", 5*3600+1800)
		fraction := 123*time.Millisecond + 999999*time.Nanosecond
		second := now().Truncate(time.Second).In(in)
		rec.Created = second.Add(fraction)
		rec.Seen = second.Add(time.Minute + fraction)
		rec.Deadline = second.Add(time.Hour + fraction)
		rec.Expires = second.Add(2*time.Hour + fraction)
		h.inserted(rec)
		for _, at := range []*time.Time{&rec.Created, &rec.Seen, &rec.Deadline, &rec.Expires} {
			*at = at.UTC().Truncate(time.Millisecond)
		}
		h.holds(rec)
	}},

	{"zero times stay zero", func(h *harness) {
		rec := first()
		rec.Created, rec.Seen, rec.Expires = time.Time{}, time.Time{}, time.Time{}
		h.inserted(rec)
		got := h.load(rec.ID)
		if !got.Created.IsZero() || !got.Seen.IsZero() || !got.Expires.IsZero() || !got.Ended.IsZero() {
			h.Fatalf("Created %v, Seen %v, Expires %v, Ended %v: want all of them IsZero", got.Created, got.Seen, got.Expires, got.Ended)
		}
	}},

	{"an insert does not replace a live record", func(h *harness) {
		rec := h.inserted(first())
		other := first()
		other.ID = rec.ID
		h.conflicts(other, store.Base{}, "two requests that promote the same session would lose one's values")
		h.holds(rec)
	}},

	{"an insert replaces a record past its deadline", func(h *harness) {
		old := expired()
		old.User = newUser()
		old.Version = 5
		h.inserted(old)
		rec := first()
		rec.ID = old.ID
		h.holds(h.inserted(rec))
	}},

	{"a save does not create a record", func(h *harness) {
		rec := first()
		h.conflicts(next(rec), rec.Base(), "a save that creates brings back sessions that ended")
		if _, err := h.store.Load(h.Context(), rec.ID); !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Load after the refused save: %v, want store.ErrNotFound", err)
		}
	}},

	{"a save on an older version conflicts", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		h.conflicts(next(one), one.Base(), "the change in between would be lost")
		h.holds(two)
	}},

	{"a save on a version that is not there yet conflicts", func(h *harness) {
		one := h.inserted(first())
		two := next(one)
		h.conflicts(next(two), two.Base(), "what was never stored cannot be replaced")
		h.holds(one)
	}},

	{"a save on the same version with another save ID conflicts", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		other := next(one) // another version 2, lost in a failover
		h.conflicts(next(other), other.Base(), "versions may be given twice after a failover, so the save ID must be compared too")
		h.holds(two)
	}},

	{"a save compares with the newest save ID only", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		base := store.Base{Version: two.Version, SaveID: one.SaveIDs[0]}
		h.conflicts(next(two), base, "an older save ID among the recent ones is not the stored state")
		h.holds(two)
	}},

	{"versions may skip numbers", func(h *harness) {
		// After a store lost writes, versions continue above those that browsers have seen.
		rec := h.inserted(first())
		jumped := next(rec)
		jumped.Version += 100
		h.holds(h.saved(jumped, rec.Base()))
		h.holds(h.following(jumped))
	}},

	{"Seen and Deadline never move backwards", func(h *harness) {
		rec := h.inserted(first())
		slow := next(rec)
		slow.Seen = rec.Seen.Add(-time.Minute)
		slow.Deadline = rec.Deadline.Add(-time.Minute)
		h.saved(slow, rec.Base())
		slow.Seen, slow.Deadline = rec.Seen, rec.Deadline
		h.holds(slow)

		mixed := next(slow)
		mixed.Seen = rec.Seen.Add(time.Minute)
		mixed.Deadline = rec.Deadline.Add(-time.Minute)
		h.saved(mixed, slow.Base())
		mixed.Deadline = rec.Deadline
		h.holds(mixed)
	}},

	{"with Shorten they do", func(h *harness) {
		rec := h.inserted(first())
		short := next(rec)
		short.Shorten = true
		short.Seen = rec.Seen.Add(-time.Minute)
		short.Deadline = rec.Deadline.Add(-time.Minute)
		h.saved(short, rec.Base())
		short.Shorten = false
		h.holds(short)
		h.holds(h.following(short))
	}},

	{"a record past its deadline is returned or not found", func(h *harness) {
		rec := h.inserted(expired())
		got, err := h.store.Load(h.Context(), rec.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			h.Fatalf("Load: %v, want the record or store.ErrNotFound", err)
		default:
			h.same(got, rec)
		}
		err = h.store.Save(h.Context(), next(rec), rec.Base())
		if err != nil && !errors.Is(err, store.ErrConflict) {
			h.Fatalf("Save on it: %v, want nil or store.ErrConflict", err)
		}
	}},

	{"who loads a record may change its fields and save IDs", func(h *harness) {
		rec := h.inserted(first())
		rec = h.following(rec)
		mine := h.load(rec.ID)
		mine.Version = 99
		mine.SaveIDs[0], mine.SaveIDs[1] = 7, 7
		mine.SaveIDs = append(mine.SaveIDs[:1], 8)
		mine.Data = nil
		h.holds(rec)
	}},

	{"who saved a record may change its fields and save IDs", func(h *harness) {
		rec := first()
		mine := rec
		mine.SaveIDs = slices.Clone(rec.SaveIDs)
		h.inserted(mine)
		mine.SaveIDs[0] = 7
		h.holds(rec)
		mine = next(rec)
		two := mine
		two.SaveIDs = slices.Clone(mine.SaveIDs)
		h.saved(mine, rec.Base())
		mine.SaveIDs[0], mine.SaveIDs[1] = 7, 7
		h.holds(two)
	}},
}

// resendTests check that a save whose outcome is unknown can be sent again.
var resendTests = []scenario{
	{"an insert sent twice is saved once", func(h *harness) {
		rec := h.inserted(first())
		h.inserted(rec)
		h.holds(rec)
	}},

	{"a save sent twice is saved once", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		h.saved(two, one.Base())
		h.holds(two)
	}},

	{"a save is recognised below later ones and not applied again", func(h *harness) {
		one := h.inserted(first())
		top := one
		for range store.RecentSaveIDs - 1 {
			top = h.following(top)
		}
		h.saved(one, store.Base{}) // its save ID is the oldest that is kept
		h.holds(top)
		top = h.following(top)
		h.conflicts(one, store.Base{}, "its save ID is no longer kept, and the record is another one")
		h.holds(top)
	}},

	{"a save that came too late conflicts when sent again", func(h *harness) {
		one := h.inserted(first())
		late := next(one)
		two := h.following(one)
		for range 3 {
			h.conflicts(late, one.Base(), "a newer save has taken its place")
			h.holds(two)
		}
	}},

	{"the second of two copies under way is fenced off", func(h *harness) {
		// The first copy is saved, another request saves a change of it, then
		// the second copy arrives: it must neither undo that change nor fail.
		one := h.inserted(first())
		two := h.following(one)
		three := h.following(two)
		h.saved(two, one.Base())
		h.holds(three)
	}},

	{"copies sent at the same time are saved once", func(h *harness) {
		one := h.inserted(first())
		two := next(one)
		together(h.writers, func(int) {
			if err := h.store.Save(h.Context(), two, one.Base()); err != nil {
				h.Errorf("Save of a copy: %v, want nil from each", err)
			}
		})
		h.holds(two)
	}},

	{"copies of an insert sent at the same time are saved once", func(h *harness) {
		rec := first()
		together(h.writers, func(int) {
			if err := h.store.Save(h.Context(), rec, store.Base{}); err != nil {
				h.Errorf("Save of a copy: %v, want nil from each", err)
			}
		})
		h.holds(rec)
	}},

	{"a tombstone sent twice is saved once", func(h *harness) {
		rec := h.inserted(first())
		mark := h.saved(ended(rec, time.Hour), rec.Base())
		h.saved(mark, rec.Base())
		h.holds(mark)
	}},

	{"a save below a tombstone is recognised and leaves the mark", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		mark := h.saved(ended(two, time.Hour), two.Base())
		h.saved(two, one.Base())
		h.holds(mark)
	}},

	{"a save below a Delete is recognised and leaves the mark", func(h *harness) {
		one := h.inserted(first())
		two := h.following(one)
		h.deleted(two.ID, now().Add(time.Hour))
		h.saved(two, one.Base())
		h.staysEnded(two.ID)
		h.conflicts(next(one), one.Base(), "it was not saved before, and the session has ended")
	}},
}
