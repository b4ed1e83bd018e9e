package redis

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestARestartedServerIsUsedAgain(t *testing.T) {
	server, s := single(t, "--appendonly", "yes", "--appendfsync", "always")
	s.patience = 100 * time.Millisecond
	rec := inserted(t, s, session(ann))
	server.Kill()
	for range 3 {
		_, err := s.Load(within(t, time.Minute), rec.ID)
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("load from a dead server: %v, want an error before the deadline", err)
		}
	}
	two := next(rec)
	if err := s.Save(within(t, time.Minute), two, rec.Base()); err == nil || errors.Is(err, store.ErrConflict) {
		t.Fatalf("save to a dead server: %v", err)
	}
	server.Start()
	s.patience = patience
	settled(t, s, two, rec.Base())
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 2 {
		t.Errorf("after the restart: version %d, %v", got.Version, err)
	}
	has(t, s, ann, rec.ID)
}

func TestAnIdleConnectionThatDiedCostsNoCall(t *testing.T) {
	server, s := single(t, "--appendonly", "yes", "--appendfsync", "always")
	rec := inserted(t, s, session(store.UserHash{}))
	for range 5 {
		server.Kill()
		server.Start()
		failures := 0
		eventually(t, "the store answers", func() bool {
			_, err := s.Load(t.Context(), rec.ID)
			if err != nil {
				failures++
			}
			return err == nil
		})
		if failures > 1 {
			t.Errorf("%d calls failed after the server was up again", failures)
		}
	}
}

func TestAFrozenServerCostsACallItsDeadline(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	two := next(rec)
	server.Pause()
	if _, err := s.Load(within(t, 100*time.Millisecond), rec.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("load: %v, want context.DeadlineExceeded", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	go cancel()
	if err := s.Save(cancelled, two, rec.Base()); !errors.Is(err, context.Canceled) {
		t.Errorf("save: %v, want context.Canceled", err)
	}
	server.Resume()
	// The save may have been sent or not. Sent again, it is applied once.
	settled(t, s, two, rec.Base())
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 2 {
		t.Errorf("version %d, %v", got.Version, err)
	}
	settled(t, s, next(two), two.Base())
}

func TestAFrozenServerHoldsUpNobodyForEver(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	server.Pause()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := s.Load(context.Background(), rec.ID); err == nil {
				t.Error("a frozen server answered")
			}
		})
	}
	wg.Wait()
	server.Resume()
	settled(t, s, next(rec), rec.Base())
}

func TestAThousandFailuresLeaveNothingBehind(t *testing.T) {
	server, s := single(t)
	s.patience = 100 * time.Millisecond
	rec := inserted(t, s, session(ann))
	before := runtime.NumGoroutine()
	fail := func(n int, d time.Duration) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), d)
				defer cancel()
				if s.Save(ctx, next(rec), rec.Base()) == nil {
					t.Error("a save succeeded")
				}
				if _, err := s.ByUser(ctx, ann); err == nil {
					t.Error("a list succeeded")
				}
			})
		}
		wg.Wait()
	}
	server.Pause()
	fail(500, 50*time.Millisecond)
	server.Kill()
	fail(500, time.Minute)
	server.Start()
	settled(t, s, rec, store.Base{})
	// Each connection has a few.
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() < before+20 })
	must(t, s.Close())
	eventually(t, "those of the store, too", func() bool { return runtime.NumGoroutine() <= before })
	clients := func() string { return infoField(server.RedisCommand("INFO", "clients"), "connected_clients") }
	eventually(t, "and the connections", func() bool { return clients() == "1" })
}

func TestClosedIsAnError(t *testing.T) {
	server := servers.Redis(t)
	s, err := Open(t.Context(), at(server))
	must(t, err)
	must(t, s.Close())
	must(t, s.Close())
	if _, err := s.Load(t.Context(), newID()); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	if err := s.Save(t.Context(), session(ann), store.Base{}); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("save: %v", err)
	}
}

