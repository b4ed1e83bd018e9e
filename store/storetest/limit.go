package storetest

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// limited saves a user's new session and returns the sessions that were ended.
func (h *harness) limited(rec store.Record, limit store.UserLimit) []store.ID {
	h.Helper()
	limit.Until = now().Add(time.Hour)
	ended, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), rec, limit)
	if err != nil {
		h.Fatalf("SaveLimited with Max %d: %v, want it saved", limit.Max, err)
	}
	return ended
}

// isLive reports whether a session is live.
func (h *harness) isLive(id store.ID) bool {
	h.Helper()
	rec, err := h.store.Load(h.Context(), id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		h.Fatalf("Load: %v", err)
	}
	return err == nil && !rec.IsEnd() && !rec.Expired(time.Now())
}

// liveOf returns how many of the records are live.
func (h *harness) liveOf(recs []store.Record) (n int) {
	h.Helper()
	for _, rec := range recs {
		if h.isLive(rec.ID) {
			n++
		}
	}
	return n
}

// logins makes a user's sessions, each a minute younger than the one before,
// without a limit.
func (h *harness) logins(user store.UserHash, n int) []store.Record {
	h.Helper()
	recs := make([]store.Record, n)
	for i := range recs {
		recs[i] = login(user)
		recs[i].Created = recs[i].Created.Add(time.Duration(i-n) * time.Minute)
		h.inserted(recs[i])
	}
	return recs
}

func idsOf(recs ...store.Record) []store.ID {
	ids := make([]store.ID, len(recs))
	for i, rec := range recs {
		ids[i] = rec.ID
	}
	return ids
}

func (h *harness) sameIDs(got, want []store.ID) {
	h.Helper()
	byText := func(a, b store.ID) int { return slices.Compare(a[:], b[:]) }
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortFunc(got, byText)
	slices.SortFunc(want, byText)
	if !slices.Equal(got, want) {
		h.Fatalf("SaveLimited says that it ended %d sessions, want exactly the %d that were in the way", len(got), len(want))
	}
}

