package cookies

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// Jar is the browser's cookies after this response. It tracks them, so that
// only changes are set.
type Jar struct {
	c *Cookies
	// Brought: the request had some cookie of ours, valid or not.
	Brought bool
	several bool // more than one cookie for the same thing opened

	// refused names the credentials that were refused. known names those of
	// which the browser has learned that, by its marks.
	refused, known wire.Mark
	marks          []wire.Mark

	reference      wire.Reference // of the chosen session
	hasReference   bool           // the request had one that opens
	referenceStale bool           // must be set again

	state      state
	stateStale bool
	floor      wire.Floor
	chunks     int // numbered state cookies that were sent or set, if more than one

	lines []line // of the response, not yet in its header

	token    bool   // the client keeps its credential as a token, and no cookies
	issued   string // the newest token; "" = the session has ended
	tokenDue bool   // the response must have it
}

// state is the kind of content of the state cookie.
type state uint8

const (
	empty state = iota
	inline
	floor
	junk // ours, but expired
)

// Choose sets the reference of the request's session.
func (j *Jar) Choose(ref *Reference) { j.reference, j.referenceStale = ref.Reference, ref.stale }

// Refuse records that credentials of the request are no longer valid, although
// the browser may have a valid one. It reports false if the browser's marks
// show that it has learned of that. Only the first such mark is kept, because a
// cookie has room for one.
func (j *Jar) Refuse(credentials ...string) bool {
	if j.known == (wire.Mark{}) && !j.Knows(credentials...) {
		j.refused = wire.MarkOf(credentials)
		return true
	}
	return false
}

// Refused reports whether credentials were refused.
func (j *Jar) Refused() bool { return j.refused != (wire.Mark{}) }

// Known is the mark that the browser's next cookie must keep.
func (j *Jar) Known() wire.Mark { return j.known }

// HasMarks reports whether the request has any mark.
func (j *Jar) HasMarks() bool { return len(j.marks) > 0 }

// Knows reports whether the request has the mark for the refusal of these
// credentials. The next cookie then keeps it.
func (j *Jar) Knows(credentials ...string) bool {
	if len(j.marks) == 0 || j.known != (wire.Mark{}) {
		return false
	}
	mark := wire.MarkOf(credentials)
	if !slices.Contains(j.marks, mark) {
		return false
	}
	j.known = mark
	return true
}

// TellRefused sets the mark that the browser's credentials were refused: a
// request with the mark began later, and may start a new session. The browser's
// inline session stays. age is the cookie's Max-Age.
func (j *Jar) TellRefused(inline *record.Record, age time.Duration) {
	if j.token {
		return // the token in the response shows it
	}
	plain := j.refused.Append(nil)
	if inline != nil {
		plain = inline.Append(append(plain, wire.StateInline))
	}
	if value, err := j.c.seal(seal.State, plain); err == nil { // otherwise the next response sets it
		j.setState(0, value, age)
	}
}

// StateStale reports whether the state cookie must be set again.
func (j *Jar) StateStale() bool { return j.stateStale }

// Outdated reports whether the browser's reference must be set again: it is one of
// another generation than ref, or ends before it.
func (j *Jar) Outdated(ref *wire.Reference) bool {
	return j.referenceStale || j.reference.Generation != ref.Generation || j.reference.Expires < ref.Expires
}

// Generation is the generation of the browser's reference.
func (j *Jar) Generation() uint64 { return j.reference.Generation }

// Floor is the browser's floor for a stored session.
func (j *Jar) Floor() wire.Floor { return j.floor }

// Has reports whether the browser has exactly this reference.
func (j *Jar) Has(ref *wire.Reference) bool {
	have := &j.reference
	return j.hasReference && !j.referenceStale && slices.Equal(have.Identifier, ref.Identifier) &&
		have.Generation == ref.Generation && have.Expires == ref.Expires
}

// SetReference sets the cookie, or makes the token, that names a stored session.
func (j *Jar) SetReference(ref *wire.Reference, age time.Duration) error {
	if j.token {
		if err := j.issue(ref); err != nil {
			return err
		}
	} else {
		value, err := j.c.seal(seal.Reference, ref.Append(make([]byte, 0, 64)))
		if err != nil {
			return err
		}
		j.set(func(n *names) string { return n.reference }, value, age)
	}
	j.reference, j.hasReference, j.referenceStale = *ref, true, false
	return nil
}

