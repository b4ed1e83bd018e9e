// Package promises has the tests of Sojourn's promises, one function per
// promise, for every store through the public API.
//
//	func TestPromises(t *testing.T) { promises.Run(t, open) }
package promises

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
)

// Open returns an empty store. It reports failures through t and closes the
// store with t.Cleanup.
type Open func(t *testing.T) store.Store

// Run tests every promise, each with a new store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for _, p := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"01UntouchedIsFree", UntouchedIsFree},
		{"02NothingIsWrittenThatDidNotChange", NothingIsWrittenThatDidNotChange},
		{"03A200MeansItIsKept", A200MeansItIsKept},
		{"04NoLostUpdate", NoLostUpdate},
		{"05LogoutIsFinal", LogoutIsFinal},
		{"06ALoginChangesTheIdentifier", ALoginChangesTheIdentifier},
		{"07GarbageNeverReachesTheStore", GarbageNeverReachesTheStore},
		{"08ReadYourOwnWrites", ReadYourOwnWrites},
		{"09TheStoresDiskHoldsNoUsableCredential", TheStoresDiskHoldsNoUsableCredential},
		{"10CachesAreOptionalAtRunTime", CachesAreOptionalAtRunTime},
		{"11BadInputGetsAClearAnswer", BadInputGetsAClearAnswer},
		{"12ASessionAnswersOnlyForTheRequestThatBroughtIt", ASessionAnswersOnlyForTheRequestThatBroughtIt},
		{"13A200ReadsBack", A200ReadsBack},
	} {
		t.Run(p.name, func(t *testing.T) { p.test(t, open) })
	}
}

var (
	count = sojourn.NewKey[int]("count", sojourn.ServerSide)
	log   = sojourn.NewKey[[]string]("log", sojourn.ServerSide)
	theme = sojourn.NewKey[string]("theme")
)

func increment(n int) int { return n + 1 }

const (
	reference = "__Host-session"
	state     = "__Host-session-state"
)

// UntouchedIsFree: promise 1. (That it allocates next to nothing is measured in
// the root package, without the race detector.)
func UntouchedIsFree(t *testing.T, open Open) {
	db := faults.Wrap(open(t))
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db.Store()}))
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 1) }))
	calls, before := db.Calls(), ops.For(site.Manager).Stats()
	a := anna.VisitHTTP(site, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })
	mustBe(t, 200, a)
	if n := db.Calls() - calls; n != 0 {
		t.Errorf("the store was called %d times", n)
	}
	for _, name := range []string{"Set-Cookie", "Vary", "Cache-Control"} {
		if v, ok := a.Header[name]; ok {
			t.Errorf("the response has a header %s: %q", name, v)
		}
	}
	// A cookie that does not open would have been counted.
	eve := sitetest.NewBrowser()
	eve.SetCookie(reference, "garbage")
	eve.SetCookie(state, "garbage")
	eve.VisitHTTP(site, func(http.ResponseWriter, *http.Request) {})
	if after := ops.For(site.Manager).Stats(); after != before {
		t.Errorf("an untouched request was counted:\n%+v\n%+v", before, after)
	}
}

// NothingIsWrittenThatDidNotChange: promise 2. (Each change was a write, as
// reported in alexedwards/scs#36.)
func NothingIsWrittenThatDidNotChange(t *testing.T, open Open) {
	db := faults.Wrap(open(t))
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db.Store()}))
	stored, inline := sitetest.NewBrowser(), sitetest.NewBrowser()

	saves := db.Saves.Load()
	mustBe(t, 200, stored.Visit(site, func(s *sojourn.Session) {
		for range 10 {
			count.Update(s, increment)
			log.Update(s, func(l []string) []string { return append(l, "x") })
		}
		theme.Set(s, "dark")
	}))
	if n := db.Saves.Load() - saves; n != 1 {
		t.Errorf("21 changes of one request made %d saves, want 1", n)
	}
	mustBe(t, 200, inline.Visit(site, func(s *sojourn.Session) { theme.Set(s, "dark") }))

	for what, f := range map[string]func(*sojourn.Session){
		"reading":                func(s *sojourn.Session) { _, _ = theme.Get(s), s.Names() },
		"setting an equal value": func(s *sojourn.Session) { theme.Set(s, "dark"); s.Set("theme", "dark") },
		"an update to an equal value": func(s *sojourn.Session) {
			theme.Update(s, func(v string) string { return v })
		},
		"deleting what is not there": func(s *sojourn.Session) { s.Delete("nothing") },
		"popping what is not there": func(s *sojourn.Session) {
			sojourn.NewKey[int]("nothing").Pop(s)
		},
		"asking for flash messages":   func(s *sojourn.Session) { s.Flashes() },
		"a change that is taken back": func(s *sojourn.Session) { theme.Set(s, "light"); s.Discard() },
	} {
		calls := db.Saves.Load() + db.Marks.Load() + db.Touches.Load()
		for where, browser := range map[string]*sitetest.Browser{"stored": stored, "inline": inline} {
			a := browser.Visit(site, f)
			mustBe(t, 200, a)
			if len(a.SetCookies()) > 0 {
				t.Errorf("%s (%s) set cookies %v", what, where, a.SetCookies())
			}
		}
		if n := db.Saves.Load() + db.Marks.Load() + db.Touches.Load() - calls; n != 0 {
			t.Errorf("%s made %d writes to the store", what, n)
		}
	}
}

