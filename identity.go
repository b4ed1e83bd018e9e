package sojourn

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Login makes this the session of user, under a fresh identifier: whoever knew
// the one before has nothing. An anonymous visitor's values are kept; those of
// another user are dropped. The session before is ended, so that requests
// still under way with it change nothing any more (they get [ErrEnded]); the
// lifetime starts anew. An empty user fails the commit.
//
// Call it on every authentication, also when the same user authenticates again
// (step-up): the values stay, and Info.LoggedIn and Info.Methods are the new
// ones.
//
// methods says how the user authenticated, for [Info]: any names without white
// space, such as the "pwd", "otp" and "hwk" of RFC 8176.
//
// With Config.MaxPerUser the user's oldest sessions beyond it are ended, or the
// commit fails with [ErrTooManySessions].
func (s *Session) Login(user string, methods ...string) {
	s.lock()
	defer s.mu.Unlock()
	if user == "" {
		s.failLater(fmt.Errorf("%w: Login with an empty user", ErrBadValue))
		return
	}
	for _, method := range methods {
		if len(strings.Fields(method)) != 1 || strings.TrimSpace(method) != method || len(method) > 64 {
			s.failLater(fmt.Errorf("%w: Login with the method %.40q: a method is a word", ErrBadValue, method))
			return
		}
	}
	s.changing()
	if s.ending == nil && s.last.placement != PlacementNone {
		s.ending = &ending{carry: true}
	}
	before := s.view.Header.User
	drop := before != "" && before != user
	if drop {
		s.clear()
	}
	s.login = &login{
		user:    user,
		methods: strings.Join(methods, " "),
		at:      s.m.now(),
		created: s.m.now().UnixMilli(),
		drop:    drop || s.login != nil && s.login.drop,
	}
	if s.m.cfg.MaxPerUser > 0 {
		s.login.created = s.m.logins.next(user, s.login.created)
	}
	id := newIdentity()
	s.fresh = &id
	s.view.Header = s.login.header(s.view.Header, s.visit())
}

// succession keeps a user's logins in order: those of one millisecond would
// have none, and Config.MaxPerUser would end any of them.
type succession struct {
	seed maphash.Seed
	last [64]atomic.Int64 // by user, in Unix milliseconds
}

// next returns when a session of user that is made at now counts as created: at
// now, or just after the one before it in this process.
func (o *succession) next(user string, now int64) int64 {
	last := &o.last[maphash.String(o.seed, user)%uint64(len(o.last))]
	for {
		before, at := last.Load(), now
		if before >= now && before-now < 1000 { // else the clock was set back
			at = before + 1
		}
		if last.CompareAndSwap(before, at) {
			return at
		}
	}
}

// header is the header of the session that the login makes out of one before.
func (l *login) header(h record.Header, v visit) record.Header {
	next := record.Header{
		Created:   l.created,
		User:      l.user,
		AuthTime:  l.at.UnixMilli(),
		Methods:   l.methods,
		UserAgent: v.userAgent,
		IP:        v.ip,
		Idle:      h.Idle,
		Lifetime:  h.Lifetime,
		Persist:   h.Persist,
		Unknown:   h.Unknown,
	}
	if !l.drop {
		carryLink(&next, &h)
	}
	return next
}

// Logout ends the session for good: a stored one leaves a tombstone that no
// slower request and no copied cookie gets past, and the browser's cookies
// expire. The object goes on, empty and anonymous, so that a flash message or
// a preference set afterwards starts a new session. A Logout is kept even if
// the response is an error, as long as it comes before the first byte of that.
//
// A session in the cookie has no server side: somebody who copied the cookie
// can bring its anonymous values back. Use [ServerSide] where that matters.
func (s *Session) Logout() {
	s.lock()
	defer s.mu.Unlock()
	s.changing()
	s.logout()
}

func (s *Session) logout() {
	switch {
	case s.last.placement == PlacementNone:
		s.ending = nil
	case s.ending == nil || s.ending.carry: // else there is nothing more to end
		s.changes.clear()
		s.ending = &ending{pops: s.changes}
	}
	s.changes, s.handed = changes{}, nil
	s.login, s.fresh, s.failed = nil, nil, nil
	s.view, s.own = record.Record{}, true
}

