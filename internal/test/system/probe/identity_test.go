package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// The tests in this file check logins at several probes on one store. That
// streams end within a second is tested in the root package with a fake clock;
// here the time is only logged.

// shared are the stores that replicas share over a network.
func shared(t *testing.T, f func(t *testing.T, e engine, store string)) {
	for _, e := range engines {
		if e.name == "postgres" || e.name == "rediscluster" {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				f(t, e, e.url(t))
			})
		}
	}
}

// soakTime is how long the longest of these tests run in addition to their
// usual few seconds; see `make soak`.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("FAULT_TIME")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("FAULT_TIME: %v", err)
	}
	return d
}

// at is a visitor without cookies at one of the replicas.
func (s *site) at(t *testing.T, i int) *browser {
	return newBrowser(t, s.processes[i%len(s.processes)].Base)
}

func TestParallelLoginsAtAllReplicasLeaveAsManySessionsAsTheCapAllows(t *testing.T) {
	t.Parallel()
	shared(t, func(t *testing.T, e engine, store string) {
		const logins, limit = 200, 3
		s := newSite(t, e, store, "-max-per-user", fmt.Sprint(limit))
		all := make([]*browser, logins)
		for i := range all {
			all[i] = s.at(t, i)
		}
		begin := time.Now()
		var tooSlow atomic.Int32
		together(logins, func(i int) {
			for {
				switch r := all[i].post("/login?user=ada"); r.Status {
				case http.StatusOK, http.StatusConflict: // another login has ended its session already
					return
				case http.StatusServiceUnavailable: // its turn did not come in time, on a busy machine
					tooSlow.Add(1)
				default:
					t.Errorf("login %d: %d %s", i, r.Status, r.Body)
					return
				}
			}
		})
		t.Logf("%d logins took %v; %d had to try again", logins, time.Since(begin).Round(time.Millisecond), tooSlow.Load())

		live := s.at(t, 0).handles("ada")
		if len(live) != limit {
			t.Errorf("%d sessions are live", len(live))
		}
		slices.Sort(live)
		for i := range s.processes {
			if got := slices.Sorted(slices.Values(s.at(t, i).handles("ada"))); !slices.Equal(got, live) {
				t.Errorf("replica %d lists %v, replica 0 %v", i, got, live)
			}
			var works []string
			for _, b := range all {
				if r := b.copied().at(s.processes[i].Base).get("/info"); r.User == "ada" {
					works = append(works, r.Handle)
				}
			}
			slices.Sort(works)
			// A login with an unknown outcome may have left a session without a
			// browser, but never more than one.
			lost := slices.ContainsFunc(works, func(h string) bool { return !slices.Contains(live, h) })
			if lost || len(works) < len(live) && tooSlow.Load() == 0 {
				t.Errorf("at replica %d the cookies of %v work, and listed are %v", i, works, live)
			}
		}
	})
}

func TestARevocationIsSeenByEveryReplicaAndStream(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"-cache", "memory:1048576"}} {
		name := strings.Join(append([]string{"probe"}, flags...), " ")
		t.Run(name, func(t *testing.T) {
			shared(t, func(t *testing.T, e engine, store string) {
				s := newSite(t, e, store, flags...)
				operator := s.at(t, 0)

				t.Run("of one session", func(t *testing.T) {
					lost, other := s.at(t, 0), s.at(t, 0)
					handle := lost.mustPost("/login?user=ada").Handle
					other.mustPost("/login?user=ada")
					streams, stays := s.watched(lost), s.watched(other)
					s.endsEverywhere(t, []*browser{lost}, streams, func() {
						if r := operator.mustPost("/revoke?user=ada&handle=" + handle); r.Revoked != 1 {
							t.Errorf("revoked: %s", r.Body)
						}
					})
					for i := range s.processes {
						if r := other.at(s.processes[i].Base).get("/info"); r.User != "ada" {
							t.Errorf("at replica %d the other session is %s", i, r.Body)
						}
					}
					for _, stream := range stays {
						select {
						case last := <-stream:
							t.Errorf("the other session's stream ended with %q", last)
						default:
						}
					}
				})
				t.Run("by a logout", func(t *testing.T) {
					b := s.at(t, 0)
					b.mustPost("/login?user=eve")
					copied := b.copied()
					s.endsEverywhere(t, []*browser{copied}, s.watched(copied), func() { b.mustPost("/logout") })
				})
				t.Run("of all sessions of a user", func(t *testing.T) {
					var sessions []*browser
					var streams []<-chan string
					for i := range 4 {
						b := s.at(t, i)
						b.mustPost("/login?user=bob")
						sessions, streams = append(sessions, b), append(streams, s.watched(b)...)
					}
					s.endsEverywhere(t, sessions, streams, func() {
						if r := operator.mustPost("/revoke-user?user=bob"); r.Revoked != len(sessions) {
							t.Errorf("revoked: %s", r.Body)
						}
					})
				})
			})
		})
	}
}

