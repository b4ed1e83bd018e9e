package adoption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// link is the origin of an adopted session. The session keeps it until its end.
type link struct {
	_          struct{} `cbor:",toarray"`
	Source     string
	State      []byte // the data with which its format ends it
	Identifier []byte // of the session that it is adopted as
	Copied     []byte // of the session named by its credential alone; nil = the same
	Copies     bool
	Issued     int64 // ms
	Expires    int64 // ms
	Slides     int64 // ms: each use in the old application extends it by that
	// Idle and Lifetime are the application's own settings. A login restores
	// them: the limits of the legacy session do not apply to a new one.
	Idle, Lifetime int64
}

func (l link) encode() string {
	b, err := values.Encode(l)
	if err != nil {
		return "" // cannot happen: numbers and bytes
	}
	return string(b)
}

func linkOf(h *record.Header) (l link, ok bool) {
	if h.Legacy == "" {
		return link{}, false
	}
	err := values.Decode([]byte(h.Legacy), &l)
	return l, err == nil
}

// Carry copies the link of a session to the session of a login.
func Carry(to *record.Header, from *record.Header) {
	if l, ok := linkOf(from); ok {
		to.Legacy, to.Idle, to.Lifetime = from.Legacy, l.Idle, l.Lifetime
	}
}

// ComesBackUntil is until when an adopted session's legacy credential, in any
// form issued up to now, could be adopted again. Zero for other sessions.
func (a *Adoption) ComesBackUntil(h *record.Header, now time.Time) time.Time {
	l, ok := linkOf(h)
	if !ok {
		return time.Time{}
	}
	if l.Expires == 0 {
		return a.refusalsUntil(now)
	}
	until := record.Time(l.Expires)
	if l.Slides > 0 {
		// The old application may extend it again and again.
		until = rules.Later(until, a.refusalsUntil(now))
	} else if l.Issued > 0 {
		until = rules.Later(until, now.Add(time.Duration(l.Expires-l.Issued)*time.Millisecond))
	}
	if !a.Until.IsZero() && until.After(a.Until) {
		until = a.Until
	}
	return until
}

// refusalsUntil is until when to keep notes about sessions that do not expire.
// A manager that adopts nothing itself, such as the command's, does not know
// until when others adopt.
func (a *Adoption) refusalsUntil(now time.Time) time.Time {
	if !a.Until.IsZero() {
		return a.Until
	}
	return now.Add(rules.MaxAge)
}

func (a *Adoption) identity(old *adopt.Session) stored.Who {
	return a.identified("session", old.Source, string(old.Credential))
}

// heir is the identity of the session that continues the origin of a legacy
// copy.
func (a *Adoption) heir(of *origin) stored.Who {
	return a.identified("heir", "", string(of.Session[:])) // for every format
}

func (a *Adoption) identified(kind, source, what string) stored.Who {
	return stored.WhoIs(a.Identify(kind, source, what))
}

// mark is the row key of a note about a legacy format.
func (a *Adoption) mark(kind, source, what string) store.ID {
	return store.HashIdentifier(a.Identify(kind, source, what))
}

// BeforeEnd is called before a session ends by Logout or by another user's
// login: from then on no copy of its legacy cookie is adopted.
func (a *Adoption) BeforeEnd(ctx context.Context, last *stored.State) error {
	h := &last.Rec.Header
	l, ok := linkOf(h)
	if !ok {
		return nil
	}
	now := a.Now()
	if err := a.forgetFormer(ctx, last, l, now); err != nil {
		return err
	}
	if !l.Copies || h.User == "" {
		return nil
	}
	// The old application's clock may be ahead.
	return a.refuseIssued(ctx, l.Source, h.User, rules.Later(now, record.Time(l.Issued)), now)
}

// forgetFormer leaves a tombstone under the identifier from the adoption. A
// login may have changed the identifier since, or the session may never have
// had it, if a WriteBack wrote its legacy form.
func (a *Adoption) forgetFormer(ctx context.Context, last *stored.State, l link, now time.Time) error {
	id := store.HashIdentifier(l.Identifier)
	if len(l.Identifier) == 0 || id == last.ID {
		return nil
	}
	return a.Sessions.Forget(ctx, id, rules.Later(a.ComesBackUntil(&last.Rec.Header, now), now.Add(store.MinTombstone)))
}

// AfterEnd is called after the end of a session. It ends the session in its
// original library, and returns the cookies that remove it.
func (a *Adoption) AfterEnd(ctx context.Context, h *record.Header) (setCookie []string, err error) {
	l, ok := linkOf(h)
	from := a.format(l.Source)
	if !ok || from == nil {
		return nil, nil
	}
	setCookie, err = from.End(ctx, &adopt.Session{Source: l.Source, State: l.State, Copies: l.Copies})
	if err != nil {
		a.failed(ctx, l.Source, "a legacy session could not be ended", err)
		return setCookie, fmt.Errorf("%w: %w: %w", fault.Unavailable, errOutage, err)
	}
	a.count.of(l.Source).ended.Add(1)
	return setCookie, nil
}

// LinkedTo returns the sessions of a user that have a legacy form, for Evicted.
// It only calls the store if there can be any.
func (a *Adoption) LinkedTo(ctx context.Context, user string) map[store.ID]*stored.State {
	if len(a.From) == 0 && a.Back == nil {
		return nil
	}
	all, err := a.Sessions.ByUser(ctx, user)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			a.Log.Report(slog.LevelWarn, "sessions that may have a legacy form could not be listed", slog.Any("error", err))
		}
		return nil
	}
	linked := map[store.ID]*stored.State{}
	for _, one := range all {
		if !one.Damaged && one.Rec.Header.Legacy != "" {
			linked[one.ID] = one.State
		}
	}
	return linked
}

// Evicted is called after a session was ended to make room for a login of its
// user. The login stays valid, so a failure is only logged and counted.
func (a *Adoption) Evicted(ctx context.Context, last *stored.State) {
	h := &last.Rec.Header
	l, ok := linkOf(h)
	if !ok {
		return
	}
	now := a.Now()
	err := a.forgetFormer(ctx, last, l, now)
	if err == nil && l.Copies && l.Issued > 0 {
		// The user's other sessions that are not adopted yet are younger, or the next to end.
		err = a.refuseIssued(ctx, l.Source, h.User, record.Time(l.Issued), now)
	}
	if err != nil {
		a.Log.Report(slog.LevelWarn, "the legacy form of a session could not be refused", slog.String("format", l.Source), slog.Any("error", err))
	}
	_, _ = a.AfterEnd(ctx, h) // logged
}

// EvictedUntil is until when the tombstones of sessions that the limit of a
// user ends are kept. The limit does not know which of them were adopted.
func (a *Adoption) EvictedUntil(now time.Time) time.Time {
	until := now.Add(store.MinTombstone)
	if a.Keep && len(a.From) > 0 { // otherwise the note of the adoption exists
		until = rules.Later(until, a.refusalsUntil(now))
	}
	return until
}
