package outages

import (
	"syscall"
	"testing"
	"time"
)

// The embedded store has no server that could fail, but several processes may
// share its file, and one of them may stop in the middle of a transaction.
func TestAReplicaOnTheEmbeddedStoreIsFrozen(t *testing.T) {
	t.Parallel()
	f := startFleet(t, replicas, nil, "-timeout", slowDisk, "-store", embedded(t))
	signal := f.replicas[0].Signal
	scenario{
		fleet: f,
		faults: []fault{{"a replica is frozen", func(_ *testing.T) {
			for range 5 {
				signal(syscall.SIGSTOP)
				<-time.After(aWhile / 5)
				signal(syscall.SIGCONT)
				<-time.After(aWhile / 20)
			}
		}}},
	}.run(t)
}
