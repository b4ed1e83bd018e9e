// Package memcachevars reads and writes "cookie and memcache" sessions, a
// recipe of a few lines that many App Engine applications used: the cookie
// holds an identifier, and each variable is a separate memcache entry
// <identifier>-<name>.
//
// The recipe is unsafe: the identifier is not signed, so an attacker who makes
// a visitor use one shares that visitor's variables, and an identifier that
// ends in "-b" addresses the variables "b-…" of another. So only identifiers in
// the application's own form are accepted.
package memcachevars

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Config describes the old application's configuration.
type Config struct {
	CookieName string   // "gaesessid" if empty
	Names      []string // the variables' names. Required: they cannot be listed
	// Python3 means that the application runs on Python 3, where stored bytes
	// are bytes. Python 2 stores most text as bytes, so its bytes are read as
	// text if they are UTF-8.
	Python3 bool
	// ValidID reports whether an identifier has the application's form. nil =
	// [StandardID].
	ValidID func(id string) bool
	// Expiry is how long a variable lasts after each time it is set. 0 = one
	// day, negative = no limit.
	Expiry   time.Duration
	Memcache appengine.Memcache // required, bound to the application's namespace
	Cookie   cookies.Attributes
}

// Format reads and writes sessions. It is safe for concurrent use if its
// Memcache is.
type Format struct{ c Config }

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	if c.CookieName == "" {
		c.CookieName = "gaesessid"
	}
	if c.ValidID == nil {
		c.ValidID = StandardID
	}
	if c.Expiry == 0 {
		c.Expiry = 24 * time.Hour
	}
	if c.Memcache == nil {
		return nil, errors.New("memcachevars: no Memcache")
	}
	if len(c.Names) == 0 {
		return nil, errors.New("memcachevars: no Names")
	}
	if !slices.Contains(c.Names, origin) {
		c.Names = append(slices.Clone(c.Names), origin)
	}
	return &Format{c}, nil
}

// origin is the variable in which a session manager that writes this format for
// a rollback names the original session.
const origin = "_sojourn"

// StandardID accepts the usual identifiers: the 36 characters of a UUID, or 16
// to 128 letters, digits and underscores. No such identifier followed by "-"
// begins another one.
func StandardID(id string) bool {
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' {
		digits := strings.ReplaceAll(id, "-", "")
		return len(digits) == 32 && strings.Trim(digits, "0123456789abcdefABCDEF") == ""
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return len(id) >= 16 && len(id) <= 128 && strings.Trim(id, letters) == ""
}

// Detail is the type of legacy.Session.Detail for sessions of this package.
type Detail struct {
	// Stored are the entries as they were read, by the variable's name.
	Stored map[string]appengine.Item
}

// About implements legacy.Known. The variables expire one by one, the identifier
// never.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "memcache variables " + f.c.CookieName}
}

// Read implements legacy.Reader. A session has the configured variables that
// still exist; without any it is not found. The value None cannot be
// distinguished from a missing variable.
func (f *Format) Read(ctx context.Context, header http.Header, _ time.Time) (*legacy.Session, error) {
	var first error
	for _, c := range cookies.Named(cookies.Parse(header), f.c.CookieName) {
		if c.Value == "" {
			continue
		}
		s, err := f.read(ctx, c.Value)
		if err == nil || reason.Of(err) != reason.NotFound && reason.Of(err) != reason.AmbiguousKey {
			return s, err
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("memcache variables: %w", reason.Missing)
	}
	return nil, first
}

func (f *Format) read(ctx context.Context, id string) (*legacy.Session, error) {
	if !f.c.ValidID(id) {
		return nil, fmt.Errorf("memcache variables: %w", f.whyInvalid(id))
	}
	detail := &Detail{Stored: map[string]appengine.Item{}}
	s := &legacy.Session{
		ID: id, Credential: []byte(id), Data: value.NewDict(), Cookies: []string{f.c.CookieName}, Detail: detail,
	}
	for _, name := range f.c.Names {
		item, err := f.c.Memcache.Get(ctx, key(id, name))
		if errors.Is(err, legacy.ErrNoEntry) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("memcache variables: memcache: %w", err)
		}
		v, err := f.decode(item)
		if err != nil {
			return nil, fmt.Errorf("memcache variables: %w", err)
		}
		if v != nil {
			s.Data.Set(name, v)
			detail.Stored[name] = item
		}
	}
	if s.Data.Len() == 0 {
		return nil, fmt.Errorf("memcache variables: %w", reason.NotFound)
	}
	return s, nil
}

