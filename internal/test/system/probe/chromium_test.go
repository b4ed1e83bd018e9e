package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// The tests in this file use a real browser's cookies, with responses that are
// reordered, lost, or arrive after a crash.

// chromium is a browser process with one visitor.
type chromium struct {
	t    *testing.T
	ctx  context.Context // of its first tab
	base string
}

// close closes the browser as its user would, with everything written to disk.
func (c *chromium) close() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, client.Patience)
	defer cancel()
	if err := chromedp.Cancel(ctx); err != nil {
		c.t.Fatalf("closing the browser: %v", err)
	}
}

// kill ends the browser without giving it a chance to do anything more.
func (c *chromium) kill() {
	c.t.Helper()
	if err := chromedp.FromContext(c.ctx).Browser.Process().Kill(); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.ctx, client.Patience)
	defer cancel()
	_ = chromedp.Cancel(ctx) // it is gone, which is an error here
}

// startChromium starts a browser with the cookies in a profile.
func startChromium(t *testing.T, profile, base string) *chromium {
	t.Helper()
	c := &chromium{t: t, ctx: realbrowser.Start(t, profile), base: base}
	c.open(c.ctx)
	return c
}

// open goes to a page of the probe, from where scripts can call the others.
func (c *chromium) open(tab context.Context) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(tab, client.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(c.base+"/untouched")); err != nil {
		c.t.Fatalf("opening a page: %v", err)
	}
}

// tab opens another tab of the same visitor.
func (c *chromium) tab() context.Context {
	c.t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx)
	c.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		c.t.Fatalf("opening a tab: %v", err)
	}
	c.open(ctx)
	return ctx
}

// script runs a script in a tab, and returns the value of its promise.
func script[T any](t *testing.T, tab context.Context, limit time.Duration, text string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, limit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](text, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Errorf("a script in the browser: %v", err)
	}
	return v
}

// call sends a request as a script on the page does.
func (c *chromium) call(method, path string) client.Answer {
	c.t.Helper()
	text := script[string](c.t, c.ctx, client.Patience, fmt.Sprintf(
		`fetch(%q, {method: %q}).then(async r => JSON.stringify({status: r.status, text: await r.text()}))`, path, method))
	var out struct {
		Status int
		Text   string
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		c.t.Errorf("%s %s: %v in %q", method, path, err, text)
	}
	r := client.Answer{Status: out.Status, Body: out.Text}
	if err := r.Read(); err != nil {
		c.t.Errorf("%s %s: %v", method, path, err)
	}
	return r
}

// credential is the value of the reference cookie, as the browser has it.
func (c *chromium) credential() string {
	c.t.Helper()
	res, err := chromedp.CallBrowser(c.ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		c.t.Fatalf("reading the cookies: %v", err)
	}
	for _, cookie := range res.Cookies {
		if cookie.Name == "session" {
			return cookie.Value
		}
	}
	return ""
}

// clicks is a visitor's activity in one tab: sequential requests that change
// the session, some of which are aborted before the answer, and an occasional
// reload of the page.
const clicks = `(async () => {
	const until = performance.now() + %d;
	const seen = {done: 0, lost: 0, bad: ""};
	while (performance.now() < until) {
		const giveUp = new AbortController();
		const hurry = Math.random() < 0.2;
		if (hurry) setTimeout(() => giveUp.abort(), Math.random() * 30);
		try {
			const [counted, info] = await Promise.all([
				fetch("/incr?key=n&delay=" + Math.floor(Math.random() * 20), {method: "POST", signal: giveUp.signal}),
				fetch("/info", {signal: giveUp.signal}),
			]);
			const who = await info.json();
			if (!counted.ok || who.user !== "ada") { seen.bad = counted.status + " " + JSON.stringify(who); break; }
			seen.done++;
		} catch (e) {
			if (!hurry) { seen.bad = String(e); break; }
			seen.lost++;
		}
	}
	return JSON.stringify(seen);
})()`

