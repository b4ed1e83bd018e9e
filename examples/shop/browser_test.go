package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
)

// stuck ends a test whose browser does not answer. It does not measure speed.
const stuck = 60 * time.Second

// shared is the browser process of all tests.
var shared realbrowser.Shared

// chromium is the browser of one test.
type chromium struct {
	t   *testing.T
	ctx context.Context
}

// startChromium returns a browser in which each visitor has cookies and a cache
// of their own.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	return &chromium{t, shared.Context(t)}
}

// visitor has its own cookies and any number of tabs.
type visitor struct {
	t   *testing.T
	ctx context.Context
	url string // of the shop
}

func (c *chromium) visitor(url string) *visitor {
	c.t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	c.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		c.t.Fatalf("opening a visitor's first tab: %v", err)
	}
	return &visitor{c.t, ctx, url}
}

// tab opens another tab of the same visitor. The test fails at its end if the
// tab saw a violation of the content security policy or an error in a script.
func (v *visitor) tab() *tab {
	v.t.Helper()
	ctx, cancel := chromedp.NewContext(v.ctx)
	v.t.Cleanup(cancel)
	tb := &tab{t: v.t, ctx: ctx, url: v.url}
	tb.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err1 := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		_, err2 := cdp.Call(ctx, t, audits.Enable, cdp.Empty{})
		return chromedp.Void{}, errors.Join(err1, err2)
	})
	tb.watch()
	tb.size(1280, 900)
	return tb
}

func (tb *tab) watch() {
	tb.t.Helper()
	var mu sync.Mutex
	var complaints []string
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		complaints = append(complaints, fmt.Sprintf(format, args...))
	}
	err := chromedp.Listen(tb.ctx, func(ev any) {
		switch ev := ev.(type) {
		case *log.EventEntryAdded:
			// Pages with a status of 400 and more are logged too: source "network".
			if ev.Entry.Source != log.EntrySourceNetwork && ev.Entry.Level == log.EntryLevelError {
				complain("%s: %s", ev.Entry.Source, ev.Entry.Text)
			}
		case *audits.EventIssueAdded:
			if ev.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
				complain("content security policy: %+v", *ev.Issue.Details.ContentSecurityPolicyIssueDetails)
			}
		case *runtime.EventExceptionThrown:
			complain("script: %s", ev.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			complain("console: %s", ev.Type)
		}
	})
	if err != nil {
		tb.t.Fatalf("listening to the browser: %v", err)
	}
	tb.complaints = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return complaints
	}
	tb.t.Cleanup(func() {
		for _, c := range tb.complaints() {
			tb.t.Errorf("the browser complained: %s", c)
		}
	})
}

// cookies returns the visitor's cookies by name.
func (v *visitor) cookies() map[string]*network.Cookie {
	v.t.Helper()
	res, err := chromedp.CallBrowser(v.ctx, storage.GetCookies,
		storage.GetCookiesParams{BrowserContextID: chromedp.FromContext(v.ctx).BrowserContextID})
	if err != nil {
		v.t.Fatalf("reading the cookies: %v", err)
	}
	all := map[string]*network.Cookie{}
	for _, c := range res.Cookies {
		all[c.Name] = c
	}
	return all
}

