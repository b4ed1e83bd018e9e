package tiered_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// The effects of a failed tier on visitors: the table of the guide, row by row.
// Time is that of a synctest bubble, so waits are exact and free, and a leaked
// goroutine fails the test.

func logTo(book *sitetest.LogBook) func(*tiered.Layer) {
	return func(l *tiered.Layer) { l.Logger = slog.New(book) }
}

// down is a store that refuses.
func (tn *town) down() {
	tn.db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, errDead }
	tn.db.OnSave = func(context.Context, store.Record, store.Base) error { return errDead }
	tn.db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return errDead }
	tn.db.OnDelete = func(context.Context, store.ID, time.Time) error { return errDead }
}

// frozen is a store that does not answer.
func (tn *town) frozen() {
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	tn.db.OnLoad = func(ctx context.Context, _ store.ID) (store.Record, error) { return store.Record{}, wait(ctx) }
	tn.db.OnSave = func(ctx context.Context, _ store.Record, _ store.Base) error { return wait(ctx) }
	tn.db.OnTouch = func(ctx context.Context, _ store.ID, _, _ time.Time) error { return wait(ctx) }
	tn.db.OnDelete = func(ctx context.Context, _ store.ID, _ time.Time) error { return wait(ctx) }
}

func (tn *town) up() { tn.db.OnLoad, tn.db.OnSave, tn.db.OnTouch, tn.db.OnDelete = nil, nil, nil, nil }

// read gets the count from a replica.
func (tn *town) read(b *sitetest.Browser, site int) (n, status, cookies int) {
	a := b.Visit(tn.sites[site], func(s *sojourn.Session) { n = count.Get(s) })
	return n, a.Status, len(a.SetCookies())
}

func (tn *town) wantRead(what string, b *sitetest.Browser, site, n, status int) {
	tn.Helper()
	gotN, gotStatus, cookies := tn.read(b, site)
	if gotN != n || gotStatus != status || cookies != 0 {
		tn.Errorf("%s: replica %d read %d, answered %d and set %d cookies; want %d, %d and none", what, site, gotN, gotStatus, cookies, n, status)
	}
}

// stale is until no copy in a process answers any more.
func stale() { time.Sleep(1100 * time.Millisecond) }

