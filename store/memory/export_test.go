package memory

import (
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

// CopyRow puts a row in the place of another one.
func CopyRow(_ *testing.T, s store.Store, from, to store.ID) {
	m := s.(*Store)
	r := m.shard(from).entries[from].row
	r.id = to
	sh := m.shard(to)
	sh.replace(sh.entries[to], r)
}
