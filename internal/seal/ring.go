// Package seal encrypts and authenticates Sojourn's data: the cookies in
// browsers, and the records in stores and caches.
//
// A [Ring] seals with its newest active key and opens with any of its keys. A
// sealed value is
//
//	key id (4) ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//
// under XAES-256-GCM (https://c2sp.org/XAES-256-GCM), whose nonces are long
// enough to be random for the lifetime of a key. Each purpose has its own key,
// derived from the master key by HKDF-SHA256 (RFC 5869).
package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Sizes in bytes.
const (
	SecretSize = 32 // of a master key

	// Overhead is how much longer a sealed value is than its plaintext.
	Overhead = idSize + nonceSize + tagSize

	idSize    = 4
	nonceSize = 24
	tagSize   = 16
)

// formatVersion begins the additional data of all sealed values, so that a
// later format cannot be confused with this one.
const formatVersion = 1

var (
	// ErrUnknownKey means that the value names a key that the ring does not
	// have: it is foreign, damaged, or older than the ring's oldest key.
	ErrUnknownKey = errors.New("seal: the key is not in the ring")

	// ErrOpen means that the value is damaged, or was not sealed with the key
	// that it names, for that purpose, with that additional data.
	ErrOpen = errors.New("seal: the value does not open")
)

// A Purpose separates values of different kinds: a value sealed for one does
// not open for another.
type Purpose uint8

const (
	Reference Purpose = iota // the cookie that names a stored session
	State                    // the cookie that holds an inline session or a floor
	Record                   // data in stores and caches
	Token                    // a reference for a client without cookies
	purposes
)

func (p Purpose) String() string {
	return [purposes]string{"reference", "state", "record", "token"}[p]
}

// A KeyState is the use of a key. Every key opens.
type KeyState uint8

const (
	Published KeyState = iota // opens only, so that all processes have it before one seals with it
	Active                    // the newest active key seals
	Retired                   // opens only; its values should be sealed again

	// userIndex marks the index secret's entry in the text form of a ring. It
	// is not a state.
	userIndex
	keyStates
)

func (s KeyState) String() string {
	return [keyStates]string{"published", "active", "retired", "index"}[s]
}

// A Key is a master key in a state. Copies share the derived keys and their
// caches, across rings. To change a key's state, put a copy with the new state
// in a new ring.
type Key struct {
	State   KeyState
	Created time.Time

	*material
}

// material is what is derived from one master key.
type material struct {
	id      [idSize]byte
	derived [purposes]purposeKey
}

// NewKey derives the keys of each purpose from a master key, which must be
// random. It fails only if the standard library refuses the key.
func NewKey(secret [SecretSize]byte, state KeyState, created time.Time) (Key, error) {
	m := new(material)
	id, err := derive(secret, "key id", idSize)
	if err != nil {
		return Key{}, err
	}
	copy(m.id[:], id)
	for p := range purposes {
		key, err := derive(secret, p.String(), SecretSize)
		if err != nil {
			return Key{}, err
		}
		if m.derived[p].xaes, err = newXAES(key); err != nil {
			return Key{}, err
		}
	}
	return Key{State: state, Created: created, material: m}, nil
}

// derive is HKDF-SHA256 without salt.
func derive(secret [SecretSize]byte, name string, size int) ([]byte, error) {
	return hkdf.Key(sha256.New, secret[:], nil, "sojourn v1 "+name, size)
}

// A Ring is an immutable set of keys. It is safe for concurrent use.
type Ring struct {
	keys       []ringKey
	sealing    *material
	index      *[SecretSize]byte // a pointer, which fmt does not follow
	legacy     *[SecretSize]byte // likewise
	scratch    sync.Pool         // of *[]byte, for additional data
	plaintexts sync.Pool         // of *[]byte, see Borrow
}

type ringKey struct {
	Key
	stale bool // its values should be sealed again
}

