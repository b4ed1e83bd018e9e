package storetest

import (
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// userHas fails the test unless the index lists exactly these records.
func (h *harness) userHas(user store.UserHash, want ...store.Record) {
	h.Helper()
	got, err := h.store.(store.UserIndex).ByUser(h.Context(), user)
	if err != nil {
		h.Fatalf("ByUser: %v", err)
	}
	listed := map[store.ID]store.Record{}
	for _, rec := range got {
		if _, twice := listed[rec.ID]; twice {
			h.Fatalf("ByUser lists a record twice")
		}
		listed[rec.ID] = rec
	}
	for _, rec := range want {
		found, ok := listed[rec.ID]
		if !ok {
			h.Fatalf("ByUser lists %d records, without one of the %d wanted: revoking the user's sessions would leave it live", len(got), len(want))
		}
		h.same(found, rec)
	}
	if len(got) != len(want) {
		h.Fatalf("ByUser lists %d records, want only the %d live ones of that user", len(got), len(want))
	}
}

// login returns the first record of a user's session.
func login(user store.UserHash) store.Record {
	rec := first()
	rec.User = user
	return rec
}

var userTests = []scenario{
	{"lists a user's sessions and nobody else's", func(h *harness) {
		ann, bob := newUser(), newUser()
		a1, a2, b := h.inserted(login(ann)), h.inserted(login(ann)), h.inserted(login(bob))
		h.inserted(first())
		h.userHas(ann, a1, a2)
		h.userHas(bob, b)
		h.userHas(newUser())
	}},

	{"nobody has no sessions", func(h *harness) {
		h.inserted(first())
		h.deleted(newID(), now().Add(time.Hour))
		h.userHas(store.UserHash{})
	}},

	{"shows the newest version", func(h *harness) {
		ann := newUser()
		one := h.inserted(login(ann))
		two := h.following(one)
		h.userHas(ann, two)
	}},

	{"follows a record from user to user", func(h *harness) {
		ann, bob := newUser(), newUser()
		rec := h.inserted(first())
		for _, user := range []store.UserHash{ann, bob, {}, ann} {
			save := next(rec)
			save.User = user
			rec = h.saved(save, rec.Base())
			for _, who := range []store.UserHash{ann, bob} {
				if who == user {
					h.userHas(who, rec)
				} else {
					h.userHas(who)
				}
			}
		}
	}},

	{"is not changed by a save that is refused", func(h *harness) {
		ann, bob := newUser(), newUser()
		rec := h.inserted(login(ann))
		save := next(rec)
		save.User = bob
		h.conflicts(save, store.Base{Version: 7, SaveID: 7}, "the base is not stored")
		h.userHas(ann, rec)
		h.userHas(bob)
	}},

	{"follows an insert over an expired record", func(h *harness) {
		ann, bob := newUser(), newUser()
		old := expired()
		old.User = ann
		h.inserted(old)
		rec := login(bob)
		rec.ID = old.ID
		h.inserted(rec)
		h.userHas(ann)
		h.userHas(bob, rec)
	}},

	{"lists no tombstones", func(h *harness) {
		ann := newUser()
		keep, byMark, byDelete := h.inserted(login(ann)), h.inserted(login(ann)), h.inserted(login(ann))
		h.saved(ended(byMark, time.Hour), byMark.Base())
		h.deleted(byDelete.ID, now().Add(time.Hour))
		inserted := ended(login(ann), time.Hour)
		h.inserted(inserted)
		h.userHas(ann, keep)
	}},

	{"forgets what was swept", func(h *harness) {
		if _, ok := h.store.(store.Sweeper); !ok {
			return
		}
		ann := newUser()
		old := over(2 * time.Hour)
		old.User = ann
		h.inserted(old)
		keep := h.inserted(login(ann))
		h.sweep(10)
		h.userHas(ann, keep)
	}},

	{"holds 200 sessions of one user among those of others", func(h *harness) {
		ann := newUser()
		anns := make([]store.Record, h.owned)
		others := make([]store.Record, h.some(h.owned))
		together(len(anns), func(i int) {
			anns[i] = login(ann)
			recs := []store.Record{anns[i]}
			if i < len(others) {
				others[i] = login(newUser())
				recs = append(recs, others[i])
			}
			for _, rec := range recs {
				if err := h.store.Save(h.Context(), rec, store.Base{}); err != nil {
					h.Errorf("Save: %v", err)
				}
			}
		})
		h.userHas(ann, anns...)
		for _, rec := range others[:min(20, len(others))] {
			h.userHas(rec.User, rec)
		}
		together(len(anns)/2, func(i int) {
			if err := h.store.Delete(h.Context(), anns[i].ID, now().Add(time.Hour)); err != nil {
				h.Errorf("Delete: %v", err)
			}
		})
		h.userHas(ann, anns[len(anns)/2:]...)
	}},
}
