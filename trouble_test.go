package sojourn_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// connect-redis#88, magento2#30845
func TestFailuresOfTheStoreAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		log := &sitetest.LogBook{}
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Logger: slog.New(log)}))
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, site, sitetest.Login("anna"))
		db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
		for range 5 {
			if a := anna.Visit(site, func(*sojourn.Session) {}); a.Status != http.StatusServiceUnavailable {
				t.Fatalf("got %d", a.Status)
			}
		}
		if got := log.Take("ERROR"); len(got) != 1 || !strings.Contains(got[0], "load") || !strings.Contains(got[0], faults.ErrLost.Error()) {
			t.Errorf("five failed loads are logged as %q", got)
		}
		time.Sleep(time.Minute)
		anna.Visit(site, func(*sojourn.Session) {})
		if got := log.Take("ERROR"); len(got) != 1 || !strings.Contains(got[0], "not_logged_before=4") {
			t.Errorf("a minute later: %q", got)
		}
		if n := ops.For(site.Manager).Stats().StoreErrors; n != 6 {
			t.Errorf("%d errors were counted", n)
		}
		// Another kind has a line of its own.
		if _, err := ops.For(site.Manager).Find(t.Context(), store.ID{1}.String()); err == nil {
			t.Error("Find works")
		}
		db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return faults.ErrLost }
		db.OnLoad = nil
		time.Sleep(24 * time.Hour)
		sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
		if got := log.Take("touch"); len(got) != 1 {
			t.Errorf("a failed touch: %q", got)
		}
	})
}

func TestAClientThatLeavesIsNoFailureOfTheStore(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, m *sojourn.Manager, h http.Header) error{
		"a load": func(ctx context.Context, m *sojourn.Manager, h http.Header) error {
			_, _, err := sitetest.Begin(ctx, m, h)
			return err
		},
		"a list": func(ctx context.Context, m *sojourn.Manager, _ http.Header) error {
			_, err := m.Sessions(ctx, "anna")
			return err
		},
		"a search": func(ctx context.Context, m *sojourn.Manager, _ http.Header) error {
			_, err := ops.For(m).Find(ctx, store.ID{1}.String())
			return err
		},
		"a sweep": func(ctx context.Context, m *sojourn.Manager, _ http.Header) error {
			_, err := ops.For(m).Sweep(ctx)
			return err
		},
	} {
		for _, reason := range []string{"it leaves", "the store is slow"} {
			t.Run(name+", "+reason, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					db := &slowStore{Store: memory.New()}
					log := &sitetest.LogBook{}
					site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Logger: slog.New(log)}))
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, site, sitetest.Login("anna"))
					h := http.Header{}
					for n, v := range anna.Cookies() {
						h.Add("Cookie", n+"="+v)
					}
					db.hangs = true
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if reason == "it leaves" {
						time.AfterFunc(time.Second, cancel)
					} else if name == "a sweep" { // which has no deadline but the caller's
						ctx, cancel = context.WithTimeout(ctx, time.Second)
						defer cancel()
					}
					if err := call(ctx, site.Manager, h); err == nil {
						t.Fatal("it works")
					}
					want := uint64(0)
					if reason == "the store is slow" {
						want = 1
					}
					if n := ops.For(site.Manager).Stats().StoreErrors; n != want {
						t.Errorf("%d errors were counted, want %d", n, want)
					}
					got := slices.DeleteFunc(log.All(), func(line string) bool { return strings.HasPrefix(line, "DEBUG") })
					if uint64(len(got)) != want {
						t.Errorf("logged: %q", got)
					}
				})
			})
		}
	}
}

// slowStore answers, when it hangs, only when the caller has given up.
type slowStore struct {
	*memory.Store
	hangs bool
}

func (s *slowStore) wait(ctx context.Context) error {
	if s.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *slowStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := s.wait(ctx); err != nil {
		return store.Record{}, err
	}
	return s.Store.Load(ctx, id)
}

func (s *slowStore) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.ByUser(ctx, user)
}

func (s *slowStore) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.Store.Sweep(ctx, age, limit)
}

