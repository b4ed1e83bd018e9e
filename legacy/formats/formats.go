// Package formats adapts the formats of this module for Config.Adopt, by which
// a [sojourn.Manager] takes over live sessions of other libraries.
//
//	old, err := webapp2.New(webapp2.Config{Secret: secret, MaxAge: 30 * 24 * time.Hour})
//	…
//	sessions, err := sojourn.New(sojourn.Config{
//		Keys: keys, Store: db,
//		Adopt: &sojourn.Adopt{
//			From: []adopt.Format{formats.From(old)},
//			Map: func(old *adopt.Session, s *sojourn.Session) error { … },
//		},
//	})
package formats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// From returns a format for Adopt.From. In its sessions, Values come from
// value.PlainDict, and Native is the *legacy.Session. It panics if format is
// nil.
func From(format legacy.Known) adopt.Format { return newSource(format) }

// Writer returns a format for Adopt.Back.
func Writer(format legacy.Format) adopt.Writer {
	return &writer{newSource(format), format}
}

type source struct {
	legacy.Known
	about legacy.About
}

func newSource(format legacy.Known) *source { return &source{format, format.About()} }

func (s *source) Name() string  { return s.about.Name }
func (s *source) Expires() bool { return s.about.Expires }

// Find implements [adopt.Format].
func (s *source) Find(ctx context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	old, err := s.Read(ctx, in, now)
	switch why := reason.Of(err); {
	case err == nil:
		return s.describe(old), nil
	case why == reason.Missing:
		return nil, nil
	case reason.IsUnreadable(err):
		return nil, fmt.Errorf("%w: %w", adopt.ErrUnreadable, adopt.Refusal(why))
	case why != "":
		return nil, adopt.Refusal(why)
	}
	return nil, err
}

func (s *source) describe(old *legacy.Session) *adopt.Session {
	out := &adopt.Session{
		Values: value.PlainDict(old.Data), User: old.User, Credential: old.Credential, State: stateOf(old).text(),
		Issued: old.Began, Expires: old.Expires, Idle: s.about.Idle, Copies: old.Copies, Native: old,
	}
	if out.Issued.IsZero() && s.about.Idle == 0 {
		out.Issued = old.Issued
	}
	return out
}

// Forget implements [adopt.Format].
func (s *source) Forget(old *adopt.Session) []string {
	// Without an identifier only the cookies are removed.
	st := parse(old.State)
	fields, _ := s.Known.End(context.Background(), &legacy.Session{Cookies: st.Cookies, Path: st.Path, Domain: st.Domain})
	return fields
}

// End implements [adopt.Format].
func (s *source) End(ctx context.Context, old *adopt.Session) ([]string, error) {
	return s.Known.End(ctx, parse(old.State).session())
}

type writer struct {
	*source
	format legacy.Format
}

// Write implements [adopt.Writer].
func (w *writer) Write(ctx context.Context, old *adopt.Session, now time.Time) ([]string, error) {
	values, err := value.Of(old.Values)
	if err != nil {
		return nil, err
	}
	data := values.(*value.Dict)
	for attempt := 0; ; attempt++ {
		s, fields, err := w.write(legacy.Guarded(ctx), old, data, now)
		if err == nil {
			name := old.Source
			*old = *w.describe(s)
			old.Source = name
			return fields, nil
		}
		if !errors.Is(err, legacy.ErrChanged) || attempt == maxAttempts {
			return nil, err
		}
	}
}

// maxAttempts is how often a write is repeated after a concurrent change by the
// old application.
const maxAttempts = 5

// write replaces a stored session that can be read, or writes a missing one.
func (w *writer) write(ctx context.Context, old *adopt.Session, data *value.Dict, now time.Time) (*legacy.Session, []string, error) {
	s := parse(old.State).session()
	if loader, ok := w.format.(legacy.Loader); ok && s.ID != "" {
		there, err := loader.Load(ctx, s.ID, now)
		switch {
		case err == nil:
			there.Cookies = s.Cookies
			s = there
		case reason.IsUnreadable(err):
			return nil, nil, fmt.Errorf("%w: %w", adopt.ErrUnreadable, err)
		case reason.Of(err) == "":
			return nil, nil, err
		}
	}
	s.Data, s.User = data, old.User
	if s.ID == "" {
		s.Cookies = nil
	}
	fields, err := w.format.Write(ctx, s, now)
	return s, fields, err
}

