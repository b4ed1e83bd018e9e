package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SchemaVersion returns the version of the table's schema in the database that
// url names, 0 if there is no table, and the newest version that this package
// supports, to which Open upgrades the table. It changes nothing, and only
// needs the right to read.
func SchemaVersion(ctx context.Context, url string, o Options) (version, newest int, err error) {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if !tableName.MatchString(o.Table) {
		return 0, 0, fmt.Errorf("postgres: table %.60q is not a table's name", o.Table)
	}
	pool, err := pgxpool.ParseConfig(url) // which knows the pool's settings
	if err != nil {
		return 0, 0, errURL
	}
	cfg := pool.ConnConfig
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements, for poolers
	if err := reread(url, o.Credentials)(ctx, cfg); err != nil {
		return 0, 0, failed("connect", err)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, 0, failed("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing was written
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", o.Table+"_schema").Scan(&exists); err != nil {
		return 0, 0, failed("look for the schema table", err)
	}
	if exists {
		if err := conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+o.Table+"_schema").Scan(&version); err != nil {
			return 0, 0, failed("read the schema version", err)
		}
	}
	return version, len(migrations), nil
}
