package concurrency_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Many requests of one visitor at once, over real HTTP, in one process and on
// several replicas of a service.

// onReplicas runs a test in one process and on four, over one store.
func onReplicas(t *testing.T, f func(t *testing.T, sites []*sitetest.Site, db *memory.Store)) {
	t.Helper()
	for _, n := range []int{1, 4} {
		t.Run(fmt.Sprint(n, " replicas"), func(t *testing.T) {
			db := memory.New()
			f(t, sitetest.Replicas(t, n, sojourn.Config{Store: db, Timeout: time.Minute}), db)
		})
	}
}

func TestParallelUpdatesAreExact(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, _ *memory.Store) {
		const n = 64
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
		sitetest.Together(n, func(i int) {
			a := anna.VisitHTTP(replica(sites, i), func(w http.ResponseWriter, r *http.Request) {
				s, err := replica(sites, i).Manager.Get(r.Context())
				if err != nil {
					t.Error(err)
					return
				}
				sitetest.Visits.Update(s, sitetest.AddOne)
				sitetest.Basket.Update(s, func(b []string) []string { return append(b, fmt.Sprint(i)) })
				s.Set(fmt.Sprint("key", i), i)
				if err := s.Save(r.Context()); err != nil {
					t.Error(err)
				}
				if sitetest.Visits.Get(s) < 1 || sitetest.Visits.Get(s) > n {
					t.Errorf("after Save the count is %d", sitetest.Visits.Get(s))
				}
			})
			if a.Status != http.StatusOK {
				t.Errorf("got %d %s", a.Status, a.Body)
			}
		})
		sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
			if sitetest.Visits.Get(s) != n || len(sitetest.Basket.Get(s)) != n || len(s.Names()) != n+2 {
				t.Errorf("%d requests left a count of %d, %d entries and %d values", n, sitetest.Visits.Get(s), len(sitetest.Basket.Get(s)), len(s.Names()))
			}
		})
	})
}

func TestSessionThatOutgrowsTheCookieInParallelRequestsIsOneSession(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, db *memory.Store) {
		const n = 16
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		requests := make([]*sitetest.Slow, n)
		for i := range requests {
			requests[i] = anna.Begin(replica(sites, i)) // all of them know the cookie only
		}
		sitetest.Together(n, func(i int) {
			a := requests[i].Finish(func(s *sojourn.Session) {
				sitetest.Visits.Update(s, sitetest.AddOne)
				s.Set(fmt.Sprint("key", i), i)
			})
			if a.Arrive().Status != http.StatusOK {
				t.Errorf("request %d got %d %s", i, a.Status, a.Body)
			}
		})
		sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
			if sitetest.Visits.Get(s) != n || len(s.Names()) != n+2 || sitetest.Colour.Get(s) != "red" {
				t.Errorf("a count of %d and %d values arrived", sitetest.Visits.Get(s), len(s.Names()))
			}
		})
		if n := sitetest.Rows(t, db); n != 1 {
			t.Errorf("there are %d sessions, want 1", n)
		}
	})
}

func TestDivergedCookiesMergeByTheirCountersWhenTheyGrow(t *testing.T) {
	for _, order := range []string{"older first", "newer first"} {
		shop := sitetest.OpenShop(t, memory.New())
		older := sitetest.NewBrowser()
		sitetest.Does(t, older, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red"); s.Set("common", 1) })
		newer := older.Clone() // another tab, whose responses the first never saw
		sitetest.Does(t, older, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
		sitetest.Does(t, newer, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "green") })
		sitetest.Does(t, newer, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "gold"); s.Set("newer", 1) })
		first, second := older, newer
		if order == "newer first" {
			first, second = newer, older
		}
		sitetest.Does(t, first, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		sitetest.Does(t, second, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		for _, b := range []*sitetest.Browser{older, newer} {
			sitetest.Look(t, b, shop, func(s *sojourn.Session) {
				if sitetest.Colour.Get(s) != "gold" || sitetest.Visits.Get(s) != 2 || !s.Has("common") || !s.Has("newer") {
					t.Errorf("%s: %q, %d visits, values %v", order, sitetest.Colour.Get(s), sitetest.Visits.Get(s), s.Names())
				}
			})
		}
	}
}

