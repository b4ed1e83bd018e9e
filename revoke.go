package sojourn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/values"
	"github.com/sojourn-go/sojourn/store"
)

// Sessions returns the live sessions of a user, the last used first. With the
// context of a request whose session was asked for, that session is marked
// Current. It returns no sessions for "".
//
// The store must have an index by user (all of Sojourn's durable stores do);
// otherwise the error is [errors.ErrUnsupported]. No record is scanned that is
// not the user's.
func (m *Manager) Sessions(ctx context.Context, user string) ([]Info, error) {
	sessions, err := m.userSessions(ctx, user)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, len(sessions))
	current := m.currentHandle(ctx)
	for i, st := range sessions {
		infos[i] = m.describe(st)
		infos[i].Current = infos[i].Handle == current
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return b.LastSeen.Compare(a.LastSeen) })
	return infos, nil
}

// Revoke ends one session of a user, on every replica, at once wherever the
// caches can be told: on a device that was lost, say. It returns [ErrNotFound]
// if no live session of that user has this handle: handles are public, so the
// user must come from the session of whoever asks.
func (m *Manager) Revoke(ctx context.Context, user, handle string) error {
	st, err := m.findHandle(ctx, handle, clockSkew)
	if err != nil {
		return err
	}
	if user == "" || st.stored.User != m.userHash(user) {
		return ErrNotFound
	}
	return m.revokeWithin(ctx, st, ReasonRevoked)
}

// RevokeUser ends all sessions of a user but those whose handles are in keep,
// and returns how many: after a change of password, say, with the handle of the
// session that changed it. It ends sessions too whose time is over by the clock of
// this process: another one may know better. On an error, some may have ended. Legacy sessions of
// the user that were not adopted yet are refused, see [Manager.RefuseLegacy].
//
// A login that has not been answered when RevokeUser is called may come before
// it or after it.
func (m *Manager) RevokeUser(ctx context.Context, user string, keep ...string) (int, error) {
	return m.revokeUser(ctx, user, ReasonRevokedUser, keep)
}

// EraseUser ends all sessions of a user and with them removes every value in
// the store, and returns how many there were. What stays until the next sweep,
// about an hour, are tombstones without values, and the keyed hash of the user's
// name in them.
func (m *Manager) EraseUser(ctx context.Context, user string) (int, error) {
	return m.revokeUser(ctx, user, ReasonErased, nil)
}

// Export is a session with its values, for a user who asks what is kept about
// them, and for support.
type Export struct {
	Info
	// Values are the values by name, as the dictionary interface would decode
	// them: numbers, strings, []byte, time.Time, []any and map[string]any. A
	// value that is not CBOR (see NewKeyCodec) is given as its bytes.
	Values map[string]any
}

// ExportUser returns the live sessions of a user with all their values, flash
// messages included.
func (m *Manager) ExportUser(ctx context.Context, user string) ([]Export, error) {
	sessions, err := m.userSessions(ctx, user)
	if err != nil {
		return nil, err
	}
	out := make([]Export, len(sessions))
	for i, st := range sessions {
		out[i] = m.export(st)
	}
	return out, nil
}

// Find returns the live stored session with that handle, whoever's it is, with
// its values; [ErrNotFound] if there is none. It is for operators: an
// application's own users may only see what [Manager.Sessions] lists for them.
func (m *Manager) Find(ctx context.Context, handle string) (Export, error) {
	st, err := m.findHandle(ctx, handle, 0)
	if err != nil {
		return Export{}, err
	}
	return m.export(st), nil
}

// RevokeHandle ends the session with that handle, whoever's it is, anonymous
// ones included; [ErrNotFound] if there is none. It is for operators: see
// [Manager.Revoke].
func (m *Manager) RevokeHandle(ctx context.Context, handle string) error {
	st, err := m.findHandle(ctx, handle, clockSkew)
	if err != nil {
		return err
	}
	return m.revokeWithin(ctx, st, ReasonRevoked)
}

func (m *Manager) userHash(user string) store.UserHash {
	return m.cfg.Keys.current().UserHash(m.cfg.Name, user)
}

