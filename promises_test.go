package sojourn_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The promises themselves, against the store in memory. Every other store's
// tests run the same functions.

func inMemory(*testing.T) store.Store { return memory.New() }

func TestPromise01UntouchedIsFree(t *testing.T) { promises.UntouchedIsFree(t, inMemory) }

func TestPromise02NothingIsWrittenThatDidNotChange(t *testing.T) {
	promises.NothingIsWrittenThatDidNotChange(t, inMemory)
}

func TestPromise03A200MeansItIsKept(t *testing.T) { promises.A200MeansItIsKept(t, inMemory) }

func TestPromise04NoLostUpdate(t *testing.T) { promises.NoLostUpdate(t, inMemory) }

func TestPromise05LogoutIsFinal(t *testing.T) { promises.LogoutIsFinal(t, inMemory) }

func TestPromise06ALoginChangesTheIdentifier(t *testing.T) {
	promises.ALoginChangesTheIdentifier(t, inMemory)
}

func TestPromise07GarbageNeverReachesTheStore(t *testing.T) {
	promises.GarbageNeverReachesTheStore(t, inMemory)
}

func TestPromise08ReadYourOwnWrites(t *testing.T) { promises.ReadYourOwnWrites(t, inMemory) }

func TestPromise09TheStoresDiskHoldsNoUsableCredential(t *testing.T) {
	promises.TheStoresDiskHoldsNoUsableCredential(t, inMemory)
}

func TestPromise10CachesAreOptionalAtRunTime(t *testing.T) {
	promises.CachesAreOptionalAtRunTime(t, inMemory)
}

func TestPromise11BadInputGetsAClearAnswer(t *testing.T) {
	promises.BadInputGetsAClearAnswer(t, inMemory)
}

func TestPromise12ASessionAnswersOnlyForTheRequestThatBroughtIt(t *testing.T) {
	promises.ASessionAnswersOnlyForTheRequestThatBroughtIt(t, inMemory)
}

func TestPromise13A200ReadsBack(t *testing.T) { promises.A200ReadsBack(t, inMemory) }
