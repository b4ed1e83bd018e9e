package sojourn

import (
	"context"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
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
func (s *session) waits() bool {
	return s.stream.Load() || s.watch != nil || request.AsksForEvents(s.req.Header)
}

// activityDue reports whether the visitor's activity is to be noted at now.
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
			// Other responses may have changed the cookie since, and this one would
			// change it back. So not before the session is in danger.
			return m.limits.IdleTimeout(h) > 0 && at.Sub(seen) >= m.limits.IdleTimeout(h)/2
		}
		return m.limits.TouchDue(h, seen, at)
	default:
		return false
	}
}

// noteActivity extends the idle deadline of the session if that is due. It
// returns errors.ErrUnsupported if that takes a save, which is then up to the
// caller.
func (s *session) noteActivity(ctx context.Context, now time.Time) error {
	st := s.last
	s.noted = now // whether or not that works: the next request will see
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

// keepAwake sees to it that the session does not reach its idle deadline while
// its request is under way, which costs nothing but a timer for most requests. It
// is called with mu held.
func (s *session) keepAwake() {
	if s.awake == nil && s.mayOutlive() {
		s.awake = time.AfterFunc(halfUntil(s.last.Meta.Deadline, s.m.now()), s.wake)
	}
}

// mayOutlive reports whether the request is one that keeps its session from
// ending.
func (s *session) mayOutlive() bool {
	return (s.phase == phaseOpen || s.phase == phaseBody) && !s.background && !s.waits() &&
		s.last.Where == rules.Stored && s.m.limits.IdleTimeout(&s.last.Rec.Header) > 0
}

func halfUntil(deadline, now time.Time) time.Duration {
	return max(deadline.Sub(now)/2, 10*time.Millisecond)
}

// wake runs when half of the time until the deadline is over. It does not hold
// the session's lock while it asks the store.
func (s *session) wake() {
	s.aside(func() {
		st, live := s.last, s.mayOutlive()
		if live {
			go s.ask(st)
		}
	})
}

// ask notes the activity, and sets the timer again.
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
		// After a failure, it is tried again in half of the time that is left.
		if now := m.now(); !now.After(s.last.Meta.Deadline) {
			s.awake.Reset(halfUntil(s.last.Meta.Deadline, now))
		}
	})
}

// aside runs f with mu held, for the timer: at once, or when whoever has mu, such
// as a commit that waits for its next try, has let it go. Nothing waits meanwhile
// but another timer, so that a request's end never meets a goroutine of this kind.
func (s *session) aside(f func()) {
	if !s.mu.TryLock() {
		time.AfterFunc(time.Millisecond, func() { s.aside(f) })
		return
	}
	defer s.mu.Unlock()
	f()
}
