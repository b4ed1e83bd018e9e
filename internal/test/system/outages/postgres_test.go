package outages

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// postgresRestarts are the ways in which PostgreSQL comes back. It is durable
// by default.
func postgresRestarts(server *servers.Server) []fault {
	restart := func(stop func()) func(*testing.T) {
		return func(*testing.T) {
			stop()
			<-time.After(aWhile)
			server.Start()
		}
	}
	return []fault{
		{"a fast restart", restart(server.Stop)},
		{"an immediate restart", restart(server.Abort)},
	}
}

func TestPostgresIsRestarted(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	scenario{
		probes:     []string{"-store", server.PostgresURL()},
		storeFails: true,
		faults:     postgresRestarts(server),
	}.run(t)
}

func TestTheWireToPostgresIsBad(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	w := newWire(t, server.Addr)
	scenario{
		probes:     []string{"-store", "postgres://postgres@" + w.Addr + "/postgres?sslmode=disable"},
		storeFails: true,
		faults:     badWires(w),
	}.run(t)
}

func TestPostgresIsRestartedBehindCaches(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	cache := servers.Memcached(t, 64)
	scenario{
		probes:     withCaches("-store", server.PostgresURL(), "-cache", "memory:4194304", "-cache", "memcached://"+cache.Addr),
		lag:        lagOfTwo,
		storeFails: true,
		faults:     postgresRestarts(server),
	}.run(t)
}