func TestPopRacedByFiveRequestsHasOneWinner(t *testing.T) {
	for what, more := range map[string]func(*sojourn.Session){
		"Pop":            func(*sojourn.Session) {},
		"Pop and Login":  func(s *sojourn.Session) { s.Login("anna") },
		"Pop and Logout": (*sojourn.Session).Logout,
	} {
		t.Run(what, func(t *testing.T) {
			onReplicas(t, func(t *testing.T, sites []*sitetest.Site, db *memory.Store) {
				for range 10 {
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Ticket.Set(s, "admit one") })
					requests := make([]*sitetest.Slow, 5)
					for i := range requests {
						requests[i] = anna.Clone().Begin(replica(sites, i))
					}
					var won, lost atomic.Int64
					winners := make([]*sitetest.Answer, 5)
					before, err := db.Count(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					sitetest.Together(5, func(i int) {
						a := requests[i].Finish(func(s *sojourn.Session) {
							if v, ok := sitetest.Ticket.Pop(s); !ok || v != "admit one" {
								t.Errorf("popped %q, %v", v, ok)
							}
							s.Set(fmt.Sprint("loot", i), 1)
							more(s)
						})
						switch a.Status {
						case http.StatusOK:
							won.Add(1)
							winners[i] = a
						case http.StatusConflict:
							lost.Add(1)
							if what != "Pop and Logout" && len(a.SetCookies()) > 0 {
								t.Errorf("a loser got cookies %v", a.SetCookies())
							}
						default:
							t.Errorf("got %d %s", a.Status, a.Body)
						}
					})
					if won.Load() != 1 || lost.Load() != 4 {
						t.Errorf("%d requests won and %d lost, want 1 and 4", won.Load(), lost.Load())
					}
					after, err := db.Count(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if what == "Pop and Login" && after.LoggedIn != before.LoggedIn+1 {
						t.Errorf("there are %d more logged-in sessions, want 1", after.LoggedIn-before.LoggedIn)
					}
					for i, a := range winners {
						if a == nil || what == "Pop and Logout" {
							continue
						}
						a.ArriveAt(anna)
						sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
							if names := s.Names(); len(names) != 1 || names[0] != fmt.Sprint("loot", i) {
								t.Errorf("the session holds %v after request %d won", names, i)
							}
						})
					}
				}
			})
		})
	}
}

func TestParallelLoginsFromOneAnonymousCart(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, db *memory.Store) {
		for what, cart := range map[string]func(*sojourn.Session){
			"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
			"stored": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red"); sitetest.Visits.Set(s, 1) },
		} {
			const n = 6
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, sites[0], cart)
			before := anna.Clone()
			requests := make([]*sitetest.Slow, n)
			for i := range requests {
				requests[i] = anna.Begin(replica(sites, i))
			}
			sitetest.Together(n, func(i int) {
				a := requests[i].Finish(func(s *sojourn.Session) { s.Login(fmt.Sprint("user", i)) })
				if a.Status != http.StatusOK {
					t.Errorf("login %d got %d %s", i, a.Status, a.Body)
				}
				browser := anna.Clone()
				a.ArriveAt(browser)
				browser.Visit(replica(sites, i+1), func(s *sojourn.Session) {
					if s.User() != fmt.Sprint("user", i) || sitetest.Colour.Get(s) != "red" {
						t.Errorf("%s: login %d is %q with %q", what, i, s.User(), sitetest.Colour.Get(s))
					}
				})
			})
			// The values in a replayed inline cookie come back; the login does not.
			sitetest.Look(t, before, sites[0], func(s *sojourn.Session) {
				if s.User() != "" || what == "stored" && !s.IsNew() {
					t.Errorf("%s: the session before the logins goes on", what)
				}
			})
		}
		if n := sitetest.Rows(t, db); n != 12 {
			t.Errorf("there are %d sessions, want the 12 of the logins", n)
		}
	})
}

