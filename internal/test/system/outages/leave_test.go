package outages

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/redis"
)

// A client that disconnects during a call to the store is not a failure of the
// store: operators have an alarm on StoreErrors.
func TestClientsThatLeaveAreNoFailuresOfTheStore(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (*wire, store.Store){
		"Redis": func(t *testing.T) (*wire, store.Store) {
			w := newWire(t, servers.Redis(t).Addr)
			s, err := redis.Open(t.Context(), redis.Options{Addrs: []string{w.Addr}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return w, s
		},
		"PostgreSQL": func(t *testing.T) (*wire, store.Store) {
			w := newWire(t, servers.Postgres(t).Addr)
			s, err := postgres.Open(t.Context(), "postgres://postgres@"+w.Addr+"/postgres?sslmode=disable", postgres.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return w, s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, db := start(t)
			m, log, header := service(t, db)

			heal := w.poison("latency", fromServer, attributes{"latency": 20})
			var left atomic.Int64
			var wg sync.WaitGroup
			for range 12 {
				wg.Go(func() {
					for range 50 {
						ctx, leave := context.WithCancel(t.Context())
						leaving := time.AfterFunc(rand.N(30*time.Millisecond), leave)
						if _, _, err := sitetest.Begin(ctx, m, header); err != nil && ctx.Err() != nil {
							left.Add(1)
						} else if err != nil {
							t.Errorf("a client that stays: %v", err)
						}
						leaving.Stop()
						leave()
					}
				})
			}
			wg.Wait()
			heal()
			if left.Load() < 100 {
				t.Fatalf("only %d of 600 clients left in time", left.Load())
			}
			if n := ops.For(m).Stats().StoreErrors; n != 0 {
				t.Errorf("%d clients that left count as %d failures of the store", left.Load(), n)
			}
			if got := log.String(); strings.Contains(got, "level=ERROR") || strings.Contains(got, "level=WARN") {
				t.Errorf("logged:\n%s", got)
			}

			w.cut()
			if _, _, err := sitetest.Begin(t.Context(), m, header); err == nil {
				t.Fatal("a load without a server works")
			}
			if n := ops.For(m).Stats().StoreErrors; n != 1 {
				t.Errorf("a load without a server: %d failures, want 1", n)
			}
			if !strings.Contains(log.String(), "level=ERROR") {
				t.Error("a load without a server is not logged")
			}
		})
	}
}

// service returns a manager on a store, its log, and the header of a browser
// that is logged in.
func service(t *testing.T, db store.Store) (*sojourn.Manager, *lines, http.Header) {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: db, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	out := http.Header{}
	s, x, err := sitetest.Begin(t.Context(), m, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	s.Login("ada")
	if err := x.Commit(http.StatusOK, out); err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	for _, c := range (&http.Response{Header: out}).Cookies() {
		header.Add("Cookie", fmt.Sprintf("%s=%s", c.Name, c.Value))
	}
	return m, log, header
}

// lines is a log that can be read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
