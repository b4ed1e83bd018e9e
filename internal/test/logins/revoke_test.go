package logins_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func TestSessionsOfAUser(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: 48 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		ctx := t.Context()
		if all, err := shop.Manager.Sessions(ctx, "anna"); err != nil || len(all) != 0 {
			t.Fatalf("before any login: %v, %v", all, err)
		}
		_, gone := sitetest.LoginAs(t, shop, "anna")
		time.Sleep(30 * time.Hour)
		first, firstHandle := sitetest.LoginAs(t, shop, "anna")
		time.Sleep(10 * time.Hour)
		_, second := sitetest.LoginAs(t, shop, "anna")
		sitetest.LoginAs(t, shop, "ben")
		sitetest.Does(t, sitetest.NewBrowser(), shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		time.Sleep(9 * time.Hour) // the first of all has expired
		sitetest.Does(t, first, shop, sitetest.Reads)

		var listed []sojourn.Info
		first.VisitHTTP(shop, func(_ http.ResponseWriter, r *http.Request) {
			_, err := shop.Manager.Get(r.Context())
			if err != nil {
				t.Fatal(err)
			}
			if listed, err = shop.Manager.Sessions(r.Context(), "anna"); err != nil {
				t.Fatal(err)
			}
		})
		var handles []string
		for _, info := range listed {
			handles = append(handles, info.Handle)
			if info.Handle == gone || info.User != "anna" || info.Placement != sojourn.PlacementStored ||
				info.IP != "192.0.2.7" || !reflect.DeepEqual(info.Methods, []string{"pwd"}) || info.LoggedIn.IsZero() || info.Created.IsZero() {
				t.Errorf("listed %+v", info)
			}
			if info.Current != (info.Handle == firstHandle) {
				t.Errorf("%s is listed as current: %v", info.Handle, info.Current)
			}
		}
		if want := []string{firstHandle, second}; !reflect.DeepEqual(handles, want) {
			t.Errorf("listed %v, want the live ones %v, the last used first", handles, want)
		}
		if all, err := shop.Manager.Sessions(ctx, ""); err != nil || len(all) != 0 {
			t.Errorf("nobody's sessions: %v, %v", all, err)
		}
	})
}

func TestRevokeEndsOneSessionForGood(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna, handle := sitetest.LoginAs(t, shop, "anna")
		other, _ := sitetest.LoginAs(t, shop, "anna")
		slow := anna.Begin(shop)
		if err := shop.Manager.Revoke(t.Context(), "anna", handle); err != nil {
			t.Fatal(err)
		}
		sitetest.Refused(t, slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Set(s, 7) }))
		if !sitetest.IsNew(t, anna, shop) {
			t.Error("the session is live")
		}
		if sitetest.IsNew(t, other, shop) {
			t.Error("the user's other session has ended, too")
		}
		if err := shop.Manager.Revoke(t.Context(), "anna", handle); !errors.Is(err, sojourn.ErrNotFound) {
			t.Errorf("again: %v, want ErrNotFound", err)
		}
	})
}

func TestRevokeNeedsTheRightUser(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna, handle := sitetest.LoginAs(t, shop, "anna")
		guest := sitetest.NewBrowser()
		sitetest.Does(t, guest, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		var anonymous string
		sitetest.Look(t, guest, shop, func(s *sojourn.Session) { anonymous = s.Handle() })
		for _, c := range []struct{ user, handle string }{
			{"ben", handle},
			{"", handle},
			{"", anonymous},
			{"ben", anonymous},
			{"anna", "not a handle"},
			{"anna", ""},
			{"anna", "aaaaaaaaaaaaaaaaaaaaaaaaaa"},
		} {
			if err := shop.Manager.Revoke(t.Context(), c.user, c.handle); !errors.Is(err, sojourn.ErrNotFound) {
				t.Errorf("Revoke(%q, %q): %v, want ErrNotFound", c.user, c.handle, err)
			}
		}
		if sitetest.IsNew(t, anna, shop) || sitetest.IsNew(t, guest, shop) {
			t.Error("somebody's session has ended")
		}
		if err := ops.For(shop.Manager).End(t.Context(), anonymous); err != nil || !sitetest.IsNew(t, guest, shop) {
			t.Errorf("an operator could not end an anonymous session: %v", err)
		}
	})
}

