// Package beaker reads and writes the sessions of Beaker 1.5 to 1.14:
// cookie-only ones, signed or encrypted, and server-side ones on files,
// memcached, Redis, a database or the App Engine datastore, with pickle or
// JSON inside.
//
// The package is stricter than Beaker: base64 must be clean, pickles are
// decoded as data only, identifiers must be well-formed, and unsigned
// identifiers (which any visitor can choose) need an explicit setting.
package beaker

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// Type is Beaker's option "type": where sessions are kept.
type Type int

const (
	Cookie    Type = iota // in the cookie itself
	File                  // files below data_dir
	Memcached             // ext:memcached
	Redis                 // ext:redis
	Database              // ext:database and ext:sqla
	Google                // ext:google, the App Engine datastore
)

// Config describes the old application's configuration. The names of Beaker's
// options are given in brackets.
type Config struct {
	Type Type
	Name string // cookie name [key]; "beaker.session.id" if empty

	// ValidateKey signs cookie-only sessions [validate_key], and is the salt of
	// all encryption. For a text, give its UTF-8 bytes.
	ValidateKey []byte
	// Secret signs the identifiers of server-side sessions [secret].
	Secret []byte
	// Unsigned accepts server-side identifiers without a signature, for
	// applications that have no secret. Then an attacker who makes a visitor
	// use an identifier shares that visitor's session.
	Unsigned bool

	// EncryptKey encrypts the data [encrypt_key]; empty = not encrypted.
	EncryptKey []byte
	Cipher     Cipher // used if there is an EncryptKey [crypto_type]
	// NonceBits is encrypt_nonce_bits: 0 = 128, the default since Beaker 1.8;
	// older ones always have 48.
	NonceBits int
	JSON      bool // data_serializer is json, not pickle

	// Timeout ends sessions that were not used for longer [timeout]; the last
	// second still counts. 0 = never.
	Timeout time.Duration

	// Store holds the sessions of File, Memcached, Redis and Database. Its
	// keys are
	//
	//	File       the path below data_dir: container_file/3/36/36….cache
	//	Memcached  the memcached key; the flags count
	//	Redis      the Redis key; entries may expire
	//	Database   the column namespace of the table beaker_cache; the value is
	//	           its column data
	Store legacy.Store
	// Datastore and Kind hold those of Google; Kind is table_name,
	// "beaker_cache" if empty.
	Datastore appengine.Datastore
	Kind      string
	// PlainStored writes new server-side sessions as Beaker up to 1.11 stores
	// unencrypted ones. Reading accepts both forms, and a session is written
	// back in the same form.
	PlainStored bool

	// Cookie are the cookie's attributes. A session keeps a domain or path that
	// the application has set. Without a SameSite it is Lax, the default since
	// Beaker 1.11.
	Cookie cookies.Attributes
	// NoSameSite sends no SameSite, like Beaker before 1.11, and later versions
	// if it is off [samesite].
	NoSameSite bool
	// CookieLimit is the longest name and value to write, in bytes.
	// 0 = cookies.MaxSize, negative = only Beaker's own limit.
	CookieLimit int
}

const (
	sigLen = 40
	// maxValue is the longest cookie value before its signature.
	maxValue = 4064
)

// Format reads and writes sessions. It is safe for concurrent use if its
// stores are.
type Format struct{ c *Config } // a pointer, which fmt does not follow

var _ legacy.Format = (*Format)(nil)

