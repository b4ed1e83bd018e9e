package browser

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
)

var (
	lax    = sojourn.Config{}
	strict = sojourn.Config{Cookie: sojourn.Cookie{SameSite: http.SameSiteStrictMode}}
)

const (
	link    = `<a id=go href="app:/app/visit">go</a>`
	movesOn = `<script>location.replace("app:/app/visit")</script>`
)

// arrivals are further ways from a page of another site to one of the application
// that writes. The visitor presses "go".
var arrivals = map[string]string{
	"a link without a referrer": `<a id=go href="app:/app/visit" rel=noreferrer>go</a>`,
	"a form":                    `<form action="app:/app/visit"><button id=go>go</button></form>`,
	"a redirect":                `<a id=go href="/bounce?to=/app/visit">go</a>`,
	"a page that moves on":      `<a id=go href="/moves-on">go</a>`,
}

func linksFromAnotherSite(t *testing.T, browser context.Context) {
	s := newSite(t, lax)
	v := newVisitor(t, s, browser)
	tb := v.tab()
	// arrive follows the link, after earlier actions.
	arrive := func(t *testing.T, body string, before ...string) (_ *tab, has string) {
		t.Helper()
		tb := &tab{t, s, tb.ctx}
		v.forget()
		tb.home()
		has = tb.after(before...)
		tb.open(s.foreign("/", body))
		tb.press("go")
		tb.settle()
		if got, want := tb.state(), list(has, "visits 1"); got != want {
			t.Errorf("the visitor arrives as %q, want %q", got, want)
		}
		return tb, has
	}
	asked := func(t *testing.T, want string) {
		t.Helper()
		if got := s.asked("/app/visit"); got != want {
			t.Errorf("the page was asked for: %s; want %s", got, want)
		}
	}
	t.Run("with Lax", func(t *testing.T) {
		arrive(t, link, "login-ada", "add")
		asked(t, "GET 200")
	})
	s.deploy(strict)
	for _, before := range [][]string{{"login-ada", "add"}, {}} {
		t.Run(fmt.Sprint("with Strict, after ", before), func(t *testing.T) {
			tb, has := arrive(t, link, before...)
			asked(t, "GET 409, GET 200")
			tb.reload()
			if got, want := tb.state(), list(has, "visits 2"); got != want {
				t.Errorf("loaded again, the page says %q, want %q", got, want)
			}
			asked(t, "GET 200")
			tb.back()
			if got := eval[string](tb, "location.hostname"); got != foreign {
				t.Errorf("going back leads to %s", tb.text())
			}
			asked(t, "")
		})
	}
	s.foreign("/moves-on", movesOn)
	for name, body := range arrivals {
		t.Run("with Strict, by "+name, func(t *testing.T) {
			arrive(t, body, "login-ada", "add")
			asked(t, "GET 409, GET 200")
		})
	}
	t.Run("with Strict, by a script that hides where it is", func(t *testing.T) {
		v.forget()
		tb := &tab{t, s, tb.ctx}
		tb.home()
		tb.after("login-ada", "add")
		s.foreign("/moves-on", `<meta name=referrer content=no-referrer>`+movesOn)
		tb.open(s.foreign("/", `<a id=go href="/moves-on">go</a>`))
		tb.press("go")
		tb.press("continue")
		if got := tb.state(); got != "user ada, cart 1, visits 1" {
			t.Errorf("the visitor arrives as %q", got)
		}
		asked(t, "GET 409, GET 200")
	})
	// A window with an opaque origin belongs to no site, so every request from
	// it counts as cross-site.
	for name, c := range map[string]struct{ body, asked string }{
		"a link":                {`<a id=go target=_blank href="app:/app/visit">go</a>`, "GET 409, GET 409"},
		"a link without opener": {`<a id=go target=_blank rel="noopener noreferrer" href="app:/app/visit">go</a>`, "GET 409, GET 409"},
		"a script":              {`<button id=go onclick="window.open('app:/app/visit')">go</button>`, "GET 409, GET 409"},
		"a page that moves on":  {`<a id=go target=_blank href="/moves-on">go</a>`, "GET 409"},
		"a form that says where it is": {
			`<meta name=referrer content=unsafe-url><form action="app:/app/visit" target=_blank><button id=go>go</button></form>`,
			"GET 409, GET 409",
		},
	} {
		t.Run("with Strict, in a sandbox, by "+name, func(t *testing.T) {
			v.forget()
			tb := &tab{t, s, tb.ctx}
			s.foreign("/moves-on", movesOn)
			opened := chromedp.WaitNewTarget(tb.ctx, func(i *target.Info) bool { return i.Type == "page" })
			tb.open(s.foreign("/sandboxed", c.body))
			tb.do(chromedp.Click(chromedp.CSS("#go")))
			ctx, cancel := chromedp.NewContext(tb.ctx, chromedp.WithTargetID(receive(t, opened)))
			defer cancel()
			// It has a link, and no automatic reload.
			(&tab{t, s, ctx}).do(chromedp.WaitReady(chromedp.CSS(`html:not(:has(meta[http-equiv])) a[href=""]`)))
			asked(t, c.asked)
		})
	}
}

