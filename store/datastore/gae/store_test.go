package gae_test

import (
	"testing"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// What is tested in the App Engine API server, which starts slowly: once for all.
// Each test has namespaces of its own.
func TestInTheAPIServer(t *testing.T) {
	server := servers.AppEngine(t)
	if server == nil {
		return
	}
	for _, c := range []test{
		{"Conformance", testConformance},
		{"Promises", testPromises},
		{"CacheConformance", testCacheConformance},
		{"CacheLimits", testCacheLimits},
		{"Contexts", testContextsThatTheManagerDerives},
		{"Entities", testEntities},
		{"Interleavings", testInterleavings},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, server) })
	}
}

// The API server's datastore is a simple one, and slow; this is the one that Google
// keeps up to date, and where the suite is run in a larger size.
func TestInTheDatastoreEmulator(t *testing.T) {
	emulator := bridged(t)
	if emulator == nil {
		return
	}
	for _, c := range []test{
		{"Conformance", testConformanceOfAll},
		{"Entities", testEntitiesAreThoseOfCloudDatastore},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, emulator) })
	}
}

type test struct {
	name string
	run  func(t *testing.T, server *servers.Server)
}

// pageless is a store that is not walked. The API server reads all that is left
// for each page, so that its time grows with the square of the records; walking
// is tested in the emulator.
type pageless struct {
	store.Store
	store.Toucher
	store.Sweeper
	store.UserIndex
	store.UserLimiter
	store.EndFeed
	store.Counter
}

func testConformance(t *testing.T, _ *servers.Server) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := alone(t).(inRequest)
		return pageless{s, s, s, s, s, s, s}
	}, storetest.Small, storetest.Copies(copyEntity))
}

// copyEntity puts an entity in the place of another one.
func copyEntity(t *testing.T, s store.Store, from, to store.ID) {
	t.Helper()
	if p, ok := s.(pageless); ok {
		s = p.Store
	}
	in := s.(inRequest)
	ctx, err := appengine.Namespace(in.in(t.Context()), gae.NamespaceOf(in.Store))
	if err != nil {
		t.Fatal(err)
	}
	key := func(id store.ID) *datastore.Key { return datastore.NewKey(ctx, "SojournSession", id.String(), 0, nil) }
	var props datastore.PropertyList
	if err := datastore.Get(ctx, key(from), &props); err != nil {
		t.Fatal(err)
	}
	if _, err := datastore.Put(ctx, key(to), &props); err != nil {
		t.Fatal(err)
	}
}

func testConformanceOfAll(t *testing.T, _ *servers.Server) {
	storetest.Run(t, alone, storetest.Emulated, storetest.Copies(copyEntity))
}

func testPromises(t *testing.T, _ *servers.Server) {
	promises.Run(t, alone)
}
