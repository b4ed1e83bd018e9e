//go:build unix

package keys

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The owner is whom the operator chose: in a container, often an account of the
// host; beside a deployment tool, that tool's. Only root can make such a file, so
// for other accounts this test is about a file of their own.
func TestLoadFileTakesAFileOfAnotherOwner(t *testing.T) {
	path := writeKeyFile(t, Generate(), 0o440)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadFile(path); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(path); err == nil {
		t.Error("a file that everybody can read is accepted if somebody else owns it")
	}
}

// Opening a pipe to which nobody writes waits for ever.
func TestLoadFileRefusesAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.keys")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("got %v", err)
	}
}
