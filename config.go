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

// NoLimit switches off Config.IdleTimeout or Config.Lifetime, and likewise in
// [Session.SetExpiry]. A session without a lifetime ends by inactivity only; one
// without either ends 200 to 400 days after its last use, as its cookie does.
const NoLimit time.Duration = -1

// Config configures a [Manager]. Keys and Store are required; every other zero
// value is a safe default.
type Config struct {
	// Name is the cookie name without its prefix: 1 to 64 letters, digits, "-" and
	// "_". It is bound into all sealed data: managers of different names never
	// accept each other's sessions. "" = "session".
	Name string

	// Tenant returns the tenant that a request belongs to, such as the customer of
	// a host name. Like Name, it is bound into everything that is sealed and
	// indexed: a session is nobody's in another tenant, and users of one name are
	// different users. nil = one tenant, "". Outside of requests, see [WithTenant].
	Tenant func(*RequestInfo) string

	Keys  *KeyRing    // required
	Store store.Store // required unless Mode is CookieOnly; the caller closes it
	Mode  Mode        // where sessions live; 0 = Auto

	// InlineLimit is the most bytes of cookie name and value that a session in the
	// cookie may take; a larger one moves to the store. 0 = 2048; at most 4096, the
	// most that browsers keep (RFC 6265bis, section 5.6). With CookieOnly it is the
	// sum over all numbered cookies, at most 15000; what does not fit is
	// ErrTooLarge. Proxies limit header lines: see docs/run/proxies.md
	// before you use more than 2048.
	InlineLimit int

	MaxSize int // bytes of a session before sealing; 0 = 1 MiB

	// IdleTimeout ends a session that was not used for that long, to within a
	// twentieth of itself (at most an hour). 0 = 7 days, or [NoLimit].
	IdleTimeout time.Duration

	// Lifetime ends a session that long after it began or after its last login.
	// 0 = 30 days, at most 400 days (RFC 6265bis, section 5.6), or [NoLimit]. A
	// shorter one applies to existing sessions at once, a longer one from their
	// next save.
	Lifetime time.Duration

	Cookie Cookie
	// FormerCookies are attributes that Cookie had before: cookies set with them
	// are read, and expire when the manager next sets one. Keep an entry for
	// Lifetime. A name without the __Host- prefix can be set by a sibling domain.
	FormerCookies []Cookie
	Limit         Limit
	// Bearer accepts "Authorization: Bearer" with a token that [Session.Token] has
	// returned, for clients that keep no cookies.
	Bearer   bool
	Rotation Rotation

	// Timeout limits one load and one commit, retries included. A commit goes on
	// that long even if the client has gone. 0 = 5 seconds.
	Timeout time.Duration

	// ErrorHandler writes the whole response, status included, when a session
	// could not be loaded or kept, or calls ServeError. nil: see
	// [Manager.ServeError].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Events is called for each event, from many goroutines, often while the
	// session is locked: it must be quick and must not use the session. Each event
	// is reported in the process that caused it. See [AuditLog]. nil = none.
	Events func(context.Context, Event)

	Logger *slog.Logger // nil = slog.Default()
	Adopt  *Adopt       // sessions of other libraries; nil = none
}

// Mode says where sessions live.
type Mode uint8

const (
	// Auto keeps a session in the cookie while nobody is logged in, it has no
	// [ServerSide] value, and it fits Config.InlineLimit. Otherwise it moves to the
	// store and stays there.
	Auto Mode = iota
	// StoredOnly keeps every session in the store.
	StoredOnly
	// CookieOnly keeps every session in cookies. Logins then cannot be revoked,
	// parallel responses overwrite each other, and ServerSide values are ErrNoStore.
	CookieOnly
)

// Cookie says how the cookies are set. The zero value is the safest: Path=/,
// HttpOnly, Secure, SameSite=Lax and the __Host- name prefix.
type Cookie struct {
	// Domain sends the cookies to subdomains, too. The prefix is then __Secure-,
	// and a sibling domain can set cookies of that name.
	Domain         string
	Path           string        // "" = "/"; any other also means __Secure-
	SameSite       http.SameSite // 0 = Lax; None needs Secure
	Insecure       bool          // no Secure, no prefix: tests only
	BrowserSession bool          // dropped when the browser is closed; see [Session.Remember]
	Partitioned    bool          // by top-level site (CHIPS), for embedded use
}

// Limit bounds the live sessions of a user, exactly, on all replicas. It needs
// a [store.UserLimiter]. Config.Adopt takes over no session beyond it.
type Limit struct {
	Max    int  // 0 = any number; a login beyond it ends the oldest sessions
	Refuse bool // fail the login with ErrTooManySessions instead
}

// Rotation replaces the credential (the reference cookie) of a stored session.
type Rotation struct {
	// Every is how long a credential is used before it is replaced, but never
	// before Grace is over. 0 = only by [Session.Rotate] and [Session.Login].
	Every time.Duration
	// Grace is how long the previous credential stays valid after the first use of
	// the new one. One that arrives more than a minute later is reported as
	// suspected theft. 0 = 1 minute, at most 24 hours.
	Grace time.Duration
	// EndOnTheft ends a session when theft is suspected.
	EndOnTheft bool
}

// KeyRing holds the keys that seal cookies and records. Package keys has its
// methods, how keys change, and the form of a text of keys.
type KeyRing = keys.Ring

// LoadKeyFile reads the keys in a file, and makes it with new keys if it is
// missing: see [keys.LoadFile]. keys.WatchFile also notices changes.
func LoadKeyFile(path string) (*KeyRing, error) { return keys.LoadFile(path) }

// ParseKeys reads keys from a text, such as an environment variable: see
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

// mistakes are what is wrong with a configuration.
type mistakes struct {
	in   string // the field that is looked at, with what joins its fields' names
	errs []error
}

func (m *mistakes) add(format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf("sojourn: Config."+m.in+format, args...))
}

// setDefaults replaces zero values by what they stand for. What the caller has
// passed is not changed by it.
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

// check reports what is wrong with c, apart from the fields that check themselves.
func (c *Config) check(found *mistakes) {
	if !validName(c.Name) {
		found.add("Name %q: use 1 to 64 letters, digits, '-' and '_'", c.Name)
	}
	if likeState(c.Name) {
		found.add("Name %q is how the state cookie of another manager may be called", c.Name)
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
		found.add("Limit needs a store that can hold users to a number of sessions (store.UserLimiter); %T cannot", c.Store)
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
			found.add("FormerCookies[%d] is where Cookie is set, too: the same Domain, Path, Partitioned and name", i)
		}
	}
}

// place is what a browser tells cookies of one manager apart by.
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
		found.add("Path %.80q: it starts with '/', has no ';' or control characters, and at most %d bytes", c.Path, maxAttribute)
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

// attributes are what package cookies needs of a Cookie.
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

// likeState reports whether a name ends with what package cookies puts behind
// the name of a manager.
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

// maxAttribute is the longest attribute value that browsers heed (RFC 6265bis,
// section 5.6).
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

// Format prints the name, the type of the store and the key ring, whatever the
// verb.
func (c Config) Format(f fmt.State, _ rune) { printText(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }
