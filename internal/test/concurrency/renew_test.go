package concurrency_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// grant is an access token with a refresh token that can be used once.
type grant struct {
	Refresh int // names a token of the provider; the last one issued is good
	Expires time.Time
	Pad     string
}

func (g grant) stale() bool { return !time.Now().Before(g.Expires) }

var grantKey = sojourn.NewKey[grant]("grant", sojourn.ServerSide)

// provider ends the family of tokens when one of them is used twice, as RFC 9700,
// section 4.14.2, has it.
type provider struct {
	mu      sync.Mutex
	asked   int
	issued  int
	revoked bool
	err     error         // of everything while set
	takes   time.Duration // before it decides, and again before its answer arrives
	short   bool          // its tokens are good for a second
}

// state returns the number of requests, and whether the family was revoked.
func (p *provider) state() (asked int, revoked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked, p.revoked
}

// answers sets its future answers.
func (p *provider) answers(takes time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes, p.err = takes, err
}

func (p *provider) refresh(ctx context.Context, old grant) (grant, error) {
	p.mu.Lock()
	takes := p.takes
	p.mu.Unlock()
	time.Sleep(takes)
	g, err := p.decide(old)
	time.Sleep(takes)
	return g, errors.Join(err, ctx.Err())
}

func (p *provider) decide(old grant) (grant, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.err != nil {
		return old, p.err
	}
	if old.Refresh != p.issued {
		p.revoked = true
	}
	if p.revoked {
		return old, errors.New("invalid_grant")
	}
	p.issued++
	lives := time.Hour
	if p.short {
		lives = time.Second
	}
	return grant{Refresh: p.issued, Expires: time.Now().Add(lives)}, nil
}

// team is replicas on one store, a visitor whose access token has expired, and the
// provider of that.
type team struct {
	*provider
	t    *testing.T
	db   *memory.Store
	own  []*faults.Store // each replica's way to db
	labs []*sitetest.Lab
	v    *sitetest.Guest
}

func renewals(t *testing.T, f func(t *testing.T, r *team), edit ...func(*sojourn.Config)) {
	synctest.Test(t, func(t *testing.T) {
		r := &team{provider: &provider{takes: time.Second}, t: t, db: memory.New(), v: sitetest.NewGuest(t)}
		keys := sitetest.Keys(t)
		for range 3 {
			own := faults.Wrap(r.db)
			all := append([]func(*sojourn.Config){func(c *sojourn.Config) { c.Keys, c.Store = keys, own }}, edit...)
			r.own, r.labs = append(r.own, own), append(r.labs, sitetest.NewLab(t, all...))
		}
		r.labs[0].Do(r.v, func(s *sojourn.Session) { s.Login("ada"); grantKey.Set(s, grant{Expires: time.Now()}) })
		time.Sleep(time.Second)
		f(t, r)
	})
}

// answered is a result of Renew.
type answered struct {
	grant
	err error
}

func (r *team) renew(ctx context.Context, s *sojourn.Session) answered {
	g, err := grantKey.Renew(ctx, s, grant.stale, r.refresh)
	return answered{g, err}
}

// ask renews the token in a new request.
func (r *team) ask(replica int) (a answered) {
	r.labs[replica].Serve(r.v.Copy(), func(_ http.ResponseWriter, req *http.Request, s *sojourn.Session) {
		a = r.renew(req.Context(), s)
	})
	return a
}

// later is ask, in the background.
func (r *team) later(replica int) <-chan answered {
	c := make(chan answered, 1)
	go func() { c <- r.ask(replica) }()
	return c
}

// has is the session's token.
func (r *team) has(v *sitetest.Guest) (g grant) {
	r.labs[1].Do(v.Copy(), func(s *sojourn.Session) { g = grantKey.Get(s) })
	return g
}

// wants checks a result, and the number of requests to the provider.
func (r *team) wants(a answered, refresh int, err error, asked int) {
	r.t.Helper()
	if a.Refresh != refresh || !errors.Is(a.err, err) || err == nil && a.err != nil {
		r.t.Errorf("token %d, %v; want %d, %v", a.Refresh, a.err, refresh, err)
	}
	if n, revoked := r.state(); n != asked || revoked {
		r.t.Errorf("the provider was asked %d times, want %d; the family has ended: %v", n, asked, revoked)
	}
}

func TestAValueThatIsFreshIsReturnedWithoutASave(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.wants(r.ask(0), 1, nil, 1)
		saves := r.own[2].Saves.Load()
		r.wants(r.ask(2), 1, nil, 1)
		if r.own[2].Saves.Load() != saves || r.own[2].Loads.Load() != 1 {
			t.Errorf("%d saves, %d loads", r.own[2].Saves.Load()-saves, r.own[2].Loads.Load())
		}
	})
}