func TestOpenIsBoundByItsContext(t *testing.T) {
	server := servers.Redis(t)
	server.Pause()
	o := at(server)
	o.DialTimeout = time.Minute
	if _, err := Open(within(t, 100*time.Millisecond), o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want context.DeadlineExceeded", err)
	}
	server.Resume()
}

// replicaOf starts a replica and waits until it is in sync.
func replicaOf(t testing.TB, master *servers.Server) *servers.Server {
	t.Helper()
	replica := servers.Redis(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port))
	eventually(t, "the replica is in sync", func() bool {
		return infoField(replica.RedisCommand("INFO", "replication"), "master_link_status") == "up" &&
			strings.Contains(master.RedisCommand("INFO", "replication"), "state=online")
	})
	return replica
}

func TestASaveThatTooFewReplicasHaveIsAnErrorHoweverOftenItIsSent(t *testing.T) {
	master := servers.Redis(t)
	o := at(master)
	o.Replicas, o.ReplicaTimeout = 1, 100*time.Millisecond
	s := opened(t, o)
	rec := session(ann)
	tooFew := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errTooFewReplicas) {
			t.Errorf("%s: %v, want too few replicas", what, err)
		}
	}
	tooFew("without a replica", s.Save(t.Context(), rec, store.Base{}))

	replica := replicaOf(t, master)
	settled(t, s, rec, store.Base{})
	if got := replica.RedisCommand("EXISTS", s.key(rec.ID), s.userKey(ann)); got != "2\n" {
		t.Errorf("of record and index, the replica has %s", got)
	}

	// The master has it, and sending the save again writes nothing new: it must
	// not count as acknowledged by replicas.
	replica.Pause()
	two := next(rec)
	for range 3 {
		tooFew("with a frozen replica", s.Save(t.Context(), two, rec.Base()))
	}
	tooFew("on a connection that has written nothing", opened(t, o).Save(t.Context(), two, rec.Base()))
	tooFew("delete", s.Delete(t.Context(), newID(), time.Now().Add(time.Hour)))
	if err := s.Save(t.Context(), next(rec), store.Base{Version: 9, SaveID: 9}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a conflict is one whatever the replicas do: %v", err)
	}
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline)) // does not wait for replicas
	replica.Resume()
	settled(t, s, two, rec.Base())
	eventually(t, "the end is kept", func() bool { return s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)) == nil })
	if got := replica.RedisCommand("GETRANGE", s.key(rec.ID), "26", "31"); got == strings.Repeat("\x00", 6)+"\n" {
		t.Error("the replica does not know of the end")
	}
}

