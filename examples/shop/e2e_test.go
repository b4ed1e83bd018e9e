package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// These tests use a real browser, because they depend on it: which cookies it
// keeps, which response arrives last, and parallel requests of two tabs.

func TestLookingAroundMakesNoSession(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	tab := v.tab()
	for _, path := range []string{"/", "/shelf/night", "/product/tent", "/cart", "/session"} {
		tab.open(path)
		if got := tab.placement(); got != "none" {
			t.Errorf("%s: the session is %q, want none", path, got)
		}
	}
	if got := v.cookies(); len(got) != 0 {
		t.Errorf("the visitor has cookies: %v", got)
	}
}

func TestAnonymousPreferenceStaysInTheCookie(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	tab := v.tab()
	tab.open("/")
	tab.press(`button[name="theme"][value="dark"]`)
	tab.press(`button[name="language"][value="de"]`)
	tab.open("/shelf/paper")

	if got := tab.attribute("html", "data-theme"); got != "dark" {
		t.Errorf("the theme is %q, want dark", got)
	}
	if got := tab.attribute("html", "lang"); got != "de" {
		t.Errorf("the language is %q, want de", got)
	}
	if got := tab.placement(); got != "inline" {
		t.Errorf("the session is %q, want inline", got)
	}
	if got := shop.rows(t); got != 0 {
		t.Errorf("the store has %d rows, want none", got)
	}
	for name, c := range v.cookies() {
		if !c.HTTPOnly || !c.Secure || !strings.HasPrefix(name, "__Host-") || c.SameSite != "Lax" {
			t.Errorf("cookie %s: HttpOnly %v, Secure %v, SameSite %s", name, c.HTTPOnly, c.Secure, c.SameSite)
		}
	}
}

func TestCartLivesInTheStoreAndPreferencesComeAlong(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()
	tab.open("/")
	tab.press(`button[name="theme"][value="dark"]`)
	tab.press(add("mug"))

	if got := tab.placement(); got != "stored" {
		t.Errorf("the session is %q, want stored", got)
	}
	if got := tab.inCart(); got != "1" {
		t.Errorf("the cart holds %q, want 1", got)
	}
	if got := tab.attribute("html", "data-theme"); got != "dark" {
		t.Errorf("the theme is %q, want dark", got)
	}
	if got := shop.rows(t); got != 1 {
		t.Errorf("the store has %d rows, want 1", got)
	}
}

func TestStripSaysWhatARequestCosts(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()
	// costs returns the strip's lines up to the first duration.
	costs := func() string {
		return strings.Join(eval[[]string](tab, `[...document.querySelectorAll('.strip-cost')].map(e => e.innerText.replace(/ · (store )?[\d.]+ ms.*/, ''))`), "; ")
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"a first look", func() { tab.open("/") }, "This page: no store call"},
		{"a theme", func() { tab.press(`button[value="dark"]`) }, "This page: no store call; The form before it (/preferences): no store call"},
		{"a first item, whose message is taken out", func() { tab.press(add("mug")) }, "This page: loads 1 · saves 1; The form before it (/cart/add): loads 0 · saves 1"},
		{"a second item", func() { tab.press(add("mug")) }, "This page: loads 1 · saves 1; The form before it (/cart/add): loads 1 · saves 1"},
		{"another look", func() { tab.open("/cart") }, "This page: loads 1 · saves 0"},
	} {
		step.do()
		if got := costs(); got != step.want {
			t.Errorf("%s: the strip says %q, want %q", step.name, got, step.want)
		}
	}
}

func TestCartSurvivesARestartOfTheShop(t *testing.T) {
	t.Parallel()
	data := t.TempDir() + "/shop"
	first := startProcess(t, "localhost:0", data)
	tab := startChromium(t).visitor(first.url).tab()
	tab.open("/product/lantern")
	tab.do(chromedp.Clear(chromedp.CSS("#quantity")))
	tab.fill("#quantity", "3")
	tab.press(".buy button")
	handle := tab.handle()
	first.stop(t)

	second := startProcess(t, strings.TrimPrefix(first.url, "http://"), data)
	tab.open("/cart")
	if got := tab.text(".lines .count"); !strings.HasSuffix(got, "3") {
		t.Errorf("after the restart the cart shows %q lanterns, want 3", got)
	}
	if got := tab.handle(); got != handle || handle == "" {
		t.Errorf("after the restart the session is %q, want %q", got, handle)
	}
	second.stop(t)
}

func TestLoginChangesTheIdentifierAndKeepsTheCart(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	tab := v.tab()
	tab.open("/")
	tab.press(add("compass"))
	handle, cookies := tab.handle(), v.cookieHeader()

	tab.signUp("Ida", "ida@example.com")
	if got := tab.inCart(); got != "1" {
		t.Errorf("after the login the cart holds %q, want 1", got)
	}
	if got := tab.handle(); got == handle || got == "" {
		t.Errorf("the handle is %q before and %q after the login", handle, got)
	}
	if got := v.cookieHeader(); got == cookies {
		t.Error("the login left the cookie as it was")
	}
	if got := replay(t, shop.url+"/orders", v.cookieHeader()); got.StatusCode != http.StatusOK {
		t.Errorf("with the new cookie /orders answers %d, want 200", got.StatusCode)
	}
	if got := replay(t, shop.url+"/orders", cookies); got.Header.Get("Location") != "/login?next=%2Forders" {
		t.Errorf("with the cookie from before the login /orders answers %d and goes to %q, want the login page", got.StatusCode, got.Header.Get("Location"))
	}
}

