package tiered_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestPromises(t *testing.T) {
	promises.Run(t, func(t *testing.T) store.Store {
		s, err := tiered.New(memory.New(), tiered.Layer{Cache: tiered.NewMemory(1 << 20)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
