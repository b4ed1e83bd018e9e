// Package gorilla reads and writes the sessions of github.com/gorilla/sessions:
// values in a securecookie, or in a file or Redis with only the identifier in
// the cookie.
//
// Values keep their Go types, because the old application asserts them: an int
// stays an int. The application's types must be registered with encoding/gob,
// as gorilla requires.
package gorilla

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/internal/gobdata"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Backend is where the values of a session are kept.
type Backend int

const (
	// CookieStore keeps them in the cookie.
	CookieStore Backend = iota
	// FilesystemStore keeps them in files, encoded like a cookie.
	FilesystemStore
	// RedisStore keeps them in Redis as redistore (boj/redistore) does.
	RedisStore
)

// KeyPair are the keys of one securecookie codec.
type KeyPair struct {
	Hash  []byte // signs; required
	Block []byte // encrypts with AES; 16, 24 or 32 bytes, or none
}

// Config describes the old application's configuration.
type Config struct {
	Name string // the session's and the cookie's name; part of the signature. Required
	// Keys are the pairs given to the store, in order: the first writes, all
	// read. Required.
	Keys []KeyPair
	// HashFunc signs; nil = SHA-256, securecookie's default.
	HashFunc func() hash.Hash
	// MaxAge is how old a cookie may be; the last second still counts. 0 = 30
	// days, gorilla's default, negative = any.
	MaxAge time.Duration
	// MaxLength is the longest encoded cookie or file, in bytes. 0 = 4096,
	// negative = any.
	MaxLength int
	// JSON means that the codecs have securecookie's JSONEncoder. It supports
	// only identifiers, not the values of a CookieStore or FilesystemStore.
	JSON bool

	Backend Backend
	// Store holds the sessions of FilesystemStore, by file name
	// ("session_<identifier>"), and of RedisStore, by key.
	Store legacy.Store
	// Prefix comes before the identifier in Redis; empty = "session_".
	Prefix string
	// JSONValues means that the values in Redis are JSON, not gob.
	JSONValues bool

	Cookie cookies.Attributes
}

// Format reads and writes the sessions of one name. It is safe for concurrent
// use if its store is.
type Format struct {
	c      *Config // a pointer, which fmt does not follow
	codecs []*codec
}

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	var errs []error
	fail := func(text string) { errs = append(errs, errors.New("gorilla: "+text)) }
	if c.Name == "" {
		fail("no Name")
	}
	if len(c.Keys) == 0 {
		fail("no Keys")
	}
	switch {
	case c.Backend < CookieStore || c.Backend > RedisStore:
		fail("unknown Backend")
	case c.Backend != CookieStore && c.Store == nil:
		fail("this Backend needs Store")
	}
	if c.JSON && c.Backend != RedisStore {
		fail("JSON codecs cannot hold this Backend's values")
	}
	if c.MaxAge == 0 {
		c.MaxAge = 30 * 24 * time.Hour
	}
	if c.MaxLength == 0 {
		c.MaxLength = 4096
	}
	if c.Prefix == "" || c.Backend == FilesystemStore {
		c.Prefix = "session_"
	}
	f := &Format{c: &c}
	for _, pair := range c.Keys {
		codec, err := newCodec(c, pair)
		if err != nil {
			errs = append(errs, err)
		}
		f.codecs = append(f.codecs, codec)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return f, nil
}

// About implements legacy.Known. Each save extends a session.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "gorilla " + f.c.Name, Expires: f.c.MaxAge > 0, GoTypes: !f.c.JSONValues}
}

// Read implements legacy.Reader. Of several cookies of the name, any that
// verifies is used.
func (f *Format) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	s, err := cookies.First(header, f.c.Name, func(value string) (*legacy.Session, error) { return f.read(ctx, value, now) })
	if err != nil {
		return nil, fmt.Errorf("gorilla session: %w", err)
	}
	return s, nil
}

func (f *Format) read(ctx context.Context, cookie string, now time.Time) (*legacy.Session, error) {
	payload, issued, err := f.open(cookie, now)
	if err != nil {
		return nil, err
	}
	s := &legacy.Session{
		Credential: []byte(f.c.Name + "|" + cookie), Issued: issued, Cookies: []string{f.c.Name}, Copies: f.c.Backend == CookieStore,
	}
	if f.c.MaxAge > 0 {
		s.Expires = issued.Add(f.c.MaxAge)
	}
	if f.c.Backend == CookieStore {
		s.Data, err = decodeGob(payload)
		return s, err
	}
	if s.ID, err = f.decodeID(payload); err != nil {
		return nil, err
	}
	s.Credential = []byte(s.ID)
	if !validID(s.ID) {
		return nil, fmt.Errorf("%w: %w", reason.ErrUnreadable, reason.BadSID)
	}
	s.Data, err = f.stored(ctx, s.ID, now)
	return s, err
}

// Load implements legacy.Loader.
func (f *Format) Load(ctx context.Context, id string, now time.Time) (*legacy.Session, error) {
	if f.c.Backend == CookieStore || !validID(id) {
		return nil, fmt.Errorf("gorilla session: %w", reason.NotFound)
	}
	data, err := f.stored(ctx, id, now)
	if err != nil {
		return nil, fmt.Errorf("gorilla session: %w", err)
	}
	return &legacy.Session{ID: id, Credential: []byte(id), Data: data, Cookies: []string{f.c.Name}}, nil
}