func TestLoginGoesBackToWhereItWasAskedFor(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	c := startChromium(t)
	tab := c.visitor(shop.url).tab()
	tab.signUp("Ida", "ida@example.com")
	tab.press(`form[action="/logout"] button`)

	tab.open("/")
	tab.press(add("map"))
	tab.open("/cart")
	tab.press(".sum .button")
	tab.fill("#email", "ida@example.com", "#password", "not this one")
	tab.press(".stack button")
	if got := tab.text("#password-problem"); got == "" {
		t.Fatal("a wrong password brings no explanation")
	}
	if got := eval[string](tab, "document.querySelector('#email').value"); got != "ida@example.com" {
		t.Errorf("after a wrong password the address is %q", got)
	}
	tab.fill("#password", "correct horse")
	tab.press(".stack button")
	if got := tab.path(); got != "/checkout" {
		t.Errorf("the login leads to %s, want /checkout", got)
	}
}

func TestTwoTabsAddAtOnceAndBothArrive(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	one, two := v.tab(), v.tab()
	one.open("/")
	one.press(add("mug"))
	two.open("/")

	// Both requests have loaded a cart with one mug before either changes it.
	first := shop.gates.hold(afterLoad, "POST /cart/add")
	oneArrived := one.pressSlowly(add("tent"))
	first.awaitArrival(t)
	second := shop.gates.hold(afterLoad, "POST /cart/add")
	twoArrived := two.pressSlowly(add("socks"))
	second.awaitArrival(t)
	first.open()
	second.open()
	oneArrived()
	twoArrived()

	one.open("/cart")
	cart := one.text(".lines")
	for _, name := range []string{"Enamel mug", "One-pole tent", "Walking socks"} {
		if !strings.Contains(cart, name) {
			t.Errorf("the cart lacks: %s\n%s", name, cart)
		}
	}
}

func TestSlowRequestDoesNotUndoALogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		at   point
		do   string // in the slow tab, before the login
		with string // the visitor's earlier action
	}{
		{"stored, overtaken between load and save", afterLoad, wish("map"), add("mug")},
		{"stored, its answer arrives late", beforeAnswer, wish("map"), add("mug")},
		{"in the cookie, its answer arrives late", beforeAnswer, wish("map"), `button[name="theme"][value="dark"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := openShop(t)
			v := startChromium(t).visitor(shop.url)
			fast, slow := v.tab(), v.tab()
			fast.open("/")
			fast.press(c.with)
			slow.open("/")

			gate := shop.gates.hold(c.at, "POST /wishes")
			arrived := slow.pressSlowly(c.do)
			gate.awaitArrival(t)
			fast.signUp("Ida", "ida@example.com")
			handle := fast.handle()
			gate.open()
			arrived()

			fast.open("/")
			if !fast.signedIn() || fast.handle() != handle {
				t.Errorf("after the slow answer: signed in %v, handle %q, want %q", fast.signedIn(), fast.handle(), handle)
			}
			slow.open("/")
			if !slow.signedIn() {
				t.Error("the slow tab is not signed in")
			}
		})
	}
}

func TestSlowRequestDoesNotUndoAPromotion(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	fast, slow := v.tab(), v.tab()
	fast.open("/")
	fast.press(`button[name="theme"][value="dark"]`)
	slow.open("/preferences")

	gate := shop.gates.hold(beforeAnswer, "POST /preferences")
	arrived := slow.pressSlowly(".stack button")
	gate.awaitArrival(t)
	fast.press(add("mug"))
	handle := fast.handle()
	gate.open()
	arrived()

	fast.open("/cart")
	if got := fast.placement(); got != "stored" || fast.handle() != handle {
		t.Errorf("after the slow answer the session is %q with handle %q, want stored and %q", got, fast.handle(), handle)
	}
	if got := fast.inCart(); got != "1" {
		t.Errorf("after the slow answer the cart holds %q, want 1", got)
	}
}

func TestLogoutInOneTabIsFinalInTheOther(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	one, two := v.tab(), v.tab()
	one.open("/")
	one.press(`button[name="theme"][value="dark"]`)
	one.signUp("Ida", "ida@example.com")
	two.open("/")
	cookies := v.cookieHeader()

	gate := shop.gates.hold(afterLoad, "POST /wishes")
	arrived := two.pressSlowly(wish("map"))
	gate.awaitArrival(t)
	one.press(`form[action="/logout"] button`)
	gate.open()
	arrived()

	if got := two.text("main"); !strings.Contains(got, "Your session ended") {
		t.Errorf("the overtaken request says: %s", got)
	}
	two.open("/")
	if two.signedIn() {
		t.Error("the other tab is still signed in")
	}
	if got := two.attribute("html", "data-theme"); got != "dark" {
		t.Errorf("after the logout the theme is %q, want dark", got)
	}
	if got := replay(t, shop.url+"/orders", cookies); got.StatusCode != http.StatusSeeOther {
		t.Errorf("with a copied cookie /orders answers %d after the logout", got.StatusCode)
	}
	two.open("/orders")
	if got := two.path(); got != "/login" {
		t.Errorf("after the logout /orders leads to %s, want the login page", got)
	}
}

func TestCheckoutSentTwiceOrdersOnce(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	one, two := v.tab(), v.tab()
	one.signUp("Ida", "ida@example.com")
	one.open("/")
	one.press(add("blanket"))
	for _, tab := range []*tab{one, two} {
		tab.open("/checkout")
		tab.fill("#name", "Ida", "#street", "Track 1", "#city", "Somewhere")
	}
	third := v.tab()
	third.open("/")
	third.press(add("blanket"))

	// Both requests have found the checkout open before either takes it.
	first := shop.gates.hold(afterLoad, "POST /checkout")
	oneArrived := one.pressSlowly(".panel button")
	first.awaitArrival(t)
	second := shop.gates.hold(afterLoad, "POST /checkout")
	twoArrived := two.pressSlowly(".panel button")
	second.awaitArrival(t)
	first.open()
	second.open()
	oneArrived()
	twoArrived()

	if one.path() != two.path() || !strings.HasPrefix(one.path(), "/orders/FW-") {
		t.Errorf("the tabs arrived at %s and %s, want the same order", one.path(), two.path())
	}
	one.open("/orders")
	if got := eval[int](one, "document.querySelectorAll('tbody tr').length"); got != 1 {
		t.Errorf("there are %d orders, want 1", got)
	}
	if got := one.inCart(); got != "1" {
		t.Errorf("after the order the cart holds %q, want the 1 blanket that was added meanwhile", got)
	}
}

func TestWhatIsAddedDuringTheCheckoutStaysInTheCart(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	v := startChromium(t).visitor(shop.url)
	one, two := v.tab(), v.tab()
	one.signUp("Ida", "ida@example.com")
	one.open("/")
	one.press(add("blanket"))
	one.open("/checkout")
	one.fill("#name", "Ida", "#street", "Track 1", "#city", "Somewhere")
	two.open("/")
	two.press(add("blanket"))
	two.press(add("tea"))
	one.press(".panel button")

	if got := one.text(".bill"); !strings.Contains(got, "× 1") || strings.Contains(got, "tea") {
		t.Errorf("ordered was: %s", got)
	}
	if got := one.inCart(); got != "2" {
		t.Errorf("after the order the cart holds %q, want the 2 that were added meanwhile", got)
	}
}

func TestAddingToTheCartNeedsNoMouse(t *testing.T) {
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()
	tab.open("/")
	focused := func() string {
		return eval[string](tab, "(e => e.getAttribute('aria-label') || e.innerText)(document.activeElement)")
	}
	// tabTo goes on with the Tab key until the focus is on something, and fails
	// when it has been everywhere.
	tabTo := func(name string) {
		t.Helper()
		for range 80 {
			tab.keys(kb.Tab)
			if focused() == name {
				if !eval[bool](tab, "[null, '::after'].some(p => (s => s.outlineStyle == 'solid' && parseFloat(s.outlineWidth) >= 2)(getComputedStyle(document.activeElement, p)))") {
					t.Errorf("%s: the focus cannot be seen", name)
				}
				return
			}
		}
		t.Fatalf("the Tab key does not reach: %s", name)
	}
	tabTo("Skip to the content")
	tab.keys(kb.Enter)
	tabTo("One-pole tent")
	tab.arrive(chromedp.KeyEvent(kb.Enter))
	if got := tab.path(); got != "/product/tent" {
		t.Fatalf("Enter on the tent leads to %s", got)
	}
	tabTo("Add to cart")
	tab.arrive(chromedp.KeyEvent(kb.Enter))
	if got := tab.text(".message"); !strings.Contains(got, "One-pole tent") {
		t.Errorf("the message says %q", got)
	}
	tabTo("Cart, items: 1")
	tab.arrive(chromedp.KeyEvent(kb.Enter))
	if got := tab.path(); got != "/cart" {
		t.Errorf("Enter on the cart leads to %s", got)
	}
}

func TestShopWorksWithoutJavaScript(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()
	if _, err := chromedp.Call(tab.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	tab.open("/")
	tab.press(add("rucksack"))
	tab.press(wish("tea"))
	tab.press(`button[name="theme"][value="dark"]`)
	tab.signUp("Ida", "ida@example.com")
	tab.open("/cart")
	tab.press(`button[value="more"]`)
	tab.press(".sum .button")
	tab.fill("#name", "Ida", "#street", "Track 1", "#city", "Somewhere")
	tab.press(".panel button")
	if got := tab.text(".bill"); !strings.Contains(got, "× 2") {
		t.Errorf("ordered was: %s", got)
	}
	tab.press(`form[action="/logout"] button`)
	if tab.signedIn() {
		t.Error("the visitor is still signed in")
	}
}