// SetsReference reports whether the response has that cookie or token.
func (j *Jar) SetsReference() bool {
	return j.tokenDue || slices.ContainsFunc(j.lines, func(l line) bool { return l.name == j.c.own.reference })
}

// SetFloor sets the version that the browser has seen, so that no cache serves
// it an older one.
func (j *Jar) SetFloor(f wire.Floor, age time.Duration) error {
	if j.token || j.state == floor && j.floor == f && !j.stateStale {
		return nil
	}
	value, err := j.c.seal(seal.State, f.Append(make([]byte, 0, 32)))
	if err != nil {
		return err
	}
	j.setState(0, value, age)
	j.state, j.floor, j.stateStale = floor, f, false
	return nil
}

// SetInline sets the cookies of a session in the cookie, which Seal has made.
func (j *Jar) SetInline(in *Inline, age time.Duration) {
	chunks := []string{in.value}
	if j.c.Limits.Mode == rules.CookieOnly {
		chunks = wire.Split(j.c.own.state[wire.MaxChunks-1], in.value)
	}
	for i, chunk := range chunks {
		j.setState(i, chunk, age)
	}
	for i := len(chunks); i < j.chunks; i++ {
		j.setState(i, "", -1)
	}
	j.chunks = len(chunks)
	j.state, j.stateStale = inline, false
}

// Forget expires every cookie of the session in the browser.
func (j *Jar) Forget() {
	if j.hasReference {
		if j.token {
			j.issued, j.tokenDue = "", true
		} else {
			j.set(func(n *names) string { return n.reference }, "", -1)
		}
		j.reference, j.hasReference, j.referenceStale = wire.Reference{}, false, false
	}
	j.ForgetState()
}

// ForgetState expires the state cookies, if the browser has any.
func (j *Jar) ForgetState() {
	if j.state == empty {
		return
	}
	for i := range max(1, j.chunks) {
		j.setState(i, "", -1)
	}
	j.state, j.stateStale, j.chunks, j.floor = empty, false, 0, wire.Floor{}
}

// SetForeign sets another library's cookies, except those with the name of a
// manager's cookie.
func (j *Jar) SetForeign(setCookie []string) {
	if j.token {
		return
	}
	n := &j.c.own
	for _, text := range setCookie {
		name, _, _ := strings.Cut(text, "=")
		if name == n.reference || slices.Contains(n.state[:], name) {
			continue // the manager overwrites or expires it itself
		}
		j.setLine(line{name: name, text: text})
	}
}

// set sets a cookie of the manager's own. If the browser sent several that
// open, those with former attributes expire. A single cookie may have any
// attributes, or be another application's, so it does not expire others.
func (j *Jar) set(name func(*names) string, value string, age time.Duration) {
	n := &j.c.own
	j.setLine(line{name(n), n.attrs, n.line(name(n), value, age)})
	if !j.several {
		return
	}
	for i := range j.c.former {
		f := &j.c.former[i]
		j.setLine(line{name(f), f.attrs, f.line(name(f), "", -1)})
	}
}

func (j *Jar) setState(i int, value string, age time.Duration) {
	j.set(func(n *names) string { return n.state[i] }, value, age)
}

// setLine replaces the response's earlier line for the same cookie.
func (j *Jar) setLine(l line) {
	j.lines = slices.DeleteFunc(j.lines, l.replaces)
	j.lines = append(j.lines, l)
}

// Pending reports whether the response will set any cookie, or has a new token.
func (j *Jar) Pending() bool { return len(j.lines) > 0 || j.tokenDue }

// Drop discards the pending cookies and token.
func (j *Jar) Drop() { j.lines, j.tokenDue = nil, false }

// Flush moves the pending cookies and a new token into a response header. Those of an earlier
// Flush are replaced.
func (j *Jar) Flush(h http.Header) {
	for _, l := range j.lines {
		l.replaceIn(h)
		h["Set-Cookie"] = append(h["Set-Cookie"], l.text)
	}
	j.lines = nil
	j.flushToken(h)
}

// line is a Set-Cookie line. Browsers treat cookies of one name with different
// attributes as different.
type line struct{ name, attrs, text string }

func (l line) replaces(other line) bool { return l.name == other.name && l.attrs == other.attrs }

// replaceIn removes the line's predecessor from a response header.
func (l line) replaceIn(h http.Header) {
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(text string) bool {
		return len(text) > len(l.name) && text[:len(l.name)] == l.name && text[len(l.name)] == '=' &&
			len(text) >= len(l.attrs) && text[len(text)-len(l.attrs):] == l.attrs
	})
}
