package caching

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// limited is h after Limit.
func limited(h http.Header) (http.Header, bool) {
	h = maps.Clone(h)
	shared := Limit(h, Cookie)
	return h, shared
}

func TestNoSharedCacheKeepsAResponseUnlessItIsTold(t *testing.T) {
	for _, test := range []struct {
		before, after string
		shared        bool // without a cookie; with one it never is
	}{
		{"", "private", false},
		{" ", "private", false},
		{"max-age=60", "max-age=60, private", false},
		{"max-age=60\nmust-revalidate", "max-age=60, must-revalidate, private", false}, // two lines
		{"no-cache", "no-cache, private", false},
		{"no-cache, must-revalidate", "no-cache, must-revalidate, private", false},
		{"immutable, , max-age=60", "immutable, max-age=60, private", false},
		{"private", "private", false},
		{"Private, max-age=60", "Private, max-age=60", false},
		{"private, max-age=60", "private, max-age=60", false},
		{"private, private", "private", false},
		{`private="X-A, X-B"`, "private", false},
		{`private="X-A, X-B", max-age=60`, "max-age=60, private", false},
		{`no-cache="public, s-maxage=9"`, `no-cache="public, s-maxage=9", private`, false},
		{"no-store", "no-store", false},
		{"must-understand, no-store", "must-understand, no-store, private", false},
		{"must-understand, no-store, private", "must-understand, no-store, private", false},
		{"public", "private", true},
		{"public, max-age=60", "max-age=60, private", true},
		{"public\nmax-age=60", "max-age=60, private", true},
		{"public\nno-store", "no-store", false},
		{`no-cache="X-A", public`, `no-cache="X-A", private`, true},
		{"Public, max-age=60", "max-age=60, private", true},
		{" public ,max-age=60", "max-age=60, private", true},
		{`public, private="X-A"`, "private", true},
		{"public, no-cache", "no-cache, private", true},
		{"public, private", "private", false},
		{"no-store, public", "no-store", false},
		{"s-maxage=60", "private", true},
		{"max-age=60, s-maxage=600", "max-age=60, private", true},
		{"S-MaxAge=600,PUBLIC", "private", true},
		{`S-MaxAge="60", max-age=1`, "max-age=1, private", true},
		{"s-maxage=0", "private", false},
		{"s-maxage=-1", "private", false},
		{"s-maxage=soon", "private", false},
		{"s-maxage", "private", false},
		{"s-maxage=0, public", "private", true},
		{"publicity", "publicity, private", false},
		{`ext="a, public"`, `ext="a, public", private`, false},
	} {
		for _, cookie := range []string{"", "Set-Cookie", "set-cookie"} {
			h := http.Header{"Cdn-Cache-Control": {"max-age=9"}}
			if test.before != "" {
				h["Cache-Control"] = strings.Split(test.before, "\n")
			}
			want, shared := test.after, false
			if cookie != "" {
				h[cookie] = []string{"a=b"}
			} else if test.shared {
				shared = true
				want = strings.Join(parseCacheControl(strings.Split(test.before, "\n")), ", ")
			}
			got, gotShared := limited(h)
			if !slices.Equal(got["Cache-Control"], []string{want}) || gotShared != shared {
				t.Errorf("%q with %q: %q, shared %v; want %q", test.before, cookie, got["Cache-Control"], gotShared, want)
			}
			if !slices.Equal(got["Vary"], []string{"Cookie"}) {
				t.Errorf("%q: Vary %q", test.before, got["Vary"])
			}
			if targeted := got.Get("Cdn-Cache-Control"); (targeted == "no-store") == shared {
				t.Errorf("%q: CDN-Cache-Control %q", test.before, targeted)
			}
			twice, again := limited(got)
			if again != shared || !slices.Equal(twice["Cache-Control"], got["Cache-Control"]) || !slices.Equal(twice["Vary"], got["Vary"]) {
				t.Errorf("%q: limited twice it is %q", test.before, twice)
			}
		}
	}
}

