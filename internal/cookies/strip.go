package cookies

import (
	"net/http"
	"slices"
	"strings"
)

// Strip removes from a request's header every cookie and token that could hold
// a credential of the manager, including former ones. Other lines are
// unchanged, and so is the field's backing array, which may be shared.
func (c *Cookies) Strip(h http.Header) {
	if c.Bearer {
		for { // check each line separately
			token, ok := bearer(h)
			if !ok {
				break
			}
			lines := slices.DeleteFunc(slices.Clone(h["Authorization"]), func(line string) bool {
				return strings.HasSuffix(line, tokenPrefix+token)
			})
			if h["Authorization"] = lines; len(lines) == 0 {
				delete(h, "Authorization")
			}
		}
	}
	lines := h["Cookie"]
	var kept []string
	changed := false
	for _, line := range lines {
		rest, removed := c.strip(line)
		changed = changed || removed
		if rest != "" || !removed {
			kept = append(kept, rest)
		}
	}
	switch {
	case !changed:
	case len(kept) == 0:
		delete(h, "Cookie")
	default:
		h["Cookie"] = kept
	}
}

// strip returns a line without the manager's cookies. It splits the line like
// find, at every semicolon, quoted or not.
func (c *Cookies) strip(line string) (rest string, removed bool) {
	var kept []string
	for pair := range strings.SplitSeq(line, ";") {
		name, _, _ := strings.Cut(pair, "=")
		switch pair = strings.Trim(pair, " \t"); {
		case c.owns(strings.Trim(name, " \t")):
			removed = true
		case pair != "":
			kept = append(kept, pair)
		}
	}
	if !removed {
		return line, false
	}
	return strings.Join(kept, "; "), true
}

// owns reports whether a cookie of that name is one of the manager's, in any
// mode.
func (c *Cookies) owns(name string) (yes bool) {
	c.all(func(n *names) {
		yes = yes || name == n.reference
		for _, state := range n.state {
			yes = yes || name == state
		}
	})
	return yes
}
