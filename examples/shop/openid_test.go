package main

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/oidc"
)

const adasEmail = "ada@example.com"

// openIDShop opens a shop with its own provider, and somebody who wants to sign in.
func openIDShop(t *testing.T, p parts) (*testShop, person) {
	t.Helper()
	p.insecure, p.provider.issuer = true, ours
	shop := openShopWith(t, p)
	return shop, shop.stranger(t)
}

func (s *testShop) stranger(t *testing.T) person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return person{t, s, &http.Client{Jar: jar}}
}

// signInThere goes to the provider by a link of the shop's, fills in its form, and
// returns where that leads to.
func (p person) signInThere(link string) (where, page string) {
	p.t.Helper()
	res, err := p.http.Get(p.shop.url + link)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	form, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(form), `name="id" value="`)
	id, _, _ := strings.Cut(rest, `"`)
	if !ok {
		p.t.Fatalf("%s leads to no form of the provider's: %s", link, form)
	}
	there := res.Request.URL.ResolveReference(&url.URL{Path: "/login/username"})
	return p.response(p.http.PostForm(there.String(), url.Values{"id": {id}, "username": {"ada"}, "password": {"engine"}}))
}

func wants(t *testing.T, what, where, wantWhere, page string, texts ...string) {
	t.Helper()
	if where != wantWhere {
		t.Errorf("%s leads to %s, want %s", what, where, wantWhere)
	}
	for _, text := range texts {
		if !strings.Contains(page, text) {
			_, main, _ := strings.Cut(page, "<div class=\"messages\"")
			t.Errorf("%s: the page does not say %q: %.1000s", what, text, main)
		}
	}
}

func TestACustomerOfTheProviderSignsInAndOut(t *testing.T) {
	t.Parallel()
	shop, ada := openIDShop(t, parts{})
	ada.post("/preferences", url.Values{"theme": {"dark"}, "language": {"de"}})
	ada.post("/cart/add", url.Values{"slug": {"mug"}})
	where, page := ada.get("/checkout")
	wants(t, "the checkout", where, "/login", page, `href="/auth/login?next=%2fcheckout"`, "Mit OpenID Connect anmelden")

	where, page = ada.signInThere("/auth/login?next=/checkout")
	wants(t, "the sign-in", where, "/checkout", page, "Schön, dass du wieder da bist, Ada Lovelace.", "× 1", `action="/auth/logout"`)
	where, page = ada.get("/account")
	wants(t, "the account", where, "/account", page, adasEmail, "OpenID Connect an, bei "+shop.shop.providerOrigin)
	if strings.Contains(page, "/account/password") {
		t.Error("the account offers to change a password")
	}
	where, page = ada.get("/account/password")
	wants(t, "the change of password", where, "/account", page, "Du hast hier kein Passwort.")
	where, page = ada.get("/account/devices/")
	wants(t, "the devices", where, "/account/devices/", page, `<html lang="de">`, "Deine Geräte", "/devices-dark.css")

	customer := shop.userOf(t, adasEmail)
	where, page = ada.post("/auth/logout", nil)
	wants(t, "the logout", where, "/", page, `<html lang="de" data-theme="dark">`, "Du bist abgemeldet", `href="/login"`)
	if sessions, err := shop.shop.sessions.Sessions(t.Context(), customer); len(sessions) != 0 || err != nil {
		t.Errorf("after the logout there are %d sessions, %v", len(sessions), err)
	}

	ada.signInThere("/auth/login")
	if again := shop.userOf(t, adasEmail); again != customer {
		t.Errorf("the second login is of customer %s, not %s", again, customer)
	}
	where, page = ada.post("/login", url.Values{"email": {adasEmail}, "password": {""}})
	wants(t, "a login while signed in, without a password", where, "/", page)
}

func TestNobodySignsInWithoutThePasswordThatACustomerDoesNotHave(t *testing.T) {
	t.Parallel()
	shop, ada := openIDShop(t, parts{})
	ada.signInThere("/auth/login")
	mallory := shop.stranger(t)
	for _, password := range []string{"", "engine"} {
		where, page := mallory.post("/login", url.Values{"email": {adasEmail}, "password": {password}})
		wants(t, "a password", where, "/login", page, "Address and password do not belong together.")
	}
	where, page := mallory.post("/signup", url.Values{"name": {"Mallory"}, "email": {adasEmail}, "password": {"correct horse"}})
	wants(t, "a sign-up", where, "/signup", page, "There is an account with this address.")
}

