//go:build !race

package sqlite

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/large"
)

func TestALargeRecordIsCopiedOnce(t *testing.T) {
	large.OnEngine(t, opened(t))
}
