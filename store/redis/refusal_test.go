package redis

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// does sends a command and requires the answer OK.
func does(t testing.TB, server *servers.Server, words ...string) {
	t.Helper()
	if got := server.RedisCommand(words...); got != "OK\n" {
		t.Fatalf("%v: %s", words, got)
	}
}

// config is a command that sets something to that value, for the fault or for its
// repair.
func config(name string) func(testing.TB, *servers.Server, string) {
	return func(t testing.TB, server *servers.Server, value string) {
		does(t, server, "CONFIG", "SET", name, value)
	}
}

// hopeless are servers that refuse until an operator acts.
var hopeless = map[string]struct {
	breaks, repairs func(testing.TB, *servers.Server)
}{
	"OOM": {
		func(t testing.TB, s *servers.Server) { config("maxmemory")(t, s, "1") },
		func(t testing.TB, s *servers.Server) { config("maxmemory")(t, s, "0") },
	},
	"MISCONF": {
		func(t testing.TB, s *servers.Server) {
			must(t, os.Mkdir(filepath.Join(s.Dir, "taken"), 0o755)) // where the snapshot belongs
			config("dbfilename")(t, s, "taken")
			config("save")(t, s, "3600 1000000")
			s.RedisCommand("BGSAVE")
			eventually(t, "the snapshot has failed", func() bool {
				return infoField(s.RedisCommand("INFO", "persistence"), "rdb_last_bgsave_status") == "err"
			})
		},
		func(t testing.TB, s *servers.Server) { config("save")(t, s, "") },
	},
	"NOPERM": {
		func(t testing.TB, s *servers.Server) { does(t, s, "ACL", "SETUSER", "default", "-evalsha", "-eval") },
		func(t testing.TB, s *servers.Server) { does(t, s, "ACL", "SETUSER", "default", "+@all") },
	},
	"NOPERM for the key": {
		func(t testing.TB, s *servers.Server) {
			does(t, s, "ACL", "SETUSER", "default", "resetkeys", "~other:*")
		},
		func(t testing.TB, s *servers.Server) { does(t, s, "ACL", "SETUSER", "default", "allkeys") },
	},
}

// passing are servers that refuse temporarily.
var passing = map[string]struct {
	breaks, repairs func(testing.TB, *servers.Server)
}{
	"READONLY": {
		func(t testing.TB, s *servers.Server) { does(t, s, "REPLICAOF", "127.0.0.1", "1") },
		func(t testing.TB, s *servers.Server) { does(t, s, "REPLICAOF", "NO", "ONE") },
	},
	"MASTERDOWN": {
		func(t testing.TB, s *servers.Server) {
			config("replica-serve-stale-data")(t, s, "no")
			does(t, s, "REPLICAOF", "127.0.0.1", "1")
		},
		func(t testing.TB, s *servers.Server) { does(t, s, "REPLICAOF", "NO", "ONE") },
	},
	"NOREPLICAS": {
		func(t testing.TB, s *servers.Server) { config("min-replicas-to-write")(t, s, "1") },
		func(t testing.TB, s *servers.Server) { config("min-replicas-to-write")(t, s, "0") },
	},
	"BUSY": {
		func(t testing.TB, s *servers.Server) {
			config("busy-reply-threshold")(t, s, "1")
			go s.RedisCommand("EVAL", "while true do end", "0")
			eventually(t, "it is busy", func() bool { return strings.HasPrefix(s.RedisCommand("PING"), "BUSY") })
		},
		func(t testing.TB, s *servers.Server) { does(t, s, "SCRIPT", "KILL") },
	},
	"LOADING": {
		func(t testing.TB, s *servers.Server) {
			config("rdbcompression")(t, s, "no")
			config("loading-process-events-interval-bytes")(t, s, "1024")
			for i := range 20 {
				s.RedisCommand("SET", "filler"+strconv.Itoa(i), strings.Repeat("x", 2048))
			}
			config("key-load-delay")(t, s, "100000") // microseconds, for each key
			go s.RedisCommand("DEBUG", "RELOAD")
			eventually(t, "it loads", func() bool { return strings.HasPrefix(s.RedisCommand("GET", "a"), "LOADING") })
		},
		func(t testing.TB, s *servers.Server) {
			eventually(t, "it has loaded", func() bool { return s.RedisCommand("CONFIG", "SET", "key-load-delay", "0") == "OK\n" })
		},
	},
}

