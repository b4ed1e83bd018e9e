package sojourn

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/adoption"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Login makes this the session of user, under a fresh identifier. An anonymous
// visitor's values are kept; those of another user are dropped. The session
// before is ended: requests still under way with it get [ErrEnded]. The
// lifetime starts anew. An empty user fails the commit. With Config.Limit the
// user's oldest sessions beyond it are ended, or the commit fails with
// [ErrTooManySessions].
//
// Call it on every authentication, also of the same user (step-up): the values
// stay, Info.LoggedIn and Info.Methods are the new ones. methods says how the
// user authenticated: names without white space, such as "pwd", "otp" and
// "hwk" of RFC 8176.
func (s *Session) Login(user string, methods ...string) {
	s.lock()
	defer s.mu.Unlock()
	s.logIn(user, methods)
}

// LoginIf is Login and Save with check in between, for passwords, tokens and
// whatever else may be taken back while the user logs in. check runs before
// anything is done, and again once the new session and its entry in the user
// index are written. Only then is the session before ended and Config.Limit
// applied. So once a password has been changed and [Manager.RevokeUser] has
// returned, no login with the old one is left, however slow it was.
//
//	err := session.LoginIf(ctx, user.ID, func(ctx context.Context) error {
//		return passwords.Check(ctx, user.ID, r.FormValue("password"))
//	}, "pwd")
//
// check has to read the primary database, not a replica or a cache, and must not
// use the session. On an error, check's own or one of Save's, nobody is logged in
// and the session is as it was. With [CookieOnly] nothing can be revoked, and
// check runs once.
func (s *Session) LoginIf(ctx context.Context, user string, check func(context.Context) error, methods ...string) error {
	s.lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == phaseDraft:
		return errDraft
	case s.phase == phaseOver:
		return s.late
	case s.phase != phaseOpen:
		return errNeedsCookie
	case s.failed != nil:
		return s.failed
	}
	if err := s.check(ctx, check); err != nil {
		s.link = "" // it was this login's
		return err
	}
	kept, ending, login, fresh, before := s.draft.Clone(), s.ending, s.login, s.fresh, s.last
	s.logIn(user, methods)
	s.checks = func() error { return s.check(ctx, check) }
	done := false
	defer func() {
		s.checks = nil
		if !done { // check may have panicked
			if s.last != before { // a Logout before this was kept
				ending = nil
			}
			s.draft, s.ending, s.login, s.fresh, s.failed, s.link = kept, ending, login, fresh, nil, ""
		}
	}()
	if err := s.commit(ctx, commitSave); err != nil {
		return err
	}
	done = true
	s.keepAwake()
	return nil
}

// Link ties the login of this request to the session sid of an OpenID provider, so
// that [Manager.RevokeLinked] ends what this login becomes. issuer and sid are the
// claims iss and sid of the ID token: 1 to 255 bytes each. Call Link before Login or
// LoginIf, or after Login; the commit fails without one. A session has one link, the
// newest; it stays when the same user authenticates again.
//
// The commit fails with [ErrEnded] if the provider has ended sid already: its logout
// can overtake the login. The error is [ErrNoStore] with [CookieOnly].
//
// Source: OpenID Connect Back-Channel Logout 1.0.
func (s *Session) Link(issuer, sid string) {
	s.lock()
	defer s.mu.Unlock()
	switch {
	case min(len(issuer), len(sid)) == 0, max(len(issuer), len(sid)) > 255:
		s.failLater(fmt.Errorf("%w: Link: issuer and sid have 1 to 255 bytes", ErrBadValue))
		return
	case s.m.store == nil:
		s.failLater(ErrNoStore)
		return
	}
	s.changing()
	if s.link = s.m.stored.Link(issuer, sid); s.login != nil {
		s.login.Link, s.link = s.link, ""
	}
}

func (s *session) logIn(user string, methods []string) {
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
	if s.ending == nil && s.last.Where != rules.Nowhere {
		s.ending = &ending{carry: true}
	}
	view := s.draft.View()
	drop := view.Header.User != "" && view.Header.User != user
	if drop {
		s.draft.Clear()
	}
	now := s.m.now()
	s.login = &draft.Login{
		User:    user,
		Methods: strings.Join(methods, " "),
		At:      now,
		Created: now.UnixMilli(),
		Link:    s.link,
		Drop:    drop || s.login != nil && s.login.Drop,
	}
	s.link = ""
	if s.m.limit.Max > 0 {
		s.login.Created = s.m.logins.next(user, s.login.Created)
	}
	id := stored.NewWho()
	s.fresh = &id
	v := s.visit()
	h := s.login.Header(&view.Header, v.UserAgent, v.IP)
	if !s.login.Drop {
		adoption.Carry(&h, &view.Header)
	}
	s.draft.ShowLogin(h)
}

