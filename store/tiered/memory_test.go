package tiered_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestMemoryConformance(t *testing.T) {
	storetest.RunCache(t, func(*testing.T) store.Cache { return tiered.NewMemory(64 << 20) })
}
