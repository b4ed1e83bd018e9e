package store

import (
	"context"
	"time"
)

// Cache keeps copies of records, in front of a [Store]. It may lose any entry
// at any time. Implementations are safe for concurrent use. Entries are opaque
// to the cache. It owns an entry's bytes after Add or Swap.
//
// The package tiered puts caches in front of a store.
type Cache interface {
	// Get returns the entry under that key and a token that identifies this
	// entry, or ErrNotFound. Any other error means that the cache could not
	// answer.
	Get(ctx context.Context, id ID) (entry []byte, token uint64, err error)

	// Add stores an entry for at most ttl and returns its token. It returns
	// ErrConflict if the key has an entry.
	Add(ctx context.Context, id ID, entry []byte, ttl time.Duration) (token uint64, err error)

	// Swap replaces the entry that token names, for at most ttl. It returns
	// ErrConflict if that entry was changed, deleted, evicted, or replaced,
	// even by equal bytes.
	Swap(ctx context.Context, id ID, token uint64, entry []byte, ttl time.Duration) error

	// Delete removes the entry under that key, if there is one.
	Delete(ctx context.Context, id ID) error
}
