package sojourn

import (
	"maps"
	"sync"
	"sync/atomic"
)

// AdoptStats count what [Config.Adopt] has done with the sessions of one format
// since [New]. They only grow.
type AdoptStats struct {
	// Found are requests with a genuine, live legacy session and none of the
	// manager's. When it stops growing nobody is left to move.
	Found   uint64
	Adopted uint64 // sessions made of legacy ones
	// Refused are requests with a legacy session that was not accepted, by
	// reason: those of github.com/sojourn-go/sojourn/legacy/reason, and of the
	// manager "empty", "unmapped" (Map failed), "ended", "spent" (it was adopted,
	// and that session has ended or expired), "superseded" (it has a newer
	// credential), "revoked" (issued before its user's logout), "expired",
	// "unlimited", "too_large" and "too_many_sessions".
	Refused     map[string]uint64
	Outages     uint64 // requests to a legacy server that it did not answer
	Ended       uint64 // legacy sessions ended by a Logout, a Revoke, or somebody else's Login
	Written     uint64 // sessions written by a WriteBack
	WriteErrors uint64 // and those that could not be
}

// AdoptStats returns the counters by the Name of the legacy format. Formats that
// no request has brought yet are in it with zeros.
func (m *Manager) AdoptStats() map[string]AdoptStats {
	out := map[string]AdoptStats{}
	if m.cfg.Adopt == nil {
		return out
	}
	for _, from := range m.cfg.Adopt.From {
		m.adoptions.of(from.Name())
	}
	m.adoptions.mu.Lock()
	defer m.adoptions.mu.Unlock()
	for name, c := range m.adoptions.byName {
		out[name] = AdoptStats{
			Found: c.found.Load(), Adopted: c.adopted.Load(), Refused: maps.Clone(c.refusals), Outages: c.outages.Load(),
			Ended: c.ended.Load(), Written: c.written.Load(), WriteErrors: c.writeErrors.Load(),
		}
	}
	return out
}

// adoptions are the counters of all formats.
type adoptions struct {
	mu     sync.Mutex
	byName map[string]*adoption
}

type adoption struct {
	found, adopted, outages, ended, written, writeErrors atomic.Uint64

	refusals map[string]uint64 // guarded by adoptions.mu
}

func (a *adoptions) of(name string) *adoption {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.locked(name)
}

func (a *adoptions) locked(name string) *adoption {
	c := a.byName[name]
	if c == nil {
		if a.byName == nil {
			a.byName = map[string]*adoption{}
		}
		c = &adoption{refusals: map[string]uint64{}}
		a.byName[name] = c
	}
	return c
}

func (a *adoptions) refused(name string, why LegacyRefusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.locked(name).refusals[string(why)]++
}
