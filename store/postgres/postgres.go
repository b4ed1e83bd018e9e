// Package postgres keeps session records in PostgreSQL, for services that run
// on more than one machine.
//
//	db, err := postgres.Open(ctx, "postgres://user@host/app", postgres.Options{})
//	defer db.Close()
//
// It needs PostgreSQL 12 or newer, one table, and the right to make it. Every
// statement stands for itself, so a pooler in transaction mode (pgbouncer) may
// be in between.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/store"
)

// Options are a store's settings. The zero value is a sensible default.
type Options struct {
	// Table is the table's name, with or without a schema in front: lower-case
	// letters, digits and "_". "" = "sojourn_sessions".
	Table string
}

const defaultTable = "sojourn_sessions"

var tableName = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,50}$`)

// Store keeps records in one table. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	own  bool // the pool is closed with the store
	sql  statements
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Toucher   = (*Store)(nil)
	_ store.Sweeper   = (*Store)(nil)
	_ store.UserIndex = (*Store)(nil)
	_ store.Scanner   = (*Store)(nil)
	_ store.Counter   = (*Store)(nil)
)

// Open connects to the database that url names (libpq's URL or key=value form,
// with pgxpool's pool_* settings) and brings the table up to date. The caller
// closes the store.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("postgres: the connection URL cannot be parsed") // the error would quote it, password and all
	}
	// Unnamed statements, described once per connection: a pooler in transaction
	// mode would lose named ones.
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	// A cancelled statement is taken back at the server, and its real outcome
	// waited for, instead of being left behind on a closed connection.
	cfg.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelTime}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, failed("open", err)
	}
	s, err := New(ctx, pool, o)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.own = true
	return s, nil
}

// New keeps records through a pool that the application already has, and
// brings the table up to date. The pool stays the caller's.
func New(ctx context.Context, pool *pgxpool.Pool, o Options) (*Store, error) {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("postgres: table %.60q: lower-case letters, digits and \"_\", with at most one schema in front", o.Table)
	}
	s := &Store{pool: pool, sql: statementsFor(o.Table)}
	if err := migrate(ctx, pool, o.Table); err != nil {
		return nil, err
	}
	return s, nil
}

// cancelTime is how long the outcome of a cancelled statement is waited for.
const cancelTime = time.Second

// Close closes the connections that Open made.
func (s *Store) Close() error {
	if s.own {
		s.pool.Close()
	}
	return nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return failed("ping", err)
	}
	return nil
}

// failed wraps an error of the driver, whose texts never hold parameters.
func failed(doing string, err error) error { return fmt.Errorf("postgres: %s: %w", doing, err) }

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	rec, err := s.load(ctx, id)
	if err != nil && pgconn.SafeToRetry(err) && ctx.Err() == nil {
		// A pooled connection had died and nothing was sent.
		rec, err = s.load(ctx, id)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return store.Record{}, store.ErrNotFound
	case err != nil:
		return store.Record{}, failed("load", err)
	}
	return rec, nil
}

func (s *Store) load(ctx context.Context, id store.ID) (store.Record, error) {
	return scan(s.pool.QueryRow(ctx, s.sql.load, id[:]))
}

// Save implements [store.Store].
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	sql, args := s.sql.insert, row(rec)
	if base != (store.Base{}) {
		sql, args = s.sql.update, append(args, int64(base.Version), int64(base.Tag), rec.Shorten || rec.IsEnd())
	}
	n, err := s.exec(ctx, sql, args...)
	switch {
	case err != nil:
		return failed("save", err)
	case n == 1:
		return nil
	}
	// A statement of its own: the one before may have waited for this very save,
	// sent earlier, and its snapshot is older than that.
	var saved bool
	err = s.pool.QueryRow(ctx, s.sql.hasTag, rec.ID[:], int64(rec.Tags[0])).Scan(&saved)
	switch {
	case err != nil:
		return failed("save", err)
	case !saved:
		return store.ErrConflict
	}
	return nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	if _, err := s.exec(ctx, s.sql.end, id[:], time.Now().UnixMilli(), until.UnixMilli()); err != nil {
		return failed("delete", err)
	}
	return nil
}

// Touch implements [store.Toucher].
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	n, err := s.exec(ctx, s.sql.touch, id[:], seen.UnixMilli(), deadline.UnixMilli())
	switch {
	case err != nil:
		return failed("touch", err)
	case n == 0:
		return store.ErrNotFound
	}
	return nil
}

// Sweep implements [store.Sweeper], by the database's clock. Replicas that
// sweep at once take different rows.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	n, err := s.exec(ctx, s.sql.sweep, age.Milliseconds(), limit)
	if err != nil {
		return 0, failed("sweep", err)
	}
	return int(n), nil
}

// exec runs one statement. It is sent again only if nothing of it had been
// sent: a pooled connection had died.
func (s *Store) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	tag, err := s.pool.Exec(ctx, sql, args...)
	if err != nil && pgconn.SafeToRetry(err) && ctx.Err() == nil {
		tag, err = s.pool.Exec(ctx, sql, args...)
	}
	return tag.RowsAffected(), err
}

// ByUser implements [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	rows, err := s.pool.Query(ctx, s.sql.byUser, user[:])
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	recs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) { return scan(row) })
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	return recs, nil
}

// Scan implements [store.Scanner], in the order of the IDs.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	after := []byte{}
	if cursor != "" {
		id, err := store.ParseID(cursor)
		if err != nil {
			return nil, "", failed("scan", err)
		}
		after = id[:]
	}
	rows, err := s.pool.Query(ctx, s.sql.scan, after, limit)
	if err != nil {
		return nil, "", failed("scan", err)
	}
	recs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) { return scan(row) })
	if err != nil {
		return nil, "", failed("scan", err)
	}
	if len(recs) < limit {
		return recs, "", nil
	}
	return recs, recs[len(recs)-1].ID.String(), nil
}

// Count implements [store.Counter]. It reads the whole table's small columns.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	err := s.pool.QueryRow(ctx, s.sql.count, time.Now().UnixMilli()).Scan(&c.Live, &c.LoggedIn, &c.Expired, &c.Ended, &c.Bytes)
	if err != nil {
		return store.Counts{}, failed("count", err)
	}
	return c, nil
}

// row is a record as the arguments of insert and update.
func row(rec store.Record) []any {
	tags := make([]int64, len(rec.Tags))
	for i, t := range rec.Tags {
		tags[i] = int64(t)
	}
	var user, data []byte
	if rec.User != (store.UserHash{}) {
		user = rec.User[:]
	}
	if !rec.IsEnd() {
		data = rec.Data
		if data == nil {
			data = []byte{}
		}
	}
	return []any{
		rec.ID[:], int64(rec.Version), tags, user, millis(rec.Created), millis(rec.Seen),
		millis(rec.Deadline), millis(rec.Expires), millis(rec.Ended), data,
	}
}

// scan is the inverse of row.
func scan(r pgx.Row) (store.Record, error) {
	var rec store.Record
	var id, user []byte
	var version, created, seen, deadline, expires, ended int64
	var tags []int64
	err := r.Scan(&id, &version, &tags, &user, &created, &seen, &deadline, &expires, &ended, &rec.Data)
	if err != nil {
		return store.Record{}, err
	}
	if len(id) != len(rec.ID) || len(user) != 0 && len(user) != len(rec.User) {
		return store.Record{}, errors.New("a row is not a session record")
	}
	copy(rec.ID[:], id)
	copy(rec.User[:], user)
	rec.Version = uint64(version)
	for _, t := range tags {
		rec.Tags = append(rec.Tags, store.Tag(t))
	}
	rec.Created, rec.Seen, rec.Deadline = moment(created), moment(seen), moment(deadline)
	rec.Expires, rec.Ended = moment(expires), moment(ended)
	if len(rec.Data) == 0 {
		rec.Data = nil
	}
	return rec, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