// cookieHeader is the browser's Cookie header.
func (v *visitor) cookieHeader() string {
	v.t.Helper()
	var pairs []string
	for name, c := range v.cookies() {
		pairs = append(pairs, name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// tab is one tab of a visitor.
type tab struct {
	t          *testing.T
	ctx        context.Context
	url        string
	complaints func() []string
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
		tb.t.Fatalf("driving the browser: %v\nThe page says: %s", err, tb.pageText())
	}
}

// open goes to a path of the shop and returns the status of the page.
func (tb *tab) open(path string) int {
	tb.t.Helper()
	return tb.arrive(chromedp.Navigate(tb.url + path))
}

// press activates a link or a button and waits for the page behind it. It
// returns that page's status.
func (tb *tab) press(selector string) int {
	tb.t.Helper()
	return tb.arrive(chromedp.Click(chromedp.CSS(selector)))
}

func (tb *tab) arrive(steps ...chromedp.Action[chromedp.Void]) int {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	defer cancel()
	response, err := chromedp.RunResponse(ctx, steps...)
	if err != nil {
		tb.t.Fatalf("waiting for a page: %v\nThe page says: %s", err, tb.pageText())
	}
	return int(response.Status)
}

// pressSlowly activates a control whose response is being delayed. The returned
// function waits for the page.
func (tb *tab) pressSlowly(selector string) (arrived func()) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	loaded := chromedp.Events(ctx, cdppage.LoadEventFired)
	tb.do(chromedp.Click(chromedp.CSS(selector)))
	return func() {
		tb.t.Helper()
		defer cancel()
		for _, err := range loaded {
			if err != nil {
				tb.t.Fatalf("waiting for a slow page: %v", err)
			}
			return
		}
		tb.t.Fatal("a slow page did not arrive")
	}
}

// fill types into fields, given as selector and text by turns.
func (tb *tab) fill(fields ...string) {
	tb.t.Helper()
	for i := 0; i < len(fields); i += 2 {
		tb.do(chromedp.SendKeys(chromedp.CSS(fields[i]), fields[i+1]))
	}
}

func (tb *tab) keys(keys string, opts ...chromedp.KeyOption) {
	tb.t.Helper()
	tb.do(chromedp.KeyEvent(keys, opts...))
}

// eval returns the value of a script's expression.
func eval[T any](tb *tab, script string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, stuck)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		tb.t.Fatalf("evaluating %q: %v", script, err)
	}
	return v
}

// text returns the visible text of the first element that matches, "" if none does.
func (tb *tab) text(selector string) string {
	tb.t.Helper()
	return eval[string](tb, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

func (tb *tab) attribute(selector, name string) string {
	tb.t.Helper()
	return eval[string](tb, fmt.Sprintf("document.querySelector(%q)?.getAttribute(%q) ?? ''", selector, name))
}

func (tb *tab) path() string {
	tb.t.Helper()
	return eval[string](tb, "location.pathname")
}

// pageText is for failure messages, so it never fails.
func (tb *tab) pageText() string {
	ctx, cancel := context.WithTimeout(tb.ctx, time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.pathname + ': ' + document.body.innerText.slice(0, 600)"))
	if err != nil {
		return err.Error()
	}
	return s
}

func (tb *tab) size(width, height int64) {
	tb.t.Helper()
	tb.do(chromedp.EmulateViewport(width, height))
}

// prefer sets what the visitor's system prefers: "light" or "dark".
func (tb *tab) prefer(scheme string) {
	tb.t.Helper()
	tb.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: "reduce"}, // no colours halfway
			},
		})
		return chromedp.Void{}, err
	})
}

// placement is the session's placement as shown in the strip.
func (tb *tab) placement() string {
	tb.t.Helper()
	return tb.attribute(".strip", "data-placement")
}

func (tb *tab) handle() string {
	tb.t.Helper()
	return tb.text(".strip-handle code")
}

// inCart is the number next to the cart's icon, "" for none.
func (tb *tab) inCart() string {
	tb.t.Helper()
	return tb.text(`.you a[href="/cart"] span`)
}

func (tb *tab) signedIn() bool {
	tb.t.Helper()
	return tb.text(`form[action="/logout"] button`) != ""
}

// signUp makes an account; the visitor is signed in afterwards.
func (tb *tab) signUp(name, email string) {
	tb.t.Helper()
	tb.open("/signup")
	tb.fill("#name", name, "#email", email, "#password", "correct horse")
	tb.press(`.stack button`)
	if !tb.signedIn() {
		tb.t.Fatalf("%s is not signed in after signing up: %s", name, tb.pageText())
	}
}

func add(slug string) string {
	return fmt.Sprintf(`form[action="/cart/add"]:has(input[value=%q]) button`, slug)
}

func wish(slug string) string {
	return fmt.Sprintf(`form[action="/wishes"]:has(input[value=%q]) button`, slug)
}

// replay requests a path with the given cookies, like an attacker who has
// copied them, and does not follow redirects.
func replay(t *testing.T, url, cookies string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookies)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}
