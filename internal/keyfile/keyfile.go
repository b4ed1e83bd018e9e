// Package keyfile reads and makes files of keys. What may be read is decided
// here, for services and for the command.
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

// Read returns the text of a key file and what the file is like, whoever else
// can read it: [Access] says whether a service may use it. The text of a file
// that is too large is cut one byte after [seal.MaxText], which is not valid.
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
// Anyone who reads the keys can forge sessions, and so can whoever writes them. So
// nobody but the file's owner and group may do either. The group may do both: it
// is how an orchestrator hands a secret to a process that is not root (0440),
// and Kubernetes gives a file in a volume with fsGroup the mode 0660 at each
// mount. Only a group that may write and not read is a mistake in any case. The
// owner may be anybody: in a container it is often the account of the host that
// mounted the file. Execution changes nothing for a file that is only read.
//
// Windows keeps access rights elsewhere; they are not looked at.
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

// Make puts a file with new keys in place, complete and on disk, unless there is
// a file already. It reports whether it has made one.
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
	// A link, unlike a rename, leaves the file of a process that was faster.
	err = os.Link(f.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return err == nil, syncFolder(dir)
}

// syncFolder makes the names in a folder survive a power failure, where a folder
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
