package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memcached"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

// kind is a kind of session whose size is measured.
type kind struct {
	name  string
	value int // bytes of the one value it holds
	user  bool
	saves int
	ended bool // it is only a tombstone, of a session that was never stored
}

var kinds = []kind{
	{"200 B, nobody logged in, saved once", 200, false, 1, false},
	{"200 B, logged in, saved 8 times", 200, true, 8, false},
	{"1 KB, logged in, saved 8 times", 1000, true, 8, false},
	{"20 KB, logged in, saved 8 times", 20_000, true, 8, false},
	{name: "a tombstone", ended: true},
}

// shelf is an engine with a measure of the space that sessions take.
type shelf struct {
	name string
	// open returns an empty store, and a function that returns its size in
	// bytes. tidy does the engine's periodic maintenance; nil = none.
	open func(ctx context.Context) (db store.Store, size func(context.Context) (float64, error), tidy func(context.Context) error, err error)
}

// measureSizes prints how many bytes a session takes on each engine.
func measureSizes(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sizes", flag.ExitOnError)
	n := flags.Int("n", 5000, "how many sessions of each kind (a tenth of it for 20 KB)")
	_ = flags.Parse(args) // ExitOnError
	temp, err := os.MkdirTemp("", "sojourn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	e, watched, stop, err := startEngines(ctx)
	if err != nil {
		return err
	}
	defer stop()
	running := &servers.Package{}
	defer running.Close()
	var mc *servers.Server
	if err := running.Try(func() { mc = servers.Memcached(running, 1024) }); err != nil {
		return err
	}
	all := shelves(e, watched, mc.Addr, temp)
	header, line := "| session |", "|---|"
	for _, s := range all {
		header += " " + s.name + " |"
		line += "---:|"
	}
	fmt.Printf("%s\n%s\n", header, line)
	for _, k := range kinds {
		count := *n
		if k.value >= 20_000 {
			count = max(1, *n/10)
		}
		row := "| " + k.name + " |"
		for _, s := range all {
			bytes, err := measureSize(ctx, s, k, count)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, k.name, err)
			}
			row += fmt.Sprintf(" %.0f |", bytes)
		}
		fmt.Println(row)
	}
	return nil
}

func shelves(e engines, watched map[string]engine, memcachedAddr, temp string) []shelf {
	return []shelf{
		computedShelf("sealed", func(rec store.Record) int { return len(rec.Data) }),
		redisShelf(e.Redis, watched["redis"].(redisEngine).conn),
		postgresShelf(e.Postgres, watched["postgres"].(postgresEngine).conn),
		sqliteShelf(temp),
		memcachedShelf(memcachedAddr),
		computedShelf("Datastore (computed)", datastoreBytes),
	}
}

// measureSize returns the bytes for each of n sessions.
func measureSize(ctx context.Context, s shelf, k kind, n int) (float64, error) {
	db, size, tidy, err := s.open(ctx)
	if err != nil {
		return 0, err
	}
	if c, ok := db.(io.Closer); ok {
		defer c.Close()
	}
	before, err := size(ctx)
	if err != nil {
		return 0, err
	}
	if err := fillWith(ctx, db, k, n, tidy); err != nil {
		return 0, err
	}
	after, err := size(ctx)
	return (after - before) / float64(n), err
}

