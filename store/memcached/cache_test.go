package memcached

import (
	"fmt"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestCacheConformance(t *testing.T) {
	server := servers.Memcached(t, 64)
	n := 0
	storetest.RunCache(t, func(t *testing.T) store.Cache {
		n++
		c, err := NewCache([]string{server.Addr}, Options{Prefix: fmt.Sprintf("t%d:", n), Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	})
}
