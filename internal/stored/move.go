package stored

import (
	"context"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/store"
)

// Move makes a new session of a login out of the one before.
type Move struct {
	Change
	To    Who
	Login *draft.Login
	// Ends says that the session before is ended by this; its values go along,
	// unless the draft removes them. Otherwise the new one begins with nothing.
	Ends bool
	// Limit holds the user to a number of sessions. Max 0 = any number.
	Limit store.UserLimit
	// Evicted is told of each session that has to make room.
	Evicted func(id store.ID)
	// Check, if set, is asked once the new session is written and before anything
	// has ended for it; its error takes the new session back. Nobody waits in the
	// session's queue meanwhile.
	Check func() error
}

// Move writes the new record first and then ends the old one by compare-and-set
// against the version that the new one was made from; if that has changed, the new
// record is rewritten from it. Only then does it return: a parallel request's
// change is either in the new session, or meets the tombstone. It waits a while for
// somebody who is renewing a value that goes along. An error takes the new session
// back; another try needs another identifier.
func (s *Sessions) Move(ctx context.Context, m Move) (st *State, err error) {
	// The link stays, whatever else of the session before is left behind.
	login := *m.Login
	login.Link = login.LinkOf(&m.Base.Rec.Header)
	m.Login, m.Check = &login, s.checkedLink(ctx, login.Link, m.Check)
	run := &mover{Move: m, s: s, ends: m.Ends, patient: true, waited: Nothing}
	if m.Check != nil {
		if err := run.checked(ctx); err != nil {
			return nil, err
		}
		// Check may have taken long, and its time is not the store's.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), s.Timeout)
		defer cancel()
		defer func() {
			if err == nil {
				run.makeRoom(ctx)
			}
		}()
	}
	if m.Base.Where == rules.Nowhere {
		return run.do(ctx) // nobody else knows this session
	}
	limit := time.Now().Add(s.leaseTTL())
	for {
		j := &job{Change: m.Change}
		j.alone = func(ctx context.Context, known *State) (*State, error) {
			run.old = newest(newest(known, j), &job{Change: Change{Base: run.waited}})
			st, err = run.do(ctx)
			return nil, err
		}
		s.queues.do(ctx, s, j)
		if !errors.Is(j.err, errLeased) {
			return st, j.err
		}
		if st := s.awaitLeases(ctx, m.Base.Who, limit); st != nil {
			run.waited = st
		} else {
			run.patient = false
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), s.Timeout)
		defer cancel()
	}
}

// mover is a Move under way.
type mover struct {
	Move
	s       *Sessions
	ends    bool   // the old session is still to be ended
	patient bool   // it may wait for a lease
	waited  *State // the old session as it was when the wait was over
	old     *State // as it is in the store; nil = it is not known to be there
	made    *State // the new session as it was written last
	of      uint64 // the old session's version that it was made from
	sent    bool   // the new session may be in the store
}

// checked writes the new session and asks Check whether it may stay. It ends no
// other session to make room: this one may be a login that comes to nothing.
func (m *mover) checked(ctx context.Context) (err error) {
	limit := m.Limit
	if !limit.Refuse {
		m.Limit = store.UserLimit{}
	}
	stays := false
	defer func() {
		m.Limit = limit
		if !stays { // Check may have panicked, too
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.s.Timeout)
			defer cancel()
			_ = m.takeBack(ctx, nil)
		}
	}()
	if err := m.write(ctx, m.s.Now()); err != nil {
		return err
	}
	if err := m.Check(); err != nil {
		return err
	}
	stays = true
	return nil
}

// makeRoom holds the user to the limit, after a login that was checked. What
// cannot be ended now is ended by the user's next login.
func (m *mover) makeRoom(ctx context.Context) {
	if m.Limit.Max == 0 || m.Limit.Refuse {
		return
	}
	s := m.s
	index, ok := s.Store.(store.UserIndex)
	if !ok {
		return
	}
	recs, err := index.ByUser(ctx, m.made.Meta.User)
	if err != nil {
		_ = s.Observer.StoreFailed(ctx, "list a user's sessions", err)
		return
	}
	limit := m.Limit
	limit.Replaces = store.ID{} // it has ended
	ids, _ := limit.InTheWay(recs, &m.made.Meta, s.Now())
	for _, id := range ids {
		if err := s.Store.Delete(ctx, id, m.Limit.Until); err != nil {
			_ = s.Observer.StoreFailed(ctx, "end a session", err)
			continue
		}
		m.Evicted(id)
	}
}

