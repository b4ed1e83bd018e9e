// Package legacy is how live sessions of other libraries are found in a
// request, read, written back and ended.
//
// There is one package per library: webapp2, gaesessions, beaker,
// gaeutilities, memcachevars, gorilla and scs. Each has a Config and returns
// a [Format] (gaeutilities, whose server-side sessions are not written, a
// [Reader] and [Ender]), so that everything above them is the same for all:
//
//	old, err := webapp2.New(webapp2.Config{Secret: secret})
//	session, err := old.Read(ctx, r.Header, time.Now())
//	if errors.Is(err, reason.Expired) { … }
//
// Readers verify everything that the old library signed before they look at
// it, call nothing that the data asks for, and bound what decoding may cost.
// Errors wrap a reason of package reason where a session was refused; every
// other error means that a store did not answer. No error holds a cookie's
// value, an identifier, a key or data.
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
	// ID is the identifier as that library names it. It is a credential for
	// most libraries. Empty if the format has none, as a signed cookie that
	// holds nothing but data.
	ID string

	// Credential is what this session is recognised by: the identifier, or
	// the verified cookie where there is none. It stays the same as long as
	// the old library treats the session as the same one and, for cookies
	// without an identifier, as long as the cookie is not rewritten. It is
	// secret: hash it with a key before it is stored.
	Credential []byte

	// Data is what the application stored, without the library's own keys. It
	// is never nil.
	Data *value.Dict

	// User is the identifier of the logged-in user where the library itself
	// knows about users (only webapp2's auth sessions do), as text. Empty for
	// a visitor who is not logged in, and for all other libraries: their
	// applications know which key of Data it is.
	User string

	// Began is when the session itself began, as far as the format tells; zero if
	// it does not.
	Began time.Time

	// Copies says that the data came out of the cookie itself: a copy of the
	// cookie stays good for the old library whatever becomes of the session.
	Copies bool

	// Issued is when the cookie was written or the session last used, as far
	// as the format tells; zero if it does not.
	Issued time.Time

	// Expires is when the old library would stop accepting the session. Zero
	// if never, or if the format does not tell.
	Expires time.Time

	// Cookies are the names of the request's cookies that make up the session.
	Cookies []string

	// Path and Domain are those of the cookies, where the session itself says them
	// (Beaker's do); empty elsewhere.
	Path, Domain string

	// Detail is a value of the format's package with what else it found, such
	// as *beaker.Detail. A session that is written back keeps it.
	Detail any
}

// Reader finds sessions of one library in requests.
type Reader interface {
	// Read returns the session that the request's header leads to. It changes
	// nothing. The error wraps a reason when the request has no acceptable
	// session; on any other error a store could not be asked.
	Read(ctx context.Context, header http.Header, now time.Time) (*Session, error)
}

// Writer keeps sessions in a library's own format, so that the old
// application and the new one share them.
type Writer interface {
	// Write stores the session's Data in the old library's stores and returns
	// the Set-Cookie fields to send, if any. A session without an ID gets one
	// where the format has identifiers; ID, Credential, Issued, Expires, Cookies
	// and Detail are updated. It wraps value.ErrUnsupported when the format
	// cannot hold the data and ErrTooLarge when there is too much of it, and
	// has stored nothing then.
	Write(ctx context.Context, s *Session, now time.Time) (setCookie []string, err error)
}

// Ender ends sessions for the old library.
type Ender interface {
	// End deletes the session's state on the server, and returns the
	// Set-Cookie fields that remove its cookies; these are valid even with an
	// error. It is idempotent. ID, Credential, Cookies, Path and Domain are all that
	// it needs; a session without an ID has nothing on the server, and only its
	// cookies go. A copy of a cookie that holds its data itself stays valid for the
	// old library: no one can take it back.
	End(ctx context.Context, s *Session) (setCookie []string, err error)
}

// About says what the sessions of a format are like.
type About struct {
	// Name is the library and what tells this format from others of it, such as
	// "webapp2 session", with the name of the cookie.
	Name string
	// Expires says that every session ends by itself.
	Expires bool
	// Idle is how long a session lasts after each use, where using it is what
	// keeps it alive. 0 = what ends it does not move, or with changes only.
	Idle time.Duration
	// GoTypes says that values keep the Go types that they have; other formats
	// keep those of package value.
	GoTypes bool
}

// Known is a Reader and Ender that tells about its sessions, as those of all
// packages of this module do.
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
	// Load returns the session with that identifier as Read does for the cookie
	// that names it. It wraps reason.NotFound for sessions that are not on a
	// server, and for those of a Format that keeps all of them in cookies.
	Load(ctx context.Context, id string, now time.Time) (*Session, error)
}

// Store is where a library keeps sessions on a server. What a key is, and
// which fields of an [Entry] mean something, is for each format to say.
// Implementations are safe for concurrent use.
type Store interface {
	Get(ctx context.Context, key string) (Entry, error) // ErrNoEntry
	Set(ctx context.Context, key string, e Entry) error
	Delete(ctx context.Context, key string) error // nil if there was none
}

// Entry is what a [Store] holds under one key.
type Entry struct {
	Value   []byte
	Flags   uint32    // memcached's; 0 elsewhere
	Expires time.Time // zero = never; Get need not fill it in
}

// ErrNoEntry is what the stores of all formats return for a key under which
// they hold nothing. Every other error means that they could not be asked.
var ErrNoEntry = errors.New("legacy: no such entry")

// ErrTooLarge says that a session does not fit where its format keeps it: a
// cookie that browsers would drop, or a value over the store's limit. Nothing
// was stored.
var ErrTooLarge = errors.New("legacy: session too large for its format")
