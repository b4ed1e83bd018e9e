package gae_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/promises"
	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// The API server and the emulator take milliseconds for each call, one after
// the other.
var slow = []storetest.Option{storetest.Records(300), storetest.Writers(12)}

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
	}, slow...)
}

// The API server's datastore is a simple one; this is the one that Google keeps
// up to date.
func TestConformanceInTheDatastoreEmulator(t *testing.T) {
	if bridged(t) == nil {
		return
	}
	storetest.Run(t, spaces(), slow...)
}

func TestPromises(t *testing.T) {
	if servers.AppEngine(t) == nil {
		return
	}
	promises.Run(t, spaces())
}