// A200MeansItIsKept: promise 3.
func A200MeansItIsKept(t *testing.T, open Open) {
	db := faults.Wrap(open(t))
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db.Store()}))
	anna, bob := sitetest.NewBrowser(), sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 1) }))

	db.OnSave = func(context.Context, store.Record, store.Base) error { return errors.New("disk full") }
	for who, browser := range map[string]*sitetest.Browser{"a known visitor": anna, "a new visitor": bob} {
		a := browser.Visit(site, func(s *sojourn.Session) { count.Set(s, 2) })
		if a.Status != http.StatusServiceUnavailable {
			t.Errorf("%s got %d for a change that was not kept, want 503", who, a.Status)
		}
		if len(a.SetCookies()) != 0 {
			t.Errorf("%s got cookies %v for a change that was not kept", who, a.SetCookies())
		}
	}
	var late error
	anna.VisitHTTP(site, func(w http.ResponseWriter, r *http.Request) {
		s, _ := site.Manager.Get(r.Context())
		_, _ = w.Write([]byte("the first byte"))
		count.Set(s, 3)
		late = s.Save(r.Context())
	})
	if !errors.Is(late, sojourn.ErrUnavailable) {
		t.Errorf("Save after the first byte said %v, want ErrUnavailable", late)
	}
	db.OnSave = nil
	if n := read(t, anna, site); n != 1 {
		t.Errorf("the count is %d after failed changes, want 1", n)
	}
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 4) }))
	if n := read(t, anna, site); n != 4 {
		t.Errorf("the count is %d after a 200, want 4", n)
	}
}

// NoLostUpdate: promise 4.
func NoLostUpdate(t *testing.T, open Open) {
	const n = 64
	sites := sitetest.Replicas(t, 2, sojourn.Config{Store: open(t), Timeout: time.Minute})
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(sites[0], func(s *sojourn.Session) { count.Set(s, 0) }))
	sitetest.Together(n, func(i int) {
		a := anna.Visit(sites[i%2], func(s *sojourn.Session) {
			count.Update(s, increment)
			log.Update(s, func(l []string) []string { return append(l, fmt.Sprint(i)) })
			s.Set(fmt.Sprint("key", i), i)
		})
		if a.Status != 200 {
			t.Errorf("request %d got %d %s", i, a.Status, a.Body)
		}
	})
	anna.Visit(sites[0], func(s *sojourn.Session) {
		if got := count.Get(s); got != n {
			t.Errorf("%d parallel increments made %d", n, got)
		}
		if got := len(log.Get(s)); got != n {
			t.Errorf("%d parallel appends left %d entries", n, got)
		}
		for i := range n {
			var v int
			if err := s.Get(fmt.Sprint("key", i), &v); err != nil || v != i {
				t.Errorf("key %d is %d (%v)", i, v, err)
			}
		}
	})
	editsAreExact(t, sites)
}

// editsAreExact edits all sessions of a user from two replicas, while they are in
// use on both.
func editsAreExact(t *testing.T, sites []*sitetest.Site) {
	if _, err := sites[0].Manager.Sessions(t.Context(), "fay"); errors.Is(err, errors.ErrUnsupported) {
		return // EditUser cannot find them either
	}
	const sessions, rounds = 3, 6
	var browsers []*sitetest.Browser
	for range sessions {
		b := sitetest.NewBrowser()
		mustBe(t, 200, b.Visit(sites[0], func(s *sojourn.Session) { s.Login("fay"); count.Set(s, 0) }))
		browsers = append(browsers, b)
	}
	sitetest.Together((sessions+1)*rounds, func(i int) {
		site, who := sites[i%2], i/rounds
		if who < sessions {
			if a := browsers[who].Visit(site, func(s *sojourn.Session) { count.Update(s, increment) }); a.Status != 200 {
				t.Errorf("an update got %d %s", a.Status, a.Body)
			}
			return
		}
		n, err := site.Manager.EditUser(t.Context(), "fay", func(s *sojourn.Session) error {
			count.Set(s, count.Get(s)+100) // no Update: EditUser applies it to the state that it read
			return nil
		})
		if n != sessions || err != nil {
			t.Errorf("EditUser: %d, %v", n, err)
		}
	})
	for _, b := range browsers {
		if got := read(t, b, sites[1]); got != rounds+100*rounds {
			t.Errorf("the count is %d after %d updates and %d edits", got, rounds, rounds)
		}
	}
}

