package ops

import "github.com/sojourn-go/sojourn/adopt"

// Stats are a manager's counters since sojourn.New. They only grow.
type Stats struct {
	Loads           uint64 // loads from the store, failed ones included
	Saves           uint64 // records written, tombstones included
	Conflicts       uint64 // saves refused because another process was faster
	Retries         uint64 // saves sent again because their outcome was unknown
	Touches         uint64 // idle deadlines extended without rewriting
	StoreErrors     uint64 // calls that the store did not answer
	VolatileSaves   uint64 // changes of Volatile values kept in a cache, without writing the record
	CacheHits       uint64 // loads answered by a cache in front of the store
	CacheMisses     uint64 // loads that the caches could not answer
	Created         uint64 // sessions that got their first value, in a cookie or the store
	Promoted        uint64 // sessions that moved from the cookie to the store
	Logins          uint64 // logins kept
	Logouts         uint64 // logouts kept
	Rotations       uint64 // credentials replaced by Rotate and Config.Rotation
	Revoked         uint64 // sessions ended from elsewhere: Revoke, Config.Limit, Rotation.EndOnTheft
	TheftsSuspected uint64 // sessions for which a request brought an outdated credential
	RejectedCookies uint64 // session cookies that were damaged, foreign or expired
	UnknownKeys     uint64 // those of RejectedCookies sealed with a key that the key ring does not have
	StaleReferences uint64 // references to sessions that ended or expired, or of an old generation
	DamagedRecords  uint64 // records that did not open although their key is known
	LostVersions    uint64 // loads below the version that the browser had seen: the store lost writes
	UnreadableValue uint64 // values that did not decode into their key's type
	LateChanges     uint64 // changes lost because the response had started, or the handler had returned
	FailedCommits   uint64 // commits that were answered with an error
	Swept           uint64 // old records removed
}

// Stats returns the counters since sojourn.New. Each one is exact; together they
// are not a snapshot of one instant.
func (o *Ops) Stats() Stats { return Stats(o.manager.Stats()) }

// AdoptStats returns the counters by the Name of the legacy format, including
// formats that no request has brought yet. Without Config.Adopt it is empty.
func (o *Ops) AdoptStats() map[string]adopt.Stats { return o.manager.AdoptStats() }
