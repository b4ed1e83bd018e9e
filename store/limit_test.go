package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func TestWhoIsInTheWayOfALogin(t *testing.T) {
	now := time.Now()
	ann := store.UserHash{1}
	// name, minutes since it was created, and until its deadline
	session := func(id byte, age, left time.Duration) store.Record {
		return store.Record{ID: store.ID{id}, User: ann, Created: now.Add(-age), Deadline: now.Add(left)}
	}
	old, young := session(1, 3*time.Hour, time.Hour), session(2, time.Hour, time.Hour)
	late := session(3, time.Minute, -59*time.Second)
	over := session(4, 4*time.Hour, -61*time.Second)
	mark := session(5, 4*time.Hour, time.Hour)
	mark.Ended = now
	bobs := session(6, 4*time.Hour, time.Hour)
	bobs.User = store.UserHash{2}
	all := []store.Record{young, late, over, mark, bobs, old}
	for _, c := range []struct {
		name  string
		among []store.Record
		limit store.UserLimit
		want  []store.ID
		err   error
	}{
		{"there is room", all, store.UserLimit{Max: 4}, nil, nil},
		{"one that may be live by another clock goes first", all, store.UserLimit{Max: 3}, []store.ID{late.ID}, nil},
		{"then the oldest", all, store.UserLimit{Max: 2}, []store.ID{late.ID, old.ID}, nil},
		{"all", all, store.UserLimit{Max: 1}, []store.ID{late.ID, old.ID, young.ID}, nil},
		{"who refuses ends what is over here", all, store.UserLimit{Max: 3, Refuse: true}, []store.ID{late.ID}, nil},
		{"who refuses ends nothing live", all, store.UserLimit{Max: 2, Refuse: true}, nil, store.ErrLimit},
		{"the one that is replaced does not count", all, store.UserLimit{Max: 2, Refuse: true, Replaces: old.ID}, []store.ID{late.ID}, nil},
		{"nobody's", nil, store.UserLimit{Max: 1, Refuse: true}, nil, nil},
	} {
		got, err := c.limit.InTheWay(slices.Clone(c.among), &store.Record{ID: store.ID{9}, User: ann}, now)
		if !errors.Is(err, c.err) || len(got) != len(c.want) || len(got) > 0 && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, got, err, c.want, c.err)
		}
	}
}
