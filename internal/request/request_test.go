package request

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// header is one of these lines, "Name: value".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func TestWhoAsksBeforeAnybodyWantsToSeeIt(t *testing.T) {
	for line, want := range map[string]bool{
		"Sec-Purpose: prefetch":                     true,
		"Sec-Purpose: prefetch;prerender":           true,
		"Sec-Purpose: prefetch;anonymous-client-ip": true,
		"X-Sec-Purpose: prefetch":                   true,
		"Purpose: Prefetch":                         true,
		"X-Purpose: preview":                        true,
		"X-Moz: prefetch":                           true,
		"Hx-Preloaded: true":                        true,
		"Hx-Preloaded: false":                       false,
		"Sec-Purpose: something-else":               false,
		"Sec-Fetch-Dest: prefetch":                  false,
		"User-Agent: prefetch":                      false,
		"Sec-Purpose: ":                             false,
	} {
		if got := Speculative(header(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
	if !Speculative(header("Sec-Purpose: other", "Sec-Purpose: prefetch")) || Speculative(nil) {
		t.Error("one of several lines, or none")
	}
}

func TestWhatBrowsersShow(t *testing.T) {
	there := header("Location: /there")
	for status, want := range map[int]struct{ plain, redirect bool }{
		200: {true, true}, 201: {true, true}, 204: {false, false}, 205: {false, false}, 206: {true, true},
		299: {true, true}, 300: {true, false}, 301: {true, false}, 303: {true, false}, 304: {false, false},
		399: {true, false}, 400: {true, true}, 404: {true, true}, 500: {true, true},
	} {
		if got := Shown(status, http.Header{}); got != want.plain {
			t.Errorf("%d: %v", status, got)
		}
		if got := Shown(status, there); got != want.redirect {
			t.Errorf("%d with a Location: %v", status, got)
		}
	}
}

func TestWhichRequestsCameWithoutEncryption(t *testing.T) {
	for name, test := range map[string]struct {
		host   string
		header http.Header
		tls    bool
		want   bool
	}{
		"plain":                           {"shop.example", nil, false, true},
		"by name and port":                {"shop.example:80", nil, false, true},
		"TLS":                             {"shop.example", nil, true, false},
		"a proxy says https":              {"shop.example", header("X-Forwarded-Proto: https"), false, false},
		"in other letters":                {"shop.example", header("X-Forwarded-Proto: HTTPS"), false, false},
		"a WebSocket":                     {"shop.example", header("X-Forwarded-Proto: wss"), false, false},
		"a proxy says http":               {"shop.example", header("X-Forwarded-Proto: http"), false, true},
		"the first proxy says https":      {"shop.example", header("X-Forwarded-Proto: https, http"), false, false},
		"the first proxy says http":       {"shop.example", header("X-Forwarded-Proto: http, https"), false, true},
		"the first of several lines":      {"shop.example", header("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"), false, false},
		"empty elements":                  {"shop.example", header("X-Forwarded-Proto: , ,https"), false, false},
		"nothing in it":                   {"shop.example", header("X-Forwarded-Proto: "), false, true},
		"Forwarded may say anything":      {"shop.example", header("Forwarded: for=1.2.3.4"), false, false},
		"localhost":                       {"localhost", nil, false, false},
		"localhost and a port":            {"localhost:8080", nil, false, false},
		"a name below it":                 {"shop.localhost:8080", nil, false, false},
		"a loopback address":              {"127.8.9.1:80", nil, false, false},
		"a loopback address of version 6": {"[::1]:80", nil, false, false},
		"without a port":                  {"[::1]", nil, false, false},
		"an address of another machine":   {"192.0.2.1", nil, false, true},
		"a name that only begins like it": {"localhost.example", nil, false, true},
		"a name that only ends like it":   {"notlocalhost", nil, false, true},
	} {
		r := &Info{Method: "GET", Host: test.host, Header: test.header, Encrypted: test.tls}
		if got := PlainHTTP(r); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhichRequestsAnotherSiteHasStarted(t *testing.T) {
	for name, test := range map[string]struct {
		host string
		h    http.Header
		want bool
	}{
		"nothing is said":          {"shop.example", nil, false},
		"this origin":              {"shop.example", header("Sec-Fetch-Site: same-origin"), false},
		"this site":                {"shop.example", header("Sec-Fetch-Site: same-site"), false},
		"the visitor":              {"shop.example", header("Sec-Fetch-Site: none"), false},
		"another site":             {"shop.example", header("Sec-Fetch-Site: cross-site"), true},
		"that counts, not Origin":  {"shop.example", header("Sec-Fetch-Site: same-origin", "Origin: https://evil.example"), false},
		"that counts, here too":    {"shop.example", header("Sec-Fetch-Site: cross-site", "Origin: https://shop.example"), true},
		"Origin is this one":       {"shop.example", header("Origin: https://shop.example"), false},
		"Origin is another":        {"shop.example", header("Origin: https://evil.example"), true},
		"Origin is a part of it":   {"www.shop.example", header("Origin: https://shop.example"), true},
		"Origin has another port":  {"shop.example:8443", header("Origin: https://shop.example"), true},
		"Origin has the same port": {"shop.example:8443", header("Origin: https://shop.example:8443"), false},
		"Origin is opaque":         {"shop.example", header("Origin: null"), true},
		"Origin is no URL":         {"shop.example", header("Origin: http://%zz"), true},
	} {
		r := &Info{Method: "GET", Host: test.host, Header: test.h}
		if r.Header == nil {
			r.Header = http.Header{}
		}
		if got := CrossSite(r); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhichCookiesABrowserKeepsBack(t *testing.T) {
	away := []string{"Sec-Fetch-Site: cross-site"}
	for name, test := range map[string]struct {
		method            string
		h                 []string
		strict, lax, none bool
	}{
		"from here":               {"GET", nil, false, false, false},
		"a form from here":        {"POST", nil, false, false, false},
		"a link elsewhere":        {"GET", append(away, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), true, false, false},
		"of an old browser":       {"GET", []string{"Origin: https://a.example"}, true, false, false},
		"HEAD":                    {"HEAD", away, true, false, false},
		"OPTIONS":                 {"OPTIONS", away, true, false, false},
		"TRACE":                   {"TRACE", away, true, false, false},
		"a form elsewhere":        {"POST", append(away, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), true, true, false},
		"a frame elsewhere":       {"GET", append(away, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), true, true, false},
		"an image elsewhere":      {"GET", append(away, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), true, true, false},
		"a fetch elsewhere":       {"GET", append(away, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"), true, true, false},
		"a method nobody knows":   {"PURGE", away, true, true, false},
		"DELETE of another site":  {"DELETE", away, true, true, false},
		"a page that was fetched": {"GET", append(away, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: document"), true, true, false},
	} {
		r := &Info{Method: test.method, Host: "shop.example", Header: header(test.h...)}
		for mode, want := range map[http.SameSite]bool{
			http.SameSiteStrictMode: test.strict, http.SameSiteLaxMode: test.lax, http.SameSiteDefaultMode: test.lax, 0: test.lax, http.SameSiteNoneMode: test.none,
		} {
			if got := Withheld(r, mode); got != want {
				t.Errorf("%s, mode %d: %v", name, mode, got)
			}
		}
	}
}

func TestTheUserAgentIsCutOffAndMadeValid(t *testing.T) {
	long := strings.Repeat("a", 255) + "ä" + "b"
	for before, want := range map[string]string{
		"": "", "Mozilla/5.0": "Mozilla/5.0", "a\xffb": "ab",
		strings.Repeat("x", 256): strings.Repeat("x", 256), strings.Repeat("x", 9999): strings.Repeat("x", 256),
		long: long[:255], // not half a letter
	} {
		got := UserAgent(header("User-Agent: " + before))
		if got != want || !utf8.ValidString(got) {
			t.Errorf("%.20q became %q", before, got)
		}
	}
}

func TestWhoAsksForEvents(t *testing.T) {
	for accept, want := range map[string]bool{"": false, "*/*": false, "text/html": false, "text/event-stream": true, "text/event-stream, */*": true} {
		if got := AsksForEvents(header("Accept: " + accept)); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

func TestWhoDeclaresThatTheVisitorDidNothing(t *testing.T) {
	for value, want := range map[string]bool{"1": true, "true": true, "": true, "yes": true, "0": false, "false": false} {
		if got := DeclaresBackground(header("Sojourn-Background: " + value)); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if DeclaresBackground(nil) || DeclaresBackground(http.Header{"Sojourn-Background": {}}) {
		t.Error("nothing is declared")
	}
}

func TestWhichPageMayAskAgainByItself(t *testing.T) {
	for name, test := range map[string]struct {
		h    []string
		want bool
	}{
		"nobody knows who asks":       {nil, false},
		"the visitor has clicked":     {[]string{"Sec-Fetch-User: ?1"}, true},
		"nobody has":                  {[]string{"Sec-Fetch-User: ?0"}, false},
		"another site is named":       {[]string{"Referer: https://a.example/x"}, true},
		"this one is":                 {[]string{"Referer: https://shop.example/x"}, false},
		"the referrer is no URL":      {[]string{"Referer: http://%zz"}, false},
		"the referrer has no site":    {[]string{"Referer: about:blank"}, false},
		"clicked, and this one named": {[]string{"Sec-Fetch-User: ?1", "Referer: https://shop.example/x"}, true},
	} {
		if got := MayRefresh(&Info{Host: "shop.example", Header: header(test.h...)}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhereARequestCameFrom(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", "[2001:db8::1]:1234": "2001:db8::1", "192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
		"": "", "@": "", "/run/sock": "", "shop.example": "",
	} {
		if got := Peer(&Info{RemoteAddr: addr}); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

func TestWhatIsNoHTTPRequestIsNeitherPlainNorFromAnotherSite(t *testing.T) {
	r := &Info{Host: "shop.example", Header: header("Sec-Fetch-Site", "cross-site", "Origin", "https://other.example")}
	if PlainHTTP(r) {
		t.Error("it counts as plain HTTP")
	}
	if CrossSite(r) || Withheld(r, http.SameSiteLaxMode) || Withheld(r, http.SameSiteStrictMode) {
		t.Error("it counts as started by another site")
	}
}
