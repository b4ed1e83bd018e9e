package sojourn

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// settle makes st the last saved state of the session.
func (s *session) settle(st *stored.State) {
	s.last = st
	s.draft.Start(&st.Rec)
	s.ending, s.login, s.fresh = nil, nil, nil
	s.presentDue, s.rotateDue, s.noted = false, false, time.Time{}
}

// keepInline settles a session that is in the cookie.
func (s *session) keepInline(in *cookies.Inline, now time.Time) {
	st := inlineState(in)
	if s.last.Where == rules.Nowhere {
		s.m.count.created.Add(1)
		s.m.tell(s.context(), s.event(EventCreated, st))
	}
	h := &st.Rec.Header
	s.jar.SetInline(in, s.m.limits.CookieAge(h, record.Time(h.Expires), now))
	s.settle(st)
}

// keepStored settles a session that is in the store. With renew, it sets the
// reference even if the browser already has it.
func (s *session) keepStored(st *stored.State, renew bool) {
	m := s.m
	now := m.now()
	m.sweepNowAndThen()
	if st.Meta.Shorten {
		m.ends.Moved(st.ID, st.Meta.Deadline)
	}
	ref := referenceOf(st)
	if renew || !s.jar.Has(&ref) || s.last.Rec.Header.Persist != st.Rec.Header.Persist {
		s.setReference(st, now)
	}
	if s.phase != phaseBody {
		if m.caches {
			s.setFloor(st, now)
		} else {
			s.jar.ForgetState()
		}
	}
	s.unproven = false
	s.settle(st)
}

// referenceOf is the credential of a stored session.
func referenceOf(st *stored.State) wire.Reference {
	return wire.Reference{Identifier: st.Identifier, Generation: st.Rec.Header.Generation, Expires: st.Meta.Expires.UnixMilli()}
}

// setReference sets the cookie with the reference to a stored session.
func (s *session) setReference(st *stored.State, now time.Time) {
	ref := referenceOf(st)
	if err := s.jar.SetReference(&ref, s.m.limits.CookieAge(&st.Rec.Header, st.Meta.Expires, now)); err != nil {
		s.failLater(err)
	}
	s.unproven = true
}

// setFloor sets the floor: the version that the browser has seen.
func (s *session) setFloor(st *stored.State, now time.Time) {
	if err := s.jar.SetFloor(st.Floor(), s.m.limits.CookieAge(&st.Rec.Header, st.Meta.Expires, now)); err != nil {
		s.failLater(err)
	}
}

// forget expires every cookie of the session in the browser.
func (s *session) forget() {
	s.jar.Forget()
	s.unproven = false
}

// flushTo moves the pending cookies into a response header. The caller then
// calls limitCaching.
func (s *session) flushTo(h http.Header) {
	if s.jar.Pending() && !s.m.cookie.Insecure && request.PlainHTTP(&s.req) {
		s.m.log.Once(slog.LevelWarn, "a Secure session cookie was set over plain HTTP, where browsers ignore it; "+
			"serve HTTPS, let the proxy send X-Forwarded-Proto, or set Config.Cookie.Insecure for tests")
	}
	s.jar.Flush(h)
}

// takeBackReference drops a reference that this commit did not make, if another
// request, such as a login, has ended its session meanwhile. To set it now
// would undo that login in the browser.
func (s *session) takeBackReference(ctx context.Context) {
	if !s.unproven || s.last.Where != rules.Stored || s.m.begin() != nil {
		return
	}
	defer s.m.done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.timeout)
	defer cancel()
	switch st, err := s.m.stored.Load(ctx, s.last.Who, 0); {
	case errors.Is(err, stored.ErrGone):
		s.jar.Drop()
	case err == nil && st.Rec.Header.Generation > s.jar.Generation():
		s.setReference(st, s.m.now()) // rotated meanwhile
	}
}

// choresDue reports whether doChores has anything to do.
func (s *session) choresDue() bool {
	switch s.last.Where {
	case rules.Inline:
		return s.jar.StateStale() || s.last.Mended || s.activityDue(s.m.now()) || s.renewalDue(s.m.now())
	case rules.Stored:
		ref := referenceOf(s.last)
		return s.presentDue || s.rotateDue || s.last.Mended ||
			s.jar.Outdated(&ref) || s.activityDue(s.m.now()) || s.renewalDue(s.m.now())
	default:
		return false
	}
}

// renewalDue reports whether this request, as activity, must extend the end of
// a session without a lifetime.
func (s *session) renewalDue(now time.Time) bool {
	return !s.background && s.m.limits.RenewalDue(&s.last.Rec.Header, now)
}

// doChores refreshes cookies and timestamps after a request that changed
// nothing. A failure does not fail the request.
func (s *session) doChores(ctx context.Context) {
	m := s.m
	now := m.now()
	if s.last.Where == rules.Inline {
		in, err := m.cookies.Seal(s.last.Rec.Clone(), s.last.Identifier, s.jar.Known(), false, s.background, now)
		if err != nil {
			m.log.Warn("could not refresh a session cookie", slog.Any("error", err))
			return
		}
		s.keepInline(&in, now)
		return
	}
	h := &s.last.Rec.Header
	if ref := referenceOf(s.last); s.jar.Outdated(&ref) && now.Sub(s.loaded) <= longRequest {
		s.setReference(s.last, now) // after a long request, the browser may have a newer one
	}
	save := s.presentDue || s.rotateDue || s.last.Mended || s.renewalDue(now)
	if !save && !s.activityDue(now) {
		return
	}
	ctx, cancel := m.stored.Bounded(ctx)
	defer cancel()
	if !save && !errors.Is(s.noteActivity(ctx, now), errors.ErrUnsupported) {
		return
	}
	if s.presentDue {
		s.draft.Presented(h.Generation)
	}
	if s.rotateDue {
		s.rotate()
	}
	if err := s.commitStored(ctx); err != nil {
		s.draft.DropChores()
		m.log.Debug("could not note a session's activity", slog.Any("error", err))
	}
}

