// Package caching sets the header fields for caches when a response depends on
// its request's session (RFC 9111, RFC 9213).
package caching

import (
	"net/http"
	"strconv"
	"strings"
)

// Limit sets the header fields for caches of a response that depends on its
// request's session (RFC 9111). No other code sets them. It is called when no
// handler below Wrap can change the header any more:
//
//   - "Vary" with the fields of on, on one line with whatever else the response varies on:
//     nginx uses only the last Vary line of a response;
//   - "Cache-Control: private", because a middleware or a proxy outside may add
//     another Vary line. With it no shared cache keeps the response, and
//     Vary does not matter.
//
// Shared caches may keep a response only if its Cache-Control has "public", or
// an "s-maxage" above zero, and neither "private" nor "no-store", and the
// response has no Set-Cookie. Limit reports that. Fields for particular caches
// (CDN-Cache-Control and the like) do not count as such a permission. Caches
// that support them prefer them to Cache-Control, so without the permission
// Limit makes them forbid storing.
func Limit(h http.Header, on On) (shared bool) {
	var vary, control, targeted []string
	cookies := false
	for name, lines := range h {
		// A handler may have written to the map directly, with any capitalization.
		switch {
		case len(lines) == 0:
		case strings.EqualFold(name, "Vary"):
			vary = collect(h, vary, name, "Vary", lines)
		case strings.EqualFold(name, "Cache-Control"):
			control = collect(h, control, name, "Cache-Control", lines)
		case strings.EqualFold(name, "Set-Cookie"):
			cookies = true
		case isTargeted(name):
			targeted = append(targeted, name)
		}
	}
	value := "private" // if the handler sets none
	if len(control) > 0 {
		directives := parseCacheControl(control)
		if shared = !cookies && directives.shared(); !shared {
			directives.keepPrivate()
		}
		value = directives.String()
	}
	if !shared {
		for _, name := range targeted {
			h[name] = []string{forbids(name)}
		}
	}
	lines := [2]string{value, on.join(vary)} // one allocation
	h["Cache-Control"], h["Vary"] = lines[0:1:1], lines[1:2:2]
	return shared
}

// collect adds lines of a field with that canonical name, and removes them if
// they are under another capitalization.
func collect(h http.Header, all []string, name, canonical string, lines []string) []string {
	if name != canonical {
		delete(h, name)
	}
	if all == nil {
		return lines
	}
	return append(all[:len(all):len(all)], lines...)
}

// isTargeted reports whether a field controls particular caches in place of
// Cache-Control: those of RFC 9213 (CDN-Cache-Control, and any product's own
// before "-Cache-Control"), Surrogate-Control (Varnish, Fastly), Edge-Control
// (Akamai) and X-Accel-Expires (nginx).
func isTargeted(name string) bool {
	const suffix = "-Cache-Control"
	return len(name) > len(suffix) && strings.EqualFold(name[len(name)-len(suffix):], suffix) ||
		strings.EqualFold(name, "Surrogate-Control") || strings.EqualFold(name, "Edge-Control") ||
		strings.EqualFold(name, "X-Accel-Expires")
}

// forbids is the value of a targeted field that forbids storing.
func forbids(name string) string {
	if strings.EqualFold(name, "X-Accel-Expires") {
		return "0" // its value is in seconds
	}
	return "no-store"
}

// On is the request's fields that responses depend on, in canonical form and
// separated by ", ".
type On string

const (
	Cookie         On = "Cookie"
	CookieOrBearer On = "Cookie, Authorization"
)

// join returns one Vary line for several, with the fields of on.
func (on On) join(lines []string) string {
	if len(lines) == 0 {
		return string(on)
	}
	var names []string
	has := func(name string) bool {
		for _, n := range names {
			if strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			switch name = strings.TrimSpace(name); {
			case name == "*":
				return "*" // nginx accepts it only alone
			case name != "" && !has(name):
				names = append(names, name)
			}
		}
	}
	for name := range strings.SplitSeq(string(on), ", ") {
		if !has(name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// cacheControl is a parsed Cache-Control field.
type cacheControl []string

// parseCacheControl splits lines at the commas outside quotes.
func parseCacheControl(lines []string) (c cacheControl) {
	for _, line := range lines {
		quoted := false
		for _, d := range strings.FieldsFunc(line, func(r rune) bool {
			if r == '"' {
				quoted = !quoted
			}
			return r == ',' && !quoted
		}) {
			if d = strings.TrimSpace(d); d != "" {
				c = append(c, d)
			}
		}
	}
	return c
}

func (c cacheControl) String() string { return strings.Join(c, ", ") }

// split returns a directive's name in lower case, and its argument.
func split(directive string) (name, arg string) {
	name, arg, _ = strings.Cut(directive, "=")
	return strings.ToLower(strings.TrimSpace(name)), strings.Trim(arg, "\" \t")
}

// shared reports whether shared caches are explicitly allowed to keep the
// response, without contradiction.
func (c cacheControl) shared() bool {
	allowed := false
	for _, d := range c {
		switch name, arg := split(d); name {
		case "public":
			allowed = true
		case "s-maxage":
			seconds, err := strconv.Atoi(arg)
			allowed = allowed || err == nil && seconds > 0
		case "no-store":
			return false
		case "private":
			if arg == "" { // with field names it hides only those
				return false
			}
		}
	}
	return allowed
}

// keepPrivate removes directives that allow shared caches to keep the response,
// and forbids it.
func (c *cacheControl) keepPrivate() {
	var kept cacheControl
	private, noStore, mustUnderstand := false, false, false
	for _, d := range *c {
		switch name, arg := split(d); name {
		case "public", "s-maxage":
			continue
		case "private":
			if arg != "" || private {
				continue
			}
			private = true
		case "no-store":
			noStore = true
		case "must-understand": // may void a no-store (RFC 9111, section 5.2.2.3)
			mustUnderstand = true
		}
		kept = append(kept, d)
	}
	if !private && (!noStore || mustUnderstand) {
		kept = append(kept, "private")
	}
	*c = kept
}

// Cacheable reports whether a shared cache might keep a response to that method
// with that header. It is for a warning. It runs for every request, so it does
// not parse the field.
func Cacheable(method string, h http.Header) bool {
	if method != http.MethodGet && method != http.MethodHead {
		return false
	}
	for _, line := range h["Cache-Control"] {
		if strings.Contains(line, "private") || strings.Contains(line, "no-store") {
			return false
		}
	}
	return true
}
