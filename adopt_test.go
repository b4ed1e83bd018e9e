package sojourn_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
)

// oldApp is another library's sessions: a cookie "old" with an identifier, and
// what it stands for.
type oldApp struct {
	mu       sync.Mutex
	sessions map[string]adopt.Session
	finds    int
	ended    []string
	written  int
	unending bool // sessions never expire
	copies   bool // the cookies hold the sessions, and change with each
	lasts    time.Duration
	err      error // of everything while set
	onFind   func()
}

func (o *oldApp) Name() string  { return "old" }
func (o *oldApp) Expires() bool { return !o.unending }

func oldID(in http.Header) string {
	for _, line := range in["Cookie"] {
		for pair := range strings.SplitSeq(line, "; ") {
			if id, ok := strings.CutPrefix(pair, "old="); ok {
				return id
			}
		}
	}
	return ""
}

func (o *oldApp) Find(_ context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	id := oldID(in)
	if id == "" {
		return nil, nil
	}
	if o.onFind != nil {
		o.onFind()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finds++
	if o.err != nil {
		return nil, o.err
	}
	s, ok := o.sessions[id]
	if !ok {
		return nil, fmt.Errorf("old session: %w", adopt.Refusal("not_found"))
	}
	if !s.Expires.IsZero() && now.After(s.Expires) {
		return nil, adopt.Refusal("expired")
	}
	s.Credential, s.State = []byte(id), []byte(id)
	return &s, nil
}

func (o *oldApp) Forget(*adopt.Session) []string { return []string{"old=; Max-Age=0; Path=/"} }

func (o *oldApp) End(_ context.Context, old *adopt.Session) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = append(o.ended, string(old.State))
	if o.err == nil {
		delete(o.sessions, string(old.State))
	}
	return o.Forget(old), o.err
}

func (o *oldApp) Write(_ context.Context, old *adopt.Session, now time.Time) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, o.err
	}
	id := string(old.State)
	if id == "" || o.copies {
		id = fmt.Sprintf("written-%d", len(o.sessions)+len(o.ended))
	}
	o.written++
	old.Credential, old.State, old.Copies = []byte(id), []byte(id), o.copies
	old.Issued, old.Expires = now, now.Add(cmp.Or(o.lasts, 24*time.Hour))
	if o.sessions == nil {
		o.sessions = map[string]adopt.Session{}
	}
	o.sessions[id] = *old
	return []string{"old=" + id + "; Path=/"}, nil
}

func (o *oldApp) put(id string, s adopt.Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sessions == nil {
		o.sessions = map[string]adopt.Session{}
	}
	o.sessions[id] = s
}

func (o *oldApp) has(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.sessions[id]
	return ok
}

// mapOld is the application's mapping.
func mapOld(old *adopt.Session, s *sojourn.Session) error {
	var cart int
	if err := old.Get("cart", &cart); err == nil {
		cartKey.Set(s, cart)
	} else if !errors.Is(err, sojourn.ErrNoValue) {
		return err
	}
	if theme, ok := old.Values["theme"].(string); ok {
		themeKey.Set(s, theme)
	}
	var user string
	if old.Get("user", &user) == nil {
		s.Login(user)
	}
	if old.Values["panic"] != nil {
		panic("mapping")
	}
	return nil
}

// newMove is a site that adopts the sessions of an old application.
func newMove(t *testing.T, edit ...func(*sojourn.Config)) (*site, *oldApp) {
	t.Helper()
	old := &oldApp{}
	all := append([]func(*sojourn.Config){func(c *sojourn.Config) {
		c.Adopt = &sojourn.Adopt{From: []adopt.Format{old}, Map: mapOld}
	}}, edit...)
	return newSite(t, all...), old
}

func keepOld(c *sojourn.Config) { c.Adopt.Keep = true }

// dayOld is a legacy session that lasts for a day.
func dayOld(values map[string]any) adopt.Session {
	now := time.Now()
	return adopt.Session{Values: values, Issued: now, Expires: now.Add(24 * time.Hour)}
}

