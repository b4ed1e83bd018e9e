package sojourn

import (
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Name returns Config.Name, or what it stands for if it was empty.
func (m *Manager) Name() string { return m.cfg.Name }

// Store returns Config.Store, for pages and programs that watch over it: those
// that count its records, say (see store.Counter), or measure how fast it
// answers. It is nil with CookieOnly. What changes its records behind the
// manager's back breaks the manager's promises.
func (m *Manager) Store() store.Store { return m.cfg.Store }

// SweepDue returns when this process will sweep next (see [Manager.Sweep]): with
// the first session that it saves at or after that time. It is the zero time
// where there is nothing to sweep, because the store expires records by itself
// or there is none.
func (m *Manager) SweepDue() time.Time {
	if _, ok := m.cfg.Store.(store.Sweeper); !ok {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(time.Duration(m.nextSweep.Load()) - now.Sub(m.started)).UTC().Truncate(time.Millisecond)
}
