package vectors

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// Backends are the stores of an old application. A case needs only those that its
// library uses.
type Backends struct {
	Memcache  appengine.Memcache
	Datastore appengine.Datastore
	Entities  gaeutilities.Datastore
	Store     legacy.Store // where Beaker keeps server-side sessions
	App       string       // of the datastore keys
}

// FormatOn returns the format of the case's configuration, on these stores
// instead of the case's own.
func (c *Case) FormatOn(on Backends) (legacy.Known, error) {
	r, err := c.reader(on)
	if err != nil {
		return nil, err
	}
	known, ok := r.(legacy.Known)
	if !ok {
		return nil, fmt.Errorf("recorded sessions: %s: not a format to adopt from", c.Name)
	}
	return known, nil
}

// reader returns the reader of a case's configuration.
func (c *Case) reader(s Backends) (legacy.Reader, error) {
	var build func(Backends) (legacy.Reader, error)
	switch c.System {
	case "webapp2-securecookie", "webapp2-memcache", "webapp2-ndb":
		build = c.webapp2
	case "gae-sessions":
		build = c.gaesessions
	case "beaker-cookie", "beaker-session":
		build = c.beaker
	case "gaeutilities":
		build = c.gaeutilities
	case "diy-memcache":
		build = c.memcachevars
	default:
		return nil, fmt.Errorf("recorded sessions: unknown system %q", c.System)
	}
	r, err := build(s)
	if err != nil {
		return nil, fmt.Errorf("recorded sessions: %s: %w", c.Name, err)
	}
	return r, nil
}

// secret is a key as text or as base64.
type secret struct {
	Text   string `json:"secret"`
	Base64 []byte `json:"secret_base64"`
}

func (s secret) bytes() []byte {
	if s.Base64 != nil {
		return s.Base64
	}
	return []byte(s.Text)
}

func seconds(n float64) time.Duration { return time.Duration(n) * time.Second }

func (c *Case) webapp2(s Backends) (legacy.Reader, error) {
	var in struct {
		secret
		CookieName    string          `json:"cookie_name"`
		Name          string          `json:"name"`
		SessionMaxAge *float64        `json:"session_max_age"`
		MaxAge        json.RawMessage `json:"max_age"` // present even if null
		CookieArgs    struct {
			MaxAge   int    `json:"max_age"`
			Domain   string `json:"domain"`
			Path     string `json:"path"`
			Secure   bool   `json:"secure"`
			HTTPOnly bool   `json:"httponly"`
		} `json:"cookie_args"`
	}
	if err := json.Unmarshal(c.Config, &in); err != nil {
		return nil, err
	}
	config := webapp2.Config{
		Secret: in.bytes(), Name: in.CookieName,
		Memcache: s.Memcache, Datastore: s.Datastore, App: s.App,
		Cookie: cookies.Attributes{
			Domain: in.CookieArgs.Domain, Path: in.CookieArgs.Path, MaxAge: in.CookieArgs.MaxAge,
			Secure: in.CookieArgs.Secure, HTTPOnly: in.CookieArgs.HTTPOnly,
		},
		CookieLimit: -1, // as in webapp2
	}
	if in.Name != "" {
		config.Name = in.Name
	}
	if in.SessionMaxAge != nil {
		config.MaxAge = seconds(*in.SessionMaxAge)
	}
	if in.MaxAge != nil {
		var age float64 // stays zero for null
		if err := json.Unmarshal(in.MaxAge, &age); err != nil {
			return nil, err
		}
		config.MaxAge = seconds(age)
	}
	switch c.System {
	case "webapp2-memcache":
		config.Backend = webapp2.Memcache
	case "webapp2-ndb":
		config.Backend = webapp2.Datastore
	}
	return webapp2.New(config)
}

func (c *Case) gaesessions(s Backends) (legacy.Reader, error) {
	var in struct {
		secret
		Lifetime    float64 `json:"lifetime"`
		NoDatastore bool    `json:"no_datastore"`
		Threshold   *int    `json:"cookie_only_threshold"`
	}
	if err := json.Unmarshal(c.Config, &in); err != nil {
		return nil, err
	}
	config := gaesessions.Config{
		Key: in.bytes(), Lifetime: seconds(in.Lifetime), NoDatastore: in.NoDatastore,
		Memcache: s.Memcache, Datastore: s.Datastore,
	}
	if in.Threshold != nil {
		config.CookieOnlyThreshold = *in.Threshold
		if *in.Threshold == 0 {
			config.CookieOnlyThreshold = -1
		}
	}
	return gaesessions.New(config)
}

