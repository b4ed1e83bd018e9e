package tiered

import (
	"sync"
	"time"
)

// breaker skips a cache for a while after a failure, so that a dead or frozen
// cache costs one timeout and not one per request.
type breaker struct {
	shortest, longest time.Duration

	mu      sync.Mutex
	until   time.Time // skipped until then
	rest    time.Duration
	probing bool
}

// pass says whether a call may use the cache.
type pass uint8

const (
	passOver pass = iota
	passCall
	passProbe // the one call after a rest that tests whether the cache is back
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

// report records a call's result, and reports whether it changed the cache's
// state. Concurrent calls that fail together count as one failure.
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

// unknown ends a call with a result that is unrelated to the cache's state.
func (b *breaker) unknown(p pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == passProbe {
		b.probing = false
	}
}

// isOpen reports whether the cache has not answered since its last failure.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest != 0
}
