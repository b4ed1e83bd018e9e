//go:build unix

package sojourn

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Opening a pipe to which nobody writes waits for ever.
func TestLoadKeyFileRefusesAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.keys")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("got %v", err)
	}
}
