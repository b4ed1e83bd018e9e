//go:build !race

package tiered_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/large"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestALargeRecordInTheCacheIsNotCopied(t *testing.T) {
	s, err := tiered.New(memory.New(), tiered.Layer{Cache: tiered.NewMemory(64 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	large.InProcess(t, s)
}
