// Package gaeutilities reads the sessions of gaeutilities (appengine-utilities)
// from the datastore, and optionally its unsigned data cookies.
//
// Server-side sessions are only read and ended, never written: every value is a
// separate entity, with copies of the Python objects in memcache.
//
// The package fixes security holes of gaeutilities: the token is always checked
// against the session's list (the Python code accepts any token if memcache has
// lost the session), a session's age includes whole days, and a cookie cannot
// replace the server's values unless configured.
package gaeutilities

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// The datastore kinds.
const (
	Kind     = "_AppEngineUtilities_Session"
	DataKind = "_AppEngineUtilities_SessionData"
)

const (
	// DefaultName is the default name of the cookie.
	DefaultName = "gaeutilities_session"
	dataSuffix  = "_data"
	flashName   = "appengine-utilities-flash"
)

// Datastore has the sessions.
type Datastore interface {
	// Session returns the entity with that key. It returns legacy.ErrNoEntry if
	// there is none.
	Session(ctx context.Context, key appengine.Key) (appengine.Entity, error)
	// Values returns the entities of kind [DataKind] whose property "session"
	// is that key.
	Values(ctx context.Context, session appengine.Key) ([]appengine.Entity, error)
	// Delete removes the session and all its values.
	Delete(ctx context.Context, session appengine.Key) error
}

// Config describes the old application's configuration.
type Config struct {
	Name       string        // cookie_name; DefaultName if empty
	ExpireTime time.Duration // session_expire_time: how long a session lasts after its last activity; 0 = 2 hours
	TokenTTL   time.Duration // session_token_ttl: when a request gets a new token; 0 = 5 s

	Datastore Datastore // required
	// Memcache is only used to delete an ended session, of which Python may
	// otherwise use a copy. nil = not used.
	Memcache appengine.Memcache

	// TrustDataCookie lets the visitor's unsigned data cookie add values to the
	// session and replace any that the server holds, as the Python code does.
	// Then anyone can become any user by editing a cookie.
	TrustDataCookie bool

	Cookie cookies.Attributes // attributes for removing cookies
}

// Sessions reads and ends server-side sessions. It is safe for concurrent use
// if its stores are.
type Sessions struct{ c Config }

var (
	_ legacy.Reader = (*Sessions)(nil)
	_ legacy.Ender  = (*Sessions)(nil)
)

// New checks the configuration.
func New(c Config) (*Sessions, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.ExpireTime == 0 {
		c.ExpireTime = 2 * time.Hour
	}
	if c.TokenTTL == 0 {
		c.TokenTTL = 5 * time.Second
	}
	if c.Datastore == nil {
		return nil, errors.New("gaeutilities: no Datastore")
	}
	if c.ExpireTime < 0 || c.TokenTTL < 0 {
		return nil, errors.New("gaeutilities: negative time")
	}
	return &Sessions{c}, nil
}

// Detail is the type of legacy.Session.Detail for sessions of this package.
type Detail struct {
	// Key is the session entity's key; it never changes.
	Key appengine.Key
	// Tokens are the valid tokens, oldest first. They are credentials.
	Tokens []string
	// RotationDue is true if the Python code would add a new token with this
	// request. Then legacy.Session.ID, the newest token, will change.
	RotationDue bool
	// Flash is the content of the flash cookie, nil if there is none. It is
	// unsigned, so the visitor can set it to anything.
	Flash any
	// FromCookie are the values of the unsigned data cookie if it is trusted;
	// nil otherwise.
	FromCookie *value.Dict
}

// About implements legacy.Known.
func (f *Sessions) About() legacy.About {
	return legacy.About{Name: "gaeutilities " + f.c.Name, Expires: true, Idle: f.c.ExpireTime}
}

// Read implements legacy.Reader.
func (f *Sessions) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	all := cookies.Parse(header)
	var first error
	for _, c := range cookies.Named(all, f.c.Name) {
		if c.Value == "" {
			continue
		}
		s, detail, err := f.open(ctx, c.Value, now)
		if err == nil {
			return f.complete(ctx, s, detail, all)
		}
		if reason.Of(err) == "" {
			return nil, fmt.Errorf("gaeutilities session: %w", err)
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = reason.Missing
	}
	return nil, fmt.Errorf("gaeutilities session: %w", first)
}

