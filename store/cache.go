package store

import (
	"context"
	"time"
)

// Cache is a place for copies of records, in front of a [Store]: fast, small
// and forgetful. It may lose any entry at any time. Implementations are safe
// for concurrent use. Entries are opaque to it, and belong to it once given.
//
// The package tiered puts caches in front of a store.
type Cache interface {
	// Get returns the entry under that key and a token that names this very
	// entry, or ErrNotFound. Any other error means that the cache could not
	// answer.
	Get(ctx context.Context, id ID) (entry []byte, token uint64, err error)

	// Add stores an entry where there is none, for at most ttl, and returns its
	// token. It returns ErrConflict if there is one.
	Add(ctx context.Context, id ID, entry []byte, ttl time.Duration) (token uint64, err error)

	// Swap replaces the entry that token names, for at most ttl. It returns
	// ErrConflict if that very entry is not there any more: changed, deleted,
	// evicted, or replaced by equal bytes.
	Swap(ctx context.Context, id ID, token uint64, entry []byte, ttl time.Duration) error

	// Delete removes the entry under that key, if there is one.
	Delete(ctx context.Context, id ID) error
}