// NewRing makes a ring of keys that come from NewKey. index is the secret of
// [Ring.UserHash]; it stays the same when keys change. It is an error if the
// ring has no active key or two keys with one ID, or if the standard library
// refuses to seal, as with GODEBUG=fips140=only.
func NewRing(keys []Key, index [SecretSize]byte) (*Ring, error) {
	newest := -1
	for i, k := range keys {
		if slices.ContainsFunc(keys[:i], func(other Key) bool { return other.id == k.id }) {
			return nil, fmt.Errorf("two keys have the id %x: they are the same key, or one must be replaced", k.id)
		}
		if k.State == Active && (newest < 0 || !k.Created.Before(keys[newest].Created)) {
			newest = i
		}
	}
	if newest < 0 {
		return nil, errors.New("there is no active key")
	}

	r := &Ring{sealing: keys[newest].material}
	for p := range purposes { // now, so that the first request is not slower
		if _, err := r.sealing.derived[p].sealer(); err != nil {
			return nil, err
		}
	}
	for i, k := range keys {
		age := k.Created.Compare(keys[newest].Created)
		older := age < 0 || age == 0 && i < newest
		r.keys = append(r.keys, ringKey{k, older || k.State == Retired})
	}
	users, err := derive(index, "user index", SecretSize)
	if err != nil {
		return nil, err
	}
	r.index = (*[SecretSize]byte)(users)
	adopted, err := derive(index, "legacy", SecretSize)
	if err != nil {
		return nil, err
	}
	r.legacy = (*[SecretSize]byte)(adopted)
	r.scratch.New = func() any { return new([]byte) }
	return r, nil
}

// Continue makes r, which is not in use yet, share the derived keys and caches
// of old for the keys that both have. It reports whether both have the same
// secret for [Ring.UserHash].
func (r *Ring) Continue(old *Ring) (sameIndex bool) {
	for i := range r.keys {
		for _, k := range old.keys {
			if k.id == r.keys[i].id {
				if r.sealing == r.keys[i].material {
					r.sealing = k.material
				}
				r.keys[i].material = k.material
			}
		}
	}
	return hmac.Equal(r.index[:], old.index[:])
}

// CanOpenNewest reports whether r has the key with which old seals.
func (r *Ring) CanOpenNewest(old *Ring) bool {
	return slices.ContainsFunc(r.keys, func(k ringKey) bool { return k.id == old.sealing.id })
}

// Keys returns the ids and states of the keys, in the order in which they were
// given.
func (r *Ring) Keys() []KeyInfo {
	infos := make([]KeyInfo, len(r.keys))
	for i, k := range r.keys {
		infos[i] = KeyInfo{ID: hex.EncodeToString(k.id[:]), State: k.State, Created: k.Created, Seals: k.material == r.sealing}
	}
	return infos
}

// KeyInfo describes a key without its secret.
type KeyInfo struct {
	ID      string // in hexadecimal; sealed values contain it
	State   KeyState
	Created time.Time
	Seals   bool // it is the newest active key
}

// String returns the number of keys and the public ID of the key that seals.
func (r *Ring) String() string {
	if len(r.keys) == 1 {
		return fmt.Sprintf("1 key, %x", r.sealing.id)
	}
	return fmt.Sprintf("%d keys, sealing with %x", len(r.keys), r.sealing.id)
}

// Seal appends the sealed plaintext to dst, Overhead bytes longer. aad is
// authenticated with it and is required to open it. The spare capacity of dst
// must not overlap plaintext.
func (r *Ring) Seal(dst []byte, p Purpose, plaintext, aad []byte) ([]byte, error) {
	s, err := r.sealing.derived[p].sealer()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	dst = slices.Grow(dst, Overhead+len(plaintext))
	dst = append(dst, r.sealing.id[:]...)
	dst = append(dst, s.prefix[:]...)

	// Always new random bytes, never a counter or a buffer: a machine cloned
	// from a snapshot would repeat these.
	half := len(dst)
	dst = dst[:half+nonceSize/2]
	rand.Read(dst[half:])

	full := r.additional(p, aad)
	dst = s.aead.Seal(dst, dst[half:], plaintext, *full)
	r.scratch.Put(full)
	return dst, nil
}