// version is that of the old session, as it is known.
func (m *mover) version() uint64 {
	if m.old != nil {
		return m.old.Meta.Version
	}
	return m.Base.Meta.Version
}

func (m *mover) do(ctx context.Context) (*State, error) {
	s := m.s
	// The new session must not outlive a login that fails: some of the time is
	// kept for ending it.
	whole := ctx
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-s.Timeout/5))
	defer cancel()
	if m.tooOld() {
		m.old = nil
	}
	for attempt := 0; ; attempt++ {
		if m.mustWait() {
			return nil, errLeased
		}
		now := s.Now()
		if attempt > 0 || m.made == nil || m.of != m.version() {
			if err := m.write(ctx, now); err != nil {
				return nil, m.takeBack(whole, err)
			}
		}
		if !m.ends {
			return m.made, nil
		}
		err := s.sendEnd(ctx, m.Base, m.old, now)
		switch {
		case err == nil:
			return m.made, nil
		case !errors.Is(err, store.ErrConflict):
			return nil, m.takeBack(whole, err)
		case !BackOff(ctx, attempt):
			return nil, m.takeBack(whole, fault.Away("save", ctx.Err()))
		}
		done, err := m.overtaken(ctx)
		if err != nil {
			return nil, m.takeBack(whole, err)
		}
		if done {
			return m.made, nil
		}
	}
}

// tooOld reports whether the old session was in a cookie, and has moved on in the
// store without it: then only what the cookie holds is the visitor's.
func (m *mover) tooOld() bool {
	return m.Base.Where == rules.Inline && m.old != nil && !m.s.Limits.Joinable(&m.old.Rec.Header, m.Arrived)
}

// from is the record that the new session is made of.
func (m *mover) from() record.Record {
	switch {
	case !m.ends:
		return record.Record{}
	case m.old == nil:
		return sound(&m.Base.Rec)
	case m.Base.Where == rules.Inline:
		old := sound(&m.old.Rec)
		return draft.MergeInline(&old, &m.Base.Rec)
	default:
		return sound(&m.old.Rec)
	}
}

// sound returns r, without its values if one of them is damaged: whoever has
// authenticated is logged in all the same.
func sound(r *record.Record) record.Record {
	if !r.Whole() {
		return record.Record{Header: r.Header}
	}
	return *r
}

// write writes the new session, or writes it anew.
func (m *mover) write(ctx context.Context, now time.Time) error {
	s := m.s
	from := m.from()
	rec, err := m.Draft.Apply(&from, now)
	if err != nil {
		return err
	}
	dropLeases(&rec)
	rec.Settle()
	before := rec.Header
	rec.Header = m.Login.Header(&before, m.Visit.UserAgent, m.Visit.IP)
	if !m.Login.Drop && s.Carry != nil {
		s.Carry(&rec.Header, &before)
	}
	next, data, err := s.seal(rec, m.To, m.made, 0, now, now)
	if err != nil {
		return err
	}
	if err := s.keepLinked(ctx, m.made, next); err != nil {
		return err
	}
	sent := withData(next, data)
	if m.made != nil {
		err = s.send(ctx, sent, m.made.Meta.Base())
	} else {
		err = s.insert(ctx, sent, m.Limit, m.Evicted)
	}
	if errors.Is(err, fault.TooMany) {
		return err
	}
	m.sent = true
	if errors.Is(err, store.ErrConflict) {
		return fault.Ended // somebody revoked it already
	}
	m.made, m.of = next, m.version()
	return err
}

