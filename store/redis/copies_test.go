//go:build !race

package redis

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/large"
)

func TestALargeRecordIsCopiedOnce(t *testing.T) {
	_, s := single(t)
	large.OnEngine(t, s)
}
