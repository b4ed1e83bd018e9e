package sojourn

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/keyfile"
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
// in a folder of mode 0700 that is made too), and a line in the log of
// slog.Default says so. Several processes that start at once get the same keys.
// The file system must support hard links. Keep the file: without it every
// session is lost. Replicas on several machines need copies of one file.
// The file is read once; [WatchKeyFile] also notices changes.
//
// A file that is no regular file, empty, or larger than 64 KiB is refused. Any
// access for users other than its owner and its group (mode&0007) is refused,
// and so is a group that may write the file and not read it. The group may read
// it (0640, 0440), as the secrets that an orchestrator mounts often need, or
// also write it (0660, which Kubernetes sets in volumes with fsGroup). Anybody
// may own it. Windows keeps access rights elsewhere; they are not looked at.
func LoadKeyFile(path string) (*KeyRing, error) { return loadOrMakeKeyFile(path, slog.Default()) }

func loadOrMakeKeyFile(path string, logger *slog.Logger) (*KeyRing, error) {
	made := false
	text, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if made, err = keyfile.Make(path); err != nil {
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
	keys := newKeyRing(ring)
	if made {
		logger.Info("session keys: the key file did not exist, and was made with new keys; every process that serves the same sessions needs this file",
			slog.String("file", path), slog.String("keys", keys.String()))
	}
	return keys, nil
}

// ParseKeys reads keys from a text, such as an environment variable.
//
// The text is a list of at most 64 entries, separated by white space or commas,
// 64 KiB in all; # starts a comment that goes to the end of the line. An entry is
//
//	STATE:CREATED:SECRET
//
// A text of several entries starts with their number, as entries:3 for three of
// them. So a text that was cut short is an error, and never a smaller set of
// keys: no proper prefix of a valid text is valid, unless it only lacks what
// follows the last entry. The number counts the index entry too.
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

// readKeyFile returns the text of a key file that a service may use.
func readKeyFile(path string) (string, error) {
	text, info, err := keyfile.Read(path)
	if err != nil {
		return "", err
	}
	return text, keyfile.Access(path, info)
}