func TestOneOfAllRequestsRenewsAndTheOthersWait(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		var all []<-chan answered
		for i := range 12 {
			all = append(all, r.later(i%3))
		}
		for _, c := range all {
			r.wants(<-c, 1, nil, 1)
		}
		// Waiting requests of the holder's process do not load from the store;
		// one request of each other process does.
		for i, db := range r.own {
			if n := db.Loads.Load(); n > 4+8 {
				t.Errorf("replica %d has asked the store %d times in two seconds", i, n)
			}
		}
	})
}

func TestARenewalIsFinishedWhenTheClientLeaves(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		type key struct{}
		r.labs[0].Serve(r.v.Copy(), func(_ http.ResponseWriter, req *http.Request, s *sojourn.Session) {
			ctx, leave := context.WithTimeout(context.WithValue(req.Context(), key{}, "trace"), time.Second/2)
			defer leave()
			g, err := grantKey.Renew(ctx, s, grant.stale, func(ctx context.Context, old grant) (grant, error) {
				if ctx.Value(key{}) != "trace" {
					t.Error("the values of the context are not there")
				}
				return r.refresh(ctx, old)
			})
			r.wants(answered{g, err}, 0, context.DeadlineExceeded, 0)
		})
		time.Sleep(2 * time.Second)
		if g := r.has(r.v); g.Refresh != 1 {
			t.Errorf("the session keeps token %d", g.Refresh)
		}
	})
}

func TestARenewalKeepsNothingElseOfTheRequest(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		resp := r.labs[0].Serve(r.v, func(w http.ResponseWriter, req *http.Request, s *sojourn.Session) {
			sitetest.ThemeKey.Set(s, "dark")
			r.wants(r.renew(req.Context(), s), 1, nil, 1)
			if sitetest.ThemeKey.Get(s) != "dark" || grantKey.Get(s).Refresh != 1 {
				t.Error("the request does not see its change, or not the renewed value")
			}
			w.WriteHeader(http.StatusInternalServerError)
		})
		sitetest.WantStatus(t, resp, http.StatusInternalServerError)
		if r.labs[1].Has(r.v, "theme") || r.has(r.v).Refresh != 1 {
			t.Error("the change was kept, or the renewed value was not")
		}
	})
}

func TestChangesStayPendingOverARenewal(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(r.v, func(s *sojourn.Session) {
			sitetest.CartKey.Update(s, sitetest.AddOne)
			r.wants(r.renew(t.Context(), s), 1, nil, 1)
			sitetest.CartKey.Update(s, sitetest.AddOne)
		})
		if n := sitetest.CartOf(r.labs[1], r.v); n != 2 || r.has(r.v).Refresh != 1 {
			t.Errorf("the cart has %d, the token is %d", n, r.has(r.v).Refresh)
		}
	})
}

func TestWhoWaitsForARenewalThatFailsDoesNotSendTheOldValue(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.answers(time.Second, errors.New("temporarily_unavailable"))
		all := []<-chan answered{r.later(0), r.later(0), r.later(1), r.later(2)}
		for i, c := range all {
			a := <-c
			r.wants(a, 0, sojourn.ErrRenewFailed, 1)
			if status, _ := sojourn.ErrorStatus(a.err); status != http.StatusServiceUnavailable || !sojourn.IsError(a.err) {
				t.Errorf("request %d: status %d", i, status)
			}
		}
		r.answers(time.Second, nil)
		r.wants(r.ask(1), 1, nil, 2)
		r.wants(r.ask(2), 1, nil, 2)
	})
}

// A login moves the session, so a token that arrives later would be lost.
func TestALoginWaitsForARenewal(t *testing.T) {
	for name, login := range map[string]func(*sojourn.Session) error{
		"Login": func(s *sojourn.Session) error { s.Login("ada", "otp"); return nil },
		"LoginIf": func(s *sojourn.Session) error {
			return s.LoginIf(context.Background(), "ada", func(context.Context) error { return nil })
		},
		"Token": func(s *sojourn.Session) error {
			s.Login("ada")
			_, err := s.Token(context.Background())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			renewals(t, func(t *testing.T, r *team) {
				a := r.later(0)
				time.Sleep(time.Second / 2)
				r.labs[1].Do(r.v, func(s *sojourn.Session) {
					if err := login(s); err != nil {
						t.Error(err)
					}
					if err := s.Save(t.Context()); err != nil || grantKey.Get(s).Refresh != 1 {
						t.Errorf("%v; the new session has token %d", err, grantKey.Get(s).Refresh)
					}
				})
				r.wants(<-a, 1, nil, 1)
			}, func(c *sojourn.Config) { c.Bearer = true })
		})
	}
}

