// Package bridge gives public packages of this module access to each other's
// types where no public method may. The package that declares the type sets a
// variable here in its init; the other package, which imports it anyway, reads
// the variable.
package bridge

import "github.com/sojourn-go/sojourn/internal/seal"

// Keys returns the function that returns the keys that a *keys.Ring holds now,
// nil if it holds none. Package keys sets it; the root reads it.
var Keys func(ring any) (current func() *seal.Ring)

// Operator returns the operations of package ops on a *sojourn.Manager. The
// root sets it; ops reads it and declares the interface.
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
