package tiered

import (
	"sync"

	"github.com/sojourn-go/sojourn/store"
)

// missed are the sessions whose copies in a cache could not be replaced or
// deleted after a change. These copies are not used, and are deleted later.
// Beyond maxMissed, only their time to live bounds them.
type missed struct {
	mu  sync.Mutex
	ids map[store.ID]struct{}
}

const maxMissed = 1 << 16

func (m *missed) add(id store.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids == nil {
		m.ids = map[store.ID]struct{}{}
	}
	if len(m.ids) < maxMissed {
		m.ids[id] = struct{}{}
	}
}

func (m *missed) remove(id store.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ids, id)
}

func (m *missed) has(id store.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.ids[id]
	return ok
}

func (m *missed) any() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.ids) > 0
}

// next returns any of them.
func (m *missed) next() (store.ID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.ids {
		return id, true
	}
	return store.ID{}, false
}