func anna() map[string]any { return map[string]any{"user": "anna", "cart": int64(3)} }

// bring returns a visitor with the legacy cookie.
func bring(t *testing.T, id string) *guest {
	v := newGuest(t)
	v.cookies["old"] = id
	return v
}

// who returns the user and cart of v's session.
func (s *site) who(v *guest) (user string, cart int, isNew bool) {
	s.t.Helper()
	s.do(v, func(session *sojourn.Session) {
		user, cart, isNew = session.User(), cartKey.Get(session), session.IsNew()
	})
	return user, cart, isNew
}

func refusals(s *site) string {
	var all []string
	for why, n := range s.AdoptStats()["old"].Refused {
		all = append(all, fmt.Sprintf("%s:%d", why, n))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestALegacySessionIsAdoptedAtTheFirstLoad(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		v := bring(t, "a")
		resp := s.do(v, func(session *sojourn.Session) {
			if session.IsNew() || session.User() != "anna" || cartKey.Get(session) != 3 {
				t.Errorf("new %v, user %q, cart %d", session.IsNew(), session.User(), cartKey.Get(session))
			}
			if info := session.Info(); info.Placement != sojourn.PlacementStored || !info.LoggedIn.IsZero() {
				t.Errorf("adopting is no authentication: %+v", info)
			}
		})
		wantCookies(t, resp, "-old", refCookie)
		if user, cart, _ := s.who(v); user != "anna" || cart != 3 {
			t.Errorf("the next request finds %q, %d", user, cart)
		}
		if old.finds != 1 {
			t.Errorf("the old store was asked %d times", old.finds)
		}
		if got := s.AdoptStats()["old"]; got.Found != 1 || got.Adopted != 1 || len(got.Refused) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestOnlyARequestThatAsksForItsSessionAsksTheOldStore(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	v.get(s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	if old.finds != 0 || s.store.calls() != 0 {
		t.Errorf("%d finds, %d calls", old.finds, s.store.calls())
	}
}

func TestASessionOfTheManagerComesBeforeALegacyOne(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
	v.cookies["old"] = "a"
	if user, _, isNew := s.who(v); user != "" || isNew || old.finds != 0 {
		t.Errorf("user %q, new %v, %d finds", user, isNew, old.finds)
	}
}

func TestAMappedUserIsInTheUserIndex(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	s.who(bring(t, "a"))
	recs, err := s.store.ByUser(t.Context(), userHash(t, s, "anna"))
	if err != nil || len(recs) != 1 {
		t.Errorf("%d records, %v", len(recs), err)
	}
}

// userHash is the hash under which the user's sessions are indexed, taken from a
// session of theirs.
func userHash(t *testing.T, s *site, user string) (hash [16]byte) {
	t.Helper()
	s.do(newGuest(t), func(session *sojourn.Session) { session.Login(user); session.Logout(); session.Login(user) })
	recs, _, err := s.store.Scan(t.Context(), "", 100)
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
			if err := s.store.Delete(t.Context(), r.ID, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	return hash
}

func TestFirstRequestsAtOnceAdoptOnce(t *testing.T) {
	s, old := newMove(t)
	other, err := sojourn.New(sojourn.Config{Keys: s.keys, Store: s.store, Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: mapOld}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	old.put("a", dayOld(anna()))
	const n = 16
	var all sync.WaitGroup
	handles := make([]string, n)
	var inside sync.WaitGroup
	inside.Add(n)
	old.onFind = func() { inside.Done(); inside.Wait() }
	for i := range n {
		m := s.Manager
		if i%2 == 1 {
			m = other
		}
		all.Go(func() {
			v := bring(t, "a")
			resp := v.get(m.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				handles[i] = session.Handle()
				cartKey.Update(session, func(n int) int { return n + 1 })
			}))
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	old.onFind = nil
	if slices.ContainsFunc(handles, func(h string) bool { return h != handles[0] }) {
		t.Errorf("several sessions: %q", handles)
	}
	if _, cart, _ := s.who(bring(t, "a")); cart != 3+n {
		t.Errorf("the cart is %d", cart)
	}
	if a, b := s.AdoptStats()["old"].Adopted, ops.For(other).AdoptStats()["old"].Adopted; a+b != 1 {
		t.Errorf("adopted %d and %d times", a, b)
	}
}

func TestALostFirstResponseLosesNothing(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	s.do(bring(t, "a"), func(session *sojourn.Session) { cartKey.Set(session, 9) })
	if user, cart, _ := s.who(bring(t, "a")); user != "anna" || cart != 9 {
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
	s, old := newMove(t, func(c *sojourn.Config) { c.Keys = open(keyText(first, index)) })
	old.put("a", dayOld(anna()))
	s.do(bring(t, "a"), func(session *sojourn.Session) { cartKey.Set(session, 9) })
	rotated, err := sojourn.New(sojourn.Config{
		Keys: open(keyText("retired"+strings.TrimPrefix(first, "active"), keys.Generate(), index)), Store: s.store,
		Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: mapOld},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rotated.Close() })
	bring(t, "a").get(rotated.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		if cartKey.Get(session) != 9 {
			t.Errorf("the cart is %d", cartKey.Get(session))
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
			inFakeTime(t, func(t *testing.T) {
				s, old := newMove(t, func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = 24*time.Hour, 6*time.Hour })
				old.put("a", adopt.Session{Values: anna(), Expires: time.Now().Add(c.left), Idle: c.idle})
				v := bring(t, "a")
				s.who(v)
				for _, d := range c.alive {
					wait(d)
					if user, _, _ := s.who(v); user != "anna" {
						t.Fatalf("it ended within %v", d)
					}
				}
				wait(c.dead)
				if user, _, _ := s.who(v); user != "" {
					t.Error("it lives on")
				}
			})
		})
	}
}

func TestALegacySessionThatHasExpiredIsNotAdopted(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		wait(24*time.Hour + time.Millisecond)
		if user, _, isNew := s.who(bring(t, "a")); user != "" || !isNew {
			t.Errorf("%q, new %v", user, isNew)
		}
		if got := refusals(s); got != "expired:1" {
			t.Error(got)
		}
		if _, all := s.store.rows(t); all != 0 {
			t.Errorf("%d records", all)
		}
	})
}

func TestAnAdoptedSessionThatExpiredStaysExpired(t *testing.T) {
	for _, after := range []time.Duration{2 * time.Hour, 10 * time.Hour} { // before and after it was swept
		inFakeTime(t, func(t *testing.T) {
			s, old := newMove(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
			old.put("a", dayOld(anna()))
			s.who(bring(t, "a"))
			wait(after)
			if after > 5*time.Hour {
				if _, err := s.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			v := bring(t, "a")
			if user, _, _ := s.who(v); user != "" {
				t.Error("the old cookie brought it back")
			}
			if got := refusals(s); got != "spent:1" {
				t.Error(got)
			}
			if v.cookies["old"] != "" {
				t.Error("the worthless cookie stays")
			}
		})
	}
}

func TestKeepLeavesTheCookieAndCountsActivityThere(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t, keepOld, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = time.Hour, 10*time.Hour })
		old.put("a", dayOld(anna()))
		v := bring(t, "a")
		wantCookies(t, s.do(v, func(*sojourn.Session) {}), refCookie)
		wait(5 * time.Hour)
		if user, _, _ := s.who(v); user != "anna" {
			t.Error("not adopted again")
		}
		wait(5*time.Hour + time.Millisecond)
		if user, _, _ := s.who(v); user != "" {
			t.Error("it outlived the lifetime since it was first adopted")
		}
		if got := refusals(s); got != "expired:1" {
			t.Error(got)
		}
	})
}

func TestALogoutOfAnAdoptedSessionIsFinal(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		v := bring(t, "a")
		s.who(v)
		late := v.copy()
		s.do(v, (*sojourn.Session).Logout)
		if old.has("a") || s.AdoptStats()["old"].Ended != 1 {
			t.Error("the old application's session lives on")
		}
		old.put("a", dayOld(anna())) // a slow request of the old application
		for range 5 {
			if user, _, _ := s.who(bring(t, "a")); user != "" {
				t.Fatal("the old cookie brought it back")
			}
			if user, _, _ := s.who(late.copy()); user != "" {
				t.Fatal("the new cookie brought it back")
			}
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			wait(5 * time.Hour)
		}
	})
}