// stored reads the session with an identifier.
func (f *Format) stored(ctx context.Context, id string, now time.Time) (*value.Dict, error) {
	stored, err := f.c.Store.Get(ctx, f.c.Prefix+id)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, reason.NotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	values := stored.Value
	if f.c.Backend == FilesystemStore {
		values, _, err = f.open(string(values), now)
		switch {
		case errors.Is(err, reason.Expired):
			return nil, fmt.Errorf("stored file: %w", err)
		case err != nil: // maybe of another key, or longer than MaxLength
			return nil, fmt.Errorf("stored file: %w: %w", reason.ErrUnreadable, err)
		}
	}
	if f.c.JSONValues && f.c.Backend == RedisStore {
		return decodeJSON(values)
	}
	return decodeGob(values)
}

// validID reports whether an identifier is base32, like gorilla's. Others are
// never looked up, so an identifier cannot address anything else in a store.
func validID(id string) bool {
	return len(id) >= 8 && len(id) <= 128 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

func (f *Format) decodeID(payload []byte) (string, error) {
	var id string
	if !f.c.JSON {
		err := gobdata.Decode(payload, &id)
		return id, err
	}
	if err := json.Unmarshal(payload, &id); err != nil {
		return "", fmt.Errorf("%w: identifier", reason.Decode)
	}
	return id, nil
}

// decodeGob reads session.Values.
func decodeGob(b []byte) (*value.Dict, error) {
	var values map[any]any
	if err := gobdata.Decode(b, &values); err != nil {
		return nil, err
	}
	d := value.NewDict()
	for k, v := range values {
		if err := d.SetKey(k, v); err != nil {
			return nil, fmt.Errorf("%w: %w", reason.Decode, err)
		}
	}
	return d, nil
}

func decodeJSON(b []byte) (*value.Dict, error) {
	v, err := value.ParseJSON(b)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*value.Dict)
	if !ok {
		return nil, reason.NotObject
	}
	return d, nil
}

// Write implements legacy.Writer. Values are stored with their Go types. The
// last writer wins.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	field, err := f.write(ctx, s, now)
	if err != nil {
		return nil, fmt.Errorf("gorilla session: %w", err)
	}
	return []string{field}, nil
}

func (f *Format) write(ctx context.Context, s *legacy.Session, now time.Time) (string, error) {
	values, err := f.encodeValues(s.Data)
	if err != nil {
		return "", err
	}
	if f.c.Backend == CookieStore {
		cookie, err := f.seal(values, now)
		if err != nil {
			return "", err
		}
		if n := len(f.c.Name) + len(cookie); n > cookies.MaxSize {
			return "", fmt.Errorf("%w: cookie of %d bytes", legacy.ErrTooLarge, n)
		}
		f.written(s, "", []byte(f.c.Name+"|"+cookie), now)
		return cookies.Set(f.c.Name, cookie, f.c.Cookie.At(now)), nil
	}
	id := s.ID
	if id == "" {
		id = newID()
	} else if !validID(id) {
		return "", reason.BadSID
	}
	payload, err := f.encodeID(id)
	if err != nil {
		return "", err
	}
	cookie, err := f.seal(payload, now)
	if err != nil {
		return "", err
	}
	e := legacy.Entry{Value: values}
	if f.c.Backend == FilesystemStore {
		file, err := f.seal(values, now)
		if err != nil {
			return "", err
		}
		e.Value = []byte(file)
	} else if f.c.MaxAge > 0 {
		e.Expires = now.Add(f.c.MaxAge)
	}
	if err := f.c.Store.Set(ctx, f.c.Prefix+id, e); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	f.written(s, id, []byte(id), now)
	return cookies.Set(f.c.Name, cookie, f.c.Cookie.At(now)), nil
}

func (f *Format) written(s *legacy.Session, id string, credential []byte, now time.Time) {
	s.ID, s.Credential, s.Cookies, s.Copies = id, credential, []string{f.c.Name}, f.c.Backend == CookieStore
	s.Issued = now.UTC().Truncate(time.Second)
	if f.c.MaxAge > 0 {
		s.Expires = s.Issued.Add(f.c.MaxAge)
	}
}

func (f *Format) encodeValues(d *value.Dict) ([]byte, error) {
	if f.c.JSONValues && f.c.Backend == RedisStore {
		return value.JSON{}.Marshal(d)
	}
	values := make(map[any]any, d.Len())
	for k, v := range d.All() {
		if k != nil && !reflect.ValueOf(k).Comparable() {
			return nil, fmt.Errorf("%w: a key that is no key in Go", value.ErrUnsupported)
		}
		values[k] = v
	}
	return gobdata.Encode(values)
}

func (f *Format) encodeID(id string) ([]byte, error) {
	if f.c.JSON {
		return json.Marshal(id)
	}
	return gobdata.Encode(id)
}

func newID() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:])
}

// End implements legacy.Ender. The old application accepts a copy of a
// CookieStore's cookie until its MaxAge.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	fields := []string{cookies.Expire(f.c.Name, f.c.Cookie)}
	if f.c.Backend == CookieStore || !validID(s.ID) {
		return fields, nil
	}
	if err := f.c.Store.Delete(ctx, f.c.Prefix+s.ID); err != nil {
		return fields, fmt.Errorf("gorilla session: ending: %w", err)
	}
	return fields, nil
}
