package stored

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
)

// newSaveID returns a random save ID. It is even.
func newSaveID() store.SaveID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return store.SaveID(binary.LittleEndian.Uint64(b[:])) &^ 1
}

// newReplacedSaveID returns a random save ID for a tombstone that Login or
// Logout leaves. It is odd, by which EndOf recognizes it: a tombstone that the
// store itself makes keeps the save IDs of the record.
func newReplacedSaveID() store.SaveID { return newSaveID() | 1 }

// EndOf returns the information of a tombstone.
func EndOf(rec *store.Record) *Gone {
	return &Gone{Ended: rec.Ended, Replaced: rec.IsEnd() && len(rec.SaveIDs) > 0 && rec.SaveIDs[0]&1 == 1}
}

// send saves a record. It resolves an unknown outcome by sending the same save
// again, with the same save ID: the store applies it once, and a first attempt
// that is still under way comes too late then. A store that refuses has already
// waited, so send only tries again if this attempt's share of the time ended
// the wait. A refusal after an attempt with an unknown outcome says nothing
// about that attempt.
func (s *Sessions) send(ctx context.Context, rec store.Record, base store.Base) error {
	return s.sendAgain(ctx, &rec, func(ctx context.Context) error { return s.Store.Save(ctx, rec, base) })
}

func (s *Sessions) sendAgain(ctx context.Context, rec *store.Record, save func(context.Context) error) error {
	const tries = 4
	pause := 20 * time.Millisecond
	sure := true // certain that nothing was saved
	for try := 1; ; try++ {
		once, cancel := context.WithTimeout(ctx, 2*s.Timeout/5)
		err := save(once)
		over := once.Err() != nil
		cancel()
		switch {
		case err == nil:
			s.Observer.Saved()
			return nil
		case errors.Is(err, store.ErrConflict):
			s.Observer.Conflicted()
			if !sure && !s.notSaved(ctx, rec) {
				return fault.Away("save", fault.ErrUnknown)
			}
			return err
		case errors.Is(err, store.ErrTooLarge):
			return fmt.Errorf("%w: %w", fault.TooLarge, err)
		case errors.Is(err, store.ErrLimit):
			return fmt.Errorf("%w: %w", fault.TooMany, err)
		case errors.Is(err, errors.ErrUnsupported):
			return fault.Away("save", err)
		}
		refused := errors.Is(err, store.ErrRefused)
		if sure = sure && refused; !sure {
			err = fmt.Errorf("%w: %w", fault.ErrUnknown, err)
		}
		failed := s.Observer.StoreFailed(ctx, "save", err)
		if try == tries || refused && !over || !sleep(ctx, pause) {
			return failed
		}
		s.Observer.Retried()
		pause *= 4
	}
}

// notSaved reports whether a save with a conflict after an unknown outcome was
// certainly not applied: otherwise its save ID would still be there. After many
// more saves the ID is gone, so the answer is unknown.
func (s *Sessions) notSaved(ctx context.Context, rec *store.Record) bool {
	cur, err := s.Ask(ctx, rec.ID, 0)
	return errors.Is(err, store.ErrNotFound) || cur != nil && cur.Meta.Version < rec.Version+store.RecentSaveIDs
}

// BackOff waits for a short random time before a save is retried on a newer
// base. It reports whether there is time for that.
func BackOff(ctx context.Context, attempt int) bool {
	most := time.Millisecond << min(attempt, 5)
	return sleep(ctx, mathrand.N(most))
}

// sleep waits for d and reports whether ctx is still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
