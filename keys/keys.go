// Package keys holds the keys that seal sessions: the cookies in browsers and the
// records in stores.
//
// # The text of keys
//
// A text of keys, in a file or an environment variable, is a list of at most 64
// entries, separated by white space or commas, 64 KiB in all; # starts a comment
// that goes to the end of the line. An entry is
//
//	STATE:CREATED:SECRET
//
// with the state published, active, retired or index; the time it was made, in
// UTC, such as 20261120T131500Z; and 32 random bytes in base64url without
// padding. [Generate] makes one. At least one key must be active.
//
// A text of several entries starts with their number, as entries:3 for three of
// them. So a text that was cut short is an error, and never a smaller set of
// keys: no proper prefix of a valid text is valid, unless it is cut short after
// the last entry. The number counts the index entry as well.
//
// The newest active key seals, all keys open. Published and retired keys only
// open. Publish a new key before activating it, so that every process has it
// before any process seals with it. Data sealed with an older or retired key is
// sealed again: a cookie when it is next used, a stored record when it is next
// saved.
//
// The index entry, of which there is at most one, is the key of the index of
// users' sessions. It does not count toward the 64 and stays when the others
// change. Without an index entry, the index key is derived from the key with
// the oldest CREATED. Keep that key, or users' sessions can no longer be
// listed.
package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/internal/keyfile"
	"github.com/sojourn-go/sojourn/internal/seal"
)

// A Ring holds keys. It comes from [LoadFile], [Parse], [WatchFile] or [Watch];
// the zero Ring holds none, and sojourn.New refuses it. It is safe for
// concurrent use and prints without its secrets. Its keys change only through
// [Ring.Replace], which [WatchFile] and [Watch] call. All processes that serve
// the same sessions need the same keys.
type Ring struct {
	ring atomic.Pointer[seal.Ring]
}

func init() {
	bridge.Keys = func(ring any) func() *seal.Ring { return ring.(*Ring).current }
}

func newRing(ring *seal.Ring) *Ring {
	k := &Ring{}
	k.ring.Store(ring)
	return k
}

// LoadFile reads the keys in a file.
//
// A missing file is created with new keys, readable by its owner only (mode
// 0600, in a folder of mode 0700), and slog.Default logs this. Several
// processes that start at once get the same keys. The file system must support
// hard links. Keep the file: without it every session is lost. Replicas on
// several machines need copies of one file. The file is read once; [WatchFile]
// also reads later changes.
//
// LoadFile refuses a file that is not a regular file, is empty, or is larger
// than 64 KiB. It refuses any access for other users (mode&0007), and a group
// that may write but not read. The group may read the file (0640, 0440), as
// secrets mounted by an orchestrator often require, or also write it (0660,
// which Kubernetes sets in volumes with fsGroup). The owner may be any user. On
// Windows, access rights are not checked.
func LoadFile(path string) (*Ring, error) { return loadOrMake(path, slog.Default()) }

func loadOrMake(path string, logger *slog.Logger) (*Ring, error) {
	made := false
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if made, err = keyfile.Make(path); err != nil {
			return nil, fmt.Errorf("sojourn: making the key file: %w", err)
		}
		text, err = readFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("sojourn: reading the key file: %w", err)
	}
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("sojourn: key file %s: %w", path, err)
	}
	keys := newRing(ring)
	if made {
		logger.Info("session keys: the key file did not exist, and was made with new keys; every process that serves the same sessions needs this file",
			slog.String("file", path), slog.String("keys", keys.String()))
	}
	return keys, nil
}

// Parse reads keys from a text. Errors give the number of the wrong entry and
// repeat no part of it.
func Parse(text string) (*Ring, error) {
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("sojourn: parsing keys: %w", err)
	}
	return newRing(ring), nil
}

// Generate returns a new active key as an entry of a text of keys. It is a
// secret.
func Generate() string { return seal.GenerateKey() }

// current returns the keys to use now; nil for the zero Ring.
func (k *Ring) current() *seal.Ring { return k.ring.Load() }

// String returns the number of keys and the public ID of the key that seals.
func (k *Ring) String() string {
	if k == nil || k.current() == nil {
		return "keys.Ring(no keys)"
	}
	return fmt.Sprintf("keys.Ring(%v)", k.current())
}

// Format prints what String returns, whatever the verb.
func (k *Ring) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue is what String returns.
func (k *Ring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String returns, for logs and JSON.
func (k *Ring) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// readFile returns the text of a key file that a service may use.
func readFile(path string) (string, error) {
	text, info, err := keyfile.Read(path)
	if err != nil {
		return "", err
	}
	return text, keyfile.Access(path, info)
}
