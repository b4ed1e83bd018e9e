package stored

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// seen lets ls read l at each step of a period, and reports whether it is dead then.
func seen(ls *leases, k leaseKey, l lease, d, step time.Duration) bool {
	for ; d > 0; d -= step {
		time.Sleep(step)
		ls.sighted(k, l, time.Now())
	}
	return ls.dead(k, l)
}

func TestALeaseIsDeadWhenItHasNotAnsweredAKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ls leases
		k, l := leaseKey{store.ID{1}, "v"}, lease{Nonce: 1, Beat: 1, TTL: 10_000}
		ls.sighted(k, l, time.Now())
		if seen(&ls, k, l, time.Minute, time.Second) {
			t.Error("dead, although nobody has knocked")
		}
		if !ls.suspect(k, l) {
			t.Error("nobody would knock")
		}
		l.Knock = true
		if ls.suspect(k, l) || seen(&ls, k, l, 3*time.Second, time.Second) {
			t.Error("dead, although there was no time to answer")
		}
		if !seen(&ls, k, l, time.Second, time.Second) {
			t.Error("alive, although nobody has answered")
		}
		if other := (lease{Nonce: 1, Beat: 2, TTL: 10_000}); ls.dead(k, other) || seen(&ls, k, other, 9*time.Second, time.Second) {
			t.Error("dead, although it has changed")
		}
	})
}

func TestALeaseDoesNotDieWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ls leases
		k, l := leaseKey{store.ID{1}, "v"}, lease{Nonce: 1, Beat: 1, TTL: 10_000, Knock: true}
		ls.sighted(k, l, time.Now())
		for range 10 {
			if seen(&ls, k, l, 9*time.Second, time.Second) {
				t.Fatal("dead")
			}
			ls.blind(k.id)
		}
		ls.blind(store.ID{2})
		if !seen(&ls, k, l, 11*time.Second, time.Second) {
			t.Error("alive")
		}
	})
}

func TestTimeInWhichNobodyHasLookedHardlyCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ls leases
		k, l := leaseKey{store.ID{1}, "v"}, lease{Nonce: 1, Beat: 1, TTL: 10_000, Knock: true}
		ls.sighted(k, l, time.Now())
		if seen(&ls, k, l, time.Hour, time.Hour) {
			t.Error("dead after one look")
		}
		if !seen(&ls, k, l, 4*time.Hour, time.Hour) {
			t.Error("alive after five")
		}
	})
}

func TestOldSightingsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ls leases
		for i := range 1000 {
			ls.sighted(leaseKey{store.ID{byte(i), byte(i >> 8)}, "v"}, lease{Nonce: 1}, time.Now())
			time.Sleep(time.Second)
		}
		if n := len(ls.sightings); n > mostSightings {
			t.Errorf("%d sightings", n)
		}
		k := leaseKey{store.ID{0xff, 0xff}, "v"}
		ls.sighted(k, lease{Nonce: 1}, time.Now())
		if ls.sighted(k, lease{}, time.Now()); ls.sightings[k] != nil {
			t.Error("a lease that nobody has is kept in mind")
		}
	})
}

// A newer version's lease counts as held while it changes.
func TestALeaseOfAnotherFormIsHeld(t *testing.T) {
	a, b := parseLease([]byte("\x01newer")), parseLease([]byte("\x01newer, later"))
	if a.Nonce == 0 || a.TTL == 0 || a.Nonce == b.Nonce {
		t.Errorf("%+v, %+v", a, b)
	}
}