// LogoutIsFinal: promise 5. (A slow request saved over a logout, as reported in
// gorilla/sessions#10 and boj/redistore#2.)
func LogoutIsFinal(t *testing.T, open Open) {
	sites := sitetest.Replicas(t, 2, sojourn.Config{Store: open(t)})
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(sites[0], func(s *sojourn.Session) { s.Login("anna"); count.Set(s, 1) }))
	thief := anna.Steal()
	slow, rotating, reading := anna.Begin(sites[0]), anna.Begin(sites[1]), anna.Begin(sites[1])

	mustBe(t, 200, anna.Visit(sites[0], (*sojourn.Session).Logout))
	if left := anna.Cookies(); len(left) != 0 {
		t.Errorf("cookies are left after the logout: %d", len(left))
	}

	for what, a := range map[string]*sitetest.Answer{
		"a slower change":   slow.Finish(func(s *sojourn.Session) { count.Update(s, increment) }),
		"a slower rotation": rotating.Finish((*sojourn.Session).Rotate),
	} {
		if a.Status != http.StatusConflict {
			t.Errorf("%s got %d, want 409", what, a.Status)
		}
		if len(a.SetCookies()) != 0 {
			t.Errorf("%s set cookies %v", what, a.SetCookies())
		}
		a.Arrive()
	}
	if a := reading.Finish(func(s *sojourn.Session) { count.Get(s) }).Arrive(); len(a.SetCookies()) != 0 {
		t.Errorf("a slower reader set cookies %v", a.SetCookies())
	}
	for _, site := range sites {
		for who, browser := range map[string]*sitetest.Browser{"the visitor": anna, "a thief": thief} {
			browser.Visit(site, func(s *sojourn.Session) {
				if s.User() != "" || !s.IsNew() || len(s.Names()) != 0 {
					t.Errorf("%s is in the ended session again", who)
				}
			})
		}
	}
	if a := thief.Visit(sites[1], func(s *sojourn.Session) { count.Set(s, 2) }); a.Status == 200 {
		t.Errorf("right after the end, the old reference started a new stored session: %v", a.SetCookies())
	}
	replicas := sitetest.Replicas(t, 3, sojourn.Config{Store: open(t), Timeout: time.Minute})
	noLoginOutlivesAPasswordChange(t, replicas)
	aProvidersLogoutIsFinal(t, replicas)
}

// noLoginOutlivesAPasswordChange holds logins on three replicas open while the
// password changes and all of the user's sessions are revoked: at the first of
// their checks, which has read the old password, or at the second.
func noLoginOutlivesAPasswordChange(t *testing.T, sites []*sitetest.Site) {
	if _, err := sites[0].Manager.RevokeUser(t.Context(), "dora"); errors.Is(err, errors.ErrUnsupported) {
		return // such a store cannot list a user's sessions to end them
	}
	var changed atomic.Bool
	const logins = 40
	var held, over sync.WaitGroup
	held.Add(logins)
	goOn := make(chan struct{})
	browsers := make([]*sitetest.Browser, logins)
	for i := range browsers {
		browsers[i] = sitetest.NewBrowser()
		isHeld := sync.OnceFunc(held.Done)
		over.Go(func() {
			defer isHeld() // or it never reached the check
			browsers[i].Visit(sites[i%3], func(s *sojourn.Session) {
				n, stop := 0, i/3%2+1
				count.Set(s, i)
				_ = s.LoginIf(context.Background(), "dora", func(context.Context) error {
					wrong := changed.Load()
					if n++; n == stop {
						isHeld()
						<-goOn
					}
					if wrong {
						return errors.New("wrong password")
					}
					return nil
				})
			})
		})
	}
	held.Wait()
	changed.Store(true)
	if _, err := sites[1].Manager.RevokeUser(t.Context(), "dora"); err != nil {
		t.Errorf("RevokeUser: %v", err)
	}
	close(goOn)
	over.Wait()
	for i, browser := range browsers {
		browser.Visit(sites[(i+1)%3], func(s *sojourn.Session) {
			if s.User() != "" {
				t.Error("a login with the old password has outlived its change")
			}
		})
	}
	if left, err := sites[2].Manager.Sessions(t.Context(), "dora"); err != nil || len(left) > 0 {
		t.Errorf("%d sessions are left, %v", len(left), err)
	}
}

