package sojourn

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// A request is its visitor's activity for as long as it lasts: somebody who
// uploads for an hour is there for an hour. A stored session is touched while
// its request is under way, always before its deadline, because nothing brings
// it back after that. Requests that declare themselves to be in the background
// are no activity at all, and of those that wait for what the server will send
// (event streams, WebSockets, responses that the handler flushes, whoever waits
// for Session.Done) only their start is, and each Save.

// longRequest is how long a request lasts before what it has loaded may be out
// of date.
const longRequest = time.Minute

// waits reports whether the request lasts for as long as a page is open,
// whatever its visitor does.
func (s *Session) waits() bool {
	return s.stream.Load() || s.watch != nil || asksForEvents(s.in)
}

// asksForEvents reports whether a request asks for an event stream, as browsers
// do for an EventSource.
func asksForEvents(h http.Header) bool {
	return strings.Contains(h.Get("Accept"), "text/event-stream")
}

// activityDue reports whether the visitor's activity is to be noted at now.
func (s *Session) activityDue(now time.Time) bool {
	if s.background {
		return false
	}
	m, h := s.m, &s.last.rec.Header
	at := now
	if s.waits() {
		at = s.loaded
	}
	switch s.last.placement {
	case PlacementStored:
		return m.touchDue(h, later(s.last.stored.Seen, s.noted), at)
	case PlacementInline:
		seen := record.Time(h.Seen)
		if at.Sub(s.loaded) > longRequest {
			// Other responses may have changed the cookie since, and this one would
			// change it back. So not before the session is in danger.
			return m.idleTimeout(h) > 0 && at.Sub(seen) >= m.idleTimeout(h)/2
		}
		return m.touchDue(h, seen, at)
	default:
		return false
	}
}

// noteActivity extends the idle deadline of the session if that is due. It
// returns errors.ErrUnsupported if that takes a save, which is then up to the
// caller.
func (s *Session) noteActivity(ctx context.Context, now time.Time) error {
	st := s.last
	s.noted = now // whether or not that works: the next request will see
	if now.Sub(s.loaded) > longRequest {
		_, _, err := s.m.stayAlive(ctx, st, now)
		return err
	}
	return s.m.touch(ctx, st, now)
}

// noteLate is noteActivity after the first byte.
func (s *Session) noteLate(ctx context.Context, now time.Time) {
	m := s.m
	if m.begin() != nil {
		return
	}
	defer m.end()
	ctx, cancel := m.bounded(context.WithoutCancel(ctx))
	defer cancel()
	if errors.Is(s.noteActivity(ctx, now), errors.ErrUnsupported) {
		_ = s.rewrite(ctx, s.last) // logged, if the store has failed
	}
}

// rewrite saves a state of the session as it is, which notes the activity where
// the store cannot touch. What the handler has changed meanwhile stays pending.
func (s *Session) rewrite(ctx context.Context, st *state) error {
	keeper := newSession(s.m)
	keeper.r, keeper.in, keeper.last, keeper.view, keeper.loaded, keeper.phase = s.r, s.in, st, st.rec, s.loaded, phaseBody
	return keeper.commitStored(ctx)
}

// stayAlive notes the activity of a session that was loaded some time ago, if
// it is still there, and returns when it was last seen and when it is over. One
// that is over already stays so.
func (m *Manager) stayAlive(ctx context.Context, st *state, now time.Time) (seen, deadline time.Time, err error) {
	cur, err := m.fetch(ctx, st.identity, 0)
	if err != nil {
		return seen, deadline, err
	}
	h := &cur.rec.Header
	if !m.touchDue(h, cur.stored.Seen, now) {
		return cur.stored.Seen, cur.stored.Deadline, nil // by another request
	}
	return now, m.idleDeadline(h, now, cur.stored.Expires), m.touch(ctx, cur, now)
}

// keepAwake sees to it that the session does not reach its idle deadline while
// its request is under way, which costs nothing but a timer for most requests. It
// is called with mu held.
func (s *Session) keepAwake() {
	if s.awake == nil && s.mayOutlive() {
		s.awake = time.AfterFunc(halfUntil(s.last.stored.Deadline, s.m.now()), s.wake)
	}
}

// mayOutlive reports whether the request is one that keeps its session from
// ending.
func (s *Session) mayOutlive() bool {
	return s.r != nil && (s.phase == phaseOpen || s.phase == phaseBody) && !s.background && !s.waits() &&
		s.last.placement == PlacementStored && s.m.idleTimeout(&s.last.rec.Header) > 0
}

func halfUntil(deadline, now time.Time) time.Duration {
	return max(deadline.Sub(now)/2, 10*time.Millisecond)
}

// wake runs when half of the time until the deadline is over. It does not hold
// the session's lock while it asks the store.
func (s *Session) wake() {
	m := s.m
	s.lockAside()
	st, live := s.last, s.mayOutlive()
	s.mu.Unlock()
	if !live || m.begin() != nil {
		return
	}
	defer m.end()
	ctx, cancel := context.WithTimeout(m.stop, m.cfg.Timeout)
	defer cancel()
	now := m.now()
	seen, deadline, err := m.stayAlive(ctx, st, now)
	if errors.Is(err, errors.ErrUnsupported) {
		err = s.rewrite(ctx, st)
	}

	s.lockAside()
	defer s.mu.Unlock()
	if errors.Is(err, errGone) || !s.mayOutlive() {
		return
	}
	if err == nil {
		next := *s.last
		next.stored.Seen, next.stored.Deadline = later(next.stored.Seen, seen), later(next.stored.Deadline, deadline)
		s.last, s.noted = &next, now
	}
	// After a failure, it is tried again in half of the time that is left.
	if now := m.now(); !now.After(s.last.stored.Deadline) {
		s.awake.Reset(halfUntil(s.last.stored.Deadline, now))
	}
}

// lockAside locks mu for the timer's goroutine. A commit holds mu while it waits
// for its next try, and this wait must not look like work to a clock that moves
// only when all goroutines wait, as that of testing/synctest does.
func (s *Session) lockAside() {
	for !s.mu.TryLock() {
		time.Sleep(time.Millisecond)
	}
}
