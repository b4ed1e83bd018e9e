package concurrency_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

func TestAFetchIsBounded(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		begin := time.Now()
		r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) {
			_, err := grantKey.Renew(t.Context(), s, grant.stale, func(ctx context.Context, old grant) (grant, error) {
				<-ctx.Done()
				return old, ctx.Err()
			})
			if !errors.Is(err, sojourn.ErrRenewFailed) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin).Round(time.Second) != 30*time.Second {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
	})
}

func TestAFetchThatIgnoresItsContextIsGivenUp(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) {
			_, err := grantKey.Renew(t.Context(), s, grant.stale, func(_ context.Context, old grant) (grant, error) {
				time.Sleep(time.Minute)
				return old, nil
			})
			if !errors.Is(err, sojourn.ErrRenewFailed) {
				t.Error(err)
			}
		})
		r.wants(r.ask(1), 1, nil, 1)
		time.Sleep(time.Minute)
	})
}

func TestADeadHoldersLeaseIsTakenOverOnTheWaitersClock(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		dies := r.later(0)
		time.Sleep(time.Second / 2)
		r.own[0].Down.Store(true) // to others, this looks like a dead process
		begin := time.Now()
		a := <-r.later(1)
		if took := time.Since(begin); took < 10*time.Second || took > 16*time.Second {
			t.Errorf("it was taken over after %v", took)
		}
		// The dead process had sent the token, so the provider receives it twice.
		if _, revoked := r.state(); !errors.Is(a.err, sojourn.ErrRenewFailed) || !revoked {
			t.Errorf("%v; the family has ended: %v", a.err, revoked)
		}
		<-dies
		r.own[0].Down.Store(false)
	})
}

// Requests that give up early read the same dead lease, one after the other.
func TestADeadLeaseEndsAlthoughNobodyWaitsForItsEnd(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.answers(8*time.Second, nil)
		dies := r.later(0)
		time.Sleep(time.Second / 2)
		r.own[0].Down.Store(true)
		for range 30 {
			r.labs[1].Do(r.v.Copy(), func(s *sojourn.Session) {
				ctx, leave := context.WithTimeout(t.Context(), time.Second)
				defer leave()
				r.renew(ctx, s)
			})
		}
		time.Sleep(10 * time.Second)
		if n, _ := r.state(); n < 2 {
			t.Error("nobody has taken the lease over")
		}
		<-dies
		r.own[0].Down.Store(false)
	})
}

// While the store is unreachable, a holder cannot write that it is alive.
func TestAHolderIsNotDeadBecauseTheStoreIsAway(t *testing.T) {
	for name, switched := range map[string]func(*faults.Store, bool){
		"all":   func(s *faults.Store, on bool) { s.Down.Store(on) },
		"saves": func(s *faults.Store, on bool) { s.SaveDown.Store(on) },
	} {
		for _, away := range []time.Duration{4, 9, 11, 25, 100} {
			t.Run(name, func(t *testing.T) {
				renewals(t, func(t *testing.T, r *team) {
					mine, other := r.later(0), r.later(1)
					time.Sleep(time.Second / 2)
					for _, db := range r.own {
						switched(db, true)
					}
					time.Sleep(away * time.Second)
					for _, db := range r.own {
						switched(db, false)
					}
					<-mine // perhaps ErrUnavailable
					<-other
					time.Sleep(time.Second)
					r.wants(r.ask(2), 1, nil, 1)
				})
			})
		}
	}
}

func TestARenewalBeatsWhileItLasts(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.answers(13*time.Second, nil)
		all := []<-chan answered{r.later(0), r.later(1), r.later(2)}
		for _, c := range all {
			r.wants(<-c, 1, nil, 1)
		}
	})
}

func TestTheSessionIsUsedDuringARenewal(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(r.v, func(s *sojourn.Session) {
			begin := time.Now()
			_, err := grantKey.Renew(t.Context(), s, grant.stale, func(ctx context.Context, old grant) (grant, error) {
				sitetest.CartKey.Update(s, sitetest.AddOne)
				if err := s.Save(ctx); err != nil {
					t.Error(err)
				}
				r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) { sitetest.CartKey.Update(s, sitetest.AddOne) })
				return r.decide(old)
			})
			if err != nil || time.Since(begin) > time.Second {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
		if n := sitetest.CartOf(r.labs[1], r.v); n != 2 || r.has(r.v).Refresh != 1 {
			t.Errorf("the cart has %d, the token is %d", n, r.has(r.v).Refresh)
		}
	})
}

func TestAPanicOfFetchReachesItsCallerAndEndsTheLease(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		var other <-chan answered
		r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) {
			defer func() {
				if recover() != "fetch" {
					t.Error("another panic, or none")
				}
			}()
			_, _ = grantKey.Renew(t.Context(), s, grant.stale, func(context.Context, grant) (grant, error) {
				other = r.later(0)
				time.Sleep(time.Second)
				panic("fetch")
			})
		})
		r.wants(<-other, 0, sojourn.ErrRenewFailed, 0)
		r.wants(r.ask(1), 1, nil, 1)
	})
}

