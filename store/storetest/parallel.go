package storetest

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/store"
)

// rounds is how often a race is repeated, because a faulty store may pass by chance.
const rounds = 15

var parallelTests = []scenario{
	{"64 writers' increments add up", func(h *harness) {
		rec := first()
		rec.Data = binary.BigEndian.AppendUint64(nil, 0)
		h.inserted(rec)
		together(h.writers, func(int) {
			if err := increment(h, rec.ID); err != nil {
				h.Errorf("increment: %v", err)
			}
		})
		got := h.load(rec.ID)
		total := uint64(h.writers)
		if n := binary.BigEndian.Uint64(got.Data); n != total {
			h.Errorf("the counter is %d, want %d: two saves on one base were both accepted, or an accepted one was lost", n, total)
		}
		if want := rec.Version + total; got.Version != want {
			h.Errorf("version %d, want %d: one more with each save", got.Version, want)
		}
	}},

	{"of 64 inserts one wins", func(h *harness) {
		for range h.some(rounds) {
			h.holds(oneWins(h, inserts(h, newID()), store.Base{}))
		}
	}},

	{"of 64 inserts over an expired record one wins", func(h *harness) {
		for range h.some(rounds) {
			old := h.inserted(expired())
			h.holds(oneWins(h, inserts(h, old.ID), store.Base{}))
		}
	}},

	{"of 64 saves on one base one wins", func(h *harness) {
		for range h.some(rounds) {
			one := h.inserted(first())
			recs := make([]store.Record, h.writers)
			for i := range recs {
				recs[i] = next(one)
			}
			h.holds(oneWins(h, recs, one.Base()))
		}
	}},

	{"sessions do not get in each other's way", func(h *harness) {
		together(h.writers, func(int) {
			rec := first()
			base := store.Base{}
			for range 8 {
				if err := h.store.Save(h.Context(), rec, base); err != nil {
					h.Errorf("Save of version %d: %v, want it saved: nobody else writes this session", rec.Version, err)
					return
				}
				got, err := h.store.Load(h.Context(), rec.ID)
				if err != nil {
					h.Errorf("Load of version %d: %v", rec.Version, err)
					return
				}
				if diff := difference(got, rec); diff != "" {
					h.Errorf("the record loaded after its save differs:\n%s", diff)
					return
				}
				base = rec.Base()
				rec = next(rec)
			}
		})
	}},
}

// increment adds one to the counter in a session's Data, by compare-and-set.
func increment(h *harness, id store.ID) error {
	for {
		stored, err := h.store.Load(h.Context(), id)
		if err != nil {
			return err
		}
		rec := next(stored)
		rec.Data = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(stored.Data)+1)
		err = h.store.Save(h.Context(), rec, stored.Base())
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// inserts returns different first records of one session, one for each writer.
func inserts(h *harness, id store.ID) []store.Record {
	recs := make([]store.Record, h.writers)
	for i := range recs {
		recs[i] = first()
		recs[i].ID = id
	}
	return recs
}

// oneWins saves all records at once on the same base, fails the test unless
// exactly one is saved and the others conflict, and returns that one.
func oneWins(h *harness, recs []store.Record, base store.Base) store.Record {
	h.Helper()
	var wins atomic.Int64
	winner := make(chan store.Record, len(recs))
	together(len(recs), func(i int) {
		switch err := h.store.Save(h.Context(), recs[i], base); {
		case err == nil:
			wins.Add(1)
			winner <- recs[i]
		case !errors.Is(err, store.ErrConflict):
			h.Errorf("Save: %v, want nil or store.ErrConflict", err)
		}
	})
	if n := wins.Load(); n != 1 {
		h.Fatalf("%d of %d saves on the same base were accepted, want exactly 1", n, len(recs))
	}
	return <-winner
}