// In make soak it runs ten times as long as the other scenarios: ten minutes by
// default.
func TestFiveTabsOfABrowserNeverRaiseAFalseAlarm(t *testing.T) {
	t.Parallel()
	const tabs = 5
	work := max(6*time.Second, 10*soakTime(t))
	shared(t, func(t *testing.T, e engine, store string) {
		s := newSite(t, e, store, "-rotate", "1s", "-grace", "2s")
		c := startChromium(t, realbrowser.Profile(t), s.visitor.base)
		handle := c.call("POST", "/login?user=ada").Handle
		first := c.credential()
		all := []context.Context{c.ctx}
		for range tabs - 1 {
			all = append(all, c.tab())
		}
		type tally struct {
			Done, Lost int
			Bad        string
		}
		begin := time.Now()
		var total [tabs]tally
		together(tabs, func(i int) {
			// A reload aborts the page's requests.
			for left := work; left > 0; left = work - time.Since(begin) {
				piece := min(left, 5*time.Second)
				text := script[string](t, all[i], piece+client.Patience, fmt.Sprintf(clicks, piece.Milliseconds()))
				var n tally
				if err := json.Unmarshal([]byte(text), &n); err != nil || n.Bad != "" {
					t.Errorf("tab %d: %v %s", i, err, text)
					return
				}
				total[i].Done += n.Done
				total[i].Lost += n.Lost
				reload(t, all[i])
			}
		})
		done, lost := 0, 0
		for _, n := range total {
			done, lost = done+n.Done, lost+n.Lost
		}
		t.Logf("%d times all went well, %d requests were given up", done, lost)
		if s.alarms() > 0 {
			t.Error("theft was suspected where there was none")
		}
		if r := c.call("GET", "/info"); r.User != "ada" || r.Handle != handle {
			t.Errorf("afterwards the visitor has %s", r.Body)
		}
		if c.credential() == first {
			t.Error("the credential was never renewed: the test shows nothing")
		}
		if n := c.call("GET", "/get?key=n"); done == 0 || !n.Found {
			t.Errorf("%d requests did something, and the counter is %s", done, n.Body)
		}
	})
}

// reload loads the page of a tab again, with a request under way.
func reload(t *testing.T, tab context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, client.Patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](`void fetch("/incr?key=n&delay=200", {method: "POST"})`))
	if err == nil {
		err = chromedp.Do(ctx, chromedp.Reload())
	}
	if err != nil {
		t.Errorf("loading a page again: %v", err)
	}
}

// crash kills a new browser whose credential was just renewed, and restarts it.
// It reports whether the browser then has the previous credential.
func crash(t *testing.T, s *site) (c *chromium, handle, onDisk string, late bool) {
	t.Helper()
	profile := realbrowser.Profile(t)
	c = startChromium(t, profile, s.visitor.base)
	handle = c.call("POST", "/login?user=ada").Handle
	onDisk = c.credential()
	c.close()

	c = startChromium(t, profile, s.visitor.base)
	if c.credential() != onDisk {
		t.Fatal("the browser has not kept its cookie")
	}
	client.Eventually(t, "the credential is renewed", func() bool {
		c.call("GET", "/info")
		return c.credential() != onDisk
	})
	c.call("GET", "/info") // brings the new one back
	c.kill()

	c = startChromium(t, profile, s.visitor.base)
	return c, handle, onDisk, c.credential() == onDisk
}

// Chromium writes its cookies to disk half a minute late.
func TestABrowserThatWasKilledComesBackWithTheCredentialBefore(t *testing.T) {
	t.Parallel()
	shared(t, func(t *testing.T, e engine, store string) {
		s := newSite(t, e, store, "-rotate", "1s", "-grace", "1m")
		c, handle, onDisk, late := crash(t, s)
		for range 4 { // now and then the browser writes earlier, and a crash loses nothing
			if late {
				break
			}
			c.close()
			c, handle, onDisk, late = crash(t, s)
		}
		if !late {
			t.Fatal("the browser has always written the new cookie already: the test shows nothing")
		}
		if r := c.call("GET", "/info"); r.User != "ada" || r.Handle != handle {
			t.Errorf("after the crash the visitor has %s", r.Body)
		}
		client.Eventually(t, "the browser has a newer credential again", func() bool {
			r := c.call("GET", "/info")
			if r.User != "ada" {
				t.Fatalf("the visitor has %s", r.Body)
			}
			return c.credential() != onDisk
		})
		if r := c.call("GET", "/info"); r.User != "ada" || r.Handle != handle {
			t.Errorf("in the end the visitor has %s", r.Body)
		}
		if s.alarms() > 0 || strings.Contains(s.processes[0].Log.String(), "WARN") {
			t.Errorf("theft was suspected where there was none: %s", s.processes[0].Log)
		}
	})
}
