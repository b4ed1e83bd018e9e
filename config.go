package sojourn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
)

// NoLimit turns off Config.IdleTimeout or Config.Lifetime, also in
// [Session.SetExpiry]. A session without a lifetime ends only by inactivity;
// without both, 200 to 400 days after its last use, with its cookie.
const NoLimit time.Duration = -1

// Config configures a [Manager]. Keys and Store are required. Every other zero
// value is a safe default. A Config prints without secrets.
type Config struct {
	// Name is the cookie name without its prefix: 1 to 64 letters, digits, "-", and "_".
	// "" = "session". Managers with different names do not accept each other's sessions.
	Name string
	// Tenant returns the tenant of a request, such as the customer for a host name. A
	// session is valid in its own tenant only, and a user name means different users in
	// different tenants. nil = one tenant, "". Outside of requests, use [WithTenant].
	Tenant func(*RequestInfo) string

	Keys  *KeyRing    // required
	Store store.Store // required unless Mode is CookieOnly; the caller closes it
	Mode  Mode        // where sessions live; 0 = Auto

	// InlineLimit is the most bytes of cookie name and value for a session in the cookie;
	// a larger session moves to the store. 0 = 2048; at most 4096, the limit of browsers
	// (RFC 6265bis, section 5.6). With CookieOnly: the sum of all numbered cookies, at
	// most 15000; a larger session is ErrTooLarge. Proxies limit header lines: see
	// docs/run/proxies.md before you set more than 2048.
	InlineLimit int
	MaxSize     int // most bytes of a session before sealing; 0 = 1 MiB
	// IdleTimeout ends a session after this much inactivity, or earlier by up to a
	// twentieth of it (at most an hour). 0 = 7 days. [NoLimit] = none.
	IdleTimeout time.Duration
	// Lifetime ends a session this long after its start or last login. 0 = 30 days; at
	// most 400 days (RFC 6265bis, section 5.6). [NoLimit] = none. A shorter lifetime
	// applies to existing sessions at once, a longer one from their next save.
	Lifetime time.Duration

	Cookie Cookie
	// FormerCookies are earlier settings of Cookie. Cookies with these settings are read,
	// and expire when the manager next sets a cookie. Keep an entry for Lifetime. A
	// sibling domain can set a cookie whose name has no __Host- prefix.
	FormerCookies []Cookie
	Limit         Limit
	Bearer        bool // accept tokens of [Session.Token] in "Authorization: Bearer"
	Rotation      Rotation

	// Timeout limits one load and one commit, including retries. A commit continues even
	// if the client disconnects. 0 = 5 seconds.
	Timeout time.Duration
	// ErrorHandler writes the complete response when a session could not be loaded or
	// saved. It can call ServeError for the default response. nil = that response.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)
	// Events is called for each event, in the process that caused it. Calls are concurrent
	// and often hold the session's lock: the function must be fast and must not use the
	// session. See [AuditLog]. nil = none.
	Events func(context.Context, Event)
	Logger *slog.Logger // nil = slog.Default()
	Adopt  *Adopt       // sessions of other libraries; nil = none
}

// Mode is where sessions live. With CookieOnly, logins cannot be revoked, and
// concurrent responses overwrite each other. A ServerSide value is then
// [ErrNoStore].
type Mode uint8

const (
	// Auto keeps a session in the cookie until a login, a [ServerSide] value, or
	// Config.InlineLimit moves it to the store for good.
	Auto       Mode = iota
	StoredOnly      // every session in the store
	CookieOnly      // every session in cookies
)

// Cookie sets the cookie attributes. The zero value is the safest: Path=/,
// HttpOnly, Secure, SameSite=Lax, and the name prefix __Host-.
type Cookie struct {
	// Domain sends the cookies to subdomains as well. The name prefix is then __Secure-,
	// and a sibling domain can set cookies of that name.
	Domain         string
	Path           string        // "" = "/"; any other path also means __Secure-
	SameSite       http.SameSite // 0 = Lax; None needs Secure
	Insecure       bool          // no Secure, no prefix: tests only
	BrowserSession bool          // the browser drops them when it closes; see [Session.Remember]
	Partitioned    bool          // one set per top-level site (CHIPS), for embedded pages
}

// Limit limits the live sessions of a user, exactly, across all replicas. It
// needs a [store.UserLimiter]. Config.Adopt adopts no session beyond the limit.
type Limit struct {
	Max    int  // 0 = no limit; a login beyond it ends the user's oldest sessions
	Refuse bool // a login beyond Max fails with ErrTooManySessions instead
}

