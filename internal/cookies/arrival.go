package cookies

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Arrival is the opened content of a request's cookies. A browser may send
// several cookies of one name: after Domain, Path or Partitioned has changed,
// it keeps the previous cookies beside the new ones.
type Arrival struct {
	References []Reference // one of each session, in the order in which they must be tried
	Inline     Inline      // the newest inline session
	HasInline  bool
	// Foreign are the values of references that were sealed with an unknown
	// key. Another replica may have that key.
	Foreign  []string
	Rejected []Rejected
	Jar      Jar // the browser's cookies

	floors []wire.Floor
}

// Reference is a credential of a stored session.
type Reference struct {
	wire.Reference
	Value string // of the cookie
	stale bool   // must be set again: sealed with an old key, or sent under a former name
}

// Rejected is a cookie that is not used.
type Rejected struct {
	Kind string // "reference", "state" or "token"
	Err  error
}

// MostLoads is how many references of one request may each cost a load. A
// browser has more than two only after several changes of attributes within a
// session's lifetime; otherwise it is an attacker.
const MostLoads = 2

// Read opens a request's cookies.
func (c *Cookies) Read(in http.Header, now time.Time) (a Arrival) {
	a.Jar.c = c
	if c.Bearer {
		if token, ok := bearer(in); ok {
			r := reader{Arrival: &a, c: c, in: in, now: now}
			r.token(token)
			return a
		}
	}
	if len(in["Cookie"]) == 0 {
		return a
	}
	r := reader{Arrival: &a, c: c, in: in, now: now}
	c.all(func(n *names) {
		r.states(n)
		if c.Limits.Mode != rules.CookieOnly {
			r.references(n)
		}
	})
	a.order()
	return a
}

type reader struct {
	*Arrival
	c   *Cookies
	in  http.Header
	now time.Time
}

func (r *reader) reject(kind string, err error) {
	r.Rejected = append(r.Rejected, Rejected{kind, err})
}

// references opens the reference cookies with these names.
func (r *reader) references(n *names) {
	var buf [maxCandidates]string
	for _, value := range find(buf[:0], r.in, n.reference) {
		r.Jar.Brought = true
		if value == "" {
			continue
		}
		plain, stale, err := r.c.open(seal.Reference, value)
		ref := Reference{Value: value, stale: stale || n != &r.c.own}
		if err == nil {
			ref.Reference, err = wire.ParseReference(plain)
		}
		if err == nil && r.now.After(record.Time(ref.Expires)) {
			err = fault.Expired
		}
		if errors.Is(err, seal.ErrUnknownKey) {
			r.Foreign = append(r.Foreign, value)
		}
		if err != nil {
			r.reject("reference", err)
			continue
		}
		if n == &r.c.own {
			r.Jar.hasReference = true
		}
		r.add(ref)
	}
}

// add keeps one reference of each session, the one of the newest generation.
func (r *reader) add(ref Reference) {
	r.Jar.several = r.Jar.several || len(r.References) > 0
	for i := range r.References {
		if have := &r.References[i]; slices.Equal(have.Identifier, ref.Identifier) {
			if ref.Generation > have.Generation {
				*have = ref
			}
			return
		}
	}
	r.References = append(r.References, ref)
}

// order puts the reference that expires last, probably the newest, in second
// place if there are more than may be tried. The first reference stays:
// browsers send the cookie with the longest path first.
func (a *Arrival) order() {
	if len(a.References) <= MostLoads {
		return
	}
	rest := a.References[1:]
	slices.SortStableFunc(rest, func(p, q Reference) int { return cmp.Compare(q.Expires, p.Expires) })
}

// Floor returns the newest version of a session that the browser has seen; the
// zero Floor if unknown.
func (a *Arrival) Floor(id store.ID) (newest wire.Floor) {
	for _, f := range a.floors {
		if f.ID == id && f.Version > newest.Version {
			newest = f
		}
	}
	return newest
}

// states opens the state cookies with these names.
func (r *reader) states(n *names) {
	own := n == &r.c.own
	var buf [maxCandidates]string
	var parts [wire.MaxChunks][]string // of the numbered cookies
	if r.c.Limits.Mode == rules.CookieOnly {
		for i := 1; i < wire.MaxChunks; i++ {
			parts[i] = find(nil, r.in, n.state[i])
			if len(parts[i]) > 0 && own {
				r.Jar.state, r.Jar.chunks = junk, i+1
			}
		}
	}
	for _, first := range find(buf[:0], r.in, n.state[0]) {
		r.Jar.Brought = true
		if own && r.Jar.state == empty {
			r.Jar.state = junk // until it opens
		}
		if first == "" {
			continue
		}
		value, plain, stale, err := r.c.openState(first, &parts)
		if err == nil {
			err = r.addState(value, plain, stale || !own)
		}
		if err != nil {
			r.reject("state", err)
		}
	}
}

// openState opens a state cookie, of which there may be numbered parts. If the
// browser sends several cookies with one number, a few combinations are tried,
// and the one that opens is used.
func (c *Cookies) openState(first string, parts *[wire.MaxChunks][]string) (value string, plain []byte, stale bool, err error) {
	const mostTries = 8
	for try := range mostTries {
		combination := try
		value, whole := wire.Join(first, func(i int) (string, bool) {
			n := len(parts[i])
			if n == 0 {
				return "", false
			}
			part := parts[i][combination%n]
			combination /= n
			return part, true
		})
		if !whole {
			return "", nil, false, wire.ErrFormat
		}
		plain, stale, err = c.open(seal.State, value)
		if err == nil || combination > 0 || !errors.Is(err, seal.ErrOpen) || value == first {
			return value, plain, stale, err
		}
	}
	return "", nil, false, err
}

// addState adds the content of one state cookie.
func (r *reader) addState(value string, plain []byte, stale bool) error {
	mark, plain, err := wire.CutMark(plain)
	if err != nil {
		return err
	}
	if mark != (wire.Mark{}) {
		r.Jar.marks = append(r.Jar.marks, mark)
		if len(plain) == 0 {
			return nil
		}
	}
	if len(plain) == 0 {
		return wire.ErrFormat
	}
	if r.HasInline || len(r.floors) > 0 {
		r.Jar.several = true
	}
	switch plain[0] {
	case wire.StateFloor, wire.StateFloorVolatile:
		f, err := wire.ParseFloor(plain[0], plain[1:])
		if err != nil {
			return err
		}
		if len(r.floors) == 0 {
			r.Jar.state, r.Jar.floor, r.Jar.stateStale = floor, f, stale
		}
		r.floors = append(r.floors, f)
		return nil
	case wire.StateInline:
		in, err := r.c.inline(plain[1:], r.now)
		if err != nil {
			return err
		}
		if r.HasInline && !newer(&in.Rec.Header, &r.Inline.Rec.Header) {
			return nil
		}
		in.Size = r.c.size(len(value))
		r.Jar.state, r.Jar.stateStale = inline, stale
		r.Inline, r.HasInline = in, true
		return nil
	default:
		return wire.ErrFormat
	}
}

// newer reports whether an inline session takes precedence over h, another one
// earlier in the header: it is a newer state of the same session, or was
// certainly used later.
func newer(next, h *record.Header) bool {
	if slices.Equal(next.Identifier, h.Identifier) {
		return next.Counter > h.Counter
	}
	return next.Seen-h.Seen > rules.Skew.Milliseconds()
}
