// Package keyfile reads and creates key files, and checks their access rights,
// for services and for the command.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sojourn-go/sojourn/internal/seal"
)

// Read returns the text of a key file and its file info. It does not check who
// else can read the file; see [Access]. The text of a file that is too large is
// truncated one byte after [seal.MaxText], which is invalid.
func Read(path string) (text string, info fs.FileInfo, err error) {
	info, err = os.Stat(path) // before opening, which waits forever on a pipe
	if err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, seal.MaxText+1))
	if err != nil {
		return "", nil, err
	}
	if len(b) == 0 {
		return "", nil, fmt.Errorf("%s is empty: put the keys back from a backup, or remove it to start with new keys", path)
	}
	return string(b), info, nil
}

// Access returns why a service must not use a key file with those access
// rights, or nil.
//
// Read or write access to the keys is enough to forge sessions. So only the
// file's owner and group may have it. The group may have both: an orchestrator
// passes a secret to a process that is not root that way (0440), and Kubernetes
// gives a file in a volume with fsGroup the mode 0660 at each mount. A group
// that may write but not read is always a mistake. The owner may be any user:
// in a container it is often the host's account that mounted the file. Execute
// permission does not matter.
//
// On Windows, access rights are not checked.
func Access(path string, info fs.FileInfo) error {
	mode := info.Mode().Perm()
	switch {
	case runtime.GOOS == "windows":
		return nil
	case mode&0o007 != 0:
		return fmt.Errorf("all users of this machine have access to the key file %s (mode %#o): run chmod o= %[1]s. "+
			"If a container runtime mounts the file, set its mode there: in Kubernetes, defaultMode: 0400 for the secret volume, and securityContext.fsGroup unless the process runs as root, which makes it 0440; "+
			"in Compose, mode: 0400 and the uid of the process for the secret, or chmod on the host if the secret comes from a file. "+
			"Replace the keys if somebody may have read them", path, mode)
	case mode&0o060 == 0o020:
		return fmt.Errorf("the group of the key file %s may write it and not read it (mode %#o), and with that permission a process can forge sessions: run chmod g= %[1]s, or chmod g=r %[1]s if the service reads it as a member of the group", path, mode)
	}
	return nil
}

// Make atomically creates a file with new keys, synced to disk, unless the file
// exists. It reports whether it has created it.
func Make(path string) (made bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	f, err := os.CreateTemp(dir, ".session-keys-*") // with mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(seal.GenerateKeyFile())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, err
	}
	// A link, unlike a rename, does not replace another process's new file.
	err = os.Link(f.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return err == nil, syncFolder(dir)
}

// syncFolder makes the names in a folder survive a power failure, if folders
// can be synced.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
