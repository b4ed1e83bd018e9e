package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// Servers that all tests share.
var (
	postgres     = sync.OnceValue(func() *servers.Server { return servers.Postgres(&common) })
	redisCluster = sync.OnceValue(func() []*servers.Server { return servers.RedisCluster(&common, 3) })
	// Both this process and the command find it in their environment.
	emulator = sync.OnceValue(func() *servers.Server {
		s := servers.Datastore(&common)
		os.Setenv(emulatorHost, s.Addr)
		return s
	})
	serial atomic.Int64
)

const emulatorHost = "DATASTORE_EMULATOR_HOST"

// own returns a name that no other caller gets.
func own(name string) string { return fmt.Sprintf("%s-%d", name, serial.Add(1)) }

// emulated is how to call the command for a store in the emulator, if there is one.
func emulated() call {
	if servers.WithoutGoogle() {
		return call{}
	}
	return call{env: []string{emulatorHost + "=" + emulator().Addr}}
}

// engines returns the URLs of empty stores on real servers, all that can list
// their sessions, and how to call the command for them.
func engines(t *testing.T) (map[string]string, call) {
	t.Helper()
	var cluster []string
	for _, s := range redisCluster()[:3] {
		cluster = append(cluster, s.Addr)
	}
	urls := map[string]string{
		"sqlite":       "sqlite:" + filepath.Join(t.TempDir(), "sessions.db"),
		"postgres":     postgres().NewDatabase(t),
		"redis":        "redis://" + servers.Redis(t).Addr,
		"rediscluster": "rediscluster://" + strings.Join(cluster, ",") + "?prefix=" + own("test"),
	}
	if !servers.WithoutGoogle() {
		urls["datastore"] = "datastore://" + own("sojourn-test")
	}
	return urls, emulated()
}

func TestEveryStoreCanBeLookedAt(t *testing.T) {
	t.Parallel()
	urls, c := engines(t)
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServiceOn(t, url, sojourn.Config{})
			ada, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
			s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
			ended := s.keep(t, "ended", ended)

			var rows []rowJSON
			c.run(t, "ls", "-json", "--store", url).ok(t).json(t, &rows)
			if len(rows) != 2 {
				t.Errorf("ls: %+v", rows)
			}
			c.run(t, "ls", "-json", "--all", "--store", url).ok(t).json(t, &rows)
			if len(rows) != 3 {
				t.Errorf("ls --all: %+v", rows)
			}
			c.run(t, "ls", "-json", "--user", "ada", "--keys", s.keys, "--store", url).ok(t).json(t, &rows)
			if len(rows) != 1 || rows[0].Handle != ada {
				t.Errorf("ls --user ada: %+v", rows)
			}
			if r := c.run(t, "show", ada, "--store", url).ok(t); !strings.Contains(r.stdout, "live") {
				t.Errorf("show: %s", r.stdout)
			}
			if r := c.run(t, "show", ended, "--store", url).ok(t); !strings.Contains(r.stdout, "tombstone kept until") {
				t.Errorf("show an ended one: %s", r.stdout)
			}
			var counts map[string]int
			c.run(t, "stats", "-json", "--store", url).ok(t).json(t, &counts)
			if counts["live"] != 2 || counts["logged_in"] != 1 || counts["ended"] != 1 {
				t.Errorf("stats: %v", counts)
			}
			var removed map[string]int
			r := c.run(t, "sweep", "-json", "--store", url)
			if r.json(t, &removed); r.status != exitOK || removed["removed"] != 0 {
				t.Errorf("sweep: %+v", r)
			}
			if byItself := strings.Contains(r.stderr, "by itself"); byItself != strings.HasPrefix(name, "redis") {
				t.Errorf("sweep says %q", r.stderr)
			}
		})
	}
}

func TestMemcachedAloneCanOnlyShowASession(t *testing.T) {
	t.Parallel()
	url := "memcached://" + servers.Memcached(t, 64).Addr + "?timeout=10s"
	s := newServiceOn(t, url, sojourn.Config{})
	ada, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	if r := sojournCommand(t, "show", ada, "--store", url).ok(t); !strings.Contains(r.stdout, ada) {
		t.Errorf("show: %s", r.stdout)
	}
	sojournCommand(t, "ls", "--store", url).refused(t, exitFailed, "cannot list")
	sojournCommand(t, "stats", "--store", url).refused(t, exitFailed, "cannot list")
	if r := sojournCommand(t, "sweep", "--store", url); r.status != exitOK || !strings.Contains(r.stderr, "by itself") {
		t.Errorf("sweep: %+v", r)
	}
}

func TestAStoreThatIsNotThereIsStatus1(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://root:hunter2@127.0.0.1:1", "postgres://root:hunter2@127.0.0.1:1/app", "memcached://127.0.0.1:1",
		"sqlite:" + filepath.Join(t.TempDir(), "sessions.db"),
	} {
		r := sojournCommand(t, "ls", "--store", url)
		if r.refused(t, exitFailed, "--store"); strings.Contains(r.stderr, "hunter2") {
			t.Errorf("it repeats the password: %s", r.stderr)
		}
	}
	url := postgres().NewDatabase(t)
	sojournCommand(t, "ls", "--store", url).refused(t, exitFailed, "no table for sessions yet")
}