func TestWhenTheCacheFails(t *testing.T) {
	faults := map[string]func(c *cache, on bool){
		"refuses": func(c *cache, on bool) { c.fail.Store(on) },
		"hangs":   func(c *cache, on bool) { c.freeze.Store(on) },
	}
	for name, fault := range faults {
		var book sitetest.LogBook
		inTown(t, "it "+name+": reads ask the store, and one log line tells", func(tn *town) {
			fault(tn.shared, true)
			for i := range 20 {
				stale()
				loads := tn.db.Loads.Load()
				tn.wantRead("without the cache", tn.anna, i%2, 1, http.StatusOK)
				if n := tn.db.Loads.Load() - loads; n != 1 {
					tn.Errorf("%d loads, want 1", n)
				}
			}
			fault(tn.shared, false)
			time.Sleep(6 * time.Second)
			tn.looks()
			lines := book.All()
			if len(lines) != 4 { // two replicas, each once away and once back
				tn.Errorf("%d log lines, want one per replica when the cache went away and one when it was back:\n%s", len(lines), strings.Join(lines, "\n"))
			}
			for _, line := range lines {
				for _, secret := range tn.anna.Cookies() {
					if strings.Contains(line, secret) {
						tn.Error("a cookie is in the log")
					}
				}
			}
		}, logTo(&book))

		inTown(t, "it "+name+": writes are kept by the store", func(tn *town) {
			fault(tn.shared, true)
			for i := range 20 {
				tn.does(i%2, func(s *sojourn.Session) { count.Update(s, addOne) })
			}
			tn.wantRead("after twenty writes", tn.anna, 0, 21, http.StatusOK)
		})

		inTown(t, "it "+name+" and comes back with old copies: what it was not told is dropped", func(tn *town) {
			copied := tn.anna.Steal()
			fault(tn.shared, true)
			tn.does(0, func(s *sojourn.Session) { count.Set(s, 2) })
			fault(tn.shared, false)
			stale()
			tn.wantRead("the writer", tn.anna, 0, 2, http.StatusOK)
			time.Sleep(time.Second) // the first call after the rest has caught up
			tn.wantRead("an old cookie at the other replica", copied, 1, 2, http.StatusOK)
		}, func(l *tiered.Layer) { l.MaxStale = time.Hour })

		inTown(t, "it "+name+" during a logout: the thief gets in for MaxStale at most", func(tn *town) {
			thief := tn.anna.Steal()
			fault(tn.shared, true)
			if a := tn.does(0, (*sojourn.Session).Logout); len(tn.anna.Cookies()) != 0 {
				tn.Errorf("cookies are left after the logout: %v", a.SetCookies())
			}
			tn.wantRead("while the cache is away, after MaxStale of the process", thief, 0, 0, http.StatusOK)
			fault(tn.shared, false)
			time.Sleep(31 * time.Second)
			for i := range tn.sites {
				tn.wantRead("after MaxStale", thief, i, 0, http.StatusOK)
			}
		})

		inTown(t, "it "+name+" during a logout and is back at once: the replica that could not tell it does not believe it", func(tn *town) {
			thief := tn.anna.Steal()
			fault(tn.shared, true)
			tn.does(0, (*sojourn.Session).Logout)
			fault(tn.shared, false)
			for range 10 {
				tn.wantRead("the replica of the logout", thief, 0, 0, http.StatusOK)
				time.Sleep(100 * time.Millisecond)
			}
			stale()
			tn.wantRead("the other replica, when the first has caught up", thief, 1, 0, http.StatusOK)
		}, func(l *tiered.Layer) { l.MaxStale = time.Hour })
	}

	inTown(t, "it comes back empty: nobody notices", func(tn *town) {
		tn.shared.clear()
		stale()
		tn.wantRead("an empty cache", tn.anna, 0, 1, http.StatusOK)
		tn.wantRead("an empty cache", tn.anna, 1, 1, http.StatusOK)
	})

	inTown(t, "it hangs for a minute: it costs a timeout per rest, not per request", func(tn *town) {
		tn.shared.freeze.Store(true)
		calls := tn.shared.calls.Load()
		start, waited := time.Now(), time.Duration(0)
		for range 5000 {
			before := time.Now()
			tn.read(tn.anna, 0)
			waited += time.Since(before)
			time.Sleep(10 * time.Millisecond)
		}
		// Rests of 0.25, 0.5, 1, 2, 4 and then 5 seconds.
		most := int64(5 + time.Since(start)/(5*time.Second) + 1)
		if n := tn.shared.calls.Load() - calls; n > most {
			tn.Errorf("%d calls in %v, want at most %d", n, time.Since(start), most)
		}
		if most := time.Duration(most) * 100 * time.Millisecond; waited > most {
			tn.Errorf("5000 requests waited for %v, want at most %v", waited, most)
		}
	})

	inTown(t, "it hangs under parallel requests: they are one failure", func(tn *town) {
		stale()
		tn.shared.freeze.Store(true)
		sitetest.Together(64, func(int) { tn.read(tn.anna.Steal(), 0) })
		tn.shared.freeze.Store(false)
		time.Sleep(300 * time.Millisecond) // MinRest
		calls := tn.shared.calls.Load()
		stale()
		tn.read(tn.anna, 0)
		if tn.shared.calls.Load() == calls {
			tn.Error("the cache is still passed over after the shortest rest")
		}
	})

	inTown(t, "the bounds of its rest are settings", func(tn *town) {
		tn.shared.fail.Store(true)
		calls := tn.shared.calls.Load()
		for range 100 {
			stale()
			tn.read(tn.anna, 0)
		}
		// 110 seconds: after 20, 40 and 60 seconds, and every 60 from then on.
		if n := tn.shared.calls.Load() - calls; n < 3 || n > 4 {
			tn.Errorf("%d calls, want 3 or 4", n)
		}
	}, func(l *tiered.Layer) { l.MinRest, l.MaxRest = 20*time.Second, time.Minute })
}

