package legacy

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// ErrChanged means that a guarded Set or Delete found another entry than the
// same guard's Get. Nothing was written.
var ErrChanged = errors.New("legacy: the entry has changed since it was read")

// A Guard makes a session's Write fail if the stored data has changed since its
// Read, where the store supports that: by compare-and-set, or in a transaction.
// It is passed in the context, so formats need no support for it.
//
// A store with support calls [Guard.Saw] in its Get, also for a missing entry,
// and [Guard.Seen] in its Set and Delete. Without support, the last writer
// wins.
type Guard struct {
	mu   sync.Mutex
	seen *map[guardKey]any // keys are credentials; fmt does not follow the pointer
}

type guardKey struct {
	store any
	key   string
}

type guardContext struct{}

// Guarded returns a context for one Read and the Write that depends on it.
func Guarded(ctx context.Context) context.Context {
	return context.WithValue(ctx, guardContext{}, &Guard{seen: &map[guardKey]any{}})
}

// GuardOf returns the guard in a context, or nil, which is a valid guard that
// records nothing.
func GuardOf(ctx context.Context) *Guard {
	g, _ := ctx.Value(guardContext{}).(*Guard)
	return g
}

// Saw records what a store found under a key. store is a comparable value, and
// the form of what is up to the store; nil means no entry.
func (g *Guard) Saw(store any, key string, what any) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	(*g.seen)[guardKey{store, key}] = what
}

// Seen returns the value recorded by Saw, and whether there is one.
func (g *Guard) Seen(store any, key string) (what any, ok bool) {
	if g == nil {
		return nil, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	what, ok = (*g.seen)[guardKey{store, key}]
	return what, ok
}

// SawEntry is Saw for stores that compare whole values.
func (g *Guard) SawEntry(store any, key string, e Entry, found bool) {
	if !found {
		g.Saw(store, key, nil)
		return
	}
	g.Saw(store, key, e.Value)
}

// Allows reports whether the current entry is the one recorded by SawEntry.
// Without a guard it reports true.
func (g *Guard) Allows(store any, key string, now Entry, found bool) bool {
	what, guarded := g.Seen(store, key)
	if !guarded {
		return true
	}
	value, wasThere := what.([]byte)
	return wasThere == found && bytes.Equal(value, now.Value)
}
