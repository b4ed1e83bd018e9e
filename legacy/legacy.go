// Package legacy finds live sessions of other libraries in requests, and reads,
// writes and ends them.
//
// There is one package per library: webapp2, gaesessions, beaker, gaeutilities,
// memcachevars, gorilla and scs. Each has a Config and a New that returns a
// [Format]; that of gaeutilities only reads and ends sessions:
//
//	old, err := webapp2.New(webapp2.Config{Secret: secret})
//	session, err := old.Read(ctx, r.Header, time.Now())
//	if errors.Is(err, reason.Expired) { … }
//
// Readers verify signatures before they decode, never call functions named in
// the data, and bound the cost of decoding. If a session is refused, the error
// wraps a reason of package reason; any other error means that a store did not
// answer. No error contains a cookie's value, an identifier, a key or data.
package legacy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/legacy/value"
)

// Session is a session of another library, verified and decoded.
type Session struct {
	// ID is the library's identifier of the session, usually a credential. It
	// is empty if the format has none, such as a signed cookie with data only.
	ID string

	// Credential identifies this session: the identifier, or the verified
	// cookie if there is none. It stays the same as long as the session has the
	// same identifier or, without one, until the cookie is rewritten. It is
	// secret: hash it with a key before you store it.
	Credential []byte

	// Data has the application's values, without the library's own keys. It is
	// never nil.
	Data *value.Dict

	// User is the logged-in user's identifier, as text, if the format has users
	// (only webapp2's auth sessions do). It is empty for a visitor who is not
	// logged in, and for other formats, where the user is one of the values in
	// Data.
	User string

	// Began is when the session began; zero if unknown.
	Began time.Time

	// Copies is true if the cookie itself holds the data: the old library
	// accepts a copy of the cookie even after the session has ended.
	Copies bool

	// Issued is when the cookie was written or the session was last used; zero
	// if unknown.
	Issued time.Time

	// Expires is when the old library stops accepting the session; zero if
	// never or unknown.
	Expires time.Time

	// Cookies are the names of the request's cookies that make up the session.
	Cookies []string

	// Path and Domain are those of the cookies, if the session stores them, as
	// Beaker's do; otherwise empty.
	Path, Domain string

	// Detail has further data of the format's package, such as a
	// *beaker.Detail. A session that is written back keeps it.
	Detail any
}

// Reader finds sessions of one library in requests.
type Reader interface {
	// Read returns the session for a request's header. It changes nothing. The
	// error wraps a reason if the request has no acceptable session; any other
	// error means that a store did not answer.
	Read(ctx context.Context, header http.Header, now time.Time) (*Session, error)
}

// Writer keeps sessions in a library's own format, so that the old
// application and the new one share them.
type Writer interface {
	// Write stores the session's Data in the old library's stores and returns
	// the Set-Cookie fields to send, if any. A session without an ID gets one
	// where the format has identifiers; ID, Credential, Issued, Expires,
	// Cookies and Detail are updated. Its error wraps value.ErrUnsupported if
	// the format cannot hold the data, and ErrTooLarge if there is too much.
	// Then nothing was stored.
	Write(ctx context.Context, s *Session, now time.Time) (setCookie []string, err error)
}

// Ender ends sessions for the old library.
type Ender interface {
	// End deletes the session's state on the server, and returns the Set-Cookie
	// fields that remove its cookies; these are valid even with an error. It is
	// idempotent. It needs only ID, Credential, Cookies, Path and Domain. For a
	// session without an ID, it only removes the cookies. A copy of a cookie
	// that holds the data itself stays valid for the old library and cannot be
	// revoked.
	End(ctx context.Context, s *Session) (setCookie []string, err error)
}

// About describes the sessions of a format.
type About struct {
	// Name is the library and a distinction from its other formats, such as
	// "webapp2 session", with the name of the cookie.
	Name string
	// Expires is true if every session expires by itself.
	Expires bool
	// Idle is how long a session lasts after each use, if uses extend it. 0 =
	// they do not, or only changes do.
	Idle time.Duration
	// GoTypes is true if values keep their Go types; other formats use the
	// types of package value.
	GoTypes bool
}

// Known is a Reader and Ender with a description of its sessions. All packages
// of this module implement it.
type Known interface {
	Reader
	Ender
	About() About
}

// Format reads, writes and ends the sessions of one library.
type Format interface {
	Reader
	Writer
	Ender
	About() About
}

// Loader is a Format that can keep sessions on a server.
type Loader interface {
	// Load returns the session with that identifier, as Read does for its
	// cookie. Its error wraps reason.NotFound for sessions that are not on a
	// server, and always if the Format keeps all sessions in cookies.
	Load(ctx context.Context, id string, now time.Time) (*Session, error)
}

// Store is a library's server-side storage. Each format defines its keys and
// which fields of an [Entry] it uses. Implementations are safe for concurrent
// use.
type Store interface {
	Get(ctx context.Context, key string) (Entry, error) // ErrNoEntry
	Set(ctx context.Context, key string, e Entry) error
	Delete(ctx context.Context, key string) error // nil if there was none
}

// Entry is an entry of a [Store].
type Entry struct {
	Value   []byte
	Flags   uint32    // memcached's; 0 elsewhere
	Expires time.Time // zero = never; Get need not fill it in
}

// ErrNoEntry is the error of all formats' stores for a missing entry. Any other
// error means that the store did not answer.
var ErrNoEntry = errors.New("legacy: no such entry")

// ErrTooLarge means that a session does not fit into a cookie that browsers
// accept, or exceeds the store's limit. Nothing was stored.
var ErrTooLarge = errors.New("legacy: session too large for its format")