// Rotate gives the session a fresh credential: same session, handle and values,
// new cookie. The credential before stays good for Config.Grace after the new
// one was first used, for requests already under way; and as long as the new one
// was never used, the next Rotate hands it out again. To make an old credential
// worthless at once, use Login. Config.RotateEvery does the same by itself.
func (s *Session) Rotate() {
	s.lock()
	defer s.mu.Unlock()
	s.changing()
	s.changes.header.rotate = s.rotation()
}

// commitLogin makes the session of the login and ends the one before.
func (s *Session) commitLogin(ctx context.Context) error {
	m := s.m
	if m.cfg.Placement == CookieOnly {
		return s.commitLoginInline()
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	before, other := s.last, s.login.drop
	if other {
		if err := m.leaveLegacy(ctx, before); err != nil {
			return err
		}
	}
	j := &job{s: s, who: s.last.identity}
	run := func(ctx context.Context, known *state) (_ *state, err error) {
		j.next, err = s.moveInto(ctx, newest(known, j))
		return nil, err
	}
	if s.last.placement == PlacementNone {
		// Nobody else knows this session.
		if _, err := run(ctx, nil); err != nil {
			return err
		}
	} else {
		j.alone = run
		m.queues.do(ctx, m, j)
		if j.err != nil {
			return j.err
		}
		m.ends.Tell(j.who.id, ErrEnded)
	}
	m.count.logins.Add(1)
	m.tell(ctx, s.event(EventLogin, j.next))
	s.countMove(ctx, j.next)
	s.keepStored(j.next, true)
	if err := s.endOthers(ctx); err != nil {
		m.log.Warn("another session that a browser had could not be ended at its login", slog.Any("error", err))
	}
	if other {
		_ = s.endLegacy(ctx, &before.rec.Header) // logged; the login stands
	}
	return nil
}

func (s *Session) commitLoginInline() error {
	now := s.m.now()
	r := s.view.Clone()
	r.Expire(now.UnixMilli())
	r.Header.Counter = s.last.rec.Header.Counter
	if _, err := s.m.place(PlacementNone, &r, now); err != nil {
		return err
	}
	st, value, err := s.m.sealInline(r, s.identity(), wire.Mark{}, true, false, now)
	if err != nil {
		return err
	}
	s.m.count.logins.Add(1)
	s.m.tell(s.context(), s.event(EventLogin, st))
	s.keepInline(st, value, now)
	return nil
}

// countMove counts a session that is about to settle in the store.
func (s *Session) countMove(ctx context.Context, st *state) {
	switch s.last.placement {
	case PlacementNone:
		s.m.count.created.Add(1)
		s.m.tell(ctx, s.event(EventCreated, st))
	case PlacementInline:
		s.m.count.promoted.Add(1)
		s.m.tell(ctx, s.event(EventPromoted, st))
	}
}

// moveInto writes the login's new record first and then ends the old one by
// compare-and-set against the version that the new one was made from; if that
// has changed, the new record is rewritten from it. Only then is the login
// answered: a parallel request's change is either in the new session, or meets
// the tombstone. old is nil if the session before is not known to be stored.
func (s *Session) moveInto(ctx context.Context, old *state) (made *state, err error) {
	m := s.m
	// The new session must not outlive a login that fails: some of the time is
	// kept for ending it. Another try needs another identifier then.
	whole := ctx
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-m.cfg.Timeout/5))
	defer cancel()
	sent := false
	fail := func(err error) (*state, error) {
		if sent {
			if err := m.cfg.Store.Delete(whole, s.identity().id, m.now().Add(store.MinTombstone)); err != nil {
				_ = m.storeFailed(whole, "end the session of a login that failed", err)
			}
			id := newIdentity()
			s.fresh = &id
		}
		return nil, err
	}
	carry := s.ending != nil && s.ending.carry
	inline := s.last.placement == PlacementInline
	if inline && old != nil && !m.joinable(&old.rec.Header, s.loaded) {
		old = nil
	}
	for attempt := 0; ; attempt++ {
		now := m.now()
		from := nothing
		switch {
		case !carry:
		case old == nil:
			from = s.last
		case inline:
			merged := *old
			merged.rec = mergeInline(old.rec, &s.last.rec)
			from = &merged
		default:
			from = old
		}
		rec, err := s.applyTo(from, now)
		if err != nil {
			return fail(err)
		}
		rec.Settle()
		rec.Header = s.login.header(rec.Header, s.visit())
		next, err := m.sealRecord(rec, s.identity(), made, 0, now, now)
		if err != nil {
			return fail(err)
		}
		base := store.Base{}
		if made != nil {
			base = made.stored.Base()
		}
		sent = true
		if err := s.sendLogin(ctx, next.stored, base); err != nil {
			if errors.Is(err, store.ErrConflict) {
				err = ErrEnded // somebody revoked it already
			}
			if errors.Is(err, ErrTooManySessions) {
				sent = false
			}
			return fail(err)
		}
		next.stored.Data = nil
		made = next
		if !carry {
			return made, nil
		}
		err = m.sendEnd(ctx, s.last, old, now)
		if err == nil {
			return made, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return fail(err)
		}
		if !backOff(ctx, attempt) {
			return fail(unavailable("save", ctx.Err()))
		}
		old, err = m.fetchNewest(ctx, s.last.identity)
		switch {
		case errors.Is(err, errGone):
			if s.changes.hasPops() {
				return fail(ErrTaken)
			}
			// Another login or a logout was faster. This visitor has
			// authenticated, so the login stands; what it was about to carry over
			// stays only if it was an anonymous visitor's.
			if s.last.rec.Header.User == "" {
				return made, nil
			}
			carry, old = false, nil
		case err != nil:
			return fail(err)
		case inline && !m.joinable(&old.rec.Header, s.loaded):
			// An old cookie of a session that has moved on without it: only what it
			// holds is the visitor's, and there is nothing to end.
			return made, nil
		}
	}
}

