// Package stored handles sessions in a store: it loads one at a floor, saves it
// by compare-and-set together with concurrent changes, and moves, ends and
// touches it. It does not depend on requests or cookies. It never returns a
// record of another row, and never revives an ended session.
package stored

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Observer receives what happens. Its methods must not block.
type Observer interface {
	Loaded()        // the store has answered
	Saved()         // a record was written
	Conflicted()    // a save was refused after a concurrent one
	Retried()       // a save was sent again, because its outcome was unknown
	Touched()       // an idle deadline was extended
	VolatileSaved() // a change of Volatile values was kept in a cache
	// StoreFailed reports a failure of the store, and returns the error for it,
	// which wraps fault.Unavailable.
	StoreFailed(ctx context.Context, doing string, err error) error
	Damaged(id store.ID, err error) // a record does not open, or is another's
	KeyLacking(id store.ID)         // a record is sealed with an unknown key
	LostWrites(id store.ID)         // the store answered with less than it had before
	Mended()                        // a time in the future was corrected
}

// Options are the dependencies and settings of Sessions.
type Options struct {
	Store    store.Store
	Limits   *rules.Limits
	Ring     func() *seal.Ring
	Scope    string // the result of wire.Scope: bound into all sealed and indexed data
	Observer Observer
	Timeout  time.Duration // of one load or commit, retries included
	Now      func() time.Time
	// Foreign is until when another library's credential could bring a session
	// back; the zero time = never.
	Foreign func(h *record.Header, now time.Time) time.Time
	// Carry copies data other than values from the previous session's header to
	// a login's.
	Carry func(to, from *record.Header)
	// Stop ends when the process is about to end; nil = never.
	Stop context.Context
	// Go runs a function in a goroutine for which the process waits before it
	// ends, or returns fault.Closed; nil = without a wait.
	Go func(func()) error
}

// Sessions are the sessions in one store. It is safe for concurrent use.
type Sessions struct {
	Options
	bound  []byte // additional data of everything that is sealed
	queues *queues
	leases *leases
}

// New returns the sessions of a store.
func New(o Options) *Sessions {
	return &Sessions{Options: o, bound: wire.Bind(o.Scope), queues: new(queues), leases: new(leases)}
}

// Within returns the sessions of another scope in the same store.
func (s *Sessions) Within(scope string) *Sessions {
	other := *s
	other.Scope, other.bound = scope, wire.Bind(scope)
	return &other
}

// A Who is a session identifier and the row key it hashes to.
type Who struct {
	Identifier []byte // nil if only the row is known
	ID         store.ID
}

// NewWho returns a fresh identifier.
func NewWho() Who {
	b := make([]byte, record.IdentifierSize)
	_, _ = rand.Read(b) // never fails
	return WhoIs(b)
}

// WhoIs returns the Who of an identifier.
func WhoIs(identifier []byte) Who { return Who{identifier, store.HashIdentifier(identifier)} }

// State is a loaded or saved session, inline or stored. It is immutable and
// shared.
type State struct {
	Who
	Where    rules.Where
	Rec      record.Record
	Meta     store.Record // of a stored session, without Data
	Volatile store.SaveID // of the volatile values in Rec from a cache; 0 = none
	Size     int          // bytes: of the cookie's name and value, or of the sealed record
	Mended   bool         // it differs from what was kept: see rules.Limits.Mend
}

// Nothing is a session that lives nowhere.
var Nothing = &State{}

// Floor is the browser's floor for a stored session.
func (st *State) Floor() wire.Floor {
	return wire.Floor{ID: st.ID, Version: st.Meta.Version, Volatile: st.Volatile != 0}
}

// ErrGone means that a session does not exist any more. The error is a *Gone.
var ErrGone = errors.New("sojourn: the session is over")

// Gone describes how a session ended, as far as known.
type Gone struct {
	Ended    time.Time // zero if it expired or was never there
	Replaced bool      // by Login or Logout, which its browser has learned
	Expired  bool      // the record exists, but its deadline has passed
	Damaged  bool      // a part of it does not open, and the browser must forget it
}

func (g *Gone) Error() string        { return ErrGone.Error() }
func (g *Gone) Is(target error) bool { return target == ErrGone }

// ToldOf reports whether the browser learned of the session's end so recently
// that its earlier requests may still be under way.
func (g *Gone) ToldOf(now time.Time) bool {
	return g.Replaced && now.Sub(g.Ended) < store.MinTombstone
}

var (
	// ErrDamaged means that the store's record under an ID is not one of that
	// ID. The observer was called.
	ErrDamaged = errors.New("sojourn: a record was damaged or moved")

	// ErrKeyLacking says that a record is sealed with an unknown key.
	ErrKeyLacking = fmt.Errorf("%w: the key ring does not have the key of a stored session", fault.Unavailable)
)

