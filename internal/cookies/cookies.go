// Package cookies reads the session cookies of a request and writes those of a
// response. It never uses a store.
//
// There are two cookies. With one for both the credential and the state of each
// write, a late response could undo a login:
//
//   - the reference names a stored session; it is set only when the credential
//     is made or changes;
//   - the state holds an inline session, or the newest version of a stored one
//     that this browser has seen.
//
// A live reference takes precedence over an inline session.
package cookies

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// maxCandidates is how many cookies of one name are tried.
const maxCandidates = 4

// Attributes are those of the cookies. The zero value has SameSite=Lax.
type Attributes struct {
	Prefix      string // of the names, such as "__Host-"
	Domain      string
	Path        string
	SameSite    http.SameSite
	Insecure    bool
	Partitioned bool
}

// Options are the settings of Cookies.
type Options struct {
	Name   string // without prefix
	Now    Attributes
	Former []Attributes // that were used before
	Limits *rules.Limits
	Ring   func() *seal.Ring
	Bound  []byte // additional data of all sealed values
	Bearer bool   // tokens are accepted
	Mended func() // an inline session had a time in the future
}

// Cookies are those of one manager.
type Cookies struct {
	Options
	own    names
	former []names
}

// New returns the cookies of a manager.
func New(o Options) *Cookies {
	c := &Cookies{Options: o, own: newNames(o.Name, &o.Now)}
	for i := range o.Former {
		c.former = append(c.former, newNames(o.Name, &o.Former[i]))
	}
	return c
}

// Within returns the same cookies, sealed with other additional data.
func (c *Cookies) Within(bound []byte) *Cookies {
	other := *c
	other.Bound = bound
	return &other
}

// ReferenceName is the name of the reference cookie.
func (c *Cookies) ReferenceName() string { return c.own.reference }

// names are the names and attributes of a manager's cookies under one configuration.
type names struct {
	reference string
	state     [wire.MaxChunks]string // only the first, unless CookieOnly
	attrs     string                 // everything after name=value and Max-Age
}

func newNames(name string, a *Attributes) names {
	n := names{reference: a.Prefix + name}
	for i := range n.state {
		n.state[i] = n.reference + "-state"
		if i > 0 {
			n.state[i] += "-" + strconv.Itoa(i)
		}
	}
	var b strings.Builder
	b.WriteString("; Path=" + a.Path)
	if a.Domain != "" {
		b.WriteString("; Domain=" + a.Domain)
	}
	b.WriteString("; HttpOnly")
	if !a.Insecure {
		b.WriteString("; Secure")
	}
	switch a.SameSite {
	case http.SameSiteStrictMode:
		b.WriteString("; SameSite=Strict")
	case http.SameSiteNoneMode:
		b.WriteString("; SameSite=None")
	default:
		b.WriteString("; SameSite=Lax")
	}
	if a.Partitioned {
		b.WriteString("; Partitioned")
	}
	n.attrs = b.String()
	return n
}