func TestAnAddressOfAnotherCustomerIsRefused(t *testing.T) {
	t.Parallel()
	shop, ada := openIDShop(t, parts{})
	other := shop.person(t, "Ada", adasEmail)
	where, page := ada.signInThere("/auth/login?next=/account")
	wants(t, "the sign-in", where, "/auth/callback", page, "There is an account with your e-mail address already.", `href="/login"`)
	if where, _ := ada.get("/account"); where != "/login" {
		t.Errorf("after the refusal the account is at %s", where)
	}
	where, page = other.get("/account")
	wants(t, "the other customer's account", where, "/account", page, "You sign in with your address and a password.")
}

func TestALogoutTokenAddsNobody(t *testing.T) {
	t.Parallel()
	shop, _ := openIDShop(t, parts{})
	ofToken := &oidc.Identity{Issuer: shop.shop.providerOrigin, Subject: "1815"} // without claims
	if user, err := shop.shop.userOfProvider(t.Context(), ofToken); err == nil {
		t.Errorf("a user whom nobody knows is %q", user)
	}
	if _, _, _, err := shop.ledger.customerByEmail(t.Context(), ""); err == nil {
		t.Error("a customer was added")
	}
	id, err := shop.ledger.addCustomerOf(t.Context(), ofToken.Issuer, ofToken.Subject, "Ada", adasEmail)
	if err != nil {
		t.Fatal(err)
	}
	if user, err := shop.shop.userOfProvider(t.Context(), ofToken); user != id || err != nil {
		t.Errorf("a user whom the shop knows is %q, %v, want %q", user, err, id)
	}
	// Another request was faster.
	if again, err := shop.ledger.addCustomerOf(t.Context(), ofToken.Issuer, ofToken.Subject, "Ada", adasEmail); again != id || err != nil {
		t.Errorf("added twice: %q, %v", again, err)
	}
}

func TestSignInsThatFailSayWhy(t *testing.T) {
	t.Parallel()
	_, ada := openIDShop(t, parts{})
	where, page := ada.get("/auth/callback?code=x&state=y")
	wants(t, "an answer that nobody waits for", where, "/auth/callback", page, "This sign-in began in another browser", `<a class="button" href="/login">`)
	where, page = ada.get("/login")
	wants(t, "the login with the example provider", where, "/login", page, "you are “ada”")

	away := openShopWith(t, parts{insecure: true, provider: provider{issuer: "http://localhost:1", clientID: "shop"}})
	where, page = away.stranger(t).get("/auth/login")
	wants(t, "a provider that is away", where, "/auth/login", page, "The provider cannot be reached")
	if _, page := away.stranger(t).get("/login"); strings.Contains(page, "you are “ada”") {
		t.Error("a shop with a provider of its own names the example's user")
	}

	without := openShopWith(t, parts{insecure: true})
	where, page = without.stranger(t).get("/auth/login")
	wants(t, "no provider", where, "/auth/login", page, "Off the trail")
	if _, page := without.stranger(t).get("/login"); strings.Contains(page, "OpenID") {
		t.Error("a shop without a provider offers OpenID Connect")
	}
}

func TestAnOperatorOfTheProviderConfirmsThere(t *testing.T) {
	t.Parallel()
	_, ada := openIDShop(t, parts{operator: adasEmail, recent: time.Nanosecond})
	ada.signInThere("/auth/login")
	if res, err := ada.http.Get(ada.shop.url + "/support"); err != nil || res.Request.URL.Path != "/login/username" || res.Request.URL.Host == strings.TrimPrefix(ada.shop.url, "http://") {
		t.Errorf("a page for operators leads to %v, %v", res.Request.URL, err)
	} else {
		res.Body.Close()
	}
	// The page of devices asks by a form.
	where, page := ada.post("/account/devices/sign-out-others", nil)
	wants(t, "signing out others", where, "/confirm", page, "Please sign in once more", `href="/auth/login?next=%2faccount%2fdevices%2f"`)
	where, _ = ada.signInThere("/auth/login?next=/account/devices/")
	if where != "/account/devices/" {
		t.Errorf("the sign-in leads to %s", where)
	}
}

