package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// realEngines starts Redis and PostgreSQL.
func realEngines(t *testing.T) (engines, map[string]engine) {
	t.Helper()
	e, watched, stop, err := startEngines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return e, watched
}

// serveHere serves a side in this process.
func serveHere(t *testing.T, s engineSide, e engines) (library, served) {
	t.Helper()
	lib, err := s.open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lib.close(); err != nil {
			t.Error(err)
		}
	})
	addr, stop, err := serve(context.WithoutCancel(t.Context()), withUsage(lib))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return lib, served{s, addr, stop}
}

func TestRealServers(t *testing.T) {
	e, watched := realEngines(t)
	var sides []served
	for _, s := range engineSides() {
		lib, one := serveHere(t, s, e)
		sides = append(sides, one)
		if s.name == bare {
			continue
		}
		t.Run(s.name+" keeps what its handlers set", func(t *testing.T) { keepsValues(t, lib, true) })
		if _, own := watched[s.engine].(inProcess); own {
			continue
		}
		t.Run(s.name+" keeps it in its engine", func(t *testing.T) {
			before, err := watched[s.engine].work(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			visit(t, newCaller(t.Context(), handlers(lib)), write)
			// Redis answers before it writes its file, and may do that a second later.
			var done work
			for deadline := time.Now().Add(time.Minute); done.logged < 50; {
				after, err := watched[s.engine].work(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if done = after.minus(before); time.Now().After(deadline) {
					t.Fatalf("a write led to %+v there", done)
				}
				<-time.After(10 * time.Millisecond)
			}
			if done.operations < 1 {
				t.Errorf("a write led to %+v there", done)
			}
		})
	}

	t.Run("a comparison counts what each request took", func(t *testing.T) {
		o := engineOptions{rounds: 1, turn: 200 * time.Millisecond}
		results, err := compare(t.Context(), sides, watched, reads, 2, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			turn := r.turns[0]
			if turn.perSecond <= 0 || turn.allocs <= 0 || turn.p99 < turn.p50 {
				t.Errorf("%s: %+v", r.name, turn)
			}
			switch {
			case r.cached:
				if turn.hits <= 0 || turn.operations >= 1 {
					t.Errorf("%s: %.2f hits, %.2f operations", r.name, turn.hits, turn.operations)
				}
			case r.shared != "":
				if turn.hits <= 0 || turn.operations <= 0 {
					t.Errorf("%s: %.2f hits, %.2f operations", r.name, turn.hits, turn.operations)
				}
			case r.engine == "memory", r.engine == "sqlite":
			case r.engine != "":
				// Another connection's handshake may be among them, and
				// concurrent loads share a statement.
				if turn.operations < 0.5 || turn.operations > 3 {
					t.Errorf("%s: %.2f operations for each read", r.name, turn.operations)
				}
			}
		}
	})

	t.Run("both are as durable as the table says", func(t *testing.T) {
		pg := watched["postgres"].(postgresEngine).conn
		for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			var value string
			if err := pg.QueryRow(t.Context(), "SHOW "+setting).Scan(&value); err != nil || value != "on" {
				t.Errorf("%s is %q (%v)", setting, value, err)
			}
		}
		got, err := redigo.StringMap(watched["redis"].(redisEngine).conn.Do("CONFIG", "GET", "append*"))
		if err != nil || got["appendonly"] != "yes" || got["appendfsync"] != "everysec" {
			t.Errorf("Redis has %v (%v)", got, err)
		}
	})
}

func TestEveryEngineTellsTheSizeOfASession(t *testing.T) {
	e, watched := realEngines(t)
	mc := servers.Memcached(t, 64)
	k := kind{"", 1000, true, 2, false}
	for _, s := range shelves(e, watched, mc.Addr, t.TempDir()) {
		bytes, err := measureSize(t.Context(), s, k, 100)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		// PostgreSQL and SQLite take whole pages.
		if bytes < 1000 || bytes > 6000 {
			t.Errorf("%s: %.0f bytes for a session of 1000", s.name, bytes)
		}
	}
}

// The example of Google's page, with other names: an entity's own bytes, and
// those of its index entries.
func TestDatastoresFormula(t *testing.T) {
	rec := store.Record{SaveIDs: []store.SaveID{1, 2}, Data: make([]byte, 100)}
	key := (14 + 1) + (26 + 1) + 16
	entity := key + (7 + 1 + 8) + (8 + 1 + 16) + (7 + 1 + 8) + (4 + 1 + 8) + (8 + 1 + 8) + (7 + 1 + 8) + (4 + 1 + 100) + 32
	index := 2 * (key + 15 + (8 + 1 + 8) + 32)
	if got := datastoreBytes(rec); got != entity+index {
		t.Errorf("%d bytes, want %d", got, entity+index)
	}
	rec.User = store.UserHash{1}
	if got, want := datastoreBytes(rec), entity+index+(4+1+16)+2*(key+15+(4+1+16)+32); got != want {
		t.Errorf("with a user %d bytes, want %d", got, want)
	}
	rec.Ended, rec.Data = time.Now(), nil
	if got, want := datastoreBytes(rec), entity-(4+1+100)+(5+1+8)+index+(4+1+16); got != want {
		t.Errorf("a tombstone %d bytes, want %d", got, want)
	}
}

func TestAServingProcessNeedsASideItKnows(t *testing.T) {
	where, err := json.Marshal(engines{})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"nobody", string(where)}, {bare, "{"}} {
		if err := serveSide(t.Context(), args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
