package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5"
	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// work is an engine's work since its start.
type work struct {
	cpu        time.Duration
	operations float64 // Redis: commands, those within scripts included; PostgreSQL: statements
	logged     float64 // bytes: Redis's append-only file, PostgreSQL's write-ahead log
}

func (w work) plus(o work) work {
	return work{w.cpu + o.cpu, w.operations + o.operations, w.logged + o.logged}
}

func (w work) minus(o work) work {
	return work{w.cpu - o.cpu, w.operations - o.operations, w.logged - o.logged}
}

// engine is a server under watch.
type engine interface {
	work(ctx context.Context) (work, error)
}

// inProcess is an engine within the serving process, whose usage includes its
// work.
type inProcess struct{}

func (inProcess) work(context.Context) (work, error) { return work{}, nil }

type redisEngine struct {
	*servers.Server
	conn redigo.Conn
}

func watchRedis(p *servers.Server) (redisEngine, error) {
	conn, err := redigo.Dial("tcp", p.Addr)
	return redisEngine{p, conn}, err
}

func (e redisEngine) work(context.Context) (w work, err error) {
	info, err := redigo.String(e.conn.Do("INFO", "everything"))
	if err != nil {
		return w, err
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "aof_current_size" {
			w.logged, err = strconv.ParseFloat(value, 64)
		} else if command, ok := strings.CutPrefix(name, "cmdstat_"); ok && command != "info" && command != "ping" {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			var n float64
			n, err = strconv.ParseFloat(calls, 64)
			w.operations += n
		}
		if err != nil {
			return w, fmt.Errorf("INFO: %w", err)
		}
	}
	w.cpu, err = e.CPU()
	return w, err
}

type postgresEngine struct {
	*servers.Server
	conn *pgx.Conn
}

func watchPostgres(ctx context.Context, p *servers.Server) (postgresEngine, error) {
	conn, err := pgx.Connect(ctx, p.PostgresURL())
	if err != nil {
		return postgresEngine{}, err
	}
	_, err = conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	return postgresEngine{p, conn}, err
}

func (e postgresEngine) work(ctx context.Context) (w work, err error) {
	const sql = `SELECT coalesce(sum(calls), 0)::float8, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8
		FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`
	if err := e.conn.QueryRow(ctx, sql).Scan(&w.operations, &w.logged); err != nil {
		return w, err
	}
	w.cpu, err = e.CPU()
	return w, err
}
