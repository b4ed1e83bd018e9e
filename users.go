package sojourn

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/store"
)

// RefuseLegacy makes [Adopt] refuse legacy sessions of a user that were issued
// until now, or at an unknown time. RevokeUser and EraseUser include it. Call
// it where the old application ends all sessions of a user.
func (m *Manager) RefuseLegacy(ctx context.Context, user string) error {
	c, err := m.in(ctx)
	if err != nil || len(m.adoption.From) == 0 || user == "" {
		return err
	}
	if err := m.begin(); err != nil {
		return err
	}
	defer m.done()
	return c.adoption.Refuse(ctx, user)
}

// Sessions returns the live sessions of a user, the last used first; none for
// "". If the request of ctx has loaded its session, that one is marked Current.
// If the store has no index by user (all durable stores here have one), the
// error is [errors.ErrUnsupported].
func (m *Manager) Sessions(ctx context.Context, user string) ([]Info, error) {
	c, err := m.in(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := c.userSessions(ctx, user)
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

// Revoke ends one session of a user on every replica, or returns [ErrNotFound]
// if the user has no live session of this handle. A cached copy may live for a
// while: see docs/run/caches.md. Handles are public: take user from the session
// of the request.
func (m *Manager) Revoke(ctx context.Context, user, handle string) error {
	c, err := m.in(ctx)
	if err != nil {
		return err
	}
	st, err := c.findHandle(ctx, handle, rules.Skew)
	if err != nil {
		return err
	}
	if user == "" || st.Meta.User != c.stored.UserHash(user) {
		return ErrNotFound
	}
	return c.revokeWithin(ctx, st, ReasonRevoked)
}

// RevokeUser ends all sessions of a user, except those with a handle in keep,
// and returns how many were live. It also refuses legacy sessions that are not
// yet adopted. After an error, some may have ended. A login during the call can
// come before or after it: see [Session.LoginIf].
func (m *Manager) RevokeUser(ctx context.Context, user string, keep ...string) (int, error) {
	c, err := m.in(ctx)
	if err != nil {
		return 0, err
	}
	return c.revokeUser(ctx, user, ReasonRevokedUser, keep)
}

// EraseUser ends all sessions of a user, removes their values from the store,
// and returns how many were live. Tombstones, with a keyed hash of the user's
// name, stay until a sweep about an hour later.
func (m *Manager) EraseUser(ctx context.Context, user string) (int, error) {
	c, err := m.in(ctx)
	if err != nil {
		return 0, err
	}
	return c.revokeUser(ctx, user, ReasonErased, nil)
}

// ExportUser returns a user's live sessions with their values and flash
// messages.
func (m *Manager) ExportUser(ctx context.Context, user string) ([]Export, error) {
	c, err := m.in(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := c.userSessions(ctx, user)
	if err != nil {
		return nil, err
	}
	out := make([]Export, len(sessions))
	for i, st := range sessions {
		out[i] = c.export(st)
	}
	return out, nil
}

// Edit changes a live session, for example its roles. f gets the current
// session, and runs again if a request changed the session first: it must have
// no side effects. f may read, set, and delete values, and call Flash,
// SetExpiry, and Remember. It cannot log in or out, rotate, or save, and saving
// a request's session of the same handle in f is a deadlock. An edit is no
// activity. The visitor's next request sees it; with a cache in another
// process, within its MaxStale. If no live session has that handle, the error
// is [ErrNotFound]. If f returns an error, nothing is changed.
func (m *Manager) Edit(ctx context.Context, handle string, f func(*Session) error) error {
	c, err := m.in(ctx)
	if err != nil {
		return err
	}
	st, err := c.findHandle(ctx, handle, 0)
	if err != nil {
		return err
	}
	return m.edit(ctx, c, st, f)
}

// EditUser is Edit for each live session of a user, and returns how many it
// changed. It may miss a session that begins meanwhile: first change the data
// that a login reads. After an error, it continues with the other sessions.
func (m *Manager) EditUser(ctx context.Context, user string, f func(*Session) error) (int, error) {
	c, err := m.in(ctx)
	if err != nil {
		return 0, err
	}
	sessions, err := c.userSessions(ctx, user)
	n := 0
	for _, st := range sessions {
		switch one := m.edit(ctx, c, st, f); {
		case one == nil:
			n++
		case !errors.Is(one, ErrNotFound):
			err = errors.Join(err, one)
		}
	}
	return n, err
}

func (m *Manager) edit(ctx context.Context, c *core, st *stored.State, f func(*Session) error) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.done()
	ctx, cancel := c.stored.Bounded(ctx)
	defer cancel()
	edited, err := c.stored.Edit(ctx, st, func(cur *stored.State) (*draft.Draft, error) {
		s := newDraft(c, cur)
		if err := f(s); err != nil {
			return nil, err
		}
		s.lock()
		defer s.mu.Unlock()
		if s.login != nil || s.ending != nil || s.link != "" || s.draft.Rotates() {
			return nil, errNoEdit
		}
		return &s.draft, s.failed
	})
	switch {
	case errors.Is(err, stored.ErrGone):
		return ErrNotFound
	case err == nil && edited.Meta.Shorten:
		m.ends.Moved(edited.ID, edited.Meta.Deadline)
	}
	return err
}

// RevokeLinked ends the sessions that [Session.Link] has tied to the session
// sid of an OpenID provider, and returns how many were live. Logins with that
// sid, also those in progress, fail for a day. After an error, some may have
// ended; call it again. The store needs an index by user: see
// [Manager.Sessions]. Source: OpenID Connect Back-Channel Logout 1.0.
func (m *Manager) RevokeLinked(ctx context.Context, issuer, sid string) (int, error) {
	c, err := m.in(ctx)
	if err != nil {
		return 0, err
	}
	return c.revokeLinked(ctx, issuer, sid)
}

func (m *core) revokeLinked(ctx context.Context, issuer, sid string) (int, error) {
	if err := m.begin(); err != nil {
		return 0, err
	}
	defer m.done()
	if m.store == nil {
		return 0, nil // see Link
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.timeout)
	defer cancel()
	linked, err := m.stored.CloseLink(closing, m.stored.Link(issuer, sid))
	n, failed := m.revokeAll(ctx, linked, ReasonRevokedLinked)
	return n, errors.Join(err, failed)
}

// userSessions returns the live sessions of a user.
func (m *core) userSessions(ctx context.Context, user string) ([]*stored.State, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.done()
	if user == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	listed, err := m.stored.ByUser(ctx, user)
	now := m.now()
	var sessions []*stored.State
	for _, l := range listed {
		if !l.Damaged && !l.Meta.Expired(now) {
			sessions = append(sessions, l.State)
		}
	}
	return sessions, err
}

// findHandle returns the stored session with that handle if it is live, or was
// live until skew ago.
func (m *core) findHandle(ctx context.Context, handle string, skew time.Duration) (*stored.State, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.done()
	if m.store == nil {
		return nil, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	return m.stored.ByHandle(ctx, handle, skew)
}

// currentHandle returns the handle of the request's session, or "" if that was
// not loaded.
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

func (m *core) revokeWithin(ctx context.Context, st *stored.State, reason string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.timeout)
	defer cancel()
	return m.revoke(ctx, st, reason)
}

// revoke ends a session whatever its version.
func (m *core) revoke(ctx context.Context, st *stored.State, reason string) error {
	if err := m.adoption.BeforeEnd(ctx, st); err != nil {
		return err
	}
	end := m.stored.Delete
	if reason == ReasonLogout { // or a login: the response changes the browser's cookie
		end = m.stored.Replace
	}
	if err := end(ctx, st); err != nil {
		return err
	}
	m.ended(ctx, st.ID, st.Rec.Header.User, reason)
	_, err := m.adoption.AfterEnd(ctx, &st.Rec.Header)
	return err
}

// ended reports the end of a session by something else than its own request.
func (m *core) ended(ctx context.Context, id store.ID, user, reason string) {
	m.count.revoked.Add(1)
	m.ends.Tell(id, ErrEnded)
	m.tell(ctx, Event{Kind: EventRevoked, Session: id.String(), User: strings.Clone(user), Reason: reason})
}

// revokeAtOnce is how many sessions are ended concurrently.
const revokeAtOnce = 16

func (m *core) revokeUser(ctx context.Context, user, reason string, keep []string) (int, error) {
	if err := m.begin(); err != nil {
		return 0, err
	}
	defer m.done()
	if user == "" {
		return 0, nil
	}
	if err := m.adoption.Refuse(ctx, user); err != nil {
		return 0, err
	}
	total := 0
	// Several rounds, for logins that were in progress during the previous one. A
	// delayed index may still list sessions that have ended.
	ended := map[store.ID]bool{}
	for range revokeRounds {
		listing, cancel := context.WithTimeout(ctx, m.timeout)
		all, err := m.stored.ByUser(listing, user)
		cancel()
		if err != nil {
			return total, err
		}
		all = slices.DeleteFunc(all, func(l stored.Listed) bool {
			again := ended[l.ID]
			ended[l.ID] = true
			return again || slices.Contains(keep, l.ID.String())
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
	return total, fault.Away("end all sessions of a user", errKeepsLoggingIn)
}

// revokeRounds is how often RevokeUser lists and ends a user's sessions. After
// that, new logins come in faster than they are ended, and RevokeUser fails.
const revokeRounds = 20

var errKeepsLoggingIn = errors.New("the user keeps logging in")

// revokeAll ends sessions, and returns how many of them were live.
func (m *core) revokeAll(ctx context.Context, all []stored.Listed, reason string) (n int, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, revokeAtOnce)
	live := m.now().Add(-rules.Skew)
	for _, l := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, m.timeout)
			defer cancel()
			var one error
			if l.Damaged {
				// A damaged record must no longer be listed as this user's.
				one = m.stored.Forget(ctx, l.ID, m.now().Add(store.MinTombstone))
			} else {
				one = m.revoke(ctx, l.State, reason)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case one != nil:
				err = one
			case !l.Damaged && !l.Meta.Expired(live): // else it was not surely live
				n++
			}
		})
	}
	wg.Wait()
	return n, err
}
