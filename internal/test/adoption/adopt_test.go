package adoption_test

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
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func refusals(s *sitetest.Lab) string {
	var all []string
	for why, n := range s.AdoptStats()["old"].Refused {
		all = append(all, fmt.Sprintf("%s:%d", why, n))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestALegacySessionIsAdoptedAtTheFirstLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		v := sitetest.Bring(t, "a")
		resp := s.Do(v, func(session *sojourn.Session) {
			if session.IsNew() || session.User() != "anna" || sitetest.CartKey.Get(session) != 3 {
				t.Errorf("new %v, user %q, cart %d", session.IsNew(), session.User(), sitetest.CartKey.Get(session))
			}
			if info := session.Info(); info.Placement != sojourn.PlacementStored || !info.LoggedIn.IsZero() {
				t.Errorf("adopting is no authentication: %+v", info)
			}
		})
		sitetest.WantCookies(t, resp, "-old", sitetest.RefCookie)
		if user, cart, _ := s.Who(v); user != "anna" || cart != 3 {
			t.Errorf("the next request finds %q, %d", user, cart)
		}
		if old.Finds != 1 {
			t.Errorf("the old store was asked %d times", old.Finds)
		}
		if got := s.AdoptStats()["old"]; got.Found != 1 || got.Adopted != 1 || len(got.Refused) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestOnlyARequestThatAsksForItsSessionAsksTheOldStore(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	v.Get(s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	if old.Finds != 0 || s.Store.Calls() != 0 {
		t.Errorf("%d finds, %d calls", old.Finds, s.Store.Calls())
	}
}

func TestASessionOfTheManagerComesBeforeALegacyOne(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	v.Cookies["old"] = "a"
	if user, _, isNew := s.Who(v); user != "" || isNew || old.Finds != 0 {
		t.Errorf("user %q, new %v, %d finds", user, isNew, old.Finds)
	}
}

func TestAMappedUserIsInTheUserIndex(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	s.Who(sitetest.Bring(t, "a"))
	recs, err := s.Store.ByUser(t.Context(), userHash(t, s, "anna"))
	if err != nil || len(recs) != 1 {
		t.Errorf("%d records, %v", len(recs), err)
	}
}

// userHash is the hash under which the user's sessions are indexed, taken from a
// session of theirs.
func userHash(t *testing.T, s *sitetest.Lab, user string) (hash [16]byte) {
	t.Helper()
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { session.Login(user); session.Logout(); session.Login(user) })
	recs, _, err := s.Store.Scan(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	newest := time.Time{}
	for _, r := range recs {
		if r.User != ([16]byte{}) && !r.Created.Before(newest) {
			hash, newest = r.User, r.Created
		}
	}
	// That one session must not count.
	for _, r := range recs {
		if r.User == hash && r.Created.Equal(newest) {
			if err := s.Store.Delete(t.Context(), r.ID, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	return hash
}

func TestFirstRequestsAtOnceAdoptOnce(t *testing.T) {
	s, old := sitetest.NewMove(t)
	other, err := sojourn.New(sojourn.Config{Keys: s.Keys, Store: s.Store, Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: sitetest.MapOld}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	const n = 16
	var all sync.WaitGroup
	handles := make([]string, n)
	var inside sync.WaitGroup
	inside.Add(n)
	old.OnFind = func() { inside.Done(); inside.Wait() }
	for i := range n {
		m := s.Manager
		if i%2 == 1 {
			m = other
		}
		all.Go(func() {
			v := sitetest.Bring(t, "a")
			resp := v.Get(m.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				handles[i] = session.Handle()
				sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
			}))
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	old.OnFind = nil
	if slices.ContainsFunc(handles, func(h string) bool { return h != handles[0] }) {
		t.Errorf("several sessions: %q", handles)
	}
	if _, cart, _ := s.Who(sitetest.Bring(t, "a")); cart != 3+n {
		t.Errorf("the cart is %d", cart)
	}
	if a, b := s.AdoptStats()["old"].Adopted, ops.For(other).AdoptStats()["old"].Adopted; a+b != 1 {
		t.Errorf("adopted %d and %d times", a, b)
	}
}

func TestALostFirstResponseLosesNothing(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	s.Do(sitetest.Bring(t, "a"), func(session *sojourn.Session) { sitetest.CartKey.Set(session, 9) })
	if user, cart, _ := s.Who(sitetest.Bring(t, "a")); user != "anna" || cart != 9 {
		t.Errorf("%q, %d", user, cart)
	}
}

func TestTheKeyRotationDoesNotChangeWhatALegacySessionIsAdoptedAs(t *testing.T) {
	first := keys.Generate()
	index := "index" + strings.TrimPrefix(keys.Generate(), "active")
	open := func(text string) *sojourn.KeyRing {
		keys, err := sojourn.ParseKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Keys = open(sitetest.KeyText(first, index)) })
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	s.Do(sitetest.Bring(t, "a"), func(session *sojourn.Session) { sitetest.CartKey.Set(session, 9) })
	rotated, err := sojourn.New(sojourn.Config{
		Keys: open(sitetest.KeyText("retired"+strings.TrimPrefix(first, "active"), keys.Generate(), index)), Store: s.Store,
		Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: sitetest.MapOld},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rotated.Close() })
	sitetest.Bring(t, "a").Get(rotated.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		if sitetest.CartKey.Get(session) != 9 {
			t.Errorf("the cart is %d", sitetest.CartKey.Get(session))
		}
	}))
}

func TestAnAdoptedSessionLivesNoLongerThanEither(t *testing.T) {
	for name, c := range map[string]struct {
		left  time.Duration // of the legacy session
		idle  time.Duration // of the legacy format
		alive []time.Duration
		dead  time.Duration // after the last of alive
	}{
		"the legacy session ends first": {left: 2 * time.Hour, alive: []time.Duration{time.Hour, time.Hour}, dead: time.Millisecond},
		"the manager's lifetime ends first": {
			left: 1000 * time.Hour, alive: []time.Duration{5 * time.Hour, 5 * time.Hour, 5 * time.Hour, 5 * time.Hour, 4 * time.Hour}, dead: time.Millisecond,
		},
		"the manager's idle timeout is shorter": {left: 1000 * time.Hour, alive: []time.Duration{5 * time.Hour}, dead: 6*time.Hour + time.Millisecond},
		"the legacy idle timeout is shorter":    {left: 30 * time.Minute, idle: time.Hour, alive: []time.Duration{50 * time.Minute, 50 * time.Minute}, dead: time.Hour + time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = 24*time.Hour, 6*time.Hour })
				old.Put("a", adopt.Session{Values: sitetest.Anna(), Expires: time.Now().Add(c.left), Idle: c.idle})
				v := sitetest.Bring(t, "a")
				s.Who(v)
				for _, d := range c.alive {
					time.Sleep(d)
					if user, _, _ := s.Who(v); user != "anna" {
						t.Fatalf("it ended within %v", d)
					}
				}
				time.Sleep(c.dead)
				if user, _, _ := s.Who(v); user != "" {
					t.Error("it lives on")
				}
			})
		})
	}
}

func TestALegacySessionThatHasExpiredIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		time.Sleep(24*time.Hour + time.Millisecond)
		if user, _, isNew := s.Who(sitetest.Bring(t, "a")); user != "" || !isNew {
			t.Errorf("%q, new %v", user, isNew)
		}
		if got := refusals(s); got != "expired:1" {
			t.Error(got)
		}
		if n, err := s.Store.Count(t.Context()); err != nil || n != (store.Counts{}) {
			t.Errorf("%+v, %v", n, err)
		}
	})
}

func TestAnAdoptedSessionThatExpiredStaysExpired(t *testing.T) {
	for _, after := range []time.Duration{2 * time.Hour, 10 * time.Hour} { // before and after it was swept
		synctest.Test(t, func(t *testing.T) {
			s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
			old.Put("a", sitetest.DayOld(sitetest.Anna()))
			s.Who(sitetest.Bring(t, "a"))
			time.Sleep(after)
			if after > 5*time.Hour {
				if _, err := s.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			v := sitetest.Bring(t, "a")
			if user, _, _ := s.Who(v); user != "" {
				t.Error("the old cookie brought it back")
			}
			if got := refusals(s); got != "spent:1" {
				t.Error(got)
			}
			if v.Cookies["old"] != "" {
				t.Error("the worthless cookie stays")
			}
		})
	}
}

func TestKeepLeavesTheCookieAndCountsActivityThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t, sitetest.KeepOld, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = time.Hour, 10*time.Hour })
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		v := sitetest.Bring(t, "a")
		sitetest.WantCookies(t, s.Do(v, func(*sojourn.Session) {}), sitetest.RefCookie)
		time.Sleep(5 * time.Hour)
		if user, _, _ := s.Who(v); user != "anna" {
			t.Error("not adopted again")
		}
		time.Sleep(5*time.Hour + time.Millisecond)
		if user, _, _ := s.Who(v); user != "" {
			t.Error("it outlived the lifetime since it was first adopted")
		}
		if got := refusals(s); got != "expired:1" {
			t.Error(got)
		}
	})
}

func TestALogoutOfAnAdoptedSessionIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		v := sitetest.Bring(t, "a")
		s.Who(v)
		late := v.Copy()
		s.Do(v, (*sojourn.Session).Logout)
		if old.Has("a") || s.AdoptStats()["old"].Ended != 1 {
			t.Error("the old application's session lives on")
		}
		old.Put("a", sitetest.DayOld(sitetest.Anna())) // a slow request of the old application
		for range 5 {
			if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
				t.Fatal("the old cookie brought it back")
			}
			if user, _, _ := s.Who(late.Copy()); user != "" {
				t.Fatal("the new cookie brought it back")
			}
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Hour)
		}
	})
}

func TestAFailedEndOfTheLegacySessionFailsTheLogout(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	old.Err = errors.New("down")
	resp := s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { session.Logout() })
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	if len(v.Cookies) != 0 {
		t.Errorf("the browser keeps %v", v.Cookies)
	}
	old.Err = nil
	if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
		t.Error("the old cookie brought it back")
	}
}

func TestALoginLeavesNoWayBackForTheLegacyCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(map[string]any{"cart": 3}))
		v := sitetest.Bring(t, "a")
		s.Who(v)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		for range 3 {
			if user, cart, _ := s.Who(sitetest.Bring(t, "a")); user != "" || cart != 0 {
				t.Errorf("the old cookie leads to %q, %d", user, cart)
			}
			time.Sleep(5 * time.Hour)
		}
		if user, cart, _ := s.Who(v); user != "anna" || cart != 3 {
			t.Errorf("%q, %d", user, cart)
		}
		// The session still knows what it came from.
		s.Do(v, (*sojourn.Session).Logout)
		if old.Has("a") {
			t.Error("the logout left the old application's session")
		}
	})
}

func TestALoginOfAnAdoptedVisitorLastsAsLongAsAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", adopt.Session{Values: map[string]any{"cart": 3}, Expires: time.Now().Add(time.Hour)})
		v := sitetest.Bring(t, "a")
		s.Who(v)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		time.Sleep(48 * time.Hour)
		if user, _, _ := s.Who(v); user != "anna" {
			t.Error("it ended with the legacy session")
		}
	})
}

func TestTheLoginOfSomebodyElseEndsTheLegacySession(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	s.Do(v, func(session *sojourn.Session) { session.Login("bert") })
	if old.Has("a") {
		t.Error("anna is still logged in there")
	}
	if user, cart, _ := s.Who(v); user != "bert" || cart != 0 {
		t.Errorf("%q, %d", user, cart)
	}
}

func TestAfterARotationTheLegacyCredentialIsWorthless(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	s.Do(v, (*sojourn.Session).Rotate)
	if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
		t.Error("it hands out the newest credential")
	}
	if got := refusals(s); got != "superseded:1" {
		t.Error(got)
	}
}

func TestALogoutRefusesOlderCopiesOfSelfContainedCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		copyOf := func(user string) adopt.Session {
			c := sitetest.DayOld(map[string]any{"user": user})
			c.Copies = true
			return c
		}
		old.Put("first", copyOf("anna"))
		old.Put("bert", copyOf("bert"))
		time.Sleep(time.Minute)
		old.Put("second", copyOf("anna"))
		v := sitetest.Bring(t, "second")
		s.Who(v)
		s.Do(v, (*sojourn.Session).Logout)
		time.Sleep(time.Minute)
		for range 3 {
			if user, _, _ := s.Who(sitetest.Bring(t, "first")); user != "" {
				t.Error("an older copy logs in")
			}
			time.Sleep(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "bert")); user != "bert" {
			t.Error("somebody else's is refused")
		}
		old.Put("third", copyOf("anna"))
		v = sitetest.Bring(t, "third")
		if user, _, _ := s.Who(v); user != "anna" {
			t.Error("a later login is refused")
		}
		s.Do(v, (*sojourn.Session).Logout)
		old.Put("fourth", adopt.Session{Values: sitetest.Anna(), Copies: true, Expires: time.Now().Add(time.Hour)})
		if user, _, _ := s.Who(sitetest.Bring(t, "fourth")); user != "" {
			t.Error("one of unknown age is accepted")
		}
	})
}

