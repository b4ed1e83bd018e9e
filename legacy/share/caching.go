package share

import (
	"net/http"
	"slices"
	"strings"
)

// limitCaches sets the headers for caches, because a response depends on its
// request's session (RFC 9111): Vary on one line, since nginx only uses the
// last line, and Cache-Control private. The application's explicit permission
// for shared caches is kept only in a response without Set-Cookie.
func limitCaches(h http.Header) {
	var vary []string
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" && !containsFold(vary, name) {
				vary = append(vary, name)
			}
		}
	}
	switch {
	case slices.Contains(vary, "*"):
		vary = []string{"*"}
	case !containsFold(vary, "Cookie"):
		vary = append(vary, "Cookie")
	}
	h["Vary"] = []string{strings.Join(vary, ", ")}

	var kept []string
	limited, shared := false, false
	for _, line := range h["Cache-Control"] {
		for d := range strings.SplitSeq(line, ",") {
			d = strings.TrimSpace(d)
			name, _, _ := strings.Cut(strings.ToLower(d), "=")
			switch name {
			case "":
				continue
			case "public", "s-maxage", "must-understand":
				shared = true
				if len(h["Set-Cookie"]) > 0 {
					continue
				}
			case "no-store", "private":
				limited = limited || !strings.Contains(d, "=") // private="field" applies to that field only
			}
			kept = append(kept, d)
		}
	}
	if len(h["Set-Cookie"]) > 0 {
		// Caches that support them give them precedence (RFC 9213).
		for name := range h {
			if strings.HasSuffix(name, "-Cache-Control") || name == "Surrogate-Control" || name == "Edge-Control" || name == "X-Accel-Expires" {
				delete(h, name)
			}
		}
		shared = false
	}
	if !limited && !shared {
		kept = append([]string{"private"}, kept...)
	}
	h["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

func containsFold(all []string, name string) bool {
	return slices.ContainsFunc(all, func(n string) bool { return strings.EqualFold(n, name) })
}