func (c *Case) beaker(s Backends) (legacy.Reader, error) {
	var in struct {
		Options struct {
			Type        string  `json:"type"`
			Key         string  `json:"key"`
			Secret      string  `json:"secret"`
			ValidateKey string  `json:"validate_key"`
			EncryptKey  string  `json:"encrypt_key"`
			NonceBits   int     `json:"encrypt_nonce_bits"`
			Timeout     float64 `json:"timeout"`
			TableName   string  `json:"table_name"`
			Expires     any     `json:"cookie_expires"` // seconds, true or false
			Domain      string  `json:"cookie_domain"`
			Path        string  `json:"cookie_path"`
			Secure      bool    `json:"secure"`
			HTTPOnly    bool    `json:"httponly"`
			SameSite    string  `json:"samesite"`
		} `json:"options"`
		Serializer string `json:"serializer"`
		Crypto     *struct {
			Cipher     string `json:"cipher"`
			NonceChars int    `json:"nonce_chars"`
		} `json:"crypto"`
	}
	if err := json.Unmarshal(c.Config, &in); err != nil {
		return nil, err
	}
	o := in.Options
	config := beaker.Config{
		Name: o.Key, ValidateKey: []byte(o.ValidateKey), Secret: []byte(o.Secret), EncryptKey: []byte(o.EncryptKey),
		NonceBits: o.NonceBits, JSON: in.Serializer == "json", Timeout: seconds(o.Timeout),
		Store: s.Store, Datastore: s.Datastore, Kind: o.TableName,
		Cookie:      cookies.Attributes{Domain: o.Domain, Path: o.Path, Secure: o.Secure, HTTPOnly: o.HTTPOnly, SameSite: o.SameSite},
		CookieLimit: -1,
	}
	switch expires := o.Expires.(type) {
	case float64:
		config.Cookie.MaxAge = int(expires)
	case bool:
		if !expires {
			config.Cookie.Expires = time.Unix(1<<31-1, 0)
		}
	}
	switch o.Type {
	case "cookie":
		config.Type = beaker.Cookie
	case "file":
		config.Type = beaker.File
	case "ext:memcached":
		config.Type = beaker.Memcached
	case "ext:redis":
		config.Type = beaker.Redis
	case "ext:database", "ext:sqla":
		config.Type = beaker.Database
	case "ext:google":
		config.Type = beaker.Google
	default:
		return nil, fmt.Errorf("unknown type %q", o.Type)
	}
	config.Unsigned = config.Type != beaker.Cookie && o.Secret == ""
	if in.Crypto != nil {
		if o.NonceBits == 0 && in.Crypto.NonceChars == 8 {
			config.NonceBits = 48 // the only size before Beaker 1.8
		}
		switch in.Crypto.Cipher {
		case "AES-256-GCM":
			config.Cipher = beaker.GCM
		case "AES-256-CTR":
			config.Cipher = beaker.CTR
		case "AES-256-CBC":
			config.Cipher = beaker.CBC
		case "AES-256-ECB":
			config.Cipher = beaker.ECB
		default:
			return nil, fmt.Errorf("unknown cipher %q", in.Crypto.Cipher)
		}
	}
	return beaker.New(config)
}

// gaeutilities trusts the data cookie, like the recorded library.
func (c *Case) gaeutilities(s Backends) (legacy.Reader, error) {
	var in struct {
		Kwargs struct {
			Writer     string   `json:"writer"`
			Name       string   `json:"cookie_name"`
			ExpireTime *float64 `json:"session_expire_time"`
			TokenTTL   *float64 `json:"session_token_ttl"`
		} `json:"kwargs"`
	}
	if err := json.Unmarshal(c.Config, &in); err != nil {
		return nil, err
	}
	if in.Kwargs.Writer == "cookie" {
		return gaeutilities.NewUnsignedCookie(in.Kwargs.Name, cookies.Attributes{}), nil
	}
	config := gaeutilities.Config{
		Name: in.Kwargs.Name, Datastore: s.Entities, Memcache: s.Memcache, TrustDataCookie: true,
	}
	if in.Kwargs.ExpireTime != nil {
		config.ExpireTime = seconds(*in.Kwargs.ExpireTime)
	}
	if in.Kwargs.TokenTTL != nil {
		config.TokenTTL = seconds(*in.Kwargs.TokenTTL)
	}
	return gaeutilities.New(config)
}

func (c *Case) memcachevars(s Backends) (legacy.Reader, error) {
	var in struct {
		CookieName string   `json:"cookie_name"`
		Names      []string `json:"names"`
	}
	if err := json.Unmarshal(c.Config, &in); err != nil {
		return nil, err
	}
	return memcachevars.New(memcachevars.Config{CookieName: in.CookieName, Names: in.Names, Memcache: s.Memcache})
}

// stableID is a session's identifier, or "" if the old library would replace it
// with this request.
func stableID(s *legacy.Session) string {
	if d, ok := s.Detail.(*gaeutilities.Detail); ok && d.RotationDue {
		return ""
	}
	return s.ID
}
