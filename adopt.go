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

// Adopt lets visitors keep the sessions that another library gave them. A
// request that asks for its session, brings no live one of the manager, and
// brings a valid one of a legacy format has that one adopted as a part of the
// load: Map turns its values into a session of the manager's own, once, on any
// replica. It lives no longer than the legacy one would have, nor than Config
// allows; when it has ended, the legacy one does not bring it back. A legacy
// session that is refused is a new visitor, a debug log line and a count in
// ops.AdoptStats. docs/migrate/README.md says what holds for logins, logouts
// and copied cookies.
type Adopt struct {
	// From are the formats to look for, in order; the first that finds an
	// acceptable session wins. Package
	// github.com/sojourn-go/sojourn/legacy/formats makes them. Required.
	From []adopt.Format
	// Map fills a session from a legacy one: it sets values and flash messages,
	// and may call Login (which is no authentication: Info.LoggedIn is zero),
	// SetExpiry and Remember. It does not save. With an error, or if it sets
	// nothing, nothing is adopted. Required.
	Map func(old *adopt.Session, s *Session) error
	// Until is when adopting ends; it does not shorten adopted sessions.
	// Required if a format's sessions never expire. Zero = no end.
	Until time.Time
	// Keep leaves the legacy cookies in the browser, for an old application that
	// still answers some requests. A session that was idle for too long here is
	// then adopted again, up to Config.Lifetime since it first was.
	Keep bool
	// SkipOutages treats a visitor whose legacy session cannot be asked for as a
	// new one. Otherwise that is [ErrUnavailable].
	SkipOutages bool
	// Back also writes sessions in a legacy format, for a roll-back. It implies
	// Keep. nil = no.
	Back *WriteBack
}

// WriteBack writes each session in a legacy format, after each commit
// that changed something. A failure is logged and counted, and fails no
// request. A login gets a fresh legacy session. A legacy session that cannot be
// read is not written over.
type WriteBack struct {
	// To is the format to write. Its sessions are adopted only if it is among
	// Adopt.From as well.
	To adopt.Writer
	// Values returns the whole content of the legacy session; nil writes
	// nothing. It only reads from s. The manager adds the value "_sojourn", by
	// which it knows its own copies: one is adopted again only if its session
	// was merely idle here.
	Values func(s *Session) (map[string]any, error)
}

func (a *Adopt) check(c *Config, found *mistakes) {
	if c.Mode == CookieOnly {
		found.add(" needs a Store: adopting once, and for good, is kept there")
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
			found.add(".Until is missing: sessions of %q never expire, and a mark that one has ended cannot be kept for ever", name)
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

// newDraft returns a session that is not of a request, for the application's own
// functions.
func newDraft(m *core, st *stored.State) *Session {
	s := newSession(m)
	s.last, s.phase, s.isNew = st, phaseDraft, st.Where == rules.Nowhere
	s.draft.Start(&st.Rec)
	return s
}

var errMapPanicked = errors.New("sojourn: Adopt.Map panicked")

// adopting returns what the adoption of each core stands on. Without Config.Adopt,
// only sessions that another manager has adopted are known as such.
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
			// Nobody has authenticated, and the login may be older than all others.
			return m.limitOf(ctx, user, true)
		}
		if b := a.Back; b != nil {
			o.Back = b.To
			o.Values = func(st *stored.State) (map[string]any, error) { return b.Values(newDraft(m, st)) }
		}
		return o
	}
}

// mapLegacy runs the application's function. What another library's data make of
// it is not to fail requests.
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

// endLegacy ends a session in the library that it came from, and its cookies.
func (s *session) endLegacy(ctx context.Context, h *record.Header) error {
	setCookie, err := s.m.adoption.AfterEnd(ctx, h)
	if s.setsCookies() {
		s.jar.SetForeign(setCookie)
	}
	return err
}

// writesBack reports whether the pending changes must be written to a legacy
// format as well.
func (s *session) writesBack() bool { return s.m.adoption.Back != nil && s.pending() }

// writeBack writes the legacy form of the session as it was just kept. Nothing
// here fails a request. fresh and before are as in [adoption.Adoption.WriteBack].
func (s *session) writeBack(ctx context.Context, fresh bool, before *record.Header) {
	if s.last.Where == rules.Nowhere {
		return
	}
	done := s.m.adoption.WriteBack(ctx, s.req.Header, s.last, fresh, before, s.setsCookies())
	if s.setsCookies() {
		s.jar.SetForeign(done.SetCookie)
	}
	// The session may have ended in another request meanwhile, whose end could not
	// know of what is written only now.
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

// takeBack ends the legacy form that was just written.
func (s *session) takeBack(ctx context.Context, done adoption.Copied) {
	if setCookie := s.m.adoption.TakeBack(ctx, done); s.setsCookies() {
		s.jar.SetForeign(setCookie)
	}
}

func (a Adopt) text() string { return fmt.Sprintf("sojourn.Adopt(%d formats)", len(a.From)) }

// Format prints how many formats there are, whatever the verb.
func (a Adopt) Format(f fmt.State, _ rune) { printText(f, a.text()) }

// LogValue is what Format prints.
func (a Adopt) LogValue() slog.Value { return slog.StringValue(a.text()) }

func (b WriteBack) text() string { return fmt.Sprintf("sojourn.WriteBack(%T)", b.To) }

// Format prints the type of the format, whatever the verb.
func (b WriteBack) Format(f fmt.State, _ rune) { printText(f, b.text()) }

// LogValue is what Format prints.
func (b WriteBack) LogValue() slog.Value { return slog.StringValue(b.text()) }
