package sojourn

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// arrival is what a request's cookies say, opened. A browser may bring several
// cookies of one name: after Domain, Path or Partitioned has changed, it keeps
// the cookies of before beside the new ones.
type arrival struct {
	refs   []broughtReference // one of each session
	inline *stored.State      // the newest session that a cookie holds; nil = none
	floors []wire.Floor
	// foreign are the references that were sealed with an unknown key. Another
	// replica may know it.
	foreign []string
}

type broughtReference struct {
	wire.Reference
	value string // of the cookie
	stale bool   // to be set anew: sealed with an old key, or brought under a former name
}

// mostLoads is how many references of one request may each cost a load. More
// than two sessions in one browser are as many changes of Config.Cookie within
// a session's lifetime, or a client that tries.
const mostLoads = 2

// choose returns the first live session that the references lead to, or nil.
// Only a session that is definitely over, or a credential that is not good for
// it any more, is passed over.
func (s *Session) choose(ctx context.Context, a *arrival, now time.Time) (chosen *stored.State, err error) {
	refused := a.foreign
	a.order()
	for i := range a.refs {
		ref := &a.refs[i]
		if chosen != nil || i >= mostLoads {
			s.others = append(s.others, ref.Reference)
			continue
		}
		st, err := s.m.loadStored(ctx, ref.Reference, a.floorOf(ref.Identifier), now, s)
		switch {
		case err == nil:
			chosen = st
			s.jar.reference, s.jar.referenceStale = ref.Reference, ref.stale
		case errors.Is(err, errRefused):
			refused = append(refused, ref.value)
			s.jar.outdated = s.jar.outdated || errors.Is(err, errOutdated)
		case !errors.Is(err, stored.ErrGone):
			return nil, err
		}
	}
	if chosen != nil || len(refused) > 0 && !s.refuse(refused...) {
		s.jar.outdated = false
	}
	return chosen, nil
}

// refuse notes that credentials of the request are not good any more, although
// the browser may have a better one, and reports whether it stays so: not if the
// browser says that it has learned of that. The first thing that it knows is
// enough, because a cookie has room for one mark.
func (s *Session) refuse(credentials ...string) bool {
	if s.jar.excused == (wire.Mark{}) && !s.excuse(credentials...) {
		s.jar.refused = wire.MarkOf(credentials)
		return true
	}
	return false
}

// excuse reports whether the browser says that it knows of these credentials, so
// that its next cookie goes on saying so.
func (s *Session) excuse(credentials ...string) bool {
	if len(s.jar.marks) == 0 {
		return false
	}
	mark := wire.MarkOf(credentials)
	if !slices.Contains(s.jar.marks, mark) {
		return false
	}
	s.jar.excused = mark
	return true
}

// floorOf returns the newest version that the browser says it has seen of a
// session; the zero Floor if it says nothing.
func (a *arrival) floorOf(identifier []byte) (newest wire.Floor) {
	if len(a.floors) == 0 {
		return newest
	}
	id := store.HashIdentifier(identifier)
	for _, f := range a.floors {
		if f.ID == id && f.Version > newest.Version {
			newest = f
		}
	}
	return newest
}

// arrive opens the request's cookies.
func (s *Session) arrive(now time.Time) (a arrival) {
	s.readStates(&a, &s.m.names, now)
	if s.m.cfg.Placement != CookieOnly {
		s.readReferences(&a, &s.m.names, now)
	}
	for i := range s.m.former {
		former := &s.m.former[i]
		if former.reference == s.m.names.reference || slices.ContainsFunc(s.m.former[:i], func(n cookieNames) bool {
			return n.reference == former.reference
		}) {
			continue // read already
		}
		s.readStates(&a, former, now)
		if s.m.cfg.Placement != CookieOnly {
			s.readReferences(&a, former, now)
		}
	}
	return a
}

