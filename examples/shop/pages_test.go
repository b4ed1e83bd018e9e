package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/chromedp"

	"github.com/sojourn-go/sojourn/internal/test/realbrowser"
)

// TestEveryPageIsFitToBeSeen walks through the shop, in every state that a page
// can be in, and holds each page to the same standards.
func TestEveryPageIsFitToBeSeen(t *testing.T) {
	t.Parallel()
	tour(t, func(name string, tab *tab) {
		t.Run(name, func(t *testing.T) { fitToBeSeen(t, tab.in(t), name, 8) })
	})
}

// fitToBeSeen checks the page in the tab, which must have that many controls and
// landmarks, on screens of all kinds.
func fitToBeSeen(t *testing.T, tab *tab, name string, least int) {
	t.Helper()
	checkStructure(t, tab)
	checkNames(t, tab, least)
	for _, screen := range []struct {
		name  string
		width int64
	}{{"desktop", 1280}, {"phone", 360}} {
		tab.showAll(screen.width)
		for _, scheme := range []string{"light", "dark"} {
			tab.prefer(scheme)
			checkWidth(t, tab, screen.width)
			checkContrast(t, tab, screen.name+", "+scheme)
			checkAccessibility(t, tab, screen.name, scheme)
			tab.photograph(name + "-" + screen.name + "-" + scheme + ".png")
		}
	}
	tab.prefer("light")
	tab.size(1280, 900)
}

// tour brings a visitor to every page, in every state.
func tour(t *testing.T, at func(name string, tab *tab)) {
	shop := openShop(t)
	tab := startChromium(t).visitor(shop.url).tab()

	tab.open("/")
	at("home", tab)
	tab.open("/session")
	at("session-none", tab)
	tab.open("/cart")
	at("cart-empty", tab)
	tab.open("/wishes")
	at("wishes-empty", tab)
	tab.open("/nowhere")
	at("not-found", tab)
	tab.open("/preferences")
	tab.press(`.stack button`)
	at("preferences", tab)
	tab.open("/shelf/table")
	tab.press(wish("tea"))
	at("shelf", tab)
	tab.press(wish("mug"))
	tab.open("/wishes")
	at("wishes", tab)
	tab.open("/session")
	at("session-inline", tab)
	tab.open("/product/lantern")
	tab.press(".buy button")
	at("product", tab)
	tab.open("/")
	for _, slug := range []string{"mug", "map", "blanket", "map"} {
		tab.press(add(slug))
	}
	tab.open("/cart")
	at("cart", tab)
	tab.press(".sum .button")
	at("login", tab)
	tab.fill("#email", "ida@example.com", "#password", "wrong")
	tab.press(".stack button")
	at("login-refused", tab)
	tab.open("/signup")
	tab.fill("#name", "Ida", "#email", "ida@example.com", "#password", "short")
	tab.press(".stack button")
	at("signup-refused", tab)
	tab.signUp("Ida", "ida@example.com")
	at("home-signed-in", tab)
	tab.open("/orders")
	at("orders-empty", tab)
	tab.open("/checkout")
	at("checkout", tab)
	tab.fill("#name", "Ida Wanderer", "#street", "Track 1", "#city", "Somewhere")
	tab.press(".panel button")
	at("order", tab)
	tab.open("/orders")
	at("orders", tab)
	tab.open("/account")
	at("account", tab)
	tab.open("/confirm")
	tab.fill("#password", "wrong")
	tab.press(".stack button")
	at("confirm-refused", tab)
	tab.open("/account/password")
	at("password", tab)
	tab.open("/session")
	at("session-stored", tab)
	tab.press(`button[name="language"][value="de"]`)
	at("session-german", tab)
	tab.open("/")
	at("home-german", tab)

	gate := shop.gates.hold(afterLoad, "POST /cart/add")
	other := (&visitor{t, tab.ctx, tab.url}).tab()
	other.open("/")
	arrived := other.pressSlowly(add("tea"))
	gate.awaitArrival(t)
	tab.press(`form[action="/logout"] button`)
	at("signed-out", tab)
	gate.open()
	arrived()
	at("ended", other)
}

