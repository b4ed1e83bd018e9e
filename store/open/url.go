package open

import (
	"net/url"
	"slices"
	"strings"
)

// An Address is a parsed URL that may have several hosts. Package net/url
// supports one host only.
type Address struct {
	Hosts   string            // between "://" and the next "/" or "?"
	Path    string            // what follows that "/", up to a "?"
	Options map[string]string // what follows the "?", unescaped; never ""
}

// Parse parses a URL of an engine without users and passwords. options are the
// allowed options; each may be given once. Errors wrap [ErrURL] and do not
// repeat the URL, which may contain a password by mistake.
func Parse(text string, options ...string) (Address, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, _, _ = strings.Cut(text, ":")
		return Address{}, urlError("it is not written as in %s://HOST", scheme)
	}
	rest, after, _ := strings.Cut(rest, "?")
	a := Address{Options: map[string]string{}}
	a.Hosts, a.Path, _ = strings.Cut(rest, "/")
	if strings.ContainsAny(rest, "@#") {
		return Address{}, urlError("%s knows no user, password or fragment in its URL", scheme)
	}
	query, err := url.ParseQuery(after)
	if err != nil {
		return Address{}, urlError("its options are not written as in a URL")
	}
	for name, values := range query {
		if !slices.Contains(options, name) {
			return Address{}, urlError("%s has no such option; it has %s", scheme, strings.Join(options, ", "))
		}
		if len(values) != 1 || values[0] == "" {
			return Address{}, urlError("%s is given twice, or empty", name)
		}
		a.Options[name] = values[0]
	}
	return a, nil
}
