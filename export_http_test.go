package sojourn

import "time"

// Watching returns how many sessions somebody waits for, and how many timers
// that keeps.
func (m *Manager) Watching() (waiting, timers int) {
	m.watches.mu.Lock()
	defer m.watches.mu.Unlock()
	for _, all := range m.watches.byID {
		for w := range all {
			waiting++
			w.mu.Lock()
			if w.timer != nil {
				timers++
			}
			w.mu.Unlock()
		}
	}
	return waiting, timers
}

// Heard returns how many ends the feed has in mind for requests that ask for
// Done only afterwards.
func (m *Manager) Heard() int {
	m.feed.mu.Lock()
	defer m.feed.mu.Unlock()
	return len(m.feed.heard)
}

// SetClockAhead lets a manager's clock be ahead until the function that it
// returns is called.
func SetClockAhead(m *Manager, by time.Duration) (restore func()) {
	m.ahead = by
	return func() { m.ahead = 0 }
}