func TestParallelSavesWaitForReplicasAtTheSameTime(t *testing.T) {
	master := servers.Redis(t)
	replicaOf(t, master)
	o := at(master)
	o.Replicas, o.ReplicaTimeout = 1, 10*time.Second
	s := opened(t, o)
	var wg sync.WaitGroup
	for range 3 * waiting {
		wg.Go(func() {
			rec := session(store.UserHash{})
			if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
				t.Errorf("save: %v", err)
				return
			}
			if err := s.Save(t.Context(), next(rec), rec.Base()); err != nil {
				t.Errorf("save: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestStoreBehindSentinels(t *testing.T) {
	nodes, watchers := servers.RedisSentinels(t, 1, 3)
	o := Options{Addrs: []string{watchers[0].Addr, watchers[1].Addr}, Master: "mymaster"}
	storetest.Run(t, opener(o, nodes[0]), storetest.Records(5_000))
}

func TestSentinelFailoverKeepsWhatAllReplicasHave(t *testing.T) {
	nodes, watchers := servers.RedisSentinels(t, 2, 3)
	var sentinels []string
	for _, w := range watchers {
		sentinels = append(sentinels, w.Addr)
	}
	safe := opened(t, Options{Addrs: sentinels, Master: "mymaster", Replicas: 2, ReplicaTimeout: 10 * time.Second})
	s := opened(t, Options{Addrs: sentinels, Master: "mymaster"})
	recs := make([]store.Record, 50)
	for i := range recs {
		recs[i] = inserted(t, safe, session(ann))
	}
	mark := inserted(t, safe, session(ann))
	cursor := fromNow(t, safe)
	must(t, safe.Delete(t.Context(), mark.ID, time.Now().Add(time.Hour)))

	nodes[0].Kill()
	two := next(recs[0])
	settled(t, s, two, recs[0].Base()) // on the new master, which knows no script
	for i, rec := range recs {
		got, err := s.Load(t.Context(), rec.ID)
		if err != nil || (i > 0 && got.Version != 1) {
			t.Fatalf("record %d after the failover: version %d, %v", i, got.Version, err)
		}
	}
	if got, err := s.Load(t.Context(), mark.ID); err != nil || !got.IsEnd() {
		t.Errorf("the end after the failover: %v", err)
	}
	hears(t, s, &cursor, mark.ID)
	if recs, err := s.ByUser(t.Context(), ann); err != nil || len(recs) != 50 {
		t.Errorf("the user has %d sessions, %v", len(recs), err)
	}

	// The old master comes back, with nothing, and takes itself for the master.
	nodes[0].Start()
	settled(t, s, next(two), two.Base())
	if got, err := s.Load(t.Context(), two.ID); err != nil || got.Version != 3 {
		t.Errorf("version %d, %v", got.Version, err)
	}
}

func TestAMasterThatWasFrozenIsLeftForTheNewOne(t *testing.T) {
	nodes, watchers := servers.RedisSentinels(t, 1, 3)
	s := opened(t, Options{Addrs: []string{watchers[0].Addr, watchers[1].Addr}, Master: "mymaster"})
	rec := inserted(t, s, session(store.UserHash{}))
	nodes[0].Pause()
	two := next(rec)
	settled(t, s, two, rec.Base())
	nodes[0].Resume()
	// For some seconds the old master does not know about the new one, and
	// accepts every write.
	three := next(two)
	settled(t, s, three, two.Base())
	version := func(node *servers.Server) byte { return node.RedisCommand("GETRANGE", s.key(rec.ID), "48", "55")[7] }
	if old, now := version(nodes[0]), version(nodes[1]); old == 3 || now != 3 {
		t.Errorf("the old master has version %d, the new one %d; want the third there alone", old, now)
	}
}

func TestAWalkDoesNotGoOnAfterARestart(t *testing.T) {
	server, s := single(t, "--appendonly", "yes", "--appendfsync", "always")
	for range 50 {
		inserted(t, s, session(store.UserHash{}))
	}
	_, cursor, err := s.Scan(t.Context(), "", 10)
	must(t, err)
	server.Kill()
	server.Start()
	eventually(t, "the store answers", func() bool {
		_, _, err = s.Scan(t.Context(), cursor, 10)
		return err == nil || errors.Is(err, ErrScanCursor)
	})
	if !errors.Is(err, ErrScanCursor) {
		t.Errorf("%v, want ErrScanCursor: after a restart, SCAN's cursors mean something else", err)
	}
	for _, cursor := range []string{"x", "1-2-3", "-", "1--1-0", cursor + "x"} {
		if _, _, err := s.Scan(t.Context(), cursor, 10); !errors.Is(err, ErrScanCursor) {
			t.Errorf("cursor %q: %v, want ErrScanCursor", cursor, err)
		}
	}
	if n := len(scanAll(t, s)); n != 50 {
		t.Errorf("a new walk returns %d records, want 50", n)
	}
}

func TestAReplicaIsNoStore(t *testing.T) {
	master := servers.Redis(t)
	if _, err := Open(t.Context(), at(replicaOf(t, master))); err == nil {
		t.Error("it was opened")
	}
}
