package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// loader has the methods that load a session, before other code has it.
type loader struct{ *session }

// load finds the session of the request.
func (s loader) load(ctx context.Context) error {
	m := s.m
	if err := m.begin(); err != nil {
		return err
	}
	defer m.done()
	now := m.now()
	s.last, s.isNew, s.loaded = stored.Nothing, true, now
	s.background = request.DeclaresBackground(s.req.Header)

	a := m.cookies.Read(s.req.Header, now)
	s.jar = a.Jar
	for _, r := range a.Rejected {
		s.rejected(r)
	}
	st, err := s.choose(ctx, &a, now)
	if err != nil {
		return err
	}
	switch {
	case st != nil:
		s.last, s.isNew = st, false
	case a.HasInline:
		s.last, s.isNew = inlineState(&a.Inline), false
		if s.jar.HasMarks() {
			s.jar.Knows(string(s.last.Identifier))
		}
	}
	if s.last.Where == rules.Nowhere {
		if err := s.adopt(ctx, now); err != nil {
			return err
		}
	}
	s.brought = s.last.ID
	s.draft.Start(&s.last.Rec)
	return nil
}

// inlineState is the state of a session in the cookie.
func inlineState(in *cookies.Inline) *stored.State {
	return &stored.State{
		Where: rules.Inline, Who: stored.WhoIs(in.Rec.Header.Identifier), Rec: in.Rec, Size: in.Size, Mended: in.Mended,
	}
}

// choose returns the first live session of the references, or nil. It skips
// only sessions that have ended and credentials that are no longer valid; other
// errors are returned.
func (s loader) choose(ctx context.Context, a *cookies.Arrival, now time.Time) (chosen *stored.State, err error) {
	refused := a.Foreign
	for i := range a.References {
		ref := &a.References[i]
		if chosen != nil || i >= cookies.MostLoads {
			s.others = append(s.others, ref.Reference)
			continue
		}
		who := stored.WhoIs(ref.Identifier)
		st, err := s.loadStored(ctx, who, ref.Generation, a.Floor(who.ID), now)
		switch {
		case err == nil:
			chosen = st
			s.jar.Choose(ref)
		case errors.Is(err, errRefused):
			refused = append(refused, ref.Value)
			s.outdated = s.outdated || errors.Is(err, errOutdated)
		case !errors.Is(err, stored.ErrGone):
			return nil, err
		}
	}
	if chosen != nil || len(refused) > 0 && !s.jar.Refuse(refused...) {
		s.outdated = false
	}
	return chosen, nil
}

// rejected counts and logs a cookie that is not used. The response never has
// the reason.
func (s loader) rejected(r cookies.Rejected) {
	m, err := s.m, r.Err
	m.count.rejected.Add(1)
	if errors.Is(err, seal.ErrUnknownKey) {
		m.count.unknownKeys.Add(1)
		m.log.ReportMany(slog.LevelWarn, "session cookies were sealed with keys that this process does not have; "+
			"all replicas need the same keys, so compare their key files (sojourn keys list), and keep retired keys for as long as sessions last",
			slog.String("name", m.name))
	}
	m.log.Debug("session cookie rejected", slog.String("cookie", r.Kind), slog.Any("error", err))
	if m.events != nil {
		e := s.event(EventCookieRejected, nil)
		e.Reason = rejectReason(err)
		m.tell(s.context(), e)
	}
}

// rejectReason returns the reason in one word.
func rejectReason(err error) string {
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return "unknown_key"
	case errors.Is(err, ErrExpired):
		return "expired"
	default:
		return "damaged"
	}
}

// errRefused means that a request's credential is not valid, although the browser may
// have a newer one. The response must not replace that one, so only Login sets a
// reference.
var (
	errRefused  = fmt.Errorf("%w: the request's credential is no longer valid", ErrEnded)
	errOutdated = fmt.Errorf("%w: the session has a newer one", errRefused) // the session is live
)