func TestAFailedEndOfTheLegacySessionFailsTheLogout(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	old.err = errors.New("down")
	resp := s.serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { session.Logout() })
	wantStatus(t, resp, http.StatusServiceUnavailable)
	if len(v.cookies) != 0 {
		t.Errorf("the browser keeps %v", v.cookies)
	}
	old.err = nil
	if user, _, _ := s.who(bring(t, "a")); user != "" {
		t.Error("the old cookie brought it back")
	}
}

func TestALoginLeavesNoWayBackForTheLegacyCredential(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(map[string]any{"cart": 3}))
		v := bring(t, "a")
		s.who(v)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		for range 3 {
			if user, cart, _ := s.who(bring(t, "a")); user != "" || cart != 0 {
				t.Errorf("the old cookie leads to %q, %d", user, cart)
			}
			wait(5 * time.Hour)
		}
		if user, cart, _ := s.who(v); user != "anna" || cart != 3 {
			t.Errorf("%q, %d", user, cart)
		}
		// The session still knows what it came from.
		s.do(v, (*sojourn.Session).Logout)
		if old.has("a") {
			t.Error("the logout left the old application's session")
		}
	})
}

func TestALoginOfAnAdoptedVisitorLastsAsLongAsAnyOther(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", adopt.Session{Values: map[string]any{"cart": 3}, Expires: time.Now().Add(time.Hour)})
		v := bring(t, "a")
		s.who(v)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		wait(48 * time.Hour)
		if user, _, _ := s.who(v); user != "anna" {
			t.Error("it ended with the legacy session")
		}
	})
}