// writes are all that a store writes.
func writes(s *Store, rec store.Record) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"save":   func(ctx context.Context) error { return s.Save(ctx, next(rec), rec.Base()) },
		"insert": func(ctx context.Context) error { return s.Save(ctx, session(ann), store.Base{}) },
		"login": func(ctx context.Context) error {
			_, err := s.SaveLimited(ctx, session(ann), upTo(9))
			return err
		},
		"touch": func(ctx context.Context) error { return s.Touch(ctx, rec.ID, rec.Seen, rec.Deadline.Add(time.Hour)) },
	}
}

func TestAServerThatRefusesForGoodIsNotWaitedFor(t *testing.T) {
	server, s := single(t, "--enable-protected-configs", "yes")
	rec := inserted(t, s, session(ann))
	for code, fault := range hopeless {
		fault.breaks(t, server)
		for what, write := range writes(s, rec) {
			began := time.Now()
			err := write(within(t, time.Minute))
			if what == "touch" && code == "OOM" && err == nil {
				continue // needs no memory
			}
			word, _, _ := strings.Cut(code, " ")
			if !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %s: %v, want a refusal", code, what, err)
			}
			if time.Since(began) > patience {
				t.Errorf("%s: %s was waited for", code, what)
			}
		}
		fault.repairs(t, server)
		if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 1 {
			t.Errorf("%s: version %d, %v", code, got.Version, err)
		}
		if recs := listed(t, s, ann); len(recs) != 1 {
			t.Errorf("%s: the user has %d sessions", code, len(recs))
		}
	}
}

func TestAServerThatRefusesForNowIsWaitedFor(t *testing.T) {
	server, s := single(t, "--enable-debug-command", "yes")
	rec := inserted(t, s, session(ann))
	for code, fault := range passing {
		fault.breaks(t, server)
		for what, write := range writes(s, rec) {
			err := write(within(t, 400*time.Millisecond))
			// Calls to a slow server may be repeated until the deadline.
			refused := errors.Is(err, store.ErrRefused) || code == "BUSY" || code == "LOADING"
			if !refused || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %s: %v, want a refusal until the deadline", code, what, err)
			}
		}
		two := next(rec)
		saved := make(chan error, 1)
		go func() { saved <- s.Save(context.Background(), two, rec.Base()) }()
		fault.repairs(t, server)
		if err := <-saved; err != nil {
			t.Errorf("%s: a save that was waiting: %v", code, err)
		}
		rec = two
		if got, err := s.Load(within(t, time.Minute), rec.ID); err != nil || got.Version != rec.Version {
			t.Errorf("%s: version %d, %v, want %d", code, got.Version, err, rec.Version)
		}
	}
}

func TestAnEndThatCannotBeToldIsNoRefusal(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	does(t, server, "ACL", "SETUSER", "default", "resetkeys", "~sojourn:s:*") // and not the feed
	if err := s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)); err == nil || errors.Is(err, store.ErrRefused) {
		t.Errorf("the session has ended: %v", err)
	}
	if got, err := s.Load(t.Context(), rec.ID); err != nil || !got.IsEnd() {
		t.Errorf("the session has not ended: %v", err)
	}
}

func TestAScriptThatFailsInTheMiddleIsNoRefusal(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{}))
	does(t, server, "ACL", "SETUSER", "default", "-set")
	if err := s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)); err == nil || errors.Is(err, store.ErrRefused) {
		t.Errorf("it has removed the record, and may write no tombstone: %v", err)
	}
}