// aspnetcore#46124
func TestReplicasWithDifferentKeysAreToldOnceAMinute(t *testing.T) {
	for kind, begin := range map[string]func(*sojourn.Session){
		"references": sitetest.Login("anna"),
		"inline":     func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, log := memory.New(), &sitetest.LogBook{}
				one := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
				other := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Logger: slog.New(log)}))
				for range 10 {
					b := sitetest.NewBrowser()
					sitetest.Does(t, b, one, begin)
					sitetest.Look(t, b, other, func(*sojourn.Session) {})
				}
				if got := log.Take("WARN"); len(got) != 1 || !strings.Contains(got[0], "replicas need the same keys") {
					t.Errorf("logged: %q", got)
				}
			})
		})
	}
}

// movingStore answers with another row than it is asked for.
type movingStore struct {
	*memory.Store
	from, to store.ID
	user     store.UserHash // whose list is everybody's
}

func (s *movingStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if id == s.to {
		id = s.from
	}
	return s.Store.Load(ctx, id)
}

func (s *movingStore) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if s.user != (store.UserHash{}) {
		user = s.user
	}
	return s.Store.ByUser(ctx, user)
}

func TestARecordOfAnotherRowIsNoSession(t *testing.T) {
	db := &movingStore{Store: memory.New()}
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	victim, thief := sitetest.NewBrowser(), sitetest.NewBrowser()
	handle := func(b *sitetest.Browser, f func(*sojourn.Session)) (handle string) {
		sitetest.Does(t, b, site, func(s *sojourn.Session) { f(s); handle = s.Handle() })
		return handle
	}
	from := handle(victim, func(s *sojourn.Session) { s.Login("anna"); s.Set("secret", "anna's") })
	to := handle(thief, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	db.from, _ = store.ParseID(from)
	db.to, _ = store.ParseID(to)
	sitetest.Look(t, thief, site, func(s *sojourn.Session) {
		if s.User() != "" || s.Has("secret") || !s.IsNew() {
			t.Errorf("the thief is %q", s.User())
		}
	})
	if _, err := ops.For(site.Manager).Find(t.Context(), to); err == nil {
		t.Error("Find returns a session by another's handle")
	}
	if err := ops.For(site.Manager).End(t.Context(), to); err == nil {
		t.Error("End ends a session by another's handle")
	}
	if err := site.Manager.Revoke(t.Context(), "anna", to); err == nil {
		t.Error("Revoke ends a session by another's handle")
	}
	if n := ops.For(site.Manager).Stats().DamagedRecords; n == 0 {
		t.Error("nothing was counted")
	}
	// The slower change of a session whose row is exchanged meanwhile.
	db.from, db.to = db.to, db.from
	if a := victim.Visit(site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) }); a.Status != http.StatusOK {
		t.Errorf("whose row is damaged gets %d instead of a new session", a.Status)
	}
	sitetest.Look(t, victim, site, func(s *sojourn.Session) {
		if s.User() != "" || sitetest.Visits.Get(s) != 2 {
			t.Errorf("%q with %d", s.User(), sitetest.Visits.Get(s))
		}
	})
}

func TestAnotherUsersListIsNotShown(t *testing.T) {
	db := &movingStore{Store: memory.New()}
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	anna, bob := sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, anna, site, sitetest.Login("anna"))
	sitetest.Does(t, bob, site, sitetest.Login("bob"))
	page, _, err := db.Scan(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range page {
		db.user = rec.User
		for _, user := range []string{"anna", "bob"} {
			sessions, err := site.Manager.Sessions(t.Context(), user)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sessions {
				if s.User != user {
					t.Errorf("%s's list has a session of %s", user, s.User)
				}
			}
		}
	}
}

