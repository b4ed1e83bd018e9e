package complaints_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Complaints from the trackers of other session libraries, about requests at
// once, keys and types, lifetimes, and faults. Each test is named after what its
// reporter saw; here it must not happen.

// gorilla/sessions#10, boj/redistore#2
func TestComplaintASlowRequestSavesOverALogout(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
	slow := anna.Begin(shop)
	sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
	sitetest.Refused(t, slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }))
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "" || sitetest.Visits.Get(s) != 0 {
			t.Error("the slow request logged anna in again")
		}
	})
}

// kataras/iris#1728
func TestComplaintTwoParallelFirstRequestsLoseAKey(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	nobody := sitetest.NewBrowser()
	one, two := nobody.Begin(shop), nobody.Begin(shop)
	first := one.Finish(func(s *sojourn.Session) { s.Set("one", 1) })
	second := two.Finish(func(s *sojourn.Session) { s.Set("two", 2) })
	// They have nothing in common yet, so they are two sessions, which no server
	// can prevent. The one whose cookie arrives last is whole.
	first.Arrive()
	second.Arrive()
	sitetest.Look(t, nobody, shop, func(s *sojourn.Session) {
		if s.Has("one") || !s.Has("two") {
			t.Errorf("the session holds %v", s.Names())
		}
	})
	// From then on, both arrive. That needs a key that is kept on the server.
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

// kataras/iris#885, kataras/go-sessions#17
func TestComplaintASecondServerKeepsAStaleCopyForever(t *testing.T) {
	sites := sitetest.Replicas(t, 2, sojourn.Config{Store: memory.New()})
	anna := sitetest.NewBrowser()
	for i := range 10 {
		sitetest.Does(t, anna, sitetest.At(sites, i), func(s *sojourn.Session) {
			if n := sitetest.Visits.Update(s, sitetest.AddOne); n != i+1 {
				t.Errorf("server %d says %d after %d visits", i%2, n, i+1)
			}
		})
	}
}

// gofiber/fiber#3049, #3051, #685, go-session/session#17
func TestComplaintDataRacesInTheSession(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
	sitetest.Together(8, func(int) {
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { // one session, used by several goroutines
			sitetest.Together(4, func(i int) {
				sitetest.Visits.Update(s, sitetest.AddOne)
				s.Set(fmt.Sprint("key", i), i)
				s.Flash("info", "x")
				_, _, _ = s.Names(), s.Info(), sitetest.Colour.Get(s)
			})
		})
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 32 || len(s.Flashes()) != 32 {
			t.Errorf("the count is %d, want 32", sitetest.Visits.Get(s))
		}
	})
}