func TestCloseWaitsUntilWhatWasFetchedIsKept(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		a := r.later(0)
		time.Sleep(time.Second / 2)
		if err := r.labs[0].Close(); err != nil {
			t.Error(err)
		}
		if g := r.has(r.v); g.Refresh != 1 {
			t.Errorf("token %d is kept", g.Refresh)
		}
		r.wants(<-a, 1, nil, 1)
		if a := r.ask(0); !errors.Is(a.err, sojourn.ErrClosed) && a.err != nil {
			t.Error(a.err)
		}
	})
}

func TestCloseIsNotKeptUpByAStoreThatIsAway(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		a := r.later(0)
		time.Sleep(time.Second / 2)
		r.own[0].Down.Store(true)
		time.Sleep(3 * time.Second)
		begin := time.Now()
		_ = r.labs[0].Close()
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("Close took %v", took)
		}
		r.wants(<-a, 0, sojourn.ErrUnavailable, 1)
	})
}

func TestALeaseIsNoValue(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		a := r.later(0)
		time.Sleep(time.Second / 2)
		r.labs[1].Do(r.v.Copy(), func(s *sojourn.Session) {
			if names := s.Names(); !slices.Equal(names, []string{"grant"}) {
				t.Errorf("the session has %q", names)
			}
		})
		all, err := r.labs[1].ExportUser(t.Context(), "ada")
		if err != nil || len(all) != 1 || len(all[0].Values) != 1 {
			t.Errorf("the export is %v, %v", all, err)
		}
		r.wants(<-a, 1, nil, 1)
		before := r.size()
		r.labs[1].Do(r.v, func(s *sojourn.Session) { s.Login("ada") })
		if after := r.size(); after > before+16 {
			t.Errorf("a record of %d bytes has %d after a login", before, after)
		}
	})
}

func TestADeadLeaseDoesNotFollowALogin(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		before := r.size()
		a := r.later(0)
		time.Sleep(time.Second / 2)
		r.own[0].Down.Store(true)
		r.labs[1].Do(r.v, func(s *sojourn.Session) { s.Login("ada") })
		if after := r.size(); after > before+16 {
			t.Errorf("a record of %d bytes has %d after a login", before, after)
		}
		r.wants(<-a, 0, sojourn.ErrUnavailable, 1)
		r.own[0].Down.Store(false)
	})
}

// size is that of the live record of the visitor.
func (r *team) size() (n int) {
	all, _, err := r.db.Scan(context.Background(), "", 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, rec := range all {
		n += len(rec.Data)
	}
	return n
}

// A process that was considered dead returns with a fetched value.
func TestAHolderThatWasTakenForDead(t *testing.T) {
	for name, c := range map[string]struct {
		back  time.Duration // when it reaches the store again
		takes time.Duration // what the other one's fetch takes
		err   error         // the other one's
		got   int           // what it is answered, and what is kept
	}{
		"the other one has succeeded":   {15, time.Second, nil, 1},
		"the other one's has expired":   {15, time.Second, nil, 1},
		"the other one has failed":      {15, time.Second, errors.New("away"), 99},
		"the other one is at it":        {15, 7 * time.Second, nil, 1},
		"the other one is at it, fails": {15, 7 * time.Second, errors.New("away"), 99},
	} {
		t.Run(name, func(t *testing.T) {
			renewals(t, func(t *testing.T, r *team) {
				r.answers(c.takes, c.err)
				r.short = strings.Contains(name, "expired")
				mine := make(chan answered, 1)
				go r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) {
					g, err := grantKey.Renew(t.Context(), s, grant.stale, func(context.Context, grant) (grant, error) {
						time.Sleep(20 * time.Second)
						return grant{Refresh: 99, Expires: time.Now().Add(time.Hour)}, nil
					})
					mine <- answered{g, err}
				})
				time.Sleep(time.Second / 2)
				r.own[0].Down.Store(true)
				other := r.later(1)
				time.Sleep(c.back * time.Second)
				r.own[0].Down.Store(false)
				<-other
				if a := <-mine; a.err != nil && !errors.Is(a.err, sojourn.ErrUnavailable) || a.err == nil && a.Refresh != c.got {
					t.Errorf("token %d, %v", a.Refresh, a.err)
				}
				time.Sleep(10 * time.Second)
				if g := r.has(r.v); g.Refresh != c.got {
					t.Errorf("token %d is kept", g.Refresh)
				}
				if n, _ := r.state(); n != 1 {
					t.Errorf("the provider was asked %d times", n)
				}
			})
		})
	}
}

// A process does not fetch under a lease whose save had no answer.
func TestALeaseThatMayHaveBeenTakenIsTakenAgainAtOnce(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.own[0].OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			_ = r.db.Save(ctx, rec, base)
			return faults.ErrLost
		}
		r.wants(r.ask(0), 0, sojourn.ErrUnavailable, 0)
		r.own[0].OnSave = nil
		begin := time.Now()
		r.wants(r.ask(0), 1, nil, 1)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