// New checks the configuration.
func New(c Config) (*Format, error) {
	var errs []error
	fail := func(text string) { errs = append(errs, errors.New("beaker: "+text)) }
	if c.Name == "" {
		c.Name = "beaker.session.id"
	}
	if c.Kind == "" {
		c.Kind = "beaker_cache"
	}
	if c.NonceBits == 0 {
		c.NonceBits = 128
	}
	if c.CookieLimit == 0 {
		c.CookieLimit = cookies.MaxSize
	}
	if c.Cookie.SameSite == "" && !c.NoSameSite {
		c.Cookie.SameSite = "Lax"
	}
	switch {
	case c.Type < Cookie || c.Type > Google:
		fail("unknown Type")
	case c.Type == Cookie && len(c.ValidateKey) == 0:
		fail("cookie-only sessions need ValidateKey")
	case c.Type == Google && c.Datastore == nil:
		fail("this Type needs Datastore")
	case c.Type != Cookie && c.Type != Google && c.Store == nil:
		fail("this Type needs Store")
	}
	if c.Type != Cookie && (len(c.Secret) == 0) != c.Unsigned {
		fail("server-side sessions need either Secret or Unsigned")
	}
	if len(c.EncryptKey) > 0 && len(c.ValidateKey) == 0 {
		fail("EncryptKey needs ValidateKey")
	}
	if c.Cipher < AnyCipher || c.Cipher > NoCipher || c.Cipher == NoCipher && c.Type == Cookie {
		fail("unknown Cipher")
	}
	if c.NonceBits < 8 || c.NonceBits%8 != 0 || c.NonceBits > 4096 {
		fail("NonceBits must be a multiple of 8")
	}
	if c.Timeout < 0 {
		fail("negative Timeout")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Format{&c}, nil
}

// Detail is the type of legacy.Session.Detail for sessions of this package.
type Detail struct {
	// Meta are Beaker's own entries: _id (cookie-only), _creation_time,
	// _accessed_time, _domain, _path, _expires.
	Meta *value.Dict
	// Cipher is the cipher that decrypted the session.
	Cipher Cipher
	// Plain is true if a server-side session was stored as by Beaker up to
	// 1.11.
	Plain bool
	// Flags are those of the memcached entry.
	Flags uint32
}

// About implements legacy.Known.
func (f *Format) About() legacy.About {
	return legacy.About{Name: "beaker " + f.c.Name, Expires: f.c.Timeout > 0, Idle: f.c.Timeout}
}

// Read implements legacy.Reader.
func (f *Format) Read(ctx context.Context, header http.Header, now time.Time) (*legacy.Session, error) {
	var first error
	for _, c := range cookies.Named(cookies.Parse(header), f.c.Name) {
		wire := strings.Trim(c.Raw, `"`) // Beaker un-escapes nothing
		if wire == "" {
			continue
		}
		signed, err := f.verify(wire)
		if err == nil {
			s, err := f.load(ctx, signed, now)
			if err != nil {
				return nil, fmt.Errorf("beaker session: %w", err)
			}
			s.Cookies = []string{f.c.Name}
			return s, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = reason.Missing
	}
	return nil, fmt.Errorf("beaker session: %w", first)
}

// Load implements legacy.Loader.
func (f *Format) Load(ctx context.Context, id string, now time.Time) (*legacy.Session, error) {
	if f.c.Type == Cookie {
		return nil, fmt.Errorf("beaker session: %w", reason.NotFound)
	}
	s, err := f.load(ctx, id, now)
	if err != nil {
		return nil, fmt.Errorf("beaker session: %w", err)
	}
	s.Cookies = []string{f.c.Name}
	return s, nil
}

// signer is the key of the cookie's signature; empty = none.
func (f *Format) signer() []byte {
	if f.c.Type == Cookie {
		return f.c.ValidateKey
	}
	return f.c.Secret
}

// verify returns the signed part of a cookie.
func (f *Format) verify(wire string) (string, error) {
	key := f.signer()
	if len(key) == 0 {
		return wire, nil
	}
	if len(wire) < sigLen {
		return "", fmt.Errorf("%w: shorter than a signature", reason.BadSignature)
	}
	sig, signed := wire[:sigLen], wire[sigLen:]
	if !hmac.Equal([]byte(sig), []byte(sign(key, signed))) {
		return "", reason.BadSignature
	}
	return signed, nil
}

func sign(key []byte, text string) string {
	mac := hmac.New(sha1.New, key)
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func (f *Format) load(ctx context.Context, signed string, now time.Time) (*legacy.Session, error) {
	s := &legacy.Session{Copies: f.c.Type == Cookie}
	detail := &Detail{}
	s.Detail = detail
	var data *value.Dict
	var err error
	if f.c.Type == Cookie {
		data, detail.Cipher, err = f.decode(signed)
	} else {
		s.ID = signed
		data, err = f.fetch(ctx, signed, detail)
	}
	if err != nil {
		return nil, err
	}
	f.separate(s, data, detail)
	s.Path, s.Domain = f.scope(detail.Meta)
	s.Credential = []byte(s.ID)
	if s.ID == "" {
		s.Credential = []byte(signed)
	}
	if created, ok := seconds(detail.Meta.Get(createdKey)); ok {
		s.Began = unix(created)
	}
	if accessed, ok := seconds(detail.Meta.Get(accessedKey)); ok {
		s.Issued = unix(accessed)
		if f.c.Timeout > 0 {
			s.Expires = s.Issued.Add(f.c.Timeout)
			if float64(now.UnixMicro())/1e6-accessed > f.c.Timeout.Seconds() {
				return nil, reason.Expired
			}
		}
	}
	return s, nil
}

// The entries that Beaker adds.
const (
	idKey       = "_id"
	createdKey  = "_creation_time"
	accessedKey = "_accessed_time"
	domainKey   = "_domain"
	pathKey     = "_path"
	expiresKey  = "_expires"
)

// separate separates Beaker's own entries from the application's.
func (f *Format) separate(s *legacy.Session, data *value.Dict, detail *Detail) {
	s.Data, detail.Meta = value.NewDict(), value.NewDict()
	for k, v := range data.All() {
		switch k {
		case createdKey, accessedKey, domainKey, pathKey:
			detail.Meta.Set(k.(string), v)
			continue
		case idKey, expiresKey:
			if f.c.Type == Cookie {
				detail.Meta.Set(k.(string), v)
				continue
			}
		}
		_ = s.Data.SetKey(k, v) // it was a key already
	}
	if f.c.Type == Cookie {
		s.ID, _ = detail.Meta.Get(idKey).(string)
	}
}

func seconds(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, v > -1e12 && v < 1e12
	case int64:
		return float64(v), v > -1e12 && v < 1e12
	}
	return 0, false
}

func unix(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)).UTC() }

