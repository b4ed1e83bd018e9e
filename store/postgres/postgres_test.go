package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/promises"
	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// tables returns a function that opens an empty store, with a table of its own.
func tables(url string) func(t *testing.T) store.Store {
	n := 0
	return func(t *testing.T) store.Store {
		n++
		s, err := Open(t.Context(), url, Options{Table: fmt.Sprintf("sessions_%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func TestConformance(t *testing.T) {
	// What is acknowledged must be kept, which the fault tests show; here it would
	// only cost time.
	server := servers.Postgres(t, "synchronous_commit=off")
	storetest.Run(t, tables(server.PostgresURL()), storetest.Records(20_000))
}

func TestConformanceThroughPgbouncerInTransactionMode(t *testing.T) {
	server := servers.Postgres(t, "synchronous_commit=off")
	bouncer := servers.PgBouncer(t, server, 2)
	storetest.Run(t, tables(bouncer.PostgresURL()+"&pool_max_conns=16"), storetest.Records(5_000))
}

func TestPromises(t *testing.T) {
	server := servers.Postgres(t, "synchronous_commit=off")
	promises.Run(t, tables(server.PostgresURL()))
}

// open returns a store on a server of its own.
func single(t testing.TB, settings ...string) (*servers.Server, *Store) {
	t.Helper()
	server := servers.Postgres(t, settings...)
	return server, opened(t, server.PostgresURL(), Options{})
}

func opened(t testing.TB, url string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), url, o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within is a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute, not yet: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