func TestALoginWaitsForARenewalNoLongerThanTwiceTheTimeout(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.answers(14*time.Second, nil)
		a := r.later(0)
		time.Sleep(time.Second / 2)
		begin := time.Now()
		r.labs[1].Do(r.v, func(s *sojourn.Session) { s.Login("ada") })
		if took := time.Since(begin); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("the login took %v", took)
		}
		if g := r.has(r.v); g.Refresh != 0 {
			t.Errorf("the new session has token %d", g.Refresh)
		}
		r.wants(<-a, 1, sojourn.ErrEnded, 1)
	})
}

func TestALoginOfSomebodyElseDoesNotWaitForARenewal(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		a := r.later(0)
		time.Sleep(time.Second / 2)
		begin := time.Now()
		r.labs[1].Do(r.v.Copy(), func(s *sojourn.Session) { s.Login("bob") })
		if time.Since(begin) != 0 {
			t.Errorf("the login took %v", time.Since(begin))
		}
		r.wants(<-a, 1, sojourn.ErrEnded, 1)
	})
}

func TestAnEndDoesNotWaitAndHandsTheValueBack(t *testing.T) {
	for name, end := range map[string]func(r *team) error{
		"Logout": func(r *team) error {
			r.labs[1].Do(r.v.Copy(), func(s *sojourn.Session) { s.Logout() })
			return nil
		},
		"RevokeUser": func(r *team) error {
			_, err := r.labs[1].RevokeUser(context.Background(), "ada")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			renewals(t, func(t *testing.T, r *team) {
				mine := r.later(0)
				time.Sleep(time.Second / 4)
				other := r.later(2)
				time.Sleep(time.Second / 4)
				begin := time.Now()
				if err := end(r); err != nil || time.Since(begin) != 0 {
					t.Errorf("it took %v: %v", time.Since(begin), err)
				}
				r.wants(<-mine, 1, sojourn.ErrEnded, 1)
				if a := <-other; !errors.Is(a.err, sojourn.ErrEnded) {
					t.Error(a.err)
				}
			})
		})
	}
}

func TestWhatSomebodyElseDoesToTheValueMeanwhileCounts(t *testing.T) {
	fresh := grant{Refresh: 7, Expires: time.Now().Add(1000 * time.Hour)}
	for name, c := range map[string]struct {
		does func(*sojourn.Session)
		err  error
		got  int
		kept int
	}{
		"removed":          {func(s *sojourn.Session) { grantKey.Delete(s) }, sojourn.ErrNoValue, 1, 0},
		"all removed":      {func(s *sojourn.Session) { s.Clear() }, sojourn.ErrNoValue, 1, 0},
		"set, and fresh":   {func(s *sojourn.Session) { grantKey.Set(s, fresh) }, nil, 7, 7},
		"changed, stale":   {func(s *sojourn.Session) { grantKey.Update(s, func(g grant) grant { g.Pad = "x"; return g }) }, nil, 1, 1},
		"cleared, and set": {func(s *sojourn.Session) { s.Clear(); grantKey.Set(s, fresh) }, nil, 7, 7},
	} {
		t.Run(name, func(t *testing.T) {
			renewals(t, func(t *testing.T, r *team) {
				a := r.later(0)
				time.Sleep(time.Second / 2)
				r.labs[1].Do(r.v.Copy(), c.does)
				r.wants(<-a, c.got, c.err, 1)
				if g := r.has(r.v); g.Refresh != c.kept {
					t.Errorf("token %d is kept", g.Refresh)
				}
			})
		})
	}
}

func TestARenewalNeedsRoomBeforeItFetches(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(r.v, func(s *sojourn.Session) {
			grantKey.Set(s, grant{Expires: time.Now().Add(-1), Pad: strings.Repeat("x", 6000)})
		})
		r.wants(r.ask(0), 0, sojourn.ErrTooLarge, 0)
	}, func(c *sojourn.Config) { c.MaxSize = 10_000 })
}