func TestTheLoginOfSomebodyElseEndsTheLegacySession(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	s.do(v, func(session *sojourn.Session) { session.Login("bert") })
	if old.has("a") {
		t.Error("anna is still logged in there")
	}
	if user, cart, _ := s.who(v); user != "bert" || cart != 0 {
		t.Errorf("%q, %d", user, cart)
	}
}

func TestAfterARotationTheLegacyCredentialIsWorthless(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	s.do(v, (*sojourn.Session).Rotate)
	if user, _, _ := s.who(bring(t, "a")); user != "" {
		t.Error("it hands out the newest credential")
	}
	if got := refusals(s); got != "superseded:1" {
		t.Error(got)
	}
}

func TestALogoutRefusesOlderCopiesOfSelfContainedCookies(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		copyOf := func(user string) adopt.Session {
			c := dayOld(map[string]any{"user": user})
			c.Copies = true
			return c
		}
		old.put("first", copyOf("anna"))
		old.put("bert", copyOf("bert"))
		wait(time.Minute)
		old.put("second", copyOf("anna"))
		v := bring(t, "second")
		s.who(v)
		s.do(v, (*sojourn.Session).Logout)
		wait(time.Minute)
		for range 3 {
			if user, _, _ := s.who(bring(t, "first")); user != "" {
				t.Error("an older copy logs in")
			}
			wait(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if user, _, _ := s.who(bring(t, "bert")); user != "bert" {
			t.Error("somebody else's is refused")
		}
		old.put("third", copyOf("anna"))
		v = bring(t, "third")
		if user, _, _ := s.who(v); user != "anna" {
			t.Error("a later login is refused")
		}
		s.do(v, (*sojourn.Session).Logout)
		old.put("fourth", adopt.Session{Values: anna(), Copies: true, Expires: time.Now().Add(time.Hour)})
		if user, _, _ := s.who(bring(t, "fourth")); user != "" {
			t.Error("one of unknown age is accepted")
		}
	})
}