// open finds and checks the session entity of a token.
func (f *Sessions) open(ctx context.Context, token string, now time.Time) (*legacy.Session, *Detail, error) {
	// The key may contain underscores.
	split := strings.LastIndexByte(token, '_')
	if split < 0 {
		return nil, nil, reason.BadToken
	}
	key, err := appengine.ParseKey(token[:split])
	if err != nil || len(key.Path) != 1 || key.Path[0].Kind != Kind || key.Path[0].ID == 0 {
		return nil, nil, reason.BadToken
	}
	entity, err := f.c.Datastore.Session(ctx, key)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, nil, reason.NotFound
	}
	if err != nil {
		return nil, nil, fmt.Errorf("datastore: %w", err)
	}
	detail := &Detail{Key: key}
	list, _ := entity.Get("sid").([]any)
	known := 0
	for _, it := range list {
		if t, ok := it.(string); ok {
			detail.Tokens = append(detail.Tokens, t)
			known |= subtle.ConstantTimeCompare([]byte(t), []byte(token))
		}
	}
	if known == 0 {
		return nil, nil, reason.BadToken
	}
	if deleted, _ := entity.Get("deleted").(bool); deleted {
		return nil, nil, reason.NotFound
	}
	active, ok := entity.Get("last_activity").(time.Time)
	if !ok {
		return nil, nil, fmt.Errorf("%w: session without last_activity", reason.Decode)
	}
	if now.Sub(active).Truncate(time.Second) > f.c.ExpireTime {
		return nil, nil, reason.Expired
	}
	detail.RotationDue = active.Before(now.Add(-f.c.TokenTTL))
	return &legacy.Session{
		ID: detail.Tokens[len(detail.Tokens)-1], Credential: []byte(token[:split]),
		Issued: active.UTC(), Expires: active.Add(f.c.ExpireTime).UTC(),
		Cookies: []string{f.c.Name}, Detail: detail,
	}, detail, nil
}

// complete fetches the values and reads the other cookies.
func (f *Sessions) complete(ctx context.Context, s *legacy.Session, detail *Detail, all []cookies.Cookie) (*legacy.Session, error) {
	values, err := f.c.Datastore.Values(ctx, detail.Key)
	if err != nil {
		return nil, fmt.Errorf("gaeutilities session: datastore: %w", err)
	}
	s.Data = value.NewDict()
	for _, e := range values {
		name, ok := e.Get("keyname").(string)
		if deleted, _ := e.Get("deleted").(bool); deleted || !ok {
			continue
		}
		if blob, ok := e.Get("content").([]byte); ok && len(blob) > 0 {
			v, err := pickle.Decode(blob)
			if err != nil {
				return nil, fmt.Errorf("gaeutilities session: a value: %w", err)
			}
			s.Data.Set(name, v)
		} else if e.Get("model") != nil {
			s.Data.Set(name, value.Object{Class: value.EntityProto})
		}
	}
	if f.c.TrustDataCookie {
		if d, err := readDataCookie(all, f.c.Name+dataSuffix); err == nil {
			detail.FromCookie = d
			s.Cookies = append(s.Cookies, f.c.Name+dataSuffix)
			for k, v := range d.All() {
				_ = s.Data.SetKey(k, v) // text
			}
		}
	}
	if flash, ok := readFlash(all); ok {
		detail.Flash = flash
		s.Cookies = append(s.Cookies, flashName)
	}
	return s, nil
}

// readDataCookie reads the JSON object in an unsigned cookie.
func readDataCookie(all []cookies.Cookie, name string) (*value.Dict, error) {
	for _, c := range cookies.Named(all, name) {
		if c.Value == "" {
			continue
		}
		v, err := value.ParseJSON([]byte(c.Value))
		if err != nil {
			return nil, err
		}
		d, ok := v.(*value.Dict)
		if !ok {
			return nil, reason.NotObject
		}
		return d, nil
	}
	return nil, reason.Missing
}

