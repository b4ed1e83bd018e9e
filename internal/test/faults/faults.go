// Package faults has a store for tests that counts its calls, and that a test
// can make fail, hang or lose answers.
package faults

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// ErrLost is the error of a lost answer, with an unknown outcome. A store that
// is switched off returns it.
var ErrLost = errors.New("faults: connection lost")

var errRefused = fmt.Errorf("%w: %w", store.ErrRefused, ErrLost)

// Store wraps another store. What that one cannot do is [errors.ErrUnsupported].
// Set the functions before, or while no request is under way; each is called
// instead of the wrapped store's method, and may call it through Inner.
type Store struct {
	Inner   store.Store
	Loads   atomic.Int64
	Saves   atomic.Int64
	Touches atomic.Int64
	Marks   atomic.Int64 // tombstones saved, and Deletes
	Polls   atomic.Int64 // of the feed of ends

	Down     atomic.Bool // every call fails
	SaveDown atomic.Bool // every Save is refused, so nobody has to try again to find out

	OnLoad   func(ctx context.Context, id store.ID) (store.Record, error)
	OnSave   func(ctx context.Context, rec store.Record, base store.Base) error
	OnDelete func(ctx context.Context, id store.ID, until time.Time) error
	OnTouch  func(ctx context.Context, id store.ID, seen, deadline time.Time) error

	OnSaveLimited func(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error)
	OnEnds        func(ctx context.Context, cursor string, limit int) (store.EndPage, error)
}

// Wrap returns a store that answers as inner does.
func Wrap(inner store.Store) *Store { return &Store{Inner: inner} }

// Store returns the store for a manager, with copies if the wrapped store has
// them.
func (s *Store) Store() store.Store {
	if inner, ok := s.Inner.(store.FloorLoader); ok {
		return copies{s, inner}
	}
	return s
}

type copies struct {
	*Store
	inner store.FloorLoader
}

// LoadFrom implements store.FloorLoader.
func (c copies) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	c.Loads.Add(1)
	if c.Down.Load() {
		return store.Record{}, ErrLost
	}
	if c.OnLoad != nil {
		return c.OnLoad(ctx, id)
	}
	return c.inner.LoadFrom(ctx, id, floor)
}

// Calls returns the number of calls to the store.
func (s *Store) Calls() int64 {
	return s.Loads.Load() + s.Saves.Load() + s.Touches.Load() + s.Marks.Load()
}

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.Loads.Add(1)
	if s.Down.Load() {
		return store.Record{}, ErrLost
	}
	if s.OnLoad != nil {
		return s.OnLoad(ctx, id)
	}
	return s.Inner.Load(ctx, id)
}

// Save implements store.Store.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if rec.IsEnd() {
		s.Marks.Add(1)
	} else {
		s.Saves.Add(1)
	}
	if s.Down.Load() {
		return ErrLost
	}
	if s.SaveDown.Load() {
		return errRefused
	}
	if s.OnSave != nil {
		return s.OnSave(ctx, rec, base)
	}
	return s.Inner.Save(ctx, rec, base)
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	s.Marks.Add(1)
	if s.Down.Load() {
		return ErrLost
	}
	if s.OnDelete != nil {
		return s.OnDelete(ctx, id, until)
	}
	return s.Inner.Delete(ctx, id, until)
}

// Touch implements store.Toucher.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	s.Touches.Add(1)
	if s.Down.Load() {
		return ErrLost
	}
	if s.OnTouch != nil {
		return s.OnTouch(ctx, id, seen, deadline)
	}
	if t, ok := s.Inner.(store.Toucher); ok {
		return t.Touch(ctx, id, seen, deadline)
	}
	return errors.ErrUnsupported
}

// ByUser implements store.UserIndex.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if s.Down.Load() {
		return nil, ErrLost
	}
	if i, ok := s.Inner.(store.UserIndex); ok {
		return i.ByUser(ctx, user)
	}
	return nil, errors.ErrUnsupported
}

// SaveLimited implements store.UserLimiter. It counts as a Save.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	s.Saves.Add(1)
	if s.SaveDown.Load() {
		return nil, errRefused
	}
	if s.Down.Load() {
		return nil, ErrLost
	}
	if s.OnSaveLimited != nil {
		return s.OnSaveLimited(ctx, rec, limit)
	}
	if l, ok := s.Inner.(store.UserLimiter); ok {
		return l.SaveLimited(ctx, rec, limit)
	}
	return nil, errors.ErrUnsupported
}

// Ends implements store.EndFeed.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	s.Polls.Add(1)
	if s.Down.Load() {
		return store.EndPage{}, ErrLost
	}
	if s.OnEnds != nil {
		return s.OnEnds(ctx, cursor, limit)
	}
	if f, ok := s.Inner.(store.EndFeed); ok {
		return f.Ends(ctx, cursor, limit)
	}
	return store.EndPage{}, errors.ErrUnsupported
}

// Sweep implements store.Sweeper.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if s.Down.Load() {
		return 0, ErrLost
	}
	if w, ok := s.Inner.(store.Sweeper); ok {
		return w.Sweep(ctx, age, limit)
	}
	return 0, errors.ErrUnsupported
}

// Scan implements store.Scanner.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if s.Down.Load() {
		return nil, "", ErrLost
	}
	if c, ok := s.Inner.(store.Scanner); ok {
		return c.Scan(ctx, cursor, limit)
	}
	return nil, "", errors.ErrUnsupported
}

// Count implements store.Counter.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	if s.Down.Load() {
		return store.Counts{}, ErrLost
	}
	if c, ok := s.Inner.(store.Counter); ok {
		return c.Count(ctx)
	}
	return store.Counts{}, errors.ErrUnsupported
}
