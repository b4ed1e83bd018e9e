// Package gaesessions reads and writes the sessions of gae-sessions: signed
// cookies in numbered pieces, or memcache and the datastore for larger data.
//
// The package is stricter than gae-sessions: signatures are compared in
// constant time, base64 must be clean, a pickle that does not load is an error
// instead of an empty session, and clean-up keeps sessions that never expire.
package gaesessions

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// Kind is the datastore kind of the sessions.
const Kind = "SessionModel"

const (
	prefix     = "DgU" // of all cookie names
	sigLen     = 44    // base64 of a SHA-256
	sidLen     = 43
	headLen    = sigLen + sidLen
	pieceLen   = 3880
	securePart = 8 // a piece is shorter by len("; Secure")
)

// Config describes the old application's configuration.
type Config struct {
	// Key is cookie_key: at least 32 bytes of any kind. Required.
	Key []byte
	// Lifetime is how long a new session lasts from its start; nothing extends
	// it. 0 = 7 days, negative = no limit (until the browser is closed).
	Lifetime time.Duration
	// SSLOnly starts new sessions with start(ssl_only=True): their cookies are
	// Secure. Existing sessions keep their setting.
	SSLOnly bool
	// CookieOnlyThreshold is the largest base64 size of data that stays in the
	// cookies, in bytes. 0 = 10240, negative = none does.
	CookieOnlyThreshold int
	// NoDatastore disables the datastore.
	NoDatastore bool

	// Memcache must be bound to the empty namespace. nil = not used.
	Memcache appengine.Memcache
	// Datastore must be bound to the empty namespace. nil = NoDatastore.
	Datastore appengine.Datastore
}

// Format reads and writes sessions. It is safe for concurrent use if its
// stores are.
type Format struct{ c *Config } // a pointer, which fmt does not follow

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	if len(c.Key) < 32 {
		return nil, errors.New("gaesessions: Key must have at least 32 bytes")
	}
	if c.Lifetime == 0 {
		c.Lifetime = 7 * 24 * time.Hour
	}
	if c.CookieOnlyThreshold == 0 {
		c.CookieOnlyThreshold = 10 << 10
	}
	if c.NoDatastore {
		c.Datastore = nil
	}
	return &Format{&c}, nil
}

// Detail is the type of legacy.Session.Detail for sessions of this package.
type Detail struct {
	// SSLOnly is true if the session was started for HTTPS only. gae-sessions
	// sets the cookies' Secure attribute by it, but does not check it.
	SSLOnly bool
	// InCookies is true if the data came from cookies, not from a store.
	InCookies bool
}

// About implements legacy.Known. A session may have been started without a
// limit, whatever the Lifetime is: then it has no Expires.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "gae-sessions", Expires: f.c.Lifetime > 0}
}

// Read implements legacy.Reader.
func (f *Format) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	all := cookies.Parse(header)
	whole, names := join(all)
	if len(names) == 0 {
		return nil, fmt.Errorf("gae-sessions: %w", reason.Missing)
	}
	s, pdump, err := f.open(whole)
	if err != nil {
		// For a duplicate name the Python code uses the last cookie. The others
		// may still be the genuine ones.
		slices.Reverse(all)
		if other, _ := join(all); other != whole {
			if s2, pdump2, err2 := f.open(other); err2 == nil {
				s, pdump, err = s2, pdump2, nil
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gae-sessions: %w", err)
	}
	s.Cookies = names
	if !s.Expires.IsZero() && now.After(s.Expires) {
		return nil, fmt.Errorf("gae-sessions: %w", reason.Expired)
	}
	s.Copies = len(pdump) > 0
	s.Detail.(*Detail).InCookies = s.Copies
	// The identifier has the end of the session. Its start follows if it has
	// the configured lifetime.
	if began := s.Expires.Add(-f.c.Lifetime); f.c.Lifetime > 0 && !s.Expires.IsZero() && !began.After(now) {
		s.Began = began
	}
	if len(pdump) == 0 {
		if pdump, err = f.stored(ctx, s.ID); err != nil {
			return nil, fmt.Errorf("gae-sessions: %w", err)
		}
	}
	if s.Data, err = decode(pdump); err != nil {
		return nil, fmt.Errorf("gae-sessions: %w", err)
	}
	return s, nil
}

// Load implements legacy.Loader. Data that was in cookies is not found.
func (f *Format) Load(ctx context.Context, id string, _ time.Time) (*legacy.Session, error) {
	expires, sslOnly, ok := parseSID(id)
	if !ok {
		return nil, fmt.Errorf("gae-sessions: %w", reason.NotFound)
	}
	pdump, err := f.stored(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("gae-sessions: %w", err)
	}
	s := &legacy.Session{ID: id, Credential: []byte(id), Detail: &Detail{SSLOnly: sslOnly}}
	if expires != 0 {
		s.Expires = time.Unix(expires, 0).UTC()
	}
	if s.Data, err = decode(pdump); err != nil {
		return nil, fmt.Errorf("gae-sessions: %w", err)
	}
	return s, nil
}

// join puts the pieces together in the order of their names, the last one of
// each name.
func join(all []cookies.Cookie) (whole string, names []string) {
	pieces := map[string]string{}
	for _, c := range all {
		if strings.HasPrefix(c.Name, prefix) {
			pieces[c.Name] = c.Value
		}
	}
	for name := range pieces {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		whole += pieces[name]
	}
	return whole, names
}

// open verifies the joined cookie value and returns the signed data.
func (f *Format) open(whole string) (*legacy.Session, []byte, error) {
	if whole == "" {
		return nil, nil, reason.Malformed
	}
	if len(whole) < headLen {
		return nil, nil, fmt.Errorf("%w: too short for one", reason.BadSignature)
	}
	sig, sid, rest := whole[:sigLen], whole[sigLen:headLen], whole[headLen:]
	// Text after the padding is left over from a longer session; Python ignores
	// it.
	if pad := strings.IndexByte(rest, '='); pad >= 0 {
		rest = rest[:min(len(rest), (pad+3)/4*4)]
	}
	pdump, ok := cookies.Base64(rest)
	if !ok {
		return nil, nil, fmt.Errorf("%w: not base64", reason.Malformed)
	}
	if !hmac.Equal([]byte(sig), []byte(f.sign(sid, pdump))) {
		return nil, nil, reason.BadSignature
	}
	expires, sslOnly, ok := parseSID(sid)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %w", reason.ErrUnreadable, reason.BadSID)
	}
	s := &legacy.Session{ID: sid, Credential: []byte(sid), Detail: &Detail{SSLOnly: sslOnly}}
	if expires != 0 {
		s.Expires = time.Unix(expires, 0).UTC()
	}
	return s, pdump, nil
}