// overtaken goes on after somebody was faster with the old session. It reports
// whether nothing is left to do.
func (m *mover) overtaken(ctx context.Context) (done bool, err error) {
	m.old, err = m.s.loadNewest(ctx, m.Base.Who)
	switch {
	case errors.Is(err, ErrGone) && m.Draft.Takes():
		return false, fault.Taken
	case errors.Is(err, ErrGone) && m.Base.Rec.Header.User == "":
		// Another login or a logout was faster. This visitor has authenticated, so
		// the login stands; what it has carried over was an anonymous visitor's.
		return true, nil
	case errors.Is(err, ErrGone): // was a user's: it stays behind
		m.ends, m.old = false, nil
		return false, nil
	case err != nil:
		return false, err
	default:
		return m.tooOld(), nil // then there is nothing to end
	}
}

// takeBack ends the new session, because of err.
func (m *mover) takeBack(ctx context.Context, err error) error {
	if m.sent {
		if err := m.s.Store.Delete(ctx, m.To.ID, m.s.Now().Add(store.MinTombstone)); err != nil {
			_ = m.s.Observer.StoreFailed(ctx, "end the session of a login that failed", err)
		}
	}
	return err
}

// End is a logout: it replaces a session by its tombstone. What the draft has
// taken must still be there. A session that is over already is fine, unless
// something was taken from it.
func (s *Sessions) End(ctx context.Context, c Change) error {
	j := &job{Change: c}
	j.alone = func(ctx context.Context, known *State) (*State, error) {
		return nil, s.end(ctx, newest(known, j), c.Draft)
	}
	s.queues.do(ctx, s, j)
	return j.err
}

func (s *Sessions) end(ctx context.Context, cur *State, taken *draft.Draft) error {
	for attempt := 0; ; attempt++ {
		now := s.Now()
		if _, err := taken.Apply(&cur.Rec, now); err != nil {
			return err
		}
		err := s.sendEnd(ctx, cur, cur, now)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if !BackOff(ctx, attempt) {
			return fault.Away("save", ctx.Err())
		}
		cur, err = s.loadNewest(ctx, cur.Who)
		switch {
		case errors.Is(err, ErrGone) && taken.Takes():
			return fault.Taken
		case errors.Is(err, ErrGone):
			return nil
		case err != nil:
			return err
		}
	}
}

// Replace ends a session because a login or a logout in the browser that has it
// says so, whatever its version.
func (s *Sessions) Replace(ctx context.Context, st *State) error {
	err := s.sendEnd(ctx, st, st, s.Now())
	if errors.Is(err, store.ErrConflict) {
		return s.Delete(ctx, st)
	}
	return err
}

// Delete ends a session that somebody else has, whatever its version.
func (s *Sessions) Delete(ctx context.Context, st *State) error {
	now := s.Now()
	until := s.Limits.TombstoneUntil(&st.Rec.Header, s.foreign(&st.Rec.Header, now), now)
	if err := s.Store.Delete(ctx, st.ID, until); err != nil {
		return s.Observer.StoreFailed(ctx, "end a session", err)
	}
	s.Observer.Saved()
	return nil
}

// sendEnd replaces a session by its tombstone, if it is still as old says, or if
// it is still not stored, where old is nil.
func (s *Sessions) sendEnd(ctx context.Context, last, old *State, now time.Time) error {
	until := rules.Later(now.Add(store.MinTombstone), s.foreign(&last.Rec.Header, now))
	rec := store.Record{ID: last.ID, Version: 1, Created: now, SaveIDs: []store.SaveID{newReplacedSaveID()}}
	base := store.Base{}
	if last.Where == rules.Inline {
		until = rules.Later(until, s.Limits.InlineUntil(&last.Rec.Header, now))
	}
	if old != nil {
		base = old.Meta.Base()
		rec.Version = old.Meta.Version + 1
		rec.Created = old.Meta.Created
		rec.SaveIDs = append(rec.SaveIDs, old.Meta.SaveIDs[:min(len(old.Meta.SaveIDs), store.RecentSaveIDs-1)]...)
		until = rules.Later(until, record.Time(old.Rec.Header.InlineUntil))
	}
	rec.Seen, rec.Ended, rec.Deadline, rec.Expires = now, now, until, until
	return s.send(ctx, rec, base)
}

func (s *Sessions) foreign(h *record.Header, now time.Time) time.Time {
	if s.Foreign == nil {
		return time.Time{}
	}
	return s.Foreign(h, now)
}
