package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// opener returns stores with those options, each with a prefix of its own, on
// servers that it empties after each test: a walk over one store's records
// looks at all keys.
func opener(o Options, masters ...*servers.Server) func(t *testing.T) store.Store {
	var n atomic.Int64
	return func(t *testing.T) store.Store {
		o := o
		o.Prefix = fmt.Sprintf("t%d:", n.Add(1))
		t.Cleanup(func() {
			for _, m := range masters {
				m.RedisCommand("FLUSHALL", "SYNC")
			}
		})
		return opened(t, o)
	}
}

func opened(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// single starts a server and opens a store on it.
func single(t testing.TB, args ...string) (*servers.Server, *Store) {
	t.Helper()
	server := servers.Redis(t, args...)
	return server, opened(t, at(server))
}

func at(server *servers.Server) Options { return Options{Addrs: []string{server.Addr}} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newID() store.ID {
	return store.HashIdentifier(fmt.Appendf(nil, "%x%x", rand.Uint64(), rand.Uint64()))
}

// session returns a session's first record, live for an hour.
func session(user store.UserHash) store.Record {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return store.Record{
		ID: newID(), Version: 1, SaveIDs: []store.SaveID{store.SaveID(rand.Uint64())}, User: user,
		Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Data: []byte("values"),
	}
}

// next returns the record that follows.
func next(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{store.SaveID(rand.Uint64())}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	return rec
}

// ended returns the tombstone that replaces rec.
func ended(rec store.Record, keep time.Duration) store.Record {
	rec = next(rec)
	rec.Ended = time.Now().UTC().Truncate(time.Millisecond)
	rec.Deadline = rec.Ended.Add(keep)
	rec.Data = nil
	return rec
}

func inserted(t testing.TB, s *Store, rec store.Record) store.Record {
	t.Helper()
	must(t, s.Save(context.Background(), rec, store.Base{}))
	return rec
}

func saved(t testing.TB, s *Store, rec store.Record, base store.Base) store.Record {
	t.Helper()
	must(t, s.Save(context.Background(), rec, base))
	return rec
}

// within returns a context for one call that may hang.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so, even after 30 seconds: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// settled saves as the session manager does: what is unknown is sent again.
func settled(t testing.TB, s *Store, rec store.Record, base store.Base) {
	t.Helper()
	eventually(t, "a save is settled", func() bool {
		err := s.Save(within(t, time.Second), rec, base)
		if errors.Is(err, store.ErrConflict) {
			t.Fatalf("a save that was sent again: %v", err)
		}
		return err == nil
	})
}

// raw is the library's client.
func (s *Store) raw() valkey.Client { return s.current.Load().rdb }