// sign keys the HMAC with the identifier; it covers the decoded pickle.
func (f *Format) sign(sid string, pdump []byte) string {
	mac := hmac.New(sha256.New, slices.Concat(f.c.Key, []byte(sid)))
	mac.Write(pdump)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// parseSID reads an identifier: ten digits of expiry, a flag, 32 hex digits.
func parseSID(sid string) (expires int64, sslOnly, ok bool) {
	if len(sid) != sidLen || sid[10] != '_' && sid[10] != 'S' ||
		strings.Trim(sid[:10], "0123456789") != "" || strings.Trim(sid[11:], "0123456789abcdef") != "" {
		return 0, false, false
	}
	expires, err := strconv.ParseInt(sid[:10], 10, 64)
	return expires, sid[10] == 'S', err == nil
}

// stored fetches the pickle, from memcache first, which is newer after set_quick.
func (f *Format) stored(ctx context.Context, sid string) ([]byte, error) {
	if f.c.Memcache != nil {
		item, err := f.c.Memcache.Get(ctx, sid)
		if err == nil {
			if item.Flags != appengine.FlagBytes {
				return nil, fmt.Errorf("%w: memcache item is not bytes", reason.Decode)
			}
			return item.Value, nil
		}
		if !errors.Is(err, legacy.ErrNoEntry) {
			return nil, fmt.Errorf("memcache: %w", err)
		}
	}
	if f.c.Datastore == nil {
		return nil, reason.NotFound
	}
	entity, err := f.c.Datastore.Get(ctx, Kind, sid)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, reason.NotFound
	}
	if err != nil {
		return nil, fmt.Errorf("datastore: %w", err)
	}
	pdump, ok := entity.Get("pdump").([]byte)
	if !ok {
		return nil, fmt.Errorf("%w: entity without a pickle", reason.Decode)
	}
	return pdump, nil
}

// decode reads the pickled pair: entities of db.Model values, other values.
func decode(pdump []byte) (*value.Dict, error) {
	v, err := pickle.Decode(pdump)
	if err != nil {
		return nil, err
	}
	pair, ok := v.(value.Tuple)
	if !ok || len(pair) != 2 {
		return nil, fmt.Errorf("%w: not a pair", reason.Decode)
	}
	entities, ok1 := pair[0].(*value.Dict)
	data, ok2 := pair[1].(*value.Dict)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: not a pair of dictionaries", reason.Decode)
	}
	for k, e := range entities.All() {
		if err := data.SetKey(k, e); err != nil {
			return nil, fmt.Errorf("%w: %w", reason.Decode, err)
		}
	}
	return data, nil
}

// encode is the opposite of decode.
func encode(d *value.Dict) ([]byte, error) {
	entities, data := value.NewDict(), value.NewDict()
	for k, v := range d.All() {
		target := data
		if o, ok := v.(value.Object); ok && o.Class == value.EntityProto {
			target = entities
		}
		if err := target.SetKey(k, v); err != nil {
			return nil, err
		}
	}
	return pickle.Encode(value.Tuple{entities, data})
}

