package postgres

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// migrations bring the table from one version to the next; %[1]s is its name,
// %[2]s its name without the schema. Never change one that was released.
//
// Times are Unix milliseconds, 0 = not set. due is the hour after which the row
// can be swept: it changes so rarely that most saves and touches change no
// indexed column, and PostgreSQL can keep them within the page (HOT). Data is
// not compressed: it is sealed.
var migrations = []string{
	`CREATE TABLE %[1]s (
		id       bytea  PRIMARY KEY,
		version  bigint NOT NULL,
		tags     bigint[] NOT NULL,
		usr      bytea,
		created  bigint NOT NULL,
		seen     bigint NOT NULL,
		deadline bigint NOT NULL,
		expires  bigint NOT NULL,
		ended    bigint NOT NULL,
		due      integer NOT NULL,
		data     bytea
	) WITH (fillfactor = 80);
	ALTER TABLE %[1]s ALTER COLUMN data SET STORAGE EXTERNAL;
	CREATE INDEX %[2]s_due ON %[1]s (due);
	CREATE INDEX %[2]s_usr ON %[1]s (usr) WHERE usr IS NOT NULL AND ended = 0;`,
}

// migrate brings the table up to date. Replicas that start at once wait for
// each other at a lock that ends with the transaction.
func migrate(ctx context.Context, pool *pgxpool.Pool, table string) error {
	h := fnv.New64a()
	_, _ = h.Write([]byte("sojourn " + table)) // never fails
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(h.Sum64())); err != nil {
			return failed("lock the schema", err)
		}
		if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table+"_schema (version integer NOT NULL)"); err != nil {
			return failed("make the schema table", err)
		}
		var version int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+table+"_schema").Scan(&version); err != nil {
			return failed("read the schema version", err)
		}
		if version > len(migrations) {
			return fmt.Errorf("postgres: table %s has schema version %d, and this program knows up to %d: use a newer one", table, version, len(migrations))
		}
		_, bare, found := strings.Cut(table, ".")
		if !found {
			bare = table
		}
		for ; version < len(migrations); version++ {
			for _, sql := range strings.Split(fmt.Sprintf(migrations[version], table, bare), ";") {
				if strings.TrimSpace(sql) == "" {
					continue
				}
				if _, err := tx.Exec(ctx, sql); err != nil {
					return failed(fmt.Sprintf("bring the schema to version %d", version+1), err)
				}
			}
			if _, err := tx.Exec(ctx, "INSERT INTO "+table+"_schema (version) VALUES ($1)", version+1); err != nil {
				return failed("note the schema version", err)
			}
		}
		return nil
	})
}

type statements struct {
	load, insert, update, hasTag, end, touch, sweep, byUser, scan, count string
}

const columns = "id, version, tags, usr, created, seen, deadline, expires, ended, data"

// nowMillis is the database's clock.
const nowMillis = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

func statementsFor(table string) statements {
	due := func(deadline string) string { return "(" + deadline + " / 3600000)::integer" }
	r := strings.NewReplacer("TABLE", table, "COLUMNS", columns, "NOW", nowMillis)
	return statements{
		load: r.Replace("SELECT COLUMNS FROM TABLE WHERE id = $1"),
		// A record past its deadline makes room for a new one.
		insert: r.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			VALUES ($1, $2, $3, $4, $5, $6, $7::bigint, $8, $9, $10, ` + due("$7::bigint") + `)
			ON CONFLICT (id) DO UPDATE SET version = excluded.version, tags = excluded.tags, usr = excluded.usr,
				created = excluded.created, seen = excluded.seen, deadline = excluded.deadline, expires = excluded.expires,
				ended = excluded.ended, data = excluded.data, due = excluded.due
			WHERE t.deadline < NOW AND NOT t.tags @> excluded.tags[1:1]`),
		// The comparison belongs inside the statement.
		update: r.Replace(`UPDATE TABLE SET version = $2, tags = $3, usr = $4, created = $5,
			seen = CASE WHEN $13 THEN $6::bigint ELSE greatest(seen, $6::bigint) END,
			deadline = CASE WHEN $13 THEN $7::bigint ELSE greatest(deadline, $7::bigint) END,
			due = ` + due("CASE WHEN $13 THEN $7::bigint ELSE greatest(deadline, $7::bigint) END") + `,
			expires = $8, ended = $9, data = $10
			WHERE id = $1 AND version = $11 AND tags[1] = $12 AND ended = 0`),
		hasTag: r.Replace("SELECT EXISTS (SELECT 1 FROM TABLE WHERE id = $1 AND tags @> ARRAY[$2::bigint])"),
		end: r.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			VALUES ($1, 0, '{}', NULL, $2::bigint, $2::bigint, $3::bigint, $3::bigint, $2::bigint, NULL, ` + due("$3::bigint") + `)
			ON CONFLICT (id) DO UPDATE SET data = NULL,
				ended = CASE WHEN t.ended = 0 THEN $2::bigint ELSE t.ended END,
				deadline = CASE WHEN t.ended = 0 THEN $3::bigint ELSE greatest(t.deadline, $3::bigint) END,
				due = ` + due("CASE WHEN t.ended = 0 THEN $3::bigint ELSE greatest(t.deadline, $3::bigint) END")),
		touch: r.Replace(`UPDATE TABLE SET seen = greatest(seen, $2::bigint), deadline = greatest(deadline, $3::bigint),
			due = ` + due("greatest(deadline, $3::bigint)") + ` WHERE id = $1 AND ended = 0`),
		sweep: r.Replace(`DELETE FROM TABLE WHERE id IN (SELECT id FROM TABLE
			WHERE due <= ` + due("(NOW - $1::bigint)") + ` AND deadline < NOW - $1::bigint
			LIMIT $2 FOR UPDATE SKIP LOCKED)`),
		byUser: r.Replace("SELECT COLUMNS FROM TABLE WHERE usr = $1 AND ended = 0"),
		scan:   r.Replace("SELECT COLUMNS FROM TABLE WHERE id > $1 ORDER BY id LIMIT $2"),
		count: r.Replace(`SELECT count(*) FILTER (WHERE ended = 0 AND deadline >= $1),
			count(*) FILTER (WHERE ended = 0 AND deadline >= $1 AND usr IS NOT NULL),
			count(*) FILTER (WHERE ended = 0 AND deadline < $1),
			count(*) FILTER (WHERE ended <> 0),
			coalesce(sum(octet_length(data)), 0) FROM TABLE`),
	}
}
