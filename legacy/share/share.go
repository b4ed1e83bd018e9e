// Package share lets a Go application and an old one use the same sessions at
// the same time, in the old one's format: each sees the other's changes, logins
// and logouts.
//
//	old, err := webapp2.New(…)
//	shared, err := share.New(share.Config{Format: old})
//
//	session, err := shared.Open(ctx, r.Header) // needs only the request's header
//	var n int
//	err = session.Get("visits", &n)
//	session.Set("visits", n+1)
//	err = session.Save(ctx, w.Header())
//
// It needs no middleware, so it also works in gRPC interceptors and API
// servers. Call Save before the response's first byte.
//
// # What happens at once
//
// Save reads the session again, applies its changes to the current state, and
// writes the result only if that state has not changed meanwhile, where the
// store supports it: by memcache's compare-and-set, in a datastore or SQL
// transaction, by a script in Redis. So no change of concurrent Go requests is
// lost, and no change that the old application wrote before Save. The old
// applications do not check: one that reads the session before Save and writes
// it afterwards undoes Save's changes. For sessions in the cookie, the last
// response wins. Of memcache variables, only changed ones are written, one by
// one.
//
// The package has the limits of the old format: no revocation, no logout for a
// copied cookie, values that the visitor may read. Use it during a migration.
// Sessions of gaeutilities cannot be written, and so not be shared.
package share

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Config configures Sessions.
type Config struct {
	// Format is the old application's. Required.
	Format legacy.Format
	// Timeout bounds one Open and one Save. 0 = 5 seconds.
	Timeout time.Duration
}

// Sessions opens shared sessions. It is safe for concurrent use.
type Sessions struct {
	c     Config
	about legacy.About
}

// New checks the configuration.
func New(c Config) (*Sessions, error) {
	if c.Format == nil {
		return nil, errors.New("share: no Format")
	}
	if c.Timeout < 0 {
		return nil, errors.New("share: negative Timeout")
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	return &Sessions{c, c.Format.About()}, nil
}

// Session is one visitor's shared session during one request. It is safe for
// concurrent use.
type Session struct {
	*session // a pointer, which fmt does not follow
}

type session struct {
	of *Sessions

	mu      sync.Mutex
	in      http.Header // the request's cookies, with those that were set since
	loaded  *legacy.Session
	why     reason.Reason
	isNew   bool
	edits   []func(*legacy.Session) error
	renew   bool
	pending bool // something must be written
}

// Open returns the session for a request's header, or a new one if there is no
// acceptable session. It stores and sets nothing. The error wraps
//
//   - [sojourn.ErrUnavailable]: a store did not answer;
//   - [reason.ErrUnreadable]: there is a session, and it cannot be read. A new one
//     would take its place, so there is none; the old application may serve the
//     request. The error wraps the reason.
func (s *Sessions) Open(ctx context.Context, in http.Header) (*Session, error) {
	out := &Session{&session{of: s, in: http.Header{"Cookie": slices.Clone(in["Cookie"])}}}
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	if err := out.read(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// read loads the current session.
func (s *Session) read(ctx context.Context) error {
	found, err := s.of.c.Format.Read(ctx, s.in, time.Now())
	s.why = reason.Of(err)
	switch {
	case err == nil:
		s.loaded, s.isNew = found, false
	case reason.IsUnreadable(err):
		return unreadable(err)
	case s.why != "":
		s.loaded, s.isNew = &legacy.Session{Data: value.NewDict()}, true
	default:
		return fmt.Errorf("%w: %w", sojourn.ErrUnavailable, err)
	}
	return nil
}

func unreadable(err error) error {
	if errors.Is(err, reason.ErrUnreadable) {
		return err
	}
	return fmt.Errorf("%w: %w", reason.ErrUnreadable, err)
}

// IsNew reports whether the request had no acceptable session.
func (s *Session) IsNew() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isNew
}

// Refused returns why the request's session was not accepted: reason.Missing if
// there was none, "" if it was accepted.
func (s *Session) Refused() reason.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// User returns the logged-in user, if the format has one (webapp2's auth
// session); otherwise the user is one of the values.
func (s *Session) User() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded.User
}

// Get decodes the value of that name into the variable that into points to: a
// dictionary becomes a struct or a map, a number any type that it fits, a date
// a time.Time. If it returns [sojourn.ErrNoValue] or [sojourn.ErrBadValue], the
// variable is unchanged.
func (s *Session) Get(name string, into any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[string]any{}
	if v, ok := s.loaded.Data.Lookup(name); ok {
		values[name] = value.Plain(v)
	}
	return (&adopt.Session{Values: values}).Get(name, into)
}

// Value returns the value of that name as one of the types of package value, or
// nil.
func (s *Session) Value(name string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded.Data.Get(name)
}

// Has reports whether there is a value of that name.
func (s *Session) Has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.loaded.Data.Lookup(name)
	return ok
}

// Names returns the names of all values, in the session's own order.
func (s *Session) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for k := range s.loaded.Data.All() {
		if name, ok := value.TextOf(k); ok {
			out = append(out, name)
		}
	}
	return out
}

// Set changes a value. It accepts numbers, text, bytes, times, slices, maps and
// the types of package value; if the format cannot keep a value, Save returns
// an error.
func (s *Session) Set(name string, v any) error {
	v, err := s.of.convert(v)
	if err != nil {
		return err
	}
	return s.Edit(func(l *legacy.Session) error { l.Data.Set(name, v); return nil })
}

// convert returns v in the format's types.
func (s *Sessions) convert(v any) (any, error) {
	if s.about.GoTypes {
		return v, nil
	}
	out, err := value.Of(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sojourn.ErrBadValue, err)
	}
	return out, nil
}

// Update replaces a value by what f returns for it; nil stands for no value, in
// both directions. If another request has changed the session, Save calls f
// again with the newer value, so f must not have side effects.
func (s *Session) Update(name string, f func(old any) any) error {
	return s.Edit(func(l *legacy.Session) error {
		v := f(l.Data.Get(name))
		if v == nil {
			l.Data.Delete(name)
			return nil
		}
		v, err := s.of.convert(v)
		if err == nil {
			l.Data.Set(name, v)
		}
		return err
	})
}

// Delete removes a value, if there is one.
func (s *Session) Delete(name string) {
	_ = s.Edit(func(l *legacy.Session) error { l.Data.Delete(name); return nil })
}

// Clear removes all values.
func (s *Session) Clear() {
	_ = s.Edit(func(l *legacy.Session) error { l.Data = value.NewDict(); return nil })
}

// Edit changes the session by a function, such as one that hands out webapp2's
// flash messages. It is called now, and again by Save with the newest state, so
// it must only change its argument, and variables that the later call sets
// again. Edit returns its error; then do not call Save.
func (s *Session) Edit(f func(*legacy.Session) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.loaded
	next.Data = copyDict(s.loaded.Data)
	if err := f(&next); err != nil {
		return err
	}
	s.loaded = &next
	s.edits = append(s.edits, f)
	s.pending = true
	return nil
}

// copyDict copies a dictionary and its mutable values.
func copyDict(d *value.Dict) *value.Dict {
	out := d.Clone()
	for k, v := range d.All() {
		_ = out.SetKey(k, copyValue(v)) // it is a key
	}
	return out
}

func copyValue(v any) any {
	switch v := v.(type) {
	case *value.Dict:
		return copyDict(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = copyValue(v[i])
		}
		return out
	}
	return v
}

// Renew makes Save give the session a new identifier and end the old one. Call
// it at a login, because most of the old libraries do not. It has no effect for
// formats without identifiers.
func (s *Session) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew, s.pending = true, true
}

