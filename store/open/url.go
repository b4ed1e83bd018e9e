package open

import (
	"net/url"
	"slices"
	"strings"
)

// address is the part of a URL before its options. Package net/url takes one
// host only.
type address struct{ hosts, path string }

// parse splits a URL of an engine that knows neither users nor passwords, and
// whose options are known by name.
func parse(text string, known ...string) (address, map[string]string, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return address{}, nil, urlError("it is not written as in %s://HOST", strings.TrimSuffix(scheme, ":"))
	}
	rest, options, _ := strings.Cut(rest, "?")
	var u address
	u.hosts, u.path, _ = strings.Cut(rest, "/")
	if strings.ContainsAny(rest, "@#") {
		return u, nil, urlError("%s knows no user, password or fragment in its URL", scheme)
	}
	query, err := url.ParseQuery(options)
	if err != nil {
		return u, nil, urlError("its options are not written as in a URL")
	}
	given := map[string]string{}
	for name := range query {
		if !slices.Contains(known, name) {
			return u, nil, urlError("%s has no such option; it has %s", scheme, strings.Join(known, ", "))
		}
		if given[name], err = single(query, name); err != nil {
			return u, nil, err
		}
	}
	return u, given, nil
}

// single returns an option that may be given once; "" if it is not.
func single(query url.Values, name string) (string, error) {
	values, given := query[name]
	if given && (len(values) != 1 || values[0] == "") {
		return "", urlError("%s is given twice, or empty", name)
	}
	return query.Get(name), nil
}
