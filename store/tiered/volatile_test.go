package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

var (
	page   = sojourn.NewKey[string]("last_page", sojourn.Volatile)
	clicks = sojourn.NewKey[int]("clicks", sojourn.Volatile)
	count  = sojourn.NewKey[int]("count", sojourn.ServerSide)
)

func addOne(n int) int { return n + 1 }

// town is two replicas with a cache each and a shared cache, and a visitor with
// a stored session that is in the caches.
type town struct {
	*testing.T
	db     *faults.Store
	shared *cache
	sites  []*sitetest.Site
	anna   *sitetest.Browser
}

func newTown(t *testing.T, edit ...func(*tiered.Layer)) *town {
	db := faults.Wrap(memory.New())
	tn := &town{T: t, db: db, shared: newCache(), anna: sitetest.NewBrowser()}
	keys := sitetest.Keys(t)
	for range 2 {
		layer := tiered.Layer{Cache: tn.shared, Logger: quiet}
		for _, f := range edit {
			f(&layer)
		}
		// Copies in the process must expire soon, because the tests are about the shared cache.
		s, err := tiered.New(db, tiered.Layer{Cache: tiered.NewMemory(1 << 20), MaxStale: time.Second}, layer)
		if err != nil {
			t.Fatal(err)
		}
		tn.sites = append(tn.sites, sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: s, Keys: keys})))
	}
	tn.does(0, func(s *sojourn.Session) { s.Login("anna"); count.Set(s, 1); page.Set(s, "/login") })
	tn.looks()
	return tn
}

// does sends the visitor's request to one of the replicas, and expects 200.
func (tn *town) does(site int, f func(*sojourn.Session)) *sitetest.Answer {
	tn.Helper()
	a := tn.anna.Visit(tn.sites[site], f)
	if a.Status != http.StatusOK {
		tn.Fatalf("replica %d answered %d %s", site, a.Status, a.Body)
	}
	return a
}

// looks makes both replicas load the session.
func (tn *town) looks() {
	tn.Helper()
	for i := range tn.sites {
		tn.does(i, func(*sojourn.Session) {})
	}
}

// durably lets f run and fails unless it made that many saves.
func (tn *town) durably(want int64, what string, f func()) {
	tn.Helper()
	before := tn.db.Saves.Load()
	f()
	if n := tn.db.Saves.Load() - before; n != want {
		tn.Errorf("%s: %d saves in the store, want %d", what, n, want)
	}
}

// page is a replica's page.
func (tn *town) page(site int) string {
	tn.Helper()
	var got string
	tn.does(site, func(s *sojourn.Session) { got = page.Get(s) })
	return got
}

func (tn *town) wantPage(want string) {
	tn.Helper()
	for i := range tn.sites {
		if got := tn.page(i); got != want {
			tn.Errorf("replica %d shows %q, want %q", i, got, want)
		}
	}
}

func inTown(t *testing.T, name string, f func(tn *town), edit ...func(*tiered.Layer)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(newTown(t, edit...)) })
	})
}

