package open_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

type opening func(context.Context, string) (store.Store, io.Closer, error)

// urls are those of an empty store of each kind, on real servers.
func urls(t *testing.T) map[string]string {
	pg := servers.Postgres(t).PostgresURL()
	redis := servers.Redis(t).Addr
	found := map[string]string{
		"memory":                   "memory:",
		"sqlite":                   "sqlite:" + filepath.Join(t.TempDir(), "new", "sessions.db"),
		"postgres":                 pg,
		"postgres, its own table":  pg + "&table=others",
		"postgresql":               strings.Replace(pg, "postgres://", "postgresql://", 1) + "&table=alias",
		"redis":                    "redis://" + redis + "/1?prefix=a:",
		"memcached":                "memcached://" + servers.Memcached(t, 64).Addr + "," + servers.Memcached(t, 64).Addr + "?prefix=a:&timeout=10s&max_item=500000",
		"memcached, one of a kind": "memcached://" + servers.Memcached(t, 64).Addr,
	}
	if emulator := servers.Datastore(t); emulator != nil {
		t.Setenv("DATASTORE_EMULATOR_HOST", emulator.Addr)
		found["datastore"] = "datastore://open-test"
		found["datastore, all its own"] = "datastore://open-test?namespace=ours&kind=Session&ttl_policy=true"
	}
	return found
}

func record() store.Record {
	now := time.Now()
	return store.Record{
		ID: store.HashIdentifier([]byte("a")), Version: 1, SaveIDs: []store.SaveID{1},
		Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour),
	}
}

