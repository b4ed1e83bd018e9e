package tiered_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/storetest"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := tiered.New(memory.New(),
			tiered.Layer{Cache: tiered.NewMemory(1 << 20)},
			tiered.Layer{Cache: tiered.NewMemory(8 << 20)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