// Write implements legacy.Writer. The identifier, which includes the time of
// expiry, stays. A session without one gets one. The last writer wins.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	pdump, err := encode(s.Data)
	if err != nil {
		return nil, fmt.Errorf("gae-sessions: %w", err)
	}
	sid := s.ID
	if sid == "" {
		sid = f.newSID(now)
	}
	expiry, sslOnly, ok := parseSID(sid)
	if !ok {
		return nil, fmt.Errorf("gae-sessions: %w", reason.BadSID)
	}
	var expires time.Time
	if expiry != 0 {
		expires = time.Unix(expiry, 0).UTC()
	}
	inCookies := len(pdump)*4/3 <= f.c.CookieOnlyThreshold
	if !inCookies {
		if err := f.store(ctx, sid, pdump, expires); err != nil {
			return nil, fmt.Errorf("gae-sessions: %w", err)
		}
		pdump = nil
	}

	whole := f.sign(sid, pdump) + sid + base64.StdEncoding.EncodeToString(pdump)
	attributes := cookies.Attributes{Expires: expires, HTTPOnly: true, Secure: sslOnly}
	size := pieceLen
	if sslOnly {
		size -= securePart
	}
	var fields, names []string
	for piece := range slices.Chunk([]byte(whole), size) {
		name := fmt.Sprintf("%s%02d", prefix, len(names))
		names = append(names, name)
		fields = append(fields, cookies.Set(name, `"`+string(piece)+`"`, attributes))
	}
	for _, old := range s.Cookies {
		if !slices.Contains(names, old) {
			fields = append(fields, cookies.Expire(old, cookies.Attributes{}))
		}
	}
	s.ID, s.Credential, s.Expires, s.Cookies, s.Copies = sid, []byte(sid), expires, names, inCookies
	s.Detail = &Detail{SSLOnly: sslOnly, InCookies: inCookies}
	return fields, nil
}

// store writes to the datastore first, because memcache is trusted on reads.
func (f *Format) store(ctx context.Context, sid string, pdump []byte, expires time.Time) error {
	if len(pdump) > appengine.MaxValue {
		return legacy.ErrTooLarge
	}
	if f.c.Datastore == nil && f.c.Memcache == nil {
		return fmt.Errorf("%w: no store is configured", legacy.ErrTooLarge)
	}
	if f.c.Datastore != nil {
		if err := f.c.Datastore.Put(ctx, Kind, sid, appengine.Entity{{Name: "pdump", Value: pdump, NoIndex: true}}); err != nil {
			return fmt.Errorf("datastore: %w", err)
		}
	}
	if f.c.Memcache != nil {
		// The pickle is stored as plain bytes, because gae-sessions unpickles it itself.
		item := appengine.Item{Value: pdump, Flags: appengine.FlagBytes, Expires: expires}
		if err := f.c.Memcache.Set(ctx, sid, item); err != nil {
			return fmt.Errorf("memcache: %w", err)
		}
	}
	return nil
}

func (f *Format) newSID(now time.Time) string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	flag := "_"
	if f.c.SSLOnly {
		flag = "S"
	}
	expires := int64(0)
	if f.c.Lifetime > 0 {
		expires = now.Add(f.c.Lifetime).Unix()
	}
	return fmt.Sprintf("%010d%s%s", expires, flag, hex.EncodeToString(random[:]))
}

// End implements legacy.Ender. The old application accepts a copy of cookies
// with their data until the time in the identifier.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	names := s.Cookies
	if len(names) == 0 {
		names = []string{prefix + "00"}
	}
	var fields []string
	for _, name := range names {
		fields = append(fields, cookies.Expire(name, cookies.Attributes{}))
	}
	if s.ID == "" {
		return fields, nil
	}
	var errs []error
	if f.c.Datastore != nil {
		errs = append(errs, f.c.Datastore.Delete(ctx, Kind, s.ID))
	}
	if f.c.Memcache != nil {
		errs = append(errs, f.c.Memcache.Delete(ctx, s.ID))
	}
	if err := errors.Join(errs...); err != nil {
		return fields, fmt.Errorf("gae-sessions: ending: %w", err)
	}
	return fields, nil
}

// CleanupBatch is how many sessions one run of [Cleanup] removes at most.
const CleanupBatch = 500

// CleanupStore is a datastore that can list sessions by name. Names begin with
// the time of expiry. It must be bound to the empty namespace.
type CleanupStore interface {
	// NamesBetween returns up to limit names of entities with from <= name <
	// to, in order. It is a keys-only query.
	NamesBetween(ctx context.Context, kind, from, to string, limit int) ([]string, error)
	DeleteNames(ctx context.Context, kind string, names []string) error
}

// Cleanup removes at most [CleanupBatch] expired sessions from the datastore
// and reports how many it removed; fewer than that means that none are left. It
// replaces delete_expired_sessions, which also removes sessions that expire in
// the current second, and all that never expire.
func Cleanup(ctx context.Context, store CleanupStore, now time.Time) (int, error) {
	names, err := store.NamesBetween(ctx, Kind, "0000000001", fmt.Sprintf("%010d", now.Unix()), CleanupBatch)
	if err != nil {
		return 0, fmt.Errorf("gae-sessions: clean-up: %w", err)
	}
	if len(names) == 0 {
		return 0, nil
	}
	if err := store.DeleteNames(ctx, Kind, names); err != nil {
		return 0, fmt.Errorf("gae-sessions: clean-up: %w", err)
	}
	return len(names), nil
}
