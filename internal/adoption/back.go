package adoption

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// A legacy session written by a WriteBack is a second credential of a session.
// One of its values names that session. So the end of the session need not find
// copies that the old application has made: adopting one checks the named
// session.

// originName is the name of that value.
const originName = "_sojourn"

// origin is the session from which a legacy one was copied.
type origin struct {
	_       struct{} `cbor:",toarray"`
	Session [len(store.ID{})]byte
	Created int64 // ms: the start of its lifetime
	Expires int64 // ms: its absolute end
	Idle    int64 // ms: its idle timeout; 0 = none
}

// originOf returns the origin for a session that was just saved.
func (a *Adoption) originOf(st *stored.State) origin {
	h := &st.Rec.Header
	return origin{
		Session: st.ID,
		Created: h.Created,
		Expires: a.Limits.LifetimeEnd(h).UnixMilli(),
		Idle:    a.Limits.IdleTimeout(h).Milliseconds(),
	}
}

// text returns the origin as a value that every format can keep.
func (o *origin) text() (string, error) {
	b, err := values.Encode(o)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// takeOrigin returns the origin that a legacy session names, and removes it
// from the values. It returns nil for a session that the old application made,
// and an error if the value is malformed.
func takeOrigin(old *adopt.Session) (*origin, error) {
	v, ok := old.Values[originName]
	if !ok {
		return nil, nil
	}
	old.Values = maps.Clone(old.Values) // the format may keep the map
	delete(old.Values, originName)
	text, ok := v.(string)
	if raw, is := v.([]byte); is { // some formats have no text
		text, ok = string(raw), true
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	var o origin
	if !ok || err != nil || values.Decode(b, &o) != nil {
		return nil, refusedUnmapped
	}
	return &o, nil
}

// checkOrigin returns why a legacy session that was copied from o must not be
// adopted: o is live, so its own cookie is the credential; o was ended or its
// lifetime is over; or neither application was used within the idle timeout.
func (a *Adoption) checkOrigin(ctx context.Context, o *origin, old *adopt.Session, now time.Time) error {
	if now.After(record.Time(o.Expires)) {
		return refusedExpired
	}
	st, err := a.Sessions.Ask(ctx, store.ID(o.Session), 0)
	switch {
	case errors.Is(err, store.ErrNotFound): // expired long ago, or never stored
	case errors.Is(err, stored.ErrDamaged): // it may have ended
		return refusedEnded
	case st == nil:
		return err
	case st.Meta.IsEnd() && stored.EndOf(&st.Meta).ToldOf(now):
		return errReplaced
	case st.Meta.IsEnd():
		return refusedEnded
	case !st.Meta.Expired(now):
		return errOutdated
	}
	if o.Idle > 0 && now.Sub(lastUsed(old)) > time.Duration(o.Idle)*time.Millisecond {
		return refusedSpent
	}
	return nil
}

// lastUsed is the last known use of a legacy session in the old application.
func lastUsed(old *adopt.Session) time.Time {
	if old.Idle > 0 && !old.Expires.IsZero() {
		return old.Expires.Add(-old.Idle)
	}
	return old.Issued
}

// Copied is the result of WriteBack.
type Copied struct {
	SetCookie []string // to be sent
	// Link must be kept with the session, if Linked is set.
	Link   string
	Linked bool

	state []byte // of the written session; nil = none was written
}

// WriteBack writes the legacy form of a session that was just saved. A failure
// is counted and logged. After a login fresh is true, so a new legacy session
// is made; before is the previous session's header. in is the request's header:
// an unreadable legacy session in it is not changed. Without cookies, WriteBack
// only writes a form that needs none.
func (a *Adoption) WriteBack(ctx context.Context, in http.Header, st *stored.State, fresh bool, before *record.Header, cookies bool) Copied {
	ctx, cancel := a.Sessions.Bounded(ctx)
	defer cancel()
	h := &st.Rec.Header
	l, ok := linkOf(h)
	reuse := ok && l.Source == a.Back.Name() && !fresh
	if !cookies && (!reuse || l.Copies) {
		return Copied{} // it requires a cookie
	}
	old, err := a.copyOf(st)
	if err != nil || old == nil {
		return a.notCopied(err)
	}
	if err := a.checkReadable(ctx, in); err != nil {
		return a.notCopied(err)
	}
	if reuse {
		old.State = l.State
	}
	setCookie, err := a.Back.Write(ctx, old, a.Now())
	if err != nil {
		return a.notCopied(err)
	}
	a.count.of(old.Source).written.Add(1)
	if fresh && !old.Copies {
		a.endCopy(ctx, before)
	}
	done := Copied{SetCookie: setCookie, state: old.State}
	if reuse && (old.Copies || string(old.State) == string(l.State)) {
		return done
	}
	next := link{
		Copied: l.Copied, Source: old.Source, State: old.State, Copies: old.Copies,
		Slides: old.Idle.Milliseconds(), Idle: h.Idle, Lifetime: h.Lifetime,
	}
	if !old.Copies {
		next.Identifier = a.identity(old).Identifier
		next.Issued, next.Expires = record.Millis(old.Issued), record.Millis(old.Expires)
	}
	done.Link, done.Linked = next.encode(), true
	return done
}

// Outlived reports whether a session has ended since WriteBack began, so that
// its end may have missed the copy.
func (a *Adoption) Outlived(ctx context.Context, id store.ID, c Copied) bool {
	if c.state == nil {
		return false
	}
	ctx, cancel := a.Sessions.Bounded(ctx)
	defer cancel()
	st, err := a.Sessions.Ask(ctx, id, 0)
	return errors.Is(err, store.ErrNotFound) || err == nil && st.Meta.IsEnd()
}

// TakeBack ends the copy that WriteBack has written, and returns the cookies that remove it.
func (a *Adoption) TakeBack(ctx context.Context, c Copied) (setCookie []string) {
	if c.state == nil {
		return nil
	}
	ctx, cancel := a.Sessions.Bounded(ctx)
	defer cancel()
	setCookie, err := a.Back.End(ctx, &adopt.Session{Source: a.Back.Name(), State: c.state})
	if err != nil {
		a.failed(ctx, a.Back.Name(), "a legacy session could not be ended", err)
	}
	return setCookie
}

// checkReadable returns an error if a request has a legacy session that could
// not be read but that the old application may accept: the copy's cookies would
// replace it.
func (a *Adoption) checkReadable(ctx context.Context, in http.Header) error {
	_, err := a.Back.Find(ctx, in, a.Now())
	var refused adopt.Refusal
	if errors.Is(err, adopt.ErrUnreadable) || err != nil && !errors.As(err, &refused) {
		return err
	}
	return nil
}

// copyOf returns the legacy session to write for a session; nil = none.
func (a *Adoption) copyOf(st *stored.State) (*adopt.Session, error) {
	content, err := a.Values(st)
	if err != nil || content == nil {
		return nil, err
	}
	content = maps.Clone(content)
	of := a.originOf(st)
	if content[originName], err = of.text(); err != nil {
		return nil, err
	}
	return &adopt.Session{Source: a.Back.Name(), Values: content, User: st.Rec.Header.User}, nil
}

// endCopy ends the legacy copy of the session before a login.
func (a *Adoption) endCopy(ctx context.Context, before *record.Header) {
	l, ok := linkOf(before)
	if !ok {
		return
	}
	if from := a.format(l.Source); from != nil {
		if _, err := from.End(ctx, &adopt.Session{Source: l.Source, State: l.State}); err != nil {
			a.NotCopied(err)
		}
	}
}

// NotCopied counts and logs that a session could not be written in its legacy
// form.
func (a *Adoption) NotCopied(err error) {
	name := a.Back.Name()
	a.count.of(name).writeErrors.Add(1)
	a.Log.Report(slog.LevelWarn, "a session could not be written in its legacy form", slog.String("format", name), slog.Any("error", err))
}

func (a *Adoption) notCopied(err error) Copied {
	if err != nil {
		a.NotCopied(err)
	}
	return Copied{}
}
