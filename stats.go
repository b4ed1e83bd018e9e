package sojourn

import (
	"log/slog"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/store"
)

// counters are what bridge.Stats tells.
type counters struct {
	loads, saves, conflicts, retries, touches, storeErrors      atomic.Uint64
	created, promoted, logins, logouts, rotations               atomic.Uint64
	revoked, thefts                                             atomic.Uint64
	rejected, unknownKeys, staleRefs, damaged, lost, unreadable atomic.Uint64
	late, failed, swept, volatile                               atomic.Uint64
}

// Stats returns the counters since New.
func (o operator) Stats() bridge.Stats {
	c := &o.m.count
	s := bridge.Stats{
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
	if cc, ok := o.m.store.(store.CacheCounter); ok {
		s.CacheHits, s.CacheMisses = cc.CacheStats()
	}
	return s
}

// unreadable counts a value that did not decode, and logs it once per name.
func (m *core) unreadable(name string, err error) {
	m.count.unreadable.Add(1)
	if m.log.First("value " + name) {
		m.log.Warn("a session value does not decode into its key's type; it is left as it is until it is set",
			slog.String("key", name), slog.Any("error", err))
	}
}