// Load implements legacy.Loader. Writing its result stores every variable, not
// only changed ones, which restarts the expiry of all.
func (f *Format) Load(ctx context.Context, id string, _ time.Time) (*legacy.Session, error) {
	s, err := f.read(ctx, id)
	if err != nil {
		return nil, err
	}
	s.Detail = nil
	return s, nil
}

// decode reads a variable.
func (f *Format) decode(item appengine.Item) (any, error) {
	if f.c.Python3 && item.Flags&0xF == appengine.FlagBytes {
		return item.Value, nil
	}
	return appengine.DecodeItem(item)
}

// whyInvalid distinguishes an identifier that addresses another session's
// variables from one that the application never made.
func (f *Format) whyInvalid(id string) error {
	for i := range len(id) {
		if id[i] == '-' && f.c.ValidID(id[:i]) {
			return reason.AmbiguousKey
		}
	}
	return reason.NotFound
}

func key(id, name string) string { return appengine.MemcacheKey(id + "-" + name) }

// Write implements legacy.Writer. The cookie is set for a session that did not
// come from a request (one without Cookies). It sets only the variables that
// have changed since the read, and deletes removed ones, so that two
// applications can change different variables at once.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	id := s.ID
	if id == "" {
		id = newID()
	}
	if !f.c.ValidID(id) {
		return nil, fmt.Errorf("memcache variables: %w", reason.BadSID)
	}
	old, _ := s.Detail.(*Detail)
	unknown := old == nil && s.ID != "" // all existing variables are deleted
	if old == nil {
		old = &Detail{}
	}
	items, err := f.encode(s.Data, now)
	if err != nil {
		return nil, fmt.Errorf("memcache variables: %w", err)
	}
	for _, name := range f.c.Names {
		before, had := old.Stored[name]
		item, has := items[name]
		switch {
		case has && had && f.unchanged(before, s.Data.Get(name)):
			items[name] = before
			continue
		case has:
			err = f.c.Memcache.Set(ctx, key(id, name), item)
		case had || unknown:
			err = f.c.Memcache.Delete(ctx, key(id, name))
		}
		if err != nil {
			return nil, fmt.Errorf("memcache variables: memcache: %w", err)
		}
	}
	var fields []string
	if len(s.Cookies) == 0 {
		fields = append(fields, cookies.Set(f.c.CookieName, id, f.c.Cookie.At(now)))
	}
	s.ID, s.Credential, s.Cookies, s.Detail = id, []byte(id), []string{f.c.CookieName}, &Detail{Stored: items}
	return fields, nil
}

// unchanged reports whether an entry holds v. It compares decoded values,
// because Python 2 has two encodings of a text.
func (f *Format) unchanged(before appengine.Item, v any) bool {
	old, err := f.decode(before)
	if err != nil {
		return false
	}
	v, err = value.Of(v)
	return err == nil && value.Equal(old, v)
}

// encode encodes all variables before the first is stored.
func (f *Format) encode(d *value.Dict, now time.Time) (map[string]appengine.Item, error) {
	items := map[string]appengine.Item{}
	for _, name := range f.c.Names {
		v, ok := d.Lookup(name)
		if !ok || v == nil {
			continue
		}
		item, err := appengine.EncodeItem(v)
		if err != nil {
			return nil, err
		}
		if len(item.Value) > appengine.MaxValue {
			return nil, legacy.ErrTooLarge
		}
		if f.c.Expiry > 0 {
			item.Expires = now.Add(f.c.Expiry)
		}
		items[name] = item
	}
	for k, v := range d.All() {
		name, _ := k.(string)
		if _, known := items[name]; !known && v != nil {
			return nil, fmt.Errorf("%w: a variable that is not among Names", value.ErrUnsupported)
		}
	}
	return items, nil
}

// newID makes a UUID of version 4, as the recipe did.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	return value.UUID(b).String()
}

// End implements legacy.Ender.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	fields := []string{cookies.Expire(f.c.CookieName, f.c.Cookie)}
	if !f.c.ValidID(s.ID) {
		return fields, nil
	}
	var errs []error
	for _, name := range f.c.Names {
		errs = append(errs, f.c.Memcache.Delete(ctx, key(s.ID, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fields, fmt.Errorf("memcache variables: ending: %w", err)
	}
	return fields, nil
}
