package sitetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
)

// OldApp is another library's sessions: a cookie "old" with an identifier, and
// the session for it.
type OldApp struct {
	Mu       sync.Mutex
	Sessions map[string]adopt.Session
	Finds    int
	Ended    []string
	Written  int
	Unending bool // sessions never expire
	Copies   bool // the cookies hold the sessions, and change with each
	Lasts    time.Duration
	Err      error // returned by everything while set
	OnFind   func()
}

// Name implements [adopt.Format].
func (o *OldApp) Name() string { return "old" }

// Expires implements [adopt.Format].
func (o *OldApp) Expires() bool { return !o.Unending }

// OldID returns the identifier that a request brings, "" if none.
func OldID(in http.Header) string {
	for _, line := range in["Cookie"] {
		for pair := range strings.SplitSeq(line, "; ") {
			if id, ok := strings.CutPrefix(pair, "old="); ok {
				return id
			}
		}
	}
	return ""
}

// Find implements [adopt.Format].
func (o *OldApp) Find(_ context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	id := OldID(in)
	if id == "" {
		return nil, nil
	}
	if o.OnFind != nil {
		o.OnFind()
	}
	o.Mu.Lock()
	defer o.Mu.Unlock()
	o.Finds++
	if o.Err != nil {
		return nil, o.Err
	}
	s, ok := o.Sessions[id]
	if !ok {
		return nil, fmt.Errorf("old session: %w", adopt.Refusal("not_found"))
	}
	if !s.Expires.IsZero() && now.After(s.Expires) {
		return nil, adopt.Refusal("expired")
	}
	s.Credential, s.State = []byte(id), []byte(id)
	return &s, nil
}

// Forget implements [adopt.Format].
func (o *OldApp) Forget(*adopt.Session) []string { return []string{"old=; Max-Age=0; Path=/"} }

// End implements [adopt.Format].
func (o *OldApp) End(_ context.Context, old *adopt.Session) ([]string, error) {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	o.Ended = append(o.Ended, string(old.State))
	if o.Err == nil {
		delete(o.Sessions, string(old.State))
	}
	return o.Forget(old), o.Err
}

// Write implements [adopt.Writer].
func (o *OldApp) Write(_ context.Context, old *adopt.Session, now time.Time) ([]string, error) {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	if o.Err != nil {
		return nil, o.Err
	}
	id := string(old.State)
	if id == "" || o.Copies {
		id = fmt.Sprintf("written-%d", len(o.Sessions)+len(o.Ended))
	}
	o.Written++
	old.Credential, old.State, old.Copies = []byte(id), []byte(id), o.Copies
	old.Issued, old.Expires = now, now.Add(cmp.Or(o.Lasts, 24*time.Hour))
	if o.Sessions == nil {
		o.Sessions = map[string]adopt.Session{}
	}
	o.Sessions[id] = *old
	return []string{"old=" + id + "; Path=/"}, nil
}

// Put adds a session, or replaces one.
func (o *OldApp) Put(id string, s adopt.Session) {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	if o.Sessions == nil {
		o.Sessions = map[string]adopt.Session{}
	}
	o.Sessions[id] = s
}

// Has reports whether there is a session with that identifier.
func (o *OldApp) Has(id string) bool {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	_, ok := o.Sessions[id]
	return ok
}

// MapOld is the application's mapping.
func MapOld(old *adopt.Session, s *sojourn.Session) error {
	var cart int
	if err := old.Get("cart", &cart); err == nil {
		CartKey.Set(s, cart)
	} else if !errors.Is(err, sojourn.ErrNoValue) {
		return err
	}
	if theme, ok := old.Values["theme"].(string); ok {
		ThemeKey.Set(s, theme)
	}
	var user string
	if old.Get("user", &user) == nil {
		s.Login(user)
	}
	if old.Values["panic"] != nil {
		panic("mapping")
	}
	return nil
}

// NewMove is a site that adopts the sessions of an old application.
func NewMove(t *testing.T, edit ...func(*sojourn.Config)) (*Lab, *OldApp) {
	t.Helper()
	old := &OldApp{}
	all := append([]func(*sojourn.Config){func(c *sojourn.Config) {
		c.Adopt = &sojourn.Adopt{From: []adopt.Format{old}, Map: MapOld}
	}}, edit...)
	return NewLab(t, all...), old
}

// KeepOld is an edit of a configuration for [NewMove]: the old cookie stays.
func KeepOld(c *sojourn.Config) { c.Adopt.Keep = true }

// DayOld is a legacy session that lasts for a day.
func DayOld(values map[string]any) adopt.Session {
	now := time.Now()
	return adopt.Session{Values: values, Issued: now, Expires: now.Add(24 * time.Hour)}
}

// Anna returns the values of anna's session, with a cart of 3.
func Anna() map[string]any { return map[string]any{"user": "anna", "cart": int64(3)} }

// Bring returns a visitor with the legacy cookie.
func Bring(t *testing.T, id string) *Guest {
	v := NewGuest(t)
	v.Cookies["old"] = id
	return v
}

// Who returns the user and cart of v's session.
func (s *Lab) Who(v *Guest) (user string, cart int, isNew bool) {
	s.T.Helper()
	s.Do(v, func(session *sojourn.Session) {
		user, cart, isNew = session.User(), CartKey.Get(session), session.IsNew()
	})
	return user, cart, isNew
}
