package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/adoption"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Adopt lets visitors keep their sessions of another library. If a request has
// a valid legacy session, but no live session of the manager, loading adopts
// it: Map turns it into a new session, once, on any replica. The new session
// lives no longer than the legacy session would have, and no longer than Config
// allows. After its end, the legacy session does not restore it. A refused
// legacy session is logged at debug level and counted in ops.AdoptStats. See
// docs/migrate/README.md for logins, logouts, and copied cookies.
type Adopt struct {
	// From are the formats to look for, in order: see package legacy/formats. The first
	// acceptable session is adopted. Required.
	From []adopt.Format
	// Map sets the values and flash messages of s, and may call Login (which leaves
	// Info.LoggedIn zero), SetExpiry, and Remember. It cannot save. If it returns an error
	// or sets nothing, nothing is adopted. Required.
	Map func(old *adopt.Session, s *Session) error
	// Until ends the adopting, but not adopted sessions. Zero = no end; required if the
	// sessions of a format never expire.
	Until time.Time
	// Keep leaves the legacy cookies in the browser, for an old application that still
	// serves some requests. If the idle timeout ends an adopted session, the legacy one
	// can be adopted again, up to Config.Lifetime after the first time.
	Keep        bool
	SkipOutages bool       // if the legacy store fails, the visitor is new; otherwise it is ErrUnavailable
	Back        *WriteBack // also write sessions in a legacy format, for a rollback; implies Keep
}

// WriteBack writes a session in a legacy format after each commit that changed
// it. A failure is logged and counted, and fails no request. A login creates a
// new legacy session. A legacy session that cannot be read is not overwritten.
type WriteBack struct {
	To adopt.Writer // add the format to Adopt.From to adopt such sessions as well
	// Values returns the complete content of the legacy session; nil = write nothing. It
	// must not change s. The manager adds "_sojourn" to mark its copies: one is adopted
	// again only if the idle timeout ended its session.
	Values func(s *Session) (map[string]any, error)
}

func (a *Adopt) check(c *Config, found *mistakes) {
	if c.Mode == CookieOnly {
		found.add(" needs a Store, which records that a session was adopted")
	}
	if len(a.From) == 0 {
		found.add(".From is empty")
	}
	if a.Map == nil {
		found.add(".Map is missing")
	}
	var names []string
	for i, f := range a.From {
		if f == nil {
			found.add(".From[%d] is nil", i)
			continue
		}
		name := f.Name()
		switch {
		case name == "":
			found.add(".From[%d] has no Name", i)
		case slices.Contains(names, name):
			found.add(".From has two formats with the Name %q", name)
		}
		names = append(names, name)
		if !f.Expires() && a.Until.IsZero() {
			found.add(".Until is missing: sessions of %q never expire, and the record of an ended one cannot be kept without limit", name)
		}
	}
	if b := a.Back; b != nil && (b.To == nil || b.Values == nil) {
		found.add(".Back needs both To and Values")
	}
}

// adopt looks for a legacy session in a request without one of the manager's.
func (s loader) adopt(ctx context.Context, now time.Time) error {
	m := s.m
	if s.jar.Token() || !m.adoption.Active(s.req.Header, now) || s.barred(true) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	found, err := m.adoption.Find(ctx, adoption.Visitor{
		Header: s.req.Header, Visit: s.visit(),
		Map: func(old *adopt.Session) (record.Record, error) { return m.mapLegacy(m, old, &s.req) },
	})
	for _, r := range found.Refused {
		if s.jar.Refuse(r.Credential) {
			s.outdated = r.Live
		}
	}
	s.jar.SetForeign(found.SetCookie)
	if err != nil || found.State == nil {
		return err
	}
	s.last, s.isNew = found.State, false
	if found.New {
		m.count.created.Add(1)
		m.tell(ctx, s.event(EventAdopted, found.State))
	}
	s.setReference(found.State, now)
	if m.caches {
		s.setFloor(found.State, now)
	}
	return nil
}

// newDraft returns a session that belongs to no request, as an argument of the
// application's functions.
func newDraft(m *core, st *stored.State) *Session {
	s := newSession(m)
	s.last, s.phase, s.isNew = st, phaseDraft, st.Where == rules.Nowhere
	s.draft.Start(&st.Rec)
	return s
}

