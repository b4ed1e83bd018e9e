package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

var ann = store.UserHash{0xa}

// listed returns the IDs in the user's index, including surplus ones.
func listed(t testing.TB, s *Store, user store.UserHash) map[store.ID]bool {
	t.Helper()
	keys, err := s.raw().Do(t.Context(), s.raw().B().Hkeys().Key(s.userKey(user)).Build()).AsStrSlice()
	must(t, err)
	ids := map[store.ID]bool{}
	for _, k := range keys {
		ids[store.ID([]byte(k))] = true
	}
	return ids
}

// has fails the test unless ByUser returns exactly these.
func has(t testing.TB, s *Store, user store.UserHash, want ...store.ID) {
	t.Helper()
	recs, err := s.ByUser(t.Context(), user)
	must(t, err)
	got := map[store.ID]bool{}
	for _, rec := range recs {
		got[rec.ID] = true
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("ByUser lacks one of the user's %d sessions", len(want))
		}
	}
	if len(recs) != len(want) {
		t.Errorf("ByUser returns %d sessions, want %d", len(recs), len(want))
	}
}

// age makes an index entry look as if it had been written that long ago.
func age(t testing.TB, s *Store, user store.UserHash, id store.ID, ago, left time.Duration) {
	t.Helper()
	entry := appendTime(appendTime(appendTime(nil, time.Now().Add(-ago)), time.Now().Add(left)), time.Now().Add(-ago))
	must(t, s.raw().Do(t.Context(), s.raw().B().Hset().Key(s.userKey(user)).FieldValue().FieldValue(string(id[:]), string(entry)).Build()).Error())
}

func TestAnEntryWithoutARecordDoesNotCountAndGoesAfterAMinute(t *testing.T) {
	_, s := single(t)
	live := inserted(t, s, session(ann))
	rec := session(ann)
	must(t, s.index(t.Context(), &rec)) // and then the process died, or is about to save
	has(t, s, ann, live.ID)
	if !listed(t, s, ann)[rec.ID] {
		t.Fatal("a young entry was removed: its record may be about to be written")
	}
	age(t, s, ann, rec.ID, 50*time.Second, time.Hour)
	has(t, s, ann, live.ID)
	if !listed(t, s, ann)[rec.ID] {
		t.Fatal("an entry was removed within a minute")
	}
	age(t, s, ann, rec.ID, 61*time.Second, time.Hour)
	age(t, s, ann, live.ID, 61*time.Second, time.Hour)
	has(t, s, ann, live.ID)
	if got := listed(t, s, ann); got[rec.ID] || !got[live.ID] {
		t.Errorf("the index holds %d entries, want the live session's alone", len(got))
	}
}

func TestAnEntryOfASessionThatNowBelongsToAnotherUserDoesNotCount(t *testing.T) {
	_, s := single(t)
	bob := store.UserHash{0xb}
	rec := inserted(t, s, session(ann))
	moved := next(rec)
	moved.User = bob
	saved(t, s, moved, rec.Base())
	has(t, s, ann)
	has(t, s, bob, rec.ID)
	age(t, s, ann, rec.ID, 2*time.Minute, time.Hour)
	age(t, s, bob, rec.ID, 2*time.Minute, time.Hour)
	has(t, s, ann)
	has(t, s, bob, rec.ID)
	if len(listed(t, s, ann)) != 0 || len(listed(t, s, bob)) != 1 {
		t.Error("the wrong entries were removed")
	}
}

func TestAnEndedSessionLeavesTheIndex(t *testing.T) {
	_, s := single(t)
	byMark, byDelete, stays := inserted(t, s, session(ann)), inserted(t, s, session(ann)), inserted(t, s, session(ann))
	saved(t, s, ended(byMark, time.Hour), byMark.Base())
	must(t, s.Delete(t.Context(), byDelete.ID, time.Now().Add(time.Hour)))
	if got := listed(t, s, ann); len(got) != 1 || !got[stays.ID] {
		t.Errorf("the index holds %d entries, want the live session's alone", len(got))
	}
}

func TestARefusedSaveLeavesNoEntryOfANewUser(t *testing.T) {
	_, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	save := next(rec)
	save.User = ann
	if err := s.Save(t.Context(), save, store.Base{Version: 7, SaveID: 7}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	if n := len(listed(t, s, ann)); n != 0 {
		t.Errorf("the index holds %d entries", n)
	}
}

func TestATouchPutsALostEntryBack(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(ann))
	server.RedisCommand("DEL", s.userKey(ann)) // what a failover may lose
	has(t, s, ann)
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)))
	has(t, s, ann, rec.ID)
	if got := strings.TrimSpace(server.RedisCommand("PEXPIRETIME", s.userKey(ann))); got != fmt.Sprint(rec.Expires.Add(clockSkew).UnixMilli()) {
		t.Errorf("the index expires at %s, want with the session's lifetime", got)
	}
}

func TestTheIndexLivesAsLongAsItsLongestSession(t *testing.T) {
	server, s := single(t)
	expires := func(want time.Time) {
		t.Helper()
		if got := strings.TrimSpace(server.RedisCommand("PEXPIRETIME", s.userKey(ann))); got != fmt.Sprint(want.Add(clockSkew).UnixMilli()) {
			t.Errorf("the index expires at %s, want at %d", got, want.Add(clockSkew).UnixMilli())
		}
	}
	long := inserted(t, s, session(ann))
	expires(long.Expires)
	short := session(ann)
	short.Expires = long.Expires.Add(-time.Hour)
	inserted(t, s, short)
	expires(long.Expires)
	longer := next(short)
	longer.Expires = long.Expires.Add(time.Hour)
	saved(t, s, longer, short.Base())
	expires(longer.Expires)
	forever := next(longer)
	forever.Expires = time.Time{}
	saved(t, s, forever, longer.Base())
	expires(time.UnixMilli(longestTime))
}

func TestEntriesOfSessionsThatAreOverMakeRoom(t *testing.T) {
	_, s := single(t)
	var live []store.ID
	for i := range 200 {
		rec := inserted(t, s, session(ann))
		if i%20 == 0 {
			live = append(live, rec.ID)
			continue
		}
		age(t, s, ann, rec.ID, time.Hour, -2*time.Minute)
		must(t, s.raw().Do(t.Context(), s.raw().B().Del().Key(s.key(rec.ID)).Build()).Error())
	}
	got := listed(t, s, ann)
	if len(got) > 40 {
		t.Errorf("the index of a user who has 10 sessions left, of 200, has grown to %d entries", len(got))
	}
	for _, id := range live {
		if !got[id] {
			t.Error("an entry of a live session was removed")
		}
	}
	has(t, s, ann, live...)
}

func TestAUserMayHaveMoreSessionsThanOnePage(t *testing.T) {
	server := servers.Redis(t)
	s := opened(t, at(server))
	const n = 2*pageSize + 1
	ids := make([]store.ID, n)
	for i := range ids {
		ids[i] = inserted(t, s, session(ann)).ID
	}
	has(t, s, ann, ids...)
	for i := range ids[1:] {
		age(t, s, ann, ids[i+1], time.Hour, time.Hour)
		must(t, s.raw().Do(t.Context(), s.raw().B().Del().Key(s.key(ids[i+1])).Build()).Error())
	}
	for range 3 {
		has(t, s, ann, ids[0])
	}
	if n := len(listed(t, s, ann)); n != 1 {
		t.Errorf("%d entries are left after three looks, want 1", n)
	}
}