// aProvidersLogoutIsFinal: logins of one session of an OpenID provider are under way
// on three replicas while the provider ends it.
func aProvidersLogoutIsFinal(t *testing.T, sites []*sitetest.Site) {
	const issuer, sid = "https://login.example", "s-1"
	if _, err := sites[0].Manager.RevokeLinked(t.Context(), issuer, "no such"); errors.Is(err, errors.ErrUnsupported) {
		return // such a store cannot list a user's sessions to end them
	}
	logIn := func(s *sojourn.Session, user, sid string) {
		count.Set(s, 1)
		s.Link(issuer, sid)
		s.Login(user)
	}
	browser, other := sitetest.NewBrowser(), sitetest.NewBrowser()
	mustBe(t, 200, browser.Visit(sites[0], func(s *sojourn.Session) { logIn(s, "emma", sid) }))
	mustBe(t, 200, other.Visit(sites[1], func(s *sojourn.Session) { logIn(s, "emma", "s-2") }))
	browsers := make([]*sitetest.Browser, 24)
	var over sync.WaitGroup
	for i := range browsers {
		if browsers[i] = sitetest.NewBrowser(); i < 6 {
			browsers[i] = browser.Steal() // all authenticate again at once
		}
		over.Go(func() {
			browsers[i].Visit(sites[i%3], func(s *sojourn.Session) {
				switch {
				case i >= 6:
					logIn(s, "emma", sid)
				case s.User() == "emma": // the session has not ended yet
					count.Set(s, i)
					s.Login("emma")
				}
			})
		})
	}
	n, err := sites[1].Manager.RevokeLinked(t.Context(), issuer, sid)
	if err != nil || n == 0 {
		t.Errorf("RevokeLinked: %d sessions, %v", n, err)
	}
	over.Wait()
	for i, browser := range append(browsers, browser) {
		browser.Visit(sites[(i+1)%3], func(s *sojourn.Session) {
			if s.User() != "" {
				t.Errorf("login %d has outlived its provider's session", i)
			}
		})
	}
	if left, err := sites[2].Manager.Sessions(t.Context(), "emma"); err != nil || len(left) != 1 {
		t.Errorf("%d sessions are left, %v, want that of another session of the provider", len(left), err)
	}
	if n, err := sites[0].Manager.RevokeLinked(t.Context(), issuer, sid); n != 0 || err != nil {
		t.Errorf("RevokeLinked once more: %d sessions, %v", n, err)
	}
	other.Visit(sites[0], func(s *sojourn.Session) {
		if s.User() != "emma" {
			t.Error("another session of the provider has ended")
		}
	})
	// The logout overtakes the login.
	if n, err := sites[0].Manager.RevokeLinked(t.Context(), issuer, "s-3"); n != 0 || err != nil {
		t.Errorf("RevokeLinked before the login: %d sessions, %v", n, err)
	}
	late := sitetest.NewBrowser()
	if a := late.Visit(sites[1], func(s *sojourn.Session) { logIn(s, "emma", "s-3") }); a.Status != http.StatusConflict {
		t.Errorf("a login after its provider's logout got %d", a.Status)
	}
	late.Visit(sites[2], func(s *sojourn.Session) {
		if s.User() != "" {
			t.Error("a login has come after its provider's logout")
		}
	})
}

// ALoginChangesTheIdentifier: promise 6. (It did not, as reported in
// goravel/goravel#925.)
func ALoginChangesTheIdentifier(t *testing.T, open Open) {
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: open(t)}))
	for before, f := range map[string]func(*sojourn.Session){
		"no session":        func(*sojourn.Session) {},
		"an inline session": func(s *sojourn.Session) { theme.Set(s, "dark") },
		"a stored session":  func(s *sojourn.Session) { theme.Set(s, "dark"); count.Set(s, 7) },
		"another login":     func(s *sojourn.Session) { theme.Set(s, "dark"); s.Login("anna") },
	} {
		anna := sitetest.NewBrowser()
		mustBe(t, 200, anna.Visit(site, f))
		attacker := anna.Steal() // who planted or copied the earlier cookies
		var handles [2]string
		mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) {
			handles[0] = s.Handle()
			s.Login("anna")
			handles[1] = s.Handle()
		}))
		if handles[0] == handles[1] {
			t.Errorf("the login from %s kept the handle", before)
		}
		anna.Visit(site, func(s *sojourn.Session) {
			if s.User() != "anna" || s.Handle() != handles[1] {
				t.Errorf("the login from %s did not arrive", before)
			}
			if before != "no session" && theme.Get(s) != "dark" {
				t.Errorf("the login from %s lost the visitor's values", before)
			}
			theme.Set(s, "secret")
		})
		for name, value := range anna.Cookies() {
			if old := attacker.Cookies()[name]; old == value {
				t.Errorf("the login from %s left the cookie %s as it was", before, name)
			}
		}
		attacker.Visit(site, func(s *sojourn.Session) {
			if s.User() != "" || s.Handle() == handles[1] || theme.Get(s) == "secret" {
				t.Errorf("a cookie from before the login from %s leads into the session", before)
			}
		})
	}
}

