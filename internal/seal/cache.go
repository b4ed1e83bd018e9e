package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"sync"
	"sync/atomic"
)

const (
	// maxSealed is how many values a process seals with one prefix. The other
	// half of their nonces is random: after 2^30 of them the odds that any two
	// are equal are 2^-37.
	maxSealed = 1 << 30

	// The cache holds 256 ciphers, 350 KB. A prefix can be kept in the four
	// places of one set only, so that a few pointer reads find it, without a
	// lock. A process seals with one prefix from its start to its end, so these
	// are the last 256 starts of a service.
	cacheSets = 64
	cacheWays = 4
)

// A purposeKey is the key for one purpose of one master key. Deriving a
// message's cipher costs several times as much as using it, so it keeps the one
// it seals with, and those that opened something lately.
type purposeKey struct {
	xaes *xaes

	current atomic.Pointer[sealer]
	cache   [cacheSets][cacheWays]atomic.Pointer[derived]
	evict   int        // the way to give up next
	mu      sync.Mutex // for changing current, cache, evict
}

// derived is the cipher for all nonces with one prefix.
type derived struct {
	prefix prefix
	aead   cipher.AEAD
}

// sealer is a derived cipher that this process made, and how often it was used.
// The count is apart from what readers of the cache look at.
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

// cached returns the cipher for a prefix if it is at hand, otherwise nil.
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

// remember keeps a cipher that has just opened something. Nothing else may come
// here: whatever a stranger sends must neither fill the cache nor empty it.
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

// set returns the places for a prefix, which is random to begin with.
func (k *purposeKey) set(p prefix) *[cacheWays]atomic.Pointer[derived] {
	return &k.cache[p[0]%cacheSets]
}
