package redis

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestStoreOnACluster(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	o := Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr}, Cluster: true}
	storetest.Run(t, opener(o, nodes[:3]...), storetest.Records(10_000))
}

// ownerOf returns the master that has the key.
func ownerOf(t testing.TB, nodes []*servers.Server, key string) *servers.Server {
	t.Helper()
	for _, n := range nodes {
		if n.RedisRole() == "master" && !strings.HasPrefix(n.RedisCommand("GET", key), "MOVED") {
			return n
		}
	}
	t.Fatal("no master has the key")
	return nil
}

func clusterID(n *servers.Server) string { return strings.TrimSpace(n.RedisCommand("CLUSTER", "MYID")) }

func TestClusterFailoverKeepsWhatTheReplicaHas(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	o := Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr, nodes[2].Addr}, Cluster: true}
	safe := o
	safe.Replicas, safe.ReplicaTimeout = 1, 10*time.Second
	s, kept := opened(t, o), opened(t, safe)
	recs := make([]store.Record, 100)
	for i := range recs {
		recs[i] = inserted(t, kept, session(ann))
	}
	victim := ownerOf(t, nodes, s.key(recs[0].ID))
	victim.Kill()
	others := 0
	for _, rec := range recs {
		if _, err := s.Load(t.Context(), rec.ID); err == nil {
			others++
		}
	}
	if others == 0 {
		t.Error("with one of three masters dead, no session can be loaded")
	}
	for i, rec := range recs {
		settled(t, s, next(rec), rec.Base())
		if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 2 {
			t.Fatalf("record %d after the failover: version %d, %v", i, got.Version, err)
		}
	}
	eventually(t, "the index is complete", func() bool {
		recs, err := s.ByUser(t.Context(), ann)
		return err == nil && len(recs) == 100
	})
	eventually(t, "a walk finds them all", func() bool {
		n := 0
		for cursor := ""; ; {
			page, next, err := s.Scan(t.Context(), cursor, 1000)
			if err != nil {
				return false
			}
			n += len(page)
			if cursor = next; cursor == "" {
				return n == 100
			}
		}
	})
}

// A slot that is being moved answers ASK, and MOVED afterwards. A save and its
// WAIT must follow together: at the old node, WAIT would be content at once.
func TestASaveFollowsItsSlotToAnotherNode(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	o := Options{Addrs: []string{nodes[0].Addr}, Cluster: true}
	waiting := o
	waiting.Replicas, waiting.ReplicaTimeout = 1, 100*time.Millisecond
	for what, o := range map[string]Options{"the master alone": o, "with a replica": waiting} {
		s := opened(t, o)
		user := store.UserHash{byte(o.Replicas + 1)}
		rec := session(user)
		settled(t, s, rec, store.Base{})
		key := s.key(rec.ID)
		from, slot := ownerOf(t, nodes, key), strings.TrimSpace(nodes[0].RedisCommand("CLUSTER", "KEYSLOT", key))
		to := nodes[0]
		if to == from {
			to = nodes[1]
		}
		var replica *servers.Server
		for _, n := range nodes[3:] {
			if strings.Contains(n.RedisCommand("CLUSTER", "NODES"), "myself,slave "+clusterID(to)) {
				replica = n
			}
		}
		setslot := func(n *servers.Server, args ...string) {
			t.Helper()
			if got := n.RedisCommand(append([]string{"CLUSTER", "SETSLOT", slot}, args...)...); got != "OK\n" {
				t.Fatalf("SETSLOT: %s", got)
			}
		}
		follows := func(when string, rec store.Record, base store.Base) {
			t.Helper()
			if o.Replicas > 0 {
				replica.Pause()
				if err := s.Save(t.Context(), rec, base); !errors.Is(err, errTooFewReplicas) {
					t.Errorf("%s, %s, which is frozen: %v, want too few replicas", what, when, err)
				}
				replica.Resume()
				settled(t, s, rec, base)
				return
			}
			if err := s.Save(t.Context(), rec, base); err != nil {
				t.Errorf("%s, %s: %v", what, when, err)
			}
		}
		setslot(to, "IMPORTING", clusterID(from))
		setslot(from, "MIGRATING", clusterID(to))
		if got := from.RedisCommand("MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), key, "0", "5000"); got != "OK\n" {
			t.Fatalf("MIGRATE: %s", got)
		}
		two := next(rec)
		follows("while the slot moves", two, rec.Base())
		has(t, s, user, rec.ID)
		limited(t, s, session(user), upTo(2))
		setslot(to, "NODE", clusterID(to))
		setslot(from, "NODE", clusterID(to))
		three := next(two)
		follows("after the slot has moved", three, two.Base())
		if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 3 {
			t.Errorf("%s: version %d, %v", what, got.Version, err)
		}
		if recs, err := s.ByUser(t.Context(), user); err != nil || len(recs) != 2 {
			t.Errorf("%s: the user has %d sessions, %v; want 2", what, len(recs), err)
		}
	}
}

func TestAClusterWithEvictionIsRefusedWhereverItEvicts(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	o := Options{Addrs: []string{nodes[0].Addr}, Cluster: true}
	opened(t, o)
	nodes[2].RedisCommand("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrEviction) {
		t.Errorf("%v, want ErrEviction", err)
	}
}

func TestAnACLUserOfAClusterCanDoEverything(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	rule := append([]string{"ACL", "SETUSER", "sojourn", "on", ">hunter2"}, strings.Fields(permissions(t, "In a Cluster also `"))...)
	for _, n := range nodes {
		if got := n.RedisCommand(rule...); got != "OK\n" {
			t.Fatalf("the README's ACL rule: %s", got)
		}
	}
	o := Options{Addrs: []string{nodes[0].Addr}, Cluster: true, Username: "sojourn", Password: "hunter2", Replicas: 1, ReplicaTimeout: 10 * time.Second}
	s := opened(t, o)
	var recs []store.Record
	for range 20 {
		rec := inserted(t, s, session(ann))
		saved(t, s, next(rec), rec.Base())
		must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline))
		recs = append(recs, rec)
	}
	if got, err := s.ByUser(t.Context(), ann); err != nil || len(got) != len(recs) {
		t.Errorf("the user has %d sessions, %v", len(got), err)
	}
	if n := len(scanAll(t, s)); n != len(recs) {
		t.Errorf("a walk returns %d records, want %d", n, len(recs))
	}
	cursor := fromNow(t, s)
	must(t, s.Delete(t.Context(), recs[0].ID, time.Now().Add(time.Hour)))
	hears(t, s, &cursor, recs[0].ID)
	limited(t, s, session(ann), upTo(len(recs)))
	if gone, err := s.SaveLimited(t.Context(), session(ann), upTo(len(recs))); err != nil || len(gone) != 1 {
		t.Errorf("a login that makes room: it has ended %d sessions, %v", len(gone), err)
	}
	c := cacheAt(t, o)
	for _, rec := range recs {
		token, err := c.Add(t.Context(), rec.ID, []byte("one"), time.Hour)
		must(t, err)
		must(t, c.Swap(t.Context(), rec.ID, token, []byte("two"), time.Hour))
	}
	for _, n := range nodes {
		if denied := n.RedisCommand("ACL", "LOG"); strings.TrimSpace(denied) != "" {
			t.Errorf("denied:\n%s", denied)
		}
	}
}
