package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn"
)

const olga = "olga@example.com"

// logIn signs a customer in and returns to the front page.
func (tb *tab) logIn(email string) {
	tb.t.Helper()
	tb.open("/login")
	tb.fill("#email", email, "#password", "correct horse")
	tb.press(`.stack button`)
	if !tb.signedIn() {
		tb.t.Fatalf("%s is not signed in: %s", email, tb.pageText())
	}
}

func TestACustomerSignsAnotherDeviceOut(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	browser := startChromium(t)
	here, there, third := browser.visitor(shop.url).tab(), browser.visitor(shop.url).tab(), browser.visitor(shop.url).tab()
	here.signUp("Ida", "ida@example.com")
	there.logIn("ida@example.com")
	third.logIn("ida@example.com")
	handle := there.handle()

	here.open("/account")
	here.press(`a[href="/account/devices/"]`)
	if got := here.text("#others"); got != "Other devices 2" {
		t.Errorf("the page says %q", got)
	}
	here.press(fmt.Sprintf(`form:has(input[value=%q]) button`, handle))
	if got := here.path() + here.text(".messages"); got != "/account/devices/The device is signed out." {
		t.Errorf("afterwards: %q", got)
	}
	there.open("/")
	third.open("/")
	if there.signedIn() || !third.signedIn() {
		t.Errorf("signed in: the device %v, another %v", there.signedIn(), third.signedIn())
	}
	here.press(`form[action="sign-out-others"] button`)
	third.open("/orders")
	if third.path() != "/login" || here.text(".messages") != "Other devices signed out: 1." {
		t.Errorf("the third device is on %s, the page says %q", third.path(), here.text(".messages"))
	}
	here.open("/")
	if !here.signedIn() {
		t.Error("this device was signed out, too")
	}
}

func TestAnOperatorEndsASession(t *testing.T) {
	t.Parallel()
	shop := openShopWith(t, parts{operator: " Olga@example.com"})
	browser := startChromium(t)
	customer, ops := browser.visitor(shop.url).tab(), browser.visitor(shop.url).tab()
	customer.signUp("Ida", "ida@example.com")
	handle := customer.handle()
	if status := customer.open("/ops/"); status != http.StatusForbidden {
		t.Errorf("a customer gets %d from /ops/", status)
	}

	ops.signUp("Olga", olga)
	ops.open("/account")
	ops.press(`a[href="/ops/"]`)
	ops.fill("#q", handle)
	ops.press(`.search button`)
	if got := ops.text("main"); !strings.Contains(got, handle) || strings.Contains(got, "ida@example.com") {
		t.Errorf("the session's page says %q", got)
	}
	ops.press(`main a.button`)
	ops.press(`form button.danger`)
	if got := ops.text(".messages"); got != "The session is ended." {
		t.Errorf("afterwards: %q", got)
	}
	customer.open("/")
	if customer.signedIn() {
		t.Error("the customer is still signed in")
	}
	ops.open("/ops/")
	ops.press(`form[action="sweep"] button`)
	if got := ops.text(".messages"); !strings.HasPrefix(got, "Cleaned up:") {
		t.Errorf("after the cleanup: %q", got)
	}
}

func TestWithoutAnOperatorNobodyGetsIn(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()
	tab.signUp("Olga", olga)
	if status := tab.open("/ops/"); status != http.StatusForbidden {
		t.Errorf("/ops/ answers %d", status)
	}
}

func TestAChangeOfPasswordSignsOutElsewhere(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	browser := startChromium(t)
	here, there := browser.visitor(shop.url).tab(), browser.visitor(shop.url).tab()
	here.signUp("Ida", "ida@example.com")
	there.logIn("ida@example.com")
	here.open("/account/password")
	here.fill("#password", "short")
	here.press(".stack button")
	if here.text(".problem") == "" {
		t.Error("a short password was taken")
	}
	here.fill("#password", "battery staple")
	here.press(".stack button")
	if got := here.text(".messages"); got != "Your password is changed. Other devices signed out: 1." {
		t.Errorf("afterwards: %q", got)
	}
	there.open("/orders")
	if there.path() != "/login" || !here.signedIn() {
		t.Errorf("the other device is on %s; here signed in: %v", there.path(), here.signedIn())
	}
	there.fill("#email", "ida@example.com", "#password", "battery staple")
	there.press(".stack button")
	if there.path() != "/orders" {
		t.Errorf("the new password leads to %s", there.path())
	}
}

