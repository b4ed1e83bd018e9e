package gae_test

import (
	"testing"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/internal/promises"
	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/storetest"
)

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

func TestConformance(t *testing.T) {
	if servers.AppEngine(t) == nil {
		return
	}
	open := spaces()
	storetest.Run(t, func(t *testing.T) store.Store {
		s := open(t).(inRequest)
		return pageless{s, s, s, s, s, s, s}
	}, storetest.Emulated, storetest.Copies(copyEntity))
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

// The API server's datastore is a simple one; this is the one that Google keeps
// up to date.
func TestConformanceInTheDatastoreEmulator(t *testing.T) {
	if bridged(t) == nil {
		return
	}
	storetest.Run(t, spaces(), storetest.Emulated, storetest.Copies(copyEntity))
}

func TestPromises(t *testing.T) {
	if servers.AppEngine(t) == nil {
		return
	}
	promises.Run(t, spaces())
}
