package outages

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// changes are an operator's changes of Redis servers under load.
type changes struct {
	nodes    []*servers.Server
	password string // the file that the replicas read
	words    int
}

// changeable are servers with the ACL user that the replicas are.
var changeable = append([]string{"--user", "app", "on", ">word0", "~*", "&*", "+@all"}, durable...)

// change returns the changes, and the URL's option for the password.
func change(t testing.TB, nodes []*servers.Server) (c *changes, option string) {
	t.Helper()
	c = &changes{nodes: nodes, password: filepath.Join(t.TempDir(), "password")}
	c.tell(t, "word0")
	return c, "password-file=" + url.QueryEscape(c.password)
}

// nextWord changes the user's password on the servers, and closes its connections.
func (c *changes) nextWord(t testing.TB) string {
	t.Helper()
	c.words++
	word := "word" + strconv.Itoa(c.words)
	for _, n := range c.nodes {
		ok(t, n, "ACL", "SETUSER", "app", "on", "resetpass", ">"+word, "~*", "&*", "+@all")
		n.RedisCommand("CLIENT", "KILL", "USER", "app")
	}
	return word
}

// tell writes the password to the replicas' file.
func (c *changes) tell(t testing.TB, word string) {
	t.Helper()
	if err := os.WriteFile(c.password+".new", []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.password+".new", c.password); err != nil {
		t.Fatal(err)
	}
}

func ok(t testing.TB, server *servers.Server, words ...string) {
	t.Helper()
	if got := server.RedisCommand(words...); got != "OK\n" {
		t.Fatalf("%v: %s", words, got)
	}
}

// rotated: the servers get the new password some time before the replicas.
func (c *changes) rotated() fault {
	return fault{"the password changes", func(t *testing.T) {
		word := c.nextWord(t)
		<-time.After(aWhile)
		c.tell(t, word)
	}}
}

// full: one of the masters is out of memory.
func (c *changes) full() fault {
	return fault{"full", func(t *testing.T) {
		server := masterOf(t, c.nodes)
		ok(t, server, "CONFIG", "SET", "maxmemory", "1")
		<-time.After(aWhile)
		ok(t, server, "CONFIG", "SET", "maxmemory", "0")
	}}
}

// readOnly: the master is temporarily a replica of a nonexistent server.
func (c *changes) readOnly() fault {
	return fault{"read-only", func(t *testing.T) {
		server := masterOf(t, c.nodes)
		ok(t, server, "REPLICAOF", "127.0.0.1", "1")
		<-time.After(aWhile)
		ok(t, server, "REPLICAOF", "NO", "ONE")
		inSync(t, c.nodes, 1)
	}}
}

// restarted: the first of the servers, which is the master by its own settings.
func (c *changes) restarted() fault {
	return fault{"restarted in order", func(t *testing.T) {
		c.nodes[0].Stop()
		c.nodes[0].Start()
		inSync(t, c.nodes, 1)
	}}
}

func TestOneRedisIsChangedUnderLoad(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t, changeable...)
	other := servers.Redis(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(server.Port)}, changeable...)...)
	nodes := []*servers.Server{server, other}
	inSync(t, nodes, 1)
	c, option := change(t, nodes)
	address := servers.NewAddress(t, server.Addr)
	probes := []string{"-store", "redis://app@" + address.Addr + "?" + option}

	// moves lets a replica take over, without a loss, and the address follow later.
	moves := fault{"demoted, and the address follows later", func(t *testing.T) {
		old := masterOf(t, nodes)
		now := nodes[0]
		if now == old {
			now = nodes[1]
		}
		ok(t, old, "FAILOVER", "TO", "127.0.0.1", strconv.Itoa(now.Port))
		client.Eventually(t, "the replica takes over", func() bool { return now.RedisRole() == "master" && old.RedisRole() == "slave" })
		<-time.After(aWhile)
		address.Move(now.Addr)
		inSync(t, nodes, 1)
	}}
	fleet := startFleet(t, replicas, nil, probes...)
	for _, s := range []scenario{
		{definite: true, faults: []fault{c.full(), c.readOnly()}},
		{faults: []fault{c.restarted()}},
		// Until a server that was demoted is left, reads from it may be late.
		{readsAhead: true, faults: []fault{moves, moves}},
		{faults: []fault{c.rotated()}},
	} {
		s.fleet, s.storeFails = fleet, true
		s.run(t)
	}
}

func TestSentinelsAndTheirServersAreChangedUnderLoad(t *testing.T) {
	t.Parallel()
	nodes, watchers := servers.RedisSentinels(t, 1, 3, changeable...)
	var sentinels []string
	for _, w := range watchers {
		sentinels = append(sentinels, w.Addr)
	}
	c, option := change(t, nodes)
	scenario{
		probes:     []string{"-store", "redissentinel://app@" + strings.Join(sentinels, ",") + "/mymaster?replicas=1&" + option},
		storeFails: true,
		readsAhead: true,
		faults: []fault{
			c.full(),
			c.rotated(),
			{"demoted by an operator", func(t *testing.T) {
				old := masterOf(t, nodes)
				ok(t, watchers[0], "SENTINEL", "FAILOVER", "mymaster")
				client.Eventually(t, "a replica takes over", func() bool { return masterOf(t, except(nodes, old)) != nil })
				follow(t, nodes, old) // the sentinels would tell it after ten seconds
				inSync(t, nodes, 1)
			}},
			{"the master freezes", func(t *testing.T) {
				old := masterOf(t, nodes)
				other := nodes[0]
				if other == old {
					other = nodes[1]
				}
				old.Pause()
				client.Eventually(t, "a replica takes over", func() bool { return other.RedisRole() == "master" })
				old.Resume()
				follow(t, nodes, old)
				inSync(t, nodes, 1)
			}},
		},
	}.run(t)
}

func TestAClusterIsChangedUnderLoad(t *testing.T) {
	t.Parallel()
	nodes := servers.RedisCluster(t, 3, changeable...)
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Addr)
	}
	c, option := change(t, nodes)
	scenario{
		probes:     []string{"-store", "rediscluster://app@" + strings.Join(addrs, ",") + "?replicas=1&" + option},
		storeFails: true,
		readsAhead: true,
		faults: []fault{
			c.full(),
			c.rotated(),
			{"a master is demoted by an operator", func(t *testing.T) {
				for _, n := range nodes {
					if n.RedisRole() == "slave" {
						ok(t, n, "CLUSTER", "FAILOVER")
						client.Eventually(t, "it has taken over", func() bool { return n.RedisRole() == "master" })
						break
					}
				}
				inSync(t, nodes, 3)
			}},
			{"a master freezes", func(t *testing.T) {
				old := masterOf(t, nodes)
				old.Pause()
				client.Eventually(t, "its replica takes over", func() bool { return masters(except(nodes, old)) == 3 })
				old.Resume()
				inSync(t, nodes, 3)
			}},
		},
	}.run(t)
}

func except(nodes []*servers.Server, one *servers.Server) (others []*servers.Server) {
	for _, n := range nodes {
		if n != one {
			others = append(others, n)
		}
	}
	return others
}
