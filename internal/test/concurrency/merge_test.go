package concurrency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// How the changes of concurrent requests are merged: key by key, in a form that
// can be applied to a newer state.

// between runs "slow" on a session with the given values, with "fast" done by
// another request after slow has loaded and before it commits, and returns the
// slow one's answer.
func between(t *testing.T, setUp, fast, slow func(*sojourn.Session), check func(*sojourn.Session)) *sitetest.Answer {
	t.Helper()
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0); setUp(s) })
	request := anna.Begin(shop)
	sitetest.Does(t, anna, shop, fast)
	a := request.Finish(slow).Arrive()
	sitetest.Look(t, anna, shop, check)
	return a
}

func TestChangesOfTwoRequestsMergeKeyByKey(t *testing.T) {
	set := func(name string, v int) func(*sojourn.Session) {
		return func(s *sojourn.Session) { s.Set(name, v) }
	}
	type steps []func(*sojourn.Session)
	all := func(fs steps) func(*sojourn.Session) {
		return func(s *sojourn.Session) {
			for _, f := range fs {
				f(s)
			}
		}
	}
	plus := func(k sojourn.Key[int], n int) func(*sojourn.Session) {
		return func(s *sojourn.Session) { k.Update(s, func(v int) int { return v + n }) }
	}
	atLeast := func(k sojourn.Key[int], n int) func(*sojourn.Session) {
		return func(s *sojourn.Session) { k.Update(s, func(v int) int { return max(v, n) }) }
	}
	remove := func(name string) func(*sojourn.Session) {
		return func(s *sojourn.Session) { s.Delete(name) }
	}
	x := sojourn.NewKey[int]("x")
	for _, c := range []struct {
		name             string
		before, fast, by steps // by the slow request
		want             map[string]int
	}{
		{"different keys both arrive", nil, steps{set("x", 1)}, steps{set("y", 2)}, map[string]int{"x": 1, "y": 2}},
		{"of two Sets the later commit wins", nil, steps{set("x", 1)}, steps{set("x", 2)}, map[string]int{"x": 2}},
		{"Updates add up", steps{set("x", 10)}, steps{plus(x, 1)}, steps{plus(x, 2)}, map[string]int{"x": 13}},
		{"an Update goes on from a parallel Set", steps{set("x", 10)}, steps{set("x", 100)}, steps{plus(x, 2)}, map[string]int{"x": 102}},
		{"an Update of one's own Set ignores others", steps{set("x", 10)}, steps{set("x", 100)}, steps{set("x", 1), plus(x, 2)}, map[string]int{"x": 3}},
		{"several Updates are all done again, in order", steps{set("x", 10)}, steps{plus(x, -7)}, steps{plus(x, -5), atLeast(x, 0)}, map[string]int{"x": 0}},
		{"a Set after an Update is what was set", steps{set("x", 10)}, steps{plus(x, 5)}, steps{plus(x, 1), set("x", 11)}, map[string]int{"x": 11}},
		{"a Delete removes what another set", steps{set("x", 1)}, steps{set("x", 2)}, steps{remove("x")}, map[string]int{}},
		{"an Update after a parallel Delete starts from nothing", steps{set("x", 10)}, steps{remove("x")}, steps{plus(x, 2)}, map[string]int{"x": 2}},
		{"a Set survives a parallel Clear", steps{set("x", 1)}, steps{(*sojourn.Session).Clear}, steps{set("y", 2)}, map[string]int{"y": 2}},
		{"a Clear removes what others added", nil, steps{set("x", 1)}, steps{(*sojourn.Session).Clear}, map[string]int{}},
		{"what is set after a Clear stays", nil, steps{set("x", 1)}, steps{(*sojourn.Session).Clear, set("y", 2)}, map[string]int{"y": 2}},
		{"an Update after a Clear starts from nothing", steps{set("x", 1)}, steps{set("x", 2)}, steps{(*sojourn.Session).Clear, plus(x, 5)}, map[string]int{"x": 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := between(t, all(c.before), all(c.fast), all(c.by), func(s *sojourn.Session) {
				got := map[string]int{}
				for _, name := range s.Names() {
					var v int
					if err := s.Get(name, &v); err != nil {
						t.Error(err)
					}
					if name != "visits" {
						got[name] = v
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("the session holds %v, want %v", got, c.want)
				}
			})
			if a.Status != http.StatusOK {
				t.Errorf("the slower request got %d %s", a.Status, a.Body)
			}
		})
	}
}

func TestUpdateReturnsThisRequestsViewAndGetTheCommittedValueAfterSave(t *testing.T) {
	var view, committed int
	between(t, func(s *sojourn.Session) { sitetest.Visits.Set(s, 10) },
		func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
		func(s *sojourn.Session) {
			view = sitetest.Visits.Update(s, sitetest.AddOne)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			committed = sitetest.Visits.Get(s)
		}, func(*sojourn.Session) {})
	if view != 11 || committed != 12 {
		t.Errorf("Update returned %d, want 11; after Save Get returned %d, want 12", view, committed)
	}
}

func TestPopHasOneWinner(t *testing.T) {
	pop := func(s *sojourn.Session) { sitetest.Ticket.Pop(s) }
	for _, c := range []struct {
		name       string
		fast, slow func(*sojourn.Session)
		status     int
	}{
		{"two Pops", pop, pop, 409},
		{"a Pop after a Delete", func(s *sojourn.Session) { sitetest.Ticket.Delete(s) }, pop, 409},
		{"a Pop after a Set of another value", func(s *sojourn.Session) { sitetest.Ticket.Set(s, "new") }, pop, 409},
		{"a Pop after a Clear", (*sojourn.Session).Clear, pop, 409},
		{"a Pop after an unrelated change", func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }, pop, 200},
		{"a Pop and a Set after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Pop(s); sitetest.Ticket.Set(s, "next") }, 409},
		{"a Pop and a Clear after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Pop(s); s.Clear() }, 409},
		{"an Update and a Pop after a Pop", pop, func(s *sojourn.Session) {
			sitetest.Ticket.Update(s, func(v string) string { return v + "!" })
			sitetest.Ticket.Pop(s)
		}, 409},
		{"a Pop of one's own value after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Set(s, "own"); sitetest.Ticket.Pop(s) }, 200},
		{"a Pop and a Logout after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Pop(s); s.Logout() }, 409},
		{"a Pop and two Logouts after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Pop(s); s.Logout(); s.Logout() }, 409},
		{"a Pop and a Login after a Pop", pop, func(s *sojourn.Session) { sitetest.Ticket.Pop(s); s.Login("anna") }, 409},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := between(t, func(s *sojourn.Session) { sitetest.Ticket.Set(s, "admit one") }, c.fast,
				func(s *sojourn.Session) { sitetest.Colour.Set(s, "kept"); c.slow(s) },
				func(s *sojourn.Session) {
					if kept := sitetest.Colour.Get(s) == "kept"; kept && c.status != 200 {
						t.Error("something that the loser changed was kept")
					}
					if s.User() != "" {
						t.Error("the loser is logged in")
					}
				})
			if a.Status != c.status {
				t.Errorf("got %d %s, want %d", a.Status, a.Body, c.status)
			}
		})
	}
}

func TestPopOfAValueThatARequestSavedTogetherWithThisOneTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		shop := sitetest.OpenShop(t, db)
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Ticket.Set(s, "admit one") })
		requests := [3]*sitetest.Slow{anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)}
		// The first request's save takes until the other two are waiting for it.
		var once sync.Once
		goOn := make(chan struct{})
		db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			once.Do(func() { <-goOn })
			return db.Inner.Save(ctx, rec, base)
		}
		statuses := [3]int{}
		var all sync.WaitGroup
		for i, f := range [3]func(*sojourn.Session){
			func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
			func(s *sojourn.Session) {
				sitetest.Visits.Update(s, sitetest.AddOne)
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
				}
				sitetest.Ticket.Pop(s)
			},
			func(s *sojourn.Session) { sitetest.Ticket.Pop(s) },
		} {
			all.Go(func() { statuses[i] = requests[i].Finish(f).Status })
			synctest.Wait()
		}
		close(goOn)
		all.Wait()
		if statuses != [3]int{200, 409, 200} {
			t.Errorf("the statuses are %v: the value was popped twice, or by nobody", statuses)
		}
	})
}