func TestALinkFromAnotherSiteInABrowserThatKeepsNoCookies(t *testing.T) {
	s := newSite(t, strict)
	profile := realbrowser.Profile(t)
	const block = 2
	settings := fmt.Sprintf(`{"profile": {"default_content_setting_values": {"cookies": %d}}}`, block)
	if err := os.MkdirAll(filepath.Join(profile, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	tb := (&visitor{t, s, startChromium(t, profile)}).tab()
	tb.open(s.url("/app/"))
	if got := tb.after("dark"); got != "" {
		t.Fatalf("the browser keeps cookies: %s", got)
	}
	tb.open(s.foreign("/", link))
	tb.press("go")
	tb.settle()
	if got := tb.state(); got != "visits 1" {
		t.Errorf("the visitor arrives as %q", got)
	}
	if got := s.asked("/app/visit"); got != "GET 409, GET 200" {
		t.Errorf("the page was asked for: %s", got)
	}
}

// intruder is a page of another site with a form, and with scripts that send
// requests.
const intruder = `
<iframe name=frame></iframe>
<form method=post action="app:/app/%[1]s"><button id=go>go</button></form>
<form method=post enctype=text/plain action="app:/app/%[1]s"><button id=text>go</button></form>
<form method=post target=frame action="app:/app/%[1]s"></form>
<script>
	const loaded = (e, start) => new Promise(done => { e.onload = e.onerror = () => done(true); start(e) });
	const byForm = () => loaded(document.querySelector("iframe"), () => document.forms[2].submit());
	const byFetch = () => fetch("app:/app/%[1]s", {method: "POST", mode: "no-cors", credentials: "include"}).then(() => true);
	const byFrame = () => loaded(document.querySelector("iframe"), e => e.src = "app:/app/visit");
	const byImage = () => loaded(new Image(), e => e.src = "app:/app/visit");
</script>`

func anotherSiteReplacesNothing(t *testing.T, browser context.Context) {
	s := newSite(t, lax)
	v := newVisitor(t, s, browser)
	tb := v.tab()
	for mode, cfg := range map[string]sojourn.Config{"Lax": lax, "Strict": strict} {
		for path, before := range map[string][]string{
			"cart":           {"login-ada", "add"},
			"theme?to=light": {"dark"},
		} {
			t.Run(mode+", "+path, func(t *testing.T) {
				tb := &tab{t, s, tb.ctx}
				v.forget()
				s.deploy(cfg)
				tb.home()
				has := tb.after(before...)
				s.asked("/app/" + path)
				page := s.foreign("/", fmt.Sprintf(intruder, path))
				check := func(way, path, want string) {
					if got := s.asked(path); got != want {
						t.Errorf("%s is answered with %s", way, got)
					}
				}
				tb.open(page)
				eval[bool](tb, "byForm()")
				check("a form in a frame", "/app/"+path, "POST 409")
				eval[bool](tb, "byFetch()")
				check("a script", "/app/"+path, "POST 409")
				eval[bool](tb, "byFrame()")
				check("a page in a frame", "/app/visit", "GET 409")
				eval[bool](tb, "byImage()")
				check("an image", "/app/visit", "GET 409")
				for _, button := range []string{"go", "text"} {
					tb.open(page)
					tb.press(button)
					check(button, "/app/"+path, "POST 409")
				}
				tb.open(s.url("/app/"))
				if got := tb.state(); got != has {
					t.Errorf("the visitor is left with %q of %q", got, has)
				}
			})
		}
	}
}

func list(parts ...string) string {
	var all []string
	for _, p := range parts {
		if p != "" {
			all = append(all, p)
		}
	}
	return strings.Join(all, ", ")
}

// receive waits for a value from a channel.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stuck)
	defer cancel()
	select {
	case v := <-from:
		return v
	case <-ctx.Done():
		t.Fatal("nothing comes")
		panic("not reached")
	}
}
