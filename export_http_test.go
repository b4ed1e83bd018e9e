package sojourn

import "time"

// SetClockAhead lets a manager's clock be ahead until the function that it
// returns is called.
func SetClockAhead(m *Manager, by time.Duration) (restore func()) {
	m.ahead = by
	return func() { m.ahead = 0 }
}