func TestRefuseLegacyEndsWhatIsNotAdoptedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("adopted")
		}
		if got := refusals(s); got != "revoked:1" {
			t.Error(got)
		}
		time.Sleep(time.Second)
		old.Put("b", sitetest.DayOld(sitetest.Anna()))
		if user, _, _ := s.Who(sitetest.Bring(t, "b")); user != "anna" {
			t.Error("a later one is refused")
		}
	})
}

func TestARefusalDuringAnAdoptionWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		s.Store.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			s.Store.OnSave = nil
			if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
				t.Error(err)
			}
			return s.Store.Save(ctx, rec, base)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("adopted all the same")
		}
	})
}

func TestFormatsThatNeverExpireNeedUntil(t *testing.T) {
	old := &sitetest.OldApp{Unending: true}
	_, err := sojourn.New(sojourn.Config{Keys: sitetest.Keys(t), Store: faults.Wrap(memory.New()), Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: sitetest.MapOld}})
	if err == nil || !strings.Contains(err.Error(), "Adopt.Until") {
		t.Errorf("%v", err)
	}
	_, err = sojourn.New(sojourn.Config{Keys: sitetest.Keys(t), Mode: sojourn.CookieOnly, Adopt: &sojourn.Adopt{Back: &sojourn.WriteBack{}, From: []adopt.Format{nil}}})
	for _, want := range []string{"needs a Store", "From[0] is nil", "Map is missing", "Back needs"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestNothingIsAdoptedFromUntilOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(48 * time.Hour)
		s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Adopt.Until = until })
		old.Unending = true
		old.Put("a", adopt.Session{Values: sitetest.Anna()})
		old.Put("b", adopt.Session{Values: sitetest.Anna()})
		v := sitetest.Bring(t, "a")
		s.Who(v)
		s.Do(v, (*sojourn.Session).Logout)
		old.Put("a", adopt.Session{Values: sitetest.Anna()})
		w := sitetest.Bring(t, "b")
		s.Who(w)
		time.Sleep(48*time.Hour - time.Millisecond)
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("the mark was not kept until then")
		}
		finds := old.Finds
		time.Sleep(time.Millisecond)
		if user, _, _ := s.Who(sitetest.Bring(t, "b")); user != "" || old.Finds != finds {
			t.Error("adopted")
		}
		if user, _, _ := s.Who(w); user != "anna" {
			t.Error("an adopted session ended")
		}
	})
}

func TestBadLegacyInputIsANewVisitorOneDebugLineAndACount(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"unmapped:1":  {"cart": "three"},
		"empty:1":     {},
		"not_found:1": nil,
	} {
		s, old := sitetest.NewMove(t)
		if values != nil {
			old.Put("a", sitetest.DayOld(values))
		}
		v := sitetest.Bring(t, "a")
		resp := s.Do(v, func(session *sojourn.Session) {
			if !session.IsNew() || session.User() != "" || len(session.Names()) > 0 {
				t.Errorf("%s: not a new visitor", name)
			}
		})
		sitetest.WantCookies(t, resp)
		if got := refusals(s); got != name {
			t.Errorf("%s, want %s", got, name)
		}
		for _, line := range s.Log.All() {
			if !strings.HasPrefix(line, "DEBUG") || strings.Contains(line, "three") {
				t.Error(line)
			}
		}
		if s.Store.Saves.Load() > 0 {
			t.Errorf("%s: something was saved", name)
		}
	}
}

func TestAMapThatPanicsFailsNoRequest(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(map[string]any{"user": "anna", "panic": true}))
	if user, _, isNew := s.Who(sitetest.Bring(t, "a")); user != "" || !isNew {
		t.Errorf("%q, %v", user, isNew)
	}
	if len(s.Log.With("ERROR Adopt.Map panicked")) != 1 {
		t.Error("not logged")
	}
}

