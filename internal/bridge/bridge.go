// Package bridge holds what one public package of this module needs of a type of
// another one, and what no public method may give away. The package that declares
// the type sets a variable here in its init; the other one reads it, and depends
// on that package in any case.
package bridge

import "github.com/sojourn-go/sojourn/internal/seal"

// Keys returns the function that returns the keys that a *keys.Ring holds now,
// nil if it holds none. Package keys sets it; the root reads it.
var Keys func(ring any) (current func() *seal.Ring)

// Operator returns what package ops can do with a *sojourn.Manager. The root sets
// it; ops reads it, and has the interface.
var Operator func(manager any) any

// Stats are ops.Stats, field by field: its conversion is checked by the compiler.
type Stats struct {
	Loads, Saves, Conflicts, Retries, Touches, StoreErrors uint64
	VolatileSaves, CacheHits, CacheMisses                  uint64
	Created, Promoted, Logins, Logouts, Rotations          uint64
	Revoked, TheftsSuspected                               uint64
	RejectedCookies, UnknownKeys, StaleReferences          uint64
	DamagedRecords, LostVersions, UnreadableValue          uint64
	LateChanges, FailedCommits, Swept                      uint64
}