func TestVaryIsOneLine(t *testing.T) {
	for want, lines := range map[string][]string{
		"Cookie":         nil,
		"Accept, Cookie": {"Accept"},
		"Accept, cookie": {"Accept,  cookie "},
		"Accept-Language, Accept-Encoding, Cookie": {"Accept-Language", "Accept-Encoding, accept-language", "", ","},
		"Cookie, Accept":      {"Cookie, Accept"},
		"*":                   {"Accept", "Cookie, *"},
		"Cookie-Name, Cookie": {"Cookie-Name"},
	} {
		h, _ := limited(http.Header{"Vary": lines})
		if !slices.Equal(h["Vary"], []string{want}) {
			t.Errorf("%q became %q, want %q", lines, h["Vary"], want)
		}
	}
}

func TestFieldsForParticularCachesForbidStoring(t *testing.T) {
	for name, want := range map[string]string{
		"Cdn-Cache-Control": "no-store", "cdn-cache-control": "no-store", "CDN-CACHE-CONTROL": "no-store",
		"Cloudflare-Cdn-Cache-Control": "no-store", "Surrogate-Control": "no-store", "surrogate-control": "no-store", "Edge-Control": "no-store",
		"X-Accel-Expires": "0", "x-accel-expires": "0",
		"Expires": "x", "Pragma": "x", "Etag": "x", "Surrogate-Key": "x", "-Cache-Control": "x",
	} {
		h, _ := limited(http.Header{name: {"x"}})
		if !slices.Equal(h[name], []string{want}) {
			t.Errorf("%s is %q, want %q", name, h[name], want)
		}
		if h, shared := limited(http.Header{name: {"x"}, "Cache-Control": {"public"}}); !shared || !slices.Equal(h[name], []string{"x"}) {
			t.Errorf("shared on purpose, and %s is %q", name, h[name])
		}
		if h, shared := limited(http.Header{name: {"public, max-age=9"}}); shared || h.Get("Cache-Control") != "private" {
			t.Errorf("%s alone lets others keep it: %q", name, h)
		}
	}
	if h, _ := limited(http.Header{"Cdn-Cache-Control": {}}); len(h["Cdn-Cache-Control"]) != 0 {
		t.Error("a field without lines has one")
	}
}

func TestFieldsCountInEverySpelling(t *testing.T) {
	h, shared := limited(http.Header{
		"cache-control": {"public"}, "Cache-Control": {"private"}, "VARY": {"Accept"}, "vary": {}, "Vary": {"Accept"},
	})
	var names []string
	for name, lines := range h {
		if len(lines) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if shared || !slices.Equal(names, []string{"Cache-Control", "Vary"}) || h.Get("Cache-Control") != "private" || h.Get("Vary") != "Accept, Cookie" {
		t.Errorf("shared %v, %q", shared, h)
	}
}

// A handler may have put one slice into several headers.
func TestLimitWritesNotIntoTheHandlersSlices(t *testing.T) {
	lines := append(make([]string, 0, 8), "public")
	vary := append(make([]string, 0, 8), "Accept")
	a, b := http.Header{"Cache-Control": lines, "Vary": vary, "cache-control": {"private"}, "vary": {"Accept-Language"}}, http.Header{"Cache-Control": lines, "Vary": vary}
	Limit(a, Cookie)
	a.Add("Cache-Control", "X")
	a.Add("Vary", "X")
	if !slices.Equal(b["Cache-Control"], []string{"public"}) || !slices.Equal(b["Vary"], []string{"Accept"}) ||
		!slices.Equal(lines[:2], []string{"public", ""}) || !slices.Equal(vary[:2], []string{"Accept", ""}) {
		t.Errorf("the other header is %q", b)
	}
	if a["Cache-Control"][0] != "private" || a["Vary"][0] != "Accept, Accept-Language, Cookie" && a["Vary"][0] != "Accept-Language, Accept, Cookie" {
		t.Errorf("adding to one field has changed the other: %q", a)
	}
}

func TestWhatASharedCacheMightKeep(t *testing.T) {
	for control, want := range map[string]bool{"": true, "max-age=60": true, "public": true, "private": false, "no-store": false, "max-age=60, private": false} {
		h := http.Header{}
		if control != "" {
			h = http.Header{"Cache-Control": {"must-revalidate", control}}
		}
		for method, kept := range map[string]bool{"GET": want, "HEAD": want, "POST": false, "PUT": false, "": false} {
			if got := Cacheable(method, h); got != kept {
				t.Errorf("%s with %q: %v", method, control, got)
			}
		}
	}
}
