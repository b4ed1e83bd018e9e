package main

import (
	"regexp"
	"strings"

	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// cookie is one cookie of the input, joined from its numbered parts.
type cookie struct {
	name     string // as in the input; "" for a bare value
	session  string // the name of its sessions
	value    string
	purposes []seal.Purpose // the possible purposes of its seal
}

// String is for errors.
func (c cookie) String() string {
	if c.name == "" {
		return "the cookie"
	}
	return "the cookie " + c.name
}

var (
	headerName = regexp.MustCompile(`(?i)^\s*(set-)?cookie:`)
	// authorization is the optional text before a token.
	authorization = regexp.MustCompile(`(?i)^(authorization:\s*)?(bearer\s+)?`)
	statePart     = regexp.MustCompile(`-state(-[1-3])?$`)
)

// parseCookies finds the cookies of the sessions with that name in a text, or the
// token: a bare value, or header lines, or pairs of names and values.
func parseCookies(text, session string) []cookie {
	if token, ok := strings.CutPrefix(authorization.ReplaceAllString(strings.TrimSpace(text), ""), "sjn_"); ok {
		return []cookie{{name: "token", session: session, value: token, purposes: []seal.Purpose{seal.Token}}}
	}
	if !strings.Contains(text, "=") { // no base64url character
		return []cookie{{session: session, value: join(strings.TrimSpace(text), nil), purposes: []seal.Purpose{seal.Reference, seal.State}}}
	}
	parts := map[string]string{} // further parts of state cookies, by name
	var found []cookie
	for line := range strings.Lines(text) {
		line = headerName.ReplaceAllString(line, "")
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = strings.Trim(value, `"`)
			bare := strings.TrimPrefix(strings.TrimPrefix(name, "__Host-"), "__Secure-")
			switch suffix := statePart.FindString(bare); {
			case value == "": // one that was deleted
			case bare == session:
				found = append(found, cookie{name, session, value, []seal.Purpose{seal.Reference}})
			case strings.TrimSuffix(bare, suffix) != session:
			case suffix == "-state":
				found = append(found, cookie{name, session, value, []seal.Purpose{seal.State}})
			default:
				parts[name] = value
			}
		}
	}
	for i := range found {
		found[i].value = join(found[i].value, func(number string) string { return parts[found[i].name+"-"+number] })
	}
	return found
}

// join joins the parts of a value. If a part is missing, it returns the value
// unchanged, which will not open.
func join(first string, part func(number string) string) string {
	whole, ok := wire.Join(first, func(i int) (string, bool) {
		if part == nil {
			return "", false
		}
		value := part(string(rune('0' + i)))
		return value, value != ""
	})
	if !ok {
		return first
	}
	return whole
}
