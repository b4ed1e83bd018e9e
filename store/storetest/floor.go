package storetest

import (
	"errors"

	"github.com/sojourn-go/sojourn/store"
)

var floorTests = []scenario{
	{"answers no older than the floor", func(h *harness) {
		s := h.store.(store.FloorLoader)
		rec := h.inserted(first())
		for range 20 {
			rec = h.following(rec)
			for _, floor := range []uint64{rec.Version, 0} {
				got, err := s.LoadFrom(h.Context(), rec.ID, floor)
				if err != nil {
					h.Fatalf("LoadFrom: %v", err)
				}
				h.same(got, rec)
			}
		}
	}},

	{"a floor above what the store has gets what it has", func(h *harness) {
		// The store lost writes; its record is the truth.
		rec := h.inserted(first())
		got, err := h.store.(store.FloorLoader).LoadFrom(h.Context(), rec.ID, rec.Version+5)
		if err != nil {
			h.Fatalf("LoadFrom: %v, want the record", err)
		}
		h.same(got, rec)
	}},

	{"an unknown ID is not found", func(h *harness) {
		for _, floor := range []uint64{0, 3} {
			if _, err := h.store.(store.FloorLoader).LoadFrom(h.Context(), newID(), floor); !errors.Is(err, store.ErrNotFound) {
				h.Fatalf("LoadFrom with floor %d: %v, want store.ErrNotFound", floor, err)
			}
		}
	}},
}