func TestAnOutageOfTheOldStoreIsAnErrorUnlessSkipped(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	old.Err = errors.New("down")
	v := sitetest.Bring(t, "a")
	handler := s.Handler(func(http.ResponseWriter, *http.Request, *sojourn.Session) {})
	sitetest.WantStatus(t, v.Get(handler), http.StatusServiceUnavailable)
	old.Err = nil
	if user, _, _ := s.Who(v); user != "anna" {
		t.Error("not adopted after the outage")
	}

	s, old = sitetest.NewMove(t, func(c *sojourn.Config) { c.Adopt.SkipOutages = true })
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	old.Err = errors.New("down")
	v = sitetest.Bring(t, "a")
	if _, _, isNew := s.Who(v); !isNew || v.Cookies["old"] == "" {
		t.Error("not a new visitor, or one without a cookie")
	}
	if s.AdoptStats()["old"].Outages != 1 {
		t.Error("not counted")
	}
	old.Err = nil
	if user, _, _ := s.Who(v); user != "anna" {
		t.Error("not adopted after the outage")
	}
}

func TestAnOutageOfTheOwnStoreIsAnError(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	s.Store.Down.Store(true)
	handler := s.Handler(func(http.ResponseWriter, *http.Request, *sojourn.Session) {})
	sitetest.WantStatus(t, sitetest.Bring(t, "a").Get(handler), http.StatusServiceUnavailable)
}

func TestACrossSitePostAdoptsNothing(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	resp := sitetest.Bring(t, "a").Request(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		if session.User() != "" {
			t.Error("logged in")
		}
	}), http.MethodPost, "https://shop.example/", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
	sitetest.WantCookies(t, resp)
	if old.Finds != 0 {
		t.Error("looked for")
	}
}

func TestAnAttachedRequestAdoptsToo(t *testing.T) {
	s, old := sitetest.NewMove(t)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Call(v, func(session *sojourn.Session) {
		if session.User() != "anna" {
			t.Errorf("the user is %q", session.User())
		}
	})
	if v.Cookies[sitetest.RefCookie] == "" || v.Cookies["old"] != "" {
		t.Errorf("the cookies are %v", v.Cookies)
	}
}

func TestALegacyCookieOfTheManagersNameIsReplaced(t *testing.T) {
	s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Name, c.Cookie.Insecure = "old", true })
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	resp := s.Do(v, func(*sojourn.Session) {})
	sitetest.WantCookies(t, resp, "old")
	if user, _, _ := s.Who(v); user != "anna" {
		t.Error("lost")
	}
}

// back makes the site write the old form as well.
func back(c *sojourn.Config) {
	old := c.Adopt.From[0].(*sitetest.OldApp)
	c.Adopt.Back = &sojourn.WriteBack{To: old, Values: func(s *sojourn.Session) (map[string]any, error) {
		return map[string]any{"user": s.User(), "cart": int64(sitetest.CartKey.Get(s)), "theme": sitetest.ThemeKey.Get(s)}, nil
	}}
}

func TestWriteBackKeepsTheLegacySessionUpToDate(t *testing.T) {
	s, old := sitetest.NewMove(t, back)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	if old.Written != 0 || v.Cookies["old"] != "a" {
		t.Errorf("%d writes without a change, cookies %v", old.Written, v.Cookies)
	}
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 4) })
	if got := old.Sessions["a"].Values["cart"]; got != int64(4) {
		t.Errorf("the old application sees %v", got)
	}
	s.Do(v, (*sojourn.Session).Logout)
	if len(old.Sessions) != 0 || v.Cookies["old"] != "" {
		t.Errorf("the logout left %v, cookies %v", old.Sessions, v.Cookies)
	}
}

