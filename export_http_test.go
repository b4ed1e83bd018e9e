package sojourn

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