// GarbageNeverReachesTheStore: promise 7.
func GarbageNeverReachesTheStore(t *testing.T, open Open) {
	inner := open(t)
	db := faults.Wrap(inner)
	keys := sitetest.Keys(t)
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db.Store(), Keys: keys}))
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { count.Set(s, 1) }))
	genuine := anna.Cookies()[reference]

	garbage := []string{"x", "....", strings.Repeat("A", 8000), base64.RawURLEncoding.EncodeToString(make([]byte, 90))}
	for i := 0; i < len(genuine); i += 7 {
		flipped := []byte(genuine)
		flipped[i] ^= 1
		garbage = append(garbage, string(flipped), genuine[:i], genuine+genuine[:i+1])
	}
	// Genuine cookies, of other services.
	for _, cfg := range []sojourn.Config{{Store: inner}, {Store: inner, Keys: keys, Name: "admin"}} {
		other := sitetest.NewBrowser()
		mustBe(t, 200, other.Visit(sitetest.Serve(t, sitetest.Manager(t, cfg)), func(s *sojourn.Session) { count.Set(s, 1) }))
		for _, value := range other.Cookies() {
			garbage = append(garbage, value)
		}
	}
	calls := db.Calls()
	for _, g := range garbage {
		bot := sitetest.NewBrowser()
		bot.SetCookie(reference, g)
		bot.SetCookie(state, g)
		a := bot.Visit(site, func(s *sojourn.Session) {
			if !s.IsNew() {
				t.Error("a forged cookie led into a session")
			}
		})
		if a.Status != 200 || len(a.SetCookies()) != 0 {
			t.Errorf("a reader with a forged cookie got %d and cookies %v", a.Status, a.SetCookies())
		}
	}
	for range 10 { // bots that never write
		sitetest.NewBrowser().Visit(site, func(s *sojourn.Session) { _, _ = count.Get(s), s.Handle() })
	}
	if n := db.Calls() - calls; n != 0 {
		t.Errorf("%d forged cookies caused %d calls of the store", len(garbage), n)
	}
	if c, ok := inner.(store.Counter); ok {
		if got, err := c.Count(t.Context()); err != nil || got.Live != 3 {
			t.Errorf("the store holds %d sessions (%v), want the 3 that were made", got.Live, err)
		}
	}
}

// ReadYourOwnWrites: promise 8. (A second server kept a stale copy forever, as
// reported in kataras/iris#885 and kataras/go-sessions#17.)
func ReadYourOwnWrites(t *testing.T, open Open) {
	origin := open(t)
	caches := []*lagging{{Store: origin}, {Store: origin}}
	keys := sitetest.Keys(t)
	sites := make([]*sitetest.Site, len(caches))
	for i, c := range caches {
		sites[i] = sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: c}))
	}
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(sites[0], func(s *sojourn.Session) { count.Set(s, 0) }))
	for n := 1; n <= 6; n++ {
		for _, site := range sites { // every cache holds the previous version
			anna.Visit(site, func(s *sojourn.Session) { count.Get(s) })
		}
		mustBe(t, 200, anna.Visit(sites[n%2], func(s *sojourn.Session) { count.Update(s, increment) }))
		if got := read(t, anna, sites[(n+1)%2]); got != n {
			t.Errorf("the other replica's cache answered %d after %d was kept", got, n)
		}
	}
	if caches[0].hits.Load() == 0 {
		t.Error("the caches were never used, so nothing was tested")
	}
	if lost := ops.For(sites[0].Manager).Stats().LostVersions; lost != 0 {
		t.Errorf("%d copies below the browser's floor were used", lost)
	}
}

