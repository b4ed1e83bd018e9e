package tiered

import (
	"context"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// SetClock gives a replica a clock of its own.
func SetClock(s *Store, now func() time.Time) { s.now = now }

// SetInProcess marks a layer as in the process, as if its cache were a Memory.
func SetInProcess(s *Store, layer int) { s.layers[layer].inProcess = true }

// VolatileKey is the shared cache's key for a session's volatile values.
func VolatileKey(id store.ID) store.ID { return volatileKey(id) }

// HearByHand makes a store read the feed only when poll is called.
func HearByHand(s *Store) (poll func(context.Context) error) {
	if s.ends == nil {
		s.hearEnds()
	}
	s.ends.manual = true
	return func(ctx context.Context) error {
		_, err := s.ends.poll(ctx)
		return err
	}
}

// Remembered returns how many ends a store remembers, and the limit, besides a
// page.
func Remembered(s *Store) (n, most int) {
	s.ends.mu.Lock()
	defer s.ends.mu.Unlock()
	return len(s.ends.ends), maxRemembered
}
