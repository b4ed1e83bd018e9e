package storetest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// model is the shortest implementation of the contract, for records whose
// deadlines are in the future.
type model map[store.ID]store.Record

func (m model) save(rec store.Record, base store.Base) error {
	stored, exists := m[rec.ID]
	switch {
	case exists && stored.HasSaveID(rec.SaveIDs[0]):
		return nil
	case base == store.Base{} && exists:
		return store.ErrConflict
	case base != store.Base{} && (!exists || stored.IsEnd() || stored.Base() != base):
		return store.ErrConflict
	}
	if !rec.Shorten && !rec.IsEnd() {
		rec.Seen, rec.Deadline = later(rec.Seen, stored.Seen), later(rec.Deadline, stored.Deadline)
	}
	rec.Shorten = false
	m[rec.ID] = rec
	return nil
}

func (m model) delete(id store.ID, until time.Time) {
	rec, exists := m[id]
	if exists && rec.IsEnd() {
		until = later(until, rec.Deadline)
	} else {
		rec.Ended = now()
	}
	rec.ID, rec.Deadline, rec.Data = id, until, nil
	m[id] = rec
}

func (m model) touch(id store.ID, seen, deadline time.Time) error {
	rec, exists := m[id]
	if !exists || rec.IsEnd() {
		return store.ErrNotFound
	}
	rec.Seen, rec.Deadline = later(rec.Seen, seen), later(rec.Deadline, deadline)
	m[id] = rec
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// modelTests send random calls to the store and to the model, one after the
// other, and compare the results.
var modelTests = []scenario{
	{"random calls have the outcomes of the contract", func(h *harness) {
		for range h.histories {
			seed := rand.Uint64()
			compareWithModel(h, seed)
			if h.Failed() {
				h.Fatalf("seed %d", seed)
			}
		}
	}},
}

func compareWithModel(h *harness, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := model{}
	ids := []store.ID{newID(), newID(), newID()}
	users := []store.UserHash{{}, newUser(), newUser()}
	var sent []sentSave
	start := now()
	pick := func(around time.Duration) time.Time {
		return start.Add(around + time.Duration(rng.IntN(600))*time.Second)
	}
	for step := range 100 {
		id := ids[rng.IntN(len(ids))]
		var call string
		var got, want error
		switch n := rng.IntN(20); {
		case n == 0:
			call = "Delete"
			until := pick(time.Hour)
			got = h.store.Delete(h.Context(), id, until)
			m.delete(id, until)
		case n < 3:
			t, ok := h.store.(store.Toucher)
			if !ok {
				continue
			}
			call = "Touch"
			seen, deadline := pick(0), pick(time.Hour)
			got, want = t.Touch(h.Context(), id, seen, deadline), m.touch(id, seen, deadline)
		case n < 7 && len(sent) > 0:
			call = "Save again"
			s := sent[rng.IntN(len(sent))]
			got, want = h.store.Save(h.Context(), s.rec, s.base), m.save(s.rec, s.base)
		default:
			call = "Save"
			s := randomSave(rng, m[id], sent)
			s.rec.ID, s.rec.User = id, users[rng.IntN(len(users))]
			s.rec.Seen, s.rec.Deadline, s.rec.Expires = pick(0), pick(time.Hour), pick(2*time.Hour)
			s.rec.Created = start
			sent = append(sent, s)
			got, want = h.store.Save(h.Context(), s.rec, s.base), m.save(s.rec, s.base)
		}
		if !errors.Is(got, want) {
			h.Errorf("step %d, %s: %v, want %v", step, call, got, want)
			return
		}
		for _, id := range ids {
			want, exists := m[id]
			got, err := h.store.Load(h.Context(), id)
			if !exists {
				if !errors.Is(err, store.ErrNotFound) {
					h.Errorf("step %d, Load after %s: %v, want store.ErrNotFound", step, call, err)
				}
				continue
			}
			if err != nil {
				h.Errorf("step %d, Load after %s: %v", step, call, err)
				return
			}
			if want.IsEnd() {
				if got.IsEnd() { // the time comes from the store's clock
					got.Ended = want.Ended
				}
				// A store may keep or drop these fields of a tombstone.
				got.User, got.Created, got.Seen, got.Expires = want.User, want.Created, want.Seen, want.Expires
			}
			if diff := difference(got, want); diff != "" {
				h.Errorf("step %d, Load after %s: the record differs:\n%s", step, call, diff)
				return
			}
		}
	}
	if _, ok := h.store.(store.UserIndex); ok {
		for _, user := range users[1:] {
			var want []store.Record
			for _, rec := range m {
				if rec.User == user && !rec.IsEnd() {
					want = append(want, rec)
				}
			}
			h.userHas(user, want...)
		}
	}
}

type sentSave struct {
	rec  store.Record
	base store.Base
}

// randomSave makes a valid save after stored, or an invalid one.
func randomSave(rng *rand.Rand, stored store.Record, sent []sentSave) sentSave {
	s := sentSave{rec: next(stored), base: stored.Base()}
	switch rng.IntN(12) {
	case 0:
		s.base = store.Base{}
	case 1:
		s.base.Version++
	case 2:
		s.base.SaveID++
	case 3:
		if len(sent) > 0 { // the base of an earlier save
			s.base = sent[rng.IntN(len(sent))].base
		}
	case 4:
		s.rec.Ended = now()
		s.rec.Data = nil
	case 5:
		s.rec.Shorten = true
	}
	s.rec.SaveIDs = slices.Clone(s.rec.SaveIDs)
	if s.rec.Ended.IsZero() {
		s.rec.Data = noise(rng.IntN(300))
	}
	return s
}
