// Package scs reads and writes the sessions of github.com/alexedwards/scs/v2
// with its default codec (gob) in any of its stores.
//
// Values keep their Go types, because the old application asserts them. The
// application's types must be registered with encoding/gob, as scs requires.
package scs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/internal/gobdata"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Store is the interface of scs's stores: pass the store that the old
// application uses (memstore, redisstore, goredisstore, postgresstore,
// pgxstore, sqlite3store …). Methods that take a context, such as FindCtx, are
// preferred, as in scs.
//
// For your own implementation: the redis stores keep the data under the key
// "scs:session:" + token; the SQL stores in a table sessions(token, data,
// expiry), where SQLite's expiry is a Julian day. Find returns found=false for
// a token that is unknown or past its expiry.
type Store interface {
	Find(token string) (b []byte, found bool, err error)
	Commit(token string, b []byte, expiry time.Time) error
	Delete(token string) error
}

type (
	finder interface {
		FindCtx(context.Context, string) ([]byte, bool, error)
	}
	committer interface {
		CommitCtx(context.Context, string, []byte, time.Time) error
	}
	deleter interface {
		DeleteCtx(context.Context, string) error
	}
)

// Config describes the old application's configuration.
type Config struct {
	Name  string // of the cookie; "session" if empty
	Store Store  // required
	// HashToken is HashTokenInStore: the store has only a token's SHA-256.
	HashToken bool
	// Lifetime is how long a new session lasts; 0 = 24 hours. Existing sessions
	// keep their deadline.
	Lifetime time.Duration
	// IdleTimeout ends sessions that are not committed for that long; 0 = none.
	IdleTimeout time.Duration
	// Cookie are the cookie's attributes. Persist also writes its expiry.
	Cookie  cookies.Attributes
	Persist bool
}

// Format reads and writes sessions. It is safe for concurrent use if its store
// is.
type Format struct{ c Config }

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	if c.Store == nil {
		return nil, errors.New("scs: no Store")
	}
	if c.Name == "" {
		c.Name = "session"
	}
	if c.Lifetime == 0 {
		c.Lifetime = 24 * time.Hour
	}
	if c.Lifetime < 0 || c.IdleTimeout < 0 {
		return nil, errors.New("scs: negative time")
	}
	return &Format{c}, nil
}

// record is the type that scs encodes.
type record struct {
	Deadline time.Time
	Values   map[string]any
}

// About implements legacy.Known. The store applies the idle timeout, which is
// not in Expires.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "scs " + f.c.Name, Expires: true, GoTypes: true}
}

// Read implements legacy.Reader. legacy.Session.Expires is the absolute
// deadline; the store applies the idle timeout.
func (f *Format) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	s, err := cookies.First(header, f.c.Name, func(value string) (*legacy.Session, error) { return f.read(ctx, value, now) })
	if err != nil {
		return nil, fmt.Errorf("scs session: %w", err)
	}
	return s, nil
}

func (f *Format) read(ctx context.Context, token string, now time.Time) (*legacy.Session, error) {
	if !validToken(token) {
		return nil, reason.Malformed
	}
	b, found, err := f.find(ctx, f.key(token))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if !found {
		return nil, reason.NotFound
	}
	var r record
	if err := gobdata.Decode(b, &r); err != nil {
		return nil, err
	}
	if now.After(r.Deadline) {
		return nil, reason.Expired
	}
	s := &legacy.Session{
		ID: token, Credential: []byte(token), Data: value.NewDict(),
		Expires: r.Deadline.UTC(), Cookies: []string{f.c.Name},
	}
	if began := s.Expires.Add(-f.c.Lifetime); !began.After(now) {
		s.Began = began
	}
	for k, v := range r.Values {
		s.Data.Set(k, v)
	}
	return s, nil
}

// Load implements legacy.Loader.
func (f *Format) Load(ctx context.Context, id string, now time.Time) (*legacy.Session, error) {
	s, err := f.read(ctx, id, now)
	if err != nil {
		return nil, fmt.Errorf("scs session: %w", err)
	}
	return s, nil
}

// validToken reports whether a token has the form of scs's: 32 bytes in base64.
// Others are never looked up.
func validToken(token string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return len(token) == 43 && strings.Trim(token, letters) == ""
}

// key is a token's key in the store.
func (f *Format) key(token string) string {
	if !f.c.HashToken {
		return token
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (f *Format) find(ctx context.Context, key string) ([]byte, bool, error) {
	if s, ok := f.c.Store.(finder); ok {
		return s.FindCtx(ctx, key)
	}
	return f.c.Store.Find(key)
}

// Write implements legacy.Writer. Keys must be text; values are stored with
// their Go types. The last writer wins.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	field, err := f.write(ctx, s, now)
	if err != nil {
		return nil, fmt.Errorf("scs session: %w", err)
	}
	return []string{field}, nil
}

func (f *Format) write(ctx context.Context, s *legacy.Session, now time.Time) (string, error) {
	token, deadline := s.ID, s.Expires
	if token == "" {
		token, deadline = newToken(), time.Time{}
	} else if !validToken(token) {
		return "", reason.BadSID
	}
	if deadline.IsZero() {
		deadline = now.Add(f.c.Lifetime)
	}
	r := record{Deadline: deadline.UTC(), Values: make(map[string]any, s.Data.Len())}
	for k, v := range s.Data.All() {
		name, ok := k.(string)
		if !ok {
			return "", fmt.Errorf("%w: a key that is not text", value.ErrUnsupported)
		}
		r.Values[name] = v
	}
	b, err := gobdata.Encode(r)
	if err != nil {
		return "", err
	}
	expiry := r.Deadline
	if idle := now.Add(f.c.IdleTimeout); f.c.IdleTimeout > 0 && idle.Before(expiry) {
		expiry = idle.UTC()
	}
	if c, ok := f.c.Store.(committer); ok {
		err = c.CommitCtx(ctx, f.key(token), b, expiry)
	} else {
		err = f.c.Store.Commit(f.key(token), b, expiry)
	}
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	s.ID, s.Credential, s.Expires, s.Cookies = token, []byte(token), r.Deadline, []string{f.c.Name}
	attributes := f.c.Cookie
	if f.c.Persist {
		attributes.Expires = expiry.Truncate(time.Second).Add(time.Second)
	}
	return cookies.Set(f.c.Name, token, attributes), nil
}

func newToken() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// End implements legacy.Ender.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	fields := []string{cookies.Expire(f.c.Name, f.c.Cookie)}
	if !validToken(s.ID) {
		return fields, nil
	}
	var err error
	if d, ok := f.c.Store.(deleter); ok {
		err = d.DeleteCtx(ctx, f.key(s.ID))
	} else {
		err = f.c.Store.Delete(f.key(s.ID))
	}
	if err != nil {
		return fields, fmt.Errorf("scs session: ending: %w", err)
	}
	return fields, nil
}