// Logout ends the session for good: a stored one leaves a tombstone, and the
// browser's cookies expire. What is set afterwards starts a new, anonymous
// session. A Logout before the first byte is kept even if the response is an
// error. A copy of a session in the cookie can bring its anonymous values
// back: use [ServerSide] where that matters.
func (s *Session) Logout() {
	s.lock()
	defer s.mu.Unlock()
	s.changing()
	s.logout()
}

func (s *session) logout() {
	switch {
	case s.last.Where == rules.Nowhere:
		s.ending = nil
	case s.ending == nil || s.ending.carry: // else there is nothing more to end
		s.ending = &ending{taken: s.draft.Taken()}
	}
	s.handed, s.login, s.fresh, s.failed, s.link = nil, nil, nil, nil, ""
	s.draft.Start(&stored.Nothing.Rec)
}

// Rotate gives the session a fresh credential: same session, handle and
// values, new cookie. The credential before stays good for Rotation.Grace
// after the new one was first used; until then the next Rotate hands out the
// same one again. To make an old credential worthless at once, use Login.
func (s *Session) Rotate() {
	s.lock()
	defer s.mu.Unlock()
	s.changing()
	s.rotate()
}

// commitLogin makes the session of the login and ends the one before.
func (s *session) commitLogin(ctx context.Context) error {
	m := s.m
	if m.mode == CookieOnly {
		return s.commitLoginInline()
	}
	ctx, cancel := m.stored.Bounded(ctx)
	defer cancel()
	before, other := s.last, s.login.Drop
	if other {
		if err := m.adoption.BeforeEnd(ctx, before); err != nil {
			return err
		}
	}
	st, err := m.stored.Move(ctx, s.move(ctx))
	if err != nil {
		id := stored.NewWho() // another try must not meet what is left of this one
		s.fresh = &id
		return err
	}
	if before.Where != rules.Nowhere {
		m.ends.Tell(before.ID, ErrEnded)
	}
	m.count.logins.Add(1)
	m.tell(ctx, s.event(EventLogin, st))
	s.countMove(ctx, st)
	s.keepStored(st, true)
	// A check may have taken long.
	ctx, cancel = m.stored.Bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.endOthers(ctx); err != nil {
		m.log.Warn("another session that a browser had could not be ended at its login", slog.Any("error", err))
	}
	if other {
		_ = s.endLegacy(ctx, &before.Rec.Header) // logged; the login stands
	}
	return nil
}

// move is what the store has to do for the pending login.
func (s *session) move(ctx context.Context) stored.Move {
	m := s.m
	mv := stored.Move{Change: s.change(), To: s.identity(), Login: s.login, Ends: s.ending != nil && s.ending.carry}
	mv.Who, mv.Visit, mv.Check = s.last.Who, s.visit(), s.checks
	if m.limit.Max > 0 {
		mv.Limit, mv.Evicted = m.limitOf(ctx, s.login.User, m.limit.Refuse)
		if mv.Ends && s.last.Rec.Header.User == s.login.User {
			mv.Limit.Replaces = s.last.ID
		}
	}
	return mv
}

// limitOf returns the limit of a user's sessions, and what is to be told of each
// session that it ends.
func (m *core) limitOf(ctx context.Context, user string, refuse bool) (store.UserLimit, func(store.ID)) {
	limit := store.UserLimit{Max: m.limit.Max, Refuse: refuse, Until: m.adoption.EvictedUntil(m.now())}
	var linked map[store.ID]*stored.State
	if limit.Max > 0 && !refuse {
		// What has ended does not tell any more where it came from.
		linked = m.adoption.LinkedTo(ctx, user)
	}
	return limit, func(id store.ID) {
		m.count.saves.Add(1)
		m.ended(ctx, id, user, ReasonLimit)
		if st := linked[id]; st != nil {
			m.adoption.Evicted(ctx, st)
		}
	}
}