// gofiber/fiber#1184
func TestComplaintTwoGetsAndSavesInOneRequestLoseDataOnTheFirstVisit(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	anna := sitetest.NewBrowser()
	anna.VisitHTTP(shop, func(_ http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"one", "two"} {
			s, err := shop.Manager.Get(r.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Set(name, true)
			sitetest.Visits.Update(s, sitetest.AddOne)
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if !s.Has("one") || !s.Has("two") || sitetest.Visits.Get(s) != 2 {
			t.Errorf("the session holds %v and counts %d", s.Names(), sitetest.Visits.Get(s))
		}
	})
}

// alexedwards/scs#231
func TestComplaintTheCleanUpRacesWithRequests(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
	sitetest.Together(8, func(i int) {
		for range 10 {
			if i == 0 {
				if n, err := ops.For(shop.Manager).Sweep(t.Context()); n != 0 || err != nil {
					t.Errorf("swept %d live sessions (%v)", n, err)
				}
				continue
			}
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		}
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 70 {
			t.Errorf("the count is %d, want 70", sitetest.Visits.Get(s))
		}
	})
}

// keyring makes a ring of the entries.
func keyring(t *testing.T, entries ...string) *sojourn.KeyRing {
	t.Helper()
	keys, err := sojourn.ParseKeys(sitetest.KeyText(entries...))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// gorilla/sessions#16, #207, #249, gorilla/securecookie#56, boj/redistore#21
func TestComplaintAChangeOfKeysTurnsEveryReturningVisitorIntoAnError(t *testing.T) {
	db := memory.New()
	before := sitetest.OpenShop(t, db)
	inline, stored := sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, inline, before, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	sitetest.Does(t, stored, before, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	after := sitetest.OpenShop(t, db) // with new keys only
	for _, b := range []*sitetest.Browser{inline, stored} {
		sitetest.Does(t, b, after, func(s *sojourn.Session) {
			if !s.IsNew() {
				t.Error("a cookie of another key is a session")
			}
			sitetest.Colour.Set(s, "blue")
		})
		sitetest.Look(t, b, after, func(s *sojourn.Session) {
			if sitetest.Colour.Get(s) != "blue" {
				t.Error("the visitor could not start anew")
			}
		})
	}
	if n := ops.For(after.Manager).Stats().UnknownKeys; n < 2 {
		t.Errorf("%d cookies of unknown keys were counted, want at least 2", n)
	}
}

// oauth2-proxy/oauth2-proxy#3042, pallets/werkzeug#31
func TestComplaintSecretsCannotBeChangedWhileReplicasServe(t *testing.T) {
	entry := func(state, created string) string {
		parts := strings.SplitN(keys.Generate(), ":", 3)
		return state + ":" + created + ":" + parts[2]
	}
	as := func(state, entry string) string { return state + entry[strings.Index(entry, ":"):] }
	old, next := entry("active", "20260101T000000Z"), entry("published", "20260601T000000Z")
	db := memory.New()
	stage := func(entries ...string) *sitetest.Site {
		return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keyring(t, entries...)}))
	}
	// Each step is rolled out replica by replica, so two stages serve at once.
	stages := []*sitetest.Site{
		stage(old),
		stage(old, next),
		stage(old, as("active", next)),
		stage(as("retired", old), as("active", next)),
		stage(as("retired", old), as("active", next)),
	}
	inline, stored := sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, inline, stages[0], func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	sitetest.Does(t, stored, stages[0], func(s *sojourn.Session) { sitetest.Visits.Set(s, 0) })
	for i := 1; i < len(stages); i++ {
		for j, at := range []*sitetest.Site{stages[i], stages[i-1], stages[i]} {
			sitetest.Does(t, inline, at, func(s *sojourn.Session) {
				if sitetest.Colour.Get(s) != "red" {
					t.Errorf("between stage %d and %d the session in the cookie was lost", i-1, i)
				}
				s.Set("step", fmt.Sprint(i, j))
			})
			sitetest.Does(t, stored, at, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })
		}
	}
	sitetest.Look(t, stored, stages[4], func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 12 {
			t.Errorf("the count is %d, want 12", sitetest.Visits.Get(s))
		}
	})
	// Everybody who came by has new cookies and a new record: the old key may go.
	last := stage(as("active", next))
	if sitetest.IsNew(t, inline, last) || sitetest.IsNew(t, stored, last) {
		t.Error("the old key is still needed")
	}
}

// spring-projects/spring-session#90, #200, #280, #529, #1805
func TestComplaintAChangedTypeIsAnErrorUntilTheStoreIsFlushed(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); s.Set("size", "large") })
	newer := sojourn.NewKey[int]("size")
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
		if n := newer.Get(s); n != 0 || s.User() != "anna" {
			t.Errorf("an old value is %d in a session of %q", n, s.User())
		}
		if _, err := newer.Lookup(s); !errors.Is(err, sojourn.ErrBadValue) {
			t.Errorf("Lookup: %v", err)
		}
		sitetest.Visits.Set(s, 1) // saves the session
	})
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { // rolled back: the old program still finds its value
		var old string
		if err := s.Get("size", &old); err != nil || old != "large" {
			t.Errorf("the old value is %q (%v)", old, err)
		}
	})
}