// in is the same tab for a subtest.
func (tb *tab) in(t *testing.T) *tab {
	same := *tb
	same.t = t
	return &same
}

// showAll makes the window as high as the page.
func (tb *tab) showAll(width int64) {
	tb.t.Helper()
	tb.size(width, 700)
	tb.size(width, max(700, eval[int64](tb, "document.documentElement.scrollHeight")))
}

// photograph leaves a picture in the folder that SCREENSHOTS names; see `make
// screenshots`. Painting takes longer than all that is checked.
func (tb *tab) photograph(name string) {
	tb.t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	if strings.Contains(name, "-phone-") {
		tb.showAll(390) // more common than 360, which is harder and checked
		defer tb.showAll(360)
	}
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		var png []byte
		if png, err = chromedp.Run(tb.ctx, chromedp.CaptureScreenshot()); err == nil {
			err = os.WriteFile(filepath.Join(folder, name), png, 0o644)
		}
	}
	if err != nil {
		tb.t.Errorf("taking a picture: %v", err)
	}
}

func checkStructure(t *testing.T, tab *tab) {
	t.Helper()
	for what, script := range map[string]string{
		"one main heading":                "document.querySelectorAll('h1').length == 1",
		"headings without gaps":           "[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1]).every((n, i, all) => n <= (all[i - 1] ?? 0) + 1)",
		"one main landmark":               "document.querySelectorAll('main').length == 1",
		"a title":                         "document.title.length > 5",
		"a language":                      "['en', 'de'].includes(document.documentElement.lang)",
		"alternative texts for pictures":  "[...document.images].every(i => i.hasAttribute('alt') && i.naturalWidth > 0)",
		"unique ids":                      "(ids => new Set(ids).size == ids.length)([...document.querySelectorAll('[id]')].map(e => e.id))",
		"a live region for messages":      "document.querySelector('[aria-live]') !== null",
		"no inline styles or scripts":     "document.querySelector('[style], style, script') === null",
		"every text in the language file": "!/\\b(layout|shelf|product|cart|session|strip|account|accountpage|confirm|devices|login|openid|error|theme)\\.[a-z]/.test(document.body.innerText)",
	} {
		if !eval[bool](tab, script) {
			t.Errorf("the page lacks: %s", what)
		}
	}
}

// checkNames checks the page's accessible names, as a screen reader uses them.
func checkNames(t *testing.T, tab *tab, least int) {
	t.Helper()
	tree, err := chromedp.Call(tab.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatalf("reading the accessibility tree: %v", err)
	}
	controls := []string{"button", "link", "textbox", "spinbutton", "checkbox", "radio", "combobox", "navigation", "complementary"}
	n := 0
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil || !slices.Contains(controls, axText(node.Role)) {
			continue
		}
		n++
		if strings.TrimSpace(axText(node.Name)) == "" {
			html, err := chromedp.Call(tab.ctx, dom.GetOuterHTML, dom.GetOuterHTMLParams{BackendNodeID: node.BackendDOMNodeID})
			t.Errorf("a %s has no name: %s %v", axText(node.Role), html.OuterHTML, err)
		}
	}
	if n < least {
		t.Errorf("only %d controls and landmarks were found", n)
	}
}

func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var s string
	_ = json.Unmarshal([]byte(v.Value), &s) // anything else is not a name
	return s
}

func checkWidth(t *testing.T, tab *tab, width int64) {
	t.Helper()
	if got := eval[int64](tab, "document.documentElement.scrollWidth"); got > width {
		wide := eval[string](tab, fmt.Sprintf("[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > %d).map(e => e.tagName + '.' + e.className).slice(0, 5).join(', ')", width))
		t.Errorf("the page is %d pixels wide on a screen of %d: %s", got, width, wide)
	}
}

