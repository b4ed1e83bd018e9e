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

// Login makes this the session of user and gives it a new identifier. An
// anonymous visitor's values are kept; those of another user are dropped. The
// previous session ends: requests that still use it get [ErrEnded]. The
// lifetime restarts. Beyond Config.Limit, the user's oldest sessions end, or
// the commit fails with [ErrTooManySessions]. An empty user fails the commit.
//
// Call Login on every authentication, also of the same user (step-up): it
// updates Info.LoggedIn and Info.Methods. methods are words of at most 64 bytes
// for how the user authenticated, such as "pwd" and "otp" of RFC 8176.
func (s *Session) Login(user string, methods ...string) {
	s.lock()
	defer s.mu.Unlock()
	s.logIn(user, methods)
}

// LoginIf is Login and Save with a check, for example of a password. It calls
// check before it does anything, and again after it has written the new session
// and its entry in the user index. Only then does it end the previous session
// and apply Config.Limit. So after a change of the password and
// [Manager.RevokeUser], no slow login with the old password remains.
//
//	err := session.LoginIf(ctx, user.ID, func(ctx context.Context) error {
//		return passwords.Check(ctx, user.ID, r.FormValue("password"))
//	}, "pwd")
//
// check must read the primary database, not a replica or a cache, and must not
// use the session. After an error of check or Save, the session is unchanged.
// With [CookieOnly], nothing can be revoked, and check runs once.
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
		s.link = "" // it belongs to this login
		return err
	}
	kept, ending, login, fresh, before := s.draft.Clone(), s.ending, s.login, s.fresh, s.last
	s.logIn(user, methods)
	s.checks = func() error { return s.check(ctx, check) }
	done := false
	defer func() {
		s.checks = nil
		if !done { // check may have panicked
			if s.last != before { // an earlier Logout was saved
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

// Link ties the login of this request to the session sid of an OpenID provider,
// for [Manager.RevokeLinked]. issuer and sid are the claims iss and sid of the
// ID token, 1 to 255 bytes each. Call it before Login or LoginIf, or after
// Login; without a login, the commit fails. A session has one link, the newest,
// and keeps it when its user authenticates again.
//
// The commit fails with [ErrEnded] if the provider has already ended sid, since
// its logout can overtake the login, and with [ErrNoStore] with [CookieOnly].
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
			s.failLater(fmt.Errorf("%w: Login with the method %.40q: use one word of at most 64 bytes", ErrBadValue, method))
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
		User:    strings.Clone(user), // servers such as Fiber reuse the memory of strings
		Methods: strings.Clone(strings.Join(methods, " ")),
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

// Logout ends the session for good: a stored session leaves a tombstone, and
// the browser's cookies expire. Values set afterwards start a new, anonymous
// session. A Logout before the first byte is saved even if the response is an
// error. A copied cookie can restore the anonymous values in it: use
// [ServerSide] where that matters.
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
	case s.ending == nil || s.ending.carry: // else a Logout is already pending
		s.ending = &ending{taken: s.draft.Taken()}
	}
	s.handed, s.login, s.fresh, s.failed, s.link = nil, nil, nil, nil, ""
	s.draft.Start(&stored.Nothing.Rec)
}

// Rotate gives the session a new credential; handle and values stay. The
// previous credential stays valid for Rotation.Grace after the first use of the
// new one. Until that first use, Rotate returns the same new credential again.
// To invalidate a credential at once, use Login.
func (s *Session) Rotate() {
	s.lock()
	defer s.mu.Unlock()
	s.changing()
	s.rotate()
}

// commitLogin saves the session of the login and ends the previous one.
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
		id := stored.NewWho() // a retry must not find the remains of this attempt
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
	// A new time limit, because check may have taken long.
	ctx, cancel = m.stored.Bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.endOthers(ctx); err != nil {
		m.log.Warn("could not end another session of the browser at its login", slog.Any("error", err))
	}
	if other {
		_ = s.endLegacy(ctx, &before.Rec.Header) // logged; the login stands
	}
	return nil
}

// move returns the change of the store for the pending login.
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

// limitOf returns the limit of a user's sessions, and a function to call for
// each session that the limit ends.
func (m *core) limitOf(ctx context.Context, user string, refuse bool) (store.UserLimit, func(store.ID)) {
	limit := store.UserLimit{Max: m.limit.Max, Refuse: refuse, Until: m.adoption.EvictedUntil(m.now())}
	var linked map[store.ID]*stored.State
	if limit.Max > 0 && !refuse {
		// Read now: a tombstone has no link to its legacy session.
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

// countMove counts a session that is about to move to the store.
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

// endLast saves a Logout: it ends the session that was loaded.
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

// Recent reports whether the user authenticated (see [Session.Login]) within
// the last maxAge. It is false for an anonymous visitor.
func (s *Session) Recent(maxAge time.Duration) bool {
	s.lock()
	defer s.mu.Unlock()
	h := &s.draft.View().Header
	if h.User == "" || h.AuthTime == 0 {
		return false
	}
	return s.m.now().Sub(record.Time(h.AuthTime)) <= maxAge
}

// Token commits and returns the session's credential for a client that stores
// it itself, such as a mobile app, and sends it as "Authorization: Bearer
// sjn_…". Config.Bearer must be set. A session has a cookie or a token: Token
// is for a new session, for one that a Login of this request has made (the
// browser's cookies then expire), and for one that has a token. For others it
// returns [ErrHasCookie]. Call it before the first byte. Errors are those of
// Save, and [ErrNoValue] for a session without values.
//
// A request with a token reads and sets no cookies, is never cross-site, and
// bypasses caches. Its session is always stored. A renewed token (see
// [Rotation]) is in the response header Sojourn-Token; the client must use it
// from then on. An empty one means that the session has ended.
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
		// If this request has stored the session, the browser has no cookie for it yet.
		made := s.last.Where == rules.Stored && s.last.ID != s.brought
		if s.login == nil && s.base().Where != rules.Nowhere && !made {
			return "", ErrHasCookie
		}
		before, useCookies := s.last, s.jar.UseToken()
		undo = func() {
			if useCookies(); s.last != before { // an earlier Logout was saved
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
	if ref := referenceOf(s.last); !s.jar.Has(&ref) { // it was stored before the call of Token
		s.setReference(s.last, s.m.now())
	}
	s.keepAwake()
	return s.jar.Issued()
}

// Strip removes the manager's cookies, also those of FormerCookies, from the
// header of a request to an upstream server. Other cookies keep their order.
func (m *Manager) Strip(h http.Header) { m.cookies.Strip(h) }