var limitTests = []scenario{
	{"saves and ends nothing while there is room", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 2)
		rec := login(ann)
		h.sameIDs(h.limited(rec, store.UserLimit{Max: 3}), nil)
		h.holds(rec)
		h.userHas(ann, old[0], old[1], rec)
	}},

	{"ends the oldest sessions to make room, and says which", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 4)
		rec := login(ann)
		h.sameIDs(h.limited(rec, store.UserLimit{Max: 2}), idsOf(old[:3]...))
		h.userHas(ann, old[3], rec)
		for _, o := range old[:3] {
			h.staysEnded(o.ID)
			h.conflicts(next(o), o.Base(), "an evicted session must not come back")
		}
	}},

	{"ends them as Delete does", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 1)[0]
		two := h.following(old)
		h.limited(login(ann), store.UserLimit{Max: 1})
		h.saved(two, old.Base()) // sent again
		h.staysEnded(old.ID)
		if mark := h.load(old.ID); mark.Version != two.Version {
			h.Errorf("the evicted session's mark has version %d, want that of the session, %d", mark.Version, two.Version)
		}
	}},

	{"keeps the tombstones until the given time", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 1)
		until := now().Add(37 * time.Minute)
		limit := store.UserLimit{Max: 1, Until: until}
		if _, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), login(ann), limit); err != nil {
			h.Fatalf("SaveLimited: %v", err)
		}
		if mark := h.load(old[0].ID); !mark.Deadline.Equal(until) {
			h.Errorf("the evicted session's mark is kept until %v, want %v as given", mark.Deadline, until)
		}
	}},

	{"with Refuse saves nothing over the limit, and ends nothing", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 2)
		rec := login(ann)
		_, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), rec, store.UserLimit{Max: 2, Refuse: true, Until: now().Add(time.Hour)})
		if !errors.Is(err, store.ErrLimit) {
			h.Fatalf("SaveLimited of a third session with Max 2 and Refuse: %v, want store.ErrLimit", err)
		}
		if _, err := h.store.Load(h.Context(), rec.ID); !errors.Is(err, store.ErrNotFound) {
			h.Errorf("the refused session: %v, want store.ErrNotFound", err)
		}
		h.userHas(ann, old...)
		h.deleted(old[0].ID, now().Add(time.Hour))
		h.limited(rec, store.UserLimit{Max: 2, Refuse: true})
		h.userHas(ann, old[1], rec)
	}},

	{"does not count what has ended or expired, nor anybody else's", func(h *harness) {
		ann := newUser()
		over := expired()
		over.User = ann
		h.inserted(over)
		gone := h.logins(ann, 2)
		h.deleted(gone[0].ID, now().Add(time.Hour))
		h.saved(ended(gone[1], time.Hour), gone[1].Base())
		others := h.logins(newUser(), 3)
		h.logins(newUser(), 1)
		h.inserted(first())
		rec := login(ann)
		h.sameIDs(h.limited(rec, store.UserLimit{Max: 1, Refuse: true}), nil)
		h.holds(rec)
		h.userHas(others[0].User, others...)
	}},

	{"counts what may be live by another clock, and ends it first", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 1)[0]
		late := login(ann)
		late.Deadline = now().Add(-store.ClockSkew / 3)
		h.inserted(late)
		if _, err := h.store.Load(h.Context(), late.ID); errors.Is(err, store.ErrNotFound) {
			return // the session has expired by the engine's clock, which is ahead
		}
		two := login(ann)
		h.sameIDs(h.limited(two, store.UserLimit{Max: 3}), nil)
		if rec := h.load(late.ID); rec.IsEnd() {
			h.Fatal("a session that may be live was ended although there is room")
		}
		three := login(ann)
		h.sameIDs(h.limited(three, store.UserLimit{Max: 3, Refuse: true}), idsOf(late))
		h.staysEnded(late.ID)
		h.userHas(ann, old, two, three)
		_, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), login(ann), store.UserLimit{Max: 3, Refuse: true, Until: now().Add(time.Hour)})
		if !errors.Is(err, store.ErrLimit) {
			h.Errorf("SaveLimited of a fourth with Max 3 and Refuse: %v, want store.ErrLimit", err)
		}
	}},

	{"uses the last stored values", func(h *harness) {
		ann := newUser()
		moved, shortened, late := h.logins(ann, 1)[0], h.logins(ann, 1)[0], expired()
		other := next(moved)
		other.User = newUser()
		h.saved(other, moved.Base())
		short := next(shortened)
		short.Seen, short.Deadline, short.Shorten = late.Seen, late.Deadline, true
		h.saved(short, shortened.Base())
		h.sameIDs(h.limited(login(ann), store.UserLimit{Max: 1, Refuse: true}), nil)
		h.holds(other)

		// A session that a later save or touch extended again counts, if the
		// engine allows that.
		bob := newUser()
		late.User = bob
		h.inserted(late)
		extended := next(late)
		extended.Deadline = now().Add(time.Hour)
		if err := h.store.Save(h.Context(), extended, late.Base()); err != nil && !errors.Is(err, store.ErrConflict) {
			h.Fatalf("Save: %v", err)
		}
		if h.isLive(late.ID) {
			h.sameIDs(h.limited(login(bob), store.UserLimit{Max: 1}), idsOf(late))
		}
	}},

	{"leaves alone the session that the new one replaces", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 3)
		rec := login(ann)
		h.sameIDs(h.limited(rec, store.UserLimit{Max: 3, Replaces: old[0].ID}), nil)
		h.userHas(ann, old[0], old[1], old[2], rec)
		h.sameIDs(h.limited(login(ann), store.UserLimit{Max: 3, Replaces: old[0].ID}), idsOf(old[1]))
		_, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), login(ann), store.UserLimit{Max: 3, Refuse: true, Replaces: newID()})
		if !errors.Is(err, store.ErrLimit) {
			h.Errorf("SaveLimited with Refuse that replaces somebody else's session: %v, want store.ErrLimit", err)
		}
	}},

	{"sent twice is saved once, and evicts once", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 3)
		rec := login(ann)
		h.limited(rec, store.UserLimit{Max: 3})
		h.limited(rec, store.UserLimit{Max: 3})
		h.limited(rec, store.UserLimit{Max: 3, Refuse: true})
		h.userHas(ann, old[1], old[2], rec)
		two := h.following(rec)
		h.limited(rec, store.UserLimit{Max: 3})
		h.userHas(ann, old[1], old[2], two)
	}},

	{"sent again after it has ended changes nothing", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 2)
		rec := login(ann)
		h.limited(rec, store.UserLimit{Max: 3})
		h.deleted(rec.ID, now().Add(time.Hour))
		three := h.logins(ann, 1)[0]
		h.sameIDs(h.limited(rec, store.UserLimit{Max: 3}), nil)
		h.staysEnded(rec.ID)
		h.userHas(ann, old[0], old[1], three)
	}},

	{"copies sent at once are saved once, and evict once", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 3)
		rec := login(ann)
		together(8, func(int) {
			sent := rec
			if _, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), sent, store.UserLimit{Max: 3, Until: now().Add(time.Hour)}); err != nil {
				h.Errorf("SaveLimited: %v, want nil: this very save was applied", err)
			}
		})
		h.userHas(ann, old[1], old[2], rec)
	}},

	{"refuses an ID that is taken or has ended, and ends nothing then", func(h *harness) {
		ann := newUser()
		old := h.logins(ann, 2)
		ids := []store.ID{h.inserted(first()).ID, newID(), old[0].ID}
		h.deleted(ids[1], now().Add(time.Hour))
		for _, id := range ids {
			rec := login(ann)
			rec.ID = id
			_, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), rec, store.UserLimit{Max: 1, Until: now().Add(time.Hour)})
			if !errors.Is(err, store.ErrConflict) {
				h.Fatalf("SaveLimited under an ID that is taken: %v, want store.ErrConflict", err)
			}
		}
		h.userHas(ann, old...)
	}},

	{"parallel logins leave exactly as many as allowed", func(h *harness) {
		const limit = 3
		ann := newUser()
		old := h.logins(ann, limit)
		recs := make([]store.Record, h.writers)
		var mu sync.Mutex
		var evicted []store.ID
		together(len(recs), func(i int) {
			rec := login(ann)
			ended, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), rec, store.UserLimit{Max: limit, Until: now().Add(time.Hour)})
			mu.Lock()
			defer mu.Unlock()
			recs[i] = rec
			evicted = append(evicted, ended...)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				h.Errorf("SaveLimited: %v, want nil, or store.ErrConflict for one that was evicted meanwhile", err)
			}
		})
		if n := h.liveOf(append(old, recs...)); n != limit {
			h.Fatalf("%d sessions are live after %d parallel logins with Max %d, want exactly %d", n, len(recs), limit, limit)
		}
		for _, id := range evicted {
			if h.isLive(id) {
				h.Fatalf("a session that was reported as ended is live")
			}
		}
	}},

	{"parallel logins with Refuse let exactly as many in as allowed", func(h *harness) {
		const limit = 3
		ann := newUser()
		recs := make([]store.Record, h.writers)
		var mu sync.Mutex
		in := 0
		together(len(recs), func(i int) {
			rec := login(ann)
			ended, err := h.store.(store.UserLimiter).SaveLimited(h.Context(), rec, store.UserLimit{Max: limit, Refuse: true, Until: now().Add(time.Hour)})
			mu.Lock()
			defer mu.Unlock()
			recs[i] = rec
			switch {
			case len(ended) > 0:
				h.Errorf("SaveLimited with Refuse ended a session")
			case err == nil:
				in++
			case !errors.Is(err, store.ErrLimit):
				h.Errorf("SaveLimited: %v, want nil or store.ErrLimit", err)
			}
		})
		if n := h.liveOf(recs); in != limit || n != limit {
			h.Fatalf("%d of %d parallel logins were let in and %d are live, want %d", in, len(recs), n, limit)
		}
	}},
}
