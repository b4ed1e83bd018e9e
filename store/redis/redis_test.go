package redis

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// opener returns stores with those options, each with a prefix of its own, on
// servers that it empties after each test: a walk over one store's records
// looks at all keys.
func opener(o Options, masters func() []*servers.Server) func(t *testing.T) store.Store {
	var n atomic.Int64
	return func(t *testing.T) store.Store {
		o := o
		o.Prefix = fmt.Sprintf("t%d:", n.Add(1))
		t.Cleanup(func() {
			for _, m := range masters() {
				m.RedisCommand("FLUSHALL", "SYNC")
			}
		})
		return open(t, o)
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func one(s *servers.Server) func() []*servers.Server {
	return func() []*servers.Server { return []*servers.Server{s} }
}

func TestStore(t *testing.T) {
	server := servers.Redis(t)
	storetest.Run(t, opener(Options{Addrs: []string{server.Addr}}, one(server)))
}

func TestStoreOnACluster(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	storetest.Run(t, opener(Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr}, Cluster: true}, func() []*servers.Server { return nodes[:3] }))
}
