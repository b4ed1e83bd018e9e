package redis

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

func upTo(n int) store.UserLimit {
	return store.UserLimit{Max: n, Until: time.Now().Add(time.Hour)}
}

func refusing(n int) store.UserLimit {
	limit := upTo(n)
	limit.Refuse = true
	return limit
}

// logins saves that many sessions of a user, each a second younger than the one
// before.
func logins(t testing.TB, s *Store, user store.UserHash, n int) (ids []store.ID) {
	t.Helper()
	for i := range n {
		rec := session(user)
		rec.Created = rec.Created.Add(time.Duration(i-n) * time.Second)
		ids = append(ids, inserted(t, s, rec).ID)
	}
	return ids
}

// limited saves a new session, and fails the test unless these were ended.
func limited(t testing.TB, s *Store, rec store.Record, limit store.UserLimit, want ...store.ID) {
	t.Helper()
	ended, err := s.SaveLimited(t.Context(), rec, limit)
	must(t, err)
	got := map[store.ID]bool{}
	for _, id := range ended {
		got[id] = true
	}
	wanted := map[store.ID]bool{}
	for _, id := range want {
		wanted[id] = true
	}
	if len(ended) != len(want) || !maps.Equal(got, wanted) {
		t.Fatalf("SaveLimited has ended %d sessions, want the %d that were in the way", len(ended), len(want))
	}
}

// reserved is a login that stopped after it had reserved its place. It returns
// the sessions that it would have ended.
func reserved(t testing.TB, s *Store, rec store.Record, limit store.UserLimit) []store.ID {
	t.Helper()
	found, err := s.look(t.Context(), &rec)
	must(t, err)
	victims, err := s.reserve(t.Context(), &rec, limit, found)
	must(t, err)
	return victims
}

func live(t testing.TB, s *Store, ids ...store.ID) (n int) {
	t.Helper()
	recs, err := s.loadHeads(context.Background(), ids)
	must(t, err)
	for _, rec := range recs {
		if !rec.IsEnd() && !rec.Expired(time.Now()) {
			n++
		}
	}
	return n
}

func TestAPlaceThatNobodyTakesIsFreeAfterAMinute(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 1)
	stopped := session(ann)
	reserved(t, s, stopped, upTo(2))
	if _, err := s.SaveLimited(t.Context(), session(ann), refusing(2)); !errors.Is(err, store.ErrLimit) {
		t.Fatalf("%v, want ErrLimit: the place may be about to be taken", err)
	}
	age(t, s, ann, stopped.ID, 61*time.Second, time.Hour)
	rec := session(ann)
	limited(t, s, rec, refusing(2))
	has(t, s, ann, ids[0], rec.ID)
	if listed(t, s, ann)[stopped.ID] {
		t.Error("the place is still reserved")
	}
}

func TestALoginThatIsSentAgainTakesThePlaceThatItReserved(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 1)
	rec := session(ann)
	reserved(t, s, rec, upTo(2))
	limited(t, s, rec, refusing(2))
	has(t, s, ann, ids[0], rec.ID)
}

func TestALoginThatStopsBeforeItHasMadeRoomLeavesThatToTheNext(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 3)
	reserved(t, s, session(ann), upTo(3))
	rec := session(ann)
	limited(t, s, rec, upTo(3), ids[0], ids[1])
	has(t, s, ann, ids[2], rec.ID)
}

func TestASessionThatLosesItsPlaceBeforeItIsSavedStaysEnded(t *testing.T) {
	_, s := single(t)
	slow := session(ann)
	slow.Created = slow.Created.Add(-time.Second)
	reserved(t, s, slow, upTo(1))
	fast := session(ann)
	limited(t, s, fast, upTo(1)) // none was live before
	if _, err := s.SaveLimited(t.Context(), slow, upTo(1)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the slow login: %v, want ErrConflict", err)
	}
	if err := s.Save(t.Context(), slow, store.Base{}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("its save: %v, want ErrConflict", err)
	}
	has(t, s, ann, fast.ID)
}

