package stored

import (
	"context"
	"errors"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
)

// Edit changes a session that its visitor may be using. f returns the changes
// for a state, and is called again after a concurrent save, so that its changes
// apply to the state that it read. An edit does not count as activity. Edit
// returns the resulting session. The error is f's, ErrGone, or wraps
// fault.TooLarge or fault.Unavailable.
func (s *Sessions) Edit(ctx context.Context, cur *State, f func(*State) (*draft.Draft, error)) (st *State, err error) {
	j := &job{Change: Change{Who: cur.Who, Base: cur}}
	j.alone = func(ctx context.Context, known *State) (*State, error) {
		st, err = s.edit(ctx, s.WithVolatile(ctx, newest(known, j)), f)
		return st, err
	}
	s.queues.do(ctx, s, j)
	return st, j.err
}

func (s *Sessions) edit(ctx context.Context, cur *State, f func(*State) (*draft.Draft, error)) (*State, error) {
	for attempt := 0; ; attempt++ {
		d, err := f(cur)
		if err != nil || d.Empty() {
			return cur, err
		}
		now := s.Now()
		rec, err := d.Apply(&cur.Rec, now)
		if err != nil {
			return cur, err
		}
		if rec.Size() > s.Limits.MaxSize {
			if n := len(rec.Append(nil)); n > s.Limits.MaxSize {
				return cur, fault.Size(n, s.Limits.MaxSize)
			}
		}
		next, data, err := s.seal(rec, cur.Who, cur, 0, now, cur.Meta.Seen)
		if err != nil {
			return cur, err
		}
		if err := s.keepLinked(ctx, cur, next); err != nil {
			return cur, err
		}
		err = s.send(ctx, withData(next, data), cur.Meta.Base())
		switch {
		case err == nil:
			return next, nil
		case !errors.Is(err, store.ErrConflict):
			return nil, err
		case !BackOff(ctx, attempt):
			return nil, fault.Away("save", ctx.Err())
		}
		s.Observer.Conflicted()
		if cur, err = s.loadNewest(ctx, cur.Who); err != nil {
			return nil, err
		}
	}
}