func TestRevokeUser(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		keep, handle := sitetest.LoginAs(t, shop, "anna")
		var annas []*sitetest.Browser
		for range 40 {
			b, _ := sitetest.LoginAs(t, shop, "anna")
			annas = append(annas, b)
		}
		ben, _ := sitetest.LoginAs(t, shop, "ben")
		n, err := shop.Manager.RevokeUser(t.Context(), "anna", handle)
		if n != 40 || err != nil {
			t.Errorf("RevokeUser: %d, %v, want 40", n, err)
		}
		for _, b := range annas {
			if !sitetest.IsNew(t, b, shop) {
				t.Fatal("a session of the user is live")
			}
		}
		if sitetest.IsNew(t, keep, shop) || sitetest.IsNew(t, ben, shop) {
			t.Error("one has ended that was to be kept")
		}
		if n, err := shop.Manager.RevokeUser(t.Context(), ""); n != 0 || err != nil {
			t.Errorf("nobody's sessions: %d, %v", n, err)
		}
	})
}

func TestALoginUnderWayIsRevokedToo(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna, _ := sitetest.LoginAs(t, shop, "anna")
		var late *sitetest.Browser
		var once sync.Once
		db.OnDelete = func(ctx context.Context, id store.ID, until time.Time) error {
			// It did not exist yet when the sessions were listed.
			once.Do(func() { late, _ = sitetest.LoginAs(t, shop, "anna") })
			return db.Inner.Delete(ctx, id, until)
		}
		n, err := shop.Manager.RevokeUser(t.Context(), "anna")
		if n != 2 || err != nil || !sitetest.IsNew(t, anna, shop) || !sitetest.IsNew(t, late, shop) {
			t.Errorf("%d sessions ended (%v), want 2: a disabled account is still logged in", n, err)
		}
	})
}

func TestARevocationWithoutTheSessionsKeyLastsAsLongAsTheSession(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Lifetime: 24 * time.Hour}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		// The session was inline, and other replicas still accept that cookie.
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		var info sojourn.Info
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) { info = s.Info() })
		other := sitetest.Manager(t, sojourn.Config{Keys: sitetest.Keys(t), Store: db})
		if err := ops.For(other).End(t.Context(), info.Handle); err != nil {
			t.Fatal(err)
		}
		id, err := store.ParseID(info.Handle)
		if err != nil {
			t.Fatal(err)
		}
		mark, err := db.Inner.Load(t.Context(), id)
		if err != nil || !mark.IsEnd() || mark.Deadline.Before(info.Expires) {
			t.Errorf("the mark stays until %v, the session would have until %v (%v)", mark.Deadline, info.Expires, err)
		}
	})
}

func TestAnotherNameEndsEverySession(t *testing.T) {
	db, keys := memory.New(), sitetest.Keys(t)
	before := sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: db}))
	after := sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: db, Name: "session2"}))
	anna, _ := sitetest.LoginAs(t, before, "anna")
	renamed := sitetest.NewBrowser()
	for name, value := range anna.Cookies() {
		renamed.SetCookie(strings.Replace(name, "session", "session2", 1), value)
	}
	if !sitetest.IsNew(t, anna, after) || !sitetest.IsNew(t, renamed, after) {
		t.Error("a session of the other name is live")
	}
	if sitetest.IsNew(t, anna, before) {
		t.Error("the manager of the first name lost it: the test shows nothing")
	}
}

func TestRevocationOutlastsInlineCookies(t *testing.T) {
	// A session that came from a cookie can be brought back by that cookie, unless
	// its tombstone stays as long.
	sitetest.Days(t, sojourn.Config{IdleTimeout: 24 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		guest := sitetest.NewBrowser()
		sitetest.Does(t, guest, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		inline := guest.Clone()
		sitetest.Does(t, guest, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		var handle string
		sitetest.Look(t, guest, shop, func(s *sojourn.Session) { handle = s.Handle() })
		if err := ops.For(shop.Manager).End(t.Context(), handle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Hour)
		if _, err := ops.For(shop.Manager).Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := inline.Visit(shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) })
		var after string
		sitetest.Look(t, inline, shop, func(s *sojourn.Session) { after = s.Handle() })
		if a.Status == http.StatusOK && after == handle {
			t.Error("the revoked session is back under its old name")
		}
	})
}

