package sojourn

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/seal"
)

// A KeyRing holds the keys that seal sessions: the cookies in browsers and the
// records in stores. It comes from [LoadKeyFile] or [ParseKeys]; the zero
// KeyRing holds none, and [New] refuses it. It prints without its secrets.
//
// The newest active key seals, all keys open. A key of state "published" only
// opens: it is there so that every process knows it before one of them seals
// with it. Of state "retired" it only opens too. What an older or a retired key
// sealed is sealed anew: a cookie when it is next used, a stored record when it
// is next saved.
//
// A KeyRing is safe for concurrent use. Its keys change only by
// [KeyRing.Replace], which [WatchKeyFile] and [WatchKeys] call by themselves.
// All processes that serve the same sessions need the same keys.
type KeyRing struct {
	ring atomic.Pointer[seal.Ring]
}

func newKeyRing(ring *seal.Ring) *KeyRing {
	k := &KeyRing{}
	k.ring.Store(ring)
	return k
}

// LoadKeyFile reads the keys in a file, in the form that [ParseKeys] describes.
//
// A file that is missing is made, with new keys, for its owner only (mode 0600,
// in a folder of mode 0700 that is made too). Several processes that start at
// once get the same keys. The file system must support hard links. Keep the
// file: without it every session is lost.
// The file is read once; [WatchKeyFile] also notices changes.
//
// A file that everybody on the machine can access is refused, and so is one that
// is empty, larger than 64 KiB, or not a file. Its group may read it, as the
// secrets that an orchestrator mounts often need. (Windows keeps access rights
// elsewhere; they are not looked at.)
func LoadKeyFile(path string) (*KeyRing, error) {
	text, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKeyFile(path); err != nil {
			return nil, fmt.Errorf("sojourn: making the key file: %w", err)
		}
		text, err = readKeyFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("sojourn: reading the key file: %w", err)
	}
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("sojourn: key file %s: %w", path, err)
	}
	return newKeyRing(ring), nil
}

// ParseKeys reads keys from a text, such as an environment variable.
//
// The text is a list of at most 64 entries, separated by white space or commas,
// 64 KiB in all; # starts a comment that goes to the end of the line. An entry is
//
//	STATE:CREATED:SECRET
//
// with the state published, active, retired or index; the time it was made, in
// UTC, such as 20261120T131500Z; and 32 random bytes in base64url without
// padding. [GenerateKey] makes one. At least one key must be active.
//
// The index entry, of which there is at most one, is the key under which a
// user's sessions are found. It is not one of the 64, and stays when the others
// change. Without it that key is derived from the oldest of the others, by
// CREATED: then keep that one, or users' sessions can no longer be listed.
//
// Errors say which entry is wrong, by number, and repeat no part of it.
func ParseKeys(text string) (*KeyRing, error) {
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("sojourn: parsing keys: %w", err)
	}
	return newKeyRing(ring), nil
}

// GenerateKey returns a new active key as an entry for [ParseKeys] or a key
// file. It is a secret.
func GenerateKey() string { return seal.GenerateKey() }

// current returns the keys to use now; nil for the zero KeyRing.
func (k *KeyRing) current() *seal.Ring { return k.ring.Load() }

// String says how many keys there are, and the public id of the one that seals.
func (k *KeyRing) String() string {
	if k == nil || k.current() == nil {
		return "sojourn.KeyRing(no keys)"
	}
	return fmt.Sprintf("sojourn.KeyRing(%v)", k.current())
}

// Format prints what String returns, whatever the verb.
func (k *KeyRing) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// MarshalText returns what String returns, for logs and JSON.
func (k *KeyRing) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// readKeyFile returns the text of a key file that only its owner and group can
// access.
func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path) // before opening, which waits forever on a pipe
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 && runtime.GOOS != "windows" {
		return "", fmt.Errorf("everybody on this machine has access to %s (mode %#o): take it away with chmod o= %[1]s, and replace the keys if somebody may have read them", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, seal.MaxText+1))
	if err != nil {
		return "", err
	}
	if len(text) == 0 {
		return "", fmt.Errorf("%s is empty: put the keys back from a backup, or remove it to start with new keys", path)
	}
	return string(text), nil
}

// makeKeyFile puts a new key file in place, complete and on disk, unless one is
// there already.
func makeKeyFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".session-keys-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(seal.GenerateKeyFile())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, leaves the file of a process that was faster.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(dir)
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
