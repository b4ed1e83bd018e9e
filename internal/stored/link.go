package stored

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
)

// A session is linked to a session of an OpenID provider by a link: a keyed hash
// of the provider and its session. The link is in the session's sealed header.
// Beside it the store has two kinds of notes:
//
//   - that a user has sessions with the link, written before the first of them;
//   - that the link is closed, written before any of them is ended.
//
// A login writes its session after the first note and before it reads the second
// one. A process that closes a link lists the user's sessions afterwards. So each
// linked session is listed, or its login finds the link closed.
//
// Notes are tombstones of sessions that never existed. Code that counts, lists or
// limits sessions passes over them, and code that copies or sweeps tombstones needs
// no case for them. They need no compare-and-set. An attacker who changes a note
// cannot end a session that does not have the link in its own header.

// maxLinked is how many users may have sessions with one link.
const maxLinked = 8

// closedFor is how long a closed link refuses logins at least. A provider's
// answers are good for minutes.
const closedFor = 24 * time.Hour

// Link returns the link of a provider's session.
func (s *Sessions) Link(issuer, sid string) string {
	return string(s.Ring().Link(s.Scope, issuer, sid))
}

func linkedNote(link string, n int) store.ID {
	return store.HashIdentifier(append([]byte(link), byte(n)))
}

func closedNote(link string) store.ID { return linkedNote(link, maxLinked) }

// noteLinked writes a note that a user has sessions with a link, until that
// time. If the note expires just before it is extended, the tombstone has no
// user, so it is read again, and the next number is used.
func (s *Sessions) noteLinked(ctx context.Context, link string, user store.UserHash, until time.Time) error {
	until = until.Add(store.MinTombstone)
	for n := range maxLinked {
		id := linkedNote(link, n)
		now := s.Now()
		err := s.send(ctx, store.Record{
			ID: id, Version: 1, SaveIDs: []store.SaveID{newSaveID()}, User: user,
			Created: now, Seen: now, Ended: now, Deadline: until, Expires: until,
		}, store.Base{})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		note, err := s.Ask(ctx, id, 0)
		if err == nil && note.Meta.User == user && note.Meta.Deadline.Before(until) {
			if err := s.Forget(ctx, id, until); err != nil {
				return err
			}
			note, err = s.Ask(ctx, id, 0)
		}
		switch {
		case err != nil:
			return fault.Away("link a session", err)
		case note.Meta.User == user:
			return nil
		}
	}
	return fmt.Errorf("%w: Link: %d users have sessions with it", fault.BadValue, maxLinked)
}

// keepLinked makes the note of a linked session last as long as the session.
func (s *Sessions) keepLinked(ctx context.Context, cur, next *State) error {
	h := &next.Rec.Header
	if h.Link == "" || cur != nil && !next.Meta.Expires.After(cur.Meta.Expires) {
		return nil
	}
	return s.noteLinked(ctx, h.Link, next.Meta.User, next.Meta.Expires)
}

// linkOpen returns fault.Ended if a link is closed.
func (s *Sessions) linkOpen(ctx context.Context, link string) error {
	switch st, err := s.Ask(ctx, closedNote(link), 0); {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case errors.Is(err, ErrDamaged), err == nil && !st.Meta.Expired(s.Now()):
		return fmt.Errorf("%w: the provider has ended the session of this login", fault.Ended)
	default:
		return err
	}
}

// CloseLink lets no further login with that link succeed, and returns the sessions
// that have it and have not ended. It can be repeated.
func (s *Sessions) CloseLink(ctx context.Context, link string) (all []Listed, err error) {
	if _, err := s.byHash(ctx, store.UserHash{}, ""); err != nil {
		return nil, err
	}
	// The note outlasts all sessions with the link: if this process fails before it has
	// ended them, the provider may ask again much later.
	until := s.Now().Add(closedFor)
	if err := s.Forget(ctx, closedNote(link), until); err != nil {
		return nil, err
	}
	for n := range maxLinked {
		note, err := s.Ask(ctx, linkedNote(link, n), 0)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue // it was never written, or has expired; a later one may last longer
		case err != nil:
			return all, err
		case note.Meta.Deadline.After(until):
			until = note.Meta.Deadline
			if err := s.Forget(ctx, closedNote(link), until); err != nil {
				return all, err
			}
		}
		listed, err := s.byHash(ctx, note.Meta.User, "")
		for _, l := range listed {
			if !l.Damaged && l.Rec.Header.Link == link {
				all = append(all, l)
			}
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// checkedLink returns check, followed by a check that the link is open.
func (s *Sessions) checkedLink(ctx context.Context, link string, check func() error) func() error {
	if link == "" {
		return check
	}
	return func() error {
		if check != nil {
			if err := check(); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Timeout)
		defer cancel()
		return s.linkOpen(ctx, link)
	}
}
