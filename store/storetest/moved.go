package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Copies adds tests of rows that an attacker with access to the engine has
// copied. copy bypasses the store. It copies the engine's raw data of one ID
// over that of another: a table row with another key in its key column, or a
// value under another key.
//
// Data is sealed together with the ID, so the session manager detects a row
// with copied columns, which a store cannot. A store must ensure that a record
// of one ID is not loaded, changed or ended under another ID.
func Copies(copy func(t *testing.T, s store.Store, from, to store.ID)) Option {
	return func(s *settings) { s.copy = copy }
}

// copied stores two sessions, one of them a user's, and copies that row over
// the other.
func (h *harness) copied() (victim, copied store.Record) {
	h.Helper()
	victim, copied = h.inserted(login(newUser())), h.inserted(first())
	h.copy(h.T, h.store, victim.ID, copied.ID)
	return victim, copied
}

// isNot fails the test if a load returned the record of another ID.
func (h *harness) isNot(rec store.Record, err error, id store.ID) {
	h.Helper()
	switch {
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrNotFound):
	case err != nil:
		h.Fatalf("%v, want store.ErrDamaged, store.ErrNotFound or a record of that ID: a damaged row is no outage", err)
	case rec.ID != id:
		h.Fatal("the record of another ID was returned: one visitor would get another's session")
	}
}

var copiedTests = []scenario{
	{"a copied row does not answer as the record that it was copied from", func(h *harness) {
		victim, copied := h.copied()
		rec, err := h.store.Load(h.Context(), copied.ID)
		h.isNot(rec, err, copied.ID)
		if fl, ok := h.store.(store.FloorLoader); ok {
			rec, err := fl.LoadFrom(h.Context(), copied.ID, 1)
			h.isNot(rec, err, copied.ID)
		}
		h.holds(victim)
	}},

	{"nor does a copied tombstone", func(h *harness) {
		ended, copied := newID(), h.inserted(first())
		h.deleted(ended, now().Add(time.Hour))
		h.copy(h.T, h.store, ended, copied.ID)
		rec, err := h.store.Load(h.Context(), copied.ID)
		h.isNot(rec, err, copied.ID)
		h.staysEnded(ended)
	}},

	{"a save to it leaves the other record alone", func(h *harness) {
		victim, copied := h.copied()
		changed := next(victim)
		changed.ID = copied.ID
		changed.Data = []byte("somebody else's")
		for _, base := range []store.Base{victim.Base(), copied.Base(), {}} {
			if err := h.store.Save(h.Context(), changed, base); err != nil && !errors.Is(err, store.ErrConflict) {
				h.Fatalf("Save: %v, want nil or store.ErrConflict", err)
			}
			h.holds(victim)
		}
		rec, err := h.store.Load(h.Context(), copied.ID)
		h.isNot(rec, err, copied.ID)
	}},

	{"an end of it ends it alone", func(h *harness) {
		victim, copied := h.copied()
		h.deleted(copied.ID, now().Add(time.Hour))
		h.staysEnded(copied.ID)
		h.holds(victim)
	}},

	{"the end of the other leaves it no session", func(h *harness) {
		victim, copied := h.copied()
		h.deleted(victim.ID, now().Add(time.Hour))
		h.staysEnded(victim.ID)
		rec, err := h.store.Load(h.Context(), copied.ID)
		h.isNot(rec, err, copied.ID)
	}},

	{"a touch of it leaves the other record alone", func(h *harness) {
		t, ok := h.store.(store.Toucher)
		if !ok {
			return
		}
		victim, copied := h.copied()
		if err := t.Touch(h.Context(), copied.ID, now().Add(time.Minute), now().Add(5*time.Hour)); err != nil && !errors.Is(err, store.ErrNotFound) {
			h.Fatalf("Touch: %v, want nil or store.ErrNotFound", err)
		}
		h.holds(victim)
	}},

	{"the index by user lists the other record once, and nobody else's", func(h *harness) {
		index, ok := h.store.(store.UserIndex)
		if !ok {
			return
		}
		victim, copied := h.copied()
		recs, err := index.ByUser(h.Context(), victim.User)
		if err != nil {
			h.Fatalf("ByUser: %v", err)
		}
		found := 0
		for _, rec := range recs {
			switch {
			case rec.User != victim.User:
				h.Error("ByUser lists a record of another user")
			case rec.ID == victim.ID:
				found++
			case rec.ID != copied.ID:
				h.Error("ByUser lists a record that was never stored")
			}
		}
		if found != 1 {
			h.Errorf("ByUser lists the user's session %d times", found)
		}
	}},

	{"its end is not told as that of the other", func(h *harness) {
		feed, ok := h.store.(store.EndFeed)
		if !ok {
			return
		}
		page, err := feed.Ends(h.Context(), store.FeedFromNow, 100)
		if err != nil {
			h.Fatalf("Ends: %v", err)
		}
		victim, copied := h.copied()
		h.deleted(copied.ID, now().Add(time.Hour))
		told := false
		for more := true; more; more = page.More {
			if page, err = feed.Ends(h.Context(), page.Cursor, 100); err != nil {
				h.Fatalf("Ends: %v", err)
			}
			for _, e := range page.Ends {
				if e.ID == victim.ID {
					h.Error("the feed tells of the end of another session")
				}
				told = told || e.ID == copied.ID
			}
		}
		if !told {
			h.Error("the feed does not tell of the end")
		}
	}},
}
