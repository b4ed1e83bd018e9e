package logins_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

const issuer = "https://login.example"

// linkedLogin logs ada in with a session of a provider.
func linkedLogin(s *sojourn.Session, sid string) {
	s.Link(issuer, sid)
	s.Login("ada")
}

func TestOnlyLinkedSessionsEndWithTheProvidersSession(t *testing.T) {
	s := sitetest.NewLab(t)
	guests := map[string]*sitetest.Guest{}
	for name, f := range map[string]func(*sojourn.Session){
		"linked":                   func(s *sojourn.Session) { linkedLogin(s, "1") },
		"linked after Login":       func(s *sojourn.Session) { s.Login("ada"); s.Link(issuer, "1") },
		"another user, linked":     func(s *sojourn.Session) { s.Link(issuer, "1"); s.Login("bob") },
		"another sid":              func(s *sojourn.Session) { linkedLogin(s, "2") },
		"another issuer":           func(s *sojourn.Session) { s.Link("https://other.example", "1"); s.Login("ada") },
		"parts that join the same": func(s *sojourn.Session) { s.Link(issuer+"1", "1"); s.Login("ada") },
		"no link":                  func(s *sojourn.Session) { s.Login("ada") },
		"anonymous":                func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
	} {
		guests[name] = sitetest.NewGuest(t)
		s.Do(guests[name], f)
	}
	if n, err := s.RevokeLinked(t.Context(), issuer, "1"); n != 3 || err != nil {
		t.Errorf("RevokeLinked: %d sessions, %v", n, err)
	}
	for name, v := range guests {
		s.Do(v, func(session *sojourn.Session) {
			if want := strings.Contains(name, "linked"); session.IsNew() != want {
				t.Errorf("%s: ended is %v", name, session.IsNew())
			}
		})
	}
}

func TestAProvidersSessionIsOfOneTenant(t *testing.T) {
	s := sitetest.NewLab(t, byHost)
	guests := map[string]*sitetest.Guest{}
	for _, tenant := range []string{"acme", "globex"} {
		guests[tenant] = sitetest.NewGuest(t)
		at(s, guests[tenant], tenant, func(_ *http.Request, session *sojourn.Session) { linkedLogin(session, "1") })
	}
	if n, err := s.RevokeLinked(sojourn.WithTenant(t.Context(), "acme"), issuer, "1"); n != 1 || err != nil {
		t.Errorf("RevokeLinked: %d sessions, %v", n, err)
	}
	if _, err := s.RevokeLinked(t.Context(), issuer, "1"); err == nil {
		t.Error("RevokeLinked without a tenant succeeds")
	}
	if resp := at(s, sitetest.NewGuest(t), "globex", func(_ *http.Request, session *sojourn.Session) { linkedLogin(session, "1") }); resp.StatusCode != http.StatusOK {
		t.Errorf("a login of the other tenant is answered %d", resp.StatusCode)
	}
	for tenant, user := range map[string]string{"acme": "", "globex": "ada"} {
		at(s, guests[tenant], tenant, func(_ *http.Request, session *sojourn.Session) {
			if session.User() != user {
				t.Errorf("%s: the user is %q, want %q", tenant, session.User(), user)
			}
		})
	}
}

// A note may expire after a login has found it and before the login extends it.
func TestANoteThatExpiresMeanwhileStillNamesItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { linkedLogin(session, "1") })
		// The next Delete finds nothing, as after a sweep.
		s.Store.OnDelete = func(ctx context.Context, id store.ID, until time.Time) error {
			s.Store.OnDelete = nil
			if _, err := s.Store.Inner.(store.Sweeper).Sweep(ctx, -365*24*time.Hour, 1000); err != nil {
				return err
			}
			return s.Store.Inner.Delete(ctx, id, until)
		}
		v := sitetest.NewGuest(t)
		time.Sleep(time.Hour)
		s.Do(v, func(session *sojourn.Session) { linkedLogin(session, "1") })
		if s.Store.OnDelete != nil {
			t.Error("the note was not made to last longer")
		}
		if n, err := s.RevokeLinked(t.Context(), issuer, "1"); n != 1 || err != nil {
			t.Errorf("RevokeLinked: %d sessions, %v", n, err)
		}
	})
}

