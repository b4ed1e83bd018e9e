// Package adopt is the contract between Sojourn and the packages that read and
// write the sessions of other libraries. sojourn.Config.Adopt takes over
// sessions of a [Format]; the packages below
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
	// Name identifies the format, such as "webapp2 session": one text per
	// library and cookie. It is part of an adopted session's identity and of
	// the counters, so do not change it while sessions are still being adopted.
	Name() string

	// Expires reports whether every session expires by itself. Find returns the
	// time.
	Expires() bool

	// Find returns the session that a request's header leads to, verified and
	// not expired at now, or nil if there is none. An error that wraps a
	// [Refusal] means that the session cannot be accepted. If it wraps
	// [ErrUnreadable], the library itself may still accept the session. Any
	// other error means that a server did not answer.
	Find(ctx context.Context, in http.Header, now time.Time) (*Session, error)

	// Forget returns the Set-Cookie fields that remove the session's cookies.
	Forget(old *Session) (setCookie []string)

	// End ends a session on the library's servers and returns what Forget does.
	// Only old.State is always set. It is idempotent.
	End(ctx context.Context, old *Session) (setCookie []string, err error)
}

// Writer is a [Format] whose sessions can be written.
type Writer interface {
	Format

	// Write stores old.Values in the session that old.State names, or in a new
	// session if old.State is empty. It sets all other fields of old and
	// returns the Set-Cookie fields to send. If the library has a session of
	// that name that Find cannot read, Write writes nothing and returns an
	// error that wraps [ErrUnreadable].
	Write(ctx context.Context, old *Session, now time.Time) (setCookie []string, err error)
}

// Session is a session of another library.
type Session struct {
	// Source is the Name of the [Format] that it comes from.
	Source string

	// Values are the decoded values by name, as plain Go values: nil, bool,
	// int64, float64, string, []byte, time.Time, *big.Int, []any,
	// map[string]any, and, from Go libraries, their own types. See
	// [Session.Get].
	Values map[string]any

	// User is the logged-in user, if the library has that notion. Most do not;
	// then the user is one of Values.
	User string

	// Credential identifies the session: its identifier, or the cookie itself.
	// It is secret.
	Credential []byte

	// State is the data that Write and End need. It is kept, sealed, in the
	// adopted session.
	State []byte

	Issued  time.Time // when it began, or when its cookie was made; zero = unknown
	Expires time.Time // when it expires if it is not used again; zero = never
	// Idle is the time by which each use extends the session. 0 = uses do not
	// extend it.
	Idle time.Duration

	// Copies is true if the cookie itself holds the values. The library accepts
	// a copy of such a cookie even after the session has ended.
	Copies bool

	// Native is what the library's package found, such as a *legacy.Session.
	Native any
}

// Get decodes the value of that name into the variable that into points to,
// like the Get of a sojourn.Session. A dictionary becomes a struct or a map,
// and a number any type that it fits. If it returns sojourn.ErrNoValue or
// sojourn.ErrBadValue, the variable is unchanged.
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

// ErrUnreadable means that a legacy session is genuine but cannot be read: it
// is damaged, too large, of a newer version, or has values of unknown kinds. A
// WriteBack does not overwrite it.
var ErrUnreadable = errors.New("adopt: a genuine legacy session cannot be read")

// Refusal is the reason why a request's legacy session is not accepted, a
// stable word such as "bad_signature" or "expired". [Format.Find] returns it as
// an error.
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

// Stats are the counters of sojourn.Config.Adopt for one format. They only
// grow.
type Stats struct {
	// Found counts requests with a genuine, live legacy session and without a
	// session of the manager. When it stops growing, no visitor is left to
	// move.
	Found   uint64
	Adopted uint64 // sessions made of legacy ones
	// Refused counts requests with a legacy session that was not accepted, by
	// reason. The reasons are those of
	// github.com/sojourn-go/sojourn/legacy/reason, and these of the manager:
	// "empty", "unmapped" (Map failed), "ended", "spent" (it was adopted, and
	// that session has ended or expired), "superseded" (it has a newer
	// credential), "revoked" (issued before its user's logout), "expired",
	// "unlimited", "too_large" and "too_many_sessions".
	Refused     map[string]uint64
	Outages     uint64 // requests to a legacy server that it did not answer
	Ended       uint64 // legacy sessions ended by a Logout, a Revoke, or another user's Login
	Written     uint64 // sessions written by a WriteBack
	WriteErrors uint64 // failed writes of a WriteBack
}