// alexedwards/scs#211, #175, #176
func TestComplaintTypesHaveToBeRegistered(t *testing.T) {
	type line struct {
		Item string
		Tags map[string][]string
		When *time.Time
	}
	lines := sojourn.NewKey[[]line]("lines")
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	now := time.Now()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
		lines.Set(s, []line{{"tea", map[string][]string{"kind": {"green"}}, &now}})
		s.Set("anything", map[string]any{"list": []any{1, "two", 3.5, nil, true}})
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		got := lines.Get(s)
		if len(got) != 1 || got[0].Tags["kind"][0] != "green" || !got[0].When.Equal(now) {
			t.Errorf("%+v came back", got)
		}
		var anything map[string]any
		if err := s.Get("anything", &anything); err != nil || len(anything["list"].([]any)) != 5 {
			t.Errorf("%v came back (%v)", anything, err)
		}
	})
}

// golang/go#24126
func TestComplaintAnotherNodeCannotDecodeInterfaceValues(t *testing.T) {
	sites := sitetest.Replicas(t, 2, sojourn.Config{Store: memory.New()})
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, sites[0], func(s *sojourn.Session) {
		sitetest.Visits.Set(s, 1)
		s.Set("a", any(map[string]any{"n": 1, "at": time.Unix(0, 0).UTC()}))
	})
	sitetest.Look(t, anna, sites[1], func(s *sojourn.Session) {
		var v any
		if err := s.Get("a", &v); err != nil || fmt.Sprint(v) != "map[at:1970-01-01 00:00:00 +0000 UTC n:1]" {
			t.Errorf("%v (%v)", v, err)
		}
	})
}

// alexedwards/scs#71, #73
func TestComplaintRememberMeCannotDifferPerUser(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Cookie: sojourn.Cookie{BrowserSession: true}, IdleTimeout: time.Hour, Lifetime: 8 * time.Hour},
		func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna, bob := sitetest.NewBrowser(), sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
				s.Login("anna")
				s.Remember(true)
				s.SetExpiry(-1, 90*24*time.Hour)
			})
			sitetest.Does(t, bob, shop, func(s *sojourn.Session) { s.Login("bob") })
			anna.CloseWindow()
			bob.CloseWindow()
			time.Sleep(89 * 24 * time.Hour)
			if sitetest.IsNew(t, anna, shop) || !sitetest.IsNew(t, bob, shop) {
				t.Error("who is remembered does not depend on the user")
			}
		})
}

// alexedwards/scs#149, #259
func TestComplaintADeadlineCannotBeSet(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Lifetime: 8 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		phone, voucher := sitetest.NewBrowser(), sitetest.NewBrowser()
		sitetest.Does(t, phone, shop, func(s *sojourn.Session) { s.Login("anna"); s.SetExpiry(-1, 100*time.Hour) })
		sitetest.Does(t, voucher, shop, func(s *sojourn.Session) { s.Login("bob"); s.SetExpiry(0, time.Hour) })
		time.Sleep(time.Hour + time.Millisecond)
		if sitetest.IsNew(t, phone, shop) || !sitetest.IsNew(t, voucher.Steal(), shop) {
			t.Error("the deadlines are not those that were set")
		}
		time.Sleep(99*time.Hour - time.Second)
		if sitetest.IsNew(t, phone, shop) {
			t.Error("the longer lifetime ended early")
		}
	})
}

// alexedwards/scs#235
func TestComplaintTheIdleTimeoutIsTheSameForAll(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		office, kiosk := sitetest.NewBrowser(), sitetest.NewBrowser()
		sitetest.Does(t, office, shop, func(s *sojourn.Session) { s.Login("anna") })
		sitetest.Does(t, kiosk, shop, func(s *sojourn.Session) { s.Login("bob"); s.SetExpiry(5*time.Minute, 0) })
		time.Sleep(6 * time.Minute)
		if sitetest.IsNew(t, office, shop) || !sitetest.IsNew(t, kiosk, shop) {
			t.Error("the idle timeouts are not those that were set")
		}
	})
}