// Open appends the plaintext of a sealed value to dst. It returns ErrUnknownKey
// or ErrOpen on failure.
//
// stale means that the value should be sealed again: its key is retired, or
// older than the key that seals. A value with a newer key is never stale;
// otherwise processes that get a new key at different times would undo each
// other's work.
//
// The spare capacity of dst must not overlap sealed; for that, use [Ring.OpenInPlace].
func (r *Ring) Open(dst []byte, p Purpose, sealed, aad []byte) (plaintext []byte, stale bool, err error) {
	plaintext, _, stale, err = r.open(dst, p, sealed, aad)
	return plaintext, stale, err
}

// open is Open, and returns the cipher that it used.
func (r *Ring) open(dst []byte, p Purpose, sealed, aad []byte) (plaintext []byte, c *derived, stale bool, err error) {
	if len(sealed) < Overhead {
		return nil, nil, false, ErrOpen
	}
	i := slices.IndexFunc(r.keys, func(k ringKey) bool { return k.id == [idSize]byte(sealed) })
	if i < 0 {
		return nil, nil, false, ErrUnknownKey
	}
	key := &r.keys[i].derived[p]
	nonce, ciphertext := sealed[idSize:][:nonceSize], sealed[idSize+nonceSize:]

	c = key.cached(prefix(nonce))
	known := c != nil
	if !known {
		if c, err = key.cipher(prefix(nonce)); err != nil {
			return nil, nil, false, fmt.Errorf("seal: %w", err)
		}
	}
	full := r.additional(p, aad)
	plaintext, err = c.aead.Open(dst, nonce[len(prefix{}):], ciphertext, *full)
	r.scratch.Put(full)
	if err != nil {
		return nil, nil, false, ErrOpen
	}
	if !known {
		key.remember(c)
	}
	return plaintext, c, r.keys[i].stale, nil
}

// OpenInPlace is Open, but overwrites the ciphertext with the plaintext, even
// if it fails.
func (r *Ring) OpenInPlace(p Purpose, sealed, aad []byte) (plaintext []byte, stale bool, err error) {
	if len(sealed) < Overhead {
		return nil, false, ErrOpen
	}
	return r.Open(sealed[idSize+nonceSize:][:0], p, sealed, aad)
}

// additional returns format version ‖ purpose ‖ aad in a buffer of r.scratch.
func (r *Ring) additional(p Purpose, aad []byte) *[]byte {
	b := r.scratch.Get().(*[]byte)
	*b = append((*b)[:0], formatVersion, byte(p))
	*b = append(*b, aad...)
	return b
}

// UserHash returns a user's key in a store's index: HMAC-SHA256 of the session
// name and the user, each prefixed by its length, truncated to 16 bytes. The
// empty user has the zero hash.
func (r *Ring) UserHash(name, user string) store.UserHash {
	if user == "" {
		return store.UserHash{}
	}
	return store.UserHash(hashParts(r.index, name, user)[:len(store.UserHash{})])
}

// Legacy returns an identifier for data of another library's session:
// HMAC-SHA256 of the parts, each prefixed by its length. Like the key of the
// user index, its key stays the same when keys change.
func (r *Ring) Legacy(parts ...string) []byte { return hashParts(r.legacy, parts...) }

// Link returns the link for a session of an OpenID provider and one session
// name: HMAC-SHA256 of the parts, each prefixed by its length, with the key of
// the user index.
func (r *Ring) Link(name, issuer, sid string) []byte {
	return hashParts(r.index, "link", name, issuer, sid)
}

func hashParts(key *[SecretSize]byte, parts ...string) []byte {
	var text []byte
	for _, s := range parts {
		text = binary.BigEndian.AppendUint64(text, uint64(len(s)))
		text = append(text, s...)
	}
	mac := hmac.New(sha256.New, key[:])
	mac.Write(text)
	return mac.Sum(nil)
}