func TestVolatileChanges(t *testing.T) {
	inTown(t, "make no save, and every replica shows them with the next request", func(tn *town) {
		tn.durably(0, "five pages", func() {
			for i := range 5 {
				want := fmt.Sprint("/page/", i)
				tn.does(i%2, func(s *sojourn.Session) { page.Set(s, want) })
				tn.wantPage(want)
			}
		})
		if n := ops.For(tn.sites[0].Manager).Stats().VolatileSaves + ops.For(tn.sites[1].Manager).Stats().VolatileSaves; n != 5 {
			tn.Errorf("%d volatile saves were counted, want 5", n)
		}
	})
	inTown(t, "do not raise the version, and set a cookie once", func(tn *town) {
		version := func() (v uint64) {
			tn.does(0, func(s *sojourn.Session) { v = s.Info().Version })
			return v
		}
		before := version()
		first := tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		second := tn.does(1, func(s *sojourn.Session) { page.Set(s, "/b") })
		if v := version(); v != before {
			tn.Errorf("version %d became %d", before, v)
		}
		if len(first.SetCookies()) != 1 || len(second.SetCookies()) != 0 {
			tn.Errorf("cookies %v, then %v; want the floor once", len(first.SetCookies()), len(second.SetCookies()))
		}
	})
	inTown(t, "outlive MaxStale", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		time.Sleep(10 * time.Minute)
		tn.wantPage("/a")
	})
	inTown(t, "go along with the next durable write", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.durably(1, "a durable change", func() {
			tn.does(1, func(s *sojourn.Session) { count.Update(s, addOne) })
		})
		tn.shared.clear()
		tn.wantPage("/a")
	})
	inTown(t, "go along into a login", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.does(1, func(s *sojourn.Session) { s.Login("anna") })
		tn.shared.clear()
		tn.wantPage("/a")
	})
	inTown(t, "are lost with the cache, and nothing else is", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.shared.clear()
		tn.wantPage("/login")
		tn.does(1, func(s *sojourn.Session) {
			if count.Get(s) != 1 || s.User() != "anna" {
				tn.Error("more than the volatile value is lost")
			}
		})
		time.Sleep(2 * time.Second) // until the copies in the processes expire, no request fills the shared cache
		tn.looks()
		tn.durably(0, "another page", func() { tn.does(1, func(s *sojourn.Session) { page.Set(s, "/b") }) })
		tn.wantPage("/b")
	})
	inTown(t, "mixed with others are written durably", func(tn *town) {
		tn.durably(1, "both at once", func() {
			tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a"); count.Set(s, 2) })
		})
		tn.shared.clear()
		tn.wantPage("/a")
	})
	inTown(t, "count exactly while the cache keeps them", func(tn *town) {
		tn.durably(0, "the first click", func() { tn.does(0, func(s *sojourn.Session) { clicks.Set(s, 0) }) })
		const n = 12
		sitetest.Together(n, func(i int) {
			a := tn.anna.Visit(tn.sites[i%2], func(s *sojourn.Session) { clicks.Update(s, addOne) })
			if a.Status != http.StatusOK {
				tn.Errorf("click %d: %d %s", i, a.Status, a.Body)
			}
		})
		tn.does(0, func(s *sojourn.Session) {
			if got := clicks.Get(s); got != n {
				tn.Errorf("%d clicks made %d", n, got)
			}
		})
	})
	inTown(t, "can remove: a popped value is gone on every replica", func(tn *town) {
		tn.durably(0, "a pop", func() {
			tn.does(0, func(s *sojourn.Session) {
				if v, ok := page.Pop(s); !ok || v != "/login" {
					tn.Errorf("popped %q, %t", v, ok)
				}
			})
		})
		tn.wantPage("")
		tn.does(1, func(s *sojourn.Session) { count.Set(s, 2) })
		tn.shared.clear()
		tn.wantPage("")
	})
	inTown(t, "have one winner when two requests pop", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, func(s *sojourn.Session) { page.Pop(s) })
		if a := slow.Finish(func(s *sojourn.Session) { page.Pop(s) }); a.Status != http.StatusConflict {
			tn.Errorf("the second pop was answered %d, want 409", a.Status)
		}
	})
	inTown(t, "merge key by key with those of a parallel request", func(tn *town) {
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.durably(0, "the slower change", func() {
			slow.Finish(func(s *sojourn.Session) { clicks.Set(s, 7) }).Arrive()
		})
		tn.does(0, func(s *sojourn.Session) {
			if page.Get(s) != "/a" || clicks.Get(s) != 7 {
				tn.Errorf("page %q and %d clicks, want both requests' changes", page.Get(s), clicks.Get(s))
			}
		})
	})
	inTown(t, "that a durable write overtook are done again on top of it", func(tn *town) {
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, func(s *sojourn.Session) { count.Set(s, 2) })
		tn.durably(2, "the slower change, refused once", func() {
			slow.Finish(func(s *sojourn.Session) { page.Set(s, "/slow") }).Arrive()
		})
		tn.wantPage("/slow")
		tn.does(0, func(s *sojourn.Session) {
			if n := count.Get(s); n != 2 {
				tn.Errorf("the durable change is lost: %d", n)
			}
		})
	})
	inTown(t, "of a slower durable request do not undo newer ones after a conflict", func(tn *town) {
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, func(s *sojourn.Session) { count.Set(s, 2) })
		tn.does(0, func(s *sojourn.Session) {}) // the cache gets the new version
		tn.durably(0, "a page", func() { tn.does(0, func(s *sojourn.Session) { page.Set(s, "/new") }) })
		slow.Finish(func(s *sojourn.Session) { count.Update(s, addOne) }).Arrive()
		tn.wantPage("/new")
		tn.does(0, func(s *sojourn.Session) {
			if n := count.Get(s); n != 3 {
				tn.Errorf("the count is %d, want 3", n)
			}
		})
	})
	inTown(t, "end with the session", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/secret") })
		thief := tn.anna.Steal()
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, (*sojourn.Session).Logout)
		if a := slow.Finish(func(s *sojourn.Session) { page.Set(s, "/late") }); a.Status != http.StatusConflict || len(a.SetCookies()) != 0 {
			tn.Errorf("a volatile change after the logout was answered %d with %d cookies, want 409 and none", a.Status, len(a.SetCookies()))
		}
		time.Sleep(6 * time.Second) // the slower request's lease
		if n := tn.shared.len(); n != 0 {
			tn.Errorf("%d entries are left in the cache", n)
		}
		for i, site := range tn.sites {
			thief.Visit(site, func(s *sojourn.Session) {
				if page.Get(s) != "" || s.User() != "" {
					tn.Errorf("replica %d shows the ended session", i)
				}
			})
		}
	})
	inTown(t, "are written durably when activity is to be noted", func(tn *town) {
		time.Sleep(2 * time.Hour)
		tn.durably(1, "the first page after two hours", func() { tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") }) })
		tn.looks()
		tn.durably(0, "the second", func() { tn.does(0, func(s *sojourn.Session) { page.Set(s, "/b") }) })
	})
	inTown(t, "are written durably when the cache cannot be reached", func(tn *town) {
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.shared.fail.Store(true)
		tn.durably(1, "a page without the cache", func() { tn.does(0, func(s *sojourn.Session) { page.Set(s, "/b") }) })
		tn.wantPage("/b")
		tn.shared.fail.Store(false)
		time.Sleep(time.Minute)
		tn.wantPage("/b") // what the cache still holds is of an older version
	})
	inTown(t, "are written durably when the cache has no copy of the session", func(tn *town) {
		tn.durably(1, "a page after an eviction", func() {
			slow := tn.anna.Begin(tn.sites[0])
			tn.shared.clear()
			slow.Finish(func(s *sojourn.Session) { page.Set(s, "/a") }).Arrive()
		})
		tn.wantPage("/a")
	})
	inTown(t, "need no store", func(tn *town) {
		tn.db.OnSave = func(context.Context, store.Record, store.Base) error { return errors.New("down") }
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.wantPage("/a")
	})
	inTown(t, "after the first byte are kept where the browser knows of others", func(tn *town) {
		late := func(v string) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, r *http.Request) {
				s, err := tn.sites[0].Manager.Get(r.Context())
				if err != nil {
					tn.Error(err)
					return
				}
				_, _ = w.Write([]byte("the first byte"))
				page.Set(s, v)
			}
		}
		tn.durably(1, "the browser knows of none", func() { tn.anna.VisitHTTP(tn.sites[0], late("/a")) })
		time.Sleep(2 * time.Second) // no cookie could tell the floor: MaxStale in the process
		tn.wantPage("/a")
		tn.durably(0, "a first one", func() { tn.does(0, func(s *sojourn.Session) { page.Set(s, "/b") }) })
		tn.durably(0, "the browser knows of one", func() { tn.anna.VisitHTTP(tn.sites[0], late("/c")) })
		tn.wantPage("/c")
	})
	inTown(t, "whose answer is lost are not lost", func(tn *town) {
		var lose atomic.Bool
		lose.Store(true)
		tn.shared.onAdd = func() error {
			if lose.CompareAndSwap(true, false) {
				return faults.ErrLost
			}
			return nil
		}
		tn.does(0, func(s *sojourn.Session) { page.Set(s, "/a") })
		tn.wantPage("/a")
	})
}

func TestWithoutASharedCacheVolatileValuesAreDurable(t *testing.T) {
	db := faults.Wrap(memory.New())
	s, err := tiered.New(db, tiered.Layer{Cache: tiered.NewMemory(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: s}))
	anna := sitetest.NewBrowser()
	anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 1) })
	before := db.Saves.Load()
	anna.Visit(site, func(s *sojourn.Session) { page.Set(s, "/a") })
	if n := db.Saves.Load() - before; n != 1 {
		t.Errorf("%d saves, want 1", n)
	}
}

func TestVolatileMeansNothingInACookie(t *testing.T) {
	tn := newTown(t)
	bob := sitetest.NewBrowser()
	calls := tn.db.Calls()
	bob.Visit(tn.sites[0], func(s *sojourn.Session) { page.Set(s, "/a") })
	bob.Visit(tn.sites[1], func(s *sojourn.Session) {
		if page.Get(s) != "/a" || s.Info().Placement != sojourn.PlacementInline {
			t.Errorf("page %q, placement %v", page.Get(s), s.Info().Placement)
		}
	})
	if n := tn.db.Calls() - calls; n != 0 {
		t.Errorf("%d calls of the store", n)
	}
}
