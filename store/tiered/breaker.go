package tiered

import (
	"sync"
	"time"
)

// breaker lets a cache that failed rest for a while, so that a dead or frozen
// one costs one timeout and not one per request.
type breaker struct {
	shortest, longest time.Duration

	mu      sync.Mutex
	until   time.Time // passed over until then
	rest    time.Duration
	probing bool
}

// pass says what a call may do.
type pass uint8

const (
	passOver pass = iota
	passCall
	passProbe // the one call after a rest that finds out whether the cache is back
)

func (b *breaker) allow(now time.Time) pass {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.rest == 0:
		return passCall
	case now.Before(b.until) || b.probing:
		return passOver
	default:
		b.probing = true
		return passProbe
	}
}

// report notes how a call ended, and returns whether that changed what is known
// of the cache. Calls that were under way together when it failed count as one
// failure.
func (b *breaker) report(now time.Time, p pass, ok bool) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == passProbe {
		b.probing = false
	}
	switch {
	case ok && p == passProbe:
		b.rest = 0
		return true
	case ok:
		return false // it may have been answered before the failure
	case p == passProbe:
		b.rest = min(2*b.rest, b.longest)
	case b.rest == 0:
		b.rest = b.shortest
		changed = true
	default:
		return false
	}
	b.until = now.Add(b.rest)
	return changed
}

// unknown ends a call that proved nothing.
func (b *breaker) unknown(p pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == passProbe {
		b.probing = false
	}
}

// isOpen reports whether the cache has failed and not answered since.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest != 0
}