// A request counts as activity for as long as it lasts: during an upload of an
// hour, the visitor is active for an hour. A stored session is touched while its
// request runs, always before its deadline, because nothing restores the session
// after that. Background requests are no activity. Of a request that waits for data
// from the server (an event stream, a WebSocket, a response with Flush, a wait for
// Session.Done), only its start and each Save are activity.

// longRequest is the age of a request from which on its loaded state may be out of
// date.
const longRequest = time.Minute

// waits reports whether the request lasts as long as a page is open, even if
// the visitor is inactive.
func (s *session) waits() bool {
	return s.stream.Load() || s.watch != nil || request.AsksForEvents(s.req.Header)
}

// activityDue reports whether the visitor's activity must be recorded at now.
func (s *session) activityDue(now time.Time) bool {
	if s.background {
		return false
	}
	m, h := s.m, &s.last.Rec.Header
	at := now
	if s.waits() {
		at = s.loaded
	}
	switch s.last.Where {
	case rules.Stored:
		return m.limits.TouchDue(h, rules.Later(s.last.Meta.Seen, s.noted), at)
	case rules.Inline:
		seen := record.Time(h.Seen)
		if at.Sub(s.loaded) > longRequest {
			// Other responses may have changed the cookie meanwhile, and this one would
			// revert it. So only if the session may soon expire.
			return m.limits.IdleTimeout(h) > 0 && at.Sub(seen) >= m.limits.IdleTimeout(h)/2
		}
		return m.limits.TouchDue(h, seen, at)
	default:
		return false
	}
}

// noteActivity extends the idle deadline of the session. It returns
// errors.ErrUnsupported if that needs a save, which is left to the caller.
func (s *session) noteActivity(ctx context.Context, now time.Time) error {
	st := s.last
	s.noted = now // also after a failure: the next request tries again
	if now.Sub(s.loaded) > longRequest {
		_, _, err := s.m.stored.StayAlive(ctx, st.Who, now)
		return err
	}
	return s.m.stored.Touch(ctx, st, now)
}

// noteLate is noteActivity after the first byte.
func (s *session) noteLate(ctx context.Context, now time.Time) {
	m := s.m
	if m.begin() != nil {
		return
	}
	defer m.done()
	ctx, cancel := m.stored.Bounded(context.WithoutCancel(ctx))
	defer cancel()
	if errors.Is(s.noteActivity(ctx, now), errors.ErrUnsupported) {
		_ = m.stored.Rewrite(ctx, s.last) // logged, if the store has failed
	}
}

// keepAwake starts a timer that keeps a stored session from reaching its idle
// deadline while its request runs. It is called with mu held.
func (s *session) keepAwake() {
	if s.awake == nil && s.mayOutlive() {
		s.awake = time.AfterFunc(halfUntil(s.last.Meta.Deadline, s.m.now()), s.wake)
	}
}

// mayOutlive reports whether the request keeps its session from expiring.
func (s *session) mayOutlive() bool {
	return (s.phase == phaseOpen || s.phase == phaseBody) && !s.background && !s.waits() &&
		s.last.Where == rules.Stored && s.m.limits.IdleTimeout(&s.last.Rec.Header) > 0
}

func halfUntil(deadline, now time.Time) time.Duration {
	return max(deadline.Sub(now)/2, 10*time.Millisecond)
}

// wake runs when half of the time until the deadline has passed. It does not
// hold the session's lock during the call of the store.
func (s *session) wake() {
	s.aside(func() {
		st, live := s.last, s.mayOutlive()
		if live {
			go s.ask(st)
		}
	})
}

// ask records the activity in the store, and sets the timer again.
func (s *session) ask(st *stored.State) {
	m := s.m
	if m.begin() != nil {
		return
	}
	defer m.done()
	ctx, cancel := context.WithTimeout(m.stop, m.timeout)
	defer cancel()
	now := m.now()
	seen, deadline, err := m.stored.StayAlive(ctx, st.Who, now)
	if errors.Is(err, errors.ErrUnsupported) {
		err = m.stored.Rewrite(ctx, st)
	}
	s.aside(func() {
		if errors.Is(err, stored.ErrGone) || !s.mayOutlive() {
			return
		}
		if err == nil {
			next := *s.last
			next.Meta.Seen, next.Meta.Deadline = rules.Later(next.Meta.Seen, seen), rules.Later(next.Meta.Deadline, deadline)
			s.last, s.noted = &next, now
		}
		// After a failure, the timer runs again after half of the remaining time.
		if now := m.now(); !now.After(s.last.Meta.Deadline) {
			s.awake.Reset(halfUntil(s.last.Meta.Deadline, now))
		}
	})
}

// aside runs f for the timer, with mu held: at once, or after the holder of mu,
// such as a commit that waits for a retry, has released it. Until then only a
// timer waits, and no goroutine, so that no goroutine of this kind is left at
// the end of a request.
func (s *session) aside(f func()) {
	if !s.mu.TryLock() {
		time.AfterFunc(time.Millisecond, func() { s.aside(f) })
		return
	}
	defer s.mu.Unlock()
	f()
}