// contrast returns the texts whose contrast with what is painted beneath them
// is less than 4.5, the least that WCAG 2.2 (1.4.3, level AA) asks of small text.
const contrast = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
	const known = new Map(); // reading a pixel back is slow
	const rgba = color => {
		if (!known.has(color)) {
			canvas.clearRect(0, 0, 1, 1);
			canvas.fillStyle = color;
			canvas.fillRect(0, 0, 1, 1);
			known.set(color, [...canvas.getImageData(0, 0, 1, 1).data]);
		}
		return known.get(color);
	};
	const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] / 255 + below[i] * (1 - top[3] / 255)).concat(255);
	const luminance = c => {
		const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	const ratio = (a, b) => (Math.max(luminance(a), luminance(b)) + .05) / (Math.min(luminance(a), luminance(b)) + .05);
	const paint = e => rgba(e instanceof SVGGeometryElement ? getComputedStyle(e).fill : getComputedStyle(e).backgroundColor);
	const beneath = (x, y, from) => {
		const stack = document.elementsFromPoint(x, y);
		const layers = [];
		for (const e of stack.slice(Math.max(0, stack.indexOf(from)))) {
			const p = paint(e);
			if (p[3] > 0) layers.push(p);
			if (p[3] == 255) break;
		}
		return layers.reduceRight((below, top) => over(top, below), rgba(getComputedStyle(document.documentElement).backgroundColor));
	};
	const bad = [];
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
		if (!text || ['TITLE', 'DESC', 'title', 'desc'].includes(e.tagName) || e.closest('.unseen, .skip, details:not([open]) > :not(summary)')) continue;
		const range = document.createRange();
		range.selectNodeContents(texts.currentNode);
		const color = rgba(e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color);
		for (const box of range.getClientRects()) {
			for (const x of [box.left + 1, (box.left + box.right) / 2, box.right - 1]) {
				const below = beneath(x, (box.top + box.bottom) / 2, e);
				const r = ratio(over(color, below), below);
				if (r < 4.5) bad.push(text.slice(0, 40) + ': ' + r.toFixed(2));
			}
		}
	}
	return [...new Set(bad)];
})()`

func checkContrast(t *testing.T, tab *tab, where string) {
	t.Helper()
	for _, text := range eval[[]string](tab, contrast) {
		t.Errorf("%s: too little contrast: %s", where, text)
	}
}

// checkAccessibility runs axe-core. In the dark scheme only colors differ.
func checkAccessibility(t *testing.T, tab *tab, screen, scheme string) {
	t.Helper()
	var rules []string
	if scheme == "dark" {
		rules = []string{"color-contrast"}
	}
	ctx, cancel := context.WithTimeout(tab.ctx, stuck)
	defer cancel()
	findings, err := realbrowser.Accessibility(ctx, rules...)
	if err != nil {
		t.Fatalf("axe-core: %v", err)
	}
	for _, f := range findings {
		t.Errorf("%s, %s: %s", screen, scheme, f)
	}
}

// TestBothLanguagesSayEverything compares the texts with each other and with
// what the templates and the code ask for.
func TestBothLanguagesSayEverything(t *testing.T) {
	languages, err := readLanguages(files, "en", "de")
	if err != nil {
		t.Fatal(err)
	}
	verbs := regexp.MustCompile(`%[a-z]`)
	for name, text := range languages[0].texts {
		other, ok := languages[1].texts[name]
		if !ok {
			t.Errorf("German lacks %q", name)
		}
		if a, b := verbs.FindAllString(text, -1), verbs.FindAllString(other, -1); !slices.Equal(a, b) {
			t.Errorf("%q takes %v in English and %v in German", name, a, b)
		}
	}
	for name := range languages[1].texts {
		if _, ok := languages[0].texts[name]; !ok {
			t.Errorf("English lacks %q", name)
		}
	}
	for _, p := range catalogue() {
		for _, part := range []string{"name", "line", "text"} {
			if name := "product." + p.Slug + "." + part; languages[0].T(name) == name {
				t.Errorf("no text %q", name)
			}
		}
		if _, err := files.Open("static/pictures/" + p.Slug + ".svg"); err != nil {
			t.Error(err)
		}
	}
}
