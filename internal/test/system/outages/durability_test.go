package outages

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/redis"
)

// setting is a configuration of Redis, and its failure.
type setting struct {
	appendfsync string // "" = no append-only file
	wait        int    // for how many replicas a save waits
	replicas    int
	failover    bool // otherwise the master itself comes back
	// safe: nothing that was acknowledged may be lost.
	safe bool
}

func (s setting) persistence() string {
	if s.appendfsync == "" {
		return "no append-only file"
	}
	return "appendfsync " + s.appendfsync
}

func (s setting) fault() string {
	if s.failover {
		return "its machine is lost; a replica takes over"
	}
	return "SIGKILL; it starts again"
}

// args start a server with that setting.
func (s setting) args() []string {
	if s.appendfsync == "" {
		return []string{"--appendonly", "no"}
	}
	return []string{"--appendonly", "yes", "--appendfsync", s.appendfsync}
}

// settings are the rows of the table.
func settings() (all []setting) {
	for _, failover := range []bool{false, true} {
		for _, appendfsync := range []string{"always", "everysec", "no", ""} {
			for _, wait := range []int{0, 1} {
				all = append(all, setting{
					appendfsync: appendfsync, wait: wait, replicas: 1, failover: failover,
					// The kernel has what a killed process had written. With
					// everysec, Redis holds its writes back while the disk is busy,
					// and answers nevertheless.
					safe: failover && wait == 1 || !failover && (appendfsync == "always" || appendfsync == "no"),
				})
			}
		}
	}
	// With more replicas than a save waits for, another one may take over.
	return append(all, setting{appendfsync: "everysec", wait: 1, replicas: 2, failover: true},
		setting{appendfsync: "everysec", wait: 2, replicas: 2, failover: true, safe: true})
}

// loss counts the acknowledged changes, and the lost ones.
type loss struct {
	rounds, lossy      int
	writes, lostWrites int
	ends, undoneEnds   int
}

func (l *loss) add(m loss) {
	l.rounds++
	if m.lostWrites+m.undoneEnds > 0 {
		l.lossy++
	}
	l.writes += m.writes
	l.lostWrites += m.lostWrites
	l.ends += m.ends
	l.undoneEnds += m.undoneEnds
}

// TestWhatRedisLoses measures what a killed Redis loses. It prints a table, and
// fails if a safe setting loses anything.
func TestWhatRedisLoses(t *testing.T) {
	t.Parallel()
	rounds := 1
	if text := os.Getenv("FAULT_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("FAULT_ROUNDS: %v", err)
		}
	}
	all := settings()
	losses := make([]loss, len(all))
	t.Run("settings", func(t *testing.T) {
		for i, s := range all {
			t.Run(fmt.Sprintf("%s, WAIT %d of %d, %s", s.persistence(), s.wait, s.replicas, s.fault()), func(t *testing.T) {
				t.Parallel()
				for range rounds {
					if t.Run("round", func(t *testing.T) { losses[i].add(s.measure(t)) }); t.Failed() {
						return
					}
				}
				if l := losses[i]; s.safe && l.lossy > 0 {
					t.Errorf("lost: %+v", l)
				}
			})
		}
	})
	var table strings.Builder
	fmt.Fprintf(&table, "| persistence | replicas | save waits for | fault | rounds | with losses | acknowledged saves | lost | acknowledged ends | undone |\n")
	fmt.Fprintf(&table, "|---|---|---|---|---|---|---|---|---|---|\n")
	for i, s := range all {
		l := losses[i]
		fmt.Fprintf(&table, "| %s | %d | %d | %s | %d | %d | %d | %d | %d | %d |\n",
			s.persistence(), s.replicas, s.wait, s.fault(), l.rounds, l.lossy, l.writes, l.lostWrites, l.ends, l.undoneEnds)
	}
	t.Logf("\n%s", &table)
}

