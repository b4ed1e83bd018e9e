package sojourn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Session is one visitor's state during one request. It comes from
// [Manager.Get] and is safe for concurrent use. Reading and
// changing values does no I/O; changes are kept by the commit before the
// response's first byte, or by Save. It prints as its handle.
type Session struct {
	// Behind a pointer: a struct that has a *Session in an unexported field may
	// be printed with %s, and then fmt asks no method and prints the fields that
	// the pointer leads to, but follows no second one.
	*session
}

type session struct {
	m   *core
	req request.Info
	ctx context.Context // of the request; nil in a draft

	mu sync.Mutex
	// updates counts the beginnings and the ends of Update functions: it is odd
	// while one runs. See lock.
	updates atomic.Uint64

	last  *stored.State // as loaded or last saved
	draft draft.Draft   // what the request does to it
	// handed are the flash messages that were handed out and are still there: they
	// are removed once it is known that the response is shown.
	handed map[uint64]bool
	ending *ending      // last is to be ended
	login  *draft.Login // a fresh session is to be made for this user
	checks func() error // of LoginIf, while it runs
	link   string       // of Link, until its Login
	fresh  *stored.Who  // identifier of a session that does not exist yet
	failed error        // why the next commit must fail

	presentDue bool // the newest credential came back for the first time
	rotateDue  bool // it is old enough to be replaced
	background bool // the request does not count as activity
	unshown    bool // the response has started, and browsers do not show it
	loaded     time.Time
	noted      time.Time   // when activity was noted, or tried to, since the last save
	awake      *time.Timer // calls wake
	stream     atomic.Bool // the request lasts for as long as a page is open; see waits

	others []wire.Reference // of other sessions that the request brought

	jar      cookies.Jar // what the browser holds once it has the response's cookies
	brought  store.ID    // the session that came with the request; zero if none
	isNew    bool        // no live session came with the request
	outdated bool        // of the credentials that were refused, one leads to a live session
	lost     uint64      // the browser's floor, if the store fell behind it
	// unproven: the jar sets a reference, and its session may have ended since it
	// was last loaded or saved.
	unproven bool

	phase phase
	late  error       // why nothing is kept any more, in phaseOver
	watch *ends.Watch // of Done
}

func newSession(m *core) *Session {
	s := new(struct { // one allocation
		Session
		session
	})
	s.Session.session = &s.session
	s.Session.m = m
	return &s.Session
}

// phase is how far the response is.
type phase uint8

const (
	phaseOpen  phase = iota // the header can still be changed
	phaseBody               // the first byte is out: no cookies any more
	phaseOver               // failed or finished: nothing is kept any more
	phaseDraft              // not of a request: what Config.Adopt gives to the application
)

// ending says that the session as it was loaded is to be ended.
type ending struct {
	carry bool        // its values go on in the session that a login makes
	taken draft.Draft // what was taken from it before the Logout
}

// Placement is where a session lives.
type Placement uint8

const (
	PlacementNone   Placement = iota // nowhere: it holds nothing
	PlacementInline                  // sealed in a cookie
	PlacementStored                  // in the store
)

// String returns "none", "inline" or "stored".
func (p Placement) String() string {
	switch p {
	case PlacementInline:
		return "inline"
	case PlacementStored:
		return "stored"
	default:
		return "none"
	}
}

// IsNew reports whether the request brought no live session.
func (s *Session) IsNew() bool {
	s.lock()
	defer s.mu.Unlock()
	return s.isNew
}

// Handle returns the session's public name: 26 letters and digits, no secret,
// for logs and admin pages. It stays the same across Rotate, and is new after
// Login and Logout. A session that is never saved never uses it.
func (s *Session) Handle() string {
	s.lock()
	defer s.mu.Unlock()
	return s.identity().ID.String()
}

// identity returns the identifier that the session has, or will have.
func (s *session) identity() stored.Who {
	if s.fresh == nil {
		if s.base().Where != rules.Nowhere {
			return s.base().Who
		}
		id := stored.NewWho()
		s.fresh = &id
	}
	return *s.fresh
}

// User returns the name that Login was given, or "" for an anonymous visitor.
func (s *Session) User() string {
	s.lock()
	defer s.mu.Unlock()
	return s.draft.View().Header.User
}

// Save commits now: afterwards Get returns what was committed, and popped
// values are this request's. On an error nothing was kept and the changes stay
// pending; but if the store's answers stay away for all of Config.Timeout,
// that is not known: then Save returns [ErrUnavailable], and so does every
// later commit of the request if an Update or a Pop is among the changes,
// until Discard. Cookies are set with the response.
//
// Before the response's first byte everything can be kept. Between it and the
// handler's return, also after a Hijack, what needs no cookie: values, flash
// messages and a Logout of a session that was stored when the response
// started. After the handler has returned or panicked, after a status of 500
// or above and after a failed commit: nothing. The rest is [ErrTooLate], and
// is logged and counted even if nobody calls Save. A goroutine that changes
// the session has to be waited for by the handler.
//
// After the first byte, Save also counts as activity: a WebSocket handler
// calls it when a message has come in.
func (s *Session) Save(ctx context.Context) error {
	s.lock()
	defer s.mu.Unlock()
	return s.save(ctx)
}

