package sojourn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/store"
)

// Config is what a [Manager] is made of. Keys and Store are required; the zero
// value of everything else is a sensible default.
type Config struct {
	// Name is the cookie name, without prefix: letters, digits, "-" and "_", at
	// most 64 of them. It is bound into everything that is sealed, so that
	// managers of different names never accept each other's sessions, even with
	// the same Keys and Store. "" = "session".
	Name string

	// Keys seals and opens cookies and records. Required.
	Keys *KeyRing

	// Store keeps the sessions that do not live in a cookie. Required unless
	// Placement is CookieOnly, and refused then. The caller opens and closes it.
	Store store.Store

	// Placement says which sessions live in the cookie. The zero value is Auto.
	Placement Policy

	// InlineLimit is the most bytes of cookie name and value that a session in
	// the cookie may take; what is larger goes to the store. 0 = 2048: a default
	// nginx passes 4096 bytes of response header, and the other half is left to
	// the attributes, to Content-Security-Policy and the like. At most 4096, the
	// most that browsers keep (RFC 6265bis, section 5.6).
	//
	// With CookieOnly it is the sum over all numbered cookies, at most 15000, and
	// whatever does not fit fails with ErrTooLarge. Browsers send them all in one
	// header line, with every other cookie of the site. nginx, Varnish and Apache
	// refuse a line of more than about 8000 bytes before the program sees the
	// request: the visitor is locked out, and cannot even log out. Above 2048
	// look at the table of proxies in docs/guide.md, above 6000 configure all of
	// them.
	InlineLimit int

	// MaxSize is the most bytes that one session may take, before sealing.
	// 0 = 1 MiB.
	MaxSize int

	// IdleTimeout ends a session that was not used for that long. It is kept to
	// within a twentieth of itself, at most an hour, because activity is only
	// noted that often. 0 = 7 days, negative = none.
	IdleTimeout time.Duration

	// Lifetime ends a session that long after it began (or after its last
	// login), whatever happens. 0 = 30 days, negative = 400 days, which is the
	// most that browsers keep a cookie and the most that is accepted here. When
	// it is changed, a shorter one holds at once for the sessions that are there,
	// a longer one from their next save.
	Lifetime time.Duration

	// Cookie says how the cookies are set.
	Cookie Cookie

	// FormerCookies are attributes that Cookie had before. Cookies that were set
	// with them are read as well, under the name that goes with them. If a request
	// brings cookies of both, they expire with the next one that is set. Keep an
	// entry for as long as such cookies live, which is Lifetime. A cookie that is read under a name without
	// the __Host- prefix can be planted by a sibling domain.
	FormerCookies []Cookie

	// Timeout bounds one load and one commit, retries included. A commit goes on
	// for that long even when the client has gone away. 0 = 5 seconds.
	Timeout time.Duration

	// MaxPerUser is how many live sessions a user may have. A login beyond it
	// ends the user's oldest sessions, or fails with ErrTooManySessions where
	// RefuseOverMax is set. Adopt takes over no legacy session beyond it: that
	// visitor has to log in. Parallel logins, on any replica, never overshoot. It
	// needs a store that implements store.UserLimiter, as all durable ones here
	// do. 0 = any number.
	MaxPerUser    int
	RefuseOverMax bool

	// RotateEvery replaces a stored session's credential (the reference cookie)
	// when it was in use for that long, with the next response that surely
	// reaches the browser's cookies. It is never replaced earlier than Grace
	// after it was first used. 0 = only by Session.Rotate and Login.
	RotateEvery time.Duration

	// Grace is for how long the credential before the newest one is still
	// accepted, counted from when the newest one first came back: requests under
	// way have the old one, and a browser that crashed comes back with what it
	// had on disk half a minute ago. An outdated credential that turns up more
	// than a minute later is reported as suspected theft. 0 = 1 minute.
	Grace time.Duration

	// EndOnTheft ends a session when theft is suspected: the visitor and the
	// thief both have to log in again.
	EndOnTheft bool

	// Events hears what happens to sessions; see [AuditLog]. nil = nobody does.
	Events Events

	// Adopt takes over live sessions of other libraries. nil = none.
	Adopt *Adopt

	// ErrorHandler answers when a session could not be loaded or kept; see
	// [Manager.ServeError] for what happens when it is nil. It writes the whole
	// answer, status included, or calls ServeError for the plain one.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger receives warnings and debug lines, never secrets. nil =
	// slog.Default().
	Logger *slog.Logger
}

// Policy says where sessions live.
type Policy uint8

const (
	// Auto keeps a session in the cookie while nobody is logged in, no
	// [ServerSide] value is set, and it fits Config.InlineLimit; then it moves
	// to the store, and stays there until it ends.
	Auto Policy = iota
	// StoredOnly keeps every session in the store.
	StoredOnly
	// CookieOnly keeps every session in cookies. There is no server-side state:
	// a logout cannot be final against somebody who copied the cookie, parallel
	// responses overwrite each other, and ServerSide values are refused.
	CookieOnly
)

// Cookie says how a manager's cookies are set. The zero value is the safest:
// Path=/, HttpOnly, Secure, SameSite=Lax and the __Host- name prefix.
type Cookie struct {
	// Domain makes the cookies visible to subdomains. It costs the __Host-
	// prefix (then __Secure- is used), and with it the protection against
	// cookies planted by a sibling domain.
	Domain string
	// Path limits the cookies to a part of the site. "" = "/". Anything else
	// costs the __Host- prefix too.
	Path string
	// SameSite: 0 = Lax. None needs Secure.
	SameSite http.SameSite
	// Insecure drops the Secure attribute and the name prefix: for tests over
	// plain HTTP on an address other than localhost, never for production.
	Insecure bool
	// BrowserSession asks the browser to drop the cookies when it is closed.
	// Otherwise they stay until the session's absolute end. Session.Remember
	// overrides it.
	BrowserSession bool
	// Partitioned keys the cookies by top-level site (CHIPS), for embedded use.
	Partitioned bool
}

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