// state is the part of a legacy session that the adopted session keeps.
type state struct {
	ID      string   `json:",omitempty"`
	Key     []byte   `json:",omitempty"`
	Cookies []string `json:",omitempty"`
	Path    string   `json:",omitempty"`
	Domain  string   `json:",omitempty"`
}

func stateOf(s *legacy.Session) state {
	st := state{ID: s.ID, Cookies: s.Cookies, Path: s.Path, Domain: s.Domain}
	if s.ID != "" && string(s.Credential) != s.ID {
		st.Key = s.Credential
	}
	return st
}

func (st state) text() []byte {
	b, err := json.Marshal(st)
	if err != nil {
		panic(err) // text and bytes
	}
	return b
}

func parse(text []byte) state {
	var st state
	if len(text) > 0 {
		_ = json.Unmarshal(text, &st) // text wrote it, and it was sealed
	}
	return st
}

func (st state) session() *legacy.Session {
	key := st.Key
	if len(key) == 0 {
		key = []byte(st.ID)
	}
	return &legacy.Session{
		ID: st.ID, Credential: key, Cookies: st.Cookies, Path: st.Path, Domain: st.Domain, Data: value.NewDict(),
	}
}

// Together returns one format for an application that keeps several sessions
// per visitor, such as webapp2's "auth" beside "session". The parts that are
// found are adopted as one session. For the user, and for values of the same
// name, the earlier format has precedence. The first part that is found
// identifies the session. A refused part is left out. The session expires with
// the first of its parts. Native is a []*adopt.Session of the parts. It panics
// if there are no formats.
func Together(name string, formats ...adopt.Format) adopt.Format {
	if len(formats) == 0 {
		panic("adopt: Together needs a format")
	}
	return &together{name, formats}
}

type together struct {
	name  string
	parts []adopt.Format
}

func (t *together) Name() string { return t.name }

func (t *together) Expires() bool {
	for _, p := range t.parts {
		if !p.Expires() {
			return false
		}
	}
	return true
}

func (t *together) Find(ctx context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	var out *adopt.Session
	var found []*adopt.Session
	var refused error
	states := make(map[string][]byte)
	for _, p := range t.parts {
		old, err := p.Find(ctx, in, now)
		var why adopt.Refusal
		switch {
		case errors.As(err, &why):
			if refused == nil || errors.Is(err, adopt.ErrUnreadable) && !errors.Is(refused, adopt.ErrUnreadable) {
				refused = err
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", p.Name(), err)
		case old == nil:
			continue
		}
		old.Source = p.Name()
		found = append(found, old)
		states[p.Name()] = old.State
		if out == nil {
			first := *old
			out = &first
			out.Values = map[string]any{}
		}
		for k, v := range old.Values {
			if _, taken := out.Values[k]; !taken {
				out.Values[k] = v
			}
		}
		out.User = cmp.Or(out.User, old.User)
		out.Copies = out.Copies || old.Copies
		if !old.Expires.IsZero() && (out.Expires.IsZero() || old.Expires.Before(out.Expires)) {
			out.Expires = old.Expires
		}
		if old.Idle > 0 && (out.Idle == 0 || old.Idle < out.Idle) {
			out.Idle = old.Idle
		}
		if old.Issued.IsZero() || old.Issued.Before(out.Issued) {
			out.Issued = old.Issued
		}
	}
	if out == nil {
		return nil, refused
	}
	b, err := json.Marshal(states)
	if err != nil {
		return nil, err
	}
	out.State, out.Native = b, found
	return out, nil
}

// each calls f with the parts of a session.
func (t *together) each(old *adopt.Session, f func(adopt.Format, *adopt.Session)) {
	var states map[string][]byte
	if json.Unmarshal(old.State, &states) != nil {
		return
	}
	for _, p := range t.parts {
		if st, ok := states[p.Name()]; ok {
			f(p, &adopt.Session{Source: p.Name(), State: st})
		}
	}
}

func (t *together) Forget(old *adopt.Session) (fields []string) {
	t.each(old, func(p adopt.Format, part *adopt.Session) {
		fields = append(fields, p.Forget(part)...)
	})
	return fields
}

func (t *together) End(ctx context.Context, old *adopt.Session) (fields []string, err error) {
	var errs []error
	t.each(old, func(p adopt.Format, part *adopt.Session) {
		f, err := p.End(ctx, part)
		fields, errs = append(fields, f...), append(errs, err)
	})
	return fields, errors.Join(errs...)
}
