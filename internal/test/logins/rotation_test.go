package logins_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
)

const reference = "__Host-session"

// rotating is a manager's configuration with rotation every ten minutes.
func rotating(edit ...func(*sojourn.Config)) sojourn.Config {
	c := sojourn.Config{Rotation: sojourn.Rotation{Every: 10 * time.Minute}}
	for _, f := range edit {
		f(&c)
	}
	return c
}

func TestPeriodicRotation(t *testing.T) {
	type world struct {
		*testing.T
		shop *sitetest.Site
		anna *sitetest.Browser
	}
	for name, f := range map[string]func(w world){
		"a credential is replaced when it was in use for Rotation.Every, and not before": func(w world) {
			time.Sleep(10*time.Minute - time.Millisecond)
			if a := sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads); len(a.SetCookies()) != 0 {
				w.Errorf("cookies %v before it is time", a.SetCookies())
			}
			time.Sleep(time.Millisecond)
			if a := sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads); len(a.SetCookies()) != 1 {
				w.Errorf("cookies %v, want the new credential", a.SetCookies())
			}
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations, want 1", n)
			}
		},
		"session, handle and values stay": func(w world) {
			var before, after string
			sitetest.Look(w.T, w.anna, w.shop, func(s *sojourn.Session) { before = s.Handle() })
			time.Sleep(time.Hour)
			sitetest.Does(w.T, w.anna, w.shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) })
			sitetest.Look(w.T, w.anna, w.shop, func(s *sojourn.Session) {
				after = s.Handle()
				if s.User() != "anna" || sitetest.Visits.Get(s) != 2 {
					w.Errorf("user %q, visits %d", s.User(), sitetest.Visits.Get(s))
				}
			})
			if before != after {
				w.Error("the handle has changed")
			}
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations with a change, want 1", n)
			}
		},
		"a rotation with a change is one write": func(w world) {
			time.Sleep(time.Hour)
			saves := ops.For(w.shop.Manager).Stats().Saves
			sitetest.Does(w.T, w.anna, w.shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) })
			if n := ops.For(w.shop.Manager).Stats().Saves - saves; n != 1 {
				w.Errorf("%d saves, want 1", n)
			}
		},
		"a lost response changes nothing: the old one still leads to the newest": func(w world) {
			for range 5 {
				time.Sleep(time.Hour)
				w.anna.Send(w.shop, sitetest.Reads) // its answer never arrives
			}
			if sitetest.IsNew(w.T, w.anna, w.shop) {
				w.Error("the visitor lost the session")
			}
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations, want the one that was never seen", n)
			}
		},
		"there is no rotation in what may never reach the browser's cookies": func(w world) {
			time.Sleep(time.Hour)
			for header, value := range map[string]string{
				"Upgrade":            "websocket",
				"Accept":             "text/event-stream",
				"Sec-Purpose":        "prefetch;prerender",
				"Sojourn-Background": "1",
			} {
				r, _ := http.NewRequest(http.MethodGet, "https://shop.test/", nil)
				r.Header.Set(header, value)
				r.Header.Set("Cookie", reference+"="+w.anna.Cookies()[reference])
				out := http.Header{}
				s, x, err := sitetest.Begin(r.Context(), w.shop.Manager, r.Header)
				if err != nil || s.User() != "anna" {
					w.Fatalf("Open: %v", err)
				}
				if err := x.Commit(http.StatusOK, out); err != nil || len(out["Set-Cookie"]) != 0 {
					w.Errorf("with %s: %s it was rotated (%v)", header, value, err)
				}
			}
			w.anna.VisitHTTP(w.shop, func(rw http.ResponseWriter, r *http.Request) {
				_, _ = w.shop.Manager.Get(r.Context())
				rw.Header().Set("Content-Type", "text/event-stream")
				rw.WriteHeader(http.StatusOK)
			})
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 0 {
				w.Errorf("%d rotations, want none", n)
			}
		},
		"it waits until the grace of the one before is over": func(w world) {
			time.Sleep(10 * time.Minute)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			time.Sleep(10*time.Minute - time.Second)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads) // presents the second one, nearly ten minutes old
			time.Sleep(2*time.Minute - time.Second)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations within the grace, want 1", n)
			}
			time.Sleep(time.Second)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 2 {
				w.Errorf("%d rotations after the grace, want 2", n)
			}
		},
		"a visitor who comes back late has time to use the newest": func(w world) {
			time.Sleep(10 * time.Minute)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			time.Sleep(time.Hour) // it was due long ago, and is presented for the first time now
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations, want 1: its grace has just begun", n)
			}
			time.Sleep(2 * time.Minute)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 2 {
				w.Errorf("%d rotations after the grace, want 2", n)
			}
		},
		"there is none in a request that says it is in the background": func(w world) {
			time.Sleep(time.Hour)
			if a := sitetest.Does(w.T, w.anna, w.shop, (*sojourn.Session).Background); len(a.SetCookies()) != 0 {
				w.Errorf("cookies %v", a.SetCookies())
			}
		},
		"a login starts its time anew": func(w world) {
			time.Sleep(9 * time.Minute)
			sitetest.Does(w.T, w.anna, w.shop, func(s *sojourn.Session) { s.Login("anna") })
			time.Sleep(9 * time.Minute)
			sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 0 {
				w.Errorf("%d rotations, want none", n)
			}
		},
		"parallel tabs make one successor": func(w world) {
			time.Sleep(time.Hour)
			tabs := make([]*sitetest.Slow, 5)
			for i := range tabs {
				tabs[i] = w.anna.Begin(w.shop)
			}
			for _, tab := range tabs {
				tab.Finish(sitetest.Reads).Arrive()
			}
			if n := ops.For(w.shop.Manager).Stats().Rotations; n != 1 {
				w.Errorf("%d rotations by %d tabs, want 1", n, len(tabs))
			}
			if sitetest.IsNew(w.T, w.anna, w.shop) {
				w.Error("the visitor lost the session")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sitetest.Days(t, rotating(), func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
				f(world{t, shop, anna})
			})
		})
	}
}