// TheStoresDiskHoldsNoUsableCredential: promise 9. (Read access to the database
// gave access to sessions, as reported in alexedwards/scs#195 and #257, and to
// their values, as reported in authelia/authelia#789.)
func TheStoresDiskHoldsNoUsableCredential(t *testing.T, open Open) {
	text := keys.Generate()
	keys, err := sojourn.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var disk [][]byte
	var ids []store.ID
	inner := open(t)
	db := faults.Wrap(inner)
	db.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
		mu.Lock()
		disk = append(disk, rec.Data, rec.ID[:], rec.User[:])
		ids = append(ids, rec.ID)
		mu.Unlock()
		return inner.Save(ctx, rec, base)
	}
	var log sitetest.LogBook
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: db.Store(), Logger: slog.New(&log)}))
	anna := sitetest.NewBrowser()
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) {
		s.Login("anna@example.org")
		s.Set("card", "4111 1111 1111 1111")
		s.Flash("info", "a message")
	}))
	mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { s.Set("pin", "0815 secret") }))

	ring, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	value := anna.Cookies()[reference]
	sealed, err := wire.Text.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := ring.Open(nil, seal.Reference, bytes.Clone(sealed), wire.Bind("session"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := wire.ParseReference(plain)
	if err != nil {
		t.Fatal(err)
	}
	last := ids[len(ids)-1]
	if want := store.HashIdentifier(ref.Identifier); last != want {
		t.Errorf("the row key %v is not the hash of the identifier, %v", last, want)
	}
	rec, err := inner.Load(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	disk = append(disk, rec.Data, []byte(strings.Join(log.All(), "\n"))) // a log is on a disk
	for what, secret := range map[string][]byte{
		"the identifier":        ref.Identifier,
		"part of it":            ref.Identifier[8:16],
		"the cookie's value":    []byte(value),
		"the cookie's bytes":    sealed[8:40],
		"the user's name":       []byte("anna@example"),
		"a value":               []byte("4111"),
		"another value":         []byte("0815"),
		"a value's name":        []byte("card"),
		"a message":             []byte("a message"),
		"the record's own text": plain,
	} {
		for _, b := range disk {
			if bytes.Contains(b, secret) {
				t.Errorf("the disk holds %s", what)
			}
		}
	}
	// Nothing on the disk opens a session.
	for _, guess := range []string{last.String(), wire.Text.EncodeToString(last[:]), wire.Text.EncodeToString(rec.Data)} {
		if strings.Contains(value, guess) {
			t.Error("the cookie holds what is on the disk")
		}
		thief := sitetest.NewBrowser()
		thief.SetCookie(reference, guess)
		thief.SetCookie(state, guess)
		thief.Visit(site, func(s *sojourn.Session) {
			if !s.IsNew() || s.User() != "" {
				t.Error("a thief with the disk is in the session")
			}
		})
	}
}

// CachesAreOptionalAtRunTime: promise 10, as far as it is the session's own part.
func CachesAreOptionalAtRunTime(t *testing.T, open Open) {
	origin := open(t)
	cache := &lagging{Store: origin}
	keys := sitetest.Keys(t)
	cached := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: cache}))
	plain := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: origin}))
	anna := sitetest.NewBrowser()
	want := 0
	add := func(site *sitetest.Site) {
		t.Helper()
		mustBe(t, 200, anna.Visit(site, func(s *sojourn.Session) { count.Update(s, increment) }))
		want++
		if got := read(t, anna, site); got != want {
			t.Errorf("the count is %d, want %d", got, want)
		}
	}
	add(cached)
	cache.forget() // came back empty
	add(cached)
	cache.dead.Store(true) // every read goes to the store
	add(cached)
	add(plain) // a process without the cache, which misses its writes
	cache.dead.Store(false)
	add(cached)
	add(plain)
	add(cached)
	// No copy has the cookie's version, so the store answers.
	thief := anna.Steal()
	mustBe(t, 200, anna.Visit(plain, (*sojourn.Session).Logout))
	cache.forget()
	thief.Visit(cached, func(s *sojourn.Session) {
		if !s.IsNew() {
			t.Error("the logout was undone by a cache that was emptied")
		}
	})
}

