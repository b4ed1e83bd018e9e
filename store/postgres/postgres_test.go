package postgres_test

import (
	"fmt"
	"testing"

	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestConformance(t *testing.T) {
	// What is acknowledged must be kept, which the fault tests show; here it would
	// only cost time.
	server := servers.Postgres(t, "synchronous_commit=off")
	n := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		n++
		s, err := postgres.Open(t.Context(), server.PostgresURL()+"&pool_max_conns=32", postgres.Options{Table: fmt.Sprintf("sessions_%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}
