package sojourn

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// jar is what this request and its response do to the browser's cookies.
type jar struct {
	isNew   bool // no live session came with the request
	brought bool // some cookie of ours came, whatever it was worth
	several bool // more than one cookie for the same thing opened
	// refused names the credentials that were refused, and excused likewise, if
	// the browser says that it has learned of that, which it does by marks.
	refused, excused wire.Mark
	marks            []wire.Mark
	outdated         bool // of those refused, one leads to a live session

	reference      wire.Reference // of the session that was chosen
	hasReference   bool           // one that opens came
	referenceStale bool           // to be set anew

	state      jarState
	stateStale bool
	floor      wire.Floor
	lost       uint64 // the browser's floor, if the store fell behind it
	chunks     int    // numbered state cookies that came or were set, if more than one

	out http.Header // where Manager.Open was told to put cookies
}

type jarState uint8

const (
	jarEmpty jarState = iota
	jarInline
	jarFloor
	jarJunk // ours, but over
)

// commitMode says who asks for a commit.
type commitMode uint8

const (
	commitSave   commitMode = iota // Session.Save
	commitAnswer                   // the first byte is about to go out
	commitLogout                   // likewise, of an error answer: only a Logout is left
	commitEnd                      // the handler has returned, after the first byte
)

// answer commits before the first byte and puts the cookies into h. With
// phaseOver as the next phase, only a Logout is kept.
func (s *Session) answer(ctx context.Context, h http.Header, status int, next phase) error {
	s.lock()
	defer s.mu.Unlock()
	late := error(nil)
	if next == phaseOver {
		late = errAnswered
		s.keepOnlyLogout()
	}
	s.unshown = !shown(status, h)
	s.removeHanded()
	s.unproven = s.setsReference() // by an earlier Save
	mode := commitAnswer
	if next == phaseOver {
		mode = commitLogout
	}
	if status == http.StatusSwitchingProtocols || strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		s.stream.Store(true)
		s.rotateDue = false // it may be long until the browser keeps the cookie
	}
	err := s.commit(ctx, mode)
	if err != nil {
		s.leaveAnyway(ctx, err)
		next, late = phaseOver, notKept(err)
	}
	s.takeBackReference(ctx)
	s.flushTo(h)
	s.phase, s.late = next, late
	s.keepAwake()
	return err
}

// end keeps what a stored session changed after the first byte; only a Logout,
// if the handler failed since.
func (s *Session) end(ctx context.Context, failed bool) error {
	s.lock()
	defer s.mu.Unlock()
	if s.phase != phaseBody {
		return nil
	}
	if failed {
		s.keepOnlyLogout()
	}
	s.removeHanded()
	err := s.commit(ctx, commitEnd)
	late := errReturned
	if err != nil {
		s.leaveAnyway(ctx, err)
		late = notKept(err)
	} else if now := s.m.now(); !failed && s.last.placement == PlacementStored && s.activityDue(now) {
		s.noteLate(ctx, now)
	}
	s.phase, s.late = phaseOver, late
	return err
}

// leaveAnyway keeps a Logout although the commit that it was part of has
// failed: somebody wants to leave this browser. At the least the browser forgets.
func (s *Session) leaveAnyway(ctx context.Context, err error) {
	if s.ending == nil || s.ending.carry {
		return
	}
	if !errors.Is(err, ErrUnavailable) {
		s.keepOnlyLogout()
		if s.commit(ctx, commitLogout) == nil {
			return
		}
	}
	s.forget()
}

// leave is called when the request is over, in any case; why is the reason if
// nothing else has ended it before.
func (s *Session) leave(why error) {
	s.lock()
	defer s.mu.Unlock()
	if s.phase != phaseOver {
		s.phase, s.late = phaseOver, why
	}
	s.unwatch()
	if s.awake != nil {
		s.awake.Stop()
	}
}