// gorilla/sessions#281, gofiber/fiber#2989
func TestComplaintTheExpiryNeitherSlidesNorCanBeRead(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 10 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		for range 4 {
			time.Sleep(9 * time.Hour)
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if left := time.Until(s.Info().IdleExpires); left != time.Hour {
					t.Errorf("%v are left before this request, want an hour", left)
				}
			})
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if left := time.Until(s.Info().IdleExpires); left != 10*time.Hour {
					t.Errorf("%v are left after this request, want ten hours", left)
				}
			})
		}
	})
}

// kataras/iris#301, #431, #1061, #1553
func TestComplaintExpiriesInThreePlacesDisagree(t *testing.T) {
	for what, f := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: -1, Lifetime: 77 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			for _, life := range []time.Duration{77 * time.Hour, 99 * time.Hour, 55 * time.Hour} {
				a := sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
					f(s)
					if life != 77*time.Hour {
						s.SetExpiry(-1, life)
					}
				})
				for _, line := range a.Header["Set-Cookie"] {
					if !strings.Contains(line, fmt.Sprintf("Max-Age=%d;", life/time.Second+1)) {
						t.Errorf("%s: the browser is told another age than %v: %s", what, life, line[strings.Index(line, ";"):])
					}
				}
				if what == "stored" {
					if rec := sitetest.Only(t, db); !rec.Expires.Equal(time.Now().Add(life)) || !rec.Deadline.Equal(rec.Expires) {
						t.Errorf("the store is told %v and %v", rec.Expires, rec.Deadline)
					}
				}
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if i := s.Info(); time.Until(i.Expires) != life || !i.IdleExpires.Equal(i.Expires) {
						t.Errorf("%s: Info says %v and %v", what, time.Until(i.Expires), time.Until(i.IdleExpires))
					}
				})
			}
		})
	}
}

// gofiber/fiber#4059
func TestComplaintAStoreFailureAtTheStartOfARequestPanics(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db, Timeout: 50 * time.Millisecond}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
	if a := anna.Visit(shop, func(*sojourn.Session) { t.Error("the handler went on without a session") }); a.Status != http.StatusServiceUnavailable {
		t.Errorf("got %d", a.Status)
	}
	// A page that can do without goes on.
	a := anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
		if _, err := shop.Manager.Get(r.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Get: %v", err)
		}
		fmt.Fprint(w, "the page without a name")
	})
	if a.Status != http.StatusOK || len(a.SetCookies()) > 0 {
		t.Errorf("got %d and cookies %v", a.Status, a.SetCookies())
	}
}

// gofiber/fiber#4265
func TestComplaintASessionIsReusedForAnotherRequestAfterItsOwn(t *testing.T) {
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
	anna, bob := sitetest.NewBrowser(), sitetest.NewBrowser()
	var leaked *sojourn.Session
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); leaked = s })
	sitetest.Does(t, bob, shop, func(s *sojourn.Session) { s.Login("bob") })
	sitetest.Colour.Set(leaked, "anna's")
	if err := leaked.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) {
		t.Errorf("Save after the request: %v", err)
	}
	sitetest.Look(t, bob, shop, func(s *sojourn.Session) {
		if s.User() != "bob" || sitetest.Colour.Get(s) != "" {
			t.Errorf("bob is %q with %q", s.User(), sitetest.Colour.Get(s))
		}
	})
	if leaked.User() != "anna" {
		t.Errorf("the session of anna's request is %q's", leaked.User())
	}
}

// flamego/session#64, aspnet/Session#193
func TestComplaintAClientThatGoesAwayCancelsTheLoadOrTheSave(t *testing.T) {
	db := faults.Wrap(memory.New())
	m := sitetest.Manager(t, sojourn.Config{Store: db})
	shop := sitetest.Local(m)
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })

	var gone context.CancelFunc
	leave := func(h http.Handler) http.Handler { // the client leaves when the test says so
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			gone = cancel
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	anna.VisitHTTP(shop, func(w http.ResponseWriter, r *http.Request) {
		// A request of its own, so that leaving does not end this one.
		inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s, err := m.Get(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			sitetest.Visits.Set(s, 2)
			gone()
		})
		leave(m.Wrap(inner)).ServeHTTP(w, r.Clone(context.Background()))
		leave(m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			gone()
			if _, err := m.Get(r.Context()); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, context.Canceled) {
				t.Errorf("a load for a client that is gone: %v", err)
			}
		}))).ServeHTTP(w, r.Clone(context.Background()))
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 2 {
			t.Error("the save was cancelled with the request")
		}
	})
}

