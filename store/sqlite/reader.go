package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// The reader is a pool of connections that cannot write, with its statements.
type reader struct {
	db                              *sql.DB
	byID, byUser, page, last, count *sql.Stmt
	ends, lastEnd                   *sql.Stmt
}

// The columns of a row, in the order of scanRecord.
const (
	head    = `row, id, version, save_ids, user, created, seen, deadline, expires, ended`
	columns = head + `, data`
)

func newReader(path string, o options) (*reader, error) {
	n := min(max(4, 2*runtime.GOMAXPROCS(0)), 16)
	db, err := connect(path, n, url.Values{"mode": {"rw"}}, busy(o.busyTimeout), "query_only(1)")
	if err != nil {
		return nil, err
	}
	r := &reader{db: db}
	err = statements{
		&r.byID:   `SELECT ` + columns + ` FROM sessions WHERE id = ?1`,
		&r.byUser: `SELECT ` + columns + ` FROM sessions WHERE user = ?1 AND ended IS NULL`,
		&r.page:   `SELECT ` + columns + ` FROM sessions WHERE row > ?1 AND row <= ?2 ORDER BY row LIMIT ?3`,
		&r.last:   `SELECT coalesce(max(row), 0) FROM sessions`,
		&r.count: `SELECT
			count(*) FILTER (WHERE ended IS NULL AND deadline >= ?1),
			count(*) FILTER (WHERE ended IS NULL AND deadline >= ?1 AND user IS NOT NULL),
			count(*) FILTER (WHERE ended IS NULL AND deadline < ?1),
			count(*) FILTER (WHERE ended IS NOT NULL),
			coalesce(sum(length(data)), 0)
			FROM sessions`,
		// A row with an invalid ID is not an end.
		&r.ends: `SELECT number, id, until FROM ends
			WHERE number > ?1 AND number <= ?2 AND until >= ?3 AND length(id) = 16 ORDER BY number LIMIT ?4`,
		// Swept ends count, or numbers would seem to restart.
		&r.lastEnd: `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'ends'`,
	}.prepare(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

func (r *reader) load(ctx context.Context, id store.ID) (store.Record, error) {
	rec, _, err := scanRecord(r.byID.QueryRowContext(ctx, id[:]))
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	return rec, err
}

// list runs a statement that selects rows, and returns their records, without
// damaged ones, and the number of the last row.
func (r *reader) list(ctx context.Context, s *sql.Stmt, args ...any) (recs []store.Record, last int64, err error) {
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var rec store.Record
		if rec, last, err = scanRecord(rows); errors.Is(err, store.ErrDamaged) {
			continue // it is not a record
		} else if err != nil {
			return nil, 0, err
		}
		recs = append(recs, rec)
	}
	return recs, last, rows.Err()
}

// scanRecord reads a row of columns, from a *sql.Row or *sql.Rows.
func scanRecord(row interface{ Scan(...any) error }) (rec store.Record, number int64, err error) {
	var version, created, seen, deadline, expires int64
	var ended sql.NullInt64
	var id, saveIDs, user taken
	err = row.Scan(&number, &id, &version, &saveIDs, &user, &created, &seen, &deadline, &expires, &ended, (*taken)(&rec.Data))
	if err != nil {
		return store.Record{}, number, err
	}
	if len(id) != len(rec.ID) || user != nil && len(user) != len(rec.User) || len(saveIDs)%8 != 0 {
		return store.Record{}, number, fmt.Errorf("row %d: %w", number, store.ErrDamaged)
	}
	copy(rec.ID[:], id)
	copy(rec.User[:], user)
	rec.Version = uint64(version)
	rec.SaveIDs = make([]store.SaveID, len(saveIDs)/8)
	for i := range rec.SaveIDs {
		rec.SaveIDs[i] = store.SaveID(binary.BigEndian.Uint64(saveIDs[8*i:]))
	}
	rec.Created = time.UnixMilli(created).UTC()
	rec.Seen = time.UnixMilli(seen).UTC()
	rec.Deadline = time.UnixMilli(deadline).UTC()
	rec.Expires = time.UnixMilli(expires).UTC()
	if ended.Valid {
		rec.Ended = time.UnixMilli(ended.Int64).UTC()
	}
	return rec, number, nil
}

// taken receives a blob without the copy that a []byte makes: the driver has
// already made a copy for this row, and does not reuse it.
type taken []byte

// Scan implements sql.Scanner.
func (t *taken) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok && src != nil { // STRICT tables have no such rows, unless they are damaged
		return fmt.Errorf("a value of type %T where bytes belong: %w", src, store.ErrDamaged)
	}
	*t = b
	return nil
}
