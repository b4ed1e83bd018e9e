// Package cookies reads and writes cookies like old Python frameworks.
//
// net/http does not work for them: it drops cookies whose value has a
// backslash, as most of these do ("=" is written \075), and returns the first
// of several cookies of one name, where the Python libraries use the last.
package cookies

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

// Cookie is one cookie of a request.
type Cookie struct {
	Name string
	// Raw is the value as it was sent, with its quotes and escapes.
	Raw string
	// Value is Raw without them, byte for byte: \ooo and \c are resolved in a
	// quoted value, nothing is percent-decoded.
	Value string
}

// Parse reads the Cookie fields of a request, in order. Duplicate names are
// kept; anything without a name and an "=" is skipped.
func Parse(header http.Header) []Cookie {
	var out []Cookie
	for _, field := range header["Cookie"] {
		out = appendParsed(out, field)
	}
	return out
}

func appendParsed(out []Cookie, s string) []Cookie {
	for {
		s = strings.TrimLeft(s, " \t;")
		if s == "" {
			return out
		}
		end := strings.IndexAny(s, "=;")
		if end < 0 {
			return out
		}
		if s[end] == ';' { // a word without a value
			s = s[end:]
			continue
		}
		name := strings.TrimRight(s[:end], " \t")
		s = strings.TrimLeft(s[end+1:], " \t")
		var raw string
		if n := quotedLen(s); n > 0 {
			raw, s = s[:n], s[n:]
			// Ignore text between the closing quote and the next ";".
			if semi := strings.IndexByte(s, ';'); semi >= 0 {
				s = s[semi:]
			} else {
				s = ""
			}
		} else {
			raw, s, _ = strings.Cut(s, ";")
			raw = strings.TrimRight(raw, " \t")
		}
		if name != "" {
			out = append(out, Cookie{Name: name, Raw: raw, Value: unquote(raw)})
		}
	}
}

// quotedLen returns the length of the quoted string at the start of s,
// including the quotes, or 0 if there is no complete one.
func quotedLen(s string) int {
	if !strings.HasPrefix(s, `"`) {
		return 0
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// unquote removes the quotes and escapes of a quoted value.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			out = append(out, s[i])
			continue
		}
		if i+3 < len(s) && s[i+1] <= '3' && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		i++
		out = append(out, s[i])
	}
	return string(out)
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// MaxCandidates is how many cookies of one name [Named] returns, so that an
// attacker who plants cookies cannot make requests expensive.
const MaxCandidates = 4

// Named returns the cookies of that name, the last one first, because the
// Python libraries read that one. Names are case sensitive. Of more than
// [MaxCandidates] only the last are returned.
func Named(all []Cookie, name string) []Cookie {
	var out []Cookie
	for i := len(all) - 1; i >= 0 && len(out) < MaxCandidates; i-- {
		if all[i].Name == name {
			out = append(out, all[i])
		}
	}
	return out
}

// First calls read for the cookies of that name and returns the first success.
// If all are refused, it returns the first refusal; if no such cookie has a
// value, [reason.Missing]. If read fails without a reason, such as when a store
// does not answer, First returns that error.
func First[T any](header http.Header, name string, read func(value string) (T, error)) (T, error) {
	var none T
	err := error(reason.Missing)
	tried := false
	for _, c := range Named(Parse(header), name) {
		if c.Value == "" {
			continue
		}
		got, failure := read(c.Value)
		switch {
		case failure == nil:
			return got, nil
		case reason.Of(failure) == "":
			return none, failure
		case !tried || reason.IsUnreadable(failure) && !reason.IsUnreadable(err):
			tried, err = true, failure
		}
	}
	return none, err
}

// bareByte reports whether Python 2.7's SimpleCookie writes a value made of
// such bytes without quotes.
func bareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// Quote writes a value as Python 2.7's SimpleCookie does: bare where that is
// possible, otherwise in quotes with \", \\ and octal escapes for commas,
// semicolons, control characters and non-ASCII characters. All Python cookie
// parsers and [Parse] can read it.
func Quote(value string) string {
	bare := true
	for i := range len(value) {
		if !bareByte(value[i]) {
			bare = false
			break
		}
	}
	if bare {
		return value
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(value) {
		switch c := value[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7F || c == ',' || c == ';':
			b.WriteByte('\\')
			b.WriteByte('0' + c>>6)
			b.WriteByte('0' + c>>3&7)
			b.WriteByte('0' + c&7)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Attributes are the attributes of a Set-Cookie field. The zero value is a
// cookie for path "/" that lives until the browser is closed.
type Attributes struct {
	Domain   string
	Path     string    // "/" if empty
	Expires  time.Time // zero: not written
	MaxAge   int       // seconds; 0: not written
	Secure   bool
	HTTPOnly bool
	SameSite string // "Lax", "Strict", "None"; empty: not written
}

// At returns the attributes with Expires filled in from MaxAge, for a cookie
// that is written at now. Old browsers support only Expires.
func (a Attributes) At(now time.Time) Attributes {
	if a.MaxAge > 0 && a.Expires.IsZero() {
		a.Expires = now.Add(time.Duration(a.MaxAge) * time.Second)
	}
	return a
}

// Set returns the value of a Set-Cookie field. The value is written unchanged.
// It must not have ";" or control characters outside quotes; results of [Quote]
// have none.
func Set(name, rawValue string, a Attributes) string {
	var b strings.Builder
	b.WriteString(name + "=" + rawValue)
	if a.Domain != "" {
		b.WriteString("; Domain=" + a.Domain)
	}
	if !a.Expires.IsZero() {
		b.WriteString("; Expires=" + a.Expires.UTC().Format(http.TimeFormat))
	}
	if a.MaxAge > 0 {
		b.WriteString("; Max-Age=" + strconv.Itoa(a.MaxAge))
	}
	path := a.Path
	if path == "" {
		path = "/"
	}
	b.WriteString("; Path=" + path)
	if a.Secure {
		b.WriteString("; Secure")
	}
	if a.HTTPOnly {
		b.WriteString("; HttpOnly")
	}
	if a.SameSite != "" {
		b.WriteString("; SameSite=" + a.SameSite)
	}
	return b.String()
}

// Expire returns the Set-Cookie field that removes a cookie. Domain and path
// must be those that it was set with.
func Expire(name string, a Attributes) string {
	a.Expires, a.MaxAge = time.Unix(0, 0), 0
	return Set(name, "", a)
}

// Base64 decodes standard padded base64, strictly: no other characters, no line
// breaks, no nonzero trailing bits. It reports false for anything else.
func Base64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which encoding/base64 would skip
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// MaxSize is the maximum size of a cookie's name and value together in browsers, in bytes.
const MaxSize = 4096

// ParseSet returns the name and the raw value of a Set-Cookie field, and
// whether the field removes the cookie: by an empty value, as this module does,
// or by Max-Age.
func ParseSet(field string) (name, raw string, removed bool) {
	name, rest, _ := strings.Cut(strings.TrimLeft(field, " "), "=")
	if n := quotedLen(rest); n > 0 {
		raw, rest = rest[:n], rest[n:]
	} else {
		end := strings.IndexByte(rest+";", ';')
		raw, rest = strings.TrimRight(rest[:end], " \t"), rest[end:]
	}
	removed = raw == ""
	for part := range strings.SplitSeq(rest, ";") {
		key, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n, err := strconv.Atoi(v); strings.EqualFold(key, "Max-Age") && err == nil && n <= 0 {
			removed = true
		}
	}
	return strings.TrimRight(name, " \t"), raw, removed
}