// decode reads the text form of a session: base64, or nonce and ciphertext.
func (f *Format) decode(text string) (*value.Dict, Cipher, error) {
	if len(f.c.EncryptKey) == 0 {
		plain, ok := cookies.Base64(text)
		if !ok {
			return nil, AnyCipher, fmt.Errorf("%w: not base64", reason.Decode)
		}
		d, err := f.deserialize(plain)
		return d, AnyCipher, err
	}
	ciphers := []Cipher{f.c.Cipher}
	if f.c.Cipher == AnyCipher {
		ciphers = all()
		if f.c.Type != Cookie {
			ciphers = append(ciphers, NoCipher)
		}
	}
	var first error
	for _, c := range ciphers {
		plain, err := f.decrypt(c, text)
		if err == nil && !f.plausible(plain) {
			err = fmt.Errorf("%w: not the expected data", reason.Decrypt)
		}
		var d *value.Dict
		if err == nil {
			if d, err = f.deserialize(plain); err == nil {
				return d, c, nil
			}
			if c != GCM && errors.Is(err, reason.Decode) {
				err = fmt.Errorf("%w: %w", reason.Decrypt, err)
			}
		}
		// A wrong cipher gives noise; any other error is caused by the session.
		if r := reason.Of(err); r != reason.Decrypt && r != reason.Decode {
			return nil, AnyCipher, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, AnyCipher, first
}

// plausible detects noise from a wrong key, which might look like an attack by
// chance: every pickle ends with a period, and a zlib stream starts with a
// header that has a checksum.
func (f *Format) plausible(plain []byte) bool {
	if len(plain) < 2 {
		return false
	}
	if f.c.JSON {
		return plain[0]&0x0F == 8 && (int(plain[0])<<8|int(plain[1]))%31 == 0
	}
	return plain[len(plain)-1] == '.'
}

func (f *Format) deserialize(plain []byte) (*value.Dict, error) {
	v, err := f.parse(plain)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*value.Dict)
	if !ok {
		return nil, reason.NotObject
	}
	return d, nil
}

func (f *Format) parse(plain []byte) (any, error) {
	if !f.c.JSON {
		return pickle.Decode(plain)
	}
	z, err := zlib.NewReader(bytes.NewReader(plain))
	if err != nil {
		return nil, fmt.Errorf("%w: not compressed", reason.Decode)
	}
	// One byte over the limit is enough for ParseJSON to refuse it.
	text, err := io.ReadAll(io.LimitReader(z, value.MaxJSON+1))
	if err != nil {
		return nil, fmt.Errorf("%w: broken compression", reason.Decode)
	}
	return value.ParseJSON(text)
}

// encode is the opposite of decode.
func (f *Format) encode(d *value.Dict, c Cipher) (string, error) {
	plain, err := f.serialize(d)
	if err != nil {
		return "", err
	}
	if len(f.c.EncryptKey) == 0 {
		return base64.StdEncoding.EncodeToString(plain), nil
	}
	return f.encrypt(c, plain)
}

func (f *Format) serialize(d *value.Dict) ([]byte, error) {
	if !f.c.JSON {
		return pickle.Encode(d)
	}
	text, err := value.PythonStyle().Marshal(d)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, _ = z.Write(text) // a Buffer takes everything
	_ = z.Close()
	return out.Bytes(), nil
}

// Write implements legacy.Writer. It counts as a use of the session. The last
// writer wins.
func (f *Format) Write(ctx context.Context, s *legacy.Session, now time.Time) ([]string, error) {
	field, err := f.write(ctx, s, now)
	if err != nil {
		return nil, fmt.Errorf("beaker session: %w", err)
	}
	return []string{field}, nil
}

func (f *Format) write(ctx context.Context, s *legacy.Session, now time.Time) (string, error) {
	old, _ := s.Detail.(*Detail)
	if old == nil {
		old = &Detail{Plain: f.c.PlainStored, Flags: flagText}
	}
	id := s.ID
	if id == "" {
		id = newID()
	}
	detail := *old
	if detail.Cipher == AnyCipher {
		detail.Cipher = f.c.Cipher
	}
	detail.Meta = f.newMeta(s, old.Meta, id, now)
	s.Path, s.Domain = f.scope(detail.Meta)
	all := detail.Meta.Clone()
	for k, v := range s.Data.All() {
		if _, own := detail.Meta.Lookup(k); own {
			return "", fmt.Errorf("%w: the key %v is Beaker's own", value.ErrUnsupported, k)
		}
		if err := all.SetKey(k, v); err != nil {
			return "", err
		}
	}

	signed := id
	if f.c.Type == Cookie {
		var err error
		if signed, err = f.encode(all, detail.Cipher); err != nil {
			return "", err
		}
		if len(signed) > maxValue {
			return "", fmt.Errorf("%w: cookie value of %d bytes", legacy.ErrTooLarge, len(signed))
		}
	} else if !validID(id) {
		return "", reason.BadSID
	}
	wire := signed
	if key := f.signer(); len(key) > 0 {
		wire = sign(key, signed) + signed
	}
	if f.c.CookieLimit > 0 && len(f.c.Name)+len(wire) > f.c.CookieLimit {
		return "", fmt.Errorf("%w: cookie of %d bytes", legacy.ErrTooLarge, len(f.c.Name)+len(wire))
	}
	if f.c.Type != Cookie {
		if err := f.store(ctx, id, all, &detail, now); err != nil {
			return "", err
		}
	}
	s.ID, s.Credential, s.Cookies, s.Detail = id, []byte(id), []string{f.c.Name}, &detail
	s.Issued, s.Copies = now.UTC(), f.c.Type == Cookie
	if f.c.Timeout > 0 {
		s.Expires = s.Issued.Add(f.c.Timeout)
	}
	return cookies.Set(f.c.Name, wire, f.attributes(s).At(now)), nil
}

// scope returns the cookie's path and domain that a session stores. Beaker
// before 1.7 does not store them.
func (f *Format) scope(meta *value.Dict) (path, domain string) {
	path, domain = f.c.Cookie.Path, f.c.Cookie.Domain
	if p, ok := value.TextOf(meta.Get(pathKey)); ok && attribute(p) {
		path = p
	}
	if d, ok := meta.Lookup(domainKey); ok {
		domain = ""
		if text, ok := value.TextOf(d); ok && attribute(text) {
			domain = text
		}
	}
	if path == "" {
		path = "/"
	}
	return path, domain
}

// attribute reports whether a text is valid in a cookie's attribute.
func attribute(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ';' || r == ',' })
}

