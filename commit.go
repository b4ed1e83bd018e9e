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

// commitMode is the occasion of a commit.
type commitMode uint8

const (
	commitSave   commitMode = iota // Session.Save
	commitAnswer                   // before the first byte
	commitLogout                   // before the first byte of an error: only a Logout
	commitEnd                      // the handler has returned, after the first byte
)

// answer commits before the first byte and puts the cookies into h, which is
// nil if the header has been sent. If next is phaseOver, it saves only a
// Logout.
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
		s.rotateDue = false // the browser may store the cookie much later
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

// finish saves what a stored session changed after the first byte or, if the
// handler has failed since, only a Logout.
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

// logoutAnyway saves a Logout although its commit failed, because the visitor
// wants to leave this browser. If that also fails, the browser's cookies
// expire.
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

// release always runs at the end of a request. why is the reason for
// ErrTooLate, unless there is an earlier one.
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

// changing is called on each change of the session, with mu held. A change
// after the last commit is lost, and is logged even without a call of Save.
func (s *session) changing() {
	if s.phase != phaseOver {
		return
	}
	s.m.count.late.Add(1)
	s.m.log.Report(slog.LevelError, "a change of a session was lost, because it came too late: change the session before the handler returns",
		slog.String("session", s.identity().ID.String()), slog.Any("error", s.late))
}

// keepOnlyLogout drops every change except a Logout, for an error response.
func (s *session) keepOnlyLogout() {
	leaving := s.ending != nil && !s.ending.carry
	s.discard()
	if leaving {
		s.logout()
	}
}

// pending reports whether there are changes to commit.
func (s *session) pending() bool {
	return s.ending != nil || s.login != nil || s.link != "" || !s.draft.Empty()
}

// setsCookies reports whether the response can still set cookies.
func (s *session) setsCookies() bool {
	return s.phase == phaseOpen
}

// commit saves the pending changes. If it fails, they stay pending.
func (s *session) commit(ctx context.Context, mode commitMode) error {
	if s.failed != nil {
		return s.failed
	}
	chores := mode == commitAnswer && s.choresDue()
	if !s.pending() && !chores {
		return nil
	}
	if s.phase == phaseOpen && (s.login != nil || !s.draft.Empty()) && errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		// After the deadline, http.TimeoutHandler and the like have sent a response.
		return fmt.Errorf("%w: %w", ErrTooLate, context.DeadlineExceeded)
	}
	if err := s.m.begin(); err != nil {
		if !s.pending() {
			return nil
		}
		return err
	}
	defer s.m.done()
	// The handler's changes are saved even if the client has disconnected.
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

// keep applies the pending Logout, login, and changes, in that order. With
// chores, a request without changes also has something to save.
func (s *session) keep(ctx context.Context, chores bool) error {
	if s.ending != nil && !s.ending.carry && (s.setsCookies() || s.last.Where == rules.Stored) {
		var cancel context.CancelFunc
		ctx, cancel = s.m.stored.Bounded(ctx)
		defer cancel()
		if err := s.endLast(ctx); err != nil {
			return err
		}
		chores = false // they were for the session that has ended
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

// needsCookie reports whether the pending changes need a new cookie.
func (s *session) needsCookie() bool {
	return s.login != nil || s.draft.NeedsCookie() ||
		s.ending != nil || // of an inline session
		!s.draft.Empty() && s.base().Where != rules.Stored
}

// commitChanges saves changed values where the session will be.
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
		// The session has outgrown the cookie.
	}
	return s.commitToStore(ctx, now)
}

// commitToStore saves changed values in the store or, if they may be lost, in a
// cache.
func (s *session) commitToStore(ctx context.Context, now time.Time) error {
	if s.mayStayVolatile() {
		st, err := s.m.stored.SaveVolatile(ctx, s.change())
		if st != nil {
			s.keepStored(st, false)
			// The store was not read: the session may have ended.
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

// mayStayVolatile reports whether a cache may hold the changes: only Volatile
// values have changed, and the next request will read them.
func (s *session) mayStayVolatile() bool {
	st := s.last
	if st.Where != rules.Stored || s.jar.Token() || !s.m.stored.KeepsVolatile() || st.Mended || s.lost != 0 || s.presentDue ||
		s.draft.ChangesHeader() || s.activityDue(s.m.now()) {
		return false
	}
	told := wire.Floor{ID: st.ID, Version: st.Meta.Version, Volatile: true}
	return s.setsCookies() || s.jar.Floor() == told
}

// outgrown handles err, the result of the first save of a session from a
// cookie. If the session had been stored before, and has ended or changed
// since, then the cookie is no longer a valid credential.
func (s *session) outgrown(ctx context.Context, err error, now time.Time) error {
	var gone *stored.Gone
	ended := errors.As(err, &gone)
	switch {
	case !ended && !errors.Is(err, stored.ErrMovedOn):
		return err
	case ended && !s.loaded.After(gone.Ended):
		return ErrEnded // during this request
	case (!ended || gone.ToldOf(now)) && s.jar.Refuse(string(s.last.Identifier)):
		s.tellRefused()
		return errRefused
	case ended:
		// The visitor starts again.
		return s.commitAs(ctx, stored.Nothing)
	}
	// The values of the cookie become a session of their own.
	apart := *s.last
	apart.Who = stored.NewWho()
	return s.commitAs(ctx, &apart)
}

// commitAs saves the pending changes on top of a state other than the loaded
// one.
func (s *session) commitAs(ctx context.Context, from *stored.State) error {
	s.last, s.fresh = from, nil
	if err := s.draft.Rebase(&from.Rec); err != nil {
		return err
	}
	return s.commitStored(ctx)
}

// change describes the request's part of a commit.
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

// commitStored saves a session that is in the store or moves there.
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

// rotate records that the credential must be replaced, if it is still the
// loaded one.
func (s *session) rotate() {
	s.draft.Rotate(s.last.Rec.Header.Generation, s.m.limits.OldFor())
}