func TestWhenTheStoreFails(t *testing.T) {
	faults := map[string]func(*town){"refuses": (*town).down, "hangs": (*town).frozen}
	for name, fault := range faults {
		inTown(t, "it "+name+": reads go on from copies until MaxStale, then 503", func(tn *town) {
			fault(tn)
			for range 10 {
				tn.wantRead("with a fresh copy", tn.anna, 0, 1, http.StatusOK)
				tn.wantRead("with a fresh copy", tn.anna, 1, 1, http.StatusOK)
				time.Sleep(2 * time.Second)
			}
			time.Sleep(12 * time.Second) // 32 in all: MaxStale of both layers
			tn.wantRead("with no copy left", tn.anna, 0, 0, http.StatusServiceUnavailable)
			tn.wantRead("with no copy left", tn.anna, 1, 0, http.StatusServiceUnavailable)
			tn.up()
			tn.wantRead("when the store is back", tn.anna, 0, 1, http.StatusOK)
			stats := ops.For(tn.sites[0].Manager).Stats()
			if stats.StoreErrors != 1 {
				tn.Errorf("%d store errors were counted, want 1", stats.StoreErrors)
			}
		})
		inTown(t, "it "+name+": a copy below the floor does not answer", func(tn *town) {
			tn.shared.fail.Store(true) // the cache misses the next write
			tn.does(0, func(s *sojourn.Session) { count.Set(s, 2) })
			tn.shared.fail.Store(false)
			stale()
			fault(tn)
			tn.wantRead("a copy of version 1 and a browser that has seen version 2", tn.anna, 1, 0, http.StatusServiceUnavailable)
		})
		inTown(t, "it "+name+": without a floor there is nothing to go by", func(tn *town) {
			tn.anna.SetCookie("__Host-session-state", "")
			fault(tn)
			tn.wantRead("a browser that has lost its floor", tn.anna, 0, 0, http.StatusServiceUnavailable)
		})
		inTown(t, "it "+name+": an outage in which copies must not answer is 503 at once, and over when the store is back", func(tn *town) {
			fault(tn)
			if a := tn.anna.Visit(tn.sites[0], func(s *sojourn.Session) { count.Update(s, addOne) }); a.Status != http.StatusServiceUnavailable {
				tn.Errorf("a write was answered %d", a.Status)
			}
			tn.wantRead("a replica that has not noticed", tn.anna, 1, 1, http.StatusOK)
			stale()
			tn.wantRead("a replica that has noticed", tn.anna, 0, 0, http.StatusServiceUnavailable)
			tn.up()
			tn.wantRead("when the store is back", tn.anna, 0, 1, http.StatusOK)
			loads := tn.db.Loads.Load()
			tn.wantRead("then copies answer again", tn.anna, 0, 1, http.StatusOK)
			if n := tn.db.Loads.Load() - loads; n != 0 {
				tn.Errorf("%d loads, want none", n)
			}
		}, func(l *tiered.Layer) { l.RefuseInOutage = true })
		inTown(t, "it "+name+": a write is 503 with no cookie, and nothing of it is kept", func(tn *town) {
			fault(tn)
			a := tn.anna.Visit(tn.sites[0], func(s *sojourn.Session) { count.Update(s, addOne) })
			if a.Status != http.StatusServiceUnavailable || len(a.SetCookies()) != 0 {
				tn.Errorf("answered %d with %d cookies", a.Status, len(a.SetCookies()))
			}
			if n := ops.For(tn.sites[0].Manager).Stats().FailedCommits; n != 1 {
				tn.Errorf("%d failed commits were counted, want 1", n)
			}
			tn.up()
			tn.wantRead("afterwards", tn.anna, 0, 1, http.StatusOK)
			tn.wantRead("afterwards", tn.anna, 1, 1, http.StatusOK)
		})
		inTown(t, "it "+name+": a write that failed does not take the copies away", func(tn *town) {
			fault(tn)
			if a := tn.anna.Visit(tn.sites[0], func(s *sojourn.Session) { count.Set(s, 2) }); a.Status != http.StatusServiceUnavailable {
				tn.Errorf("a write was answered %d", a.Status)
			}
			stale()
			tn.wantRead("after the write", tn.anna, 0, 1, http.StatusOK)
		})
		inTown(t, "it "+name+": a failed logout is 503, and this browser forgets all the same", func(tn *town) {
			thief := tn.anna.Steal()
			fault(tn)
			if a := tn.anna.Visit(tn.sites[0], (*sojourn.Session).Logout); a.Status != http.StatusServiceUnavailable {
				tn.Errorf("answered %d", a.Status)
			}
			if left := tn.anna.Cookies(); len(left) != 0 {
				tn.Errorf("%d cookies are left", len(left))
			}
			stale()
			tn.wantRead("a thief, whom no copy may answer any more", thief, 1, 0, http.StatusServiceUnavailable)
		})
		inTown(t, "it "+name+": an anonymous visitor with an inline session notices nothing", func(tn *town) {
			fault(tn)
			theme := sojourn.NewKey[string]("theme")
			bob := sitetest.NewBrowser()
			for _, v := range []string{"dark", "light"} {
				if a := bob.Visit(tn.sites[0], func(s *sojourn.Session) { theme.Set(s, v) }); a.Status != http.StatusOK {
					tn.Errorf("answered %d", a.Status)
				}
			}
		})
		inTown(t, "it "+name+": calls are bounded by requests", func(tn *town) {
			fault(tn)
			time.Sleep(32 * time.Second)
			const n = 100
			loads, saves := tn.db.Loads.Load(), tn.db.Saves.Load()
			for range n {
				tn.read(tn.anna, 0)
			}
			if got := tn.db.Loads.Load() - loads; got > n {
				tn.Errorf("%d reads made %d loads", n, got)
			}
			for range n {
				bob := sitetest.NewBrowser()
				bob.Visit(tn.sites[0], func(s *sojourn.Session) { count.Set(s, 1) })
			}
			if got := tn.db.Saves.Load() - saves; got > 4*n {
				tn.Errorf("%d writes made %d saves, want at most 4 each", n, got)
			}
		})
	}
}