func TestAStreamEndsWhenItsSessionExpires(t *testing.T) {
	t.Parallel()
	shared(t, func(t *testing.T, e engine, store string) {
		s := newSite(t, e, store, "-idle", "3s")
		b := s.at(t, 0)
		b.mustPost("/login?user=ada")
		for i, stream := range s.watched(b) {
			if last := <-stream; last != "ended" {
				t.Errorf("the stream at replica %d ended with %q", i, last)
			}
		}
		if r := b.get("/info"); r.User != "" {
			t.Errorf("afterwards: %s", r.Body)
		}
	})
}

// watched opens a stream of b's session at every replica.
func (s *site) watched(b *browser) (streams []<-chan string) {
	for _, p := range s.processes {
		streams = append(streams, b.at(p.Base).watch())
	}
	return streams
}

// endsEverywhere waits until the sessions and their streams have ended at every
// replica, after something that ends them.
func (s *site) endsEverywhere(t *testing.T, sessions []*browser, streams []<-chan string, end func()) {
	t.Helper()
	begin := time.Now()
	end()
	for _, p := range s.processes {
		for _, b := range sessions {
			goneSoon(t, b.copied().at(p.Base), "a session that was ended")
		}
	}
	visits := time.Since(begin)
	for i, stream := range streams {
		select {
		case last := <-stream:
			if last != "ended" {
				t.Errorf("stream %d ended with %q", i, last)
			}
		case <-time.After(client.Patience):
			t.Fatalf("stream %d goes on", i)
		}
	}
	t.Logf("gone everywhere %v after the call, the last stream %v", visits.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

// A stolen cookie is refused and reported after the grace, and the minute by
// which clocks may differ. This test waits for that in `make soak`; the root
// package's tests use a fake clock.
func TestAStolenCookieIsRefusedAfterTheGraceAndReported(t *testing.T) {
	t.Parallel()
	shared(t, func(t *testing.T, e engine, store string) {
		s := newSite(t, e, store, "-grace", "1s")
		visitor := s.visitor
		visitor.mustPost("/login?user=ada")
		stolen := visitor.copied()
		visitor.mustPost("/rotate")
		if r := stolen.copied().get("/info"); r.User != "ada" {
			t.Errorf("before the new credential came back, the one before leads to %s", r.Body)
		}
		visitor.get("/info") // brings the new one, which begins the grace
		if soakTime(t) == 0 {
			for _, p := range s.processes {
				if r := stolen.copied().at(p.Base).get("/info"); r.User != "ada" {
					t.Errorf("within the grace it leads to %s", r.Body)
				}
			}
			if n := s.alarms(); n != 0 {
				t.Errorf("%d alarms within the grace", n)
			}
			return
		}
		<-time.After(time.Minute) // by which clocks may differ
		client.Eventually(t, "the stolen cookie is refused", func() bool {
			r := stolen.copied().get("/info")
			return r.User == "" && r.Placement == "none"
		})
		for _, p := range s.processes {
			if r := stolen.copied().at(p.Base).get("/info"); r.User != "" {
				t.Errorf("then it leads to %s", r.Body)
			}
		}
		if r := visitor.get("/info"); r.User != "ada" {
			t.Errorf("the visitor has %s", r.Body)
		}
		limit := time.Now().Add(2 * time.Minute)
		for s.alarms() == 0 && time.Now().Before(limit) {
			<-time.After(time.Second)
			stolen.copied().get("/info")
		}
		if n := s.alarms(); n != 1 {
			t.Errorf("it was reported %d times", n)
		}
		if r := visitor.get("/info"); r.User != "ada" {
			t.Errorf("afterwards the visitor has %s", r.Body)
		}
	})
}

// alarms is how often the replicas have suspected theft.
func (s *site) alarms() (n int) {
	for _, p := range s.processes {
		n += strings.Count(p.Log.String(), "somebody may have copied the cookie")
	}
	return n
}
