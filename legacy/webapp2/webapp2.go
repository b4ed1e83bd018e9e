// Package webapp2 reads and writes the sessions of webapp2_extras.sessions in
// webapp2 2.5 and 3.0, with all three back ends.
//
// The package is stricter than webapp2: base64 must be clean, identifiers must
// have webapp2's exact form, and pickles are decoded as data only. Of several
// cookies of one name, any that verifies is used.
//
// Without a MaxAge these sessions never expire: a ten-year-old cookie is valid,
// and a copy of a cookie with the data inside stays valid after a logout.
package webapp2

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Backend is where the values of a session are kept.
type Backend int

const (
	// SecureCookie keeps them in the signed cookie, readable by the visitor.
	SecureCookie Backend = iota
	// Memcache keeps them in memcache only.
	Memcache
	// Datastore keeps them in the datastore ("ndb") with a copy in memcache.
	Datastore
)

// Kind is the datastore kind of the sessions.
const Kind = "Session"

// Config describes the old application's configuration.
type Config struct {
	Secret []byte // secret_key; a text is used as its UTF-8 bytes. Required
	// Name is the cookie's name, "session" if empty. It is part of the
	// signature. For another session of the same app (get_session(name=…)),
	// such as the "auth" one, make another Format.
	Name    string
	Backend Backend
	// MaxAge is session_max_age or the max_age argument: how long after its
	// last change a session is accepted, including the last second. 0 = no
	// limit, webapp2's default. It is truncated to whole seconds.
	MaxAge time.Duration

	Memcache  appengine.Memcache  // for the Memcache and Datastore back ends
	Datastore appengine.Datastore // for the Datastore back end
	// App and Namespace are those of the application, such as "s~myapp". They
	// are needed to write with the Datastore back end: ndb keeps a third copy
	// in memcache under the encoded key, and that copy must be deleted.
	App, Namespace string

	// Auth decides whether the user named in a session of webapp2_extras.auth
	// is still logged in. Its zero value has webapp2's default times.
	Auth Auth

	// Cookie is cookie_args, the attributes of the cookie.
	Cookie cookies.Attributes
	// CookieLimit is the longest name and value to write, in bytes.
	// 0 = cookies.MaxSize, negative = no limit, as in webapp2.
	CookieLimit int
}

// Format reads and writes the sessions of one cookie name. It is safe for
// concurrent use if its stores are.
type Format struct{ c *Config } // a pointer, which fmt does not follow

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	var errs []error
	if len(c.Secret) == 0 {
		errs = append(errs, errors.New("webapp2: no Secret"))
	}
	if c.Name == "" {
		c.Name = "session"
	}
	if c.Backend < SecureCookie || c.Backend > Datastore {
		errs = append(errs, errors.New("webapp2: unknown Backend"))
	}
	if c.Backend != SecureCookie && c.Memcache == nil {
		errs = append(errs, errors.New("webapp2: this Backend needs Memcache"))
	}
	if c.Backend == Datastore && c.Datastore == nil {
		errs = append(errs, errors.New("webapp2: this Backend needs Datastore"))
	}
	if c.MaxAge < 0 || c.MaxAge%time.Second != 0 {
		errs = append(errs, errors.New("webapp2: MaxAge must be whole seconds, not negative"))
	}
	if c.CookieLimit == 0 {
		c.CookieLimit = cookies.MaxSize
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Format{&c}, nil
}

// Detail is the type of legacy.Session.Detail for sessions of this package.
type Detail struct {
	// User is the content of the "_user" entry of webapp2_extras.auth, valid or
	// not; nil if there is none.
	User *User
}

// About implements legacy.Known. Only changes extend a session.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "webapp2 " + f.c.Name, Expires: f.c.MaxAge > 0}
}

// Read implements legacy.Reader.
func (f *Format) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	s, err := cookies.First(header, f.c.Name, func(value string) (*legacy.Session, error) { return f.open(value, now) })
	if err != nil {
		return nil, fmt.Errorf("webapp2 session: %w", err)
	}
	return f.load(ctx, s, now)
}

// open verifies a cookie and decodes its payload.
func (f *Format) open(cookie string, now time.Time) (*legacy.Session, error) {
	parts := strings.Split(cookie, "|")
	if len(parts) != 3 {
		return nil, reason.Malformed
	}
	if !hmac.Equal([]byte(parts[2]), []byte(f.sign(parts[0], parts[1]))) {
		return nil, reason.BadSignature
	}
	s := &legacy.Session{
		Credential: []byte(f.c.Name + "|" + cookie), Cookies: []string{f.c.Name}, Copies: f.c.Backend == SecureCookie,
	}
	issued, err := strconv.ParseInt(parts[1], 10, 64)
	if err == nil {
		s.Issued = time.Unix(issued, 0).UTC()
	}
	if f.c.MaxAge > 0 {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", reason.ErrUnreadable, reason.Malformed)
		}
		s.Expires = s.Issued.Add(f.c.MaxAge)
		if issued < now.Unix()-int64(f.c.MaxAge/time.Second) {
			return nil, reason.Expired
		}
	}
	payload, ok := cookies.Base64(parts[0])
	if !ok {
		return nil, fmt.Errorf("%w: payload is not base64", reason.Decode)
	}
	v, err := value.ParseJSON(payload)
	if err != nil {
		return nil, err
	}
	if s.Data, ok = v.(*value.Dict); !ok {
		return nil, reason.NotObject
	}
	return s, nil
}

