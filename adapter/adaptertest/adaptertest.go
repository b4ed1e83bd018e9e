// Package adaptertest tests how sojourn is wired into a framework: the adapters
// of this repository, and an application's own wiring.
//
// A [Wiring] starts a server of the framework that runs an [App], a small
// application that does not depend on a framework. [Run] sends requests to it,
// over real connections on loopback, and checks what a wiring can break: the
// cookie is sent before the first byte, a failed commit is answered with an
// error, a failed request keeps only a logout, streams end with their session,
// and more. Each subtest's name describes its check.
package adaptertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
)

// Wiring is one way to use sojourn in a framework.
type Wiring struct {
	// Start starts a server on loopback, on a port that the system chooses, and
	// returns a client of it. The server runs app for each request, and stops when
	// the test ends (t.Cleanup). It is called once for each check, from several
	// goroutines at once.
	Start func(t testing.TB, sessions *sojourn.Manager, app App) Client

	// Cannot lists what the framework or the wiring does not support, and why.
	// These abilities are logged and not checked.
	Cannot map[Ability]string

	// Patience is how long a check waits for an expected event. 0 = 30 seconds,
	// enough for a busy machine.
	Patience time.Duration
}

// Ability is a feature that not every framework has.
type Ability string

// The abilities. Each but Statuses, Errors, Panics and Caching is a function of
// [Call].
const (
	Statuses   Ability = "statuses"    // a handler chooses an HTTP status for the client
	Errors     Ability = "errors"      // a handler returns an error, which the framework renders
	Panics     Ability = "panics"      // a panic in a handler does not end the process
	Caching    Ability = "caching"     // answers have Vary and Cache-Control, which RPC does not use
	Streams    Ability = "streams"     // [Call.Stream]
	WebSockets Ability = "web sockets" // [Call.WebSocket]
	Hijacking  Ability = "hijacking"   // [Call.Hijack]
	Files      Ability = "files"       // [Call.File]
	BodyLimits Ability = "body limits" // [Call.Body]
)

var abilities = []Ability{Statuses, Errors, Panics, Caching, Streams, WebSockets, Hijacking, Files, BodyLimits}

// App is an application that does not depend on a framework. The framework's
// handler returns its error, which may be a [StatusError] or an error of
// [sojourn.Manager.Get]. The error is nil after a successful call of Respond,
// Stream, WebSocket, Hijack or File.
type App func(*Call) error

// Call is one request, as the framework's handler sees it, and its response.
// [HTTPCall] returns one for handlers of net/http; a wiring replaces the
// functions that differ in the framework.
type Call struct {
	// Context is where [sojourn.Manager.Get] finds the session.
	Context context.Context
	// Param returns a parameter of [Request.Params], "" if there is none.
	Param func(name string) string
	// Respond answers with that status, and with text as the body. RPC, which
	// has no status (see [Statuses]), only answers with text; status is then
	// 200.
	Respond func(status int, text string) error

	// Stream answers with lines of text that are sent one by one. It calls body
	// before it returns, or after the handler has returned. send returns when
	// the line has been sent, or an error if the client has disconnected.
	Stream func(body func(send func(line string) error) error) error
	// WebSocket upgrades the request, and calls serve, before it returns or when the
	// handler has returned. The connection is closed when serve returns.
	WebSocket func(serve func(Socket)) error
	// Hijack takes over the connection, and returns the header with the cookies
	// for the response that is written to it by hand.
	Hijack func() (net.Conn, *bufio.ReadWriter, http.Header, error)
	// File answers with a file.
	File func(path string) error
	// Body reads the request's body, with an error if it is longer than limit
	// bytes. Then the handler answers 413.
	Body func(limit int64) ([]byte, error)
}

// Socket is the server's side of a WebSocket. Close may be called while another
// goroutine receives.
type Socket interface {
	Receive() (string, error)
	Send(text string) error
	Close() error
}

// StatusError is an error of an application that the framework answers with
// that status. A wiring turns it into the framework's own type, if there is one.
type StatusError struct{ Status int }

// Error implements error.
func (e StatusError) Error() string {
	return fmt.Sprintf("adaptertest: %d %s", e.Status, http.StatusText(e.Status))
}

// ErrorAnswer returns the status and the text for an error of an [App]: those
// of a [StatusError], 500 for another error of the application, and otherwise
// those of [sojourn.ErrorStatus].
func ErrorAnswer(err error) (status int, text string) {
	var own StatusError
	switch {
	case errors.As(err, &own):
		return own.Status, own.Error()
	case errors.Is(err, errApp):
		return http.StatusInternalServerError, err.Error()
	default:
		return sojourn.ErrorStatus(err)
	}
}

