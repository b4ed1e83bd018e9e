package outages

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// The emulator keeps nothing when it is killed, so it is frozen only.
func TestDatastoreIsFrozen(t *testing.T) {
	t.Parallel()
	server := servers.Datastore(t)
	scenario{
		probes:     []string{"-store", "datastore://outages"},
		env:        []string{"DATASTORE_EMULATOR_HOST=" + server.Addr},
		storeFails: true,
		slow:       true,
		faults: []fault{{"frozen", func(_ *testing.T) {
			server.Pause()
			<-time.After(aWhile)
			server.Resume()
		}}},
	}.run(t)
}