// readReferences opens the reference cookies of these names.
func (s *Session) readReferences(a *arrival, n *cookieNames, now time.Time) {
	var buf [maxCandidates]string
	for _, value := range cookieValues(buf[:0], s.in, n.reference) {
		s.jar.brought = true
		if value == "" {
			continue
		}
		plain, stale, err := s.m.openCookie(seal.Reference, value)
		ref := broughtReference{value: value, stale: stale || n != &s.m.names}
		if err == nil {
			ref.Reference, err = wire.ParseReference(plain)
		}
		if err == nil && now.After(record.Time(ref.Expires)) {
			err = ErrExpired
		}
		if errors.Is(err, seal.ErrUnknownKey) {
			a.foreign = append(a.foreign, value)
		}
		if err != nil {
			s.rejected("reference", err)
			continue
		}
		if n == &s.m.names {
			s.jar.hasReference = true
		}
		a.addReference(&s.jar, ref)
	}
}

// addReference keeps one reference of each session, the one of the newest
// generation.
func (a *arrival) addReference(j *jar, ref broughtReference) {
	j.several = j.several || len(a.refs) > 0
	for i := range a.refs {
		if have := &a.refs[i]; slices.Equal(have.Identifier, ref.Identifier) {
			if ref.Generation > have.Generation {
				*have = ref
			}
			return
		}
	}
	a.refs = append(a.refs, ref)
}

// order puts the reference that ends last, which is most likely the newest, in
// the second place where there are more than may be tried. The first one is
// that of the header: browsers send the cookie with the longest path first.
func (a *arrival) order() {
	if len(a.refs) <= mostLoads {
		return
	}
	rest := a.refs[1:]
	slices.SortStableFunc(rest, func(p, q broughtReference) int { return cmp.Compare(q.Expires, p.Expires) })
}

// readStates opens the state cookies of these names.
func (s *Session) readStates(a *arrival, n *cookieNames, now time.Time) {
	m := s.m
	current := n == &m.names
	var buf [maxCandidates]string
	var parts [wire.MaxChunks][]string // of the numbered cookies
	if m.cfg.Placement == CookieOnly {
		for i := 1; i < wire.MaxChunks; i++ {
			parts[i] = cookieValues(nil, s.in, n.state[i])
			if len(parts[i]) > 0 && current {
				s.jar.state, s.jar.chunks = jarJunk, i+1
			}
		}
	}
	for _, first := range cookieValues(buf[:0], s.in, n.state[0]) {
		s.jar.brought = true
		if current && s.jar.state == jarEmpty {
			s.jar.state = jarJunk // until it proves to be more
		}
		if first == "" {
			continue
		}
		value, plain, stale, err := m.openState(first, &parts)
		if err == nil {
			err = s.addState(a, value, plain, stale || !current, now)
		}
		if err != nil {
			s.rejected("state", err)
		}
	}
}

// openState opens a state cookie, of which there may be numbered parts. Where
// the browser has several of a number, those that belong together are the ones
// that open together; only a few combinations are tried.
func (m *Manager) openState(first string, parts *[wire.MaxChunks][]string) (value string, plain []byte, stale bool, err error) {
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
		plain, stale, err = m.openCookie(seal.State, value)
		if err == nil || combination > 0 || !errors.Is(err, seal.ErrOpen) || value == first {
			return value, plain, stale, err
		}
	}
	return "", nil, false, err
}

// addState notes what one state cookie holds.
func (s *Session) addState(a *arrival, value string, plain []byte, stale bool, now time.Time) error {
	mark, plain, err := wire.CutMark(plain)
	if err != nil {
		return err
	}
	if mark != (wire.Mark{}) {
		s.jar.marks = append(s.jar.marks, mark)
		if len(plain) == 0 {
			return nil
		}
	}
	if len(plain) == 0 {
		return wire.ErrFormat
	}
	if a.inline != nil || len(a.floors) > 0 {
		s.jar.several = true
	}
	switch plain[0] {
	case wire.StateFloor, wire.StateFloorVolatile:
		f, err := wire.ParseFloor(plain[0], plain[1:])
		if err != nil {
			return err
		}
		if len(a.floors) == 0 {
			s.jar.state, s.jar.floor, s.jar.stateStale = jarFloor, f, stale
		}
		a.floors = append(a.floors, f)
		return nil
	case wire.StateInline:
		st, err := s.m.inlineState(plain[1:], now)
		if err != nil {
			return err
		}
		if a.inline != nil && !newerInline(&st.Rec.Header, &a.inline.Rec.Header) {
			return nil
		}
		st.Size = s.m.inlineSize(len(value))
		s.jar.state, s.jar.stateStale = jarInline, stale
		a.inline = st
		return nil
	default:
		return wire.ErrFormat
	}
}

