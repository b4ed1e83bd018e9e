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
// %[2]s its name without the schema. Never change a released one.
//
// Times are Unix milliseconds, 0 = not set. due is the hour after which the row
// can be swept: it changes rarely, so most saves and touches change no indexed
// column, and PostgreSQL can keep them within the page (HOT). Columns that a
// save does not change come first: the write-ahead log omits the prefix that a
// row shares with its previous version. Data is not compressed, because it is
// sealed.
var migrations = []string{
	`CREATE TABLE %[1]s (
		created  bigint NOT NULL,
		expires  bigint NOT NULL,
		ended    bigint NOT NULL,
		due      integer NOT NULL,
		id       bytea  PRIMARY KEY,
		usr      bytea,
		seen     bigint NOT NULL,
		deadline bigint NOT NULL,
		version  bigint NOT NULL,
		save_ids     bigint[] NOT NULL,
		data     bytea
	) WITH (fillfactor = 80);
	ALTER TABLE %[1]s ALTER COLUMN data SET STORAGE EXTERNAL;
	CREATE INDEX %[2]s_due ON %[1]s (due);
	CREATE INDEX %[2]s_usr ON %[1]s (usr) WHERE usr IS NOT NULL AND ended = 0;`,

	// The ends, for the feed. Triggers insert them, so that replicas of the
	// previous version also do, during a rolling update. A reader compares the
	// transaction ID with its snapshot, see Ends.
	`CREATE TABLE %[1]s_ends (
		txid  bigint NOT NULL DEFAULT txid_current(),
		id    bytea  NOT NULL,
		until bigint NOT NULL
	);
	CREATE INDEX %[2]s_ends_txid ON %[1]s_ends (txid, id);
	CREATE INDEX %[2]s_ends_until ON %[1]s_ends (until);
	CREATE FUNCTION %[1]s_note_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO %[1]s_ends (id, until) VALUES (NEW.id, NEW.deadline);
		RETURN NULL;
	END $$;
	CREATE TRIGGER %[2]s_insert_end AFTER INSERT ON %[1]s
		FOR EACH ROW WHEN (NEW.ended <> 0) EXECUTE FUNCTION %[1]s_note_end();
	CREATE TRIGGER %[2]s_update_end AFTER UPDATE ON %[1]s
		FOR EACH ROW WHEN (NEW.ended <> 0) EXECUTE FUNCTION %[1]s_note_end();
	INSERT INTO %[1]s_ends (id, until) SELECT id, deadline FROM %[1]s WHERE ended <> 0;`,

	// SaveLimited in one round trip, so that a process that freezes or dies
	// holds no lock. Each statement of the function sees the changes committed
	// before it began, including those of the previous lock holder. See
	// store.UserLimit for the rules.
	`CREATE FUNCTION %[1]s_save_limited(
		p_lock bigint, p_usr bytea, p_now bigint, p_most integer[], p_refuse boolean[], p_replaces bytea[], p_until bigint[],
		p_id bytea[], p_save_ids bigint[], p_save_id_count integer[], p_version bigint[], p_created bigint[], p_seen bigint[],
		p_deadline bigint[], p_expires bigint[], p_ended bigint[], p_data bytea[]
	) RETURNS TABLE (nr integer, outcome integer, gone bytea[]) LANGUAGE plpgsql AS $$
	#variable_conflict use_column
	DECLARE
		v_now CONSTANT bigint := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
		v_save_ids bigint[];
		v_had_ids bigint[];
		v_had_deadline bigint;
		v_live bigint;
		v_others bytea[];
	BEGIN
		PERFORM pg_advisory_xact_lock(p_lock);
		FOR i IN 1 .. cardinality(p_id) LOOP
			nr := i;
			gone := '{}';
			v_save_ids := p_save_ids[(nr - 1) * 8 + 1 : (nr - 1) * 8 + p_save_id_count[nr]];
			SELECT t.save_ids, t.deadline INTO v_had_ids, v_had_deadline FROM %[1]s t WHERE t.id = p_id[nr];
			IF FOUND AND v_had_ids @> v_save_ids[1:1] THEN
				outcome := 0; -- saved before
				RETURN NEXT;
				CONTINUE;
			END IF;
			IF FOUND AND v_had_deadline >= v_now THEN
				outcome := 1; -- a conflict
				RETURN NEXT;
				CONTINUE;
			END IF;
			-- Those that are past their deadline by less than a minute may be live by
			-- another replica's clock: they take their place, and go first.
			SELECT count(*) FILTER (WHERE o.deadline >= p_now), array_agg(o.id ORDER BY o.deadline >= p_now, o.created, o.id)
				INTO v_live, v_others
				FROM (SELECT t.id, t.created, t.deadline FROM %[1]s t WHERE t.usr = p_usr AND t.ended = 0
					AND t.id <> p_id[nr] AND t.id <> p_replaces[nr] AND octet_length(t.id) = 16
					ORDER BY t.id FOR NO KEY UPDATE) o
				WHERE o.deadline >= p_now - 60000;
			IF p_refuse[nr] AND v_live >= p_most[nr] THEN
				outcome := 2; -- too many
				RETURN NEXT;
				CONTINUE;
			END IF;
			INSERT INTO %[1]s AS t (id, version, save_ids, usr, created, seen, deadline, expires, ended, data, due)
				VALUES (p_id[nr], p_version[nr], v_save_ids, p_usr, p_created[nr], p_seen[nr], p_deadline[nr], p_expires[nr],
					p_ended[nr], p_data[nr], (p_deadline[nr] / 3600000)::integer)
				ON CONFLICT (id) DO UPDATE SET version = excluded.version, save_ids = excluded.save_ids, usr = excluded.usr,
					created = excluded.created, seen = excluded.seen, deadline = excluded.deadline, expires = excluded.expires,
					ended = excluded.ended, data = excluded.data, due = excluded.due
				WHERE t.deadline < v_now;
			IF NOT FOUND THEN
				outcome := 1; -- with somebody who was faster
				RETURN NEXT;
				CONTINUE;
			END IF;
			gone := coalesce(v_others[1 : cardinality(v_others) - (p_most[nr] - 1)], '{}');
			UPDATE %[1]s t SET data = NULL, ended = p_now, deadline = p_until[nr], due = (p_until[nr] / 3600000)::integer
				WHERE t.id = ANY (gone);
			outcome := 0;
			RETURN NEXT;
		END LOOP;
	END $$;`,
}

