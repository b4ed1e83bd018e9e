package browser

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
)

// stuck ends a test whose browser does not answer. It does not measure speed.
const stuck = 60 * time.Second

// All tests but one share a browser; each has visitors of its own.
func TestInChromium(t *testing.T) {
	browser := startChromium(t, realbrowser.Profile(t))
	for name, test := range map[string]func(*testing.T, context.Context){
		"the cookies' attributes change":           attributesChange,
		"a link from another site to what writes":  linksFromAnotherSite,
		"what another site sends replaces nothing": anotherSiteReplacesNothing,
		"tabs of a session that was revoked":       revokedTabs,
		"the answer to a logout or login is lost":  lostAnswers,
		"messages wait for a page that is seen":    messagesWait,
		"a page of another origin uses tokens":     aPageOfAnotherOriginUsesTokens,
	} {
		t.Run(name, func(t *testing.T) { test(t, browser) })
	}
}

// startChromium starts a browser that finds and trusts every site.
func startChromium(t *testing.T, profile string) context.Context {
	t.Helper()
	server := httptest.NewTLSServer(nil) // its key is that of all test servers
	server.Close()
	key := sha256.Sum256(server.Certificate().RawSubjectPublicKeyInfo)
	return realbrowser.Start(t, profile,
		chromedp.Flag("host-resolver-rules", "MAP *.example.com 127.0.0.1, MAP "+foreign+" 127.0.0.1"),
		// Unlike ignore-certificate-errors, it does not turn off the cache and prerendering.
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(key[:])),
		chromedp.Flag("disable-features", "BackForwardCache")) // it keeps pages that nobody sees
}

// visitor has its own cookies and any number of tabs.
type visitor struct {
	t    *testing.T
	site *site
	ctx  context.Context
}

// newVisitor returns a new visitor in a running browser.
func newVisitor(t *testing.T, s *site, browser context.Context) *visitor {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("opening a visitor's first tab: %v", err)
	}
	return &visitor{t, s, ctx}
}

// forget drops the visitor's cookies.
func (v *visitor) forget() {
	v.t.Helper()
	_, err := chromedp.CallBrowser(v.ctx, storage.ClearCookies,
		storage.ClearCookiesParams{BrowserContextID: chromedp.FromContext(v.ctx).BrowserContextID})
	if err != nil {
		v.t.Fatalf("dropping the cookies: %v", err)
	}
}

// cookies returns the names of the visitor's cookies, one for each that the
// browser keeps apart from others.
func (v *visitor) cookies() (names []string) {
	v.t.Helper()
	res, err := chromedp.CallBrowser(v.ctx, storage.GetCookies,
		storage.GetCookiesParams{BrowserContextID: chromedp.FromContext(v.ctx).BrowserContextID})
	if err != nil {
		v.t.Fatalf("reading the cookies: %v", err)
	}
	for _, c := range res.Cookies {
		names = append(names, c.Name)
	}
	return names
}

// tab is one tab of a visitor.
type tab struct {
	t    *testing.T
	site *site
	ctx  context.Context
}

// tab opens another tab.
func (v *visitor) tab() *tab {
	v.t.Helper()
	ctx, cancel := chromedp.NewContext(v.ctx)
	v.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		v.t.Fatalf("opening a tab: %v", err)
	}
	return &tab{v.t, v.site, ctx}
}

// open goes to an address and returns the status of the page.
func (tb *tab) open(address string) int {
	tb.t.Helper()
	return tb.arrive(chromedp.Navigate(address))
}

// home goes to a page of the application, unless it is on one.
func (tb *tab) home() {
	tb.t.Helper()
	if eval[bool](tb, `!document.querySelector("#state")`) {
		tb.open(tb.site.url("/app/"))
	}
}

// press activates a link or a button by its ID, and returns the status of the
// page behind it.
func (tb *tab) press(id string) int {
	tb.t.Helper()
	return tb.arrive(chromedp.Click(chromedp.CSS("#" + id)))
}

func (tb *tab) arrive(step chromedp.Action[chromedp.Void]) int {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	defer cancel()
	response, err := chromedp.RunResponse(ctx, step)
	if err != nil {
		tb.t.Fatalf("waiting for a page: %v\nThe page says: %s", err, tb.text())
	}
	return int(response.Status)
}

// reload loads the page again.
func (tb *tab) reload() {
	tb.t.Helper()
	tb.arrive(chromedp.Reload())
}

// back goes back to the page before, which is loaded again.
func (tb *tab) back() {
	tb.t.Helper()
	tb.do(chromedp.NavigateBack())
}

func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	// The first use binds the tab to its context, so that one has no deadline.
	if err := chromedp.Do(tb.ctx); err != nil {
		tb.t.Fatalf("opening a tab: %v", err)
	}
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tb.t.Fatalf("driving the browser: %v\nThe page says: %s", err, tb.text())
	}
}

// eval returns the value of a script's expression, or of its promise.
func eval[T any](tb *tab, script string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("evaluating %q: %v", script, err)
	}
	return v
}

// settle waits until the tab shows a page of the application, after any
// automatic reloads.
func (tb *tab) settle() {
	tb.t.Helper()
	tb.do(chromedp.WaitReady(chromedp.CSS("#state")))
}

// text is the text of the page.
func (tb *tab) text() string {
	ctx, cancel := context.WithTimeout(tb.ctx, time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + ': ' + document.body.innerText.slice(0, 600)"))
	if err != nil {
		return err.Error()
	}
	return s
}

// state is the page's text about the visitor, such as "user ada, theme dark,
// cart 1".
func (tb *tab) state() string {
	tb.t.Helper()
	return eval[string](tb, "("+state+")(document)")
}

// state is a function of a page of the application.
const state = `page => {
	const s = page.querySelector("#state")?.dataset;
	if (!s) return page.body.innerText.trim();
	return ["user", "theme", "cart", "visits"].filter(n => s[n] && s[n] !== "0").map(n => n + " " + s[n]).join(", ");
}`

// after presses buttons of the application, like a script in its page, and
// returns the visitor's state then.
func (tb *tab) after(ids ...string) string {
	tb.t.Helper()
	paths := make([]string, len(ids))
	for i, id := range ids {
		paths[i] = buttons[id]
	}
	return eval[string](tb, fmt.Sprintf(`(async () => {
		for (const path of %q.split(" ")) {
			if (!path) continue;
			const answer = await fetch(path, {method: "POST", redirect: "manual"});
			if (answer.type !== "opaqueredirect") return path + ": " + answer.status;
		}
		const page = await (await fetch("/app/")).text();
		return (%s)(new DOMParser().parseFromString(page, "text/html"));
	})()`, strings.Join(paths, " "), state))
}

// wants checks the visitor's state after some buttons.
func (tb *tab) wants(when, state string, ids ...string) {
	tb.t.Helper()
	if got := tb.after(ids...); got != state {
		tb.t.Errorf("%s: the application says %q, want %q", when, got, state)
	}
}