// sign returns the hex HMAC of a payload in its base64 form.
func (f *Format) sign(payload, timestamp string) string {
	mac := hmac.New(sha1.New, f.c.Secret)
	mac.Write([]byte(f.c.Name + "|" + payload + "|" + timestamp))
	return hex.EncodeToString(mac.Sum(nil))
}

// load loads a session of the server-side back ends by the identifier in its cookie.
func (f *Format) load(ctx context.Context, s *legacy.Session, now time.Time) (*legacy.Session, error) {
	if f.c.Backend != SecureCookie {
		sid, _ := s.Data.Get("_sid").(string)
		if !validSID(sid) {
			return nil, fmt.Errorf("webapp2 session: %w", reason.BadSID)
		}
		s.ID, s.Credential = sid, []byte(sid)
		data, err := f.stored(ctx, sid)
		if err != nil {
			return nil, fmt.Errorf("webapp2 session: %w", err)
		}
		s.Data = data
	}
	detail := &Detail{User: parseUser(s.Data)}
	s.Detail = detail
	if detail.User != nil {
		ok, err := f.c.Auth.loggedIn(ctx, detail.User, now)
		if err != nil {
			return nil, fmt.Errorf("webapp2 session: checking the login: %w", err)
		}
		if ok {
			s.User = detail.User.ID
		}
	}
	return s, nil
}

// Load implements legacy.Loader.
func (f *Format) Load(ctx context.Context, id string, _ time.Time) (*legacy.Session, error) {
	if f.c.Backend == SecureCookie || !validSID(id) {
		return nil, fmt.Errorf("webapp2 session: %w", reason.NotFound)
	}
	data, err := f.stored(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("webapp2 session: %w", err)
	}
	return &legacy.Session{ID: id, Credential: []byte(id), Data: data, Cookies: []string{f.c.Name}}, nil
}

// sidLen is the length of 128 bits in base 62.
const sidLen = 22

// validSID is webapp2's check without its gaps: the real pattern also accepts
// a trailing newline and, on Python 3, letters of any script.
func validSID(sid string) bool {
	if len(sid) != sidLen {
		return false
	}
	return strings.Trim(sid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

func (f *Format) stored(ctx context.Context, sid string) (*value.Dict, error) {
	item, err := f.c.Memcache.Get(ctx, sid)
	if err != nil && !errors.Is(err, legacy.ErrNoEntry) {
		return nil, fmt.Errorf("memcache: %w", err)
	}
	var v any
	if err == nil {
		if v, err = appengine.DecodeItem(item); err != nil {
			return nil, err
		}
	}
	if f.c.Backend == Memcache {
		if v == nil {
			return nil, reason.NotFound
		}
		return asDict(v)
	}
	if truthy(v) {
		return asDict(v)
	}
	entity, err := f.c.Datastore.Get(ctx, Kind, sid)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, reason.NotFound
	}
	if err != nil {
		return nil, fmt.Errorf("datastore: %w", err)
	}
	blob, ok := entity.Get("data").([]byte)
	if !ok {
		return nil, fmt.Errorf("%w: entity without data", reason.Decode)
	}
	if v, err = pickle.Decode(blob); err != nil {
		return nil, err
	}
	return asDict(v)
}

func asDict(v any) (*value.Dict, error) {
	d, ok := v.(*value.Dict)
	if !ok {
		return nil, fmt.Errorf("%w: stored value is no dictionary", reason.Decode)
	}
	return d, nil
}

// truthy is Python's bool(v): the Datastore back end treats an empty copy in
// memcache as missing.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []byte:
		return len(v) > 0
	case []any:
		return len(v) > 0
	case value.Tuple:
		return len(v) > 0
	case value.Set:
		return len(v.Items) > 0
	case *value.Dict:
		return v.Len() > 0
	}
	return true
}

// Write implements legacy.Writer. Like webapp2 it writes the cookie each time,
// which also restarts its MaxAge; call it only after a change. The last writer
// wins: the back ends cannot merge.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	if f.c.Backend == SecureCookie {
		field, raw, err := f.cookie(s.Data, now)
		if err != nil {
			return nil, fmt.Errorf("webapp2 session: %w", err)
		}
		s.Credential, s.Copies = []byte(f.c.Name+"|"+raw), true
		f.issued(s, now)
		return []string{field}, nil
	}
	sid := s.ID
	if sid == "" {
		sid = newSID()
	} else if !validSID(sid) {
		return nil, fmt.Errorf("webapp2 session: %w", reason.BadSID)
	}
	blob, err := pickle.Encode(s.Data)
	if err != nil {
		return nil, fmt.Errorf("webapp2 session: %w", err)
	}
	if len(blob) > appengine.MaxValue {
		return nil, fmt.Errorf("webapp2 session: %w", legacy.ErrTooLarge)
	}
	payload := value.NewDict()
	payload.Set("_sid", sid)
	field, _, err := f.cookie(payload, now)
	if err != nil {
		return nil, fmt.Errorf("webapp2 session: %w", err)
	}
	if f.c.Backend == Datastore {
		if err := f.putEntity(ctx, sid, blob, now); err != nil {
			return nil, err
		}
	}
	if err := f.c.Memcache.Set(ctx, sid, appengine.Item{Value: blob, Flags: appengine.FlagPickle}); err != nil {
		return nil, fmt.Errorf("webapp2 session: memcache: %w", err)
	}
	s.ID, s.Credential = sid, []byte(sid)
	f.issued(s, now)
	return []string{field}, nil
}