// changing is called by whatever changes the session, with mu held. What comes
// after the last commit is lost, whether or not somebody calls Save.
func (s *Session) changing() {
	if s.phase != phaseOver {
		return
	}
	s.m.count.late.Add(1)
	s.m.report(slog.LevelError, "a change of a session was lost, because it came too late: change the session before the handler returns",
		slog.String("session", s.identity().id.String()), slog.Any("error", s.late))
}

// keepOnlyLogout drops every change but a Logout, for error answers.
func (s *Session) keepOnlyLogout() {
	leaving := s.ending != nil && !s.ending.carry
	s.discard()
	if leaving {
		s.logout()
	}
}

// pending reports whether there is anything that a commit must keep.
func (s *Session) pending() bool {
	return s.ending != nil || s.login != nil || !s.changes.empty()
}

// commit keeps the pending changes. Where it fails they stay pending.
func (s *Session) commit(ctx context.Context, mode commitMode) (err error) {
	if s.failed != nil {
		return s.failed
	}
	chores := (mode == commitAnswer || s.phase == phaseLoose) && s.choresDue()
	if !s.pending() && !chores {
		return nil
	}
	if s.phase == phaseOpen && (s.login != nil || !s.changes.empty()) && errors.Is(s.r.Context().Err(), context.DeadlineExceeded) {
		// Whoever set the deadline has answered by now, as http.TimeoutHandler does.
		return fmt.Errorf("%w: %w", ErrTooLate, context.DeadlineExceeded)
	}
	m := s.m
	if err := m.begin(); err != nil {
		if !s.pending() {
			return nil
		}
		return err
	}
	defer m.end()
	// What the handler decided is kept even if the client has gone away.
	ctx = context.WithoutCancel(ctx)
	if s.writesBack() {
		fresh, before := s.login != nil, s.last.rec.Header
		defer func() {
			if err == nil {
				s.writeBack(ctx, fresh, before)
			}
		}()
	}

	cookies := s.phase == phaseOpen || s.phase == phaseLoose && s.jar.out != nil
	if s.ending != nil && !s.ending.carry && (cookies || s.last.placement == PlacementStored) {
		var cancel context.CancelFunc
		ctx, cancel = m.bounded(ctx)
		defer cancel()
		if err := s.endLast(ctx); err != nil {
			return err
		}
		chores = false // of the session that is over now
	}
	if !cookies && s.needsCookie() {
		if s.phase == phaseLoose {
			return errNoHeader
		}
		return errNeedsCookie
	}
	if s.login == nil && s.last.placement != PlacementStored {
		if err := s.barred(false); err != nil {
			if s.changes.empty() {
				return nil
			}
			s.tellRefused()
			return err
		}
	}
	switch {
	case s.login != nil:
		return s.commitLogin(ctx)
	case !s.changes.empty():
		return s.commitChanges(ctx)
	case chores:
		s.doChores(ctx)
	}
	return nil
}

// bounded gives a commit its deadline, when it first has to wait for the store.
// Most commits never do.
func (m *Manager) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, m.cfg.Timeout)
}

// needsCookie reports whether the pending changes cannot be kept without
// setting a cookie.
func (s *Session) needsCookie() bool {
	if s.login != nil || s.changes.header != (headerChange{presented: s.changes.header.presented}) {
		return true
	}
	if s.ending != nil { // of an inline session
		return true
	}
	return !s.changes.empty() && s.base().placement != PlacementStored
}

