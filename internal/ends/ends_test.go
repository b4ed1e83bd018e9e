package ends

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// source is a store whose sessions live until they are deleted.
type source struct {
	store.Store
	mu    sync.Mutex
	looks int
	away  error
}

func newSource(t *testing.T) (*source, *Feed) {
	s := &source{Store: memory.New()}
	return s, New(t.Context(), Options{
		Store: s.Store, Now: time.Now,
		Read: func(ctx context.Context, feed store.EndFeed, cursor string, limit int) (store.EndPage, error) {
			s.mu.Lock()
			err := s.away
			s.mu.Unlock()
			if err != nil {
				return store.EndPage{}, err
			}
			return feed.Ends(ctx, cursor, limit)
		},
	})
}

func (s *source) look(ctx context.Context, id store.ID) (time.Time, error) {
	s.mu.Lock()
	s.looks++
	err := s.away
	s.mu.Unlock()
	if err != nil {
		return time.Time{}, err
	}
	switch rec, err := s.Load(ctx, id); {
	case errors.Is(err, store.ErrNotFound):
		return time.Time{}, fault.Expired
	case err != nil:
		return time.Time{}, err
	case rec.IsEnd():
		return time.Time{}, fault.Ended
	default:
		return rec.Deadline, nil
	}
}

func (s *source) setAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

func (s *source) put(t *testing.T, name string, deadline time.Time) store.ID {
	t.Helper()
	id := store.HashIdentifier([]byte(name))
	err := s.Save(t.Context(), store.Record{
		ID: id, Version: 1, SaveIDs: []store.SaveID{1}, Created: time.Now(), Seen: time.Now(),
		Deadline: deadline, Expires: deadline, Data: []byte("sealed"),
	}, store.Base{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *source) end(t *testing.T, id store.ID) {
	t.Helper()
	if err := s.Delete(t.Context(), id, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func over(w *Watch) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}

func TestAnEndElsewhereIsHeardWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		deadline := time.Now().Add(time.Hour)
		id := s.put(t, "a", deadline)
		w := f.Watch(id, s.look, time.Now(), deadline)
		defer w.Release()
		time.Sleep(time.Minute)
		s.end(t, id)
		if time.Sleep(time.Second); !over(w) || !errors.Is(w.Err(), fault.Ended) {
			t.Errorf("a second later: %v", w.Err())
		}
	})
}

func TestTheDeadlineIsLookedAtAndMayHaveMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		id := s.put(t, "a", time.Now().Add(2*time.Hour)) // another request has used it since
		w := f.Watch(id, s.look, time.Now(), time.Now().Add(time.Hour))
		defer w.Release()
		if time.Sleep(90 * time.Minute); over(w) {
			t.Fatalf("it ended at a deadline that had moved: %v", w.Err())
		}
		s.end(t, id)
		if time.Sleep(time.Second); !over(w) {
			t.Error("it goes on")
		}
	})
}

func TestAStoreThatIsAwayEndsNobodyAndIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		deadline := time.Now().Add(time.Hour)
		id := s.put(t, "a", deadline)
		w := f.Watch(id, s.look, time.Now(), deadline)
		defer w.Release()
		time.Sleep(time.Minute)
		s.setAway(errors.New("no answer"))
		s.end(t, id)
		if time.Sleep(2 * time.Hour); over(w) {
			t.Fatalf("ended without an answer: %v", w.Err())
		}
		s.setAway(nil)
		if time.Sleep(2 * time.Second); !over(w) {
			t.Error("the store is back, and it goes on")
		}
	})
}

func TestNobodyLooksAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		deadline := time.Now().Add(time.Hour)
		var all []*Watch
		for i := range 100 {
			all = append(all, f.Watch(s.put(t, fmt.Sprint(i), deadline), s.look, time.Now(), deadline))
		}
		time.Sleep(time.Minute)
		if f.Waiting() != 100 {
			t.Errorf("%d wait, want 100", f.Waiting())
		}
		for _, w := range all {
			w.Release()
		}
		s.mu.Lock()
		before := s.looks
		s.mu.Unlock()
		time.Sleep(3 * time.Hour)
		if s.looks != before || f.Waiting() != 0 {
			t.Errorf("%d looks after everybody had left, %d wait", s.looks-before, f.Waiting())
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.reading {
			t.Error("the feed is still read")
		}
	})
}

// An end between the loading of a session and the first wait for it is not in the
// pages that are still to come.
func TestAnEndBeforeTheWaitIsKeptInMindForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		deadline := time.Now().Add(time.Hour)
		id := s.put(t, "a", deadline)
		other := f.Watch(s.put(t, "b", deadline), s.look, time.Now(), deadline)
		defer other.Release()
		time.Sleep(time.Minute)
		loaded := time.Now()
		s.end(t, id)
		time.Sleep(10 * time.Second)
		w := f.Watch(id, s.look, loaded, deadline)
		defer w.Release()
		if synctest.Wait(); !over(w) {
			t.Error("it goes on")
		}
		f.mu.Lock()
		kept := len(f.heard)
		f.mu.Unlock()
		time.Sleep(3 * time.Minute)
		s.end(t, s.put(t, "c", deadline)) // forgetting comes with hearing
		time.Sleep(time.Second)
		f.mu.Lock()
		defer f.mu.Unlock()
		if kept != 1 || len(f.heard) != 1 {
			t.Errorf("%d ends in mind, %d three minutes later", kept, len(f.heard))
		}
	})
}

func TestCloseEndsEverybodyAlsoLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSource(t)
		deadline := time.Now().Add(time.Hour)
		w := f.Watch(s.put(t, "a", deadline), s.look, time.Now(), deadline)
		defer w.Release()
		f.Close(fault.Closed)
		late := f.Watch(s.put(t, "b", deadline), s.look, time.Now(), deadline)
		defer late.Release()
		for _, w := range []*Watch{w, late} {
			if !over(w) || !errors.Is(w.Err(), fault.Closed) {
				t.Errorf("got %v", w.Err())
			}
		}
	})
}
