package memcached_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/opentest"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	_ "github.com/sojourn-go/sojourn/store/memcached"
)

func TestByURL(t *testing.T) {
	one, two := servers.Memcached(t, 64).Addr, servers.Memcached(t, 64).Addr
	refused := []string{
		"memcached:", "memcached://", "memcached:a:1", "memcached://a,a", "memcached://a:port", "memcached://a/b", "memcached://u:hunter2@a",
		"memcached:u:hunter2", "memcached://a?prefix=%20", "memcached://a?prefix=", "memcached://a?prefix=x&prefix=y", "memcached://a?prefix=%zz",
		"memcached://a?timeout=soon", "memcached://a?timeout=-1s", "memcached://a?max_item=big", "memcached://a?nonsense=1",
	}
	opentest.Run(t, opentest.Engine{
		Stores:     []string{"memcached://" + one + "," + two + "?prefix=a:&timeout=10s&max_item=500000", "memcached://" + one},
		Caches:     []string{"memcached://" + two},
		Away:       []string{"memcached://127.0.0.1:1"},
		AwayCaches: []string{"memcached://127.0.0.1:1"},
		Refused:    refused, RefusedCaches: refused,
	})
}