// loadStored loads the session of a reference with that generation from the
// store. The error is stored.ErrGone if the session has ended, errRefused if
// the reference is no longer valid, and errOutdated, which wraps errRefused, if
// the session is live.
func (s loader) loadStored(ctx context.Context, who stored.Who, generation uint64, seen wire.Floor, now time.Time) (*stored.State, error) {
	m := s.m
	minimum := seen.Version
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	st, err := m.stored.Load(ctx, who, minimum)
	switch {
	case errors.Is(err, stored.ErrGone):
		return nil, s.goneReference(ctx, err, who.ID, now)
	case err != nil:
		return nil, err
	}
	h := &st.Rec.Header
	switch worth := m.limits.Judge(generation, h, now); worth {
	case rules.Newest:
		s.presentDue = h.Generation > 0 && h.Presented == 0
		s.rotateDue = m.limits.RotationDue(h, now) && s.mayRotate()
	case rules.Previous: // a slower request of the same visitor gets the newest credential
	case rules.Ahead:
		observer{m}.LostWrites(who.ID) // the store has lost the rotation
	default:
		m.count.staleRefs.Add(1)
		s.refuseOutdated(ctx, st, worth)
		return nil, errOutdated
	}
	if minimum > st.Meta.Version {
		observer{m}.LostWrites(who.ID)
		s.lost = minimum
	} else if minimum > 0 && seen.Volatile {
		st = m.stored.WithVolatile(ctx, st)
	}
	return st, nil
}

// goneReference records that the session of a reference has ended, and returns
// stored.ErrGone. It returns errRefused if a login or a logout has just ended
// the session: its response may have replaced the browser's cookie. After any
// other end, there is no newer cookie to protect.
func (s loader) goneReference(ctx context.Context, err error, id store.ID, now time.Time) error {
	m := s.m
	m.count.staleRefs.Add(1)
	m.log.Debug("reference to a session that has ended", slog.String("session", id.String()))
	var gone *stored.Gone
	if !errors.As(err, &gone) {
		return stored.ErrGone
	}
	if gone.Expired && m.expired.first(id) {
		m.tell(ctx, s.event(EventExpired, &stored.State{Who: stored.Who{ID: id}}))
	}
	if gone.ToldOf(now) {
		return errRefused
	}
	return stored.ErrGone
}

// refuseOutdated reports a credential that was replaced too long ago.
func (s loader) refuseOutdated(ctx context.Context, st *stored.State, worth rules.Credential) {
	m := s.m
	if worth != rules.Suspicious {
		m.log.Debug("an outdated session credential was refused", slog.String("session", st.ID.String()))
		return
	}
	m.count.thefts.Add(1)
	m.log.Warn("an outdated session credential was used: the cookie may have been copied",
		slog.String("session", st.ID.String()))
	m.tell(ctx, s.event(EventTheftSuspected, st))
	if !m.endOnTheft {
		m.stored.Suspect(ctx, st)
		return
	}
	if err := m.revoke(ctx, st, ReasonTheft); err != nil {
		m.log.Error("could not end a session whose credential was copied",
			slog.String("session", st.ID.String()), slog.Any("error", err))
	}
}

// barred returns why this request must not set a cookie, except by a login, or
// nil. The browser may have a better cookie that the request does not have: a
// new reference would replace it. A session in the cookie is used only without
// a live stored session, so it must not be saved if the outdated credential
// belongs to one.
func (s *session) barred(reference bool) error {
	switch {
	case s.outdated, reference && s.jar.Refused():
		return errRefused
	case !s.jar.Brought && request.Withheld(&s.req, s.m.cookie.SameSite):
		return ErrCrossSite
	default:
		return nil
	}
}

// tellRefused marks in a cookie that the browser's credential was refused.
func (s *session) tellRefused() {
	if !s.jar.Refused() || s.phase == phaseBody || s.phase == phaseOver {
		return
	}
	if s.last.Where == rules.Inline {
		h := &s.last.Rec.Header
		s.jar.TellRefused(&s.last.Rec, s.m.limits.CookieAge(h, record.Time(h.Expires), s.m.now()))
		return
	}
	age := s.m.limits.Lifetime
	switch {
	case s.m.cookie.BrowserSession:
		age = 0
	case age < 0:
		age = rules.MaxAge
	}
	s.jar.TellRefused(nil, age)
}

// endOthers ends the other sessions of the request's cookies: a login or a
// logout applies to the whole browser.
func (s *session) endOthers(ctx context.Context) error {
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

// visit returns the request's data about its visitor.
func (s *session) visit() stored.Visit {
	return stored.Visit{UserAgent: strings.Clone(request.UserAgent(s.req.Header)), IP: strings.Clone(request.Peer(&s.req))}
}

// seen reports whether a person will see the response, as far as is known.
// Otherwise flash messages, and cookies that must reach the browser, wait for
// another response.
func (s *session) seen() bool {
	return !s.background && !s.unshown && s.req.Method != http.MethodHead && !request.Speculative(s.req.Header)
}

// mayRotate reports whether the browser will surely store the response's
// cookies. Upgrades, event streams, and responses that no person sees may not
// be stored.
func (s *session) mayRotate() bool {
	return s.seen() && s.req.Header.Get("Upgrade") == "" && !request.AsksForEvents(s.req.Header)
}