// commitChanges keeps changed values.
func (s *Session) commitChanges(ctx context.Context) error {
	m := s.m
	now := m.now()
	where, err := m.place(s.last.placement, &s.view, now)
	if err != nil {
		return err
	}
	switch where {
	case PlacementNone:
		if s.last.placement == PlacementInline {
			s.forgetState()
		}
		s.settle(nothing)
		return nil
	case PlacementInline:
		next := s.view.Clone()
		next.Expire(now.UnixMilli())
		st, value, err := m.sealInline(next, s.identity(), s.jar.excused, true, s.background, now)
		if err == nil {
			s.keepInline(st, value, now)
			return nil
		}
		if m.cfg.Placement == CookieOnly || !errors.Is(err, ErrTooLarge) {
			return err
		}
	}
	if ok, err := s.commitVolatile(ctx); ok {
		return err
	}
	if s.last.placement != PlacementStored {
		if err := s.barred(true); err != nil {
			s.tellRefused()
			return err
		}
	}
	if s.presentDue {
		s.changes.header.presented = s.last.rec.Header.Generation
	}
	if s.rotateDue && (s.phase == phaseOpen || s.phase == phaseLoose && s.jar.out != nil) {
		s.changes.header.rotate = s.rotation()
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	err = s.commitStored(ctx)
	switch {
	case s.last.placement == PlacementInline:
		return s.leaveInline(ctx, err, now)
	case errors.Is(err, errGone):
		return ErrEnded
	}
	return err
}

// leaveInline goes on after err, with which a session in a cookie was stored. If
// that is because it had been stored before, and has ended since or moved on
// without this cookie, then the cookie is a credential that is not good any more.
func (s *Session) leaveInline(ctx context.Context, err error, now time.Time) error {
	var gone *goneError
	ended := errors.As(err, &gone)
	switch {
	case !ended && !errors.Is(err, errOutdatedInline):
		return err
	case ended && !s.loaded.After(gone.ended):
		return ErrEnded // while the request was under way
	case (!ended || gone.toldOf(now)) && s.refuse(string(s.last.identifier)):
		s.tellRefused()
		return errRefused
	case ended:
		// The visitor starts anew.
		return s.commitAs(ctx, nothing, now)
	}
	// What the cookie holds goes on as a session of its own.
	apart := *s.last
	apart.identity = newIdentity()
	return s.commitAs(ctx, &apart, now)
}

// commitAs saves the pending changes on top of another state than the one that
// the request came with.
func (s *Session) commitAs(ctx context.Context, from *state, now time.Time) (err error) {
	s.last, s.fresh, s.own = from, nil, false
	if s.view, err = s.applyTo(from, now); err != nil {
		return err
	}
	s.own = true
	return s.commitStored(ctx)
}

// commitStored saves a session that lives in the store, or moves there.
func (s *Session) commitStored(ctx context.Context) error {
	who := s.identity()
	rotate := s.changes.header.rotate
	j := &job{s: s, who: who}
	s.m.queues.do(ctx, s.m, j)
	if j.err != nil {
		if errors.Is(j.err, errUnknownOutcome) && !s.changes.repeatable() {
			s.failed = j.err
		}
		return j.err
	}
	s.countMove(ctx, j.next)
	s.keepStored(j.next, rotate != nil)
	if j.behind {
		s.view, s.behind = j.out, true
	}
	return nil
}

// applyTo does the pending changes to a state of the session.
func (s *Session) applyTo(st *state, now time.Time) (record.Record, error) {
	if s.own && !s.behind && st.stored.Base() == s.last.stored.Base() && st.placement == s.last.placement && st.volatile == s.last.volatile {
		// The view is just that; Update functions need not run again.
		out := s.view.Clone()
		out.Header = st.rec.Header
		out.Expire(now.UnixMilli())
		s.changes.header.apply(&out.Header, now.UnixMilli())
		return out, nil
	}
	return s.changes.apply(&st.rec, now, s.call)
}

// choresDue reports whether doChores has anything to do.
func (s *Session) choresDue() bool {
	switch s.last.placement {
	case PlacementInline:
		return s.jar.stateStale || s.last.mended || s.activityDue(s.m.now())
	case PlacementStored:
		return s.presentDue || s.rotateDue || s.last.mended || s.jar.referenceStale ||
			s.jar.reference.Generation != s.last.rec.Header.Generation || s.activityDue(s.m.now())
	default:
		return false
	}
}

// doChores refreshes what a request that changed nothing may leave as it is.
// Nothing here fails a request.
func (s *Session) doChores(ctx context.Context) {
	m := s.m
	now := m.now()
	if s.last.placement == PlacementInline {
		st, value, err := m.sealInline(s.last.rec.Clone(), s.last.identity, s.jar.excused, false, s.background, now)
		if err != nil {
			m.log.Warn("could not refresh a session cookie", slog.Any("error", err))
			return
		}
		s.keepInline(st, value, now)
		return
	}
	h := &s.last.rec.Header
	if (s.jar.referenceStale || s.jar.reference.Generation != h.Generation) && now.Sub(s.loaded) <= longRequest {
		s.setReference(s.last, now) // later, the browser may have a newer one
	}
	due := s.activityDue(now)
	if !s.presentDue && !due && !s.rotateDue && !s.last.mended {
		return
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	if !s.presentDue && !s.rotateDue && !s.last.mended {
		if err := s.noteActivity(ctx, now); !errors.Is(err, errors.ErrUnsupported) {
			return
		}
	}
	if s.presentDue {
		s.changes.header.presented = h.Generation
	}
	if s.rotateDue {
		s.changes.header.rotate = s.rotation()
	}
	if err := s.commitStored(ctx); err != nil {
		s.changes.header.presented, s.changes.header.rotate = 0, nil
		m.log.Debug("could not note a session's activity", slog.Any("error", err))
	}
}

// touch extends a stored session's idle deadline without rewriting it. A
// failure is counted; the session then ends a little early at worst. A store
// that cannot touch answers errors.ErrUnsupported.
func (m *Manager) touch(ctx context.Context, st *state, now time.Time) error {
	toucher, ok := m.cfg.Store.(store.Toucher)
	if !ok {
		return errors.ErrUnsupported
	}
	deadline := m.idleDeadline(&st.rec.Header, now, st.stored.Expires)
	err := toucher.Touch(ctx, st.id, now, deadline)
	switch {
	case err == nil:
		m.count.touches.Add(1)
	case !errors.Is(err, store.ErrNotFound) && !errors.Is(err, errors.ErrUnsupported): // else it has ended
		_ = m.storeFailed(ctx, "touch", err)
	}
	return err
}

// settle makes st the session's last kept state.
func (s *Session) settle(st *state) {
	s.last, s.view, s.own, s.behind = st, st.rec, false, false
	s.changes = changes{}
	s.ending, s.login, s.fresh = nil, nil, nil
	s.presentDue, s.rotateDue, s.noted = false, false, time.Time{}
}

// keepInline settles a session that lives in the cookie.
func (s *Session) keepInline(st *state, value string, now time.Time) {
	if s.last.placement == PlacementNone {
		s.m.count.created.Add(1)
		s.m.tell(s.context(), s.event(EventCreated, st))
	}
	chunks := []string{value}
	if s.m.cfg.Placement == CookieOnly {
		chunks = wire.Split(s.m.names.state[wire.MaxChunks-1], value)
	}
	age := s.m.cookieAge(&st.rec.Header, record.Time(st.rec.Header.Expires), now)
	for i, c := range chunks {
		s.setState(i, c, age)
	}
	for i := len(chunks); i < s.jar.chunks; i++ {
		s.setState(i, "", -1)
	}
	s.jar.chunks = len(chunks)
	s.jar.state, s.jar.stateStale = jarInline, false
	s.settle(st)
}

// keepStored settles a session that lives in the store. renew sets the
// reference even if it is the one that the browser has.
func (s *Session) keepStored(st *state, renew bool) {
	m := s.m
	now := m.now()
	m.sweepNowAndThen()
	if st.stored.Shorten {
		m.ends.Moved(st.id, st.stored.Deadline)
	}
	ref := &s.jar.reference
	if renew || !s.jar.hasReference || s.jar.referenceStale ||
		!slices.Equal(ref.Identifier, st.identifier) ||
		ref.Generation != st.rec.Header.Generation ||
		ref.Expires != st.stored.Expires.UnixMilli() ||
		s.last.rec.Header.Persist != st.rec.Header.Persist {
		s.setReference(st, now)
	}
	_, caches := m.cfg.Store.(store.FloorLoader)
	switch {
	case s.phase == phaseBody:
	case caches:
		s.setFloor(st, now)
	case s.jar.state != jarEmpty:
		s.forgetState()
	}
	s.unproven = false
	s.settle(st)
}

// setReference sets the cookie that names a stored session.
func (s *Session) setReference(st *state, now time.Time) {
	m := s.m
	ref := wire.Reference{Identifier: st.identifier, Generation: st.rec.Header.Generation, Expires: st.stored.Expires.UnixMilli()}
	value, err := m.sealCookie(seal.Reference, ref.Append(make([]byte, 0, 64)))
	if err != nil {
		// Sealing fails only without a source of randomness.
		s.failLater(err)
		return
	}
	age := m.cookieAge(&st.rec.Header, st.stored.Expires, now)
	s.setOwn(func(n *cookieNames) string { return n.reference }, value, age)
	s.jar.reference, s.jar.hasReference, s.jar.referenceStale = ref, true, false
	s.unproven = true
}

// setFloor tells the browser which version it has seen, so that no cache shows
// it an older one.
func (s *Session) setFloor(st *state, now time.Time) {
	m := s.m
	f := st.floor()
	if s.jar.state == jarFloor && s.jar.floor == f && !s.jar.stateStale {
		return
	}
	value, err := m.sealCookie(seal.State, f.Append(make([]byte, 0, 32)))
	if err != nil {
		s.failLater(err)
		return
	}
	age := m.cookieAge(&st.rec.Header, st.stored.Expires, now)
	s.setState(0, value, age)
	s.jar.state, s.jar.floor, s.jar.stateStale = jarFloor, f, false
}

// cookieAge is a cookie's Max-Age, in whole seconds: until the session's
// absolute end, because the idle timeout moves without the cookie. Some browsers
// cut off the fraction of the second at which they got the cookie, and would
// drop it up to a second too early. So it is asked to live a second longer,
// and only the session's own end ends the session; except where that is as far
// away as a cookie may live.
func (m *Manager) cookieAge(h *record.Header, expires, now time.Time) time.Duration {
	if !m.persistent(h) {
		return 0
	}
	age := expires.Sub(now)
	if age <= 0 {
		return -1
	}
	const second = time.Second
	return min((age+second-1).Truncate(second)+second, maxAge)
}

// forget expires every cookie of the session in the browser.
func (s *Session) forget() {
	if s.jar.hasReference {
		s.setOwn(func(n *cookieNames) string { return n.reference }, "", -1)
		s.jar.reference, s.jar.hasReference, s.jar.referenceStale = wire.Reference{}, false, false
	}
	s.forgetState()
	s.unproven = false
}

func (s *Session) forgetState() {
	if s.jar.state == jarEmpty {
		return
	}
	for i := range max(1, s.jar.chunks) {
		s.setState(i, "", -1)
	}
	s.jar.state, s.jar.stateStale, s.jar.chunks, s.jar.floor = jarEmpty, false, 0, wire.Floor{}
}

// flushTo moves the pending cookies into a response header, which is then left
// to limitCaching.
func (s *Session) flushTo(h http.Header) {
	if len(s.lines) == 0 {
		return
	}
	if s.plainHTTP() {
		s.m.logOnce(slog.LevelWarn, "a Secure session cookie was set over plain HTTP, where browsers ignore it; "+
			"serve HTTPS, let the proxy send X-Forwarded-Proto, or set Config.Cookie.Insecure for tests")
	}
	for _, c := range s.lines {
		c.replacesIn(h)
		h["Set-Cookie"] = append(h["Set-Cookie"], c.line)
	}
	s.lines = nil
}

// setsReference reports whether the response sets the reference cookie.
func (s *Session) setsReference() bool {
	return slices.ContainsFunc(s.lines, func(c setCookie) bool { return c.name == s.m.names.reference })
}

// takeBackReference drops a reference that was not made by this very commit if
// another request, such as a login, has ended its session in the meantime:
// setting it now would undo the login in the browser.
func (s *Session) takeBackReference(ctx context.Context) {
	if !s.unproven || s.last.placement != PlacementStored || s.m.begin() != nil {
		return
	}
	defer s.m.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.cfg.Timeout)
	defer cancel()
	switch st, err := s.m.fetch(ctx, s.last.identity, 0); {
	case errors.Is(err, errGone):
		s.lines = nil
	case err == nil && st.rec.Header.Generation > s.jar.reference.Generation:
		s.setReference(st, s.m.now()) // rotated meanwhile
	}
}

// newTag returns a random save ID. It is even.
func newSaveID() store.SaveID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return store.SaveID(binary.LittleEndian.Uint64(b[:])) &^ 1
}

