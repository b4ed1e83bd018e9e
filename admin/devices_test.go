package admin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
)

func TestUsersSeeWhereTheyAreSignedIn(t *testing.T) {
	s := open(t, set{})
	here := s.login("ada", firefox, "192.0.2.1")
	s.login("ada", iphone, "2001:db8::7")
	w := here.get("/account/devices/")
	wants(t, w, http.StatusOK, "Firefox 133 on Linux", "192.0.2.1", "Safari 18 on iOS 18", "2001:db8::7", "just now", "Sign out all others")
	this, others, ok := strings.Cut(w.Body.String(), `<h2 id="others">`)
	if !ok || !strings.Contains(this, "Firefox") || strings.Contains(this, "Safari") || strings.Contains(others, "Firefox") {
		t.Errorf("this device is not told from the others:\n%s", w.Body)
	}
}

func TestOneDeviceIsSignedOut(t *testing.T) {
	s := open(t, set{})
	here, lost, other := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2"), s.login("ada", iphone, "192.0.2.3")
	goesTo(t, here.post("/account/devices/sign-out", "handle", lost.handle()), "./")
	if lost.user() != "" || other.user() != "ada" || here.user() != "ada" {
		t.Errorf("signed in: lost %q, other %q, here %q", lost.user(), other.user(), here.user())
	}
	w := here.get("/account/devices/")
	wants(t, w, http.StatusOK, "The device is signed out.", "192.0.2.3")
	lacks(t, w, "192.0.2.2")
	lacks(t, here.get("/account/devices/"), "The device is signed out.")
}

func TestAllOtherDevicesAreSignedOut(t *testing.T) {
	s := open(t, set{})
	here, ben := s.login("ada", firefox, "192.0.2.1"), s.login("ben", firefox, "192.0.2.5")
	for range 3 {
		s.login("ada", iphone, "192.0.2.2")
	}
	goesTo(t, here.post("/account/devices/sign-out-others"), "./")
	if n := s.live("ada"); n != 1 || here.user() != "ada" || ben.user() != "ben" {
		t.Errorf("%d sessions are left; here %q, somebody else %q", n, here.user(), ben.user())
	}
	wants(t, here.get("/account/devices/"), http.StatusOK, "You signed 3 other devices out.", "No other device is signed in")
}

func TestHandlesOfOthersAreAsUnknownAsAnyText(t *testing.T) {
	s := open(t, set{})
	here, ben := s.login("ada", firefox, "192.0.2.1"), s.login("ben", iphone, "192.0.2.2")
	var pages []string
	for _, handle := range []string{ben.handle(), strings.Repeat("a", 26), "nonsense", ""} {
		goesTo(t, here.post("/account/devices/sign-out", "handle", handle), "./")
		w := here.get("/account/devices/")
		wants(t, w, http.StatusOK, "signed out already")
		pages = append(pages, w.Body.String())
	}
	for _, p := range pages[1:] {
		if p != pages[0] {
			t.Error("the answer tells whether somebody else's session exists")
		}
	}
	if ben.user() != "ben" {
		t.Error("somebody else was signed out")
	}
}

func TestThisDeviceIsNotSignedOutHere(t *testing.T) {
	s := open(t, set{})
	here := s.login("ada", firefox, "192.0.2.1")
	goesTo(t, here.post("/account/devices/sign-out", "handle", here.handle()), "./")
	wants(t, here.get("/account/devices/"), http.StatusOK, "the device that you are using")
}

func TestVisitorsWhoAreNotSignedInAreSentToTheLogin(t *testing.T) {
	s := open(t, set{devices: func(o *admin.DevicesOptions) { o.LoginURL = "/login?lang=en#form" }})
	nobody := s.browser(firefox, "192.0.2.1")
	for _, w := range []*httptest.ResponseRecorder{
		nobody.get("/account/devices/"), nobody.get("/account/devices/?next=//evil.example&page=//evil.example"),
		nobody.post("/account/devices/sign-out-others", "next", "https://evil.example"),
	} {
		goesTo(t, w, "/login?lang=en&next=%2Faccount%2Fdevices%2F#form")
	}
	// A request line with another host must not change the return path.
	r := httptest.NewRequest(http.MethodGet, "http://evil.example/account/devices/", nil)
	goesTo(t, nobody.send(r), "/login?lang=en&next=%2Faccount%2Fdevices%2F#form")
}

func TestVisitorsWhoAreNotSignedInGet401WithoutALoginPage(t *testing.T) {
	s := open(t, set{devices: func(o *admin.DevicesOptions) { o.LoginURL, o.RecentWithin = "", -1 }})
	nobody := s.browser(firefox, "192.0.2.1")
	wants(t, nobody.get("/account/devices/"), http.StatusUnauthorized, "not signed in")
	wants(t, nobody.post("/account/devices/sign-out-others"), http.StatusUnauthorized)
}

func TestSigningOutNeedsARecentAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{devices: func(o *admin.DevicesOptions) { o.ConfirmURL, o.ReturnParameter = "/confirm", "back" }})
		here, lost := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2")
		lacks(t, here.get("/account/devices/"), "confirm that it is you")
		time.Sleep(11 * time.Minute) // of the bubble's clock
		wants(t, here.get("/account/devices/"), http.StatusOK, "confirm that it is you", "11 minutes ago")
		for _, w := range []*httptest.ResponseRecorder{
			here.post("/account/devices/sign-out", "handle", lost.handle()), here.post("/account/devices/sign-out-others"),
		} {
			goesTo(t, w, "/confirm?back=%2Faccount%2Fdevices%2F")
		}
		if n := s.live("ada"); n != 2 {
			t.Fatalf("%d sessions are left, want 2", n)
		}
		here.post("/login", "user", "ada")
		goesTo(t, here.post("/account/devices/sign-out", "handle", lost.handle()), "./")
		if n := s.live("ada"); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
	})
}

func TestNegativeRecentWithinAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{devices: func(o *admin.DevicesOptions) { o.RecentWithin = -1 }})
		here := s.login("ada", firefox, "192.0.2.1")
		s.login("ada", iphone, "192.0.2.2")
		time.Sleep(24 * time.Hour) // of the bubble's clock
		goesTo(t, here.post("/account/devices/sign-out-others"), "./")
		if n := s.live("ada"); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
	})
}

func TestACopiedSessionIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{})
		here, victim := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2")
		lacks(t, here.get("/account/devices/"), "Possibly copied")
		thief := s.browser(firefox, "203.0.113.66")
		for name, value := range victim.cookies {
			thief.cookies[name] = value
		}
		victim.post("/rotate")
		victim.get("/handle")
		time.Sleep(10 * time.Minute) // of the bubble's clock: beyond the grace
		thief.get("/handle")
		wants(t, here.get("/account/devices/"), http.StatusOK, "Possibly copied", "Sign it out")
		wants(t, victim.get("/account/devices/"), http.StatusOK, "Possibly copied", "Sign out here and in again")
		ops := s.operator("olga")
		wants(t, ops.get("/ops/sessions?user=ada"), http.StatusOK, "possibly copied")
		wants(t, ops.get("/ops/session?handle="+victim.handle()), http.StatusOK, "Possibly copied")
		wants(t, ops.get("/ops/"), http.StatusOK, `aria-label="Suspected thefts over time: 1 in all"`)
	})
}

func TestAThousandDevicesArePaged(t *testing.T) {
	s := open(t, set{})
	here := s.login("ada", firefox, "192.0.2.1")
	for i := range 1000 {
		s.login("ada", iphone, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	handles := regexp.MustCompile(`name="handle" value="([a-z2-7]{26})"`)
	seen := map[string]int{}
	for page := 1; page <= 50; page++ {
		w := here.get(fmt.Sprintf("/account/devices/?page=%d", page))
		found := handles.FindAllStringSubmatch(w.Body.String(), -1)
		if len(found) != 20 {
			t.Fatalf("page %d has %d devices", page, len(found))
		}
		for _, f := range found {
			seen[f[1]]++
		}
		if older := strings.Contains(w.Body.String(), fmt.Sprintf(`href="?page=%d"`, page+1)); older != (page < 50) {
			t.Errorf("page %d: a link to older ones: %v", page, older)
		}
	}
	if len(seen) != 1000 || seen[here.handle()] != 0 {
		t.Errorf("%d different devices were listed, this one %d times", len(seen), seen[here.handle()])
	}
	for _, page := range []string{"0", "-3", "x", "", "1e9", "99999999999999999999"} {
		wants(t, here.get("/account/devices/?page="+page), http.StatusOK, "1 to 20 of 1\u202f000")
	}
	wants(t, here.get("/account/devices/?page=51"), http.StatusOK, "981 to 1000 of")
}

func TestTheApplicationsFlashMessagesStay(t *testing.T) {
	s := open(t, set{})
	mux := http.NewServeMux()
	mux.Handle("/flash", s.sessions.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { session.Flash("info", "Hello") }))
	mux.Handle("/flashes", s.sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		fmt.Fprint(w, session.Flashes())
	}))
	mux.Handle("/", s.handler)
	s.handler = mux
	here := s.login("ada", firefox, "192.0.2.1")
	here.get("/flash")
	lacks(t, here.get("/account/devices/"), "Hello")
	wants(t, here.get("/flashes"), http.StatusOK, "Hello")
}