// Rotation replaces the credential (the reference cookie) of a stored session.
type Rotation struct {
	// Every is the age at which a credential is replaced, but not before the Grace of the
	// previous one is over. 0 = only by [Session.Rotate] and [Session.Login].
	Every time.Duration
	// Grace is how long the previous credential stays valid after the first use of the new
	// one. A use over a minute later is reported as suspected theft. 0 = 1 minute; at most
	// 24 hours.
	Grace      time.Duration
	EndOnTheft bool // end the session when theft is suspected
}

// KeyRing holds the keys that seal cookies and records. Package keys documents
// its methods, key changes, and the text format of keys.
type KeyRing = keys.Ring

// LoadKeyFile reads a key file, and creates it with new keys if it does not
// exist. See [keys.LoadFile], and [keys.WatchFile], which also follows changes.
func LoadKeyFile(path string) (*KeyRing, error) { return keys.LoadFile(path) }

// ParseKeys reads keys from text, such as an environment variable. See
// [keys.Parse].
func ParseKeys(text string) (*KeyRing, error) { return keys.Parse(text) }

const (
	defaultName        = "session"
	defaultInlineLimit = 2048
	defaultMaxSize     = 1 << 20
	defaultIdle        = 7 * 24 * time.Hour
	defaultLifetime    = 30 * 24 * time.Hour
	defaultTimeout     = 5 * time.Second
	defaultGrace       = time.Minute
	maxGrace           = 24 * time.Hour

	// maxCookieOnly is what four numbered cookies hold.
	maxCookieOnly = 15000
)

// complete fills in the defaults, and reports every mistake.
func (c *Config) complete() error {
	c.setDefaults()
	var found mistakes
	c.check(&found)
	found.in = "Cookie."
	c.Cookie.check(&found)
	for i := range c.FormerCookies {
		found.in = fmt.Sprintf("FormerCookies[%d].", i)
		c.FormerCookies[i].check(&found)
	}
	if c.Adopt != nil {
		found.in = "Adopt"
		c.Adopt.check(c, &found)
	}
	return errors.Join(found.errs...)
}

// mistakes collects the mistakes in a configuration.
type mistakes struct {
	in   string // the field being checked, with the separator before its own fields
	errs []error
}

func (m *mistakes) add(format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf("sojourn: Config."+m.in+format, args...))
}

