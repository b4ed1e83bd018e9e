// Package request determines from a request's header who started it and whether
// anyone will see the answer: from Fetch Metadata, hints of browsers and
// scripts, and the fields of proxies.
package request

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Info is the data of a request that may not be one of net/http. The root
// package's RequestInfo documents the fields.
type Info struct {
	Header     http.Header
	Method     string
	Host       string
	RemoteAddr string
	Encrypted  bool
}

// Speculative reports whether a browser, or a script in a page, prefetches an
// answer that may never be shown. Sec-Purpose is from the Fetch standard and
// Speculation Rules, X-Sec-Purpose from Turbo, and HX-Preloaded from htmx;
// older browsers send the others.
func Speculative(h http.Header) bool {
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

// Shown reports whether browsers show a response with that status and header:
// not those without a body, nor redirects.
func Shown(status int, h http.Header) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		return false
	default:
		return status < 300 || status > 399 || h.Get("Location") == ""
	}
}

// PlainHTTP reports whether the cookies are certainly sent to the browser
// unencrypted.
func PlainHTTP(r *Info) bool {
	return r.Method != "" && !r.Encrypted && !forwardedSecurely(r.Header) &&
		r.Header.Get("Forwarded") == "" && !isLocalhost(r.Host)
}

// forwardedSecurely reports whether the browser's own connection was encrypted,
// by X-Forwarded-Proto. Each proxy may have added to the list, so the first
// element is about the browser. Schemes are case-insensitive (RFC 3986, section
// 3.1), and some proxies send wss instead of https for a WebSocket.
func forwardedSecurely(h http.Header) bool {
	for _, line := range h["X-Forwarded-Proto"] {
		for proto := range strings.SplitSeq(line, ",") {
			if proto = strings.TrimSpace(proto); proto != "" {
				return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
			}
		}
	}
	return false
}

// CrossSite reports whether the request was started by another site (Fetch
// Metadata; by Origin where the browser sends none). It is false for requests
// that are not HTTP.
func CrossSite(r *Info) bool {
	if r.Method == "" {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "cross-site"
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	// Compare like http.CrossOriginProtection, including the port, so that both
	// always agree.
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

// Withheld reports whether the browser withholds cookies of that SameSite from
// this request, because another site started it (RFC 6265bis, section 5.8.3).
// SameSite=Lax lets them through with top-level navigations by a safe method.
func Withheld(r *Info, sameSite http.SameSite) bool {
	switch sameSite {
	case http.SameSiteNoneMode:
		return false
	case http.SameSiteStrictMode:
		return CrossSite(r)
	default:
		return CrossSite(r) && !TopLevel(r)
	}
}

// TopLevel reports whether a request fetches, by a safe method, a page that the
// browser shows in a tab.
func TopLevel(r *Info) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
	default:
		return false
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return (mode == "" || mode == "navigate") && (dest == "" || dest == "document")
}

// hostname returns host without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(host, "[]")
}

func isLocalhost(host string) bool {
	host = hostname(host)
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// UserAgent returns the User-Agent, truncated and made valid UTF-8.
func UserAgent(h http.Header) string {
	ua := h.Get("User-Agent")
	const most = 256 // enough for every browser
	if len(ua) > most {
		ua = ua[:most]
	}
	return strings.ToValidUTF8(ua, "")
}

// AsksForEvents reports whether a request accepts an event stream, as from an
// EventSource.
func AsksForEvents(h http.Header) bool {
	return strings.Contains(h.Get("Accept"), "text/event-stream")
}

// backgroundHeader is the field with which a page marks automatic requests,
// which are not the visitor's activity. It can only make a session end earlier,
// so it needs no protection.
const backgroundHeader = "Sojourn-Background"

// DeclaresBackground reports whether a request has that field.
func DeclaresBackground(h http.Header) bool {
	v, ok := h[backgroundHeader]
	return ok && len(v) > 0 && v[0] != "0" && v[0] != "false"
}

// MayRefresh reports whether the page that answers a navigation may reload
// itself: the visitor has clicked, or the request names the other site as its
// referrer. A page in another site's sandbox has an opaque origin, so each of
// its requests counts as from another site, and it would reload endlessly. Such
// a reload has no click and no referrer (HTML standard, section 7.1.5; Referrer
// Policy, section 8.3).
func MayRefresh(r *Info) bool {
	if r.Header.Get("Sec-Fetch-User") == "?1" {
		return true
	}
	from, err := url.Parse(r.Header.Get("Referer"))
	return err == nil && from.Host != "" && from.Host != r.Host
}

// Peer returns the IP address of the request's sender, or "".
func Peer(r *Info) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	if net.ParseIP(r.RemoteAddr) != nil {
		return r.RemoteAddr // as a middleware behind a proxy may have set it
	}
	return ""
}