// stolen returns a copy of anna's cookies, and a rotation later.
func stolen(t *testing.T, shop *sitetest.Site, anna *sitetest.Browser) *sitetest.Browser {
	thief := anna.Steal()
	sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
	sitetest.Does(t, anna, shop, sitetest.Reads)
	return thief
}

func TestSuspectedTheft(t *testing.T) {
	type world struct {
		*testing.T
		shop        *sitetest.Site
		anna, thief *sitetest.Browser
		db          *faults.Store
		events      *eventBook
	}
	for name, test := range map[string]struct {
		cfg sojourn.Config
		f   func(w world)
	}{
		"an old credential is refused and reported after the grace and the minute by which clocks differ": {f: func(w world) {
			time.Sleep(2 * time.Minute)
			if sitetest.IsNew(w.T, w.thief.Clone(), w.shop) {
				w.Error("it is refused within the grace")
			}
			if n := ops.For(w.shop.Manager).Stats().TheftsSuspected; n != 0 {
				w.Errorf("%d thefts suspected within the margin for clocks, want none", n)
			}
			time.Sleep(time.Millisecond)
			if !sitetest.IsNew(w.T, w.thief, w.shop) {
				w.Error("it is accepted")
			}
			if n := ops.For(w.shop.Manager).Stats().TheftsSuspected; n != 1 {
				w.Errorf("%d thefts suspected, want 1", n)
			}
			if got := w.events.of(sojourn.EventTheftSuspected); len(got) != 1 || got[0].User != "anna" || got[0].Session == "" {
				w.Errorf("events %v, want one with user and handle", got)
			}
			if sitetest.IsNew(w.T, w.anna, w.shop) {
				w.Error("the visitor lost the session, which is opt-in")
			}
		}},
		"it is reported once, and shown with the session": {f: func(w world) {
			time.Sleep(3 * time.Minute)
			for range 5 {
				sitetest.IsNew(w.T, w.thief, w.shop)
			}
			if n := ops.For(w.shop.Manager).Stats().TheftsSuspected; n != 1 {
				w.Errorf("%d thefts suspected, want 1", n)
			}
			sitetest.Look(w.T, w.anna, w.shop, func(s *sojourn.Session) {
				if !s.Info().Suspected {
					w.Error("Info does not tell")
				}
			})
		}},
		"the report is no activity of the visitor": {f: func(w world) {
			time.Sleep(24 * time.Hour)
			var before, after time.Time
			infos, _ := w.shop.Manager.Sessions(context.Background(), "anna")
			before = infos[0].LastSeen
			sitetest.IsNew(w.T, w.thief, w.shop)
			infos, _ = w.shop.Manager.Sessions(context.Background(), "anna")
			after = infos[0].LastSeen
			if !before.Equal(after) {
				w.Errorf("last seen moved from %v to %v", before, after)
			}
		}},
		"one from several rotations ago is reported, too": {f: func(w world) {
			for range 4 {
				time.Sleep(2 * time.Minute)
				sitetest.Does(w.T, w.anna, w.shop, (*sojourn.Session).Rotate)
				sitetest.Does(w.T, w.anna, w.shop, sitetest.Reads)
			}
			time.Sleep(3 * time.Minute)
			if !sitetest.IsNew(w.T, w.thief, w.shop) || ops.For(w.shop.Manager).Stats().TheftsSuspected != 1 {
				w.Errorf("%d thefts suspected, want 1", ops.For(w.shop.Manager).Stats().TheftsSuspected)
			}
		}},
		"with EndOnTheft the session ends, for both": {sojourn.Config{Rotation: sojourn.Rotation{EndOnTheft: true}}, func(w world) {
			time.Sleep(3 * time.Minute)
			sitetest.IsNew(w.T, w.thief, w.shop)
			if !sitetest.IsNew(w.T, w.anna, w.shop) {
				w.Error("the session goes on")
			}
			if got := w.events.of(sojourn.EventRevoked); len(got) != 1 || got[0].Reason != sojourn.ReasonTheft {
				w.Errorf("events %v", got)
			}
		}},
		"with a longer Grace it takes longer": {sojourn.Config{Rotation: sojourn.Rotation{Grace: time.Hour}}, func(w world) {
			time.Sleep(59 * time.Minute)
			if sitetest.IsNew(w.T, w.thief.Clone(), w.shop) {
				w.Error("it is refused within the grace")
			}
			time.Sleep(3 * time.Minute)
			if !sitetest.IsNew(w.T, w.thief, w.shop) || ops.For(w.shop.Manager).Stats().TheftsSuspected != 1 {
				w.Error("it is not reported after the grace")
			}
		}},
		"a login leaves no grace, and what was before it is no theft": {f: func(w world) {
			old := w.anna.Steal()
			sitetest.Does(w.T, w.anna, w.shop, func(s *sojourn.Session) { s.Login("anna") })
			if !sitetest.IsNew(w.T, old, w.shop) {
				w.Error("the credential from before the login leads somewhere")
			}
			time.Sleep(time.Hour)
			sitetest.IsNew(w.T, old, w.shop)
			if n := ops.For(w.shop.Manager).Stats().TheftsSuspected; n != 0 {
				w.Errorf("%d thefts suspected, want none: any tab may have that cookie", n)
			}
		}},
		"a store that has lost a rotation does not log the visitor out": {f: func(w world) {
			snapshot := snapshotOf(w.T, w.db, w.anna, w.shop)
			sitetest.Does(w.T, w.anna, w.shop, (*sojourn.Session).Rotate)
			snapshot()
			if sitetest.IsNew(w.T, w.anna, w.shop) {
				w.Error("the newest credential is refused because the store forgot it")
			}
			if n := ops.For(w.shop.Manager).Stats().LostVersions; n == 0 {
				w.Error("that the store has lost a write was not counted")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			events := &eventBook{}
			test.cfg.Events = events.hear
			sitetest.Days(t, test.cfg, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
				test.f(world{t, shop, anna, stolen(t, shop, anna), db, events})
			})
		})
	}
}