func TestAnotherTabsChangesAreInTheSessionOfALoginOrAreRefused(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, _ *memory.Store) {
		for range 5 {
			const n = 12
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
			requests := make([]*sitetest.Slow, n+1)
			for i := range requests {
				requests[i] = anna.Begin(replica(sites, i))
			}
			var acked atomic.Int64
			sitetest.Together(n+1, func(i int) {
				if i == n {
					if a := requests[i].Finish(func(s *sojourn.Session) { s.Login("anna") }).Arrive(); a.Status != http.StatusOK {
						t.Errorf("the login got %d %s", a.Status, a.Body)
					}
					return
				}
				switch a := requests[i].Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }).Arrive(); a.Status {
				case http.StatusOK:
					acked.Add(1)
				case http.StatusConflict:
				default:
					t.Errorf("got %d %s", a.Status, a.Body)
				}
			})
			sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
				if s.User() != "anna" || sitetest.Visits.Get(s) != int(acked.Load()) {
					t.Errorf("%q has %d, and %d increments were acknowledged", s.User(), sitetest.Visits.Get(s), acked.Load())
				}
			})
		}
	})
}

func TestLogoutRacedByChangesIsFinal(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, db *memory.Store) {
		for range 5 {
			const n = 8
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { s.Login("anna"); sitetest.Ticket.Set(s, "admit one") })
			thief := anna.Steal()
			requests := make([]*sitetest.Slow, n)
			for i := range requests {
				requests[i] = anna.Begin(replica(sites, i))
			}
			sitetest.Together(n, func(i int) {
				a := requests[i].Finish(func(s *sojourn.Session) {
					switch i {
					case 0:
						s.Logout()
					case 1:
						sitetest.Ticket.Pop(s)
					case 2:
						s.Rotate()
					default:
						sitetest.Visits.Update(s, sitetest.AddOne)
					}
				})
				if i == 0 && a.Status != http.StatusOK || a.Status != http.StatusOK && a.Status != http.StatusConflict {
					t.Errorf("request %d got %d %s", i, a.Status, a.Body)
				}
				a.Arrive()
			})
			for _, b := range []*sitetest.Browser{anna, thief} {
				sitetest.Look(t, b, sites[0], func(s *sojourn.Session) {
					if s.User() != "" || len(s.Names()) > 0 {
						t.Error("the session goes on after the logout")
					}
				})
			}
		}
		if n := sitetest.Rows(t, db); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestDoubleSubmitOfAFormWithATokenIsDoneOnce(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, _ *memory.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Ticket.Set(s, "form 1") })
		first, second := anna.Begin(replica(sites, 0)), anna.Begin(replica(sites, 1))
		order := func(s *sojourn.Session) {
			if _, ok := sitetest.Ticket.Pop(s); ok {
				sitetest.Basket.Update(s, func(b []string) []string { return append(b, "order") })
			}
		}
		statuses := map[int]int{}
		statuses[first.Finish(order).Arrive().Status]++
		statuses[second.Finish(order).Arrive().Status]++
		statuses[anna.Visit(sites[0], order).Status]++ // and once more by hand
		if statuses[200] != 2 || statuses[409] != 1 {
			t.Errorf("the statuses are %v, want one 409", statuses)
		}
		sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
			if len(sitetest.Basket.Get(s)) != 1 {
				t.Errorf("there are %d orders, want 1", len(sitetest.Basket.Get(s)))
			}
		})
	})
}

