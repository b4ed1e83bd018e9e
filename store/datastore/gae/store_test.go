package gae_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// All tests share one App Engine API server, which starts slowly. Each test has
// its own namespaces.
func TestInTheAPIServer(t *testing.T) {
	server := servers.AppEngine(t)
	e := engine(t)
	t.Run("Conformance", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			s := alone(t).(inRequest)
			return pageless{s, s, s, s, s, s, s}
		}, storetest.Small, e.Copies())
	})
	t.Run("Promises", func(t *testing.T) { promises.Run(t, alone) })
	t.Run("CacheConformance", testCacheConformance)
	t.Run("CacheLimits", testCacheLimits)
	t.Run("Contexts", testContextsThatTheManagerDerives)
	t.Run("Entities", e.Entities)
	t.Run("Foreign", e.Foreign)
	t.Run("Interleavings", func(t *testing.T) { e.Interleavings(t, interleavings...) })
	t.Run("Frozen", func(t *testing.T) { testAFrozenServerHoldsNobodyBeyondHisDeadline(t, server) })
}

// The API server's datastore is simple and slow. Google maintains this
// emulator, in which a larger version of the suite runs.
func TestInTheDatastoreEmulator(t *testing.T) {
	emulator := bridged(t)
	e := engine(t)
	t.Run("Conformance", func(t *testing.T) { storetest.Run(t, alone, storetest.Emulated, e.Copies()) })
	t.Run("Foreign", e.Foreign)
	t.Run("Entities", func(t *testing.T) { testEntitiesAreThoseOfCloudDatastore(t, emulator) })
}

// pageless is a store without Scan. For each page, the API server reads all
// remaining records, so a scan takes quadratic time; Scan is tested in the
// emulator.
type pageless struct {
	store.Store
	store.Toucher
	store.Sweeper
	store.UserIndex
	store.UserLimiter
	store.EndFeed
	store.Counter
}
