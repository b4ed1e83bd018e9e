package stored

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// Listed is a record in a user's index that has not ended.
type Listed struct {
	*State
	Damaged bool // it is not a session; only its ID is set
}

// ByUser returns the records of a user that have not ended, including those
// that have expired by this process's clock. Without an index by user the error
// wraps errors.ErrUnsupported.
func (s *Sessions) ByUser(ctx context.Context, user string) ([]Listed, error) {
	return s.byHash(ctx, s.UserHash(user), user)
}

// byHash is ByUser by the user's hash; user is "" if the name is unknown.
func (s *Sessions) byHash(ctx context.Context, hash store.UserHash, user string) (all []Listed, err error) {
	index, ok := s.Store.(store.UserIndex)
	if !ok {
		return nil, fmt.Errorf("sojourn: list a user's sessions: the store cannot: %w", errors.ErrUnsupported)
	}
	recs, err := index.ByUser(ctx, hash)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("sojourn: list a user's sessions: %w", err)
	case err != nil:
		return nil, s.Observer.StoreFailed(ctx, "list a user's sessions", err)
	}
	for _, rec := range recs {
		if rec.User != hash {
			_ = s.damaged(rec.ID, store.ErrDamaged) // another user's
			continue
		}
		if rec.IsEnd() {
			continue
		}
		switch st, err := s.verified(rec.ID, rec); {
		case errors.Is(err, ErrDamaged):
			all = append(all, Listed{&State{Who: Who{ID: rec.ID}}, true})
		case err != nil:
			describeSealed(st, user)
			all = append(all, Listed{st, false})
		default:
			all = append(all, Listed{st, false})
		}
	}
	return all, nil
}

// UserHash is the name of a user in the store's index.
func (s *Sessions) UserHash(user string) store.UserHash { return s.Ring().UserHash(s.Scope, user) }

// describeSealed describes a session whose key is missing, by the store's
// metadata. Other credentials for it are unknown, so its tombstone is kept for
// the maximum time.
func describeSealed(st *State, user string) {
	st.Rec.Header = record.Header{
		User:        user,
		Created:     record.Millis(st.Meta.Created),
		InlineUntil: record.Millis(st.Meta.Expires),
	}
}

// ByHandle returns the session with that handle if it is live, or expired at
// most skew ago; fault.NotFound otherwise.
func (s *Sessions) ByHandle(ctx context.Context, handle string, skew time.Duration) (*State, error) {
	id, err := store.ParseID(handle)
	if err != nil {
		return nil, fault.NotFound
	}
	// The handle may belong to another manager's or tenant's session, whose
	// record does not open here but is not damaged.
	quiet := *s
	quiet.Observer = unalarmed{s.Observer}
	st, err := quiet.Ask(ctx, id, 0)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, ErrDamaged):
		return nil, fault.NotFound
	case st == nil:
		return nil, err
	case st.Meta.IsEnd(), st.Meta.Expired(s.Now().Add(-skew)):
		return nil, fault.NotFound
	case err != nil:
		describeSealed(st, "")
	}
	return st, nil
}

// unalarmed is an observer for records that may belong to another manager.
type unalarmed struct{ Observer }

func (unalarmed) Damaged(store.ID, error) {}