// errApp is an App's own error, unrelated to HTTP and sojourn.
var errApp = errors.New("adaptertest: the application has failed")

// Client sends requests to the server of a wiring. [HTTP] is one; RPC
// frameworks bring their own. It must be safe for concurrent use.
type Client interface {
	// Send sends a request and returns when it has received the answer's
	// header, or an error if there is none. Canceling ctx closes the
	// connection, or the stream.
	Send(ctx context.Context, r Request) (*Answer, error)
}

// Request is a request of a [Client].
type Request struct {
	Header http.Header       // among others Cookie and User-Agent
	Params map[string]string // see [Call.Param]
	Body   io.Reader         // nil unless the wiring has the ability BodyLimits
}

// Answer is an answer that a [Client] receives.
type Answer struct {
	Failed bool        // the call failed: by an HTTP status from 400 on, or an error of RPC
	Status int         // of HTTP; 0 if the wiring does not have the ability Statuses
	Header http.Header // among others Set-Cookie; names in canonical form
	Closes bool        // the server announced that it closes the connection
	Body   io.ReadCloser
}

// Run tests a wiring, in parallel subtests. They run after the calling test has
// returned, so close their resources with t.Cleanup, not with defer.
func Run(t *testing.T, w Wiring) {
	t.Helper()
	w.report(t)
	for _, c := range checks {
		if !w.can(c.needs...) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w.run(t, c)
		})
	}
}

// Failure is a check that a wiring did not pass.
type Failure struct {
	Check string // its name, as of the subtest
	Text  string // the failure message
}

// Check is Run, except that it returns the failures, for testing that a wiring
// does not work. It waits for all checks.
func Check(t testing.TB, w Wiring) []Failure {
	t.Helper()
	w.report(t)
	var (
		mu       sync.Mutex
		failures []Failure
		all      sync.WaitGroup
	)
	for _, c := range checks {
		if !w.can(c.needs...) {
			continue
		}
		all.Go(func() {
			r := &recorder{TB: t, name: c.name}
			defer func() {
				r.cleanUp()
				if text := r.text(); text != "" {
					mu.Lock()
					defer mu.Unlock()
					failures = append(failures, Failure{c.name, text})
				}
			}()
			w.run(r, c)
		})
	}
	all.Wait()
	slices.SortFunc(failures, func(a, b Failure) int { return strings.Compare(a.Check, b.Check) })
	return failures
}

func (w Wiring) report(t testing.TB) {
	t.Helper()
	if w.Start == nil {
		t.Fatal("adaptertest: Wiring.Start is nil")
	}
	for a, why := range w.Cannot {
		if !slices.Contains(abilities, a) || why == "" {
			t.Errorf("adaptertest: Wiring.Cannot[%q] = %q: no such ability, or no reason", a, why)
		}
		var left []string
		for _, c := range checks {
			if slices.Contains(c.needs, a) {
				left = append(left, c.name)
			}
		}
		t.Logf("no %s (%s), so this is not checked: %s", a, why, strings.Join(left, "; "))
	}
}

func (w Wiring) can(all ...Ability) bool {
	return !slices.ContainsFunc(all, func(a Ability) bool { return w.Cannot[a] != "" })
}

func (w Wiring) run(t testing.TB, c check) {
	patience := w.Patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c.run(&suite{TB: t, Wiring: w, ctx: ctx})
}

// recorder is a separate test inside another: it records failures.
type recorder struct {
	testing.TB
	name string

	mu       sync.Mutex
	failed   bool
	lines    []string
	cleanups []func()
}

func (r *recorder) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	r.lines = append(r.lines, strings.TrimSpace(line))
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failed {
		return ""
	}
	return strings.Join(append(r.lines, ""), "\n")
}

func (r *recorder) cleanUp() {
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		f()
	}
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Name() string              { return r.TB.Name() + "/" + r.name }
func (r *recorder) Helper()                   {}
func (r *recorder) Log(...any)                {}
func (r *recorder) Logf(string, ...any)       {}
func (r *recorder) Fail()                     { r.add("failed") }
func (r *recorder) Error(args ...any)         { r.add(fmt.Sprintln(args...)) }
func (r *recorder) Errorf(f string, a ...any) { r.add(fmt.Sprintf(f, a...)) }
func (r *recorder) FailNow()                  { r.add("failed"); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)         { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); runtime.Goexit() }
