package sojourn

import (
	"log/slog"
	"sync/atomic"
)

// Stats are a manager's counters since [New]. They only grow.
type Stats struct {
	Loads           uint64 // answers of the store to a load, errors included
	Saves           uint64 // records written, tombstones included
	Conflicts       uint64 // saves refused because another process was faster
	Retries         uint64 // saves sent again because their outcome was unknown
	Touches         uint64 // idle deadlines extended without rewriting
	StoreErrors     uint64 // calls that the store failed to answer
	VolatileSaves   uint64 // changes of Volatile values kept in a cache, without writing the record
	CacheHits       uint64 // loads answered by a cache in front of the store
	CacheMisses     uint64 // loads that the caches could not answer
	Created         uint64 // sessions that got their first value, in a cookie or the store
	Promoted        uint64 // sessions that moved from the cookie to the store
	Logins          uint64 // logins kept
	Logouts         uint64 // logouts kept
	Rotations       uint64 // credentials replaced by Rotate and Config.Rotation
	Revoked         uint64 // sessions ended from elsewhere: Revoke, Config.Limit, Config.Rotation
	TheftsSuspected uint64 // sessions of which an outdated credential turned up
	RejectedCookies uint64 // session cookies that were damaged, foreign or expired
	UnknownKeys     uint64 // of those: sealed with a key that the key ring lacks
	StaleReferences uint64 // references to sessions that ended or expired, or of an old generation
	DamagedRecords  uint64 // records that did not open although their key is known
	LostVersions    uint64 // loads below the version that the browser had seen: the store lost writes
	UnreadableValue uint64 // values that did not decode into their key's type
	LateChanges     uint64 // changes lost because the response had started, or the handler had returned
	FailedCommits   uint64 // commits that were answered with an error
	Swept           uint64 // old records removed
}

// counters mirrors Stats field by field.
type counters struct {
	loads, saves, conflicts, retries, touches, storeErrors      atomic.Uint64
	created, promoted, logins, logouts, rotations               atomic.Uint64
	revoked, thefts                                             atomic.Uint64
	rejected, unknownKeys, staleRefs, damaged, lost, unreadable atomic.Uint64
	late, failed, swept, volatile                               atomic.Uint64
}

// CacheCounter is implemented by stores with caches, to show their hits and
// misses in [Stats].
type CacheCounter interface {
	CacheStats() (hits, misses uint64)
}

// Stats returns the counters since New. Each one is exact; together they are
// not a snapshot of one instant.
func (m *Manager) Stats() Stats {
	c := &m.count
	s := Stats{
		Loads:           c.loads.Load(),
		Saves:           c.saves.Load(),
		Conflicts:       c.conflicts.Load(),
		Retries:         c.retries.Load(),
		Touches:         c.touches.Load(),
		StoreErrors:     c.storeErrors.Load(),
		VolatileSaves:   c.volatile.Load(),
		Created:         c.created.Load(),
		Promoted:        c.promoted.Load(),
		Logins:          c.logins.Load(),
		Logouts:         c.logouts.Load(),
		Rotations:       c.rotations.Load(),
		Revoked:         c.revoked.Load(),
		TheftsSuspected: c.thefts.Load(),
		RejectedCookies: c.rejected.Load(),
		UnknownKeys:     c.unknownKeys.Load(),
		StaleReferences: c.staleRefs.Load(),
		DamagedRecords:  c.damaged.Load(),
		LostVersions:    c.lost.Load(),
		UnreadableValue: c.unreadable.Load(),
		LateChanges:     c.late.Load(),
		FailedCommits:   c.failed.Load(),
		Swept:           c.swept.Load(),
	}
	if cc, ok := m.cfg.Store.(CacheCounter); ok {
		s.CacheHits, s.CacheMisses = cc.CacheStats()
	}
	return s
}

// Streams returns how many requests wait for the end of their session now: those
// that have asked for [Session.Done] and are not over.
func (m *Manager) Streams() int { return m.ends.Waiting() }

// unreadable counts a value that did not decode, and logs it once per name.
func (m *Manager) unreadable(name string, err error) {
	m.count.unreadable.Add(1)
	if m.log.First("value " + name) {
		m.log.Warn("a session value does not decode into its key's type; it is left as it is until it is set",
			slog.String("key", name), slog.Any("error", err))
	}
}