func TestRefuseLegacyEndsWhatIsNotAdoptedYet(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Error("adopted")
		}
		if got := refusals(s); got != "revoked:1" {
			t.Error(got)
		}
		wait(time.Second)
		old.put("b", dayOld(anna()))
		if user, _, _ := s.who(bring(t, "b")); user != "anna" {
			t.Error("a later one is refused")
		}
	})
}

func TestARefusalDuringAnAdoptionWins(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		f := func(context.Context) {
			s.store.onSave.Store(nil)
			if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
				t.Error(err)
			}
		}
		s.store.onSave.Store(&f)
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Error("adopted all the same")
		}
	})
}

func TestFormatsThatNeverExpireNeedUntil(t *testing.T) {
	old := &oldApp{unending: true}
	_, err := sojourn.New(sojourn.Config{Keys: newKeys(t), Store: newSpy(), Adopt: &sojourn.Adopt{From: []adopt.Format{old}, Map: mapOld}})
	if err == nil || !strings.Contains(err.Error(), "Adopt.Until") {
		t.Errorf("%v", err)
	}
	_, err = sojourn.New(sojourn.Config{Keys: newKeys(t), Mode: sojourn.CookieOnly, Adopt: &sojourn.Adopt{Back: &sojourn.WriteBack{}, From: []adopt.Format{nil}}})
	for _, want := range []string{"needs a Store", "From[0] is nil", "Map is missing", "Back needs"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestNothingIsAdoptedFromUntilOn(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		until := time.Now().Add(48 * time.Hour)
		s, old := newMove(t, func(c *sojourn.Config) { c.Adopt.Until = until })
		old.unending = true
		old.put("a", adopt.Session{Values: anna()})
		old.put("b", adopt.Session{Values: anna()})
		v := bring(t, "a")
		s.who(v)
		s.do(v, (*sojourn.Session).Logout)
		old.put("a", adopt.Session{Values: anna()})
		w := bring(t, "b")
		s.who(w)
		wait(48*time.Hour - time.Millisecond)
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Error("the mark was not kept until then")
		}
		finds := old.finds
		wait(time.Millisecond)
		if user, _, _ := s.who(bring(t, "b")); user != "" || old.finds != finds {
			t.Error("adopted")
		}
		if user, _, _ := s.who(w); user != "anna" {
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
		s, old := newMove(t)
		if values != nil {
			old.put("a", dayOld(values))
		}
		v := bring(t, "a")
		resp := s.do(v, func(session *sojourn.Session) {
			if !session.IsNew() || session.User() != "" || len(session.Names()) > 0 {
				t.Errorf("%s: not a new visitor", name)
			}
		})
		wantCookies(t, resp)
		if got := refusals(s); got != name {
			t.Errorf("%s, want %s", got, name)
		}
		for _, line := range s.log.all() {
			if !strings.HasPrefix(line, "DEBUG") || strings.Contains(line, "three") {
				t.Error(line)
			}
		}
		if s.store.saves.Load() > 0 {
			t.Errorf("%s: something was saved", name)
		}
	}
}

func TestAMapThatPanicsFailsNoRequest(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(map[string]any{"user": "anna", "panic": true}))
	if user, _, isNew := s.who(bring(t, "a")); user != "" || !isNew {
		t.Errorf("%q, %v", user, isNew)
	}
	if len(s.log.with("ERROR Adopt.Map panicked")) != 1 {
		t.Error("not logged")
	}
}

func TestAnOutageOfTheOldStoreIsAnErrorUnlessSkipped(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	old.err = errors.New("down")
	v := bring(t, "a")
	handler := s.Handler(func(http.ResponseWriter, *http.Request, *sojourn.Session) {})
	wantStatus(t, v.get(handler), http.StatusServiceUnavailable)
	old.err = nil
	if user, _, _ := s.who(v); user != "anna" {
		t.Error("not adopted after the outage")
	}

	s, old = newMove(t, func(c *sojourn.Config) { c.Adopt.SkipOutages = true })
	old.put("a", dayOld(anna()))
	old.err = errors.New("down")
	v = bring(t, "a")
	if _, _, isNew := s.who(v); !isNew || v.cookies["old"] == "" {
		t.Error("not a new visitor, or one without a cookie")
	}
	if s.AdoptStats()["old"].Outages != 1 {
		t.Error("not counted")
	}
	old.err = nil
	if user, _, _ := s.who(v); user != "anna" {
		t.Error("not adopted after the outage")
	}
}