// Ask loads the record with an ID: from the origin, or a copy of at least that
// version; 0 means the origin. All loads by ID use it, and it verifies that the
// record belongs to the ID. The error is store.ErrNotFound, ErrDamaged,
// ErrKeyLacking, together with the store's metadata of the record, or one that
// wraps fault.Unavailable.
func (s *Sessions) Ask(ctx context.Context, id store.ID, minimum uint64) (*State, error) {
	// Counted when the answer has arrived, so that the count shows loaded
	// sessions.
	defer s.Observer.Loaded()
	var rec store.Record
	var err error
	if fl, ok := s.Store.(store.FloorLoader); ok {
		rec, err = fl.LoadFrom(ctx, id, minimum)
	} else {
		rec, err = s.Store.Load(ctx, id)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, store.ErrNotFound
	case errors.Is(err, store.ErrDamaged):
		return nil, s.damaged(id, err)
	case err != nil:
		return nil, s.Observer.StoreFailed(ctx, "load", err)
	}
	return s.verified(id, rec)
}

// verified opens a record that the store returned for an ID, and checks that it
// belongs to the ID: its data is sealed together with its ID, user and end.
// Tombstones have no data. The errors are those of Ask.
func (s *Sessions) verified(id store.ID, rec store.Record) (*State, error) {
	if rec.ID != id {
		return nil, s.damaged(id, store.ErrDamaged)
	}
	data := rec.Data
	rec.Data = nil
	st := &State{Where: rules.Stored, Who: Who{ID: id}, Meta: rec, Size: len(data)}
	if rec.IsEnd() {
		return st, nil
	}
	var err error
	st.Rec, err = s.open(id, data, wire.BindRecord(s.bound, &rec))
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return st, ErrKeyLacking
	case err != nil:
		return nil, s.damaged(id, err)
	}
	s.mend(st, s.Now())
	return st, nil
}

func (s *Sessions) open(id store.ID, data, aad []byte) (record.Record, error) {
	if len(data) <= longestWhole { // without the function, which costs an allocation
		r, _, err := openWhole(s.Ring(), data, aad)
		return r, err
	}
	r, _, err := OpenRecord(s.Ring(), data, aad, func(err error) { s.Observer.Damaged(id, err) })
	return r, err
}

// mend corrects times in the future. The next save of the session stores them.
func (s *Sessions) mend(st *State, now time.Time) {
	seen, mended := s.Limits.Mend(&st.Rec.Header, st.Meta.Seen, now)
	if !mended {
		return
	}
	s.Observer.Mended()
	st.Mended = true
	h, r := &st.Rec.Header, &st.Meta
	r.Created, r.Seen = record.Time(h.Created), seen
	r.Expires = rules.Earlier(r.Expires, s.Limits.LifetimeEnd(h))
	r.Deadline = rules.Earlier(r.Deadline, s.Limits.IdleDeadline(h, seen, r.Expires))
}

func (s *Sessions) damaged(id store.ID, err error) error {
	s.Observer.Damaged(id, err)
	return ErrDamaged
}

// Load returns a live session, ErrGone, or an error that wraps
// fault.Unavailable. minimum is the lowest version that a cached copy may have; 0
// asks the origin. A session whose record is damaged is gone.
func (s *Sessions) Load(ctx context.Context, who Who, minimum uint64) (*State, error) {
	st, err := s.Ask(ctx, who.ID, minimum)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, ErrDamaged):
		return nil, &Gone{}
	case st == nil:
		return nil, err
	case st.Meta.IsEnd():
		return nil, EndOf(&st.Meta)
	case st.Meta.Expired(s.Now()):
		return nil, &Gone{Expired: true}
	case err != nil:
		s.Observer.KeyLacking(who.ID)
		return nil, err
	case s.Now().After(s.Limits.LifetimeEnd(&st.Rec.Header)):
		// The record was saved with a longer limit. The next save would apply
		// the current limit, and the change would be lost.
		return nil, &Gone{Expired: true}
	}
	st.Who = who
	return st, nil
}

// Bounded gives a commit its deadline when it first waits for the store. Most
// commits never do.
func (s *Sessions) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.Timeout)
}

// Touch extends a session's idle deadline without rewriting it. Without support
// in the store, the error is errors.ErrUnsupported. Another failure is reported
// to the observer; at worst the session ends a little early.
func (s *Sessions) Touch(ctx context.Context, st *State, now time.Time) error {
	toucher, ok := s.Store.(store.Toucher)
	if !ok {
		return errors.ErrUnsupported
	}
	deadline := s.Limits.IdleDeadline(&st.Rec.Header, now, st.Meta.Expires)
	err := toucher.Touch(ctx, st.ID, now, deadline)
	switch {
	case err == nil:
		s.Observer.Touched()
	case !errors.Is(err, store.ErrNotFound) && !errors.Is(err, errors.ErrUnsupported): // otherwise it has ended
		_ = s.Observer.StoreFailed(ctx, "touch", err)
	}
	return err
}