func TestManyVisitorsAtOnceDoNotMeet(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, db *memory.Store) {
		const n = 32
		sitetest.Together(n, func(i int) {
			me := fmt.Sprint("user", i)
			b := sitetest.NewBrowser()
			for j := range 6 {
				a := b.Visit(replica(sites, i+j), func(s *sojourn.Session) {
					if j > 0 && (s.User() != me || sitetest.Colour.Get(s) != me || sitetest.Visits.Get(s) != j) {
						t.Errorf("%s is %q with %q and %d", me, s.User(), sitetest.Colour.Get(s), sitetest.Visits.Get(s))
					}
					if j == 0 {
						s.Login(me)
						sitetest.Colour.Set(s, me)
					}
					sitetest.Visits.Update(s, sitetest.AddOne)
				})
				if a.Status != http.StatusOK {
					t.Errorf("%s got %d %s", me, a.Status, a.Body)
				}
			}
		})
		if got := sitetest.Rows(t, db); got != n {
			t.Errorf("%d visitors have %d sessions", n, got)
		}
	})
}

func TestValueThatWasRemovedWhenTheSessionGrewDoesNotComeBackWithAnotherGrowth(t *testing.T) {
	for what, remove := range map[string]func(*sojourn.Session){
		"deleted": func(s *sojourn.Session) { sitetest.Colour.Delete(s) },
		"popped":  func(s *sojourn.Session) { sitetest.Colour.Pop(s) },
		"cleared": (*sojourn.Session).Clear,
	} {
		shop := sitetest.OpenShop(t, memory.New())
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		other := anna.Begin(shop)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { remove(s); sitetest.Visits.Update(s, sitetest.AddOne) })
		other.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }).Arrive()
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if s.Has("colour") || sitetest.Visits.Get(s) != 2 {
				t.Errorf("the value that was %s: %q; %d visits", what, sitetest.Colour.Get(s), sitetest.Visits.Get(s))
			}
		})
	}
}

// A key was lost, as reported in kataras/iris#1728. The two requests have no
// common session yet, so they start two, which a server cannot prevent; once a
// session is stored, its requests are merged.
func TestOfTwoFirstRequestsAtOnceTheLastAnswerIsTheSessionAndItIsWhole(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	nobody := sitetest.NewBrowser()
	one, two := nobody.Begin(shop), nobody.Begin(shop)
	first := one.Finish(func(s *sojourn.Session) { s.Set("one", 1) })
	second := two.Finish(func(s *sojourn.Session) { s.Set("two", 2) })
	first.Arrive()
	second.Arrive()
	sitetest.Look(t, nobody, shop, func(s *sojourn.Session) {
		if s.Has("one") || !s.Has("two") {
			t.Errorf("the session holds %v", s.Names())
		}
	})
	sitetest.Does(t, nobody, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
	one, two = nobody.Begin(shop), nobody.Begin(shop)
	one.Finish(func(s *sojourn.Session) { s.Set("three", 3) }).Arrive()
	two.Finish(func(s *sojourn.Session) { s.Set("four", 4) }).Arrive()
	sitetest.Look(t, nobody, shop, func(s *sojourn.Session) {
		if !s.Has("two") || !s.Has("three") || !s.Has("four") {
			t.Errorf("the session holds %v", s.Names())
		}
	})
}

// The cleaning up raced with requests, as reported in alexedwards/scs#231.
func TestASweepDuringRequestsRemovesNoLiveSession(t *testing.T) {
	onReplicas(t, func(t *testing.T, sites []*sitetest.Site, _ *memory.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
		sitetest.Together(8, func(i int) {
			for range 10 {
				if i == 0 {
					if n, err := ops.For(sites[0].Manager).Sweep(t.Context()); n != 0 || err != nil {
						t.Errorf("swept %d live sessions (%v)", n, err)
					}
					continue
				}
				sitetest.Does(t, anna, replica(sites, i), func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
			}
		})
		sitetest.Look(t, anna, sites[0], func(s *sojourn.Session) {
			if sitetest.Visits.Get(s) != 70 {
				t.Errorf("the count is %d, want 70", sitetest.Visits.Get(s))
			}
		})
	})
}

// replica returns the replica of the i-th request.
func replica(sites []*sitetest.Site, i int) *sitetest.Site { return sites[i%len(sites)] }
