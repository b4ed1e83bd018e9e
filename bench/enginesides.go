package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/sqlite3store"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/boj/redistore"
	redigo "github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5/pgxpool"
	goredis "github.com/redis/go-redis/v9"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/sqlite"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// engines are the servers' addresses.
type engines struct {
	Redis    string // host:port
	Postgres string // URL
	Dir      string // for files
}

// engineSide is a library on an engine.
type engineSide struct {
	name   string
	engine string // "redis", "postgres", "memory", "sqlite", or "" for the bare handler
	shared string // the engine of a cache that replicas share; "" = there is none
	ours   bool
	cached bool // with a cache in the process
	open   func(ctx context.Context, e engines) (library, error)
}

// connections is how many connections to a server each library gets, so that
// none waits for one: more than the defaults (10 in redigo's documentation, 10
// for each core with go-redis, 4 with pgx on a small machine).
const connections = 32

func engineSides() []engineSide {
	return []engineSide{
		{name: bare, open: func(context.Context, engines) (library, error) { return none{}, nil }},

		{name: "Sojourn, in memory", engine: "memory", ours: true, open: func(context.Context, engines) (library, error) {
			return newOurs(memory.New(), false)
		}},
		{name: "scs, memstore", engine: "memory", open: func(context.Context, engines) (library, error) {
			return newSCS(memstore.NewWithCleanupInterval(0)), nil
		}},

		{name: "Sojourn, SQLite", engine: "sqlite", ours: true, open: func(_ context.Context, e engines) (library, error) {
			db, err := sqlite.Open(filepath.Join(e.Dir, "ours.db"))
			if err != nil {
				return nil, err
			}
			return newOurs(db, false)
		}},
		{name: "Sojourn, SQLite, cache in the process", engine: "sqlite", ours: true, cached: true, open: func(_ context.Context, e engines) (library, error) {
			db, err := sqlite.Open(filepath.Join(e.Dir, "cached.db"))
			if err != nil {
				return nil, err
			}
			return newOursCached(db, tiered.NewMemory(64<<20), db)
		}},
		{name: "scs, sqlite3store", engine: "sqlite", open: func(_ context.Context, e engines) (library, error) {
			db, err := openForSCS(filepath.Join(e.Dir, "scs.db"))
			if err != nil {
				return nil, err
			}
			return newSCS(sqlite3store.NewWithCleanupInterval(db, 0), db), nil
		}},

		{name: "Sojourn, Redis", engine: "redis", ours: true, open: func(ctx context.Context, e engines) (library, error) {
			db, err := redis.Open(ctx, redis.Options{Addrs: []string{e.Redis}})
			if err != nil {
				return nil, err
			}
			return newOurs(db, false)
		}},
		{name: "Sojourn, Redis, cache in the process", engine: "redis", ours: true, cached: true, open: func(ctx context.Context, e engines) (library, error) {
			db, err := redis.Open(ctx, redis.Options{Addrs: []string{e.Redis}})
			if err != nil {
				return nil, err
			}
			return newOursCached(db, tiered.NewMemory(64<<20), db)
		}},
		{name: "scs, redisstore (redigo)", engine: "redis", open: func(_ context.Context, e engines) (library, error) {
			pool := redigoPool(e.Redis)
			return newSCS(redisstore.New(pool), pool), nil
		}},
		{name: "scs, goredisstore (go-redis)", engine: "redis", open: func(_ context.Context, e engines) (library, error) {
			rdb := goredis.NewClient(&goredis.Options{Addr: e.Redis, PoolSize: connections})
			return newSCS(goredisstore.New(rdb), rdb), nil
		}},
		{name: "gorilla, redistore (redigo)", engine: "redis", open: func(_ context.Context, e engines) (library, error) {
			s, err := redistore.NewRediStoreWithPool(redigoPool(e.Redis), random(64), random(32))
			if err != nil {
				return nil, err
			}
			s.SetMaxLength(0)
			return &gorillaSessions{s, s}, nil
		}},

		{name: "Sojourn, PostgreSQL", engine: "postgres", ours: true, open: func(ctx context.Context, e engines) (library, error) {
			db, pool, err := openPostgres(ctx, e)
			if err != nil {
				return nil, err
			}
			return newOurs(db, false, pool)
		}},
		{name: "Sojourn, PostgreSQL, cache in the process", engine: "postgres", ours: true, cached: true, open: func(ctx context.Context, e engines) (library, error) {
			db, pool, err := openPostgres(ctx, e)
			if err != nil {
				return nil, err
			}
			return newOursCached(db, tiered.NewMemory(64<<20), db, pool)
		}},
		{name: "Sojourn, PostgreSQL, shared cache in Redis", engine: "postgres", shared: "redis", ours: true, open: func(ctx context.Context, e engines) (library, error) {
			db, pool, err := openPostgres(ctx, e)
			if err != nil {
				return nil, err
			}
			cache, err := redis.NewCache(redis.Options{Addrs: []string{e.Redis}})
			if err != nil {
				return nil, err
			}
			return newOursCached(db, cache, db, pool, cache)
		}},
		{name: "scs, pgxstore (pgx)", engine: "postgres", open: openPgxstore},
	}
}

// newOursCached puts a cache in front of db. It also closes opened.
func newOursCached(db store.Store, cache store.Cache, opened ...io.Closer) (library, error) {
	cached, err := tiered.New(db, tiered.Layer{Cache: cache})
	if err != nil {
		return nil, err
	}
	o, err := newOurs(cached, false, opened...)
	if err != nil {
		return nil, err
	}
	o.caches = cached
	return o, nil
}

func redigoPool(addr string) *redigo.Pool {
	return &redigo.Pool{
		MaxIdle: connections, MaxActive: connections, Wait: true, IdleTimeout: 4 * time.Minute,
		Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", addr) },
	}
}

// pgxPool is a pool with pgx's defaults, with prepared statements.
func pgxPool(ctx context.Context, e engines) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(e.Postgres)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = connections
	return pgxpool.NewWithConfig(ctx, cfg)
}

// openPostgres gives Sojourn's store a pool like that of scs. The second result
// closes the pool.
func openPostgres(ctx context.Context, e engines) (*postgres.Store, io.Closer, error) {
	pool, err := pgxPool(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	db, err := postgres.New(ctx, pool, postgres.Options{})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return db, closing(pool.Close), nil
}

func openPgxstore(ctx context.Context, e engines) (library, error) {
	pool, err := pgxPool(ctx, e)
	if err != nil {
		return nil, err
	}
	// The table of its documentation.
	const schema = `CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL);
		CREATE INDEX IF NOT EXISTS sessions_expiry_idx ON sessions (expiry)`
	if _, err := pool.Exec(ctx, schema); err != nil {
		pool.Close()
		return nil, fmt.Errorf("making the table for scs: %w", err)
	}
	return newSCS(pgxstore.NewWithCleanupInterval(pool, 0), closing(pool.Close)), nil
}

// closing is a Close that cannot fail.
type closing func()

func (c closing) Close() error {
	c()
	return nil
}