// answers are real servers' answers, and whether a write may have happened.
func TestEveryAnswerOfARealServerIsJudged(t *testing.T) {
	server := servers.Redis(t)
	cluster := servers.Redis(t, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
	raw := func(server *servers.Server) valkey.Client {
		c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true})
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	one, node := raw(server), raw(cluster)
	check := func(c valkey.Client, code string, want verdict, words ...string) {
		t.Helper()
		err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error()
		if err == nil || !strings.HasPrefix(err.Error(), code) || judged(err) != want {
			t.Errorf("%v: %v is %d, want %s and %d", words, err, judged(err), code, want)
		}
	}
	does(t, server, "SET", "text", "x")
	check(one, "NOSCRIPT", final, "EVALSHA", strings.Repeat("a", 40), "0")
	check(one, "WRONGTYPE", final, "HLEN", "text")
	check(one, "NOPROTO", final, "HELLO", "9")
	check(one, "WRONGPASS", final, "AUTH", "nobody", "x")
	check(one, "user_script", unsure, "EVAL", "redis.call('SET', KEYS[1], 'x') error('in the middle')", "1", "text")
	check(one, "Unknown Redis command", unsure, "EVAL", "redis.call('SET', KEYS[1], 'x') redis.call('NONSENSE')", "1", "text")
	check(one, "unknown command", unsure, "NONSENSE")
	abort := one.DoMulti(t.Context(), one.B().Multi().Build(), one.B().Arbitrary("SET").Build(), one.B().Exec().Build())
	if err := abort[2].Error(); err == nil || judged(err) != final {
		t.Errorf("EXEC: %v", err)
	}

	check(node, "CLUSTERDOWN", later, "GET", "a")
	does(t, cluster, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	eventually(t, "the cluster is up", func() bool { return strings.Contains(cluster.RedisCommand("CLUSTER", "INFO"), "state:ok") })
	check(node, "CROSSSLOT", final, "MGET", "a", "b")

	does(t, server, "CONFIG", "SET", "busy-reply-threshold", "1")
	go server.RedisCommand("EVAL", "redis.call('SET', KEYS[1], 'x') while true do end", "1", "text")
	eventually(t, "it is busy", func() bool { return strings.HasPrefix(server.RedisCommand("PING"), "BUSY") })
	check(one, "UNKILLABLE", later, "SCRIPT", "KILL")
	server.Kill()
}

func TestAnswersOfAClusterThatMovesSlotsAreJudged(t *testing.T) {
	nodes := servers.RedisCluster(t, 3)
	slot := strings.TrimSpace(nodes[0].RedisCommand("CLUSTER", "KEYSLOT", "{a}1"))
	from := ownerOf(t, nodes, "{a}1")
	to := nodes[0]
	if to == from {
		to = nodes[1]
	}
	is := func(server *servers.Server, code string, want verdict, words ...string) {
		t.Helper()
		c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true})
		must(t, err)
		defer c.Close()
		err = c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error()
		if err == nil || !strings.HasPrefix(err.Error(), code) || judged(err) != want {
			t.Errorf("%v: %v is %d, want %s and %d", words, err, judged(err), code, want)
		}
	}
	is(to, "MOVED", later, "GET", "{a}1")
	does(t, from, "SET", "{a}1", "x")
	does(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", clusterID(from))
	does(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", clusterID(to))
	is(from, "ASK", later, "GET", "{a}2")
	is(from, "TRYAGAIN", later, "MGET", "{a}1", "{a}2")
}

// Answers that the servers of these tests do not give.
func TestAnswersOfOtherReleasesAreJudged(t *testing.T) {
	in := func(said string) string {
		return "Error running script (call to f_0123): @user_script:40: @user_script: 40: " + said
	}
	for text, want := range map[string]verdict{
		in("-READONLY You can't write against a read only replica. "):                                               elsewhere,
		in("-OOM command not allowed when used memory > 'maxmemory'. "):                                             final,
		in("-MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk. "): final,
		in("-NOREPLICAS Not enough good replicas to write. "):                                                       later,
		in("WRONGTYPE Operation against a key holding the wrong kind of value "):                                    final,
		in("Wrong number of args calling Redis command From Lua script "):                                           unsure,
		"Error running script (call to f_0123): @user_script:40: Script killed by user with SCRIPT KILL... ":        unsure,
		"NOPERM The user executing the script can't run this command or subcommand":                                 unsure,
		"REDIRECT 10.0.0.1:6379":                    elsewhere,
		"DENIED Redis is running in protected mode": final,
		"SOMETHING else":                            unsure,
		"":                                          unsure,
	} {
		if got := judgedText(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	for _, err := range []error{errors.New("READONLY"), context.DeadlineExceeded, valkey.ErrClosing, os.ErrDeadlineExceeded} {
		if judged(err) != unsure {
			t.Errorf("%v is no answer", err)
		}
	}
}
