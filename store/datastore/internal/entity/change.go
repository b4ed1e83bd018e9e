package entity

import (
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A Change returns the new record for the stored record, if there is one. An
// error leaves the stored record unchanged; ErrUnchanged means success without
// a write. It may be called again after a conflict with another writer.
type Change func(have store.Record, found bool) (store.Record, error)

// ErrUnchanged is the result of a Change that has nothing to write.
var ErrUnchanged = errors.New("nothing to change")

// Unless returns err, or nil if err is one.
func Unless(one, err error) error {
	if errors.Is(err, one) {
		return nil
	}
	return err
}

// Saving is the change that a [store.Store]'s Save makes.
func Saving(rec store.Record, base store.Base) Change {
	if base == (store.Base{}) {
		return inserting(rec)
	}
	return func(have store.Record, found bool) (store.Record, error) {
		switch {
		case !found:
			return store.Record{}, store.ErrConflict
		case have.HasSaveID(rec.SaveIDs[0]):
			return store.Record{}, ErrUnchanged
		case have.IsEnd() || have.Base() != base:
			return store.Record{}, store.ErrConflict
		}
		next := rec
		if !rec.Shorten && !rec.IsEnd() {
			next.Seen, next.Deadline = Later(rec.Seen, have.Seen), Later(rec.Deadline, have.Deadline)
		}
		return next, nil
	}
}

// inserting is the change of a first save. It replaces a record past its
// deadline.
func inserting(rec store.Record) Change {
	return func(have store.Record, found bool) (store.Record, error) {
		switch {
		case found && have.HasSaveID(rec.SaveIDs[0]):
			return store.Record{}, ErrUnchanged
		case found && !have.Expired(time.Now()):
			return store.Record{}, store.ErrConflict
		}
		return rec, nil
	}
}

// Ending is the change that a [store.Store]'s Delete makes.
func Ending(id store.ID, until time.Time) Change {
	return func(have store.Record, found bool) (store.Record, error) {
		if !found {
			have = store.Record{ID: id, Created: time.Now(), Seen: time.Now(), Expires: until}
		}
		if !have.IsEnd() {
			have.Ended, have.Deadline, have.Data = time.Now(), until, nil
			return have, nil
		}
		if !until.After(have.Deadline) {
			return store.Record{}, ErrUnchanged
		}
		have.Deadline = until
		return have, nil
	}
}

// Touching is the change that a [store.Toucher]'s Touch makes.
func Touching(seen, deadline time.Time) Change {
	return func(have store.Record, found bool) (store.Record, error) {
		if !found || have.IsEnd() {
			return store.Record{}, store.ErrNotFound
		}
		next := have
		next.Seen, next.Deadline = Later(have.Seen, Millis(seen)), Later(have.Deadline, Millis(deadline))
		if next.Seen.Equal(have.Seen) && next.Deadline.Equal(have.Deadline) {
			return store.Record{}, ErrUnchanged
		}
		return next, nil
	}
}
