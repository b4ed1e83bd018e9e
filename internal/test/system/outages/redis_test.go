package outages

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// durable are the settings under which an acknowledged write survives the server.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// aWhile is how long things stay broken.
const aWhile = 700 * time.Millisecond

func TestRedisIsKilledOrFrozen(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t, durable...)
	scenario{
		probes:     []string{"-store", "redis://" + server.Addr},
		storeFails: true,
		faults: []fault{
			{"killed and started again", func(_ *testing.T) {
				server.Kill()
				<-time.After(aWhile)
				server.Start()
			}},
			{"frozen", func(_ *testing.T) {
				server.Pause()
				<-time.After(aWhile)
				server.Resume()
			}},
		},
	}.run(t)
}

func TestTheWireToRedisIsBad(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t, durable...)
	w := newWire(t, server.Addr)
	scenario{
		probes:     []string{"-store", "redis://" + w.Addr},
		storeFails: true,
		faults:     badWires(w),
	}.run(t)
}

// With one replica, and saves that wait for it, a failover loses nothing that
// was acknowledged.
func TestASentinelFailover(t *testing.T) {
	t.Parallel()
	nodes, watchers := servers.RedisSentinels(t, 1, 3, durable...)
	var sentinels []string
	for _, w := range watchers {
		sentinels = append(sentinels, w.Addr)
	}
	scenario{
		probes:     []string{"-store", "redissentinel://" + strings.Join(sentinels, ",") + "/mymaster?replicas=1"},
		storeFails: true,
		readsAhead: true,
		faults: []fault{{"the master is killed", func(t *testing.T) {
			master := masterOf(t, nodes)
			master.Kill()
			client.Eventually(t, "a replica takes over", func() bool { return masterOf(t, nodes) != nil })
			master.Start()
			// The sentinels would tell it only after ten seconds, and no save is
			// acknowledged without a replica.
			follow(t, nodes, master)
			inSync(t, nodes, 1)
		}}},
	}.run(t)
}

func TestAClusterFailover(t *testing.T) {
	t.Parallel()
	nodes := servers.RedisCluster(t, 3, durable...)
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Addr)
	}
	scenario{
		probes:     []string{"-store", "rediscluster://" + strings.Join(addrs, ",") + "?replicas=1"},
		storeFails: true,
		readsAhead: true,
		faults: []fault{{"a master is killed", func(t *testing.T) {
			master := masterOf(t, nodes)
			master.Kill()
			client.Eventually(t, "its replica takes over", func() bool { return masters(nodes) == 3 })
			master.Start()
			inSync(t, nodes, 3)
		}}},
	}.run(t)
}

// masterOf returns the first node that is a master, or nil.
func masterOf(t testing.TB, nodes []*servers.Server) *servers.Server {
	t.Helper()
	for _, n := range nodes {
		if n.RedisRole() == "master" {
			return n
		}
	}
	return nil
}

// follow makes a node that was the master a replica of the new one.
func follow(t testing.TB, nodes []*servers.Server, old *servers.Server) {
	t.Helper()
	for _, n := range nodes {
		if n != old && n.RedisRole() == "master" {
			old.RedisCommand("REPLICAOF", "127.0.0.1", strconv.Itoa(n.Port))
			return
		}
	}
	t.Fatal("there is no new master")
}

func masters(nodes []*servers.Server) (n int) {
	for _, node := range nodes {
		if node.RedisRole() == "master" {
			n++
		}
	}
	return n
}

// inSync waits until all other nodes than those masters replicate.
func inSync(t testing.TB, nodes []*servers.Server, want int) {
	t.Helper()
	client.Eventually(t, "every node has its role again", func() bool {
		linked := 0
		for _, n := range nodes {
			if strings.Contains(n.RedisCommand("INFO", "replication"), "master_link_status:up") {
				linked++
			}
		}
		return linked == len(nodes)-want && masters(nodes) == want
	})
}