// StayAlive records activity of a session that was loaded some time ago, if it
// is still live, and returns when it was last seen and when it expires. It does
// not revive an ended session.
func (s *Sessions) StayAlive(ctx context.Context, who Who, now time.Time) (seen, deadline time.Time, err error) {
	cur, err := s.Load(ctx, who, 0)
	if err != nil {
		return seen, deadline, err
	}
	h := &cur.Rec.Header
	if !s.Limits.TouchDue(h, cur.Meta.Seen, now) {
		return cur.Meta.Seen, cur.Meta.Deadline, nil // by another request
	}
	return now, s.Limits.IdleDeadline(h, now, cur.Meta.Expires), s.Touch(ctx, cur, now)
}

// Suspect records in a session that an outdated credential of it was sent, so
// that this is reported once. After a conflict with another save, the next time
// suffices.
func (s *Sessions) Suspect(ctx context.Context, st *State) {
	rec := st.Rec.Clone()
	rec.Header.Suspected = rec.Header.Generation
	if next, data, err := s.seal(rec, st.Who, st, 0, s.Now(), st.Meta.Seen); err == nil {
		_ = s.send(ctx, withData(next, data), st.Meta.Base())
	}
}

// seal makes the store's record for a session, as the successor of prev (nil:
// the first), last used at seen. It takes ownership of r.
func (s *Sessions) seal(r record.Record, who Who, prev *State, minimum uint64, now, seen time.Time) (st *State, data []byte, err error) {
	h := &r.Header
	h.Identifier, h.Counter, h.Seen, h.Expires = nil, 0, 0, 0
	if h.Created == 0 {
		h.Created = now.UnixMilli()
	}
	if prev == nil || seen.After(prev.Meta.Seen) { // otherwise it was not used
		s.Limits.Renew(h, now)
	}
	rec := store.Record{
		ID:      who.ID,
		Version: 1,
		SaveIDs: []store.SaveID{newSaveID()},
		Created: record.Time(h.Created),
		Seen:    seen,
		Expires: s.Limits.LifetimeEnd(h),
	}
	if prev != nil {
		p := &prev.Meta
		rec.Version = max(p.Version, minimum) + 1
		rec.SaveIDs = append(rec.SaveIDs, p.SaveIDs[:min(len(p.SaveIDs), store.RecentSaveIDs-1)]...)
		ph := &prev.Rec.Header
		rec.Shorten = h.Idle != ph.Idle || h.Lifetime != ph.Lifetime || prev.Mended
		if !rec.Shorten && p.Seen.After(rec.Seen) {
			rec.Seen = p.Seen // another replica's clock is ahead
		}
	}
	rec.Deadline = s.Limits.IdleDeadline(h, rec.Seen, rec.Expires)
	ring := s.Ring()
	if h.User != "" {
		rec.User = ring.UserHash(s.Scope, h.User)
	}
	data, err = SealRecord(ring, &r, wire.BindRecord(s.bound, &rec), s.Limits.MaxSize)
	if errors.Is(err, ErrDamaged) {
		err = &Gone{Damaged: true}
	}
	if err != nil {
		return nil, nil, err
	}
	return &State{Where: rules.Stored, Who: who, Rec: r, Meta: rec, Size: len(data)}, data, nil
}

// withData returns the store's record of a state.
func withData(st *State, data []byte) store.Record {
	rec := st.Meta
	rec.Data = data
	return rec
}

// Change is one request's part in a commit. It has all that is needed to save
// it together with other requests' changes, without access to their sessions.
type Change struct {
	Who Who // of the session to save
	// Base is the base of the draft: a stored or inline state, or Nothing.
	Base  *State
	Draft *draft.Draft
	// Visit is the request's data about its visitor. It is used when the
	// session is first stored, and by Move.
	Visit   Visit
	Quiet   bool      // the request does not count as activity
	Above   uint64    // the browser has seen this version: continue above it
	Arrived time.Time // when the request arrived
}

// Visit is a request's data about its visitor, besides cookies.
type Visit struct{ UserAgent, IP string }

// Result is a saved session.
type Result struct {
	State *State
	// Mine is the session with this change alone; State also has later changes
	// of other requests if Behind is set.
	Mine    record.Record
	Behind  bool
	Rotated bool // the save has replaced the credential; set for one of the changes that were saved together
}
