package legacy

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// ErrChanged says that a guarded Set or Delete found something else than what
// the same guard's Get had seen. Nothing was written there.
var ErrChanged = errors.New("legacy: the entry has changed since it was read")

// A Guard makes what one session's Write does depend on what its Read has seen,
// where the store can do that: by compare-and-set, or in a transaction. It goes
// along in the context, through formats that know nothing of it.
//
// A store that takes part calls [Guard.Saw] in its Get, also for an entry that is
// not there, and asks [Guard.Seen] in its Set and Delete. One that does not
// overwrites, and the last writer's values stand.
type Guard struct {
	mu   sync.Mutex
	seen *map[guardKey]any // keys are credentials; printers do not follow the pointer
}

type guardKey struct {
	store any
	key   string
}

type guardContext struct{}

// Guarded returns a context for one Read and the Write that follows from it.
func Guarded(ctx context.Context) context.Context {
	return context.WithValue(ctx, guardContext{}, &Guard{seen: &map[guardKey]any{}})
}

// GuardOf returns the guard in a context. Without one it is nil, which is fine
// to use: it forgets what it is told.
func GuardOf(ctx context.Context) *Guard {
	g, _ := ctx.Value(guardContext{}).(*Guard)
	return g
}

// Saw notes what a store, a comparable value, found under a key, in a form of
// its own; nil means that there was nothing.
func (g *Guard) Saw(store any, key string, what any) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	(*g.seen)[guardKey{store, key}] = what
}

// Seen returns what Saw was told, and whether it was.
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

// Allows reports whether an entry that is there now is the one that SawEntry was
// told of. Without a guard everything is allowed.
func (g *Guard) Allows(store any, key string, now Entry, found bool) bool {
	what, guarded := g.Seen(store, key)
	if !guarded {
		return true
	}
	value, wasThere := what.([]byte)
	return wasThere == found && bytes.Equal(value, now.Value)
}
