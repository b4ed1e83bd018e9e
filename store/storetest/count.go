package storetest

import (
	"time"

	"github.com/sojourn-go/sojourn/store"
)

var countTests = []scenario{
	{"counts each record once, by kind", func(h *harness) {
		h.counts(store.Counts{})
		size := int64(len(first().Data))

		var anonymous, users []store.Record
		for range 5 {
			anonymous = append(anonymous, h.inserted(first()))
		}
		for range 3 {
			users = append(users, h.inserted(login(newUser())))
		}
		h.counts(store.Counts{Live: 8, LoggedIn: 3, Bytes: 8 * size})

		for range 2 {
			h.inserted(over(30 * time.Minute))
		}
		old := over(30 * time.Minute)
		old.User = newUser()
		h.inserted(old)
		h.counts(store.Counts{Live: 8, LoggedIn: 3, Expired: 3, Bytes: 11 * size})

		h.saved(ended(users[0], time.Hour), users[0].Base())
		h.deleted(anonymous[0].ID, now().Add(time.Hour))
		h.deleted(newID(), now().Add(time.Hour))
		h.inserted(ended(login(newUser()), -30*time.Minute))
		h.counts(store.Counts{Live: 6, LoggedIn: 2, Expired: 3, Ended: 4, Bytes: 9 * size})

		grown := next(anonymous[1])
		grown.Data = make([]byte, 1000)
		grown.User = newUser()
		h.saved(grown, anonymous[1].Base())
		h.counts(store.Counts{Live: 6, LoggedIn: 3, Expired: 3, Ended: 4, Bytes: 8*size + 1000})
	}},
}

// counts fails the test unless the store counts want. Expired records may be
// missing: an engine with native expiry removes them.
func (h *harness) counts(want store.Counts) {
	h.Helper()
	got, err := h.store.(store.Counter).Count(h.Context())
	if err != nil {
		h.Fatalf("Count: %v", err)
	}
	if _, ok := h.store.(store.Sweeper); !ok && got.Expired == 0 {
		want.Expired, want.Bytes, want.Ended = 0, got.Bytes, got.Ended
	}
	if got != want {
		h.Fatalf("Count: %+v, want %+v", got, want)
	}
}
