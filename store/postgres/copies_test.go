//go:build !race

package postgres

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/large"
	"github.com/sojourn-go/sojourn/internal/test/servers"
)

func TestALargeRecordIsCopiedOnce(t *testing.T) {
	large.OnEngine(t, opened(t, servers.Postgres(t).PostgresURL(), Options{}))
}
