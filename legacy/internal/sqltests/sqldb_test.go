//go:build linux

package sqltests

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/engine/sqldb"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/scs"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

var secret = []byte("a secret of the old application!")

// The tables as the old libraries make them.
var tables = map[sqldb.Dialect][]string{
	sqldb.Postgres: {
		`CREATE TABLE beaker_cache (id SERIAL PRIMARY KEY, namespace VARCHAR(255) NOT NULL UNIQUE, accessed TIMESTAMP NOT NULL, created TIMESTAMP NOT NULL, data BYTEA NOT NULL)`,
		`CREATE TABLE http_sessions (id BIGSERIAL PRIMARY KEY, key BYTEA, data BYTEA, created_on TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, modified_on TIMESTAMPTZ, expires_on TIMESTAMPTZ)`,
		`CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`,
	},
	sqldb.SQLite: {
		`CREATE TABLE beaker_cache (id INTEGER NOT NULL PRIMARY KEY, namespace VARCHAR(255) NOT NULL UNIQUE, accessed DATETIME NOT NULL, created DATETIME NOT NULL, data BLOB NOT NULL)`,
		`CREATE TABLE sessions (token TEXT PRIMARY KEY, data BLOB NOT NULL, expiry REAL NOT NULL)`,
	},
}

// databases calls f with a database of each kind, tables in it.
func databases(t *testing.T, f func(*testing.T, *sql.DB, sqldb.Dialect)) {
	run := func(name, driver, url string, d sqldb.Dialect) {
		t.Run(name, func(t *testing.T) {
			db, err := sql.Open(driver, url)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, table := range tables[d] {
				if _, err := db.Exec(table); err != nil {
					t.Fatal(err)
				}
			}
			f(t, db, d)
		})
	}
	run("SQLite", "sqlite", "file:"+filepath.Join(t.TempDir(), "old.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)", sqldb.SQLite)
	run("PostgreSQL", "pgx", servers.Postgres(t).PostgresURL(), sqldb.Postgres)
}

func TestRecordedSessionsAreReadFromSQL(t *testing.T) {
	databases(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		store := sqldb.NewBeaker(db, d, "")
		wanted := func(c *vectors.Case) bool { return recorded.Has(c, "database") }
		recorded.Sessions(t, "../../testdata", 5, wanted, func(t *testing.T, c *vectors.Case) vectors.Backends {
			if _, err := db.Exec("DELETE FROM beaker_cache"); err != nil {
				t.Fatal(err)
			}
			for _, e := range c.Storage {
				_, err := db.Exec("INSERT INTO beaker_cache (namespace, accessed, created, data) VALUES ($1, '2014-05-13 16:53:20.000000', '2014-05-13 16:53:20.000000', $2)",
					e.Key, e.Value)
				if err != nil {
					t.Fatal(err)
				}
			}
			return vectors.Backends{Store: store}
		})
	})
}

func TestParallelChangesInSQLAreKept(t *testing.T) {
	databases(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		tokens, err := sqldb.NewSCS(db, d)
		one, err1 := beaker.New(beaker.Config{Type: beaker.Database, Secret: secret, Store: sqldb.NewBeaker(db, d, "")})
		two, err2 := scs.New(scs.Config{Store: tokens})
		if err := errors.Join(err, err1, err2); err != nil {
			t.Fatal(err)
		}
		t.Run("beaker", func(t *testing.T) { recorded.Parallel(t, one) })
		t.Run("scs", func(t *testing.T) { recorded.Parallel(t, two) })
		if d != sqldb.Postgres {
			return
		}
		three, err := gorilla.New(gorilla.Config{
			Name: "s", Keys: []gorilla.KeyPair{{Hash: secret}}, Backend: gorilla.FilesystemStore, Store: sqldb.NewGorilla(db),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Run("gorilla", func(t *testing.T) { recorded.Parallel(t, three) })
	})
}

func TestEntriesAreReplacedAndRemoved(t *testing.T) {
	ctx := context.Background()
	databases(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		stores := map[string]legacy.Store{"beaker": sqldb.NewBeaker(db, d, "beaker_cache")}
		if d == sqldb.Postgres {
			stores["gorilla"] = sqldb.NewGorilla(db)
		}
		for name, s := range stores {
			for _, v := range []string{"a", "\x00\xff"} {
				if err := s.Set(ctx, "session_K", legacy.Entry{Value: []byte(v)}); err != nil {
					t.Fatal(err)
				}
				if e, err := s.Get(ctx, "session_K"); err != nil || string(e.Value) != v {
					t.Errorf("%s: %q, %v", name, e.Value, err)
				}
			}
			for range 2 {
				if err := s.Delete(ctx, "session_K"); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Get(ctx, "session_K"); !errors.Is(err, legacy.ErrNoEntry) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestSessionsOfSCSExpire(t *testing.T) {
	databases(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		s, err := sqldb.NewSCS(db, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Commit("over", []byte("x"), time.Now().Add(-time.Minute)), s.Commit("live", []byte("x"), time.Now().Add(time.Minute))); err != nil {
			t.Fatal(err)
		}
		if _, found, err := s.Find("over"); found || err != nil {
			t.Errorf("%v, %v", found, err)
		}
		if b, found, err := s.Find("live"); !found || err != nil || string(b) != "x" {
			t.Errorf("%q, %v, %v", b, found, err)
		}
		if err := s.Delete("live"); err != nil {
			t.Error(err)
		}
	})
	if _, err := sqldb.NewSCS(nil, sqldb.MySQL); err == nil {
		t.Error("MySQL is fine")
	}
}

func TestADatabaseThatIsDownIsAnError(t *testing.T) {
	server := servers.Postgres(t)
	db, err := sql.Open("pgx", server.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	server.Kill()
	s, ctx := sqldb.NewBeaker(db, sqldb.Postgres, ""), context.Background()
	if _, err := s.Get(ctx, "k"); err == nil || errors.Is(err, legacy.ErrNoEntry) {
		t.Errorf("%v", err)
	}
	if err := s.Set(ctx, "k", legacy.Entry{}); err == nil || errors.Is(err, legacy.ErrChanged) {
		t.Errorf("%v", err)
	}
}