// userSessions returns the live sessions of a user.
func (m *Manager) userSessions(ctx context.Context, user string) ([]*state, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.end()
	if user == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	listed, err := m.listUser(ctx, user)
	now := m.now()
	var sessions []*state
	for _, l := range listed {
		if !l.damaged && !l.stored.Expired(now) {
			sessions = append(sessions, l.state)
		}
	}
	return sessions, err
}

// listed is a record that the store has under a user, and that has not ended.
type listed struct {
	*state
	damaged bool // it is no session; only id is set
}

// listUser returns the records of a user that have not ended, also those whose
// time is over by this process's clock.
func (m *Manager) listUser(ctx context.Context, user string) (all []listed, err error) {
	index, ok := m.cfg.Store.(store.UserIndex)
	if !ok {
		return nil, fmt.Errorf("sojourn: list a user's sessions: the store cannot: %w", errors.ErrUnsupported)
	}
	hash := m.userHash(user)
	recs, err := index.ByUser(ctx, hash)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("sojourn: list a user's sessions: %w", err)
	case err != nil:
		return nil, m.storeFailed(ctx, "list a user's sessions", err)
	}
	for _, rec := range recs {
		if rec.User != hash {
			_ = m.damaged(rec.ID, store.ErrDamaged) // somebody else's
			continue
		}
		if rec.IsEnd() {
			continue
		}
		switch st, err := m.verified(rec.ID, rec); {
		case errors.Is(err, errDamaged):
			all = append(all, listed{&state{identity: identity{id: rec.ID}}, true})
		case err != nil:
			describeSealed(st, user)
			all = append(all, listed{st, false})
		default:
			all = append(all, listed{st, false})
		}
	}
	return all, nil
}

// describeSealed describes a session whose key is lacking as far as the store
// knows it. What else may hold it is not known, so its tombstone stays the longest.
func describeSealed(st *state, user string) {
	st.rec.Header = record.Header{
		User:        user,
		Created:     record.Millis(st.stored.Created),
		InlineUntil: record.Millis(st.stored.Expires),
	}
}

// findHandle returns the live stored session with that handle, or one that was
// live until skew ago.
func (m *Manager) findHandle(ctx context.Context, handle string, skew time.Duration) (*state, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.end()
	id, err := store.ParseID(handle)
	if err != nil || m.cfg.Store == nil {
		return nil, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	st, err := m.ask(ctx, id, 0)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, errDamaged):
		return nil, ErrNotFound
	case st == nil:
		return nil, err
	case st.stored.IsEnd(), st.stored.Expired(m.now().Add(-skew)):
		return nil, ErrNotFound
	case err != nil:
		describeSealed(st, "")
	}
	return st, nil
}

// currentHandle returns the handle of the session of the request that ctx
// belongs to, if it was asked for.
func (m *Manager) currentHandle(ctx context.Context) string {
	q := m.request(ctx)
	if q == nil {
		return ""
	}
	s := q.ready()
	if s == nil {
		return ""
	}
	return s.Handle()
}

func (m *Manager) revokeWithin(ctx context.Context, st *state, reason string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Timeout)
	defer cancel()
	return m.revoke(ctx, st, reason)
}

// revoke ends a session whatever its version.
func (m *Manager) revoke(ctx context.Context, st *state, reason string) error {
	if err := m.leaveLegacy(ctx, st); err != nil {
		return err
	}
	err := error(store.ErrConflict)
	if reason == ReasonLogout { // or a login: the browser that has it is told
		err = m.sendEnd(ctx, st, st, m.now())
	}
	if errors.Is(err, store.ErrConflict) {
		err = m.storeDelete(ctx, st)
	}
	if err != nil {
		return err
	}
	m.ended(ctx, st.id, st.rec.Header.User, reason)
	_, err = m.endLegacy(ctx, &st.rec.Header)
	return err
}

// storeDelete ends a session in the store, whatever its version there.
func (m *Manager) storeDelete(ctx context.Context, st *state) error {
	if err := m.cfg.Store.Delete(ctx, st.id, m.markUntil(&st.rec.Header, m.now())); err != nil {
		return m.storeFailed(ctx, "end a session", err)
	}
	return nil
}