func (f *Format) issued(s *legacy.Session, now time.Time) {
	s.Issued, s.Cookies = time.Unix(now.Unix(), 0).UTC(), []string{f.c.Name}
	if f.c.MaxAge > 0 {
		s.Expires = s.Issued.Add(f.c.MaxAge)
	}
}

func (f *Format) putEntity(ctx context.Context, sid string, blob []byte, now time.Time) error {
	if f.c.App == "" {
		return errors.New("webapp2 session: the Datastore back end cannot be written without App")
	}
	err := f.c.Datastore.Put(ctx, Kind, sid, appengine.Entity{
		{Name: "data", Value: blob, NoIndex: true},
		{Name: "updated", Value: now.UTC().Truncate(time.Microsecond)},
	})
	if err != nil {
		return fmt.Errorf("webapp2 session: datastore: %w", err)
	}
	if err := f.c.Memcache.Delete(ctx, f.ndbKey(sid)); err != nil {
		return fmt.Errorf("webapp2 session: memcache: %w", err)
	}
	return nil
}

// ndbKey is the key of ndb's own copy of the entity.
func (f *Format) ndbKey(sid string) string {
	key := appengine.Key{App: f.c.App, Namespace: f.c.Namespace, Path: []appengine.Element{{Kind: Kind, Name: sid}}}
	return appengine.MemcacheKey("NDB9:" + key.Encode())
}

// cookie signs a payload and returns the Set-Cookie field and the bare value.
func (f *Format) cookie(payload *value.Dict, now time.Time) (field, raw string, err error) {
	text, err := value.JSON{EscapeSlash: true}.Marshal(payload)
	if err != nil {
		return "", "", err
	}
	encoded := base64.StdEncoding.EncodeToString(text)
	timestamp := strconv.FormatInt(now.Unix(), 10)
	raw = encoded + "|" + timestamp + "|" + f.sign(encoded, timestamp)
	if f.c.CookieLimit > 0 && len(f.c.Name)+len(raw) > f.c.CookieLimit {
		return "", "", fmt.Errorf("%w: cookie of %d bytes", legacy.ErrTooLarge, len(f.c.Name)+len(raw))
	}
	return cookies.Set(f.c.Name, raw, f.c.Cookie.At(now)), raw, nil
}

func newSID() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	sid := make([]byte, sidLen)
	for i := range sid {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		sid[i] = letters[n.Int64()]
	}
	return string(sid)
}

// End implements legacy.Ender. It also deletes the copies that the Python
// application would otherwise use.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	expired := []string{cookies.Expire(f.c.Name, f.c.Cookie)}
	if f.c.Backend == SecureCookie || s.ID == "" {
		return expired, nil
	}
	var errs []error
	if f.c.Backend == Datastore {
		errs = append(errs, f.c.Datastore.Delete(ctx, Kind, s.ID))
		if f.c.App != "" {
			errs = append(errs, f.c.Memcache.Delete(ctx, f.ndbKey(s.ID)))
		}
	}
	errs = append(errs, f.c.Memcache.Delete(ctx, s.ID))
	if err := errors.Join(errs...); err != nil {
		return expired, fmt.Errorf("webapp2 session: ending: %w", err)
	}
	return expired, nil
}

// DefaultFlashKey is the default key of flash messages.
const DefaultFlashKey = "_flash"

// Flash is a message for the next page. Level is nil if none was given; both
// may be of any type that the back end holds.
type Flash struct{ Value, Level any }

// Flashes returns the session's flash messages under key and removes them, like
// webapp2. An empty key means [DefaultFlashKey].
func Flashes(s *legacy.Session, key string) []Flash {
	if key == "" {
		key = DefaultFlashKey
	}
	list, _ := s.Data.Get(key).([]any)
	s.Data.Delete(key)
	var out []Flash
	for _, it := range list {
		pair, ok := it.([]any)
		if tuple, isTuple := it.(value.Tuple); isTuple {
			pair, ok = tuple, true
		}
		if ok && len(pair) == 2 {
			out = append(out, Flash{pair[0], pair[1]})
		}
	}
	return out
}

// AddFlash adds a message, in the form that webapp2 reads on every back end.
func AddFlash(s *legacy.Session, key string, m Flash) {
	if key == "" {
		key = DefaultFlashKey
	}
	list, _ := s.Data.Get(key).([]any)
	s.Data.Set(key, append(list, value.Tuple{m.Value, m.Level}))
}
