package memcached

import (
	"fmt"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// As the only store, memcached keeps every promise until a server restarts or
// is full. Then promises 3 and 5 do not hold, as the package documents.
func TestPromises(t *testing.T) {
	server := servers.Memcached(t, 512)
	n := 0
	promises.Run(t, func(t *testing.T) store.Store {
		n++
		s, err := NewStore([]string{server.Addr}, Options{Prefix: fmt.Sprintf("p%d:", n), Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}
