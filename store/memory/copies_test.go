//go:build !race

package memory_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/large"
	"github.com/sojourn-go/sojourn/store/memory"
)

func TestALargeRecordIsNotCopied(t *testing.T) {
	large.InProcess(t, memory.New())
}
