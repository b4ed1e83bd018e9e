//go:build linux

package servers

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RedisCluster starts a Redis Cluster of that many masters, each with one
// replica, and returns when all replicas are in sync. Masters come first, and a
// master's replica may be any of the rest; see [Server.RedisRole]. A master
// that is killed is replaced in about two seconds.
func RedisCluster(t TB, masters int, args ...string) []*Server {
	t.Helper()
	nodes := make([]*Server, 2*masters)
	create := []string{"--cluster", "create"}
	for i := range nodes {
		nodes[i] = Redis(t, append([]string{
			"--cluster-enabled", "yes",
			// The usual bus port, 10000 above, may be out of range.
			"--cluster-port", strconv.Itoa(Port(t)),
			"--cluster-node-timeout", "1000",
			"--cluster-require-full-coverage", "no",
		}, args...)...)
		create = append(create, nodes[i].Addr)
	}
	create = append(create, "--cluster-replicas", "1", "--cluster-yes")
	if out, err := exec.Command("redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("make a Redis cluster: %v\n%s", err, out)
	}
	for _, n := range nodes {
		eventually(t, "the cluster is complete", func() bool {
			info := n.RedisCommand("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", len(nodes)))
		})
	}
	for _, n := range nodes {
		n.awaitReplication(1)
	}
	slices.SortStableFunc(nodes, func(a, b *Server) int { return strings.Compare(a.RedisRole(), b.RedisRole()) })
	return nodes
}

// RedisSentinels starts a Redis master with replicas, watched as "mymaster" by
// that many sentinels, and returns when all replicas are in sync. The master
// comes first. If it is killed a replica takes its place in about two seconds.
func RedisSentinels(t TB, replicas, sentinels int, args ...string) (nodes, watchers []*Server) {
	t.Helper()
	nodes = append(nodes, Redis(t, args...))
	for range replicas {
		nodes = append(nodes, Redis(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(nodes[0].Port)}, args...)...))
	}
	for _, n := range nodes {
		n.awaitReplication(replicas)
	}
	config := fmt.Sprintf("sentinel monitor mymaster 127.0.0.1 %d %d\n", nodes[0].Port, sentinels/2+1) +
		"sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 1000\n"
	for range sentinels {
		watchers = append(watchers, RedisSentinel(t, config))
	}
	for _, w := range watchers {
		eventually(t, "the sentinels know each other and the replicas", func() bool {
			state := w.RedisCommand("SENTINEL", "MASTER", "mymaster")
			return strings.Contains(state, fmt.Sprintf("num-other-sentinels\n%d\n", sentinels-1)) &&
				strings.Contains(state, fmt.Sprintf("num-slaves\n%d\n", replicas))
		})
	}
	return nodes, watchers
}

// RedisCommand sends a command to a Redis server, without a password, and
// returns its answer as redis-cli prints it; "" if there is none.
func (s *Server) RedisCommand(args ...string) string {
	out, _ := exec.Command("redis-cli", append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)}, args...)...).Output()
	return strings.ReplaceAll(string(out), "\r", "")
}

// RedisRole is "master" or "slave", or "" for a server that does not answer.
func (s *Server) RedisRole() string {
	role, _, _ := strings.Cut(s.RedisCommand("ROLE"), "\n")
	return role
}

// awaitReplication waits until a replica is in sync with its master, or a
// master has that many replicas in sync.
func (s *Server) awaitReplication(replicas int) {
	s.t.Helper()
	eventually(s.t, "the replicas are in sync", func() bool {
		info := s.RedisCommand("INFO", "replication")
		return strings.Contains(info, "master_link_status:up") || strings.Count(info, "state=online") == replicas
	})
}

func eventually(t TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTime); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so, even after %v: %s", startTime, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}