func TestALinkStaysWithItsUser(t *testing.T) {
	for name, c := range map[string]struct {
		then  func(*sojourn.Session)
		sid   string
		ended bool
	}{
		"the same user authenticates again":          {func(s *sojourn.Session) { s.Login("ada", "otp") }, "1", true},
		"in another provider session":                {func(s *sojourn.Session) { linkedLogin(s, "2") }, "2", true},
		"whose link is the newest":                   {func(s *sojourn.Session) { linkedLogin(s, "2") }, "1", false},
		"another user logs in":                       {func(s *sojourn.Session) { s.Login("bob") }, "1", false},
		"values and credentials change":              {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 2); s.Rotate() }, "1", true},
		"a login that comes to nothing changes none": {func(s *sojourn.Session) { refusedLogin(t, s) }, "1", true},
	} {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		s.Do(v, func(s *sojourn.Session) { linkedLogin(s, "1") })
		s.Do(v, c.then)
		if _, err := s.RevokeLinked(t.Context(), issuer, c.sid); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Do(v, func(session *sojourn.Session) {
			if session.IsNew() != c.ended {
				t.Errorf("%s: ended is %v", name, session.IsNew())
			}
		})
	}
}

func refusedLogin(t *testing.T, s *sojourn.Session) {
	s.Link(issuer, "2")
	if err := s.LoginIf(t.Context(), "ada", func(context.Context) error { return errWrong }); !errors.Is(err, errWrong) {
		t.Errorf("LoginIf: %v", err)
	}
}

func TestWhatALinkCannotBe(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, c := range map[string]struct {
		f    func(*sojourn.Session)
		want error
	}{
		"no issuer":           {func(s *sojourn.Session) { s.Link("", "1"); s.Login("ada") }, sojourn.ErrBadValue},
		"no sid":              {func(s *sojourn.Session) { s.Link(issuer, ""); s.Login("ada") }, sojourn.ErrBadValue},
		"a long sid":          {func(s *sojourn.Session) { s.Link(issuer, long); s.Login("ada") }, sojourn.ErrBadValue},
		"a long issuer":       {func(s *sojourn.Session) { s.Link(long, "1"); s.Login("ada") }, sojourn.ErrBadValue},
		"without a Login":     {func(s *sojourn.Session) { s.Link(issuer, "1") }, nil},
		"of a user who is in": {func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1); s.Link(issuer, "1") }, nil},
	} {
		s := sitetest.NewLab(t)
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
			c.f(session)
			err := session.Save(t.Context())
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
			session.Discard()
		})
		if rows := sitetest.Rows(t, s.Store); rows != 0 {
			t.Errorf("%s: %d rows", name, rows)
		}
	}
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Mode, c.Store = sojourn.CookieOnly, nil })
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
		linkedLogin(session, "1")
		if err := session.Save(t.Context()); !errors.Is(err, sojourn.ErrNoStore) {
			t.Errorf("CookieOnly: %v", err)
		}
		session.Discard()
	})
}

func TestNotesOfLinksAreNoSessions(t *testing.T) {
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Limit.Max = 2 })
	for _, sid := range []string{"1", "2"} {
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { linkedLogin(session, sid) })
	}
	if _, err := s.RevokeLinked(t.Context(), issuer, "3"); err != nil {
		t.Fatal(err)
	}
	sessions, err := s.Sessions(t.Context(), "ada")
	counter, ok := s.Store.Inner.(store.Counter)
	if !ok {
		t.Fatal("the store cannot count")
	}
	counts, failed := counter.Count(t.Context())
	if len(sessions) != 2 || err != nil || failed != nil || counts.Live != 2 || counts.LoggedIn != 2 {
		t.Errorf("listed: %d, %v; counted: %+v, %v", len(sessions), err, counts, failed)
	}
	if exported, err := s.ExportUser(t.Context(), "ada"); len(exported) != 2 || err != nil {
		t.Errorf("exported: %d, %v", len(exported), err)
	}
}

