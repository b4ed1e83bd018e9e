package redis

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// heard returns the ends since the cursor, and advances it.
func heard(t testing.TB, s *Store, cursor *string) map[store.ID]time.Time {
	t.Helper()
	ends := map[store.ID]time.Time{}
	for {
		page, err := s.Ends(t.Context(), *cursor, 100)
		must(t, err)
		*cursor = page.Cursor
		for _, e := range page.Ends {
			ends[e.ID] = e.Until
		}
		if !page.More {
			return ends
		}
	}
}

// hears fails the test unless the feed returns exactly these ends.
func hears(t testing.TB, s *Store, cursor *string, want ...store.ID) {
	t.Helper()
	got := heard(t, s, cursor)
	for _, id := range want {
		if _, ok := got[id]; !ok {
			t.Errorf("the feed lacks one of %d ends", len(want))
		}
	}
	if len(got) != len(want) {
		t.Errorf("the feed tells of %d ends, want %d", len(got), len(want))
	}
}

// fromNow returns a cursor.
func fromNow(t testing.TB, s *Store) string {
	t.Helper()
	page, err := s.Ends(t.Context(), store.FeedFromNow, 100)
	must(t, err)
	return page.Cursor
}

func endNow(t testing.TB, s *Store) store.ID {
	t.Helper()
	id := newID()
	must(t, s.Delete(t.Context(), id, time.Now().Add(time.Hour)))
	return id
}

// placed puts an end into the feed that another server has written: at that
// number, and kept until then.
func placed(server *servers.Server, s *Store, id store.ID, number int64, until time.Time) {
	server.RedisCommand("ZADD", s.options.Prefix+feedKey, strconv.FormatInt(number, 10), "o"+string(id[:]), strconv.FormatInt(-until.UnixMilli(), 10), "u"+string(id[:]))
}

// textID returns an ID without bytes that a command line cannot hold.
func textID(n int) store.ID { return store.ID([]byte(fmt.Sprintf("placed %09d", n))) }

func TestEachEndIsToldOnceToAReaderThatGoesOn(t *testing.T) {
	_, s := single(t)
	cursor := fromNow(t, s)
	hears(t, s, &cursor)
	for range 3 {
		a, b := endNow(t, s), endNow(t, s)
		hears(t, s, &cursor, a, b)
		hears(t, s, &cursor)
	}
}

func TestAnEndThatIsRepeatedIsToldAgainWithTheLaterDeadline(t *testing.T) {
	_, s := single(t)
	cursor := fromNow(t, s)
	id := newID()
	late := time.Now().Add(2 * time.Hour).Truncate(time.Millisecond)
	must(t, s.Delete(t.Context(), id, late))
	hears(t, s, &cursor, id)
	must(t, s.Delete(t.Context(), id, late.Add(-time.Hour)))
	if got := heard(t, s, &cursor)[id]; !got.Equal(late) {
		t.Errorf("the mark is kept until %v, want %v", got, late)
	}
}

func TestEvictionsOfOneLoginComeInPagesToo(t *testing.T) {
	_, s := single(t)
	ids := logins(t, s, ann, 5)
	cursor := fromNow(t, s)
	limited(t, s, session(ann), upTo(1), ids...)
	ends := map[store.ID]bool{}
	for more := true; more; {
		page, err := s.Ends(t.Context(), cursor, 2)
		must(t, err)
		for _, e := range page.Ends {
			ends[e.ID] = true
		}
		cursor, more = page.Cursor, page.More
	}
	if len(ends) != len(ids) {
		t.Errorf("a reader of short pages hears %d of %d ends", len(ends), len(ids))
	}
}

func TestTheFeedForgetsAnEndAnHourAfterItsMark(t *testing.T) {
	server, s := single(t)
	now := time.Now()
	long, short, soon := textID(1), textID(2), textID(3)
	placed(server, s, long, now.Add(-50*time.Hour).UnixMicro(), now.Add(time.Hour))
	placed(server, s, short, now.Add(-40*time.Hour).UnixMicro(), now.Add(-61*time.Minute))
	placed(server, s, soon, now.Add(-2*time.Hour).UnixMicro(), now.Add(-59*time.Minute))
	cursor := store.FeedFromStart
	hears(t, s, &cursor, long, short, soon)
	id := endNow(t, s)
	cursor = store.FeedFromStart
	hears(t, s, &cursor, long, soon, id)
	if n := strings.TrimSpace(server.RedisCommand("ZCARD", s.options.Prefix+feedKey)); n != "6" {
		t.Errorf("the feed has %s members, want two for each of three ends", n)
	}
}

func TestTheFeedExpiresWithItsLastEnd(t *testing.T) {
	server, s := single(t)
	until := time.Now().Add(3 * time.Hour)
	must(t, s.Delete(t.Context(), newID(), until))
	must(t, s.Delete(t.Context(), newID(), until.Add(-time.Hour)))
	if got := strings.TrimSpace(server.RedisCommand("PEXPIRETIME", s.options.Prefix+feedKey)); got != fmt.Sprint(until.Add(feedTime).UnixMilli()) {
		t.Errorf("the feed expires at %s, want an hour after %d", got, until.UnixMilli())
	}
}

func TestAnEndWhoseMarkIsOverIsToldAllTheSame(t *testing.T) {
	_, s := single(t)
	cursor := fromNow(t, s)
	id := newID()
	must(t, s.Delete(t.Context(), id, time.Now().Add(-24*time.Hour)))
	other := endNow(t, s)
	hears(t, s, &cursor, id, other)
}