// migrate brings the table up to date. Replicas that start at once wait for
// each other, on a lock that ends with the transaction.
func migrate(ctx context.Context, pool *pgxpool.Pool, table string) error {
	const direct = pgx.QueryExecModeExec // do not prepare statements that run once
	connected := false
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		connected = true
		// A frozen process must not keep others from starting.
		if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = '5s'", direct); err != nil {
			return failed("bound the transaction", err)
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", direct, lockNumber(table, nil)); err != nil {
			return failed("lock the schema", err)
		}
		// "IF NOT EXISTS" needs the right to create tables even if the table exists.
		var made bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", direct, table+"_schema").Scan(&made); err != nil {
			return failed("look for the schema table", err)
		}
		if !made {
			if _, err := tx.Exec(ctx, "CREATE TABLE "+table+"_schema (version integer NOT NULL)"); err != nil {
				return failed("make the schema table", err)
			}
		}
		var version int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+table+"_schema", direct).Scan(&version); err != nil {
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
			sql := fmt.Sprintf(migrations[version], table, bare)
			if _, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll(); err != nil {
				return failed(fmt.Sprintf("bring the schema to version %d", version+1), err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO "+table+"_schema (version) VALUES ($1)", direct, version+1); err != nil {
				return failed("note the schema version", err)
			}
		}
		return nil
	})
	if err != nil && !connected {
		return failed("connect", err)
	}
	return err
}

// lockNumber is the number of the lock on a user's sessions in a table; without
// a user, of the lock on the table's schema.
func lockNumber(table string, user []byte) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("sojourn " + table)) // never fails
	_, _ = h.Write(user)
	return int64(h.Sum64())
}

type statements struct {
	load, insert, update, hasSaveID, end, touch, sweep, byUser, scan, count string
	saveLimited, ends, sweepEnds                                            string
	loadMany, insertMany, updateMany, touchMany                             string
}

// many are the arguments of insertMany and updateMany as rows; see
// recordColumns.
const many = `unnest($1::bytea[], $3::integer[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[],
	$8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[]`

const manyColumns = "id, save_id_count, version, usr, created, seen, deadline, expires, ended, data"

