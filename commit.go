package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// commitMode says who asks for a commit.
type commitMode uint8

const (
	commitSave   commitMode = iota // Session.Save
	commitAnswer                   // the first byte is about to go out
	commitLogout                   // likewise, of an error answer: only a Logout is left
	commitEnd                      // the handler has returned, after the first byte
)

// answer commits before the first byte and puts the cookies into h, which is nil
// if the header has been sent. With phaseOver as the next phase, only a Logout is
// kept.
func (s *session) answer(ctx context.Context, h http.Header, status int, next phase) error {
	s.lock()
	defer s.mu.Unlock()
	late := error(nil)
	if next == phaseOver {
		late = errAnswered
		s.keepOnlyLogout()
	}
	s.unshown = !request.Shown(status, h)
	s.removeHanded()
	s.unproven = s.jar.SetsReference() // by an earlier Save
	mode := commitAnswer
	switch {
	case next == phaseOver:
		mode = commitLogout
	case h == nil:
		mode = commitEnd
	}
	if h == nil {
		s.phase = phaseBody
	}
	if status == http.StatusSwitchingProtocols || strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		s.stream.Store(true)
		s.rotateDue = false // it may be long until the browser keeps the cookie
	}
	err := s.commit(ctx, mode)
	if err != nil {
		s.logoutAnyway(ctx, err)
		next, late = phaseOver, notKept(err)
	}
	if h != nil {
		s.takeBackReference(ctx)
		s.flushTo(h)
	}
	s.phase, s.late = next, late
	s.keepAwake()
	return err
}

// finish keeps what a stored session changed after the first byte; only a Logout,
// if the handler failed since.
func (s *session) finish(ctx context.Context, failed bool) error {
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
		s.logoutAnyway(ctx, err)
		late = notKept(err)
	} else if now := s.m.now(); !failed && s.last.Where == rules.Stored && s.activityDue(now) {
		s.noteLate(ctx, now)
	}
	s.phase, s.late = phaseOver, late
	return err
}