// BadInputGetsAClearAnswer: promise 11. (After a change of keys every returning
// visitor was an error, as reported in gorilla/sessions#16, #207 and #249,
// gorilla/securecookie#56 and boj/redistore#21.)
func BadInputGetsAClearAnswer(t *testing.T, open Open) {
	db, keys := open(t), sitetest.Keys(t)
	short := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys, Lifetime: time.Millisecond}))
	foreign := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	var log sitetest.LogBook
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys, Logger: slog.New(&log)}))
	cookies := func(at *sitetest.Site) (ref, inline string) {
		var r, i string
		r = setCookie(sitetest.NewBrowser().Send(at, func(s *sojourn.Session) { count.Set(s, 1) }), reference)
		i = setCookie(sitetest.NewBrowser().Send(at, func(s *sojourn.Session) { theme.Set(s, "dark") }), state)
		return r, i
	}
	ref, inline := cookies(site)
	expiredRef, expiredInline := cookies(short)
	foreignRef, foreignInline := cookies(foreign)
	for end := time.Now().Add(2 * time.Millisecond); time.Now().Before(end); {
		// Until the sessions of "short" have expired.
	}
	for _, c := range []struct{ what, name, value string }{
		{"a damaged reference", reference, damage(ref)},
		{"a damaged inline session", state, damage(inline)},
		{"a cut reference", reference, ref[:len(ref)/2]},
		{"an inline session as a reference", reference, inline},
		{"a reference as an inline session", state, ref},
		{"a foreign reference", reference, foreignRef},
		{"a foreign inline session", state, foreignInline},
		{"an expired reference", reference, expiredRef},
		{"an expired inline session", state, expiredInline},
		{"an oversized reference", reference, strings.Repeat("A", 20_000)},
		{"an oversized inline session", state, inline + strings.Repeat("A", 20_000)},
		{"text", reference, "hello world"},
	} {
		log.Take("")
		before := ops.For(site.Manager).Stats()
		browser := sitetest.NewBrowser()
		browser.SetCookie(c.name, c.value)
		a := browser.Visit(site, func(s *sojourn.Session) {
			if !s.IsNew() || len(s.Names()) != 0 {
				t.Errorf("%s is a session", c.what)
			}
			theme.Set(s, "light") // like any new visitor
		})
		if a.Status != 200 || a.Body != "ok" {
			t.Errorf("%s got %d %q", c.what, a.Status, a.Body)
		}
		if after := ops.For(site.Manager).Stats(); after.RejectedCookies != before.RejectedCookies+1 {
			t.Errorf("%s was counted %d times", c.what, after.RejectedCookies-before.RejectedCookies)
		}
		lines := log.All()
		if len(lines) != 1 || !strings.HasPrefix(lines[0], "DEBUG") {
			t.Errorf("%s left these log lines, want one of level debug: %q", c.what, lines)
		}
		if strings.Contains(strings.Join(lines, ""), c.value[:10]) {
			t.Errorf("%s is in the log", c.what)
		}
		browser.Visit(site, func(s *sojourn.Session) {
			if s.IsNew() || theme.Get(s) != "light" {
				t.Errorf("after %s the visitor has no session", c.what)
			}
		})
	}
}

// ASessionAnswersOnlyForTheRequestThatBroughtIt: promise 12. (Real servers that
// run inside a handler are in internal/test/system/middleware.)
func ASessionAnswersOnlyForTheRequestThatBroughtIt(t *testing.T, open Open) {
	db := faults.Wrap(open(t))
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	m := site.Manager
	ada, bob := sitetest.NewBrowser(), sitetest.NewBrowser()
	var adas, bobs string // handles
	mustBe(t, 200, ada.Visit(site, func(s *sojourn.Session) { s.Login("ada"); adas = s.Handle() }))
	mustBe(t, 200, bob.Visit(site, func(s *sojourn.Session) { s.Login("bob"); bobs = s.Handle() }))

	// Requests derived from another visitor's.
	cookie := reference + "=" + bob.Cookies()[reference]
	for _, c := range []struct {
		what, want string
		derive     func(r *http.Request) *http.Request
	}{
		{"its own request", "ada", func(r *http.Request) *http.Request { return r }},
		{"a clone", "ada", func(r *http.Request) *http.Request { return r.Clone(r.Context()) }},
		{"a clone without cookies", "", func(r *http.Request) *http.Request {
			r = r.Clone(r.Context())
			r.Header.Del("Cookie")
			return r
		}},
		{"a clone with another visitor's cookie", "bob", func(r *http.Request) *http.Request {
			r = r.Clone(r.Context())
			r.Header.Set("Cookie", cookie)
			return r
		}},
		{"a request of an inner server", "", func(r *http.Request) *http.Request {
			ctx := context.WithValue(r.Context(), http.ServerContextKey, new(http.Server))
			return httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		}},
	} {
		mustBe(t, 200, ada.VisitHTTP(site, func(_ http.ResponseWriter, r *http.Request) {
			if s, err := m.Get(r.Context()); err != nil || s.User() != "ada" {
				t.Errorf("the request itself: %v", err)
			}
			m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
				if s.User() != c.want {
					t.Errorf("%s is %q, want %q", c.what, s.User(), c.want)
				}
			}).ServeHTTP(httptest.NewRecorder(), c.derive(r))
		}))
	}
	mustBe(t, 200, ada.VisitHTTP(site, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = m.Get(r.Context())
		inner := context.WithValue(r.Context(), http.ServerContextKey, new(http.Server))
		if _, err := m.Get(inner); !errors.Is(err, sojourn.ErrNoMiddleware) {
			t.Errorf("a request of an inner server without Wrap: %v, want ErrNoMiddleware", err)
		}
	}))

	// An attacker has replaced a row by another one.
	from, err := store.ParseID(adas)
	if err != nil {
		t.Fatal(err)
	}
	to, err := store.ParseID(bobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, forged := range []bool{false, true} { // with the ID of its new place
		db.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
			if id != to {
				return db.Inner.Load(ctx, id)
			}
			rec, err := db.Inner.Load(ctx, from)
			if forged {
				rec.ID = to
			}
			return rec, err
		}
		before := ops.For(m).Stats().DamagedRecords
		mustBe(t, 200, bob.Clone().Visit(site, func(s *sojourn.Session) {
			if s.User() != "" || !s.IsNew() {
				t.Errorf("a moved row (forged %v) logs in as %q", forged, s.User())
			}
		}))
		if ops.For(m).Stats().DamagedRecords == before {
			t.Errorf("a moved row (forged %v) was not counted", forged)
		}
	}
}