func (s *session) save(ctx context.Context) error {
	switch {
	case s.phase == phaseDraft:
		return errDraft
	case s.phase == phaseOver && errors.Is(s.late, errReturned) && !s.pending():
		return nil // the last commit has kept everything
	case s.phase == phaseOver:
		return s.late
	}
	if s.phase != phaseOpen { // else nobody knows yet whether the page will be shown
		s.removeHanded()
	}
	err := s.commit(ctx, commitSave)
	if err == nil {
		s.keepAwake()
		now := s.m.now()
		if s.phase == phaseBody && !s.background && s.last.Where == rules.Stored &&
			s.m.limits.TouchDue(&s.last.Rec.Header, rules.Later(s.last.Meta.Seen, s.noted), now) {
			s.noteLate(ctx, now)
		}
	}
	return err
}

// Discard drops every change that was not saved, Login and Logout included.
func (s *Session) Discard() {
	s.lock()
	defer s.mu.Unlock()
	s.discard()
}

func (s *session) discard() {
	s.handed = nil
	s.ending, s.login, s.fresh, s.failed, s.link = nil, nil, nil, nil, ""
	s.draft.Start(&s.last.Rec)
}

// base is the state that the pending changes apply to: nothing, after Logout.
func (s *session) base() *stored.State {
	if s.ending != nil && !s.ending.carry {
		return stored.Nothing
	}
	return s.last
}

// Get decodes the value of that name into the variable that into points to, of
// a type that [NewKey] takes; for names known at compile time use a [Key]. It
// returns [ErrNoValue] or [ErrBadValue], and leaves the variable alone then.
func (s *Session) Get(name string, into any) error {
	s.lock()
	raw, ok := s.raw(name)
	s.mu.Unlock()
	if !ok || strings.HasPrefix(name, "_") {
		return fmt.Errorf("%w: %.40q", ErrNoValue, name)
	}
	return values.Into(name, raw, into)
}

// Set changes the value of that name. It is encoded now, in the form of its
// own type. A value that would not come back as it is (see [NewKey]), or a
// name that cannot be used (empty, over 255 bytes, or starting with "_"),
// fails the commit with [ErrBadValue].
func (s *Session) Set(name string, value any) {
	raw, err := encodeNamed(name, value)
	s.lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failLater(err)
		return
	}
	s.put(draft.Slot{Name: name}, raw)
}

func encodeNamed(name string, value any) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	raw, err := values.Encode(value)
	if err != nil {
		return nil, values.Bad("encode", name, reflect.TypeOf(value), err)
	}
	return raw, nil
}

// Has reports whether the session has a value of that name.
func (s *Session) Has(name string) bool {
	s.lock()
	defer s.mu.Unlock()
	_, ok := s.raw(name)
	return ok && !strings.HasPrefix(name, "_")
}

// Delete removes the value of that name, if there is one.
func (s *Session) Delete(name string) {
	if strings.HasPrefix(name, "_") {
		return
	}
	s.lock()
	defer s.mu.Unlock()
	if s.draft.Remove(name) {
		s.changing()
	}
}

// Names returns the names of all values, sorted.
func (s *Session) Names() []string {
	s.lock()
	defer s.mu.Unlock()
	now := s.m.now().UnixMilli()
	fields := s.draft.View().Frames()
	names := make([]string, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if f.Live(now) && !strings.HasPrefix(f.Name, "_") {
			names = append(names, f.Name)
		}
	}
	return names
}

// Clear removes all values and flash messages. The visitor stays logged in.
func (s *Session) Clear() {
	s.lock()
	defer s.mu.Unlock()
	if s.draft.Clear() {
		s.changing()
	}
}

// The methods below are called with mu held.

// raw returns the current bytes of a value.
func (s *session) raw(name string) ([]byte, bool) { return s.draft.Get(name) }

// put changes a value. After a Login it may have to start from nothing.
func (s *session) put(k draft.Slot, raw []byte) {
	if s.draft.Set(k, raw, s.login != nil) {
		s.changing()
	}
}

// takeIf takes a value, unless it has changed from what raw says.
func (s *session) takeIf(name string, raw []byte) bool {
	s.lock()
	defer s.mu.Unlock()
	ok := s.draft.Take(name, raw)
	if ok {
		s.changing()
	}
	return ok
}

func (s *session) update(k draft.Slot, f draft.Update) ([]byte, error) {
	if s.draft.Run == nil {
		s.draft.Run = s.call
	}
	raw, changed, err := s.draft.Update(k, f, s.login != nil)
	if changed {
		s.changing()
	}
	return raw, err
}

// failLater makes the next commit fail: its changes would not be all there. The
// first reason is told.
func (s *session) failLater(err error) {
	if s.failed == nil {
		s.failed = err
	}
}

// handleOf returns the session's handle, or "in use" where somebody is changing
// the session, perhaps the caller: printing never waits.
func handleOf(s *Session) string {
	if s == nil || s.session == nil {
		return "none"
	}
	if !s.mu.TryLock() {
		return "in use"
	}
	defer s.mu.Unlock()
	if s.last == nil { // it was not loaded
		return "none"
	}
	return s.identity().ID.String()
}

// Format prints the handle, or "in use" while it is being changed, whatever
// the verb.
func (s *Session) Format(f fmt.State, _ rune) { printText(f, "sojourn.Session("+handleOf(s)+")") }

// LogValue is the session's handle, as Format prints it.
func (s *Session) LogValue() slog.Value { return slog.StringValue(handleOf(s)) }