func TestLoserOfAPopIsToldBySave(t *testing.T) {
	pop := func(s *sojourn.Session) { sitetest.Ticket.Pop(s) }
	between(t, func(s *sojourn.Session) { sitetest.Ticket.Set(s, "admit one") }, pop, func(s *sojourn.Session) {
		if v, ok := sitetest.Ticket.Pop(s); !ok || v != "admit one" {
			t.Errorf("Pop = %q, %v before anything is known", v, ok)
		}
		if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrTaken) {
			t.Errorf("Save said %v, want ErrTaken", err)
		}
		s.Discard()
	}, func(*sojourn.Session) {})
}

func TestNothingIsSavedForSettingsThatAreAlreadySo(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.OpenShop(t, db)
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
		s.Login("anna")
		s.Remember(true)
		s.SetExpiry(time.Hour, 2*time.Hour)
	})
	saves := db.Saves.Load()
	for range 3 {
		a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			s.Remember(true)
			s.SetExpiry(time.Hour, 2*time.Hour)
			s.Clear() // it holds nothing
		})
		if len(a.SetCookies()) > 0 {
			t.Errorf("set cookies %v", a.SetCookies())
		}
	}
	if n := db.Saves.Load() - saves; n != 0 {
		t.Errorf("made %d saves, want none", n)
	}
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Remember(false) })
	if n := db.Saves.Load() - saves; n != 1 {
		t.Errorf("a setting that is new made %d saves, want 1", n)
	}
}