// complete checks c and fills in its defaults. It reports every mistake.
func (c *Config) complete() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("sojourn: Config."+format, args...))
	}
	if c.Name == "" {
		c.Name = defaultName
	}
	if !validName(c.Name) {
		bad("Name %q: use 1 to 64 letters, digits, '-' and '_'", c.Name)
	}
	if likeState(c.Name) {
		bad("Name %q is how the state cookie of another manager may be called", c.Name)
	}
	if c.Keys == nil || c.Keys.current() == nil {
		bad("Keys is missing: use LoadKeyFile or ParseKeys")
	}
	if isTypedNil(c.Store) {
		bad("Store holds a nil %T: check the error of the call that opened it", c.Store)
	}
	most := wire.MaxCookie
	switch c.Placement {
	case Auto, StoredOnly:
		if c.Store == nil {
			bad("Store is missing: open one, or choose Placement: CookieOnly")
		}
	case CookieOnly:
		if c.Store != nil {
			bad("Store is set, and Placement is CookieOnly: choose one")
		}
		most = maxCookieOnly
	default:
		bad("Placement %d is unknown", c.Placement)
	}
	if c.InlineLimit == 0 {
		c.InlineLimit = defaultInlineLimit
	}
	if c.InlineLimit < 0 || c.InlineLimit > most {
		bad("InlineLimit %d: use 1 to %d bytes, or 0 for %d", c.InlineLimit, most, defaultInlineLimit)
	}
	if c.MaxSize == 0 {
		c.MaxSize = defaultMaxSize
	}
	if c.MaxSize < 0 {
		bad("MaxSize %d is negative", c.MaxSize)
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = defaultIdle
	}
	switch {
	case c.Lifetime == 0:
		c.Lifetime = defaultLifetime
	case c.Lifetime < 0:
		c.Lifetime = rules.MaxAge
	case c.Lifetime > rules.MaxAge:
		bad("Lifetime %v: browsers keep no cookie longer than %v", c.Lifetime, rules.MaxAge)
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Timeout < 0 {
		bad("Timeout %v is negative", c.Timeout)
	}
	if c.MaxPerUser < 0 {
		bad("MaxPerUser %d is negative: use 0 for any number", c.MaxPerUser)
	}
	if _, ok := c.Store.(store.UserLimiter); c.MaxPerUser > 0 && !ok {
		bad("MaxPerUser needs a store that can hold users to a number of sessions (store.UserLimiter); %T cannot", c.Store)
	}
	if c.RefuseOverMax && c.MaxPerUser == 0 {
		bad("RefuseOverMax is set without MaxPerUser")
	}
	if c.RotateEvery < 0 {
		bad("RotateEvery %v is negative: use 0 for never", c.RotateEvery)
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Grace < 0 || c.Grace > maxGrace {
		bad("Grace %v: use at most %v, or 0 for %v", c.Grace, maxGrace, defaultGrace)
	}
	errs = append(errs, c.Cookie.complete("Cookie.")...)
	c.FormerCookies = slices.Clone(c.FormerCookies)
	for i := range c.FormerCookies {
		former := &c.FormerCookies[i]
		name := fmt.Sprintf("FormerCookies[%d]", i)
		errs = append(errs, former.complete(name+".")...)
		if former.place() == c.Cookie.place() {
			bad("%s is where Cookie is set, too: the same Domain, Path, Partitioned and name", name)
		}
	}
	if c.Adopt != nil {
		a := *c.Adopt
		c.Adopt = &a
		errs = append(errs, a.complete(c)...)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

// place is what a browser tells cookies of one manager apart by.
func (c *Cookie) place() [4]any { return [4]any{c.prefix(), c.Domain, c.Path, c.Partitioned} }

func (c *Cookie) complete(name string) (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("sojourn: Config."+name+format, args...))
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Path[0] != '/' || !validAttribute(c.Path) {
		bad("Path %.80q: it starts with '/', has no ';' or control characters, and at most %d bytes", c.Path, maxAttribute)
	}
	domain := strings.TrimPrefix(c.Domain, ".")
	if !validAttribute(domain) || strings.ContainsAny(domain, " /:") || domain == "" && c.Domain != "" || len(domain) > 253 {
		bad("Domain %.80q is not a host name", c.Domain)
	}
	c.Domain = domain
	switch c.SameSite {
	case 0, http.SameSiteDefaultMode:
		c.SameSite = http.SameSiteLaxMode
	case http.SameSiteLaxMode, http.SameSiteStrictMode:
	case http.SameSiteNoneMode:
		if c.Insecure {
			bad("SameSite=None is dropped by browsers without Secure: unset Insecure")
		}
	default:
		bad("SameSite %d is unknown", c.SameSite)
	}
	if c.Partitioned && c.Insecure {
		bad("Partitioned is dropped by browsers without Secure: unset Insecure")
	}
	return errs
}

// prefix is the cookie name prefix that the attributes allow (RFC 6265bis,
// section 4.1.3).
func (c *Cookie) attributes() cookies.Attributes {
	return cookies.Attributes{
		Prefix: c.prefix(), Domain: c.Domain, Path: c.Path, SameSite: c.SameSite, Insecure: c.Insecure, Partitioned: c.Partitioned,
	}
}

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