func TestWriteBackGivesEveryVisitorALegacySession(t *testing.T) {
	s, old := sitetest.NewMove(t, back)
	old.Put("x", sitetest.DayOld(nil))
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") }) // stays in the cookie
	anonymous := v.Cookies["old"]
	if old.Sessions[anonymous].Values["theme"] != "dark" {
		t.Fatalf("%v", old.Sessions)
	}
	s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
	in := v.Cookies["old"]
	if in == anonymous || old.Has(anonymous) || old.Sessions[in].Values["user"] != "anna" {
		t.Errorf("a login keeps the identifier %q: %v", in, old.Sessions)
	}
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 5) })
	if v.Cookies["old"] != in || old.Sessions[in].Values["cart"] != int64(5) {
		t.Errorf("%v %v", v.Cookies, old.Sessions)
	}
	s.Do(v, (*sojourn.Session).Logout)
	if old.Has(in) {
		t.Error("the logout left it")
	}
	old.Put(in, sitetest.DayOld(sitetest.Anna())) // a slow request of the old application
	if user, _, _ := s.Who(sitetest.Bring(t, in)); user != "" {
		t.Error("it was adopted after the logout")
	}
}

func TestAFailedWriteBackFailsNoRequest(t *testing.T) {
	s, old := sitetest.NewMove(t, back)
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	old.Err = errors.New("down")
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 4) })
	if _, cart, _ := s.Who(v); cart != 4 || s.AdoptStats()["old"].WriteErrors != 1 {
		t.Errorf("%d, %+v", cart, s.AdoptStats())
	}
}

func TestRevokingAnAdoptedSessionEndsTheLegacyOneToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, revoke := range map[string]func(*sitetest.Lab, string) error{
			"Revoke":     func(s *sitetest.Lab, handle string) error { return s.Revoke(t.Context(), "anna", handle) },
			"End":        func(s *sitetest.Lab, handle string) error { return s.End(t.Context(), handle) },
			"RevokeUser": func(s *sitetest.Lab, _ string) error { _, err := s.RevokeUser(t.Context(), "anna"); return err },
		} {
			s, old := sitetest.NewMove(t, sitetest.KeepOld)
			old.Put("a", sitetest.DayOld(sitetest.Anna()))
			v := sitetest.Bring(t, "a")
			handle := ""
			s.Do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := revoke(s, handle); err != nil || old.Has("a") {
				t.Errorf("%s: %v, the legacy session is there: %v", name, err, old.Has("a"))
			}
			old.Put("a", sitetest.DayOld(sitetest.Anna()))
			time.Sleep(5 * time.Hour)
			if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
				t.Errorf("%s: the old cookie brought it back", name)
			}
		}
	})
}

func TestRevokeUserRefusesLegacySessionsThatAreNotAdoptedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		if n, err := s.RevokeUser(t.Context(), "anna"); err != nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("adopted")
		}
	})
}

func TestAdoptedLoginsCountForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Limit.Max = 1 })
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		v := sitetest.Bring(t, "a")
		s.Who(v)
		time.Sleep(time.Second)
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { session.Login("anna") })
		for range 3 {
			for _, late := range []*sitetest.Guest{v, sitetest.Bring(t, "a")} {
				if user, _, _ := s.Who(late); user != "" {
					t.Error("the old cookie gets round the limit")
				}
			}
			time.Sleep(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// An adoption is not a new authentication, and its login may be the oldest.
func TestAnAdoptionEndsNoOtherSession(t *testing.T) {
	for name, edit := range map[string]func(*sojourn.Config){
		"with Refuse": func(c *sojourn.Config) { c.Limit.Refuse = true },
		"without it":  func(*sojourn.Config) {},
		"kept":        sitetest.KeepOld,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Limit.Max = 1 }, edit)
			old.Put("a", sitetest.DayOld(sitetest.Anna()))
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
			time.Sleep(time.Second)
			if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" || refusals(s) != "too_many_sessions:1" {
				t.Errorf("%s: %q, %s", name, user, refusals(s))
			}
			if user, _, _ := s.Who(v); user != "anna" {
				t.Errorf("%s: the login has ended", name)
			}
			s.Do(v, (*sojourn.Session).Logout)
			if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "anna" {
				t.Errorf("%s: not adopted when there is room", name)
			}
		})
	}
}

func TestAdoptingIsAnEvent(t *testing.T) {
	var told []sojourn.EventKind
	s, old := sitetest.NewMove(t, func(c *sojourn.Config) {
		c.Events = func(_ context.Context, e sojourn.Event) { told = append(told, e.Kind) }
	})
	old.Put("a", sitetest.DayOld(sitetest.Anna()))
	v := sitetest.Bring(t, "a")
	s.Who(v)
	s.Who(v)
	if !slices.Equal(told, []sojourn.EventKind{sojourn.EventAdopted}) {
		t.Errorf("%v", told)
	}
}

func TestAnExpiredSessionStaysSoHoweverLongTheOldOneIsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		alive := func() {
			old.Put("a", adopt.Session{Values: sitetest.Anna(), Expires: time.Now().Add(5 * time.Hour), Idle: 5 * time.Hour})
		}
		alive()
		s.Who(sitetest.Bring(t, "a"))
		for range 8 {
			time.Sleep(4 * time.Hour)
			alive()
		}
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("the old cookie brought it back")
		}
	})
}

func TestMarksOutliveACopyThatWasIssuedBeforeThem(t *testing.T) {
	for name, end := range map[string]func(*sitetest.Lab, *sitetest.Guest){
		"Logout": func(s *sitetest.Lab, v *sitetest.Guest) { s.Do(v, (*sojourn.Session).Logout) },
		"End": func(s *sitetest.Lab, v *sitetest.Guest) {
			handle := ""
			s.Do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := s.End(s.T.Context(), handle); err != nil {
				s.T.Error(err)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, old := sitetest.NewMove(t, sitetest.KeepOld)
			put := func() {
				old.Put("a", adopt.Session{Values: map[string]any{"cart": 3}, Expires: time.Now().Add(5 * time.Hour), Idle: 5 * time.Hour})
			}
			put()
			v := sitetest.Bring(t, "a")
			s.Who(v)
			time.Sleep(4 * time.Hour)
			put() // the old application was used
			last := old.Sessions["a"]
			end(s, v)
			time.Sleep(4 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			old.Put("a", last)
			if _, cart, _ := s.Who(sitetest.Bring(t, "a")); cart != 0 {
				t.Errorf("%s: the copy brought it back", name)
			}
		})
	}
}

func TestARevocationRefusesOlderCopiesOfSelfContainedCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		for _, id := range []string{"first", "second"} {
			c := sitetest.DayOld(sitetest.Anna())
			c.Copies = true
			old.Put(id, c)
			time.Sleep(time.Minute)
		}
		handle := ""
		s.Do(sitetest.Bring(t, "second"), func(session *sojourn.Session) { handle = session.Handle() })
		if err := s.Revoke(t.Context(), "anna", handle); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "first")); user != "" {
			t.Error("an older copy logs in")
		}
	})
}

// Like the command beside the service: it has the keys and the store, but no
// access to the old application.
func TestARevocationByAManagerThatAdoptsNothingIsFinal(t *testing.T) {
	for name, copies := range map[string]bool{"kept on a server": false, "self-contained": true} {
		synctest.Test(t, func(t *testing.T) {
			s, old := sitetest.NewMove(t, sitetest.KeepOld)
			for _, id := range []string{"first", "second"} {
				c := sitetest.DayOld(sitetest.Anna())
				c.Copies = copies
				old.Put(id, c)
				time.Sleep(time.Minute)
			}
			s.Who(sitetest.Bring(t, "second"))
			command, err := sojourn.New(sojourn.Config{Keys: s.Keys, Store: s.Store})
			if err != nil {
				t.Fatal(err)
			}
			defer command.Close()
			if n, err := command.RevokeUser(t.Context(), "anna"); err != nil || n != 1 {
				t.Fatalf("%d revoked, %v", n, err)
			}
			time.Sleep(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if user, _, _ := s.Who(sitetest.Bring(t, "second")); user != "" {
				t.Errorf("%s: the old cookie brings back what was revoked", name)
			}
			if user, _, _ := s.Who(sitetest.Bring(t, "first")); copies && user != "" {
				t.Errorf("%s: an older copy logs in", name)
			}
		})
	}
}

// A reference that was set for it would replace the cookie of another tab's login.
func TestARequestWhoseSessionHasJustEndedAdoptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("bert") })
		late := v.Copy()
		late.Cookies["old"] = "a"
		s.Do(v, func(session *sojourn.Session) { session.Login("bert") })
		resp := s.Do(late.Copy(), func(session *sojourn.Session) {
			if session.User() != "" {
				t.Errorf("it is the session of %q", session.User())
			}
		})
		sitetest.WantCookies(t, resp)
		time.Sleep(2 * time.Minute)
		if user, _, _ := s.Who(late); user != "anna" {
			t.Error("not adopted later")
		}
	})
}