func readFlash(all []cookies.Cookie) (any, bool) {
	for _, c := range cookies.Named(all, flashName) {
		v, err := value.ParseJSON([]byte(c.Value))
		return v, err == nil
	}
	return nil, false
}

// End implements legacy.Ender.
func (f *Sessions) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	names := s.Cookies
	if len(names) == 0 {
		names = []string{f.c.Name}
	}
	var fields []string
	for _, name := range names {
		fields = append(fields, cookies.Expire(name, f.c.Cookie))
	}
	if s.ID == "" {
		return fields, nil
	}
	key, err := appengine.ParseKey(string(s.Credential))
	if err != nil {
		return fields, errors.New("gaeutilities session: ending: not a session of this package")
	}
	errs := []error{f.c.Datastore.Delete(ctx, key)}
	if f.c.Memcache != nil {
		for _, kind := range []string{Kind, DataKind} {
			errs = append(errs, f.c.Memcache.Delete(ctx, appengine.MemcacheKey(kind+"_"+key.Encode())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fields, fmt.Errorf("gaeutilities session: ending: %w", err)
	}
	return fields, nil
}

// UnsignedCookie reads and writes the sessions of writer="cookie": JSON in a
// cookie without signature or encryption. Do not trust its values. It is for
// values that a visitor may choose, such as a theme.
type UnsignedCookie struct {
	name       string
	attributes cookies.Attributes
}

var _ legacy.Format = (*UnsignedCookie)(nil)

// NewUnsignedCookie returns the format for a cookie_name (DefaultName if empty;
// the cookie itself is called <name>_data) and the cookie's attributes.
func NewUnsignedCookie(name string, attributes cookies.Attributes) *UnsignedCookie {
	if name == "" {
		name = DefaultName
	}
	return &UnsignedCookie{name + dataSuffix, attributes}
}

// About implements legacy.Known.
func (f *UnsignedCookie) About() legacy.About { return legacy.About{Name: "gaeutilities " + f.name} }

// Read implements legacy.Reader. Its sessions never expire.
func (f *UnsignedCookie) Read(_ context.Context, header http.Header, _ time.Time) (*legacy.Session, error) {
	all := cookies.Parse(header)
	d, err := readDataCookie(all, f.name)
	if err != nil {
		return nil, fmt.Errorf("gaeutilities data cookie: %w", err)
	}
	s := &legacy.Session{Data: d, Cookies: []string{f.name}, Copies: true}
	for _, c := range cookies.Named(all, f.name) {
		s.Credential = []byte(c.Value)
		if c.Value != "" {
			break
		}
	}
	detail := &Detail{FromCookie: d}
	s.Detail = detail
	if flash, ok := readFlash(all); ok {
		detail.Flash = flash
		s.Cookies = append(s.Cookies, flashName)
	}
	return s, nil
}

// Write implements legacy.Writer. Keys must be text, and values must not be None.
func (f *UnsignedCookie) Write(_ context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	for k, v := range s.Data.All() {
		if _, ok := value.TextOf(k); !ok || v == nil {
			return nil, fmt.Errorf("gaeutilities data cookie: %w: None or a key that is not text", value.ErrUnsupported)
		}
	}
	text, err := value.PythonStyle().Marshal(s.Data)
	if err != nil {
		return nil, fmt.Errorf("gaeutilities data cookie: %w", err)
	}
	quoted := cookies.Quote(string(text))
	if n := len(f.name) + len(quoted); n > cookies.MaxSize {
		return nil, fmt.Errorf("gaeutilities data cookie: %w: %d bytes", legacy.ErrTooLarge, n)
	}
	s.Credential, s.Cookies, s.Copies = text, []string{f.name}, true
	return []string{cookies.Set(f.name, quoted, f.attributes.At(now))}, nil
}

// End implements legacy.Ender.
func (f *UnsignedCookie) End(context.Context, *legacy.Session) ([]string, error) {
	return []string{cookies.Expire(f.name, f.attributes)}, nil
}
