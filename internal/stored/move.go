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

// Move makes a login's new session from the previous one.
type Move struct {
	Change
	To    Who
	Login *draft.Login
	// Ends means that the login ends the previous session and carries over its
	// values, unless the draft removes them. Otherwise the new session is
	// empty.
	Ends bool
	// Limit is the limit on the user's sessions. Max 0 = no limit.
	Limit store.UserLimit
	// Evicted is called for each session that is ended to make room.
	Evicted func(id store.ID)
	// Check, if set, is called after the new session is written and before any
	// session is ended for it; its error revokes the new session. The session's
	// queue is not blocked meanwhile.
	Check func() error
}

// Move writes the new record first and then ends the old one by compare-and-set
// against the version from which the new one was made; if that has changed, the
// new record is rewritten from it. So a parallel request's change is either in
// the new session, or is refused by the tombstone. Move waits a while for the
// renewal of a value that it carries over. An error revokes the new session;
// another attempt needs another identifier.
func (s *Sessions) Move(ctx context.Context, m Move) (st *State, err error) {
	// The link is kept even if nothing else of the previous session is.
	login := *m.Login
	login.Link = login.LinkOf(&m.Base.Rec.Header)
	m.Login, m.Check = &login, s.checkedLink(ctx, login.Link, m.Check)
	run := &mover{Move: m, s: s, ends: m.Ends, patient: true, waited: Nothing}
	if m.Check != nil {
		if err := run.checked(ctx); err != nil {
			return nil, err
		}
		// Check may take long, and does not count against the store's time.
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
		return run.do(ctx) // no other request has this session
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
	ends    bool   // the old session must still be ended
	patient bool   // it may wait for a lease
	waited  *State // the old session as of the end of the wait
	old     *State // as stored; nil = not known to be stored
	made    *State // the new session as last written
	of      uint64 // the old session's version from which it was made
	sent    bool   // the new session may be in the store
}

// checked writes the new session and calls Check. It ends no other session to
// make room, because Check may refuse the login.
func (m *mover) checked(ctx context.Context) (err error) {
	limit := m.Limit
	if !limit.Refuse {
		m.Limit = store.UserLimit{}
	}
	stays := false
	defer func() {
		m.Limit = limit
		if !stays { // Check may have panicked
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

// makeRoom applies the user's limit after a checked login. Sessions that cannot
// be ended now are ended by the user's next login.
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

// version is the known version of the old session.
func (m *mover) version() uint64 {
	if m.old != nil {
		return m.old.Meta.Version
	}
	return m.Base.Meta.Version
}

func (m *mover) do(ctx context.Context) (*State, error) {
	s := m.s
	// The new session must not outlive a failed login: some of the time is
	// reserved for ending it.
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

// tooOld reports whether the old session was inline, and has changed in the
// store since: then only the cookie's values belong to the visitor.
func (m *mover) tooOld() bool {
	return m.Base.Where == rules.Inline && m.old != nil && !m.s.Limits.Joinable(&m.old.Rec.Header, m.Arrived)
}

// from is the record from which the new session is made.
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

// sound returns r, without its values if one of them is damaged: the login
// succeeds anyway.
func sound(r *record.Record) record.Record {
	if !r.Whole() {
		return record.Record{Header: r.Header}
	}
	return *r
}

// write writes the new session, or writes it again.
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
		return fault.Ended // it was already revoked
	}
	m.made, m.of = next, m.version()
	return err
}

// overtaken continues after a concurrent change of the old session. It reports
// whether nothing is left to do.
func (m *mover) overtaken(ctx context.Context) (done bool, err error) {
	m.old, err = m.s.loadNewest(ctx, m.Base.Who)
	switch {
	case errors.Is(err, ErrGone) && m.Draft.Takes():
		return false, fault.Taken
	case errors.Is(err, ErrGone) && m.Base.Rec.Header.User == "":
		// Another login or a logout was faster. This visitor has authenticated,
		// so the login is valid; the values that it carried over were an
		// anonymous visitor's.
		return true, nil
	case errors.Is(err, ErrGone): // it was a user's session: its values are not carried over
		m.ends, m.old = false, nil
		return false, nil
	case err != nil:
		return false, err
	default:
		return m.tooOld(), nil // then there is nothing to end
	}
}

// takeBack revokes the new session, because of err.
func (m *mover) takeBack(ctx context.Context, err error) error {
	if m.sent {
		if err := m.s.Store.Delete(ctx, m.To.ID, m.s.Now().Add(store.MinTombstone)); err != nil {
			_ = m.s.Observer.StoreFailed(ctx, "end the session of a login that failed", err)
		}
	}
	return err
}

// End is a logout: it replaces a session by its tombstone. Values that the
// draft has taken must still be there. If the session has already ended, End
// succeeds, unless the draft has taken a value.
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

// Replace ends a session, whatever its version, because of a login or a logout
// in its browser.
func (s *Sessions) Replace(ctx context.Context, st *State) error {
	err := s.sendEnd(ctx, st, st, s.Now())
	if errors.Is(err, store.ErrConflict) {
		return s.Delete(ctx, st)
	}
	return err
}

// Delete ends another browser's session, whatever its version.
func (s *Sessions) Delete(ctx context.Context, st *State) error {
	now := s.Now()
	until := s.Limits.TombstoneUntil(&st.Rec.Header, s.foreign(&st.Rec.Header, now), now)
	if err := s.Store.Delete(ctx, st.ID, until); err != nil {
		return s.Observer.StoreFailed(ctx, "end a session", err)
	}
	s.Observer.Saved()
	return nil
}

// sendEnd replaces a session by its tombstone, if the stored session is still
// old, or, if old is nil, still missing.
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