// logoutAnyway keeps a Logout although the commit that it was part of has
// failed: somebody wants to leave this browser. At the least the browser forgets.
func (s *session) logoutAnyway(ctx context.Context, err error) {
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

// release is called when the request is over, in any case; why is the reason if
// nothing else has ended it before.
func (s *session) release(why error) {
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
func (s *session) changing() {
	if s.phase != phaseOver {
		return
	}
	s.m.count.late.Add(1)
	s.m.log.Report(slog.LevelError, "a change of a session was lost, because it came too late: change the session before the handler returns",
		slog.String("session", s.identity().ID.String()), slog.Any("error", s.late))
}

// keepOnlyLogout drops every change but a Logout, for error answers.
func (s *session) keepOnlyLogout() {
	leaving := s.ending != nil && !s.ending.carry
	s.discard()
	if leaving {
		s.logout()
	}
}

// pending reports whether there is anything that a commit must keep.
func (s *session) pending() bool {
	return s.ending != nil || s.login != nil || s.link != "" || !s.draft.Empty()
}

// setsCookies reports whether the response can still set cookies.
func (s *session) setsCookies() bool {
	return s.phase == phaseOpen
}

// commit keeps the pending changes. Where it fails they stay pending.
func (s *session) commit(ctx context.Context, mode commitMode) error {
	if s.failed != nil {
		return s.failed
	}
	chores := mode == commitAnswer && s.choresDue()
	if !s.pending() && !chores {
		return nil
	}
	if s.phase == phaseOpen && (s.login != nil || !s.draft.Empty()) && errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		// Whoever set the deadline has answered by now, as http.TimeoutHandler does.
		return fmt.Errorf("%w: %w", ErrTooLate, context.DeadlineExceeded)
	}
	if err := s.m.begin(); err != nil {
		if !s.pending() {
			return nil
		}
		return err
	}
	defer s.m.done()
	// What the handler decided is kept even if the client has gone away.
	ctx = context.WithoutCancel(ctx)
	back, fresh, before := s.writesBack(), s.login != nil, s.last
	if err := s.keep(ctx, chores); err != nil {
		return err
	}
	if back {
		s.writeBack(ctx, fresh, &before.Rec.Header)
	}
	return nil
}

// keep ends, makes and saves what is pending, in that order; chores say that a
// request which changed nothing has something to do as well.
func (s *session) keep(ctx context.Context, chores bool) error {
	if s.ending != nil && !s.ending.carry && (s.setsCookies() || s.last.Where == rules.Stored) {
		var cancel context.CancelFunc
		ctx, cancel = s.m.stored.Bounded(ctx)
		defer cancel()
		if err := s.endLast(ctx); err != nil {
			return err
		}
		chores = false // of the session that is over now
	}
	if !s.setsCookies() && s.needsCookie() {
		return errNeedsCookie
	}
	if s.link != "" {
		return errNoLogin
	}
	if s.login == nil && s.last.Where != rules.Stored {
		if err := s.barred(false); err != nil {
			if s.draft.Empty() {
				return nil
			}
			s.tellRefused()
			return err
		}
	}
	switch {
	case s.login != nil:
		return s.commitLogin(ctx)
	case !s.draft.Empty():
		return s.commitChanges(ctx)
	case chores:
		s.doChores(ctx)
	}
	return nil
}

// needsCookie reports whether the pending changes cannot be kept without
// setting a cookie.
func (s *session) needsCookie() bool {
	return s.login != nil || s.draft.NeedsCookie() ||
		s.ending != nil || // of an inline session
		!s.draft.Empty() && s.base().Where != rules.Stored
}

// commitChanges keeps changed values, in the place where the session lives then.
func (s *session) commitChanges(ctx context.Context) error {
	now := s.m.now()
	where, err := s.m.limits.Place(s.last.Where, s.draft.View(), now)
	switch {
	case err != nil:
		return err
	case where == rules.Nowhere:
		if s.last.Where == rules.Inline {
			s.jar.ForgetState()
		}
		s.settle(stored.Nothing)
		return nil
	case where == rules.Inline && !s.jar.Token():
		next := s.draft.View().Clone()
		next.Expire(now.UnixMilli())
		in, err := s.m.cookies.Seal(next, s.identity().Identifier, s.jar.Known(), true, s.background, now)
		if err == nil {
			s.keepInline(&in, now)
			return nil
		}
		if s.m.mode == CookieOnly || !errors.Is(err, ErrTooLarge) {
			return err
		}
		// It has outgrown the cookie.
	}
	return s.commitToStore(ctx, now)
}

// commitToStore keeps changed values in the store, or, if they may be lost, in a
// cache.
func (s *session) commitToStore(ctx context.Context, now time.Time) error {
	if s.mayStayVolatile() {
		st, err := s.m.stored.SaveVolatile(ctx, s.change())
		if st != nil {
			s.keepStored(st, false)
			// The store was not asked: the session may have ended.
			s.unproven = s.jar.SetsReference()
		}
		if st != nil || err != nil {
			return err
		}
	}
	if s.last.Where != rules.Stored {
		if err := s.barred(true); err != nil {
			s.tellRefused()
			return err
		}
	}
	if s.presentDue {
		s.draft.Presented(s.last.Rec.Header.Generation)
	}
	if s.rotateDue && s.setsCookies() {
		s.rotate()
	}
	ctx, cancel := s.m.stored.Bounded(ctx)
	defer cancel()
	err := s.commitStored(ctx)
	var gone *stored.Gone
	switch {
	case s.last.Where == rules.Inline:
		return s.outgrown(ctx, err, now)
	case errors.As(err, &gone):
		if gone.Damaged {
			s.forget()
		}
		return ErrEnded
	}
	return err
}

// mayStayVolatile reports whether changes of Volatile values alone may be kept in
// a cache: nothing else is to be written, and the next request will look for them.
func (s *session) mayStayVolatile() bool {
	st := s.last
	if st.Where != rules.Stored || s.jar.Token() || !s.m.stored.KeepsVolatile() || st.Mended || s.lost != 0 || s.presentDue ||
		s.draft.ChangesHeader() || s.activityDue(s.m.now()) {
		return false
	}
	told := wire.Floor{ID: st.ID, Version: st.Meta.Version, Volatile: true}
	return s.setsCookies() || s.jar.Floor() == told
}

// outgrown goes on after err, with which a session in a cookie was stored. If
// that is because it had been stored before, and has ended since or moved on
// without this cookie, then the cookie is a credential that is not good any more.
func (s *session) outgrown(ctx context.Context, err error, now time.Time) error {
	var gone *stored.Gone
	ended := errors.As(err, &gone)
	switch {
	case !ended && !errors.Is(err, stored.ErrMovedOn):
		return err
	case ended && !s.loaded.After(gone.Ended):
		return ErrEnded // while the request was under way
	case (!ended || gone.ToldOf(now)) && s.jar.Refuse(string(s.last.Identifier)):
		s.tellRefused()
		return errRefused
	case ended:
		// The visitor starts anew.
		return s.commitAs(ctx, stored.Nothing)
	}
	// What the cookie holds goes on as a session of its own.
	apart := *s.last
	apart.Who = stored.NewWho()
	return s.commitAs(ctx, &apart)
}

// commitAs saves the pending changes on top of another state than the one that
// the request came with.
func (s *session) commitAs(ctx context.Context, from *stored.State) error {
	s.last, s.fresh = from, nil
	if err := s.draft.Rebase(&from.Rec); err != nil {
		return err
	}
	return s.commitStored(ctx)
}

// change is the request's part in a commit.
func (s *session) change() stored.Change {
	c := stored.Change{
		Who: s.identity(), Base: s.last, Draft: &s.draft,
		Quiet: s.background, Above: s.lost, Arrived: s.loaded,
	}
	if s.last.Where != rules.Stored {
		c.Visit = s.visit()
	}
	return c
}

// commitStored saves a session that lives in the store, or moves there.
func (s *session) commitStored(ctx context.Context) error {
	rotates := s.draft.Rotates()
	res, err := s.m.stored.Save(ctx, s.change())
	if err != nil {
		if errors.Is(err, fault.ErrUnknown) && !s.draft.Repeatable() {
			s.failed = err
		}
		return err
	}
	if res.Rotated {
		s.m.count.rotations.Add(1)
		s.m.tell(ctx, s.event(EventRotated, res.State))
	}
	s.countMove(ctx, res.State)
	s.keepStored(res.State, rotates)
	if res.Behind {
		mine := res.Mine
		s.draft.Start(&mine)
	}
	return nil
}

// rotate notes that the credential as it was last seen is to be replaced.
func (s *session) rotate() {
	s.draft.Rotate(s.last.Rec.Header.Generation, s.m.limits.OldFor())
}
