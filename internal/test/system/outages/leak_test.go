package outages

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/cloud"
	"github.com/sojourn-go/sojourn/store/memcached"
	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/tiered"
)

const (
	failures = 1000
	parallel = 100
	// callTime bounds each call.
	callTime = 50 * time.Millisecond
)

// engine is a store or cache with a server that can fail.
type engine struct {
	name  string
	start func(t testing.TB) *servers.Server
	// open connects to addr. call makes a call to the server.
	open func(t testing.TB, addr string) (call func(context.Context) error, closer io.Closer)
	// connections is the maximum number of connections with this test's
	// parallel calls.
	connections int
}

var engines = []engine{
	{
		name:  "store in redis",
		start: func(t testing.TB) *servers.Server { return servers.Redis(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			s, err := redis.Open(t.Context(), redis.Options{Addrs: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			return saves(s), s
		},
		connections: 16,
	},
	{
		name:  "store in redis that waits for replicas",
		start: func(t testing.TB) *servers.Server { return servers.Redis(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			s, err := redis.Open(t.Context(), redis.Options{Addrs: []string{addr}, Replicas: 1, ReplicaTimeout: callTime})
			if err != nil {
				t.Fatal(err)
			}
			return saves(s), s
		},
		// Saves have a connection each, and those that broke are still being closed.
		connections: 16 + 64 + parallel,
	},
	{
		name:  "store in postgres",
		start: func(t testing.TB) *servers.Server { return servers.Postgres(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			s, err := postgres.Open(t.Context(), "postgres://postgres@"+addr+"/postgres?sslmode=disable", postgres.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return saves(s), s
		},
		// Its pool, and as many again that ask the server to cancel a statement.
		connections: 16,
	},
	{
		name:  "store in datastore",
		start: func(t testing.TB) *servers.Server { return servers.Datastore(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			if err := os.Setenv("DATASTORE_EMULATOR_HOST", addr); err != nil {
				t.Fatal(err)
			}
			s, err := cloud.Open(t.Context(), "outages", cloud.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return saves(s), s
		},
		connections: 16,
	},
	{
		name:  "store in memcached",
		start: func(t testing.TB) *servers.Server { return servers.Memcached(t, 64) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			s, err := memcached.NewStore([]string{addr}, memcached.Options{Timeout: callTime})
			if err != nil {
				t.Fatal(err)
			}
			return saves(s), s
		},
		connections: 64 + parallel,
	},
	{
		name:  "cache in memcached",
		start: func(t testing.TB) *servers.Server { return servers.Memcached(t, 64) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			c, err := memcached.NewCache([]string{addr}, memcached.Options{Timeout: callTime})
			if err != nil {
				t.Fatal(err)
			}
			return gets(c), c
		},
		connections: 64 + parallel,
	},
	{
		name:  "cache in redis",
		start: func(t testing.TB) *servers.Server { return servers.Redis(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			c, err := redis.NewCache(redis.Options{Addrs: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			return gets(c), c
		},
		connections: 16,
	},
	{
		name:  "store in redis behind a cache in memcached",
		start: func(t testing.TB) *servers.Server { return servers.Redis(t) },
		open: func(t testing.TB, addr string) (func(context.Context) error, io.Closer) {
			s, err := redis.Open(t.Context(), redis.Options{Addrs: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			// The cache has the address of the store, which fails in the same way.
			c, err := memcached.NewCache([]string{addr}, memcached.Options{Timeout: callTime})
			if err != nil {
				t.Fatal(err)
			}
			both, err := tiered.New(s, tiered.Layer{Cache: c})
			if err != nil {
				t.Fatal(err)
			}
			return saves(both), closers{s, c}
		},
		connections: 16 + parallel,
	},
}

type closers []io.Closer

func (cs closers) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// serial makes the IDs of this file different.
var serial atomic.Uint64

func newID() store.ID {
	n := serial.Add(1)
	return store.ID{1, byte(n >> 16), byte(n >> 8), byte(n)}
}

// saves inserts a session and loads it.
func saves(s store.Store) func(context.Context) error {
	return func(ctx context.Context) error {
		now := time.Now().UTC().Truncate(time.Millisecond)
		rec := store.Record{
			ID: newID(), Version: 1, SaveIDs: []store.SaveID{1},
			Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: []byte("data"),
		}
		if err := s.Save(ctx, rec, store.Base{}); err != nil {
			return err
		}
		_, err := s.Load(ctx, rec.ID)
		return err
	}
}

func gets(c store.Cache) func(context.Context) error {
	return func(ctx context.Context) error {
		id := newID()
		if _, err := c.Add(ctx, id, []byte("entry"), time.Hour); err != nil {
			return err
		}
		_, _, err := c.Get(ctx, id)
		return err
	}
}

func TestAThousandFailuresLeakNothing(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			if alone(t) {
				return
			}
			server := e.start(t)
			type breaking struct {
				name   string
				breaks func(w *wire) (repair func())
			}
			all := []breaking{
				{"refuses", func(w *wire) func() { w.cut(); return w.plug }},
				{"is frozen", func(w *wire) func() { return w.poison("timeout", toServer, attributes{"timeout": 0}) }},
				{"is dead", func(*wire) func() { server.Kill(); return server.Start }},
			}
			if soakTime(t) > 0 {
				all = append(all,
					breaking{"answers no more", func(w *wire) func() { return w.poison("timeout", fromServer, attributes{"timeout": 0}) }},
					breaking{"hangs up", func(w *wire) func() { return w.poison("limit_data", fromServer, attributes{"bytes": 0}) }})
			}
			for _, f := range all {
				t.Run("a server that "+f.name, func(t *testing.T) { e.fails(t, server, f.breaks) })
			}
		})
	}
}

// alone runs the test in a separate process, because all goroutines of the
// process count, and reports whether it did: in that process it returns false.
func alone(t *testing.T) bool {
	const here = "FAULT_ALONE"
	if os.Getenv(here) != "" {
		return false
	}
	t.Parallel()
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(os.Args[0], "-test.run", pattern)
	cmd.Env = append(os.Environ(), here+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no tests to run") {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

func (e engine) fails(t *testing.T, server *servers.Server, breaks func(*wire) func()) {
	w := newWire(t, server.Addr)
	before := goleak.IgnoreCurrent()
	call, closer := e.open(t, w.Addr)
	works := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return call(ctx) == nil
	}
	if e.name != "store in redis that waits for replicas" {
		// A client's own timeout may be short for a busy machine.
		client.Eventually(t, "it works at the beginning", works)
	}

	repair := breaks(w)
	var callers sync.WaitGroup
	var left atomic.Int64
	left.Store(failures)
	for range parallel {
		callers.Go(func() {
			for left.Add(-1) >= 0 {
				ctx, cancel := context.WithTimeout(context.Background(), callTime)
				if call(ctx) == nil {
					t.Error("a call succeeded")
				}
				cancel()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		callers.Wait()
		close(done)
	}()
	most := 0
	last := map[string]bool{}
	for watching := true; watching; {
		select {
		case <-done:
			watching = false
		case <-time.After(10 * time.Millisecond):
		}
		// While the list is read, connections come and go: only one that is in two
		// lists was surely open at the same time as the others.
		now, both := connectionsTo(t, w.Addr), 0
		for c := range now {
			if last[c] {
				both++
			}
		}
		most, last = max(most, both), now
	}
	if most > e.connections {
		t.Errorf("%d connections were open at the same time, want at most %d", most, e.connections)
	}

	repair()
	if e.name != "store in redis that waits for replicas" {
		client.Eventually(t, "it works again", works)
	}
	if err := closer.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	client.Eventually(t, "all connections are closed", func() bool { return len(connectionsTo(t, w.Addr)) == 0 })
	w.cut()
	http.DefaultClient.CloseIdleConnections() // from checks that the server is up
	if err := goleak.Find(before,
		// The wire's, whose writes to a closed connection get stuck sometimes.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write"),
		// Those that wait for the server, which may have been started again.
		goleak.IgnoreAnyFunction("github.com/sojourn-go/sojourn/internal/test/servers.(*Server).Start.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"),
	); err != nil {
		t.Errorf("after %d failures: %v", failures, err)
	}
}