// ended tells everybody here that a session was ended from elsewhere.
func (m *Manager) ended(ctx context.Context, id store.ID, user, reason string) {
	m.count.saves.Add(1)
	m.count.revoked.Add(1)
	m.ends.Tell(id, ErrEnded)
	m.tell(ctx, Event{Kind: EventRevoked, Session: id.String(), User: user, Reason: reason})
}

// revokeAtOnce is how many sessions are ended at the same time.
const revokeAtOnce = 16

func (m *Manager) revokeUser(ctx context.Context, user, reason string, keep []string) (int, error) {
	if err := m.begin(); err != nil {
		return 0, err
	}
	defer m.end()
	if user == "" {
		return 0, nil
	}
	if err := m.refuseLegacy(ctx, user); err != nil {
		return 0, err
	}
	total := 0
	// Again, for logins that were under way while the first ones were ended. An
	// index that lags behind may go on listing those that have ended.
	ended := map[store.ID]bool{}
	for range revokeRounds {
		listing, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		all, err := m.listUser(listing, user)
		cancel()
		if err != nil {
			return total, err
		}
		all = slices.DeleteFunc(all, func(l listed) bool {
			again := ended[l.id]
			ended[l.id] = true
			return again || slices.Contains(keep, l.id.String())
		})
		if len(all) == 0 {
			return total, nil
		}
		n, err := m.revokeAll(ctx, all, reason)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, unavailable("end all sessions of a user", errKeepsLoggingIn)
}

// revokeRounds is how often a user's sessions are listed and ended before
// RevokeUser gives up: logins come in faster than they are ended.
const revokeRounds = 20

var errKeepsLoggingIn = errors.New("the user keeps logging in")

// revokeAll ends sessions, and returns how many of them were live.
func (m *Manager) revokeAll(ctx context.Context, all []listed, reason string) (n int, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, revokeAtOnce)
	live := m.now().Add(-clockSkew)
	for _, l := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
			defer cancel()
			var one error
			if l.damaged {
				// Whatever it is, it must not be listed as this user's.
				if one = m.cfg.Store.Delete(ctx, l.id, m.now().Add(store.MinTombstone)); one != nil {
					one = m.storeFailed(ctx, "end a session", one)
				}
			} else {
				one = m.revoke(ctx, l.state, reason)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case one != nil:
				err = one
			case !l.damaged && !l.stored.Expired(live): // else it only may have been
				n++
			}
		})
	}
	wg.Wait()
	return n, err
}

func (m *Manager) export(st *state) Export {
	out := Export{Info: m.describe(st), Values: map[string]any{}}
	now := m.now().UnixMilli()
	for i := range st.rec.Fields() {
		f := &st.rec.Fields()[i]
		if !f.Live(now) {
			continue
		}
		name := f.Name
		if name == flashName {
			name = "flashes"
		} else if strings.HasPrefix(name, "_") {
			continue
		}
		var v any
		if cbor.Wellformed(f.Value) != nil || values.Decode(f.Value, &v) != nil {
			v = slices.Clone(f.Value)
		}
		out.Values[name] = v
	}
	return out
}

// sendLogin saves the record of a login: the first one within the user's limit.
func (s *Session) sendLogin(ctx context.Context, rec store.Record, base store.Base) error {
	m := s.m
	if base != (store.Base{}) || m.cfg.MaxPerUser == 0 {
		return m.send(ctx, rec, base)
	}
	limiter, ok := m.cfg.Store.(store.UserLimiter)
	if !ok {
		return unavailable("save", errors.ErrUnsupported)
	}
	limit := store.UserLimit{
		Max: m.cfg.MaxPerUser,
		// Nobody has authenticated where a session is adopted, and its login may be
		// older than all others.
		Refuse: m.cfg.RefuseOverMax || s.phase == phaseDraft,
		Until:  m.limitUntil(m.now()),
	}
	if s.ending != nil && s.ending.carry && s.last.rec.Header.User == s.login.user {
		limit.Replaces = s.last.id
	}
	return m.sendAgain(ctx, &rec, func(ctx context.Context) error {
		evicted, err := limiter.SaveLimited(ctx, rec, limit)
		for _, id := range evicted {
			m.ended(ctx, id, s.login.user, ReasonLimit)
		}
		return err
	})
}