func TestStoreOpensWhatTheURLNames(t *testing.T) {
	for name, url := range urls(t) {
		t.Run(name, func(t *testing.T) {
			s, closer, err := open.Store(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			// A store that shares its server with others shares no sessions.
			if err := s.Save(t.Context(), record(), store.Base{}); err != nil {
				t.Error(err)
			}
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCacheOpensWhatTheURLNames(t *testing.T) {
	server := servers.Redis(t, "--maxmemory-policy", "allkeys-lru").Addr
	memcached := servers.Memcached(t, 64).Addr
	for _, url := range []string{"memory:1000000", "memcached://" + memcached, "redis://" + server + "?prefix=a:"} {
		c, closer, err := open.Cache(url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		id := record().ID
		if _, err := c.Add(t.Context(), id, []byte("copy"), time.Minute); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if got, _, err := c.Get(t.Context(), id); err != nil || string(got) != "copy" {
			t.Errorf("%s: %q %v", url, got, err)
		}
		if err := closer.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestACacheNeedNotBeThere(t *testing.T) {
	for _, url := range []string{"memcached://127.0.0.1:1", "redis://:hunter2@127.0.0.1:1", "rediscluster://127.0.0.1:1,127.0.0.1:2", "redissentinel://127.0.0.1:1/main"} {
		c, closer, err := open.Cache(url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if _, _, err := c.Get(t.Context(), store.ID{1}); err == nil || errors.Is(err, store.ErrNotFound) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
		if err := closer.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestARedisThatEvictsIsACacheAndNoStore(t *testing.T) {
	url := "redis://" + servers.Redis(t, "--maxmemory-policy", "allkeys-lru").Addr
	if _, _, err := open.Store(t.Context(), url); err == nil || errors.Is(err, open.ErrURL) || !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Errorf("as a store: %v", err)
	}
	_, closer, err := open.Store(t.Context(), url+"?allow_eviction=true")
	if err != nil {
		t.Fatalf("where loss is accepted: %v", err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoCacheURLIsRefused(t *testing.T) {
	for _, url := range []string{
		"", "memory", "memory:", "memory:0", "memory:-1", "memory:64MB", "sqlite:a.db", "postgres://root:hunter2@db/app", "datastore://project",
		"memcached:", "memcached://", "memcached:a:1", "memcached://a,a", "memcached://a:port", "memcached://a/1", "memcached://root:hunter2@a",
		"memcached://a?timeout=soon", "memcached://a?timeout=-1s", "memcached://a?max_item=big", "memcached://a?prefix=", "memcached://a?nonsense=1",
		"redis://", "redis://:hunter2@a?x=hunter2", "redis://:hunter2@a:port",
	} {
		_, _, err := open.Cache(url)
		if !errors.Is(err, open.ErrURL) {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

func TestExistingOpensWhatStoreHasMade(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "sessions.db")
	_, closer, err := open.Store(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	_, closer, err = open.Existing(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
}

func TestExistingMakesNothing(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"memory:", "sqlite:" + filepath.Join(dir, "new", "sessions.db"), "sqlite:" + empty, "sqlite:" + dir} {
		if _, _, err := open.Existing(t.Context(), url); !errors.Is(err, open.ErrMissing) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("the folder has %v", left)
	}
	if info, err := os.Stat(empty); err != nil || info.Size() != 0 {
		t.Errorf("the empty file is now %v %v", info, err)
	}
}

func TestSchemaIsToldWithoutAChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	pg := servers.Postgres(t).PostgresURL() + "&pool_max_conns=2"
	if _, _, err := open.Schema(t.Context(), "sqlite:"+path); !errors.Is(err, open.ErrMissing) {
		t.Errorf("of a file that is not there: %v", err)
	}
	for range 2 {
		if have, newest, err := open.Schema(t.Context(), pg); err != nil || have != 0 || newest < 1 {
			t.Errorf("of an empty database: %d of %d, %v", have, newest, err)
		}
		if _, _, err := open.Existing(t.Context(), pg); !errors.Is(err, open.ErrMissing) {
			t.Errorf("it exists: %v", err)
		}
	}
	for _, url := range []string{"sqlite:" + path, pg, pg + "&table=others"} {
		_, closer, err := open.Store(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
		if have, newest, err := open.Schema(t.Context(), url); err != nil || have != newest {
			t.Errorf("%s: %d of %d, %v", url, have, newest, err)
		}
	}
	for _, url := range []string{"memory:", "redis://127.0.0.1:1", "memcached://127.0.0.1:1", "datastore://project"} {
		if _, _, err := open.Schema(t.Context(), url); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"", "sqlite:", "floppy:a", "postgres:x", "postgres://u:hunter2@h:port/db"} {
		if _, _, err := open.Schema(t.Context(), url); !errors.Is(err, open.ErrURL) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestWhatIsNoStoreURLIsRefused(t *testing.T) {
	for name, open1 := range map[string]opening{"Store": open.Store, "Existing": open.Existing} {
		for _, url := range []string{
			"", "sessions.db", "sqlite:", "memory:x", "mysql://root:hunter2@db/sessions", "redis://root:hunter2@db/sessions",
			"rediscluster://:hunter2@db?x=y", ":", "postgres:", "postgres:hunter2", "postgres://u:hunter2@h:port/db", "postgres://u:hunter2@h/db?sslmode=hunter2",
			"postgres://h/db?table=", "postgres://u:hunter2%zz@h/db", "postgres://h/db?pool_max_conns=many", "datastore:", "datastore://",
			"datastore://p?kind=__x", "datastore://p?namespace=a&namespace=b", "datastore://p?ttl_policy=often", "datastore://p?table=x",
			"memcached://", "memcached://a:port", "memcached://a/b", "memcached://u:hunter2@a", "memcached://a?prefix=%20", "memcached://a,a",
		} {
			_, _, err := open1(t.Context(), url)
			if !errors.Is(err, open.ErrURL) {
				t.Errorf("%s(%q): %v", name, url, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: the error repeats the password: %v", name, err)
			}
		}
	}
}

func TestAFolderThatIsAFileIsAnErrorOfTheStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := open.Store(t.Context(), "sqlite:"+filepath.Join(file, "sessions.db"))
	if err == nil || errors.Is(err, open.ErrURL) || errors.Is(err, open.ErrMissing) {
		t.Errorf("got %v", err)
	}
}

func TestAServerThatIsNotThereIsAnErrorOfTheStore(t *testing.T) {
	t.Setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:1")
	for name, open1 := range map[string]opening{"Store": open.Store, "Existing": open.Existing} {
		for _, url := range []string{
			"redis://root:hunter2@127.0.0.1:1", "postgres://root:hunter2@127.0.0.1:1/app", "memcached://127.0.0.1:1", "datastore://project",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, _, err := open1(ctx, url)
			cancel()
			if err == nil || errors.Is(err, open.ErrURL) || errors.Is(err, open.ErrMissing) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s(%s): %v", name, url, err)
			}
		}
	}
}

func TestACancelledContextOpensNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	if _, _, err := open.Store(ctx, "sqlite:"+path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file: %v", err)
	}
}