// manySaveIDs are the save IDs of row n.nr of many.
const manySaveIDs = "($2::bigint[])[(n.nr - 1) * 8 + 1 : (n.nr - 1) * 8 + n.save_id_count]"

const columns = "id, version, save_ids, usr, created, seen, deadline, expires, ended, data"

// nowMillis is the time of the database's clock.
const nowMillis = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

func statementsFor(table string) statements {
	due := func(deadline string) string { return "(" + deadline + " / 3600000)::integer" }
	// Data from a standby may be outdated. Each read query returns whether the
	// server is a standby, in a row that exists even if there is no record.
	const primary = "here.standby, " + columns + " FROM (SELECT pg_is_in_recovery() AS standby) here"
	r := strings.NewReplacer("TABLE", table, "PRIMARY", primary, "COLUMNS", columns, "NOW", nowMillis)
	m := strings.NewReplacer("TABLE", table, "COLUMNS", columns, "MANYSAVEIDS", manySaveIDs, "MANYCOLUMNS", manyColumns, "MANY", many)
	return statements{
		load: r.Replace("SELECT PRIMARY LEFT JOIN TABLE ON id = $1"),
		// A new record replaces one past its deadline.
		insert: r.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			VALUES ($1, $2, $3, $4, $5, $6, $7::bigint, $8, $9, $10, ` + due("$7::bigint") + `)
			ON CONFLICT (id) DO UPDATE SET version = excluded.version, save_ids = excluded.save_ids, usr = excluded.usr,
				created = excluded.created, seen = excluded.seen, deadline = excluded.deadline, expires = excluded.expires,
				ended = excluded.ended, data = excluded.data, due = excluded.due
			WHERE t.deadline < NOW AND NOT t.save_ids @> excluded.save_ids[1:1]`),
		// The statement itself compares, so that it is atomic.
		update: r.Replace(`UPDATE TABLE SET version = $2, save_ids = $3, usr = $4, created = $5,
			seen = CASE WHEN $13 THEN $6::bigint ELSE greatest(seen, $6::bigint) END,
			deadline = CASE WHEN $13 THEN $7::bigint ELSE greatest(deadline, $7::bigint) END,
			due = ` + due("CASE WHEN $13 THEN $7::bigint ELSE greatest(deadline, $7::bigint) END") + `,
			expires = $8, ended = $9, data = $10
			WHERE id = $1 AND version = $11 AND save_ids[1] = $12 AND ended = 0`),
		hasSaveID: r.Replace("SELECT EXISTS (SELECT 1 FROM TABLE WHERE id = $1 AND save_ids @> ARRAY[$2::bigint])"),
		end: r.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			VALUES ($1, 0, '{}', NULL, $2::bigint, $2::bigint, $3::bigint, $3::bigint, $2::bigint, NULL, ` + due("$3::bigint") + `)
			ON CONFLICT (id) DO UPDATE SET data = NULL,
				ended = CASE WHEN t.ended = 0 THEN $2::bigint ELSE t.ended END,
				deadline = CASE WHEN t.ended = 0 THEN $3::bigint ELSE greatest(t.deadline, $3::bigint) END,
				due = ` + due("CASE WHEN t.ended = 0 THEN $3::bigint ELSE greatest(t.deadline, $3::bigint) END")),
		saveLimited: r.Replace(`SELECT nr, outcome, gone FROM TABLE_save_limited(
			$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`),
		ends: r.Replace(`SELECT pg_is_in_recovery(), at.upto::text, e.txid, e.id, e.until FROM (
				SELECT coalesce($2::text::txid_snapshot, txid_current_snapshot()) AS upto,
					-- A cursor from the future was handed out before the database was
					-- replaced by a copy of it: its reader gets everything again.
					CASE WHEN txid_snapshot_xmax($1::text::txid_snapshot) <= txid_snapshot_xmax(txid_current_snapshot())
						THEN $1::text::txid_snapshot ELSE '1:1:' END AS since) at
			LEFT JOIN LATERAL (SELECT txid, id, until FROM TABLE_ends
				WHERE txid >= txid_snapshot_xmin(at.since) AND NOT txid_visible_in_snapshot(txid, at.since)
				AND txid_visible_in_snapshot(txid, at.upto)
				AND (txid, id) > ($3::bigint, $4::bytea) AND until >= $5::bigint
				AND octet_length(id) = 16 -- another is no session's
				ORDER BY txid, id LIMIT $6) e ON true`),
		sweepEnds: r.Replace(`DELETE FROM TABLE_ends WHERE ctid = ANY (ARRAY(SELECT ctid FROM TABLE_ends
			WHERE until < NOW - $1::bigint LIMIT $2 FOR UPDATE SKIP LOCKED))`),
		touch: r.Replace(`UPDATE TABLE SET seen = greatest(seen, $2::bigint), deadline = greatest(deadline, $3::bigint),
			due = ` + due("greatest(deadline, $3::bigint)") + ` WHERE id = $1 AND ended = 0`),
		loadMany: r.Replace("SELECT PRIMARY LEFT JOIN TABLE ON id = ANY($1)"),
		insertMany: m.Replace(`INSERT INTO TABLE (id, version, save_ids, usr, created, seen, deadline, expires, ended, data, due)
			SELECT n.id, n.version, MANYSAVEIDS, n.usr, n.created, n.seen, n.deadline, n.expires, n.ended, n.data, ` + due("n.deadline") + `
			FROM MANY) WITH ORDINALITY AS n (MANYCOLUMNS, nr) ORDER BY n.id
			ON CONFLICT (id) DO NOTHING RETURNING id`),
		// The inner query finds and locks the rows to change, one by one in the
		// order of the IDs, and skips locked rows. Only the index on id can
		// serve it and the conflicts, so a plan made for a small table stays
		// good for a large one. A join in UPDATE … FROM could get any plan.
		updateMany: m.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			SELECT n.id, n.version, MANYSAVEIDS, n.usr, n.created, now.seen, now.deadline, n.expires, n.ended, n.data, ` + due("now.deadline") + `
			FROM MANY, $12::bigint[], $13::bigint[], $14::boolean[]) WITH ORDINALITY AS n (MANYCOLUMNS, base_version, base_save_id, shorten, nr),
			LATERAL (SELECT CASE WHEN n.shorten THEN n.seen ELSE greatest(o.seen, n.seen) END AS seen,
					CASE WHEN n.shorten THEN n.deadline ELSE greatest(o.deadline, n.deadline) END AS deadline
				FROM TABLE o WHERE o.id = n.id AND o.version = n.base_version AND o.save_ids[1] = n.base_save_id AND o.ended = 0
				FOR NO KEY UPDATE SKIP LOCKED) AS now
			ON CONFLICT (id) DO UPDATE SET version = excluded.version, save_ids = excluded.save_ids, usr = excluded.usr,
				created = excluded.created, seen = excluded.seen, deadline = excluded.deadline, expires = excluded.expires,
				ended = excluded.ended, data = excluded.data, due = excluded.due
			RETURNING t.id`),
		touchMany: m.Replace(`INSERT INTO TABLE AS t (COLUMNS, due)
			SELECT o.id, o.version, o.save_ids, o.usr, o.created, greatest(o.seen, n.seen), greatest(o.deadline, n.deadline),
				o.expires, o.ended, o.data, ` + due("greatest(o.deadline, n.deadline)") + `
			FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS n (id, seen, deadline),
			LATERAL (SELECT * FROM TABLE WHERE id = n.id AND ended = 0 FOR NO KEY UPDATE SKIP LOCKED) AS o
			ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, deadline = excluded.deadline, due = excluded.due
			RETURNING t.id`),
		sweep: r.Replace(`DELETE FROM TABLE WHERE id IN (SELECT id FROM TABLE
			WHERE due <= ` + due("(NOW - $1::bigint)") + ` AND deadline < NOW - $1::bigint
			LIMIT $2 FOR UPDATE SKIP LOCKED)`),
		byUser: r.Replace("SELECT PRIMARY LEFT JOIN TABLE ON usr = $1 AND ended = 0"),
		scan:   r.Replace("SELECT PRIMARY LEFT JOIN (SELECT * FROM TABLE WHERE id > $1 ORDER BY id LIMIT $2) t ON true ORDER BY id"),
		count: r.Replace(`SELECT pg_is_in_recovery(), count(*) FILTER (WHERE ended = 0 AND deadline >= $1),
			count(*) FILTER (WHERE ended = 0 AND deadline >= $1 AND usr IS NOT NULL),
			count(*) FILTER (WHERE ended = 0 AND deadline < $1),
			count(*) FILTER (WHERE ended <> 0),
			coalesce(sum(octet_length(data)), 0) FROM TABLE`),
	}
}
