package request

import (
	"net/http"
	"slices"
)

// ResponseHeader is the root package's interface of that name.
type ResponseHeader interface {
	Values(name string) []string
	Set(name, value string)
	Add(name, value string)
	Del(name string)
}

// ownFields are the header fields that a commit reads or writes. A
// ResponseHeader cannot list its fields.
var ownFields = [...]string{
	"Set-Cookie", "Sojourn-Token", "Access-Control-Expose-Headers", "Vary", "Cache-Control", "Content-Type", "Location",
	"Cdn-Cache-Control", "Cloudflare-Cdn-Cache-Control", "Netlify-Cdn-Cache-Control", "Vercel-Cdn-Cache-Control",
	"Surrogate-Control", "Edge-Control", "X-Accel-Expires",
}

// Fields returns those fields of h that a commit reads or writes.
func Fields(h ResponseHeader) http.Header {
	fields := http.Header{}
	for _, name := range ownFields {
		if lines := h.Values(name); len(lines) > 0 {
			fields[name] = lines
		}
	}
	return fields
}

// Replace sets those fields of h to their values in now, if they differ from
// before. It ignores fields of h with another capitalization.
func Replace(h ResponseHeader, before, now http.Header) {
	for _, name := range ownFields {
		if slices.Equal(before[name], now[name]) {
			continue
		}
		h.Del(name)
		for _, line := range now[name] {
			h.Add(name, line)
		}
	}
}