func TestNumbersGrowAlsoWhenTheServersClockIsBehind(t *testing.T) {
	server, s := single(t)
	placed(server, s, textID(1), time.Now().Add(time.Minute).UnixMicro(), time.Now().Add(time.Hour))
	cursor := fromNow(t, s)
	a, b := endNow(t, s), endNow(t, s)
	hears(t, s, &cursor, a, b)
}

// The new master may have lost the last ends, and its clock may be a minute behind.
func TestAReaderThatHeardWhatAFailoverLostHearsWhatFollows(t *testing.T) {
	server, s := single(t)
	lost := textID(1)
	placed(server, s, lost, time.Now().Add(time.Minute).UnixMicro(), time.Now().Add(time.Hour))
	cursor := fromNow(t, s)
	server.RedisCommand("DEL", s.options.Prefix+feedKey)
	hears(t, s, &cursor)
	a := endNow(t, s)
	hears(t, s, &cursor, a)
	hears(t, s, &cursor)
}

func TestAnEndCountsOnlyWhenTheFeedHasIt(t *testing.T) {
	server, s := single(t)
	byMark, byDelete := inserted(t, s, session(ann)), inserted(t, s, session(ann))
	cursor := fromNow(t, s)
	server.RedisCommand("LPUSH", s.options.Prefix+feedKey, "in the way")
	mark := ended(byMark, time.Hour)
	for what, err := range map[string]error{
		"a tombstone": s.Save(t.Context(), mark, byMark.Base()),
		"Delete":      s.Delete(t.Context(), byDelete.ID, time.Now().Add(time.Hour)),
	} {
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v, want an error that leaves the outcome open", what, err)
		}
	}
	server.RedisCommand("DEL", s.options.Prefix+feedKey)
	saved(t, s, mark, byMark.Base())
	must(t, s.Delete(t.Context(), byDelete.ID, time.Now().Add(time.Hour)))
	hears(t, s, &cursor, byMark.ID, byDelete.ID)
}

func TestAnEvictionThatTheFeedDoesNotHaveIsToldByTheNextLogin(t *testing.T) {
	server, s := single(t)
	old := logins(t, s, ann, 1)[0]
	cursor := fromNow(t, s)
	server.RedisCommand("LPUSH", s.options.Prefix+feedKey, "in the way")
	if _, err := s.SaveLimited(t.Context(), session(ann), upTo(1)); err == nil {
		t.Error("a login whose eviction could not be told was answered with success")
	}
	server.RedisCommand("DEL", s.options.Prefix+feedKey)
	limited(t, s, session(ann), upTo(2))
	hears(t, s, &cursor, old)
}

func TestEndsOnAFullServerAreTold(t *testing.T) {
	server, s := single(t)
	cursor := fromNow(t, s)
	rec := inserted(t, s, session(ann))
	server.RedisCommand("CONFIG", "SET", "maxmemory", "1")
	must(t, s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)))
	hears(t, s, &cursor, rec.ID)
}

func TestACursorOfSomethingElseIsRefused(t *testing.T) {
	_, s := single(t)
	for _, cursor := range []string{"x", "-", "1-", "-" + newID().String(), "1-" + newID().String() + "x", "9007199254740993", "1 2", "0x1"} {
		if _, err := s.Ends(t.Context(), cursor, 10); !errors.Is(err, ErrFeedCursor) {
			t.Errorf("cursor %q: %v, want ErrFeedCursor", cursor, err)
		}
	}
}

// A member that another program or a newer release has added.
func TestAMemberOfSomethingElseDoesNotStopTheFeed(t *testing.T) {
	server, s := single(t)
	cursor := fromNow(t, s)
	for _, member := range []string{"o", "oshort", "o" + strings.Repeat("x", 17), "x", ""} {
		for range 2 { // in the middle of a page, and at its end
			server.RedisCommand("ZADD", s.options.Prefix+feedKey, fmt.Sprint(time.Now().Add(time.Minute).UnixMicro()), member)
			id := endNow(t, s)
			for _, limit := range []int{1, 2, 1000} {
				from, found := cursor, false
				for more := true; more; {
					page, err := s.Ends(t.Context(), from, limit)
					must(t, err)
					for _, e := range page.Ends {
						found = found || e.ID == id
					}
					more = page.More
					from = page.Cursor
				}
				if !found {
					t.Errorf("after %q, with pages of %d, the feed lacks an end", member, limit)
				}
			}
		}
	}
}

func TestTheFeedGoesOnAfterAFailover(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	o := Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr, nodes[2].Addr}, Cluster: true}
	safe := o
	safe.Replicas, safe.ReplicaTimeout = 1, 10*time.Second
	s, kept := opened(t, o), opened(t, safe)
	cursor := fromNow(t, s)
	before := []store.ID{endNow(t, kept), endNow(t, kept)}
	hears(t, s, &cursor, before...)
	ownerOf(t, nodes, s.options.Prefix+feedKey).Kill()
	var after []store.ID
	for range 20 {
		id := newID()
		eventually(t, "a session has ended", func() bool {
			return s.Delete(within(t, time.Second), id, time.Now().Add(time.Hour)) == nil
		})
		after = append(after, id)
	}
	got := heard(t, s, &cursor)
	for _, id := range after {
		if _, ok := got[id]; !ok {
			t.Fatal("an end after the failover is lacking")
		}
	}
	cursor = store.FeedFromStart
	hears(t, s, &cursor, append(before, after...)...)
}
