package sojourn

import (
	"net/http"
	"strings"
)

// seen reports whether the response to this request will be shown to a person,
// as far as that is known by now. What is to be seen once, or must surely reach
// the browser, waits for another response otherwise.
func (s *Session) seen() bool {
	return !s.background && !s.unshown && (s.r == nil || s.r.Method != http.MethodHead) && !speculative(s.in)
}

// speculative reports whether a browser, or a script in a page, asks before
// anybody wants to see the answer: it may never be shown. Sec-Purpose is that of
// the Fetch standard and of Speculation Rules, X-Sec-Purpose is Turbo's,
// HX-Preloaded is htmx's; the others are what browsers sent before.
func speculative(h http.Header) bool {
	for _, name := range [...]string{"Sec-Purpose", "X-Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		for _, v := range h[name] {
			v = strings.ToLower(v)
			if strings.Contains(v, "prefetch") || strings.Contains(v, "prerender") || strings.Contains(v, "preview") {
				return true
			}
		}
	}
	return h.Get("Hx-Preloaded") == "true"
}

// shown reports whether browsers show a response with that status and header:
// not those without a body, nor redirects.
func shown(status int, h http.Header) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		return false
	default:
		return status < 300 || status > 399 || h.Get("Location") == ""
	}
}

// mayRotate reports whether the response of this request will surely leave its
// cookies in the browser, as far as that can be known: those of upgrades,
// event streams and of what nobody looks at may not.
func (s *Session) mayRotate() bool {
	return s.seen() && s.in.Get("Upgrade") == "" && !asksForEvents(s.in)
}
