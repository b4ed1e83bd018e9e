package adoption

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/sojourn-go/sojourn/adopt"
)

// Stats returns the counters by the Name of the legacy format.
func (a *Adoption) Stats() map[string]adopt.Stats {
	out := map[string]adopt.Stats{}
	a.count.mu.Lock()
	defer a.count.mu.Unlock()
	for name, c := range a.count.byName {
		out[name] = adopt.Stats{
			Found: c.found.Load(), Adopted: c.adopted.Load(), Refused: maps.Clone(c.refusals), Outages: c.outages.Load(),
			Ended: c.ended.Load(), Written: c.written.Load(), WriteErrors: c.writeErrors.Load(),
		}
	}
	return out
}

// counters are those of all formats.
type counters struct {
	mu     sync.Mutex
	byName map[string]*ofFormat
}

type ofFormat struct {
	found, adopted, outages, ended, written, writeErrors atomic.Uint64

	refusals map[string]uint64 // guarded by counters.mu
}

func (a *counters) of(name string) *ofFormat {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.locked(name)
}

func (a *counters) locked(name string) *ofFormat {
	c := a.byName[name]
	if c == nil {
		if a.byName == nil {
			a.byName = map[string]*ofFormat{}
		}
		c = &ofFormat{refusals: map[string]uint64{}}
		a.byName[name] = c
	}
	return c
}

func (a *counters) refused(name string, why adopt.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.locked(name).refusals[string(why)]++
}