// TestAThiefWhoFollowsWithinTheGraceIsNotFound is a limit of rotation,
// documented in docs/run/security.md.
func TestAThiefWhoFollowsWithinTheGraceIsNotFound(t *testing.T) {
	sitetest.Days(t, rotating(), func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna, _ := sitetest.LoginAs(t, shop, "anna")
		thief := anna.Steal()
		for range 5 {
			time.Sleep(10 * time.Minute)
			sitetest.Does(t, anna, shop, sitetest.Reads) // gets the next one
			sitetest.Does(t, anna, shop, sitetest.Reads) // and presents it
			time.Sleep(30 * time.Second)
			sitetest.Does(t, thief, shop, sitetest.Reads) // gets it
		}
		if n := ops.For(shop.Manager).Stats(); n.TheftsSuspected != 0 || n.Rotations != 5 {
			t.Errorf("%d thefts suspected after %d rotations, want 0 after 5", n.TheftsSuspected, n.Rotations)
		}
		time.Sleep(10 * time.Minute)
		sitetest.Does(t, anna, shop, sitetest.Reads)
		sitetest.Does(t, anna, shop, sitetest.Reads)
		time.Sleep(3 * time.Minute) // once too late
		if !sitetest.IsNew(t, thief, shop) || ops.For(shop.Manager).Stats().TheftsSuspected != 1 {
			t.Error("a thief who came too late is not found")
		}
	})
}