func TestNobodyTakesTheRoomOfARenewal(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(r.v, func(s *sojourn.Session) {
			grantKey.Set(s, grant{Expires: time.Now().Add(-1), Pad: strings.Repeat("x", 4000)})
		})
		mine := make(chan error, 1)
		go func() {
			r.labs[0].Do(r.v.Copy(), func(s *sojourn.Session) {
				_, err := grantKey.Renew(t.Context(), s, grant.stale, func(ctx context.Context, old grant) (grant, error) {
					g, err := r.refresh(ctx, old)
					g.Pad = strings.Repeat("y", 7000)
					return g, err
				})
				mine <- err
			})
		}()
		time.Sleep(time.Second / 2)
		r.labs[1].Do(r.v.Copy(), func(s *sojourn.Session) {
			s.Set("other", strings.Repeat("z", 4000))
			if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLarge) {
				t.Errorf("another request took the room: %v", err)
			}
			s.Discard()
		})
		if err := <-mine; err != nil || r.has(r.v).Refresh != 1 {
			t.Errorf("%v; token %d is kept", err, r.has(r.v).Refresh)
		}
	}, func(c *sojourn.Config) { c.MaxSize = 10_000 })
}

func TestAValueInTheCookieMovesToTheStoreToBeRenewed(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		v := sitetest.NewGuest(t)
		old := sojourn.NewKey[grant]("grant") // as a version before had it
		r.labs[0].Do(v, func(s *sojourn.Session) { old.Set(s, grant{}) })
		r.labs[0].Do(v, func(s *sojourn.Session) {
			if s.Info().Placement != sojourn.PlacementInline {
				t.Fatalf("the session is %v", s.Info().Placement)
			}
			r.wants(r.renew(t.Context(), s), 1, nil, 1)
		})
		if g := r.has(v); g.Refresh != 1 {
			t.Errorf("token %d is kept", g.Refresh)
		}
	})
}

func TestAValueThatTheRequestHasSetIsSavedToBeRenewed(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		v := sitetest.NewGuest(t)
		r.labs[0].Do(v, func(s *sojourn.Session) {
			s.Login("bob")
			grantKey.Set(s, grant{})
			r.wants(r.renew(t.Context(), s), 1, nil, 1)
		})
		if g := r.has(v); g.Refresh != 1 {
			t.Errorf("token %d is kept", g.Refresh)
		}
	})
}

func TestRenewWithoutAValue(t *testing.T) {
	renewals(t, func(t *testing.T, r *team) {
		r.labs[0].Do(sitetest.NewGuest(t), func(s *sojourn.Session) {
			r.wants(r.renew(t.Context(), s), 0, sojourn.ErrNoValue, 0)
		})
		r.labs[0].Do(r.v, func(s *sojourn.Session) {
			s.Logout()
			r.wants(r.renew(t.Context(), s), 0, sojourn.ErrNoValue, 0)
		})
	})
}

func TestRenewPanicsForAKeyThatIsNotSurelyStored(t *testing.T) {
	for _, k := range []sojourn.Key[grant]{
		sojourn.NewKey[grant]("grant"), sojourn.NewKey[grant]("grant", sojourn.ServerSide, sojourn.Volatile),
		sojourn.NewKey[grant](strings.Repeat("n", 255), sojourn.ServerSide),
	} {
		s := sitetest.NewLab(t)
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = k.Renew(t.Context(), session, grant.stale, (&provider{}).refresh)
		})
	}
}

type behind struct {
	*faults.Store
	copied *store.Record
	asked  int
}

func (b *behind) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	if floor == 0 || b.copied == nil || b.copied.Version < floor {
		return b.Load(ctx, id)
	}
	b.asked++
	return *b.copied, nil
}

func TestARenewalReadsTheStoreNotACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &behind{Store: faults.Wrap(memory.New())}
		p := &provider{}
		s, v := sitetest.NewLab(t, func(c *sojourn.Config) { c.Store = b }), sitetest.NewGuest(t)
		s.Do(v, func(s *sojourn.Session) { grantKey.Set(s, grant{}) })
		old := v.Copy() // its floor lets the copy answer
		rec := sitetest.Only(t, b.Store)
		b.copied = &rec
		for _, v := range []*sitetest.Guest{v, old} {
			s.Do(v, func(s *sojourn.Session) {
				g, err := grantKey.Renew(t.Context(), s, grant.stale, p.refresh)
				if err != nil || g.Refresh != 1 || p.asked != 1 || p.revoked {
					t.Errorf("token %d, %v; asked %d times", g.Refresh, err, p.asked)
				}
			})
		}
		if b.asked != 2 {
			t.Fatalf("the copy was asked %d times", b.asked)
		}
		// The browsers have seen the renewed value, so no older copy may answer.
		s.Do(old, func(s *sojourn.Session) {
			if grantKey.Get(s).Refresh != 1 {
				t.Error("a copy from before has answered")
			}
		})
	})
}

func TestRenewNeedsAStore(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
		grantKey.Set(session, grant{})
		_, err := grantKey.Renew(t.Context(), session, grant.stale, (&provider{}).refresh)
		if !errors.Is(err, sojourn.ErrNoStore) {
			t.Error(err)
		}
		session.Discard()
	})
}