// kataras/iris#1814, #1841
func TestComplaintSessionsAreLostAfterARestart(t *testing.T) {
	db, keys := memory.New(), sitetest.Keys(t)
	start := func() *sitetest.Site {
		return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys}))
	}
	inline, stored := sitetest.NewBrowser(), sitetest.NewBrowser()
	before := start()
	sitetest.Does(t, inline, before, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	sitetest.Does(t, stored, before, func(s *sojourn.Session) { s.Login("anna") })
	if err := before.Manager.Close(); err != nil {
		t.Error(err)
	}
	after := start()
	if sitetest.IsNew(t, inline, after) || sitetest.IsNew(t, stored, after) {
		t.Error("a session is gone")
	}
}

// kataras/iris#244, #1314
func TestComplaintNamesWithADelimiterMakeClearAndLogoutDoNothing(t *testing.T) {
	for _, name := range []string{"a", "a-b", "a_b"} {
		m := sitetest.Manager(t, sojourn.Config{Name: name, Store: memory.New()})
		shop := sitetest.Local(m)
		anna := sitetest.NewBrowser()
		values := []string{"x", "x:y", "x.y", "x/y", "x y", "ü", "x\x00y"}
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			s.Login("anna")
			for _, v := range values {
				s.Set(v, v)
			}
		})
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			if len(s.Names()) != len(values) {
				t.Errorf("%s: %d values came back", name, len(s.Names()))
			}
			s.Delete("x:y")
		})
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			if s.Has("x:y") || !s.Has("x") {
				t.Errorf("%s: %v are left", name, s.Names())
			}
			s.Clear()
		})
		thief := anna.Steal()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			if len(s.Names()) != 0 || s.User() != "anna" {
				t.Errorf("%s: %v are left", name, s.Names())
			}
			s.Logout()
		})
		if !sitetest.IsNew(t, thief, shop) {
			t.Errorf("%s: the logout did nothing", name)
		}
	}
}

// redis-store/redis-store#34, tj/connect-redis#94, redisson/redisson#1651,
// colinmollenhour/Cm_RedisSession#75
func TestComplaintAStoreOutageTakesTheSiteDownOrEmptiesCarts(t *testing.T) {
	db := faults.Wrap(memory.New())
	shop := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db, Timeout: 50 * time.Millisecond}))
	anna, guest, new := sitetest.NewBrowser(), sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Basket.Set(s, []string{"tea"}) })
	sitetest.Does(t, guest, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	var mu sync.Mutex
	down := true
	db.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return store.Record{}, faults.ErrLost
		}
		return db.Inner.Load(ctx, id)
	}
	db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return faults.ErrLost
		}
		return db.Inner.Save(ctx, rec, base)
	}
	// Pages that need no session, and visitors whose session is in the cookie or
	// who have none, notice nothing.
	for _, b := range []*sitetest.Browser{guest, new} {
		sitetest.Does(t, b, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
	}
	if a := anna.VisitHTTP(shop, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "catalogue") }); a.Status != http.StatusOK {
		t.Errorf("a page without a session got %d", a.Status)
	}
	// Who has a cart is asked to wait, and keeps it.
	for range 3 {
		a := anna.Visit(shop, func(s *sojourn.Session) {
			sitetest.Basket.Update(s, func(b []string) []string { return append(b, "cake") })
		})
		if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) > 0 {
			t.Errorf("got %d and cookies %v", a.Status, a.SetCookies())
		}
	}
	mu.Lock()
	down = false
	mu.Unlock()
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if got := sitetest.Basket.Get(s); len(got) != 1 {
			t.Errorf("after the outage the cart holds %v", got)
		}
	})
}