func TestWhenBothFailReadsAndWritesAre503AndNothingIsLost(t *testing.T) {
	inTown(t, "both", func(tn *town) {
		tn.shared.fail.Store(true)
		tn.down()
		stale()
		tn.wantRead("both away", tn.anna, 0, 0, http.StatusServiceUnavailable)
		if a := tn.anna.Visit(tn.sites[1], func(s *sojourn.Session) { page.Set(s, "/a") }); a.Status != http.StatusServiceUnavailable {
			tn.Errorf("a volatile change was answered %d", a.Status)
		}
		tn.up()
		tn.shared.fail.Store(false)
		tn.wantRead("both back", tn.anna, 0, 1, http.StatusOK)
		tn.wantPage("/login")
	})
}

func TestACommitThatLostToALogoutIs409WithoutACookie(t *testing.T) {
	inTown(t, "logout", func(tn *town) {
		slow := tn.anna.Begin(tn.sites[1])
		tn.does(0, (*sojourn.Session).Logout)
		a := slow.Finish(func(s *sojourn.Session) { count.Update(s, addOne) })
		if a.Status != http.StatusConflict || len(a.SetCookies()) != 0 {
			tn.Errorf("answered %d with %d cookies, want 409 and none", a.Status, len(a.SetCookies()))
		}
	})
}

func TestAnUnknownOutcomeIsResolvedByTheSameSave(t *testing.T) {
	inTown(t, "answers get lost", func(tn *town) {
		var sent []store.Record
		tn.db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			sent = append(sent, rec)
			err := tn.db.Inner.Save(ctx, rec, base)
			if len(sent) < 3 {
				return errDead
			}
			return err
		}
		tn.does(0, func(s *sojourn.Session) { count.Update(s, addOne) })
		for _, rec := range sent {
			if rec.Version != sent[0].Version || rec.SaveIDs[0] != sent[0].SaveIDs[0] {
				tn.Errorf("another save was sent: version %d and a different save ID", rec.Version)
			}
		}
		tn.wantRead("afterwards", tn.anna, 1, 2, http.StatusOK)
		if n := ops.For(tn.sites[0].Manager).Stats().Retries; n != 2 {
			tn.Errorf("%d retries were counted, want 2", n)
		}
	})
}

func TestAThousandFailuresLeaveNoGoroutine(t *testing.T) {
	goroutines := func() int {
		for range 100 {
			runtime.Gosched()
		}
		return runtime.NumGoroutine()
	}
	shared := newCache()
	shared.fail.Store(true)
	db := memory.New()
	s, err := tiered.New(db, tiered.Layer{Cache: shared, MinRest: time.Nanosecond, MaxRest: time.Nanosecond, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: s}))
	anna := sitetest.NewBrowser()
	anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 0) })
	before := goroutines()
	for range 1000 {
		anna.Visit(site, func(s *sojourn.Session) { count.Update(s, addOne) })
	}
	shared.fail.Store(false)
	anna.Visit(site, func(s *sojourn.Session) { count.Update(s, addOne) })
	deadline := time.Now().Add(time.Minute)
	for goroutines() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	if got := s.Health()[0]; got.Errors < 1000 || !got.Reachable {
		t.Errorf("%+v, want at least 1000 errors and a cache that is back", got)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, layer := range map[string]tiered.Layer{
		"no cache":               {},
		"a negative MaxStale":    {Cache: newCache(), MaxStale: -1},
		"a negative Timeout":     {Cache: newCache(), Timeout: -1},
		"a negative MinRest":     {Cache: newCache(), MinRest: -1},
		"a negative MaxRest":     {Cache: newCache(), MaxRest: -1},
		"MinRest over MaxRest":   {Cache: newCache(), MinRest: 2, MaxRest: 1},
		"MaxRest under the rest": {Cache: newCache(), MaxRest: time.Millisecond},
	} {
		if s, err := tiered.New(memory.New(), layer); err == nil || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := tiered.New(nil); err == nil {
		t.Error("a nil origin was taken")
	}
}

func TestWhatTheOriginLacksIsUnsupported(t *testing.T) {
	type bare struct{ store.Store }
	s, err := tiered.New(bare{memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	_, loadErr := s.LoadVolatile(t.Context(), store.ID{}, store.Base{})
	for name, err := range map[string]error{
		"Touch":        s.Touch(t.Context(), store.ID{}, time.Now(), time.Now()),
		"LoadVolatile": loadErr,
		"SaveVolatile": s.SaveVolatile(t.Context(), store.ID{}, store.Base{}, 0, store.Volatile{}, time.Now()),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want errors.ErrUnsupported", name, err)
		}
	}
}
