package sqlite

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/store"
)

func TestPromises(t *testing.T) {
	promises.Run(t, func(t *testing.T) store.Store { return opened(t) })
}
