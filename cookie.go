package sojourn

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// Two cookies, because one that carried both the credential and each write's
// state would let a late response undo a login:
//
//   - the reference names a stored session; it is set only when the credential
//     is made or changes;
//   - the state holds an inline session, or the newest version of a stored one
//     that this browser has seen.
//
// A live reference always wins over an inline session.

// maxCandidates is how many cookies of one name are tried.
const maxCandidates = 4

// cookieNames are the names and attributes of one way to set a manager's
// cookies, made once.
type cookieNames struct {
	reference string
	state     [wire.MaxChunks]string // only the first, unless CookieOnly
	attrs     string                 // everything after name=value and Max-Age
}

func newCookieNames(name string, c *Cookie) cookieNames {
	n := cookieNames{reference: c.prefix() + name}
	for i := range n.state {
		n.state[i] = n.reference + "-state"
		if i > 0 {
			n.state[i] += "-" + strconv.Itoa(i)
		}
	}
	var a strings.Builder
	a.WriteString("; Path=" + c.Path)
	if c.Domain != "" {
		a.WriteString("; Domain=" + c.Domain)
	}
	a.WriteString("; HttpOnly")
	if !c.Insecure {
		a.WriteString("; Secure")
	}
	switch c.SameSite {
	case http.SameSiteStrictMode:
		a.WriteString("; SameSite=Strict")
	case http.SameSiteNoneMode:
		a.WriteString("; SameSite=None")
	default:
		a.WriteString("; SameSite=Lax")
	}
	if c.Partitioned {
		a.WriteString("; Partitioned")
	}
	n.attrs = a.String()
	return n
}

// line returns a Set-Cookie value. maxAge is in whole seconds: zero leaves the
// cookie to the browser's own session, a negative one deletes it.
func (n *cookieNames) line(name, value string, maxAge time.Duration) string {
	var b strings.Builder
	b.Grow(len(name) + len(value) + len(n.attrs) + 32)
	b.WriteString(name)
	b.WriteByte('=')
	b.WriteString(value)
	switch {
	case maxAge < 0:
		b.WriteString("; Max-Age=0")
	case maxAge > 0:
		b.WriteString("; Max-Age=")
		var digits [20]byte
		b.Write(strconv.AppendInt(digits[:0], int64(maxAge/time.Second), 10))
	}
	b.WriteString(n.attrs)
	return b.String()
}

// cookieValues appends to dst the values of at most maxCandidates cookies with
// that name, in the order of the header. It reads the header itself because
// [http.Request.Cookie] parses and copies every cookie of the request.
func cookieValues(dst []string, in http.Header, name string) []string {
	for _, line := range in["Cookie"] {
		for line != "" && len(dst) < maxCandidates {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			pair = strings.Trim(pair, " \t")
			if len(pair) <= len(name) || pair[len(name)] != '=' || pair[:len(name)] != name {
				continue
			}
			value := pair[len(name)+1:]
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			dst = append(dst, value)
		}
	}
	return dst
}

// openCookie opens a sealed cookie value. stale says that it should be sealed
// again with a newer key.
func (m *Manager) openCookie(p seal.Purpose, value string) (plain []byte, stale bool, err error) {
	// Nothing longer than all numbered cookies together can be ours.
	if len(value) > wire.MaxChunks*wire.MaxCookie {
		return nil, false, seal.ErrOpen
	}
	b := make([]byte, wire.Text.DecodedLen(len(value)))
	n, err := wire.Text.Decode(b, []byte(value))
	if err != nil || wire.Text.EncodedLen(n) != len(value) { // it skips line ends
		return nil, false, seal.ErrOpen
	}
	return m.cfg.Keys.current().OpenInPlace(p, b[:n], m.aad)
}

// sealCookie seals plain and returns the cookie value.
func (m *Manager) sealCookie(p seal.Purpose, plain []byte) (string, error) {
	b, err := m.cfg.Keys.current().Seal(make([]byte, 0, len(plain)+seal.Overhead), p, plain, m.aad)
	if err != nil {
		return "", err
	}
	var text [1024]byte // enough for most
	return string(wire.Text.AppendEncode(text[:0], b)), nil
}

// inlineSize is how many bytes of names and values the state cookies take for a
// value of that length.
func (m *Manager) inlineSize(length int) int {
	names, chunks := &m.names.state, 1
	if m.cfg.Placement == CookieOnly {
		chunks = min(wire.Chunks(names[len(names)-1], length), len(names))
	}
	if chunks > 1 {
		length += len("2.")
	}
	for _, name := range names[:chunks] {
		length += len(name)
	}
	return length
}

// sealedLen is the length of the cookie value for n bytes of plain text.
func sealedLen(n int) int { return wire.Text.EncodedLen(n + seal.Overhead) }