// Two logins that are under way at once must not end each other: the first one has
// reserved its place, the second one takes that place, and then the first one starts
// over, because an answer was lost.
func TestTwoLoginsDoNotEndEachOther(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 2)
	first, second := session(ann), session(ann)
	first.Created = first.Created.Add(-time.Minute)
	second.Created = first.Created.Add(-time.Second)
	if victims := reserved(t, s, first, upTo(3)); len(victims) != 0 {
		t.Fatalf("the first login ends %d sessions", len(victims))
	}
	victims := reserved(t, s, second, upTo(3))
	if len(victims) != 1 || victims[0] != first.ID {
		t.Fatalf("the second login ends %d sessions, want the first one's", len(victims))
	}
	if _, err := s.SaveLimited(t.Context(), first, upTo(3)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the first login: %v, want ErrConflict", err)
	}
	_, err := s.evict(t.Context(), ann, victims, time.Now().Add(time.Hour))
	must(t, err)
	limited(t, s, second, upTo(3))
	has(t, s, ann, ids[0], ids[1], second.ID)
}

func TestARefusedLoginReservesNothing(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 2)
	for range 3 {
		if _, err := s.SaveLimited(t.Context(), session(ann), refusing(2)); !errors.Is(err, store.ErrLimit) {
			t.Fatalf("%v, want ErrLimit", err)
		}
	}
	if n := len(listed(t, s, ann)); n != 2 {
		t.Errorf("the index holds %d entries, want 2", n)
	}
	must(t, s.Delete(t.Context(), ids[0], time.Now().Add(time.Hour)))
	limited(t, s, session(ann), refusing(2))
}

func TestALoginThatTheServerRefusesGivesItsPlaceBack(t *testing.T) {
	server, s := single(t)
	if got := server.RedisCommand("ACL", "SETUSER", "default", "resetkeys", "%R~*", "~"+s.options.Prefix+userKeys+"*"); got != "OK\n" {
		t.Fatalf("ACL SETUSER: %s", got)
	}
	if _, err := s.SaveLimited(t.Context(), session(ann), refusing(1)); err == nil || errors.Is(err, store.ErrLimit) {
		t.Fatalf("%v, want the server's error", err)
	}
	if n := len(listed(t, s, ann)); n != 0 {
		t.Errorf("the index holds %d entries", n)
	}
}

func TestALoginCountsNeitherEndedNorVanishedSessionsAndTidiesUp(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 5)
	expired, gone, marked, moved, stays := ids[0], ids[1], ids[2], ids[3], ids[4]
	change := func(id store.ID, how func(rec *store.Record)) {
		rec, err := s.Load(t.Context(), id)
		must(t, err)
		save := next(rec)
		save.Shorten = true
		how(&save)
		saved(t, s, save, rec.Base())
	}
	change(expired, func(rec *store.Record) { rec.Deadline = time.Now().Add(-time.Second) })
	change(moved, func(rec *store.Record) { rec.User = store.UserHash{0xb} })
	must(t, s.raw().Do(t.Context(), s.raw().B().Del().Key(s.key(gone)).Build()).Error())
	must(t, s.Delete(t.Context(), marked, time.Now().Add(time.Hour)))
	for _, id := range []store.ID{expired, gone, moved} {
		age(t, s, ann, id, 2*time.Minute, time.Hour)
	}
	age(t, s, ann, marked, 2*time.Minute, time.Hour) // its removal has failed
	rec := session(ann)
	// A process with a slow clock may find it live, so it must end to make
	// room.
	limited(t, s, rec, refusing(2), expired)
	if got := listed(t, s, ann); got[gone] || got[marked] || got[moved] {
		t.Errorf("%d entries are left", len(got))
	}
	limited(t, s, session(ann), upTo(2), stays)
}

func TestASessionThatIsOverWhenItIsSavedIsNotListed(t *testing.T) {
	_, s := single(t)
	past := session(ann)
	past.Deadline = time.Now().Add(-2 * clockSkew)
	inserted(t, s, past)
	rec := inserted(t, s, session(ann))
	short := next(rec)
	short.Shorten, short.Deadline = true, past.Deadline
	saved(t, s, short, rec.Base())
	if n := len(listed(t, s, ann)); n != 0 {
		t.Errorf("the index holds %d entries", n)
	}
	limited(t, s, past, refusing(1))
	limited(t, s, session(ann), refusing(1))
}

func TestEvictionGoesByCreationAlsoAfterTouches(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 3)
	rec, err := s.Load(t.Context(), ids[0])
	must(t, err)
	must(t, s.Touch(t.Context(), ids[0], rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)))
	limited(t, s, session(ann), upTo(3), ids[0])
}