func TestALinkLastsAsLongAsItsSessions(t *testing.T) {
	for name, c := range map[string]struct {
		lifetime time.Duration
		visit    func(*sojourn.Session)
		days     int
	}{
		"a month":            {0, func(*sojourn.Session) {}, 29},
		"a year, from login": {0, func(s *sojourn.Session) { s.SetExpiry(365*24*time.Hour, 365*24*time.Hour) }, 360},
		"without a limit":    {sojourn.NoLimit, func(*sojourn.Session) {}, 800},
		"a year, by an edit": {0, nil, 360},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, v := sitetest.NewLab(t, func(cfg *sojourn.Config) { cfg.IdleTimeout, cfg.Lifetime = 30*24*time.Hour, c.lifetime }), sitetest.NewGuest(t)
			var handle string
			s.Do(v, func(session *sojourn.Session) { linkedLogin(session, "1"); handle = session.Handle() })
			if c.visit == nil {
				err := s.Edit(t.Context(), handle, func(s *sojourn.Session) error { s.SetExpiry(365*24*time.Hour, 365*24*time.Hour); return nil })
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else {
				s.Do(v, c.visit)
			}
			for range c.days {
				time.Sleep(24 * time.Hour)
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Update(session, func(n int) int { return n + 1 }) })
				if _, err := s.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := s.RevokeLinked(t.Context(), issuer, "1"); n != 1 || err != nil {
				t.Errorf("%s: %d sessions ended, %v", name, n, err)
			}
		})
	}
}

// TestALinkOfTwoUsersEndsTheSecondOnceTheFirstIsOver: the first user's note is
// swept long before the second's.
func TestALinkOfTwoUsersEndsTheSecondOnceTheFirstIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		s.Do(sitetest.NewGuest(t), func(s *sojourn.Session) { linkedLogin(s, "1") })
		time.Sleep(20 * 24 * time.Hour)
		s.Do(v, func(s *sojourn.Session) { s.Link(issuer, "1"); s.Login("bob") })
		for range 12 {
			time.Sleep(24 * time.Hour)
			s.Do(v, func(s *sojourn.Session) { sitetest.CartKey.Update(s, func(n int) int { return n + 1 }) })
		}
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := s.RevokeLinked(t.Context(), issuer, "1"); n != 1 || err != nil {
			t.Errorf("RevokeLinked: %d sessions, %v", n, err)
		}
		s.Do(v, func(s *sojourn.Session) {
			if s.User() != "" {
				t.Error("the session has outlived its provider's")
			}
		})
	})
}

// steps is a store whose calls run one after the other, by a schedule.
type steps struct {
	asks, turns chan struct{}
	crashed     bool // every call fails
	lost        bool // the first of them is carried out
}

var errCrashed = errors.New("the process has been killed")

func (s *steps) wrap(inner store.Store) *faults.Store {
	f := faults.Wrap(inner)
	// step carries out a call in its turn, and returns the process's result.
	step := func(call func() error) error {
		s.asks <- struct{}{}
		<-s.turns
		if !s.crashed {
			return call()
		}
		if s.lost {
			s.lost = false
			_ = call()
		}
		return errCrashed
	}
	f.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
		var rec store.Record
		err := step(func() (err error) {
			rec, err = inner.Load(ctx, id)
			return err
		})
		return rec, err
	}
	f.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
		return step(func() error { return inner.Save(ctx, rec, base) })
	}
	f.OnDelete = func(ctx context.Context, id store.ID, until time.Time) error {
		return step(func() error { return inner.Delete(ctx, id, until) })
	}
	return f
}

// revokeSteps is how often RevokeLinked calls the store: it closes the link,
// reads the notes of eight users, extends the first note, and ends two
// sessions.
const revokeSteps = 12

// TestNoInterleavingLeavesALinkedSession lets a login and RevokeLinked take
// turns at the store in every order, with the process of RevokeLinked killed
// before each of its steps, or before the answer to it, or not at all. Once
// RevokeLinked has succeeded, at once or on the provider's retry, no linked
// session is live.
func TestNoInterleavingLeavesALinkedSession(t *testing.T) {
	runs, most := 0, 0
	for name, before := range map[string]bool{"a first login": false, "authenticating again": true} {
		for killed := -1; killed < revokeSteps; killed++ {
			// A schedule is a number: bit i is the process that has turn i.
			bits := 8
			if killed >= 0 {
				bits = 6
			}
			for schedule := range 1 << bits {
				for _, lost := range []bool{false, true} {
					if lost && killed < 0 {
						continue
					}
					runs++
					msg, taken := interleave(t, before, killed, lost, schedule)
					most = max(most, taken)
					if msg != "" {
						t.Fatalf("%s, killed %d, its answer lost %v, schedule %08b: %s", name, killed, lost, schedule, msg)
					}
				}
			}
		}
	}
	if most != revokeSteps {
		t.Errorf("RevokeLinked takes %d steps at most, and is killed after %d", most, revokeSteps)
	}
	t.Logf("%d interleavings", runs)
}