func TestOperationsOnUsersReportAnOutage(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		_, handle := sitetest.LoginAs(t, shop, "anna")
		db.OnDelete = func(context.Context, store.ID, time.Time) error { return faults.ErrLost }
		if err := shop.Manager.Revoke(t.Context(), "anna", handle); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Revoke: %v", err)
		}
		if n, err := shop.Manager.RevokeUser(t.Context(), "anna"); n != 0 || !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("RevokeUser: %d, %v", n, err)
		}
		db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
		if err := shop.Manager.Revoke(t.Context(), "anna", handle); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Revoke without loads: %v", err)
		}
	})
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, _ *sitetest.Site, db *faults.Store) {
		m := sitetest.Manager(t, sojourn.Config{Store: struct{ store.Store }{db}})
		if _, err := m.Sessions(t.Context(), "anna"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a store without index: %v, want errors.ErrUnsupported", err)
		}
	})
}

var code = sojourn.NewKey[int]("sms_code", sojourn.TTL(10*time.Minute))

func TestExportAndErase(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna, _ := sitetest.LoginAs(t, shop, "anna")
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
			sitetest.Visits.Set(s, 3)
			s.Set("address", map[string]any{"street": "Lindenweg", "no": 7})
			s.Set("flashes", "a value of the application's own")
			s.Flash("info", "hello")
			s.Flash("error", "no stock")
			code.Set(s, 1234)
		})
		time.Sleep(11 * time.Minute)
		all, err := shop.Manager.ExportUser(t.Context(), "anna")
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		got := all[0]
		if got.User != "anna" || fmt.Sprint(got.Values["visits"]) != "3" || fmt.Sprint(got.Values["address"]) != "map[no:7 street:Lindenweg]" || len(got.Values) != 3 {
			t.Errorf("exported %+v", got)
		}
		if want := []sojourn.Flash{{Level: "info", Text: "hello"}, {Level: "error", Text: "no stock"}}; !slices.Equal(got.Flashes, want) || got.Values["flashes"] != "a value of the application's own" {
			t.Errorf("the export has the messages %v, want %v, and a value %v", got.Flashes, want, got.Values["flashes"])
		}
		if _, ok := got.Values[code.Name()]; ok {
			t.Error("a value that is over is exported")
		}
		n, err := shop.Manager.EraseUser(t.Context(), "anna")
		if n != 1 || err != nil || !sitetest.IsNew(t, anna, shop) {
			t.Errorf("EraseUser: %d, %v", n, err)
		}
		counts, err := db.Inner.(store.Counter).Count(t.Context())
		if err != nil || counts.Bytes != 0 || counts.Live != 0 {
			t.Errorf("the store still holds %+v (%v)", counts, err)
		}
	})
}