// A200ReadsBack: promise 13. (Generated types and values are in the root package.)
func A200ReadsBack(t *testing.T, open Open) {
	type item struct {
		Name  string
		Price any
	}
	type basket struct {
		Items []item
		At    time.Time
		More  map[string]any
	}
	baskets := sojourn.NewKey[basket]("basket", sojourn.ServerSide)
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: open(t)}))
	at := time.Date(1935, 5, 1, 12, 0, 0, 1, time.FixedZone("Amsterdam", 19*60+32))
	self := map[string]any{}
	self["self"] = self
	for _, c := range []struct {
		what  string
		value basket
		path  string // in the error; "" = it is kept
	}{
		{"an empty one", basket{}, ""},
		{"plain values", basket{Items: []item{{"tea", int64(650)}, {"", "free"}}, At: time.Unix(1, 2).UTC(), More: map[string]any{"a": []any{true, nil, 1.5}}}, ""},
		{"an old offset", basket{At: at}, ""},
		{"a number as a map's key", basket{More: map[string]any{"qty": map[int]int{1: 2}}}, "basket.More.qty"},
		{"a struct behind an interface", basket{Items: []item{{"tea", 1}, {"coffee", item{"x", 1}}}}, "basket.Items[1].Price"},
		{"a channel behind an interface", basket{Items: []item{{"tea", make(chan int)}}}, "basket.Items[0].Price"},
		{"a year that no text has", basket{At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}, "basket.At"},
		{"a map that contains itself", basket{More: self}, "basket.More.self"},
	} {
		b := sitetest.NewBrowser()
		var saved error
		a := b.VisitHTTP(site, func(w http.ResponseWriter, r *http.Request) {
			s, err := site.Manager.Get(r.Context())
			if err != nil {
				site.Manager.ServeError(w, r, err)
				return
			}
			baskets.Set(s, c.value)
			saved = s.Save(r.Context())
		})
		if c.path != "" {
			mustBe(t, 500, a)
			if !errors.Is(saved, sojourn.ErrBadValue) || !strings.Contains(saved.Error(), c.path) {
				t.Errorf("%s: %v, want ErrBadValue and %s", c.what, saved, c.path)
			}
			continue
		}
		mustBe(t, 200, a)
		mustBe(t, 200, b.Visit(site, func(s *sojourn.Session) {
			got, err := baskets.Lookup(s)
			if err != nil || !got.At.Equal(c.value.At) {
				t.Errorf("%s: %v, at %v, want %v", c.what, err, got.At, c.value.At)
			}
			got.At = c.value.At
			if !reflect.DeepEqual(got, c.value) {
				t.Errorf("%s came back as %+v, want %+v", c.what, got, c.value)
			}
		}))
	}

	// A session that is long for another reason than its values.
	long, b := strings.Repeat("user", 2000), sitetest.NewBrowser()
	mustBe(t, 200, b.Visit(site, func(s *sojourn.Session) { s.Login(long) }))
	mustBe(t, 200, b.Visit(site, func(s *sojourn.Session) {
		if s.User() != long {
			t.Errorf("a user's name of %d bytes came back with %d", len(long), len(s.User()))
		}
	}))
}