func interleave(t *testing.T, before bool, killed int, lost bool, schedule int) (msg string, taken int) {
	synctest.Test(t, func(t *testing.T) {
		shared := memory.New()
		keys := sitetest.Keys(t)
		replica := func(st store.Store) *sitetest.Lab {
			return sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = keys, st })
		}
		calm := replica(faults.Wrap(shared))
		v := sitetest.NewGuest(t)
		if before {
			calm.Do(v, func(s *sojourn.Session) { linkedLogin(s, "1") })
		}
		actors := [2]*steps{{asks: make(chan struct{}), turns: make(chan struct{})}, {asks: make(chan struct{}), turns: make(chan struct{})}}
		logins, revokes := replica(actors[0].wrap(shared)), replica(actors[1].wrap(shared))
		var status int
		var revoked error
		var over [2]chan struct{}
		for i := range over {
			over[i] = make(chan struct{})
		}
		go func() {
			defer close(over[0])
			resp := logins.Serve(v, func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
				if before && s.User() != "" {
					s.Login("ada")
				} else if !before {
					linkedLogin(s, "1")
				}
			})
			status = resp.StatusCode
		}()
		go func() {
			defer close(over[1])
			_, revoked = revokes.RevokeLinked(t.Context(), issuer, "1")
		}()
		var waits, done [2]bool
		for turn := 0; !done[0] || !done[1]; turn++ {
			synctest.Wait()
			for i, a := range actors {
				if !waits[i] && !done[i] {
					select {
					case <-a.asks:
						waits[i] = true
					case <-over[i]:
						done[i] = true
					default:
						time.Sleep(time.Millisecond) // it waits for something else
					}
				}
			}
			who := schedule >> (turn % 8) & 1
			if !waits[who] {
				who = 1 - who
			}
			if !waits[who] {
				continue
			}
			if who == 1 {
				if taken == killed {
					actors[1].crashed, actors[1].lost = true, lost
				}
				taken++
			}
			waits[who] = false
			actors[who].turns <- struct{}{}
		}
		if revoked != nil {
			if killed < 0 {
				msg = fmt.Sprintf("RevokeLinked: %v", revoked)
			}
			if _, err := calm.RevokeLinked(t.Context(), issuer, "1"); err != nil {
				msg = fmt.Sprintf("RevokeLinked once more: %v", err)
			}
		}
		calm.Do(v, func(s *sojourn.Session) {
			if s.User() != "" {
				msg = fmt.Sprintf("the login, answered with %d, has stayed", status)
			}
		})
		if left, err := calm.Sessions(t.Context(), "ada"); err != nil || len(left) != 0 {
			msg += fmt.Sprintf(" %d sessions are left, %v", len(left), err)
		}
	})
	return msg, taken
}

// TestALoginThatIsKilledLeavesNoLinkedSession kills the process of a login before
// each of its calls of the store, and before the answer to each. Its provider's logout finds what it has written.
func TestALoginThatIsKilledLeavesNoLinkedSession(t *testing.T) {
	const loginSteps = 8 // at least as many as a login takes
	for name, before := range map[string]bool{"a first login": false, "authenticating again": true} {
		for killed := range 2 * loginSteps {
			synctest.Test(t, func(t *testing.T) {
				shared, keys := memory.New(), sitetest.Keys(t)
				replica := func(st store.Store) *sitetest.Lab {
					return sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = keys, st })
				}
				calm, v := replica(faults.Wrap(shared)), sitetest.NewGuest(t)
				if before {
					calm.Do(v, func(s *sojourn.Session) { linkedLogin(s, "1") })
				}
				actor := &steps{asks: make(chan struct{}), turns: make(chan struct{})}
				over := make(chan struct{})
				go func() {
					defer close(over)
					replica(actor.wrap(shared)).Serve(v, func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
						linkedLogin(s, "1")
					})
				}()
				for taken, done := 0, false; !done; {
					select {
					case <-actor.asks:
						if taken == killed/2 {
							actor.crashed, actor.lost = true, killed%2 == 1
						}
						taken++
						actor.turns <- struct{}{}
					case <-over:
						done = true
					}
				}
				if _, err := calm.RevokeLinked(t.Context(), issuer, "1"); err != nil {
					t.Errorf("%s, killed %d: RevokeLinked: %v", name, killed, err)
				}
				if left, err := calm.Sessions(t.Context(), "ada"); err != nil || len(left) != 0 {
					t.Errorf("%s, killed %d: %d sessions are left, %v", name, killed, len(left), err)
				}
			})
		}
	}
}