// sendEnd replaces a session by its tombstone, if it is still as old says, or
// if it is still not stored, where old is nil.
func (m *Manager) sendEnd(ctx context.Context, last, old *state, now time.Time) error {
	until := later(now.Add(store.MinTombstone), m.legacyUntil(&last.rec.Header, now))
	rec := store.Record{ID: last.id, Version: 1, Created: now, SaveIDs: []store.SaveID{newReplacedSaveID()}}
	base := store.Base{}
	if last.placement == PlacementInline {
		until = later(until, m.inlineUntil(last, now))
	}
	if old != nil {
		base = old.stored.Base()
		rec.Version = old.stored.Version + 1
		rec.Created = old.stored.Created
		rec.SaveIDs = append(rec.SaveIDs, old.stored.SaveIDs[:min(len(old.stored.SaveIDs), store.RecentSaveIDs-1)]...)
		until = later(until, record.Time(old.rec.Header.InlineUntil))
	}
	rec.Seen, rec.Ended, rec.Deadline, rec.Expires = now, now, until, until
	return m.send(ctx, rec, base)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// endLast keeps a Logout: it ends the session as it was loaded.
func (s *Session) endLast(ctx context.Context) error {
	m := s.m
	before := s.last
	if err := m.leaveLegacy(ctx, before); err != nil {
		return err
	}
	if s.last.placement == PlacementStored {
		j := &job{s: s, who: s.last.identity}
		j.alone = func(ctx context.Context, known *state) (*state, error) {
			return nil, s.endStored(ctx, newest(known, j))
		}
		m.queues.do(ctx, m, j)
		if j.err != nil {
			return j.err
		}
		m.ends.Tell(j.who.id, ErrEnded)
	}
	if err := s.endOthers(ctx); err != nil {
		return err
	}
	m.count.logouts.Add(1)
	m.tell(ctx, s.event(EventLogout, s.last))
	s.forget()
	s.last, s.ending = nothing, nil
	return s.endLegacy(ctx, &before.rec.Header)
}

// endStored replaces a stored session by its tombstone. A session that is over
// already is fine, unless a popped value depends on it.
func (s *Session) endStored(ctx context.Context, cur *state) error {
	m := s.m
	for attempt := 0; ; attempt++ {
		now := m.now()
		if _, err := s.ending.pops.apply(&cur.rec, now, s.call); err != nil {
			return err
		}
		err := m.sendEnd(ctx, cur, cur, now)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if !backOff(ctx, attempt) {
			return unavailable("save", ctx.Err())
		}
		cur, err = m.fetchNewest(ctx, s.last.identity)
		if errors.Is(err, errGone) {
			if s.ending.pops.hasPops() {
				return ErrTaken
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
