package clouddatastore_test

import (
	"fmt"
	"testing"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/internal/promises"
	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/clouddatastore"
	"github.com/sojourn-go/sojourn/store/storetest"
)

const project = "sojourn-test"

// emulator starts the emulator and returns a function that opens stores on it,
// each in a namespace of its own; nil if there is no emulator here.
func emulator(t *testing.T, args ...string) (*datastore.Client, func(t *testing.T) store.Store) {
	t.Helper()
	server := servers.Datastore(t, args...)
	if server == nil {
		return nil, nil
	}
	t.Setenv("DATASTORE_EMULATOR_HOST", server.Addr)
	client, err := datastore.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	n := 0
	return client, func(t *testing.T) store.Store {
		n++
		s, err := clouddatastore.New(client, clouddatastore.Options{Namespace: fmt.Sprintf("test-%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestConformance(t *testing.T) {
	if _, open := emulator(t); open != nil {
		storetest.Run(t, open)
	}
}

func TestPromises(t *testing.T) {
	if _, open := emulator(t); open != nil {
		promises.Run(t, open)
	}
}
