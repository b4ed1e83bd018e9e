//go:build unix

package keys

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The owner may be any account: in a container often one of the host, or a
// deployment tool's. Only root can create such a file, so for other accounts
// this test uses their own file.
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

// Opening a pipe without a writer waits forever.
func TestLoadFileRefusesAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.keys")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("got %v", err)
	}
}