func TestWhatIsWorthMoreAsksForThePasswordAgain(t *testing.T) {
	t.Parallel()
	shop := openShopWith(t, parts{recent: time.Nanosecond})
	browser := startChromium(t)
	here, there := browser.visitor(shop.url).tab(), browser.visitor(shop.url).tab()
	here.signUp("Ida", "ida@example.com")
	there.logIn("ida@example.com")
	here.open("/")
	here.press(add("mug"))

	here.open("/account/devices/")
	here.press(`form[action="sign-out-others"] button`)
	if got := here.path() + eval[string](here, "location.search"); got != "/confirm?next=%2Faccount%2Fdevices%2F" {
		t.Errorf("the button leads to %s", got)
	}
	here.fill("#password", "wrong")
	here.press(".stack button")
	if here.path() != "/confirm" || here.text(".problem") == "" {
		t.Errorf("a wrong password leads to %s: %s", here.path(), here.pageText())
	}
	before := here.attribute(`input[name="next"]`, "value")
	here.fill("#password", "correct horse")
	here.press(".stack button")
	if here.path() != "/account/devices/" || before != "/account/devices/" {
		t.Errorf("the right one leads to %s, by %q", here.path(), before)
	}
	here.open("/cart")
	if got := here.inCart(); got != "1" {
		t.Errorf("the cart holds %q afterwards, want 1", got)
	}
	here.open("/account/password")
	if here.path() != "/confirm" {
		t.Errorf("the change of password is at %s", here.path())
	}
	there.open("/")
	if !there.signedIn() {
		t.Error("the other device was signed out without the password")
	}
}

// TestAdminPagesAreFitToBeSeen holds the pages of package admin to the standards
// of the shop's own, and leaves pictures of them.
func TestAdminPagesAreFitToBeSeen(t *testing.T) {
	t.Parallel()
	shop := openShopWith(t, parts{operator: olga})
	tab := startChromium(t).visitor(shop.url).tab()
	tab.signUp("Olga", olga)
	shop.populate(t)
	user := shop.userOf(t, olga)
	for _, p := range []struct{ name, path string }{
		{"devices", "/account/devices/"},
		{"ops", "/ops/?span=24h"},
		{"ops-sessions", "/ops/sessions?user=" + url.QueryEscape(user)},
		{"ops-session", "/ops/session?handle=" + tab.handle()},
		{"ops-confirm", "/ops/revoke-user?user=" + url.QueryEscape(user)},
		{"ops-nothing", "/ops/session?handle=nothing"},
		{"ops-nobody", "/ops/sessions?user=nobody"},
		{"ops-not-found", "/ops/nowhere"},
		{"devices-not-found", "/account/devices/nowhere"},
	} {
		tab.open(p.path)
		least := 4
		if p.name == "devices-not-found" {
			least = 2 // the links to the content and home
		}
		t.Run(p.name, func(t *testing.T) { fitToBeSeen(t, tab.in(t), p.name, least) })
	}
	tab.open("/")
	tab.press(`button[name="language"][value="de"]`)
	tab.open("/account/devices/")
	t.Run("devices-german", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "devices-german", 4) })
	tab.press(`form[action="sign-out-others"] button`)
	if got := tab.text(".messages") + " " + tab.attribute("html", "lang"); got != "Andere Geräte abgemeldet: 5. de" {
		t.Errorf("the page says %q", got)
	}
	tab.open("/")
	tab.press(`button[name="language"][value="en"]`)
	tab.open("/support")
	tab.fill("#email", "nobody@example.com")
	tab.press(".stack button")
	t.Run("support", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "support", 5) })
	tab.open("/support")
	tab.fill("#email", olga)
	tab.press(".stack button")
	t.Run("acting", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "acting", 5) })
	shop.failACommit(t)
	tab.open("/ops/")
	if got := tab.text(".status"); !strings.Contains(got, "1 problem") || !strings.Contains(got, "Failed commits: 1") {
		t.Errorf("after a failed commit the dashboard says %q", got)
	}
	t.Run("ops-problem", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "ops-problem", 4) })
	// The table behind a chart opens without a script.
	tab.open("/ops/?span=24h")
	tab.do(chromedp.Click(chromedp.CSS("summary")))
	if got := tab.text("details tbody th"); !strings.Contains(got, ":") {
		t.Errorf("the table begins with %q", got)
	}
}