// line returns a Set-Cookie value. maxAge is in whole seconds: zero leaves the
// cookie to the browser's own session, a negative one deletes it.
func (n *names) line(name, value string, maxAge time.Duration) string {
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

// all calls f with each set of names: first the current ones, then those former
// ones whose names differ.
func (c *Cookies) all(f func(n *names)) {
	f(&c.own)
	for i := range c.former {
		former := &c.former[i]
		if former.reference != c.own.reference && !slices.ContainsFunc(c.former[:i], func(n names) bool {
			return n.reference == former.reference
		}) {
			f(former)
		}
	}
}

// Same reports whether two request headers have the same credentials for the manager.
func (c *Cookies) Same(a, b http.Header) bool {
	if c.Bearer && !slices.Equal(a["Authorization"], b["Authorization"]) {
		return false
	}
	if slices.Equal(a["Cookie"], b["Cookie"]) {
		return true
	}
	same := true
	c.all(func(n *names) {
		for _, name := range append([]string{n.reference}, n.state[:]...) {
			same = same && slices.Equal(find(nil, a, name), find(nil, b, name))
		}
	})
	return same
}

// find appends to dst the values of at most maxCandidates cookies with that name,
// in the order of the header. It reads the header itself because
// [http.Request.Cookie] parses and copies every cookie of the request.
func find(dst []string, in http.Header, name string) []string {
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

// open opens a sealed cookie value. stale means that it should be sealed again
// with a newer key.
func (c *Cookies) open(p seal.Purpose, value string) (plain []byte, stale bool, err error) {
	// A longer value than all numbered cookies together cannot be ours.
	if len(value) > wire.MaxChunks*wire.MaxCookie {
		return nil, false, seal.ErrOpen
	}
	b := make([]byte, wire.Text.DecodedLen(len(value)))
	n, err := wire.Text.Decode(b, []byte(value))
	if err != nil || wire.Text.EncodedLen(n) != len(value) { // it skips line ends
		return nil, false, seal.ErrOpen
	}
	return c.Ring().OpenInPlace(p, b[:n], c.Bound)
}

// seal seals plain and returns the cookie value. It fails only without a source of
// randomness.
func (c *Cookies) seal(p seal.Purpose, plain []byte) (string, error) {
	b, err := c.Ring().Seal(make([]byte, 0, len(plain)+seal.Overhead), p, plain, c.Bound)
	if err != nil {
		return "", err
	}
	var text [1024]byte // enough for most
	return string(wire.Text.AppendEncode(text[:0], b)), nil
}

// size is the total size of names and values of the state cookies for a value
// of that length, in bytes.
func (c *Cookies) size(length int) int {
	state, chunks := &c.own.state, 1
	if c.Limits.Mode == rules.CookieOnly {
		chunks = min(wire.Chunks(state[len(state)-1], length), len(state))
	}
	if chunks > 1 {
		length += len("2.")
	}
	for _, name := range state[:chunks] {
		length += len(name)
	}
	return length
}

// sealedLen is the length of the cookie value for n bytes of plain text.
func sealedLen(n int) int { return wire.Text.EncodedLen(n + seal.Overhead) }

// Inline is a session in a cookie.
type Inline struct {
	Rec    record.Record
	Size   int // bytes of the cookies' names and values
	Mended bool
	value  string // of the cookie to set; "" = the request had it
}

var errInlineLogin = errors.New("sojourn: a login in a cookie, where logins are stored")

// inline returns the session in a state cookie's plain text.
func (c *Cookies) inline(plain []byte, now time.Time) (in Inline, err error) {
	if in.Rec, err = record.Parse(plain); err != nil {
		return in, err
	}
	h := &in.Rec.Header
	if len(h.Identifier) != record.IdentifierSize || h.Counter == 0 {
		return in, wire.ErrFormat
	}
	if h.User != "" && c.Limits.Mode != rules.CookieOnly {
		// It was made while this manager was CookieOnly: without a server side,
		// a copy of it would survive every logout.
		return in, errInlineLogin
	}
	if _, in.Mended = c.Limits.Mend(h, time.Time{}, now); in.Mended {
		c.Mended()
		h.Expires = min(h.Expires, c.Limits.LifetimeEnd(h).UnixMilli())
	}
	// The configuration may have allowed more when the cookie was sealed.
	end := rules.Earlier(record.Time(h.Expires), c.Limits.LifetimeEnd(h))
	if now.After(c.Limits.IdleDeadline(h, record.Time(h.Seen), end)) {
		return in, fault.Expired
	}
	return in, nil
}

// Seal makes the state cookie of an inline session. It takes ownership of the
// record. changed means that it is more than a refresh, and quiet that the
// request does not count as activity. known is a mark of [Jar.Known] that the
// cookie also carries.
func (c *Cookies) Seal(r record.Record, identifier []byte, known wire.Mark, changed, quiet bool, now time.Time) (Inline, error) {
	h := &r.Header
	h.Identifier = identifier
	if !quiet || h.Seen == 0 {
		h.Seen = now.UnixMilli()
	}
	if h.Created == 0 {
		h.Created = now.UnixMilli()
	}
	if !quiet {
		c.Limits.Renew(h, now)
	}
	h.Expires = c.Limits.LifetimeEnd(h).UnixMilli()
	// These fields are for stored sessions only.
	h.Generation, h.Presented, h.Rotated, h.OlderUntil, h.Suspected = 0, 0, 0, 0, 0
	h.PromotedAt, h.Promoted, h.InlineUntil = 0, 0, 0
	h.UserAgent, h.IP = "", ""
	if changed || h.Counter == 0 {
		h.Counter++
		for i := range r.Fields() {
			if f := &r.Fields()[i]; f.Stamp == 0 {
				f.Stamp = h.Counter
			}
		}
	}
	plain := known.Append(make([]byte, 0, r.Size()+len(known)+2))
	marked := len(plain) // not counted, because it is temporary
	plain = r.Append(append(plain, wire.StateInline))
	if n := len(plain) - marked - 1; n > c.Limits.MaxSize {
		return Inline{}, fault.Size(n, c.Limits.MaxSize)
	}
	size := c.size(sealedLen(len(plain) - marked))
	if size > c.Limits.InlineLimit {
		return Inline{}, fault.Size(size, c.Limits.InlineLimit)
	}
	value, err := c.seal(seal.State, plain)
	if err != nil {
		return Inline{}, err
	}
	return Inline{Rec: r, Size: size, value: value}, nil
}
