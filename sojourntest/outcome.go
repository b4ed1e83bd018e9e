package sojourntest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
)

// LoggedIn returns a request of a visitor who is logged in as user: [Request] in
// one line.
func LoggedIn(t testing.TB, m *sojourn.Manager, user, method, target string, body io.Reader) *http.Request {
	t.Helper()
	return Request(t, m, method, target, body, func(s *sojourn.Session) { s.Login(user) })
}

// An Outcome is the result of one request; see [Serve].
type Outcome struct {
	*http.Response
	// Session is the session as the visitor's next request would find it; see
	// the function [Session].
	Session *sojourn.Session
	// Saved reports whether the request saved anything: it wrote to the store,
	// or set one of the manager's cookies. Extending a stored session's idle
	// timeout does not count.
	Saved bool

	t testing.TB
}

// Serve lets handler answer r and returns the outcome. Nothing else may save
// sessions of m meanwhile, because that would also set Saved.
func Serve(t testing.TB, m *sojourn.Manager, handler http.Handler, r *http.Request) *Outcome {
	t.Helper()
	before := ops.For(m).Stats()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	after := ops.For(m).Stats()
	o := &Outcome{Response: w.Result(), t: t}
	o.Saved = after.Saves != before.Saves || after.VolatileSaves != before.VolatileSaves ||
		slices.ContainsFunc(o.Cookies(), func(c *http.Cookie) bool { return isOf(m, c.Name) })
	o.Session = Session(t, m, r, o.Response)
	return o
}

// isOf reports whether a cookie of that name is the manager's.
func isOf(m *sojourn.Manager, name string) bool {
	for _, prefix := range []string{"__Host-", "__Secure-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	rest, ok := strings.CutPrefix(name, ops.For(m).Name())
	return ok && (rest == "" || strings.HasPrefix(rest, "-state"))
}

// WantSaved fails the test unless Saved is want.
func (o *Outcome) WantSaved(want bool) {
	o.t.Helper()
	switch {
	case want && !o.Saved:
		o.t.Errorf("sojourntest: the request (status %d) kept nothing; it was to change its session", o.StatusCode)
	case !want && o.Saved:
		o.t.Errorf("sojourntest: the request (status %d) saved its session; it was to leave it alone", o.StatusCode)
	}
}

// WantUser fails the test unless the visitor is logged in as user; "" means not
// logged in.
func (o *Outcome) WantUser(user string) {
	o.t.Helper()
	switch got := o.Session.User(); {
	case got == user:
	case user == "":
		o.t.Errorf("sojourntest: the visitor is logged in as %q, want nobody", got)
	case got == "":
		o.t.Errorf("sojourntest: nobody is logged in, want %q", user)
	default:
		o.t.Errorf("sojourntest: the visitor is logged in as %q, want %q", got, user)
	}
}

// WantPlacement fails the test unless the session has that placement.
func (o *Outcome) WantPlacement(want sojourn.Placement) {
	o.t.Helper()
	if got := o.Session.Info().Placement; got != want {
		o.t.Errorf("sojourntest: the session's placement is %v, want %v", got, want)
	}
}

// WantFlashes fails the test unless these messages, and no others, are waiting
// for the visitor's next page, in this order, each as "level: text".
func (o *Outcome) WantFlashes(want ...string) {
	o.t.Helper()
	fresh := o.Session.Flashes()
	got := make([]string, len(fresh))
	for i, f := range fresh {
		got[i] = f.Level + ": " + f.Text
	}
	if !slices.Equal(got, want) {
		o.t.Errorf("sojourntest: the flash messages are %q, want %q", got, want)
	}
}

// WantValue fails the test unless the session has that value under that key. A
// session without the value has the zero value of its type.
func WantValue[T any](o *Outcome, key sojourn.Key[T], want T) {
	o.t.Helper()
	if got := key.Get(o.Session); !reflect.DeepEqual(got, want) {
		o.t.Errorf("sojourntest: the session's %q is %#v, want %#v", key.Name(), got, want)
	}
}

// Events records the events of a manager. The zero value is ready; set
// Config.Events to its method Record.
type Events struct {
	mu  sync.Mutex
	all []sojourn.Event
}

// Record records an event.
func (e *Events) Record(_ context.Context, event sojourn.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

// Take returns the events since the last call.
func (e *Events) Take() []sojourn.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// Want takes the events, and fails the test unless they are of these kinds, in
// this order.
func (e *Events) Want(t testing.TB, kinds ...sojourn.EventKind) {
	t.Helper()
	var got []sojourn.EventKind
	for _, event := range e.Take() {
		got = append(got, event.Kind)
	}
	if !slices.Equal(got, kinds) {
		t.Errorf("sojourntest: the events are %v, want %v", got, kinds)
	}
}