// Save writes the changes and puts the cookies into the response header out,
// with a Vary and a Cache-Control that keep shared caches from storing the
// response. Without a change it does nothing, except that it records a use if
// the format counts uses. After an error the changes are still pending; the
// error wraps
//
//   - [sojourn.ErrUnavailable]: a store did not answer, or too many others were
//     faster;
//   - [sojourn.ErrEnded]: the session ended in the meantime;
//   - [reason.ErrUnreadable]: it cannot be read any more, because of what the old
//     application has stored in the meantime;
//   - [sojourn.ErrTooLarge] or [sojourn.ErrBadValue]: the format cannot hold it.
func (s *Session) Save(ctx context.Context, out http.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if out != nil {
		defer limitCaches(out)
	}
	if !s.pending && (s.isNew || s.of.about.Idle == 0) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.of.c.Timeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		lines, err := s.write(legacy.Guarded(ctx))
		switch {
		case err == nil:
			s.edits, s.renew, s.pending = nil, false, false
			s.send(out, lines)
			return nil
		case errors.Is(err, legacy.ErrChanged) && sleep(ctx, rand.N(time.Millisecond<<min(attempt, 6))):
			continue
		case errors.Is(err, legacy.ErrTooLarge):
			return fmt.Errorf("%w: %w", sojourn.ErrTooLarge, err)
		case errors.Is(err, value.ErrUnsupported):
			return fmt.Errorf("%w: %w", sojourn.ErrBadValue, err)
		case errors.Is(err, reason.ErrUnreadable), errors.Is(err, sojourn.ErrEnded), errors.Is(err, sojourn.ErrUnavailable), errors.Is(err, sojourn.ErrBadValue):
			return err
		default:
			return fmt.Errorf("%w: %w", sojourn.ErrUnavailable, err)
		}
	}
}

// write applies the changes to the current session.
func (s *Session) write(ctx context.Context) ([]string, error) {
	now := time.Now()
	format := s.of.c.Format
	cur := &legacy.Session{Data: value.NewDict()}
	if !s.isNew {
		found, err := format.Read(ctx, s.in, now)
		switch why := reason.Of(err); {
		case err == nil:
			cur = found
		case reason.IsUnreadable(err):
			return nil, unreadable(err)
		case why == reason.NotFound && s.loaded.Data.Len() == 0:
			// Some formats keep no session without values.
		case why != "":
			return nil, fmt.Errorf("%w: %w", sojourn.ErrEnded, err)
		default:
			return nil, err
		}
	}
	before := *cur
	for _, f := range s.edits {
		if err := f(cur); err != nil {
			return nil, err
		}
	}
	if s.renew {
		cur = &legacy.Session{Data: cur.Data, User: cur.User, Path: cur.Path, Domain: cur.Domain}
	}
	lines, err := format.Write(ctx, cur, now)
	if err != nil {
		return nil, err
	}
	if s.renew && before.ID != "" {
		removed, err := format.End(ctx, &before)
		if err != nil {
			return nil, err
		}
		lines = append(removed, lines...) // the new cookie replaces the old one's removal
	}
	s.loaded, s.isNew, s.why = cur, false, ""
	return lines, nil
}

// End ends the session for both applications and removes its cookies. Later
// changes start a new session. The session is removed from the stores unless
// the error wraps [sojourn.ErrUnavailable]; the cookies are always removed. A
// copy of a cookie that holds the values itself stays valid for the old
// application.
func (s *Session) End(ctx context.Context, out http.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.of.c.Timeout)
	defer cancel()
	old := s.loaded
	s.edits, s.renew, s.pending = nil, false, false
	if s.isNew {
		s.loaded = &legacy.Session{Data: value.NewDict()}
		return nil
	}
	if out != nil {
		defer limitCaches(out)
	}
	lines, err := s.of.c.Format.End(ctx, old)
	s.loaded, s.isNew, s.why = &legacy.Session{Data: value.NewDict()}, true, reason.Missing
	s.send(out, lines)
	if err != nil {
		return fmt.Errorf("%w: %w", sojourn.ErrUnavailable, err)
	}
	return nil
}

// send puts cookies into a response header, and into the header that later
// Saves of this request read.
func (s *Session) send(out http.Header, lines []string) {
	if out == nil || len(lines) == 0 {
		return
	}
	all := cookies.Parse(s.in)
	for _, line := range lines {
		name, raw, removed := cookies.ParseSet(line)
		out["Set-Cookie"] = slices.DeleteFunc(out["Set-Cookie"], func(other string) bool {
			n, _, _ := cookies.ParseSet(other)
			return n == name
		})
		out["Set-Cookie"] = append(out["Set-Cookie"], line)
		all = slices.DeleteFunc(all, func(c cookies.Cookie) bool { return c.Name == name })
		if !removed {
			all = append(all, cookies.Cookie{Name: name, Raw: raw})
		}
	}
	pairs := make([]string, len(all))
	for i, c := range all {
		pairs[i] = c.Name + "=" + c.Raw
	}
	s.in = http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
