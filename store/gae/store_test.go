package gae_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/promises"
	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestConformance(t *testing.T) {
	if servers.AppEngine(t) == nil {
		return
	}
	storetest.Run(t, spaces(), storetest.Records(300))
}

func TestPromises(t *testing.T) {
	if servers.AppEngine(t) == nil {
		return
	}
	promises.Run(t, spaces())
}

// The API server's datastore is a simple one; this is the one that Google keeps
// up to date.
func TestConformanceInTheDatastoreEmulator(t *testing.T) {
	if bridged(t) == nil {
		return
	}
	storetest.Run(t, spaces(), storetest.Records(1000))
}
