// Package adopt is the contract between Sojourn and what reads and writes the
// sessions of other libraries, as package store is that with its engines.
// sojourn.Config.Adopt takes over sessions of a [Format]; the packages below
// github.com/sojourn-go/sojourn/legacy have formats of many libraries.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/values"
)

// Format finds and ends the sessions of one format of another library.
type Format interface {
	// Name says which format this is, such as "webapp2 session": one text per
	// library and cookie. It is part of an adopted session's identity and of
	// the counters; do not change it while adopting goes on.
	Name() string

	// Expires reports whether every session ends by itself, at a time that Find
	// tells.
	Expires() bool

	// Find returns the session that a request's header leads to, verified and
	// not expired at now, or nil if there is none. An error that wraps a
	// [Refusal] says that there is one that cannot be accepted, and if it wraps
	// [ErrUnreadable], that the library itself may well accept it; any other,
	// that a server could not be asked.
	Find(ctx context.Context, in http.Header, now time.Time) (*Session, error)

	// Forget returns the Set-Cookie fields that remove the session's cookies.
	Forget(old *Session) (setCookie []string)

	// End ends a session on the library's servers and returns what Forget does.
	// Only old.State is sure to be set. It is idempotent.
	End(ctx context.Context, old *Session) (setCookie []string, err error)
}

// Writer is a [Format] whose sessions can be written.
type Writer interface {
	Format

	// Write stores the session old.State names, or a new one if that is empty,
	// with old.Values in it, and returns the Set-Cookie fields to send. It sets
	// all other fields of old. It returns an error that wraps [ErrUnreadable], and
	// has written nothing, if the library has a session of that name that Find
	// could not read.
	Write(ctx context.Context, old *Session, now time.Time) (setCookie []string, err error)
}

// Session is a session of another library.
type Session struct {
	// Source is the Name of the [Format] that it comes from.
	Source string

	// Values are the decoded values by name, as plain Go values: nil, bool,
	// int64, float64, string, []byte, time.Time, *big.Int, []any, map[string]any,
	// and, of Go libraries, what they kept. See [Session.Get].
	Values map[string]any

	// User is who is logged in, where the library itself knows. Most do not:
	// there it is one of Values.
	User string

	// Credential is what the session is recognised by: its identifier, or the
	// cookie itself. It is secret.
	Credential []byte

	// State is what ending or writing the session needs. It is kept, sealed, in
	// the adopted session.
	State []byte

	Issued  time.Time // when it began, or when its cookie was made; zero = unknown
	Expires time.Time // when it is over if it is not used again; zero = never
	// Idle says that each use lets the session last for that long again.
	// 0 = Expires does not move.
	Idle time.Duration

	// Copies says that the cookie holds the values itself: a copy of it stays
	// valid for the library, whatever happens to the session.
	Copies bool

	// Native is what the library's package found, such as a *legacy.Session.
	Native any
}

// Get decodes the value of that name into the variable that into points to, as
// the Get of a sojourn.Session does: a dictionary becomes a struct or a map, a number any type
// that it fits. It returns sojourn.ErrNoValue or sojourn.ErrBadValue, and leaves the variable
// alone then.
func (s *Session) Get(name string, into any) error {
	v, ok := s.Values[name]
	if !ok {
		return fmt.Errorf("%w: %.40q", fault.NoValue, name)
	}
	raw, err := values.Encode(v)
	if err != nil {
		return fmt.Errorf("%w: the legacy value %.40q is a %T", fault.BadValue, name, v)
	}
	return values.Into(name, raw, into)
}

// ErrUnreadable says that a legacy session is genuine, and cannot be read: it is
// damaged, too large, of a newer version, or has values of unknown kinds. A
// WriteBack writes nothing over it.
var ErrUnreadable = errors.New("adopt: a genuine legacy session cannot be read")

// Refusal is the reason why a request's legacy session is not accepted, a
// stable word such as "bad_signature" or "expired". It is an error for
// [Format.Find] to return.
type Refusal string

// Error returns the reason.
func (r Refusal) Error() string { return string(r) }

func (s Session) text() string {
	return fmt.Sprintf("adopt.Session(%s, %d values)", s.Source, len(s.Values))
}

// Format prints the source and the number of values, whatever the verb.
func (s Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.text()) }

// LogValue is what Format prints.
func (s Session) LogValue() slog.Value { return slog.StringValue(s.text()) }

// MarshalText returns what Format prints.
func (s Session) MarshalText() ([]byte, error) { return []byte(s.text()), nil }

// Stats count what sojourn.Config.Adopt has done with the sessions of one format.
// They only grow.
type Stats struct {
	// Found are requests with a genuine, live legacy session and none of the
	// manager's. When it stops growing nobody is left to move.
	Found   uint64
	Adopted uint64 // sessions made of legacy ones
	// Refused are requests with a legacy session that was not accepted, by
	// reason: those of github.com/sojourn-go/sojourn/legacy/reason, and of the
	// manager "empty", "unmapped" (Map failed), "ended", "spent" (it was adopted,
	// and that session has ended or expired), "superseded" (it has a newer
	// credential), "revoked" (issued before its user's logout), "expired",
	// "unlimited", "too_large" and "too_many_sessions".
	Refused     map[string]uint64
	Outages     uint64 // requests to a legacy server that it did not answer
	Ended       uint64 // legacy sessions ended by a Logout, a Revoke, or somebody else's Login
	Written     uint64 // sessions written by a WriteBack
	WriteErrors uint64 // and those that could not be
}
