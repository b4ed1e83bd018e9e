package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// connections counts those of stores.
func connections(server *servers.Server) int {
	return strings.Count(server.RedisCommand("CLIENT", "LIST"), "name=sojourn")
}

func TestCallsThatAreAloneShareOneMoreConnection(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	for range 5 {
		rec = saved(t, s, next(rec), rec.Base())
		if _, err := s.Load(t.Context(), rec.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := connections(server); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 10 {
				if _, err := s.Load(t.Context(), rec.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := connections(server); n != 2 {
		t.Errorf("a crowd has %d connections, want 2", n)
	}
}

// A call on a connection that the server has closed would have an unknown
// outcome.
func TestAConnectionThatEndedWhileItWasIdleCostsNoCall(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	for range 5 {
		server.RedisCommand("CLIENT", "KILL", "TYPE", "normal")
		eventually(t, "the end is noticed", func() bool { return s.current.Load().alone.watched.Load() == 0 })
		if _, err := s.Load(t.Context(), rec.ID); err != nil { // makes the shared one again
			t.Error(err)
		}
		for range 3 {
			rec = saved(t, s, next(rec), rec.Base())
		}
	}
}

func TestACallThatIsAloneEndsWithItsContext(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	server.Pause()
	began := time.Now()
	late, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cancelled, cancel := context.WithCancel(late)
	go cancel()
	if _, err := s.Load(cancelled, rec.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	two := next(rec)
	if err := s.Save(within(t, 20*time.Millisecond), two, rec.Base()); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrRefused) {
		t.Errorf("%v, want context.DeadlineExceeded, and that it may have been saved", err)
	}
	if took := time.Since(began); took > unresponsive {
		t.Errorf("it took %v", took)
	}
	server.Resume()
	settled(t, s, two, rec.Base())
}
