package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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

// loader is a session that is being loaded: what happens once, before anybody has
// it.
type loader struct{ *session }

// load finds the session that the request brings.
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
		if s.jar.HasMarks() { // else nothing to make a text for
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

// choose returns the first live session that the references lead to, or nil.
// Only a session that is definitely over, or a credential that is not good for
// it any more, is passed over.
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

// rejected counts and logs a cookie that is not used. Why it is not is of no
// use to whoever sent it, so the response never tells.
func (s loader) rejected(r cookies.Rejected) {
	m, err := s.m, r.Err
	m.count.rejected.Add(1)
	if errors.Is(err, seal.ErrUnknownKey) {
		m.count.unknownKeys.Add(1)
		m.log.ReportMany(slog.LevelWarn, "session cookies were sealed with keys that this process does not have; "+
			"all replicas need the same keys, so compare their key files (sojourn key list), and keep retired keys for as long as sessions last",
			slog.String("name", m.name))
	}
	m.log.Debug("session cookie rejected", slog.String("cookie", r.Kind), slog.Any("error", err))
	if m.events != nil {
		e := s.event(EventCookieRejected, nil)
		e.Reason = rejectReason(err)
		m.tell(s.context(), e)
	}
}

// rejectReason says in a word why a cookie is not used.
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

// errRefused says that a request's credential does not lead to its session,
// although a newer one in the same browser may. So the response must not take
// that one's place: only Login sets a reference then.
var (
	errRefused  = fmt.Errorf("%w: the request brought a credential that is not good any more", ErrEnded)
	errOutdated = fmt.Errorf("%w: the session has a newer one", errRefused)
)

// loadStored asks the store for the session that a reference of that generation
// names. The error is stored.ErrGone if that session is over, and errRefused if the
// reference is not good for it any more; errOutdated, which is one, if the session
// is live.
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
	case rules.Previous: // a slower request of the same visitor: it gets the newest credential
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

// goneReference notes that a reference leads to a session that is over, and
// returns stored.ErrGone, or errRefused if the browser may have its successor: a login
// or a logout ended it a moment ago, so its cookie may just have been replaced.
// Nobody has told the browser of any other end, so there is nothing to
// overwrite.
func (s loader) goneReference(ctx context.Context, err error, id store.ID, now time.Time) error {
	m := s.m
	m.count.staleRefs.Add(1)
	m.log.Debug("reference to a session that is over", slog.String("session", id.String()))
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
	m.log.Warn("an outdated session credential turned up: somebody may have copied the cookie",
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

// barred returns why this request must not keep anything in a cookie, except by
// a login, or nil: the browser may have a better cookie, which the request did
// not bring. A reference would take that one's place. Values in the cookie only
// matter as long as there is no live session, and one whose outdated credential
// came is alive.
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

// tellRefused lets the browser know that its credential was refused.
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

// endOthers ends the sessions that the request brought beside its own: whoever
// logs in or out does so in this browser, whatever cookies it has.
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

// visit is what the request says about its visitor.
func (s *session) visit() stored.Visit {
	return stored.Visit{UserAgent: request.UserAgent(s.req.Header), IP: request.Peer(&s.req)}
}

// seen reports whether the response to this request will be shown to a person,
// as far as that is known by now. What must be seen once, or must surely reach
// the browser, waits for another response otherwise.
func (s *session) seen() bool {
	return !s.background && !s.unshown && s.req.Method != http.MethodHead && !request.Speculative(s.req.Header)
}

// mayRotate reports whether the response of this request will surely leave its
// cookies in the browser, as far as that can be known: those of upgrades,
// event streams and of what nobody looks at may not.
func (s *session) mayRotate() bool {
	return s.seen() && s.req.Header.Get("Upgrade") == "" && !request.AsksForEvents(s.req.Header)
}