func (s *session) commitLoginInline() error {
	now := s.m.now()
	r := s.draft.View().Clone()
	r.Expire(now.UnixMilli())
	r.Header.Counter = s.last.Rec.Header.Counter
	if _, err := s.m.limits.Place(rules.Nowhere, &r, now); err != nil {
		return err
	}
	in, err := s.m.cookies.Seal(r, s.identity().Identifier, wire.Mark{}, true, false, now)
	if err != nil {
		return err
	}
	s.m.count.logins.Add(1)
	s.m.tell(s.context(), s.event(EventLogin, inlineState(&in)))
	s.keepInline(&in, now)
	return nil
}

// countMove counts a session that is about to settle in the store.
func (s *session) countMove(ctx context.Context, st *stored.State) {
	switch s.last.Where {
	case rules.Nowhere:
		s.m.count.created.Add(1)
		s.m.tell(ctx, s.event(EventCreated, st))
	case rules.Inline:
		s.m.count.promoted.Add(1)
		s.m.tell(ctx, s.event(EventPromoted, st))
	}
}

// endLast keeps a Logout: it ends the session as it was loaded.
func (s *session) endLast(ctx context.Context) error {
	m := s.m
	before := s.last
	if err := m.adoption.BeforeEnd(ctx, before); err != nil {
		return err
	}
	if s.last.Where == rules.Stored {
		c := s.change()
		c.Who, c.Draft = s.last.Who, &s.ending.taken
		if err := m.stored.End(ctx, c); err != nil {
			return err
		}
		m.ends.Tell(s.last.ID, ErrEnded)
	}
	if err := s.endOthers(ctx); err != nil {
		return err
	}
	m.count.logouts.Add(1)
	m.tell(ctx, s.event(EventLogout, s.last))
	s.forget()
	s.last, s.ending = stored.Nothing, nil
	return s.endLegacy(ctx, &before.Rec.Header)
}

// Recent reports whether the user has authenticated (see [Session.Login])
// within the last maxAge. It is false for an anonymous visitor.
func (s *Session) Recent(maxAge time.Duration) bool {
	s.lock()
	defer s.mu.Unlock()
	h := &s.draft.View().Header
	if h.User == "" || h.AuthTime == 0 {
		return false
	}
	return s.m.now().Sub(record.Time(h.AuthTime)) <= maxAge
}

// Token commits, and returns the session's credential for a client that keeps it
// itself, such as a mobile app: the client sends it as "Authorization: Bearer
// sjn_…". Config.Bearer has to be set. A session has a cookie or a token, never
// both: Token gives one to a session that is new, that a Login of this request
// has just made (the browser's cookies expire then), or that came with a token.
// For any other it returns [ErrHasCookie].
//
// A request with a token neither reads nor sets cookies, is no cross-site request
// whoever sends it, and asks the store itself, not a cache. The session is always
// in the store. A renewed token (see [Rotation]) is in the response's field
// Sojourn-Token, and the client has to use it from then on; an empty one says
// that the session is over. Call Token before the first byte. Errors are those of
// Save, and [ErrNoValue] if the session holds nothing.
func (s *Session) Token(ctx context.Context) (string, error) {
	s.lock()
	defer s.mu.Unlock()
	switch {
	case !s.m.cookies.Bearer:
		return "", errNoBearer
	case s.phase == phaseDraft:
		return "", errDraft
	case s.phase == phaseOver:
		return "", s.late
	case s.phase != phaseOpen:
		return "", errNeedsCookie
	}
	undo := func() {}
	if !s.jar.Token() {
		// One that this request has stored has no cookie in the browser yet.
		made := s.last.Where == rules.Stored && s.last.ID != s.brought
		if s.login == nil && s.base().Where != rules.Nowhere && !made {
			return "", ErrHasCookie
		}
		before, useCookies := s.last, s.jar.UseToken()
		undo = func() {
			if useCookies(); s.last != before { // a Logout before this was kept
				s.forget()
			}
		}
	}
	if err := s.commit(ctx, commitSave); err != nil {
		undo()
		return "", err
	}
	if s.last.Where != rules.Stored {
		undo()
		return "", fmt.Errorf("%w: a session without values has no token", ErrNoValue)
	}
	if ref := referenceOf(s.last); !s.jar.Has(&ref) { // stored before it was to have a token
		s.setReference(s.last, s.m.now())
	}
	s.keepAwake()
	return s.jar.Issued()
}

// Strip removes the manager's cookies, former ones included, from the header
// of a request that goes upstream. Other cookies stay, in their order.
func (m *Manager) Strip(h http.Header) { m.cookies.Strip(h) }