var errMapPanicked = errors.New("sojourn: Adopt.Map panicked")

// adopting returns the options of a core's adoption. Without Config.Adopt, the
// adoption only recognizes sessions that another manager has adopted.
func adopting(a *Adopt) func(*core) adoption.Options {
	return func(m *core) adoption.Options {
		o := adoption.Options{
			Limits: &m.limits, Sessions: m.stored, Now: m.now, Log: m.log,
			Identify: func(kind, source, what string) []byte {
				return m.ring().Legacy(kind, wire.Scope(m.name, m.tenant), source, what)
			},
		}
		if a == nil {
			return o
		}
		o.From, o.Until, o.Keep, o.SkipOutages = a.From, a.Until, a.Keep, a.SkipOutages
		o.Limit = func(ctx context.Context, user string) (store.UserLimit, func(store.ID)) {
			// This is no new authentication: the login may be older than all others.
			return m.limitOf(ctx, user, true)
		}
		if b := a.Back; b != nil {
			o.Back = b.To
			o.Values = func(st *stored.State) (map[string]any, error) { return b.Values(newDraft(m, st)) }
		}
		return o
	}
}

// mapLegacy runs the application's function. A panic on the data of another
// library must not fail the request.
func mapLegacy(m *core, f func(*adopt.Session, *Session) error, old *adopt.Session, req *request.Info) (rec record.Record, err error) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("Adopt.Map panicked", slog.String("format", old.Source), slog.String("type", fmt.Sprintf("%T", p)))
			err = errMapPanicked
		}
	}()
	made := newDraft(m, stored.Nothing)
	made.req = *req
	if err := errors.Join(f(old, made), made.failed); err != nil {
		return rec, err
	}
	return made.draft.View().Clone(), nil
}

// endLegacy ends the legacy session that h came from, and expires its cookies.
func (s *session) endLegacy(ctx context.Context, h *record.Header) error {
	setCookie, err := s.m.adoption.AfterEnd(ctx, h)
	if s.setsCookies() {
		s.jar.SetForeign(setCookie)
	}
	return err
}

// writesBack reports whether the pending changes must also be written in a
// legacy format.
func (s *session) writesBack() bool { return s.m.adoption.Back != nil && s.pending() }

// writeBack writes the saved session in the legacy format. It never fails the
// request. fresh and before are as in [adoption.Adoption.WriteBack].
func (s *session) writeBack(ctx context.Context, fresh bool, before *record.Header) {
	if s.last.Where == rules.Nowhere {
		return
	}
	done := s.m.adoption.WriteBack(ctx, s.req.Header, s.last, fresh, before, s.setsCookies())
	if s.setsCookies() {
		s.jar.SetForeign(done.SetCookie)
	}
	// Another request may have ended the session meanwhile, and did not end the
	// legacy session that is written only now.
	if done.Linked {
		s.draft.SetLegacy(done.Link)
		if err := s.commitChanges(ctx); err != nil {
			s.discard()
			s.m.adoption.NotCopied(err)
			s.takeBack(ctx, done)
		}
	} else if s.last.Where == rules.Stored && s.m.adoption.Outlived(ctx, s.last.ID, done) {
		s.takeBack(ctx, done)
	}
}

// takeBack ends the legacy session that was just written.
func (s *session) takeBack(ctx context.Context, done adoption.Copied) {
	if setCookie := s.m.adoption.TakeBack(ctx, done); s.setsCookies() {
		s.jar.SetForeign(setCookie)
	}
}

func (a Adopt) text() string { return fmt.Sprintf("sojourn.Adopt(%d formats)", len(a.From)) }

func (a Adopt) Format(f fmt.State, _ rune) { printText(f, a.text()) }

func (a Adopt) LogValue() slog.Value { return slog.StringValue(a.text()) }

func (b WriteBack) text() string { return fmt.Sprintf("sojourn.WriteBack(%T)", b.To) }

func (b WriteBack) Format(f fmt.State, _ rune) { printText(f, b.text()) }

func (b WriteBack) LogValue() slog.Value { return slog.StringValue(b.text()) }