// newerInline reports whether a session in a cookie takes precedence over
// another one, h, that came before it in the header: its newer state, or one that
// was surely used later.
func newerInline(next, h *record.Header) bool {
	if slices.Equal(next.Identifier, h.Identifier) {
		return next.Counter > h.Counter
	}
	return next.Seen-h.Seen > rules.Skew.Milliseconds()
}

// barred returns why this request must not keep anything in a cookie, except by
// a login, or nil: the browser may have a better cookie, which the request did
// not bring. A reference would take that one's place. Values in the cookie only
// matter as long as there is no live session, and one whose outdated credential
// came is alive.
func (s *Session) barred(reference bool) error {
	switch {
	case s.jar.outdated, reference && s.jar.refused != (wire.Mark{}):
		return errRefused
	case !s.jar.brought && s.withheld():
		return ErrCrossSite
	default:
		return nil
	}
}

// tellRefused lets the browser know that its credential was refused: a request
// that says so began later, and may start anew.
func (s *Session) tellRefused() {
	m := s.m
	if s.jar.refused == (wire.Mark{}) || s.phase == phaseBody || s.phase == phaseOver {
		return
	}
	plain := s.jar.refused.Append(nil)
	age := m.cfg.Lifetime
	if m.cfg.Cookie.BrowserSession {
		age = 0
	}
	if s.last.Where == rules.Inline {
		h := &s.last.Rec.Header
		plain = s.last.Rec.Append(append(plain, wire.StateInline))
		age = m.limits.CookieAge(h, record.Time(h.Expires), m.now())
	}
	value, err := m.sealCookie(seal.State, plain)
	if err != nil {
		return // no randomness: the browser is told the next time
	}
	s.setState(0, value, age)
}

// endOthers ends the sessions that the request brought beside its own: whoever
// logs in or out does so in this browser, whatever cookies it has.
func (s *Session) endOthers(ctx context.Context) error {
	for len(s.others) > 0 {
		ref := s.others[0]
		st, err := s.m.stored.Load(ctx, stored.WhoIs(ref.Identifier), 0)
		if err != nil && !errors.Is(err, stored.ErrGone) {
			return err
		}
		if err == nil && s.m.limits.Judge(ref.Generation, &st.Rec.Header, s.m.now()).Good() {
			if err := s.m.revoke(ctx, st, ReasonLogout); err != nil {
				return err
			}
		}
		s.others = s.others[1:]
	}
	return nil
}

// setOwn sets a cookie of the manager's own. If the browser brought several that
// open, those set with former attributes expire: with one alone it is not known
// which one that is, and it may be another application's.
func (s *Session) setOwn(name func(*cookieNames) string, value string, age time.Duration) {
	n := &s.m.names
	s.setLine(setCookie{name(n), n.attrs, n.line(name(n), value, age)})
	if !s.jar.several {
		return
	}
	for i := range s.m.former {
		f := &s.m.former[i]
		s.setLine(setCookie{name(f), f.attrs, f.line(name(f), "", -1)})
	}
}

func (s *Session) setState(i int, value string, age time.Duration) {
	s.setOwn(func(n *cookieNames) string { return n.state[i] }, value, age)
}

// setLine replaces what the response was to do to the same cookie.
func (s *Session) setLine(c setCookie) {
	s.lines = slices.DeleteFunc(s.lines, c.replaces)
	s.lines = append(s.lines, c)
}

// setCookie is a Set-Cookie line. Browsers keep cookies of one name and
// different attributes apart.
type setCookie struct{ name, attrs, line string }

func (c setCookie) replaces(d setCookie) bool { return c.name == d.name && c.attrs == d.attrs }

// replacesIn removes the line's predecessor from a response header: an earlier
// Save may have set the same cookie.
func (c setCookie) replacesIn(h http.Header) {
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		return len(line) > len(c.name) && line[:len(c.name)] == c.name && line[len(c.name)] == '=' &&
			len(line) >= len(c.attrs) && line[len(line)-len(c.attrs):] == c.attrs
	})
}