func TestALoginWhoseEntryAFailoverLostIsListedAgainAndLimitedStill(t *testing.T) {
	server, s := single(t)
	rec := session(ann)
	limited(t, s, rec, upTo(2))
	server.RedisCommand("DEL", s.userKey(ann))
	others := logins(t, s, ann, 2)
	limited(t, s, rec, refusing(2), others[0]) // sent again, as its answer was lost; it was let in before
	has(t, s, ann, rec.ID, others[1])
}

func TestEvictedSessionsLeaveTheIndexAndAreReportedOnce(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 200)
	rec := session(ann)
	limited(t, s, rec, upTo(3), ids[:198]...)
	if n := len(listed(t, s, ann)); n != 3 {
		t.Errorf("the index holds %d entries, want 3", n)
	}
	has(t, s, ann, ids[198], ids[199], rec.ID)
}

// parallelLogins logs a user in n times in parallel, repeats each login until
// its outcome is known, and returns the sessions and the number of successful
// logins.
func parallelLogins(t testing.TB, stores []*Store, n int, limit store.UserLimit) (ids []store.ID, in int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	ended := map[store.ID]int{}
	for i := range n {
		s, rec := stores[i%len(stores)], session(ann)
		ids = append(ids, rec.ID)
		wg.Go(func() {
			for giveUp := time.Now().Add(2 * time.Minute); ; {
				gone, err := s.SaveLimited(within(t, 30*time.Second), rec, limit)
				mu.Lock()
				for _, id := range gone {
					ended[id]++
				}
				if err == nil {
					in++
				}
				mu.Unlock()
				if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrLimit) {
					return
				}
				if time.Now().After(giveUp) {
					t.Errorf("SaveLimited: %v", err)
					return
				}
				<-time.After(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	for _, times := range ended {
		if times != 1 {
			t.Errorf("an eviction was reported %d times", times)
		}
	}
	return ids, in
}

func TestTwoHundredParallelLoginsInAClusterLeaveExactlyThree(t *testing.T) {
	// A busy machine must not cause a failover.
	nodes := servers.RedisCluster(t, 3, "--cluster-node-timeout", "30000")
	o := Options{Addrs: []string{nodes[0].Addr}, Cluster: true}
	stores := []*Store{opened(t, o), opened(t, o), opened(t, o)} // as many replicas of the application
	s := stores[0]
	ids := logins(t, s, ann, 3)
	more, _ := parallelLogins(t, stores, 200, upTo(3))
	if n := live(t, s, append(ids, more...)...); n != 3 {
		t.Errorf("%d sessions are live, want 3", n)
	}
	recs, err := s.ByUser(t.Context(), ann)
	if err != nil || len(recs) != 3 {
		t.Fatalf("ByUser returns %d sessions, %v; want 3", len(recs), err)
	}
	must(t, s.Delete(t.Context(), recs[0].ID, time.Now().Add(time.Hour)))
	refused, in := parallelLogins(t, stores, 200, refusing(3))
	if n := live(t, s, append(append(ids, more...), refused...)...); n != 3 || in != 1 {
		t.Errorf("%d of 200 were let in where there was room for one, and %d are live", in, n)
	}
}

// Each time another of the masters is killed while logins are under way: that of
// the user's index, and those of sessions alone. Every write is on its replica
// before it counts, so the failover loses none.
func TestParallelLoginsDuringAFailoverLeaveNoMoreThanAllowed(t *testing.T) {
	for _, what := range []string{"the user's index", "no index"} {
		t.Run("of the node with "+what, func(t *testing.T) {
			nodes := servers.RedisCluster(t, 3)
			o := Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr, nodes[2].Addr}, Cluster: true}
			safe := o
			safe.Replicas, safe.ReplicaTimeout = 1, 10*time.Second
			stores := []*Store{opened(t, safe), opened(t, safe)}
			after := opened(t, o)
			ids := logins(t, after, ann, 3)
			owner := ownerOf(t, nodes, after.userKey(ann))
			victim := owner
			if what == "no index" {
				for _, n := range nodes[:3] {
					if n != owner {
						victim = n
					}
				}
			}
			over := make(chan struct{})
			go func() {
				defer close(over)
				eventually(t, "logins are under way", func() bool {
					entries, err := after.entries(context.Background(), ann)
					return err == nil && len(entries) > 5
				})
				victim.Kill()
				eventually(t, "another node has taken over", func() bool {
					masters := 0
					for _, n := range nodes {
						if n != victim && n.RedisRole() == "master" {
							masters++
						}
					}
					return masters == 3
				})
				victim.Start() // as a replica: without one, no save counts
			}()
			for going := true; going; {
				select {
				case <-over:
					going = false
				default:
				}
				more, _ := parallelLogins(t, stores, 20, upTo(3))
				ids = append(ids, more...)
			}
			rec := session(ann)
			eventually(t, "the next login succeeds", func() bool {
				_, err := after.SaveLimited(within(t, 10*time.Second), rec, upTo(3))
				return err == nil
			})
			if n := live(t, after, append(ids, rec.ID)...); n != 3 {
				t.Errorf("%d sessions are live after the next login, want 3", n)
			}
			if recs, err := after.ByUser(t.Context(), ann); err != nil || len(recs) != 3 {
				t.Errorf("ByUser returns %d sessions, %v; want 3", len(recs), err)
			}
		})
	}
}

// A login that starts over, after a timeout, say, has reserved its place
// before. Meanwhile another one may have counted it, and ended it. Then no
// other session may end for it: the user would have fewer sessions than
// allowed.
func TestALoginThatStartsOverEndsNobodyOnceItWasEndedItself(t *testing.T) {
	at := func(rec store.Record, ago time.Duration) store.Record {
		rec.Created = rec.Created.Add(-ago)
		return rec
	}
	t.Run("its place was taken back after it had looked", func(t *testing.T) {
		_, s := single(t)
		ids := logins(t, s, ann, 3)
		first := at(session(ann), time.Minute)
		found, err := s.look(t.Context(), &first)
		must(t, err)
		victims, err := s.reserve(t.Context(), &first, upTo(3), found)
		must(t, err)
		_, err = s.evict(t.Context(), ann, victims, time.Now().Add(time.Hour))
		must(t, err)
		found, err = s.look(t.Context(), &first) // it starts over
		must(t, err)
		limited(t, s, session(ann), upTo(3)) // ends first, which is the oldest and no session yet
		if _, err := s.reserve(t.Context(), &first, upTo(3), found); !errors.Is(err, errLookAgain) {
			t.Errorf("reserving again: %v, want that it looks again", err)
		}
		if _, err := s.SaveLimited(t.Context(), first, upTo(3)); !errors.Is(err, store.ErrConflict) {
			t.Errorf("the login: %v, want a conflict", err)
		}
		if n := live(t, s, ids...); n != 2 {
			t.Errorf("%d of the sessions before are live, want the 2 that were not in the way", n)
		}
	})
	t.Run("its place is about to be taken back", func(t *testing.T) {
		_, s := single(t)
		ids := logins(t, s, ann, 2)
		first, second := at(session(ann), time.Minute), session(ann)
		reserved(t, s, first, upTo(3)) // there is room
		found, err := s.look(t.Context(), &second)
		must(t, err)
		victims, err := s.reserve(t.Context(), &second, upTo(3), found)
		must(t, err)
		if len(victims) != 1 || victims[0] != first.ID {
			t.Fatalf("%d have to make room", len(victims))
		}
		if _, err := s.SaveLimited(t.Context(), first, upTo(3)); !errors.Is(err, store.ErrConflict) {
			t.Errorf("the login that has to make room: %v, want a conflict", err)
		}
		_, err = s.evict(t.Context(), ann, victims, time.Now().Add(time.Hour))
		must(t, err)
		if _, err := s.SaveLimited(t.Context(), second, upTo(3)); err != nil {
			t.Error(err)
		}
		if n := live(t, s, append(ids, second.ID)...); n != 3 {
			t.Errorf("%d sessions are live, want 3", n)
		}
	})
	t.Run("it is not in the way", func(t *testing.T) {
		_, s := single(t)
		ids := logins(t, s, ann, 3)
		first := session(ann)
		reserved(t, s, first, upTo(3))
		limited(t, s, first, upTo(3), ids[0])
		if n := live(t, s, append(ids, first.ID)...); n != 3 {
			t.Errorf("%d sessions are live, want 3", n)
		}
	})
}