func TestAnOutageOfTheOwnStoreIsAnError(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	s.store.down.Store(true)
	handler := s.Handler(func(http.ResponseWriter, *http.Request, *sojourn.Session) {})
	wantStatus(t, bring(t, "a").get(handler), http.StatusServiceUnavailable)
}

func TestACrossSitePostAdoptsNothing(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	resp := bring(t, "a").request(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		if session.User() != "" {
			t.Error("logged in")
		}
	}), http.MethodPost, "https://shop.example/", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
	wantCookies(t, resp)
	if old.finds != 0 {
		t.Error("looked for")
	}
}

func TestOpenAdoptsToo(t *testing.T) {
	s, old := newMove(t)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.call(v, func(session *sojourn.Session, out http.Header) {
		if session.User() != "anna" || len(out["Set-Cookie"]) > 0 {
			t.Errorf("%q, %q", session.User(), out["Set-Cookie"])
		}
		save(t, session)
	})
	if v.cookies[refCookie] == "" || v.cookies["old"] != "" {
		t.Errorf("the cookies are %v", v.cookies)
	}
}

func TestALegacyCookieOfTheManagersNameIsReplaced(t *testing.T) {
	s, old := newMove(t, func(c *sojourn.Config) { c.Name, c.Cookie.Insecure = "old", true })
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	resp := s.do(v, func(*sojourn.Session) {})
	wantCookies(t, resp, "old")
	if user, _, _ := s.who(v); user != "anna" {
		t.Error("lost")
	}
}

// back makes the site write the old form as well.
func back(c *sojourn.Config) {
	old := c.Adopt.From[0].(*oldApp)
	c.Adopt.Back = &sojourn.WriteBack{To: old, Values: func(s *sojourn.Session) (map[string]any, error) {
		return map[string]any{"user": s.User(), "cart": int64(cartKey.Get(s)), "theme": themeKey.Get(s)}, nil
	}}
}

func TestWriteBackKeepsTheLegacySessionUpToDate(t *testing.T) {
	s, old := newMove(t, back)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	if old.written != 0 || v.cookies["old"] != "a" {
		t.Errorf("%d writes without a change, cookies %v", old.written, v.cookies)
	}
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 4) })
	if got := old.sessions["a"].Values["cart"]; got != int64(4) {
		t.Errorf("the old application sees %v", got)
	}
	s.do(v, (*sojourn.Session).Logout)
	if len(old.sessions) != 0 || v.cookies["old"] != "" {
		t.Errorf("the logout left %v, cookies %v", old.sessions, v.cookies)
	}
}

func TestWriteBackGivesEveryVisitorALegacySession(t *testing.T) {
	s, old := newMove(t, back)
	old.put("x", dayOld(nil))
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") }) // stays in the cookie
	anonymous := v.cookies["old"]
	if old.sessions[anonymous].Values["theme"] != "dark" {
		t.Fatalf("%v", old.sessions)
	}
	s.do(v, func(session *sojourn.Session) { session.Login("anna") })
	in := v.cookies["old"]
	if in == anonymous || old.has(anonymous) || old.sessions[in].Values["user"] != "anna" {
		t.Errorf("a login keeps the identifier %q: %v", in, old.sessions)
	}
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 5) })
	if v.cookies["old"] != in || old.sessions[in].Values["cart"] != int64(5) {
		t.Errorf("%v %v", v.cookies, old.sessions)
	}
	s.do(v, (*sojourn.Session).Logout)
	if old.has(in) {
		t.Error("the logout left it")
	}
	old.put(in, dayOld(anna())) // a slow request of the old application
	if user, _, _ := s.who(bring(t, in)); user != "" {
		t.Error("it was adopted after the logout")
	}
}