func TestLimitOfSessionsPerUser(t *testing.T) {
	t.Run("a login beyond it ends the oldest session", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Limit: sojourn.Limit{Max: 2}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			var annas []*sitetest.Browser
			for range 4 {
				b, _ := sitetest.LoginAs(t, shop, "anna")
				annas = append(annas, b)
				time.Sleep(time.Minute)
			}
			ben, _ := sitetest.LoginAs(t, shop, "ben")
			for i, b := range append(annas, ben) {
				if got, want := !sitetest.IsNew(t, b, shop), i >= 2; got != want {
					t.Errorf("session %d is live: %v, want %v", i+1, got, want)
				}
			}
			if n := ops.For(shop.Manager).Stats().Revoked; n != 2 {
				t.Errorf("%d counted as revoked, want 2", n)
			}
		})
	})
	t.Run("logins of one instant have an order, too", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Limit: sojourn.Limit{Max: 2}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			var annas []*sitetest.Browser
			for range 8 {
				b, _ := sitetest.LoginAs(t, shop, "anna")
				annas = append(annas, b)
			}
			for i, b := range annas {
				if got, want := !sitetest.IsNew(t, b, shop), i >= 6; got != want {
					t.Errorf("session %d is live: %v, want %v", i+1, got, want)
				}
			}
		})
	})
	t.Run("with Refuse it is refused, and nothing else changes", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Limit: sojourn.Limit{Max: 1, Refuse: true}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			first, _ := sitetest.LoginAs(t, shop, "anna")
			second := sitetest.NewBrowser()
			sitetest.Does(t, second, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 5) })
			for range 3 {
				a := second.Visit(shop, func(s *sojourn.Session) { s.Login("anna") })
				if a.Status != http.StatusConflict || len(a.SetCookies()) != 0 {
					t.Errorf("got %d with cookies %v, want 409 and none", a.Status, a.SetCookies())
				}
			}
			sitetest.Look(t, second, shop, func(s *sojourn.Session) {
				if s.User() != "" || sitetest.Visits.Get(s) != 5 {
					t.Errorf("user %q with %d visits after the refused login", s.User(), sitetest.Visits.Get(s))
				}
			})
			sitetest.Does(t, second, shop, func(s *sojourn.Session) {
				s.Login("anna")
				if err := s.Save(t.Context()); !errors.Is(err, sojourn.ErrTooManySessions) {
					t.Errorf("Save: %v", err)
				}
				s.Discard()
			})
			sitetest.Does(t, first, shop, (*sojourn.Session).Logout)
			sitetest.Does(t, second, shop, func(s *sojourn.Session) { s.Login("anna") })
			sitetest.Look(t, second, shop, func(s *sojourn.Session) {
				if s.User() != "anna" || sitetest.Visits.Get(s) != 5 {
					t.Errorf("user %q with %d visits after the login", s.User(), sitetest.Visits.Get(s))
				}
			})
		})
	})
	t.Run("who authenticates again takes their own place", func(t *testing.T) {
		for _, refuse := range []bool{false, true} {
			sitetest.Days(t, sojourn.Config{Limit: sojourn.Limit{Max: 2, Refuse: refuse}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				one, _ := sitetest.LoginAs(t, shop, "anna")
				time.Sleep(time.Minute)
				two, _ := sitetest.LoginAs(t, shop, "anna")
				for range 5 {
					time.Sleep(time.Minute)
					sitetest.Does(t, two, shop, func(s *sojourn.Session) { s.Login("anna") })
				}
				if sitetest.IsNew(t, one, shop) || sitetest.IsNew(t, two, shop) {
					t.Error("a session has ended")
				}
			})
		}
	})
	t.Run("parallel logins on several replicas leave exactly as many", func(t *testing.T) {
		cfg := sojourn.Config{Store: memory.New(), Limit: sojourn.Limit{Max: 3}}
		shops := sitetest.Replicas(t, 3, cfg)
		browsers := make([]*sitetest.Browser, 60)
		var odd atomic.Int64
		sitetest.Together(len(browsers), func(i int) {
			browsers[i] = sitetest.NewBrowser()
			a := browsers[i].Visit(shops[i%3], func(s *sojourn.Session) { s.Login("anna") })
			if a.Status != http.StatusOK && a.Status != http.StatusConflict {
				odd.Add(1)
			}
		})
		live := 0
		for _, b := range browsers {
			if !sitetest.IsNew(t, b, shops[0]) {
				live++
			}
		}
		if live != 3 || odd.Load() != 0 {
			t.Errorf("%d live sessions after 60 parallel logins, want 3; %d odd answers", live, odd.Load())
		}
	})
	t.Run("an answer that was lost does not count twice", func(t *testing.T) {
		sitetest.Days(t, sojourn.Config{Limit: sojourn.Limit{Max: 1}}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			old, _ := sitetest.LoginAs(t, shop, "anna")
			var once sync.Once
			db.OnSaveLimited = func(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
				ended, err := db.Inner.(store.UserLimiter).SaveLimited(ctx, rec, limit)
				once.Do(func() { ended, err = nil, faults.ErrLost })
				return ended, err
			}
			anna, _ := sitetest.LoginAs(t, shop, "anna")
			if sitetest.IsNew(t, anna, shop) || !sitetest.IsNew(t, old, shop) {
				t.Error("the login did not take the old session's place")
			}
		})
	})
}