func TestALogoutWithTheProviderEndsActing(t *testing.T) {
	t.Parallel()
	shop, ada := openIDShop(t, parts{operator: adasEmail})
	shop.person(t, "Ida", "ida@example.com")
	ada.signInThere("/auth/login")
	where, page := ada.post("/support", url.Values{"email": {"ida@example.com"}})
	wants(t, "acting", where, "/orders", page, "You see what Ida sees.")
	ada.post("/auth/logout", nil)
	ada.signInThere("/auth/login")
	if _, page := ada.get("/orders"); strings.Contains(page, "Ida") {
		t.Error("after a logout the operator still acts")
	}
}

// TestASignInSurvivesARestart also has the provider's address in use.
func TestASignInSurvivesARestart(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	first := startProcess(t, "localhost:0", data, "-insecure", "-provider", "localhost:0")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ada := person{t, &testShop{url: first.url}, &http.Client{Jar: jar}}
	where, page := ada.signInThere("/auth/login?next=/account")
	wants(t, "the sign-in", where, "/account", page, adasEmail)
	first.stop(t)
	issuer := regexp.MustCompile(`http://localhost:\d+`).FindString(page)
	second := startProcess(t, strings.TrimPrefix(first.url, "http://"), data, "-insecure", "-provider", strings.TrimPrefix(issuer, "http://"))
	where, page = ada.get("/account")
	wants(t, "the account after a restart", where, "/account", page, adasEmail)
	// The provider has new keys.
	where, page = ada.post("/auth/logout", nil)
	wants(t, "the logout after a restart", where, "/", page, "You are signed out")
	second.stop(t)
}

func TestTheProviderTakesAnotherPort(t *testing.T) {
	t.Parallel()
	p, stop, err := startProvider("localhost:0", "http://localhost:8080", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the shop closes as soon as it is open
	status, stdout, stderr := runShop(ctx, "-listen", "localhost:0", "-data", t.TempDir(), "-provider", strings.TrimPrefix(p.issuer, "http://"))
	if status != 0 || !strings.Contains(stdout, `with the password "engine"`) || strings.Contains(stdout, p.issuer+";") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
}

// TestARealBrowserSignsInWithTheProvider is about what only browsers do: they apply
// the Content-Security-Policy to the redirects that follow a form.
func TestARealBrowserSignsInWithTheProvider(t *testing.T) {
	t.Parallel()
	shop := openShopWith(t, parts{provider: provider{issuer: ours}})
	tab := startChromium(t).visitor(shop.url).tab()
	tab.open("/login?next=/account")
	t.Run("login", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "login-openid", 8) })
	tab.press(".otherway a")
	tab.photograph("provider-desktop-light.png")
	tab.photograph("provider-phone-light.png")
	tab.size(1280, 900)
	tab.fill("#username", "ada", "#password", "engine")
	tab.press("button")
	if tab.path() != "/account" {
		t.Fatalf("the sign-in leads to %s: %s", tab.path(), tab.pageText())
	}
	tab.press(`button[name="language"][value="de"]`)
	t.Run("account", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "account-openid", 8) })
	tab.open("/confirm")
	t.Run("confirm", func(t *testing.T) { fitToBeSeen(t, tab.in(t), "confirm-openid", 8) })
	tab.open("/")
	tab.press(`button[name="theme"][value="dark"]`)
	tab.open("/account/devices/")
	if got := eval[string](tab, "getComputedStyle(document.documentElement).backgroundColor"); got != "rgb(15, 25, 22)" {
		t.Errorf("in the dark theme the page of devices is %s", got)
	}
	tab.open("/")
	tab.press(`form[action="/auth/logout"] button`)
	if got := tab.path() + " " + tab.text(".messages"); got != "/ Du bist abgemeldet, in jedem Fenster dieses Browsers." {
		t.Errorf("the logout leads to %q", got)
	}
}