func TestAFailedWriteBackFailsNoRequest(t *testing.T) {
	s, old := newMove(t, back)
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	old.err = errors.New("down")
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 4) })
	if _, cart, _ := s.who(v); cart != 4 || s.AdoptStats()["old"].WriteErrors != 1 {
		t.Errorf("%d, %+v", cart, s.AdoptStats())
	}
}

func TestRevokingAnAdoptedSessionEndsTheLegacyOneToo(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		for name, revoke := range map[string]func(*site, string) error{
			"Revoke":     func(s *site, handle string) error { return s.Revoke(t.Context(), "anna", handle) },
			"End":        func(s *site, handle string) error { return s.End(t.Context(), handle) },
			"RevokeUser": func(s *site, _ string) error { _, err := s.RevokeUser(t.Context(), "anna"); return err },
		} {
			s, old := newMove(t, keepOld)
			old.put("a", dayOld(anna()))
			v := bring(t, "a")
			handle := ""
			s.do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := revoke(s, handle); err != nil || old.has("a") {
				t.Errorf("%s: %v, the legacy session is there: %v", name, err, old.has("a"))
			}
			old.put("a", dayOld(anna()))
			wait(5 * time.Hour)
			if user, _, _ := s.who(bring(t, "a")); user != "" {
				t.Errorf("%s: the old cookie brought it back", name)
			}
		}
	})
}

func TestRevokeUserRefusesLegacySessionsThatAreNotAdoptedYet(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		if n, err := s.RevokeUser(t.Context(), "anna"); err != nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Error("adopted")
		}
	})
}

func TestAdoptedLoginsCountForTheLimit(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t, func(c *sojourn.Config) { c.Limit.Max = 1 })
		old.put("a", dayOld(anna()))
		v := bring(t, "a")
		s.who(v)
		wait(time.Second)
		s.do(newGuest(t), func(session *sojourn.Session) { session.Login("anna") })
		for range 3 {
			for _, late := range []*guest{v, bring(t, "a")} {
				if user, _, _ := s.who(late); user != "" {
					t.Error("the old cookie gets round the limit")
				}
			}
			wait(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Nobody has authenticated there, and the login may have been the oldest of all.
func TestAnAdoptionEndsNoOtherSession(t *testing.T) {
	for name, edit := range map[string]func(*sojourn.Config){
		"with Refuse": func(c *sojourn.Config) { c.Limit.Refuse = true },
		"without it":  func(*sojourn.Config) {},
		"kept":        keepOld,
	} {
		inFakeTime(t, func(t *testing.T) {
			s, old := newMove(t, func(c *sojourn.Config) { c.Limit.Max = 1 }, edit)
			old.put("a", dayOld(anna()))
			v := newGuest(t)
			s.do(v, func(session *sojourn.Session) { session.Login("anna") })
			wait(time.Second)
			if user, _, _ := s.who(bring(t, "a")); user != "" || refusals(s) != "too_many_sessions:1" {
				t.Errorf("%s: %q, %s", name, user, refusals(s))
			}
			if user, _, _ := s.who(v); user != "anna" {
				t.Errorf("%s: the login has ended", name)
			}
			s.do(v, (*sojourn.Session).Logout)
			if user, _, _ := s.who(bring(t, "a")); user != "anna" {
				t.Errorf("%s: not adopted when there is room", name)
			}
		})
	}
}

func TestAdoptingIsAnEvent(t *testing.T) {
	var told []sojourn.EventKind
	s, old := newMove(t, func(c *sojourn.Config) {
		c.Events = func(_ context.Context, e sojourn.Event) { told = append(told, e.Kind) }
	})
	old.put("a", dayOld(anna()))
	v := bring(t, "a")
	s.who(v)
	s.who(v)
	if !slices.Equal(told, []sojourn.EventKind{sojourn.EventAdopted}) {
		t.Errorf("%v", told)
	}
}

func TestAnExpiredSessionStaysSoHoweverLongTheOldOneIsKeptAlive(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		alive := func() {
			old.put("a", adopt.Session{Values: anna(), Expires: time.Now().Add(5 * time.Hour), Idle: 5 * time.Hour})
		}
		alive()
		s.who(bring(t, "a"))
		for range 8 {
			wait(4 * time.Hour)
			alive()
		}
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Error("the old cookie brought it back")
		}
	})
}

