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

// Session is the state of one visitor during one request. It comes from
// [Manager.Get], is safe for concurrent use, and prints as its handle. Reading
// and changing values does no I/O. Changes are saved by the commit before the
// response's first byte, or by Save.
type Session struct {
	// Behind a pointer: if a struct has a *Session in an unexported field and is
	// printed with %s, fmt calls no methods and prints the fields behind the first
	// pointer. It does not follow a second pointer.
	*session
}

type session struct {
	m   *core
	req request.Info
	ctx context.Context // of the request; nil in a draft

	mu sync.Mutex
	// updates counts the starts and the ends of Update functions: it is odd while one
	// runs. See lock.
	updates atomic.Uint64

	last  *stored.State // as loaded or last saved
	draft draft.Draft   // the request's changes
	// handed are the flash messages that Flashes has returned. They are removed when
	// it is known that the browser shows the response.
	handed map[uint64]bool
	ending *ending      // the pending end of last
	login  *draft.Login // the pending login
	checks func() error // of LoginIf, while it runs
	link   string       // of Link, until its Login
	fresh  *stored.Who  // identifier of a session that does not exist yet
	failed error        // why the next commit must fail

	presentDue bool // the newest credential came back for the first time
	rotateDue  bool // it is old enough to be replaced
	background bool // the request does not count as activity
	unshown    bool // the response has started, and browsers do not show it
	loaded     time.Time
	noted      time.Time   // last attempt to record activity since the last save
	awake      *time.Timer // calls wake
	stream     atomic.Bool // the request lasts as long as a page is open; see waits

	others []wire.Reference // of other sessions that the request brought

	jar      cookies.Jar // the browser's cookies after the response
	brought  store.ID    // the session that came with the request; zero if none
	isNew    bool        // no live session came with the request
	outdated bool        // a refused credential belongs to a live session
	lost     uint64      // the browser's floor, if the store has an older version
	// unproven: the jar sets a reference, and its session may have ended since it
	// was last loaded or saved.
	unproven bool

	phase phase
	late  error       // in phaseOver: why nothing is saved any more
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

// phase is the state of the response.
type phase uint8

const (
	phaseOpen  phase = iota // the header can still be changed
	phaseBody               // the first byte was sent: no more cookies
	phaseOver               // failed or finished: nothing more is saved
	phaseDraft              // no request: an argument of a function of the application
)

// ending is the pending end of the session that was loaded.
type ending struct {
	carry bool        // a login moves its values into a new session
	taken draft.Draft // the values popped before the Logout
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

// IsNew reports whether the request had no live session.
func (s *Session) IsNew() bool {
	s.lock()
	defer s.mu.Unlock()
	return s.isNew
}

// Handle returns the session's public name, for logs and admin pages: 26
// letters and digits. Login and Logout change it, Rotate does not. Before the
// first save, it is the handle that the session will have.
func (s *Session) Handle() string {
	s.lock()
	defer s.mu.Unlock()
	return s.identity().ID.String()
}

// identity returns the session's identifier, or the one that a new session will
// have.
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

// User returns the user of the last Login, or "" for an anonymous visitor.
func (s *Session) User() string {
	s.lock()
	defer s.mu.Unlock()
	return s.draft.View().Header.User
}

// Save commits now. Afterwards Get returns the committed values, and popped
// values belong to this request. On an error, nothing was saved and the changes
// stay pending. If the store does not answer within Config.Timeout, the outcome
// is unknown: Save returns [ErrUnavailable] and, if the changes include an
// Update or a Pop, so does every later commit until Discard. Cookies are set
// with the response. After the first byte, Save also counts as activity: a
// WebSocket handler calls it for each message.
//
// Before the first byte, every change can be saved. After it (also after a
// Hijack), until the handler returns, only values, flash messages, and a Logout
// of a session that was stored when the response started. After a return, a
// panic, a status of 500 or above, or a failed commit, nothing can be saved.
// Such a change is [ErrTooLate], and is logged and counted even without a Save.
// The handler must wait for its goroutines that use the session.
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
		return nil // the last commit has saved everything
	case s.phase == phaseOver:
		return s.late
	}
	if s.phase != phaseOpen { // else it is not yet known whether the browser shows the page
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

// Discard drops all unsaved changes, including Login and Logout.
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

// base returns the state that the pending changes apply to, which is empty
// after Logout.
func (s *session) base() *stored.State {
	if s.ending != nil && !s.ending.carry {
		return stored.Nothing
	}
	return s.last
}

// Get decodes the value of that name into the variable that into points to, of
// a type that [NewKey] accepts. On an error ([ErrNoValue] or [ErrBadValue]) it
// does not change the variable. For names known at compile time, use a [Key].
func (s *Session) Get(name string, into any) error {
	s.lock()
	raw, ok := s.raw(name)
	s.mu.Unlock()
	if !ok || strings.HasPrefix(name, "_") {
		return fmt.Errorf("%w: %.40q", ErrNoValue, name)
	}
	return values.Into(name, raw, into)
}

// Set changes the value of that name. It is encoded now, as its dynamic type. A
// value that cannot be restored unchanged (see [NewKey]), or a name that is
// empty, over 255 bytes, or starts with "_", fails the commit with
// [ErrBadValue].
func (s *Session) Set(name string, value any) {
	raw, err := encodeNamed(name, value)
	s.lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failLater(err)
		return
	}
	s.put(draft.Slot{Name: strings.Clone(name)}, raw) // servers such as Fiber reuse the memory of strings
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
	if s.draft.Remove(strings.Clone(name)) {
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

// The methods below are called with mu held, except takeIf.

// raw returns the current bytes of a value.
func (s *session) raw(name string) ([]byte, bool) { return s.draft.Get(name) }

// put changes a value. After a Login, the new value may have to replace
// everything.
func (s *session) put(k draft.Slot, raw []byte) {
	if s.draft.Set(k, raw, s.login != nil) {
		s.changing()
	}
}

// takeIf removes a value, unless it differs from raw.
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

// failLater makes the next commit fail, because a change is missing from it.
// The commit returns the first such error.
func (s *session) failLater(err error) {
	if s.failed == nil {
		s.failed = err
	}
}

// handleOf returns the session's handle, or "in use" while the session is
// locked, perhaps by the caller: printing never waits.
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

func (s *Session) Format(f fmt.State, _ rune) { printText(f, "sojourn.Session("+handleOf(s)+")") }

func (s *Session) LogValue() slog.Value { return slog.StringValue(handleOf(s)) }