// newReplacedTag returns a random save ID for a tombstone that Login or Logout
// leaves. It is odd, which is how replaced knows it: a mark that the store
// itself makes keeps the save IDs of the record.
func newReplacedSaveID() store.SaveID { return newSaveID() | 1 }

// replaced reports whether a tombstone was left by a Login or a Logout.
func replaced(rec *store.Record) bool {
	return rec.IsEnd() && len(rec.SaveIDs) > 0 && rec.SaveIDs[0]&1 == 1
}

// send saves a record. An outcome that is unknown is resolved by sending the
// same save again, with the same save ID: the store applies it once, and a first
// try that is still under way comes too late then.
func (m *Manager) send(ctx context.Context, rec store.Record, base store.Base) error {
	return m.sendAgain(ctx, &rec, func(ctx context.Context) error {
		return m.cfg.Store.Save(ctx, rec, base)
	})
}

func (m *Manager) sendAgain(ctx context.Context, rec *store.Record, save func(context.Context) error) error {
	const tries = 4
	pause := 20 * time.Millisecond
	for try := 1; ; try++ {
		once, cancel := context.WithTimeout(ctx, 2*m.cfg.Timeout/5)
		err := save(once)
		cancel()
		switch {
		case err == nil:
			m.count.saves.Add(1)
			return nil
		case errors.Is(err, store.ErrConflict):
			m.count.conflicts.Add(1)
			if try > 1 && !m.notSaved(ctx, rec) {
				return unavailable("save", errUnknownOutcome)
			}
			return err
		case errors.Is(err, store.ErrTooLarge):
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		case errors.Is(err, store.ErrLimit):
			return fmt.Errorf("%w: %w", ErrTooManySessions, err)
		case errors.Is(err, errors.ErrUnsupported):
			return unavailable("save", err)
		}
		failed := m.storeFailed(ctx, "save", fmt.Errorf("%w: %w", errUnknownOutcome, err))
		if try == tries || !sleep(ctx, pause) {
			return failed
		}
		m.count.retries.Add(1)
		pause *= 4
	}
}

// errUnknownOutcome says that nobody knows whether a record was saved.
var errUnknownOutcome = errors.New("it is not known whether it was saved")

// notSaved reports whether a save that met a conflict after an unknown outcome
// was surely not applied: had it been, its save ID would still be there. After many
// more saves it is gone in any case.
func (m *Manager) notSaved(ctx context.Context, rec *store.Record) bool {
	cur, err := m.ask(ctx, rec.ID, 0)
	return errors.Is(err, store.ErrNotFound) || cur != nil && cur.stored.Version < rec.Version+store.RecentSaveIDs
}

// backOff waits a little, at random, before a save is tried on a newer base.
func backOff(ctx context.Context, attempt int) bool {
	most := time.Millisecond << min(attempt, 5)
	return sleep(ctx, mathrand.N(most))
}

// sleep waits for d and reports whether ctx is still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