func TestMarksOutliveACopyThatWasIssuedBeforeThem(t *testing.T) {
	for name, end := range map[string]func(*site, *guest){
		"Logout": func(s *site, v *guest) { s.do(v, (*sojourn.Session).Logout) },
		"End": func(s *site, v *guest) {
			handle := ""
			s.do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := s.End(s.t.Context(), handle); err != nil {
				s.t.Error(err)
			}
		},
	} {
		inFakeTime(t, func(t *testing.T) {
			s, old := newMove(t, keepOld)
			put := func() {
				old.put("a", adopt.Session{Values: map[string]any{"cart": 3}, Expires: time.Now().Add(5 * time.Hour), Idle: 5 * time.Hour})
			}
			put()
			v := bring(t, "a")
			s.who(v)
			wait(4 * time.Hour)
			put() // the old application was used, too
			last := old.sessions["a"]
			end(s, v)
			wait(4 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			old.put("a", last)
			if _, cart, _ := s.who(bring(t, "a")); cart != 0 {
				t.Errorf("%s: the copy brought it back", name)
			}
		})
	}
}

func TestARevocationRefusesOlderCopiesOfSelfContainedCookies(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		for _, id := range []string{"first", "second"} {
			c := dayOld(anna())
			c.Copies = true
			old.put(id, c)
			wait(time.Minute)
		}
		handle := ""
		s.do(bring(t, "second"), func(session *sojourn.Session) { handle = session.Handle() })
		if err := s.Revoke(t.Context(), "anna", handle); err != nil {
			t.Fatal(err)
		}
		if user, _, _ := s.who(bring(t, "first")); user != "" {
			t.Error("an older copy logs in")
		}
	})
}

// As the command does it, beside the service: it has the keys and the store, and
// knows nothing of the old application.
func TestARevocationByAManagerThatAdoptsNothingIsFinal(t *testing.T) {
	for name, copies := range map[string]bool{"kept on a server": false, "self-contained": true} {
		inFakeTime(t, func(t *testing.T) {
			s, old := newMove(t, keepOld)
			for _, id := range []string{"first", "second"} {
				c := dayOld(anna())
				c.Copies = copies
				old.put(id, c)
				wait(time.Minute)
			}
			s.who(bring(t, "second"))
			command, err := sojourn.New(sojourn.Config{Keys: s.keys, Store: s.store})
			if err != nil {
				t.Fatal(err)
			}
			defer command.Close()
			if n, err := command.RevokeUser(t.Context(), "anna"); err != nil || n != 1 {
				t.Fatalf("%d revoked, %v", n, err)
			}
			wait(5 * time.Hour)
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if user, _, _ := s.who(bring(t, "second")); user != "" {
				t.Errorf("%s: the old cookie brings back what was revoked", name)
			}
			if user, _, _ := s.who(bring(t, "first")); copies && user != "" {
				t.Errorf("%s: an older copy logs in", name)
			}
		})
	}
}

// A reference that was set for it would replace the cookie of another tab's login.
func TestARequestWhoseSessionHasJustEndedAdoptsNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t)
		old.put("a", dayOld(anna()))
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("bert") })
		late := v.copy()
		late.cookies["old"] = "a"
		s.do(v, func(session *sojourn.Session) { session.Login("bert") })
		resp := s.do(late.copy(), func(session *sojourn.Session) {
			if session.User() != "" {
				t.Errorf("it is the session of %q", session.User())
			}
		})
		wantCookies(t, resp)
		wait(2 * time.Minute)
		if user, _, _ := s.who(late); user != "anna" {
			t.Error("not adopted later")
		}
	})
}