// attributes returns the attributes of a session's cookie.
func (f *Format) attributes(s *legacy.Session) cookies.Attributes {
	a := f.c.Cookie
	if s.Path != "" {
		a.Path, a.Domain = s.Path, s.Domain
	}
	return a
}

// newMeta returns Beaker's entries for a session that is used now.
func (f *Format) newMeta(s *legacy.Session, old *value.Dict, id string, now time.Time) *value.Dict {
	stamp := float64(now.UnixMicro()) / 1e6
	meta := value.NewDict()
	scope := f.attributes(s)
	path, domain := old.Get(pathKey), old.Get(domainKey)
	if path == nil {
		path = cmp.Or(scope.Path, "/")
	}
	if _, ok := old.Lookup(domainKey); !ok && scope.Domain != "" {
		domain = scope.Domain
	}
	meta.Set(domainKey, domain)
	meta.Set(pathKey, path)
	if f.c.Type == Cookie {
		meta.Set(idKey, id)
	}
	created := old.Get(createdKey)
	if created == nil {
		created = stamp
	}
	meta.Set(createdKey, created)
	meta.Set(accessedKey, stamp)
	return meta
}

func newID() string {
	var random [16]byte
	_, _ = rand.Read(random[:])                                     // never fails
	random[6], random[8] = random[6]&0x0F|0x40, random[8]&0x3F|0x80 // as uuid4
	return hex.EncodeToString(random[:])
}

// End implements legacy.Ender. A copy of a cookie-only session stays valid
// for the old application.
func (f *Format) End(ctx context.Context, s *legacy.Session) ([]string, error) {
	fields := []string{cookies.Expire(f.c.Name, f.attributes(s))}
	if f.c.Type == Cookie || !validID(s.ID) {
		return fields, nil
	}
	var err error
	if f.c.Type == Google {
		err = f.c.Datastore.Delete(ctx, f.c.Kind, "p"+s.ID)
	} else {
		err = f.c.Store.Delete(ctx, f.storeKey(s.ID))
	}
	if err != nil {
		return fields, fmt.Errorf("beaker session: ending: %w", err)
	}
	return fields, nil
}