// laggingStore is used by a replica whose clock is ahead: what another one keeps
// alive looks expired to it.
func TestRevokeUserEndsWhatOnlyLooksExpired(t *testing.T) {
	for name, revoke := range map[string]func(m *sojourn.Manager, handle string) error{
		"RevokeUser": func(m *sojourn.Manager, _ string) error {
			_, err := m.RevokeUser(context.Background(), "anna")
			return err
		},
		"EraseUser": func(m *sojourn.Manager, _ string) error {
			_, err := m.EraseUser(context.Background(), "anna")
			return err
		},
		"Revoke": func(m *sojourn.Manager, h string) error { return m.Revoke(context.Background(), "anna", h) },
		"End":    func(m *sojourn.Manager, h string) error { return ops.For(m).End(context.Background(), h) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := memory.New()
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, IdleTimeout: 10 * time.Minute}))
				anna := sitetest.NewBrowser()
				var handle string
				sitetest.Does(t, anna, site, func(s *sojourn.Session) { s.Login("anna"); handle = s.Handle() })
				time.Sleep(10*time.Minute + 30*time.Second)
				if err := revoke(site.Manager, handle); err != nil {
					t.Fatal(err)
				}
				id, _ := store.ParseID(handle)
				if rec, err := db.Load(t.Context(), id); err != nil || !rec.IsEnd() {
					t.Errorf("it was not ended: %v", err)
				}
			})
		})
	}
}

// busyUser logs in again whenever its sessions are listed.
type busyUser struct {
	*memory.Store
	login func()
	left  int
}

func (s *busyUser) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if s.left > 0 {
		s.left--
		s.login()
	}
	return s.Store.ByUser(ctx, user)
}

func TestRevokeUserListsUntilNothingIsLeft(t *testing.T) {
	for _, logins := range []int{0, 1, 7, 1000} {
		t.Run(fmt.Sprint(logins), func(t *testing.T) {
			db := &busyUser{Store: memory.New()}
			site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
			db.login = func() { sitetest.Does(t, sitetest.NewBrowser(), site, sitetest.Login("anna")) }
			db.login()
			db.left = logins
			n, err := site.Manager.RevokeUser(t.Context(), "anna")
			if logins == 1000 {
				if err == nil {
					t.Error("no error although the user keeps logging in")
				}
				return
			}
			if err != nil || n != logins+1 {
				t.Errorf("ended %d, %v", n, err)
			}
			db.left = 0
			if left, err := site.Manager.Sessions(t.Context(), "anna"); err != nil || len(left) > 0 {
				t.Errorf("%d are left, %v", len(left), err)
			}
		})
	}
}

// vxsuite#3324, glassfish#26205
func TestASessionFromAClockThatWasAheadLivesItsLifetimeFromNow(t *testing.T) {
	for kind, begin := range map[string]func(*sojourn.Session){
		"a login":       sitetest.Login("anna"),
		"inline":        func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"a stored cart": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
		"rotated":       func(s *sojourn.Session) { s.Login("anna"); _ = s.Save(context.Background()); s.Rotate() },
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Five years ahead: the bubble's clock cannot go back, so the session's
				// times are written into the future instead.
				db, log := memory.New(), &sitetest.LogBook{}
				cfg := sojourn.Config{Store: db, Lifetime: 24 * time.Hour, IdleTimeout: 2 * time.Hour, Rotation: sojourn.Rotation{Every: time.Hour}, Logger: slog.New(log)}
				site := sitetest.Local(sitetest.Manager(t, cfg))
				anna := sitetest.NewBrowser()
				restore := sojourn.SetClockAhead(site.Manager, 5*365*24*time.Hour)
				sitetest.Does(t, anna, site, begin)
				restore()
				for range 2 {
					sitetest.Look(t, anna, site, func(s *sojourn.Session) {
						info := s.Info()
						if s.IsNew() || s.Recent(10*time.Minute) {
							t.Errorf("new %v, a recent login %v", s.IsNew(), s.Recent(10*time.Minute))
						}
						if d := time.Until(info.Expires); d > 24*time.Hour+time.Minute {
							t.Errorf("it lives for %v", d)
						}
						if d := time.Until(info.IdleExpires); d > 2*time.Hour+time.Minute {
							t.Errorf("it may be idle for %v", d)
						}
					})
				}
				if got := log.Take("WARN"); len(got) != 1 || !strings.Contains(got[0], "clock") {
					t.Errorf("logged: %q", got)
				}
				for range 23 {
					time.Sleep(time.Hour)
					if sitetest.IsNew(t, anna, site) {
						t.Fatal("it ended early")
					}
				}
				time.Sleep(time.Hour + time.Minute)
				if !sitetest.IsNew(t, anna, site) {
					t.Error("it outlives its lifetime")
				}
			})
		})
	}
}