// TestRotationWithUnreliableResponses simulates a browser with five tabs whose
// responses are delayed, reordered and lost, and which crashes occasionally.
func TestRotationWithUnreliableResponses(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Rotation: sojourn.Rotation{Every: time.Second, Grace: 40 * time.Second}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
		disk, flushed := anna.Clone(), time.Now()
		type answer struct {
			*sitetest.Answer
			at time.Time
		}
		var underWay []answer
		next := uint64(1)
		random := func(n int) int { // the same each time
			next = next*6364136223846793005 + 1442695040888963407
			return int(next>>33) % n
		}
		for range 6000 {
			time.Sleep(time.Duration(random(400)) * time.Millisecond)
			now := time.Now()
			if now.Sub(flushed) >= 30*time.Second { // as Chromium does
				disk, flushed = anna.Clone(), now
			}
			rest := underWay[:0]
			for _, a := range underWay {
				if now.After(a.at) {
					a.ArriveAt(anna)
				} else {
					rest = append(rest, a)
				}
			}
			underWay = rest
			if random(500) == 0 { // a crash, and a quick restart
				anna, underWay = disk.Clone(), nil
			}
			a := anna.Send(shop, func(s *sojourn.Session) {
				if s.User() != "anna" {
					t.Fatalf("the visitor was logged out %v after the start", now)
				}
			})
			switch random(5) {
			case 0: // lost
			case 1, 2: // late
				underWay = append(underWay, answer{a, now.Add(time.Duration(random(8000)) * time.Millisecond)})
			default:
				a.ArriveAt(anna)
			}
		}
		stats := ops.For(shop.Manager).Stats()
		if stats.TheftsSuspected != 0 {
			t.Errorf("%d false alarms", stats.TheftsSuspected)
		}
		if stats.Rotations < 10 {
			t.Errorf("only %d rotations: the test shows nothing", stats.Rotations)
		}
	})
}

// A slow request came with the previous credential, and the session is rotated
// once more until it is answered.
func TestASlowAnswerSetsTheNewestCredential(t *testing.T) {
	for name, finish := range map[string]func(*sojourn.Session){
		"it reads":   sitetest.Reads,
		"it writes":  func(s *sojourn.Session) { sitetest.Note.Set(s, "slow") },
		"it rotates": (*sojourn.Session).Rotate,
	} {
		t.Run(name, func(t *testing.T) {
			sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, sitetest.Login("anna"))
				tab := anna.Clone()
				sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
				slow := tab.Begin(shop)
				sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
				sitetest.Does(t, anna, shop, sitetest.Reads)
				slow.Finish(finish).ArriveAt(anna)
				time.Sleep(3 * time.Minute)
				if sitetest.User(t, anna, shop) != "anna" {
					t.Error("the browser has an outdated credential")
				}
			})
		})
	}
}

// The identifier stayed the same, as reported in goravel/goravel#925. (Logins are
// promise 6.)
func TestWhatIsSetAfterALogoutIsInASessionOfItsOwn(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 1) })
	thief := v.Copy()
	var before string
	s.Do(v, func(session *sojourn.Session) {
		before = session.Handle()
		session.Logout()
		sitetest.CartKey.Set(session, 2)
	})
	s.Do(v, func(session *sojourn.Session) {
		if session.Handle() == before || session.User() != "" || sitetest.CartKey.Get(session) != 2 || v.Header() == thief.Header() {
			t.Errorf("the session after the logout is %q's with %d", session.User(), sitetest.CartKey.Get(session))
		}
	})
	s.Do(thief, func(session *sojourn.Session) {
		if !session.IsNew() || session.User() != "" || sitetest.CartKey.Get(session) != 0 {
			t.Error("the identifier from before leads somewhere")
		}
	})
}