// fillWith makes n sessions. The engine's maintenance runs after each fifth of
// them, as in PostgreSQL by default.
func fillWith(ctx context.Context, db store.Store, k kind, n int, tidy func(context.Context) error) error {
	if k.ended {
		until := time.Now().Add(time.Hour)
		return inParallel(0, n, func(i int) error {
			return db.Delete(ctx, store.HashIdentifier([]byte(strconv.Itoa(i))), until)
		})
	}
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		return err
	}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: db, Mode: sojourn.StoredOnly})
	if err != nil {
		return err
	}
	defer m.Close()
	text := sojourn.NewKey[string]("text")
	visits := sojourn.NewKey[int]("visits")
	value := strings.Repeat("x", k.value) // sealed, it does not compress
	sessions := make([]*sojourn.Session, n)
	save := func(i, round int) error {
		if sessions[i] == nil {
			session, err := begin(ctx, m)
			if err != nil {
				return err
			}
			sessions[i] = session
			if k.user {
				sessions[i].Login("user" + strconv.Itoa(i))
			}
			text.Set(sessions[i], value)
		}
		visits.Set(sessions[i], round+1)
		return sessions[i].Save(ctx)
	}
	for round := range k.saves {
		for part := range 5 {
			if err := inParallel(n*part/5, n*(part+1)/5, func(i int) error { return save(i, round) }); err != nil {
				return err
			}
			if tidy != nil {
				if err := tidy(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// inParallel calls f with each number from from to before to.
func inParallel(from, to int, f func(int) error) error {
	const workers = 16
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := from + w; i < to && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func redisShelf(addr string, conn redigo.Conn) shelf {
	return shelf{"Redis", func(ctx context.Context) (store.Store, func(context.Context) (float64, error), func(context.Context) error, error) {
		if _, err := conn.Do("FLUSHALL"); err != nil {
			return nil, nil, nil, err
		}
		db, err := redis.Open(ctx, redis.Options{Addrs: []string{addr}})
		if err != nil {
			return nil, nil, nil, err
		}
		// The memory of keys and values without that of connections.
		return db, func(context.Context) (float64, error) {
			stats, err := redigo.Values(conn.Do("MEMORY", "STATS"))
			if err != nil {
				return 0, err
			}
			for i := 0; i+1 < len(stats); i += 2 {
				if name, err := redigo.String(stats[i], nil); err == nil && name == "dataset.bytes" {
					data, err := redigo.Int64(stats[i+1], nil)
					if err != nil {
						return 0, err
					}
					tables, err := tableBytes(stats)
					return float64(data + tables), err
				}
			}
			return 0, errors.New("MEMORY STATS has no dataset.bytes")
		}, nil, nil
	}}
}

// tableBytes is the memory of the hash tables of database 0, which Redis does
// not count as the dataset's.
func tableBytes(stats []any) (int64, error) {
	for i := 0; i+1 < len(stats); i += 2 {
		if name, err := redigo.String(stats[i], nil); err != nil || name != "db.0" {
			continue
		}
		tables, err := redigo.Int64Map(stats[i+1], nil)
		if err != nil {
			return 0, err
		}
		return tables["overhead.hashtable.main"] + tables["overhead.hashtable.expires"], nil
	}
	return 0, nil // the database is empty
}

func postgresShelf(url string, conn *pgx.Conn) shelf {
	tables := 0
	return shelf{"PostgreSQL", func(ctx context.Context) (store.Store, func(context.Context) (float64, error), func(context.Context) error, error) {
		tables++
		table := "sizes" + strconv.Itoa(tables)
		db, err := postgres.Open(ctx, url, postgres.Options{Table: table})
		if err != nil {
			return nil, nil, nil, err
		}
		size := func(ctx context.Context) (bytes float64, err error) {
			err = conn.QueryRow(ctx, "SELECT pg_total_relation_size($1)::float8", table).Scan(&bytes)
			return bytes, err
		}
		return db, size, func(ctx context.Context) error {
			_, err := conn.Exec(ctx, "VACUUM "+table)
			return err
		}, nil
	}}
}

func sqliteShelf(temp string) shelf {
	return shelf{"SQLite", func(context.Context) (store.Store, func(context.Context) (float64, error), func(context.Context) error, error) {
		dir, err := os.MkdirTemp(temp, "sqlite-")
		if err != nil {
			return nil, nil, nil, err
		}
		path := filepath.Join(dir, "sessions.db")
		db, err := sqlite.Open(path)
		if err != nil {
			return nil, nil, nil, err
		}
		// Pages in the log move to the file eventually.
		size := func(ctx context.Context) (float64, error) { return sqliteBytes(ctx, path) }
		return db, size, nil, nil
	}}
}

func memcachedShelf(addr string) shelf {
	return shelf{"memcached", func(context.Context) (store.Store, func(context.Context) (float64, error), func(context.Context) error, error) {
		db, err := memcached.NewStore([]string{addr}, memcached.Options{})
		if err != nil {
			return nil, nil, nil, err
		}
		return db, func(context.Context) (float64, error) { return memcachedBytes(addr) }, nil, nil
	}}
}

// computedShelf computes the size of records, without an engine.
func computedShelf(name string, bytes func(store.Record) int) shelf {
	return shelf{name, func(context.Context) (store.Store, func(context.Context) (float64, error), func(context.Context) error, error) {
		db := memory.New()
		return db, func(ctx context.Context) (float64, error) {
			sum, cursor := 0, ""
			for {
				recs, next, err := db.Scan(ctx, cursor, 1000)
				if err != nil {
					return 0, err
				}
				for _, rec := range recs {
					sum += bytes(rec)
				}
				if cursor = next; cursor == "" {
					return float64(sum), nil
				}
			}
		}, nil, nil
	}}
}

// datastoreBytes is the size of store/datastore/cloud's entity for rec in the
// default namespace, with its index entries, by Google's formula
// (https://cloud.google.com/datastore/docs/concepts/storage-size).
func datastoreBytes(rec store.Record) int {
	text := func(s string) int { return len(s) + 1 }
	const each = 32 // for every entity and every index entry
	kind := text("SojournSession")
	key := kind + text(rec.ID.String()) + 16
	const number, moment = 8, 8
	entity := key + each +
		text("version") + number + text("save IDs") + number*len(rec.SaveIDs) +
		text("created") + moment + text("seen") + moment + text("deadline") + moment + text("expires") + moment
	if rec.IsEnd() {
		entity += text("ended") + moment
	} else {
		entity += text("data") + len(rec.Data)
	}
	// Every indexed property is in two indexes, up and down.
	indexes := 2 * (key + kind + text("deadline") + moment + each)
	if (rec.User != store.UserHash{}) {
		entity += text("user") + len(rec.User)
		if !rec.IsEnd() {
			indexes += 2 * (key + kind + text("user") + len(rec.User) + each)
		}
	}
	return entity + indexes
}

// begin returns the session of a new visitor, and keeps the request open.
func begin(ctx context.Context, m *sojourn.Manager) (*sojourn.Session, error) {
	ctx, _ = m.Attach(ctx, func() sojourn.RequestInfo { return sojourn.RequestInfo{} })
	return m.Get(ctx)
}