func TestFlashMessages(t *testing.T) {
	texts := func(list []sojourn.Flash) (out []string) {
		for _, f := range list {
			out = append(out, f.Level+":"+f.Text)
		}
		return out
	}
	equal := func(t *testing.T, got []sojourn.Flash, want ...string) {
		t.Helper()
		if !slices.Equal(texts(got), want) {
			t.Errorf("the messages are %v, want %v", texts(got), want)
		}
	}
	add := func(level, text string) func(*sojourn.Session) {
		return func(s *sojourn.Session) { s.Flash(level, text) }
	}
	for _, where := range []string{"inline", "stored"} {
		t.Run(where, func(t *testing.T) {
			shop := sitetest.OpenShop(t, memory.New())
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
				if where == "stored" {
					sitetest.Visits.Set(s, 1)
				}
				s.Flash("info", "one")
				s.Flash("error", "two")
				s.Flash("info", "three")
			})
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
				equal(t, s.Flashes("error"), "error:two")
				equal(t, s.Flashes("error"))
				if slices.ContainsFunc(s.Names(), func(n string) bool { return strings.HasPrefix(n, "_") }) {
					t.Error("the messages are among the names")
				}
			})
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { equal(t, s.Flashes(), "info:one", "info:three") })
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { equal(t, s.Flashes()) })
		})
	}
	t.Run("of two requests at once are all there", func(t *testing.T) {
		between(t, add("info", "first"), add("info", "fast"), add("info", "slow"), func(s *sojourn.Session) {
			equal(t, s.Flashes(), "info:first", "info:fast", "info:slow")
		})
	})
	t.Run("added while others are handed out are not lost", func(t *testing.T) {
		between(t, add("info", "first"), add("info", "fast"), func(s *sojourn.Session) {
			equal(t, s.Flashes(), "info:first")
		}, func(s *sojourn.Session) { equal(t, s.Flashes(), "info:fast") })
	})
	t.Run("handed out by two requests at once are gone", func(t *testing.T) {
		between(t, add("info", "first"), func(s *sojourn.Session) { equal(t, s.Flashes(), "info:first") },
			func(s *sojourn.Session) { equal(t, s.Flashes(), "info:first"); s.Flash("info", "own") },
			func(s *sojourn.Session) { equal(t, s.Flashes(), "info:own") })
	})
	t.Run("stay when the answer is an error", func(t *testing.T) {
		shop := sitetest.OpenShop(t, memory.New())
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1); s.Flash("info", "one") })
		anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
			s, _ := shop.Manager.Get(r.Context())
			s.Flashes()
			w.WriteHeader(http.StatusInternalServerError)
		})
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { equal(t, s.Flashes(), "info:one") })
	})
	t.Run("say goodbye after a logout", func(t *testing.T) {
		shop := sitetest.OpenShop(t, memory.New())
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); s.Flash("info", "old") })
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Logout(); s.Flash("info", "signed out") })
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			equal(t, s.Flashes(), "info:signed out")
			if s.User() != "" {
				t.Error("still logged in")
			}
		})
	})
}

func TestDiscardDropsEverythingPending(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.OpenShop(t, db)
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
	saves := db.Saves.Load() + db.Marks.Load()
	for name, f := range map[string]func(*sojourn.Session){
		"values":          func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne); sitetest.Colour.Set(s, "red") },
		"a login":         func(s *sojourn.Session) { s.Login("bob") },
		"a logout":        (*sojourn.Session).Logout,
		"a rotation":      (*sojourn.Session).Rotate,
		"settings":        func(s *sojourn.Session) { s.Remember(false); s.SetExpiry(1, 1) },
		"a bad value":     func(s *sojourn.Session) { s.Set("x", make(chan int)) },
		"flash messages":  func(s *sojourn.Session) { s.Flash("info", "x") },
		"a clear":         (*sojourn.Session).Clear,
		"logout and then": func(s *sojourn.Session) { s.Logout(); sitetest.Colour.Set(s, "red") },
	} {
		a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			f(s)
			s.Discard()
			if s.User() != "anna" || sitetest.Visits.Get(s) != 1 || sitetest.Colour.Get(s) != "" {
				t.Errorf("after %s and Discard: %q, %d, %q", name, s.User(), sitetest.Visits.Get(s), sitetest.Colour.Get(s))
			}
		})
		if len(a.SetCookies()) > 0 {
			t.Errorf("after %s and Discard: cookies %v", name, a.SetCookies())
		}
	}
	if n := db.Saves.Load() + db.Marks.Load() - saves; n != 0 {
		t.Errorf("%d discarded changes were saved", n)
	}
}
