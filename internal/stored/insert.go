package stored

import (
	"context"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Insert saves a record as a new session, within its user's limit (Max 0 =
// none), and calls evicted for each session that is ended to make room. The
// error is store.ErrConflict if there is, or was, a session with that
// identifier, or wraps fault.TooLarge, fault.TooMany or fault.Unavailable.
func (s *Sessions) Insert(ctx context.Context, r record.Record, who Who, limit store.UserLimit, evicted func(store.ID)) (*State, error) {
	now := s.Now()
	st, data, err := s.seal(r, who, nil, 0, now, now)
	if err == nil {
		err = s.insert(ctx, withData(st, data), limit, evicted)
	}
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (s *Sessions) insert(ctx context.Context, rec store.Record, limit store.UserLimit, evicted func(store.ID)) error {
	if limit.Max == 0 {
		return s.send(ctx, rec, store.Base{})
	}
	limiter, ok := s.Store.(store.UserLimiter)
	if !ok {
		return fault.Away("save", errors.ErrUnsupported)
	}
	return s.sendAgain(ctx, &rec, func(ctx context.Context) error {
		gone, err := limiter.SaveLimited(ctx, rec, limit)
		for _, id := range gone {
			evicted(id)
		}
		return err
	})
}

// Bury writes a tombstone of a session that never existed, until that time. The
// error is store.ErrConflict if the ID has a record.
func (s *Sessions) Bury(ctx context.Context, id store.ID, now, until time.Time) error {
	return s.send(ctx, store.Record{
		ID: id, Version: 1, SaveIDs: []store.SaveID{newSaveID()},
		Created: now, Seen: now, Ended: now, Deadline: until, Expires: until,
	}, store.Base{})
}

// Forget ends the session with an ID, if any, and blocks saves under the ID
// until that time.
func (s *Sessions) Forget(ctx context.Context, id store.ID, until time.Time) error {
	if err := s.Store.Delete(ctx, id, until); err != nil {
		return s.Observer.StoreFailed(ctx, "end a session", err)
	}
	return nil
}

// SaveDated saves a record whose information is its Seen, and which expires at
// until, as the successor of prev. It has the data of an empty session, so that
// code that reads the whole store can open it. shorten lets the times move
// backwards. The error is store.ErrConflict if the stored record is not prev.
func (s *Sessions) SaveDated(ctx context.Context, id store.ID, prev *store.Record, seen, until time.Time, shorten bool) error {
	now := s.Now()
	rec := store.Record{
		ID: id, Version: prev.Version + 1, SaveIDs: []store.SaveID{newSaveID()},
		Created: now, Seen: seen, Deadline: until, Expires: until, Shorten: shorten,
	}
	empty := record.Record{Header: record.Header{Created: now.UnixMilli()}}
	var err error
	rec.Data, err = SealRecord(s.Ring(), &empty, wire.BindRecord(s.bound, &rec), s.Limits.MaxSize)
	if err != nil {
		return err
	}
	return s.send(ctx, rec, prev.Base())
}
