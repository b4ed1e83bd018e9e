package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestCart(t *testing.T) {
	mug := func(n int) Line { return Line{"mug", n} }
	tea := func(n int) Line { return Line{"tea", n} }
	for _, c := range []struct {
		name string
		got  Cart
		want []Line
	}{
		{"a new product gets a line", Cart{}.plus("mug", 2), []Line{mug(2)}},
		{"more of it goes to the same line", Cart{[]Line{mug(1), tea(1)}}.plus("mug", 2), []Line{mug(3), tea(1)}},
		{"a line that reaches zero goes", Cart{[]Line{mug(1), tea(1)}}.plus("mug", -1), []Line{tea(1)}},
		{"fewer of what is not there is nothing", Cart{}.plus("mug", -1), nil},
		{"a line has a limit", Cart{}.plus("mug", 1000), []Line{mug(mostPerLine)}},
		{"a line can be taken out", Cart{[]Line{mug(1), tea(1)}}.without("mug"), []Line{tea(1)}},
		{"what was ordered leaves, what was added stays", Cart{[]Line{mug(3), tea(1)}}.minus([]Line{mug(2)}), []Line{mug(1), tea(1)}},
		{"what was ordered and taken out is not owed", Cart{[]Line{tea(1)}}.minus([]Line{mug(2), tea(1)}), nil},
	} {
		if !slices.Equal(c.got.Lines, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got.Lines, c.want)
		}
	}
}

func TestOnlyPathsOfThisShopAreFollowed(t *testing.T) {
	for _, path := range []string{"/", "/cart", "/shelf/night?x=1", "/orders/FW-1"} {
		if got := localPath(path, "/fallback"); got != path {
			t.Errorf("%q became %q", path, got)
		}
	}
	for _, path := range []string{
		"", "cart", "https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "\\\\elsewhere.example",
		"/\t/elsewhere.example", "/\r\nSet-Cookie: x", "javascript:alert(1)", "http:/elsewhere.example", " //elsewhere.example", "/%zz",
	} {
		if got := localPath(path, "/fallback"); got != "/fallback" {
			t.Errorf("%q became %q", path, got)
		}
	}
}

func TestPasswords(t *testing.T) {
	hash, err := hashPassword(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	again, err := hashPassword(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if hash == again || strings.Contains(hash, "correct") {
		t.Errorf("hashes without salt: %s and %s", hash, again)
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		{hash, "correct horse", true},
		{again, "correct horse", true},
		{hash, "correct horsE", false},
		{hash, "", false},
		{"", "", false},
		{"", "correct horse", false},
	} {
		if got, err := checkPassword(t.Context(), c.hash, c.password); got != c.want || err != nil {
			t.Errorf("password %q with hash %q: %v, %v", c.password, c.hash, got, err)
		}
	}
	if _, err := checkPassword(t.Context(), "$argon2id$v=19$m=1", "x"); err == nil {
		t.Error("a damaged hash is no error")
	}
}

func TestOneTokenIsOneOrder(t *testing.T) {
	ledger, err := openLedger(t.TempDir() + "/shop?#%.db")
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.close()
	id, err := ledger.addCustomer(t.Context(), "Ida", "ida@example.com", "hash")
	if err != nil {
		t.Fatal(err)
	}
	to := delivery{"Ida", "Track 1", "Somewhere", "story"}
	first, err1 := ledger.placeOrder(t.Context(), id, "token", to, billFor([]Line{{"mug", 1}}))
	second, err2 := ledger.placeOrder(t.Context(), id, "token", to, billFor([]Line{{"mug", 1}}))
	if first != second || first == "" || err1 != nil || err2 != nil {
		t.Errorf("orders %q (%v) and %q (%v), want the same", first, err1, second, err2)
	}
	if orders, err := ledger.orders(t.Context(), id); len(orders) != 1 || err != nil {
		t.Errorf("%d orders, %v", len(orders), err)
	}
	if _, err := ledger.order(t.Context(), "somebody else", first); err == nil {
		t.Error("somebody else can read the order")
	}
}

func TestFormsFromOtherSitesAreRefused(t *testing.T) {
	shop := openShop(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shop.url+"/cart/add",
		strings.NewReader(url.Values{"slug": {"mug"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden || res.Header.Get("Set-Cookie") != "" || shop.rows(t) != 0 {
		t.Errorf("status %d, cookie %q, %d rows", res.StatusCode, res.Header.Get("Set-Cookie"), shop.rows(t))
	}
}

func TestCookiesAreSecureUnlessAskedOtherwise(t *testing.T) {
	for insecure, want := range map[bool]string{false: "__Host-session", true: "session"} {
		shop := openShopWith(t, parts{insecure: insecure})
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := client.PostForm(shop.url+"/cart/add", url.Values{"slug": {"mug"}})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for _, c := range res.Cookies() {
			if !strings.HasPrefix(c.Name, want) || c.Secure == insecure || !c.HttpOnly {
				t.Errorf("insecure %v: cookie %s, Secure %v, HttpOnly %v", insecure, c.Name, c.Secure, c.HttpOnly)
			}
		}
		if len(res.Cookies()) == 0 {
			t.Errorf("insecure %v: no cookie", insecure)
		}
	}
}

func TestFilesHaveNothingToDoWithSessions(t *testing.T) {
	shop := openShop(t)
	res := replay(t, shop.url+"/", "")
	html, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(html), `rel="stylesheet" href="`)
	sheet, _, _ := strings.Cut(rest, `"`)
	res = replay(t, shop.url+sheet, "__Host-session=garbage")
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("%s: status %d, type %s", sheet, res.StatusCode, res.Header.Get("Content-Type"))
	}
	if res.Header.Get("Vary") != "" || res.Header.Get("Set-Cookie") != "" || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%s: headers %v", sheet, res.Header)
	}
}

func TestLanguageFollowsTheBrowserUntilOneIsChosen(t *testing.T) {
	pages, err := newPages(files)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"":                        "en",
		"de":                      "de",
		"de-CH, en;q=0.5":         "de",
		"fr-FR, fr;q=0.9, DE;q=1": "de",
		"fr, es":                  "en",
		";;,,--":                  "en",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Language", header)
		if got := pages.preferred(r).Code; got != want {
			t.Errorf("Accept-Language %q: %s, want %s", header, got, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	taken, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"help", []string{"-h"}, 0, "-listen address"},
		{"an unknown flag", []string{"-port", "1"}, 2, "flag provided but not defined: -port"},
		{"an argument too many", []string{"8080"}, 2, `unexpected argument "8080"`},
		{"a port that is taken", []string{"-listen", taken.Addr().String(), "-data", t.TempDir()}, 1, "is in use by another program; stop that one, or choose another port: -listen"},
		{"a provider without a name", []string{"-issuer", "https://login.example"}, 2, "give -issuer and -client-id together"},
		{"two providers", []string{"-issuer", "https://login.example", "-client-id", "shop", "-provider", "localhost:0"}, 2, "not with -provider"},
		{"an issuer that is no URL", []string{"-issuer", "login.example", "-client-id", "shop", "-listen", "localhost:0", "-data", t.TempDir()}, 1, "the issuer has to be a URL"},
		{"no address", []string{"-listen", "nonsense", "-data", t.TempDir()}, 1, "missing port"},
	} {
		status, _, stderr := runShop(context.Background(), c.args...)
		if status != c.status || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: status %d, %q", c.name, status, stderr)
		}
	}
}
