package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"sync"
	"sync/atomic"
)

const (
	// maxSealed is how many values a process seals with one prefix. The other
	// half of the nonce is random: after 2^30 of them the probability that any
	// two are equal is 2^-37.
	maxSealed = 1 << 30

	// The cache holds 256 ciphers, 350 KB. Each prefix maps to a set of four
	// places, so that a few pointer reads find it, without a lock. A process
	// seals with one prefix from its start to its end, so the cache covers a
	// service's last 256 starts.
	cacheSets = 64
	cacheWays = 4
)

// A purposeKey is the key for one purpose of one master key. Deriving a
// message's cipher costs several times as much as using it, so it keeps the one
// for sealing, and those that recently opened a value.
type purposeKey struct {
	xaes *xaes

	current atomic.Pointer[sealer]
	cache   [cacheSets][cacheWays]atomic.Pointer[derived]
	evict   int        // the way to evict next
	mu      sync.Mutex // for changing current, cache, evict
}

// derived is the cipher for all nonces with one prefix.
type derived struct {
	prefix prefix
	aead   cipher.AEAD
}

// sealer is a derived cipher of this process, and how often it was used. The
// count is separate from the data that readers of the cache use.
type sealer struct {
	*derived
	used atomic.Uint64
}

// cipher derives the cipher for a prefix.
func (k *purposeKey) cipher(p prefix) (*derived, error) {
	aead, err := k.xaes.derive(p)
	if err != nil {
		return nil, err
	}
	return &derived{p, aead}, nil
}

// sealer returns the cipher to seal one value with.
func (k *purposeKey) sealer() (*sealer, error) {
	if s := k.current.Load(); s != nil && s.used.Add(1) <= maxSealed {
		return s, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.current.Load(); s != nil && s.used.Add(1) <= maxSealed {
		return s, nil
	}
	var p prefix
	rand.Read(p[:])
	d, err := k.cipher(p)
	if err != nil {
		return nil, err
	}
	s := &sealer{derived: d}
	s.used.Store(1)
	k.current.Store(s)
	return s, nil
}

// cached returns the cached cipher for a prefix, or nil.
func (k *purposeKey) cached(p prefix) *derived {
	if s := k.current.Load(); s != nil && s.prefix == p {
		return s.derived
	}
	set := k.set(p)
	for i := range set {
		if d := set[i].Load(); d != nil && d.prefix == p {
			return d
		}
	}
	return nil
}

// remember caches a cipher that has just opened a value. Do not call it
// otherwise: values from an attacker must not evict entries.
func (k *purposeKey) remember(d *derived) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.set(d.prefix)
	for i := range set {
		kept := set[i].Load()
		if kept == nil {
			set[i].Store(d)
			return
		}
		if kept.prefix == d.prefix {
			return
		}
	}
	set[k.evict].Store(d)
	k.evict = (k.evict + 1) % cacheWays
}

// set returns the places for a prefix, which is random already.
func (k *purposeKey) set(p prefix) *[cacheWays]atomic.Pointer[derived] {
	return &k.cache[p[0]%cacheSets]
}