// failACommit ends a customer's session while it is about to be saved.
func (s *testShop) failACommit(t *testing.T) {
	t.Helper()
	tab := startChromium(t).visitor(s.url).tab()
	tab.signUp("Ida", "ida@example.com")
	tab.open("/")
	gate := s.gates.hold(afterLoad, "POST /cart/add")
	arrived := tab.pressSlowly(add("tea"))
	gate.awaitArrival(t)
	if _, err := s.shop.sessions.RevokeUser(t.Context(), s.userOf(t, "ida@example.com")); err != nil {
		t.Fatal(err)
	}
	gate.open()
	arrived()
}

// userOf is the name that the session knows a customer by.
func (s *testShop) userOf(t *testing.T, email string) string {
	t.Helper()
	id, _, _, err := s.ledger.customerByEmail(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// populate signs olga in on various devices and simulates a day of traffic.
func (s *testShop) populate(t *testing.T) {
	t.Helper()
	for _, d := range []struct{ ip, agent string }{
		{"203.0.113.24", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"},
		{"198.51.100.7", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0"},
		{"2001:db8:4f2:11::8a", "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"},
		{"203.0.113.90", "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"},
		{"192.0.2.200", "curl/8.5.0"},
	} {
		s.signInFrom(t, d.ip, d.agent)
	}
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	for age := range 24 * 60 {
		at := now.Add(-time.Duration(age) * time.Minute)
		// More by day than by night.
		busy := 1 + 3*max(0, 1-float64((at.Hour()-15)*(at.Hour()-15))/70)
		for kind, often := range map[sojourn.EventKind]float64{
			sojourn.EventLogin: .5, sojourn.EventLogout: .18, sojourn.EventExpired: .1, sojourn.EventRevoked: .012,
		} {
			for range 4 {
				if random.Float64() < often*busy/4 {
					s.shop.recorder.Record(t.Context(), sojourn.Event{Kind: kind, Time: at})
				}
			}
		}
	}
}

// signInFrom signs olga in from an address that no test connects from.
func (s *testShop) signInFrom(t *testing.T, ip, agent string) {
	t.Helper()
	form := url.Values{"email": {olga}, "password": {"correct horse"}}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/login", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("User-Agent", agent)
	r.RemoteAddr = net.JoinHostPort(ip, "4711")
	w := httptest.NewRecorder()
	s.shop.handler().ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther || len(w.Result().Cookies()) == 0 {
		t.Fatalf("signing in from %s: %d", ip, w.Code)
	}
}

func TestAStrangersPasswordFormLeadsNowhereElse(t *testing.T) {
	shop := openShopWith(t, parts{insecure: true})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	post := func(path string, form url.Values) string {
		t.Helper()
		res, err := client.PostForm(shop.url+path, form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.Header.Get("Location")
	}
	post("/signup", url.Values{"name": {"Ida"}, "email": {"ida@example.com"}, "password": {"correct horse"}})
	for _, next := range []string{"https://elsewhere.example", "//elsewhere.example", `/\elsewhere.example`} {
		if got := post("/confirm", url.Values{"password": {"correct horse"}, "next": {next}}); got != "/account" {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}