// measure loads one group of servers, kills the master, and counts.
func (s setting) measure(t *testing.T) loss {
	master := servers.Redis(t, s.args()...)
	nodes := []*servers.Server{master}
	var wires []*wire
	for i := range s.replicas {
		// Two milliseconds away, and each further one two more.
		w := newWire(t, master.Addr)
		w.poison("latency", fromServer, attributes{"latency": 2 * (i + 1)})
		wires = append(wires, w)
		_, port, _ := strings.Cut(w.Addr, ":")
		nodes = append(nodes, servers.Redis(t, append(s.args(), "--replicaof", "127.0.0.1 "+port)...))
	}
	inSync(t, nodes, 1)
	// A replica reports that it is in sync a second before its master sends it
	// new writes.
	all := openRedis(t, master, s.replicas)
	client.Eventually(t, "the replicas get every write", func() bool { return saves(all)(t.Context()) == nil })
	db := openRedis(t, master, s.wait)
	if err := saves(db)(t.Context()); err != nil {
		t.Fatal(err)
	}

	const writers = 64
	kept := make([]map[store.ID]acknowledged, writers)
	var written atomic.Int64
	var busy sync.WaitGroup
	stop, cancel := context.WithCancel(context.Background())
	for i := range kept {
		kept[i] = map[store.ID]acknowledged{}
		busy.Go(func() { writes(stop, db, kept[i], &written) })
	}
	enough := 300 + rand.Int64N(500)
	client.Eventually(t, "the writers are at work", func() bool { return written.Load() >= enough })
	if s.failover {
		// Writes under way to the replicas are lost with the machine.
		for _, w := range wires {
			w.cut()
		}
	}
	master.Kill()
	cancel()
	busy.Wait()

	if s.failover {
		// The same steps as Sentinel and Cluster, without their detection time,
		// and with the replica that is farthest away.
		heir := nodes[len(nodes)-1]
		if answer := heir.RedisCommand("REPLICAOF", "NO", "ONE"); answer != "OK\n" {
			t.Fatalf("promote a replica: %s", answer)
		}
		db = openRedis(t, heir, 0)
	} else {
		master.Start()
		db = openRedis(t, master, 0)
	}
	var l loss
	for _, records := range kept {
		for id, was := range records {
			rec, err := db.Load(t.Context(), id)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
			if was.ended {
				l.ends++
				if !rec.IsEnd() {
					l.undoneEnds++
				}
				continue
			}
			l.writes++
			if rec.Version < was.version && !rec.IsEnd() {
				l.lostWrites++
			}
		}
	}
	return l
}

func openRedis(t testing.TB, server *servers.Server, wait int) *redis.Store {
	t.Helper()
	db, err := redis.Open(t.Context(), redis.Options{Addrs: []string{server.Addr}, Replicas: wait, ReplicaTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// acknowledged is a session's last acknowledged state.
type acknowledged struct {
	version uint64
	ended   bool
}

// writes starts sessions, changes them, and ends every other one. It records
// the acknowledged changes.
func writes(ctx context.Context, db store.Store, kept map[store.ID]acknowledged, written *atomic.Int64) {
	for n := 0; ctx.Err() == nil; n++ {
		now := time.Now().UTC().Truncate(time.Millisecond)
		rec := store.Record{
			ID: newID(), Version: 1, SaveIDs: []store.SaveID{1},
			Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: make([]byte, 200),
		}
		if db.Save(context.Background(), rec, store.Base{}) != nil {
			continue
		}
		kept[rec.ID] = acknowledged{version: 1}
		written.Add(1)
		if n%2 == 0 {
			if db.Delete(context.Background(), rec.ID, now.Add(time.Hour)) == nil {
				kept[rec.ID] = acknowledged{ended: true}
			}
			continue
		}
		base := rec.Base()
		rec.Version, rec.SaveIDs = 2, []store.SaveID{2, 1}
		if db.Save(context.Background(), rec, base) == nil {
			kept[rec.ID] = acknowledged{version: 2}
		}
	}
}
