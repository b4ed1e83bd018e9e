package providers

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
)

var chromium realbrowser.Shared

func TestMain(m *testing.M) { os.Exit(chromium.Main(m)) }

func TestARealBrowserSignsInAndOut(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 2)
	tab, cancel := chromedp.NewContext(chromium.Context(t), chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	tab, cancel = context.WithTimeout(tab, time.Minute)
	t.Cleanup(cancel)
	arrive := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if _, err := chromedp.RunResponse(tab, steps...); err != nil {
			t.Fatal(err)
		}
	}
	text := func(path string) string {
		t.Helper()
		arrive(chromedp.Navigate(s.URL + path))
		text, err := chromedp.Run(tab, chromedp.Evaluate[string]("document.body.innerText"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	signIn := func() {
		t.Helper()
		arrive(chromedp.Navigate(s.URL + "/auth/login?next=/who"))
		if err := chromedp.Do(tab,
			chromedp.SendKeys(chromedp.CSS("#username"), person),
			chromedp.SendKeys(chromedp.CSS("#password"), password),
		); err != nil {
			t.Fatal(err)
		}
		arrive(chromedp.Click(chromedp.CSS("button")))
	}
	signIn()
	if got := text("/who"); got != `/who for "user id2"` {
		t.Fatalf("signed in: %s", got)
	}
	s.makeOld("user id2")
	if got := text("/token"); !strings.HasSuffix(got, " true true") || p.refreshes.Load() != 1 {
		t.Errorf("the token: %s, %d refreshes", got, p.refreshes.Load())
	}
	// The provider ends the session, which the next page shows.
	if got := s.backChannel(p.signed(t, s.claims(claims{"sid": text("/sid")}))); got.status != 200 {
		t.Errorf("the logout: %d", got.status)
	}
	if got := text("/who"); got != `/who for ""` {
		t.Errorf("after the provider's logout: %s", got)
	}
	signIn()
	text("/page")
	arrive(chromedp.Click(chromedp.CSS("button")))
	if got := text("/who"); got != `/who for ""` {
		t.Errorf("signed out: %s", got)
	}
}
