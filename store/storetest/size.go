package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/sojourn-go/sojourn/store"
)

var sizeTests = []scenario{
	{"512 KiB are kept", func(h *harness) {
		rec := h.inserted(first())
		big := next(rec)
		big.Data = noise(512 << 10)
		h.holds(h.saved(big, rec.Base()))
		h.holds(h.following(big))
	}},

	{"1 MiB is kept, or refused with the record untouched", func(h *harness) {
		rec := h.inserted(first())
		big := next(rec)
		big.Data = noise(1 << 20)
		switch err := h.store.Save(h.Context(), big, rec.Base()); {
		case err == nil:
			h.holds(big)
			h.holds(h.following(big))
		case errors.Is(err, store.ErrTooLarge):
			h.holds(rec)
			h.holds(h.following(rec))
		default:
			h.Fatalf("Save of 1 MiB: %v, want nil or store.ErrTooLarge", err)
		}

		rec = first()
		rec.Data = big.Data
		if err := h.store.Save(h.Context(), rec, store.Base{}); err == nil {
			h.holds(rec)
		} else if !errors.Is(err, store.ErrTooLarge) {
			h.Fatalf("Save of a first record with 1 MiB: %v, want nil or store.ErrTooLarge", err)
		}
	}},

	{"many records are kept apart", func(h *harness) {
		many := h.records
		const workers = 256
		rec := first()
		id := func(i int) store.ID { return store.HashIdentifier(fmt.Appendf(nil, "record %d", i)) }
		each := func(what string, do func(i int) error) {
			together(workers, func(w int) {
				for i := w; i < many; i += workers {
					if err := do(i); err != nil {
						h.Errorf("%s %d of %d: %v", what, i, many, err)
						return
					}
				}
			})
			if h.Failed() {
				h.FailNow()
			}
		}
		numbered := func(i int) store.Record {
			r := rec
			r.ID = id(i)
			r.Data = fmt.Appendf(nil, "data %d", i)
			return r
		}
		changed := func(i int) store.Record {
			r := numbered(i)
			r.Version = 2
			r.SaveIDs = []store.SaveID{store.SaveID(i + 1), rec.SaveIDs[0]}
			r.Data = fmt.Appendf(nil, "changed %d", i)
			return r
		}
		each("insert", func(i int) error {
			return h.store.Save(h.Context(), numbered(i), store.Base{})
		})
		each("save", func(i int) error {
			if i%10 != 0 {
				return nil
			}
			return h.store.Save(h.Context(), changed(i), rec.Base())
		})
		each("load", func(i int) error {
			want := numbered(i)
			if i%10 == 0 {
				want = changed(i)
			}
			got, err := h.store.Load(h.Context(), want.ID)
			if err != nil {
				return err
			}
			if diff := difference(got, want); diff != "" {
				return fmt.Errorf("the record differs:\n%s", diff)
			}
			return nil
		})
	}},
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