// setDefaults replaces zero values with their defaults. It does not change what
// the caller's pointers and slices refer to.
func (c *Config) setDefaults() {
	c.Name = cmp.Or(c.Name, defaultName)
	c.InlineLimit = cmp.Or(c.InlineLimit, defaultInlineLimit)
	c.MaxSize = cmp.Or(c.MaxSize, defaultMaxSize)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdle)
	c.Lifetime = cmp.Or(c.Lifetime, defaultLifetime)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.Rotation.Grace = cmp.Or(c.Rotation.Grace, defaultGrace)
	c.Cookie.setDefaults()
	c.FormerCookies = slices.Clone(c.FormerCookies)
	for i := range c.FormerCookies {
		c.FormerCookies[i].setDefaults()
	}
	if c.Adopt != nil {
		a := *c.Adopt
		a.Keep = a.Keep || a.Back != nil
		c.Adopt = &a
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// check reports the mistakes in c, except in fields that have a check of their
// own.
func (c *Config) check(found *mistakes) {
	if !validName(c.Name) {
		found.add("Name %q: use 1 to 64 letters, digits, '-' and '_'", c.Name)
	}
	if likeState(c.Name) {
		found.add("Name %q can be the name of another manager's state cookie", c.Name)
	}
	if c.Keys == nil || len(c.Keys.Keys()) == 0 {
		found.add("Keys is missing: use LoadKeyFile or ParseKeys")
	}
	if isTypedNil(c.Store) {
		found.add("Store holds a nil %T: check the error of the call that opened it", c.Store)
	}
	most := wire.MaxCookie
	switch c.Mode {
	case Auto, StoredOnly:
		if c.Store == nil {
			found.add("Store is missing: open one, or choose Mode: CookieOnly")
		}
	case CookieOnly:
		if c.Store != nil {
			found.add("Store is set, and Mode is CookieOnly: choose one")
		}
		if c.Bearer {
			found.add("Bearer needs a Store: a session with a token is kept there")
		}
		most = maxCookieOnly
	default:
		found.add("Mode %d is unknown", c.Mode)
	}
	if c.InlineLimit < 0 || c.InlineLimit > most {
		found.add("InlineLimit %d: use 1 to %d bytes, or 0 for %d", c.InlineLimit, most, defaultInlineLimit)
	}
	if c.MaxSize < 0 {
		found.add("MaxSize %d is negative", c.MaxSize)
	}
	if c.Lifetime > rules.MaxAge {
		found.add("Lifetime %v: browsers keep no cookie longer than %v", c.Lifetime, rules.MaxAge)
	}
	if c.Timeout < 0 {
		found.add("Timeout %v is negative", c.Timeout)
	}
	if c.Limit.Max < 0 {
		found.add("Limit.Max %d is negative: use 0 for any number", c.Limit.Max)
	}
	if _, ok := c.Store.(store.UserLimiter); c.Limit.Max > 0 && !ok {
		found.add("Limit needs a store that can limit a user's sessions (store.UserLimiter); %T cannot", c.Store)
	}
	if c.Limit.Refuse && c.Limit.Max == 0 {
		found.add("Limit.Refuse is set without Limit.Max")
	}
	if c.Rotation.Every < 0 {
		found.add("Rotation.Every %v is negative: use 0 for never", c.Rotation.Every)
	}
	if g := c.Rotation.Grace; g < 0 || g > maxGrace {
		found.add("Rotation.Grace %v: use at most %v, or 0 for %v", g, maxGrace, defaultGrace)
	}
	for i := range c.FormerCookies {
		if c.FormerCookies[i].place() == c.Cookie.place() {
			found.add("FormerCookies[%d] is the same cookie as Cookie: both have the same Domain, Path, Partitioned and name", i)
		}
	}
}

// place returns the properties by which a browser distinguishes the cookies of
// one manager.
func (c *Cookie) place() [4]any { return [4]any{c.prefix(), c.Domain, c.Path, c.Partitioned} }

func (c *Cookie) setDefaults() {
	c.Path = cmp.Or(c.Path, "/")
	if c.SameSite == 0 || c.SameSite == http.SameSiteDefaultMode {
		c.SameSite = http.SameSiteLaxMode
	}
	if domain := strings.TrimPrefix(c.Domain, "."); domain != "" {
		c.Domain = domain // browsers ignore the dot
	}
}

func (c *Cookie) check(found *mistakes) {
	if c.Path[0] != '/' || !validAttribute(c.Path) {
		found.add("Path %.80q: it must start with '/' and have no ';', no control characters, and at most %d bytes", c.Path, maxAttribute)
	}
	if !validAttribute(c.Domain) || strings.ContainsAny(c.Domain, " /:") || c.Domain == "." || len(c.Domain) > 253 {
		found.add("Domain %.80q is not a host name", c.Domain)
	}
	switch c.SameSite {
	case http.SameSiteLaxMode, http.SameSiteStrictMode:
	case http.SameSiteNoneMode:
		if c.Insecure {
			found.add("SameSite=None is dropped by browsers without Secure: unset Insecure")
		}
	default:
		found.add("SameSite %d is unknown", c.SameSite)
	}
	if c.Partitioned && c.Insecure {
		found.add("Partitioned is dropped by browsers without Secure: unset Insecure")
	}
}

// attributes converts c for package cookies.
func (c *Cookie) attributes() cookies.Attributes {
	return cookies.Attributes{
		Prefix: c.prefix(), Domain: c.Domain, Path: c.Path, SameSite: c.SameSite, Insecure: c.Insecure, Partitioned: c.Partitioned,
	}
}

// prefix is the cookie name prefix that the attributes allow (RFC 6265bis,
// section 4.1.3).
func (c *Cookie) prefix() string {
	switch {
	case c.Insecure:
		return ""
	case c.Domain == "" && c.Path == "/":
		return "__Host-"
	default:
		return "__Secure-"
	}
}

// likeState reports whether a name ends with a suffix that package cookies
// appends to the name of a manager.
func likeState(s string) bool {
	rest := strings.TrimRight(s, "0123456789")
	return strings.HasSuffix(s, "-state") || rest != s && strings.HasSuffix(rest, "-state-")
}

func validName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	// Browsers reserve names that start with "__".
	return !strings.HasPrefix(s, "__")
}

// maxAttribute is the longest attribute value that browsers accept (RFC
// 6265bis, section 5.6).
const maxAttribute = 1024

func validAttribute(s string) bool {
	if len(s) > maxAttribute {
		return false
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c >= 0x7f || c == ';' {
			return false
		}
	}
	return true
}

func isTypedNil(s store.Store) bool {
	if s == nil {
		return false
	}
	v := reflect.ValueOf(s)
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Interface:
		return v.IsNil()
	default:
		return false
	}
}

func (c Config) text() string {
	return fmt.Sprintf("sojourn.Config(name %q, store %T, %v)", c.Name, c.Store, c.Keys)
}

func (c Config) Format(f fmt.State, _ rune) { printText(f, c.text()) }

func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }
