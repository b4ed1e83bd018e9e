package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// inAdvance are the ways to load the page at /app/messages before it is shown:
// scripts that end when the answer has arrived.
var inAdvance = map[string]string{
	"HEAD":       `await fetch("/app/messages", {method: "HEAD"});`,
	"background": `await fetch("/app/messages", {headers: {"Sojourn-Background": "1"}});`,
	"link": `
		const link = document.createElement("link");
		link.rel = "prefetch";
		link.href = "/app/messages";
		await new Promise(done => { link.onload = link.onerror = done; document.head.append(link) });`,
	"prefetch":  speculate("prefetch"),
	"prerender": speculate("prerender"),
}

func speculate(how string) string {
	return `
		const rules = document.createElement("script");
		rules.type = "speculationrules";
		rules.textContent = JSON.stringify({` + how + `: [{source: "list", urls: ["/app/messages"], eagerness: "immediate"}]});
		document.head.append(rules);
		await fetch("/speculated");`
}

// A message is shown once: by the page that the visitor opens, or by the next
// one if the browser already had that page. It is not lost if the visitor opens
// another page.
func messagesWait(t *testing.T, browser context.Context) {
	s := newSite(t, lax)
	// Browsers speculate only in windows that are not private.
	v := &visitor{t, s, browser}
	tb := v.tab()
	used := map[string]int{} // answers from in advance
	run := func(how, to string, before ...string) {
		t.Run(fmt.Sprint(how, ", then ", to, ", after ", before), func(t *testing.T) {
			tb := &tab{t, s, tb.ctx}
			v.forget()
			tb.home()
			tb.after(before...)
			s.asked("/app/messages")
			// Chromium does not prerender for a page with a debugger.
			script := fmt.Sprintf("(async () => {%s\nlocation.href = %q })()", inAdvance[how], to)
			window, err := chromedp.CallBrowser(browser, target.CreateTarget, target.CreateTargetParams{URL: s.unattended(script)})
			if err != nil {
				t.Fatal(err)
			}
			shown := []string{receive(t, s.sees)}
			want := []string{"Saved", "", ""}
			if asked := s.asked("/app/messages"); to == "/app/messages" && !strings.Contains(asked, ", ") {
				used[how]++
				want = []string{"", "Saved", ""}
			}
			for range 2 {
				shown = append(shown, eval[string](tb, `fetch("/app/messages").then(r => r.text()).then(text =>
					new DOMParser().parseFromString(text, "text/html").querySelector("#messages").innerText)`))
			}
			if !slices.Equal(shown, want) {
				t.Errorf("the pages show %q, want %q", shown, want)
			}
			_, _ = chromedp.CallBrowser(browser, target.CloseTarget, target.CloseTargetParams(window)) // it may be another one by now
		})
	}
	for how := range inAdvance {
		run(how, "/app/messages", "login-ada", "save")
		if how != "HEAD" && how != "background" {
			run(how, "/app/messages", "save")
			run(how, "/app/messages?another", "login-ada", "save")
		}
	}
	for _, how := range []string{"prefetch", "prerender"} {
		if used[how] == 0 {
			t.Errorf("%s: the browser has used no answer from in advance, so this shows nothing", how)
		}
	}
}
