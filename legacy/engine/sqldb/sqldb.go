// Package sqldb keeps other libraries' sessions in SQL databases: the table of
// Beaker's ext:database and ext:sqla, that of gorilla's pgstore, and those of scs's
// PostgreSQL and SQLite stores. It works on a *sql.DB of any driver; the
// application imports the driver.
//
// With a guard, a session is only written if it has not changed since it was
// read. The tables must exist: the old libraries create them.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
)

// Dialect is the database's SQL dialect.
type Dialect int

// The dialects.
const (
	Postgres Dialect = iota
	SQLite
	MySQL
)

// bind converts a statement's parameters, written as ?, to the dialect.
func (d Dialect) bind(query string) string {
	if d != Postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for i := range len(query) {
		if query[i] != '?' {
			b.WriteByte(query[i])
			continue
		}
		n++
		fmt.Fprintf(&b, "$%d", n)
	}
	return b.String()
}

// insert is an INSERT that does nothing if the row exists.
func (d Dialect) insert(rest string) string {
	if d == MySQL {
		return "INSERT IGNORE INTO " + rest
	}
	return "INSERT INTO " + rest + " ON CONFLICT DO NOTHING"
}

// stamp is a time in SQLAlchemy's text form for databases without a time type;
// the other databases also accept it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

// Beaker is the legacy.Store of Beaker's Database type: the table beaker_cache,
// or another with the columns namespace, accessed, created and data. It is safe
// for concurrent use.
type Beaker struct {
	db      *sql.DB
	dialect Dialect
	table   string
}

var _ legacy.Store = (*Beaker)(nil)

// NewBeaker returns a Beaker. The caller closes db. The table is Beaker's
// option table_name, "beaker_cache" if empty; it is put into statements
// unquoted.
func NewBeaker(db *sql.DB, dialect Dialect, table string) *Beaker {
	if table == "" {
		table = "beaker_cache"
	}
	return &Beaker{db, dialect, table}
}

// Get implements legacy.Store.
func (s *Beaker) Get(ctx context.Context, key string) (legacy.Entry, error) {
	return get(ctx, s, s.db, s.dialect.bind("SELECT data FROM "+s.table+" WHERE namespace = ?"), key, key)
}

// Set implements legacy.Store.
func (s *Beaker) Set(ctx context.Context, key string, e legacy.Entry) error {
	now := stamp(time.Now())
	return put(ctx, s, s.db, key, statements{
		update: s.dialect.bind("UPDATE " + s.table + " SET data = ?, accessed = ? WHERE namespace = ?"),
		insert: s.dialect.bind(s.dialect.insert(s.table + " (data, accessed, namespace, created) VALUES (?, ?, ?, ?)")),
		equal:  s.dialect.bind("UPDATE " + s.table + " SET data = ?, accessed = ? WHERE namespace = ? AND data = ?"),
		args:   []any{e.Value, now, key},
		more:   []any{now},
	})
}

// Delete implements legacy.Store.
func (s *Beaker) Delete(ctx context.Context, key string) error {
	return remove(ctx, s.db, s.dialect.bind("DELETE FROM "+s.table+" WHERE namespace = ?"), key)
}

// Gorilla is the legacy.Store for sessions of gorilla's pgstore, in PostgreSQL.
// They have the form of those in files: set it in gorilla.Config with the back
// end FilesystemStore. It is safe for concurrent use.
type Gorilla struct{ db *sql.DB }

var _ legacy.Store = (*Gorilla)(nil)

// NewGorilla returns a Gorilla. The caller closes db.
func NewGorilla(db *sql.DB) *Gorilla { return &Gorilla{db} }

// gorillaKey is the session's identifier, without the prefix of file names.
func gorillaKey(key string) []byte { return []byte(strings.TrimPrefix(key, "session_")) }

// Get implements legacy.Store.
func (s *Gorilla) Get(ctx context.Context, key string) (legacy.Entry, error) {
	return get(ctx, s, s.db, "SELECT data FROM http_sessions WHERE key = $1", key, gorillaKey(key))
}

// gorillaLife is how long pgstore keeps rows by default; a session expires by
// the time inside its data.
const gorillaLife = 30 * 24 * time.Hour

// Set implements legacy.Store.
func (s *Gorilla) Set(ctx context.Context, key string, e legacy.Entry) error {
	now := time.Now().UTC()
	expires := e.Expires
	if expires.IsZero() {
		expires = now.Add(gorillaLife)
	}
	return put(ctx, s, s.db, key, statements{
		update: "UPDATE http_sessions SET data = $1, modified_on = $2, expires_on = $3 WHERE key = $4",
		equal:  "UPDATE http_sessions SET data = $1, modified_on = $2, expires_on = $3 WHERE key = $4 AND data = $5",
		// Its column key has no constraint.
		insert: "INSERT INTO http_sessions (data, modified_on, expires_on, key, created_on) SELECT $1, $2, $3, $4, $5 " +
			"WHERE NOT EXISTS (SELECT 1 FROM http_sessions WHERE key = $4)",
		args: []any{e.Value, now, expires.UTC(), gorillaKey(key)},
		more: []any{now},
	})
}

// Delete implements legacy.Store.
func (s *Gorilla) Delete(ctx context.Context, key string) error {
	return remove(ctx, s.db, "DELETE FROM http_sessions WHERE key = $1", gorillaKey(key))
}

// SCS is the scs.Store of scs's PostgreSQL and SQLite stores, by the table
// sessions(token, data, expiry), for applications that do not import those. It
// is safe for concurrent use.
type SCS struct {
	db      *sql.DB
	dialect Dialect
}

// NewSCS returns an SCS for Postgres or SQLite. The caller closes db.
func NewSCS(db *sql.DB, dialect Dialect) (*SCS, error) {
	if dialect != Postgres && dialect != SQLite {
		return nil, errors.New("sqldb: scs is kept in Postgres or SQLite")
	}
	return &SCS{db, dialect}, nil
}

// FindCtx returns the data of a session that has not expired.
func (s *SCS) FindCtx(ctx context.Context, token string) (b []byte, found bool, err error) {
	query := "SELECT data FROM sessions WHERE token = $1 AND current_timestamp < expiry"
	if s.dialect == SQLite {
		query = "SELECT data FROM sessions WHERE token = ? AND julianday('now') < expiry"
	}
	e, err := get(ctx, s, s.db, query, token, token)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, false, nil
	}
	return e.Value, err == nil, err
}

// CommitCtx stores the data of a session until expiry.
func (s *SCS) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if s.dialect == SQLite {
		at := expiry.UTC().Format("2006-01-02T15:04:05.999")
		return put(ctx, s, s.db, token, statements{
			update: "UPDATE sessions SET data = ?, expiry = julianday(?) WHERE token = ?",
			equal:  "UPDATE sessions SET data = ?, expiry = julianday(?) WHERE token = ? AND data = ?",
			insert: s.dialect.insert("sessions (data, expiry, token) VALUES (?, julianday(?), ?)"),
			args:   []any{b, at, token},
		})
	}
	return put(ctx, s, s.db, token, statements{
		update: "UPDATE sessions SET data = $1, expiry = $2 WHERE token = $3",
		equal:  "UPDATE sessions SET data = $1, expiry = $2 WHERE token = $3 AND data = $4",
		insert: s.dialect.insert("sessions (data, expiry, token) VALUES ($1, $2, $3)"),
		args:   []any{b, expiry.UTC(), token},
	})
}

// DeleteCtx removes a session, if there is one.
func (s *SCS) DeleteCtx(ctx context.Context, token string) error {
	return remove(ctx, s.db, s.dialect.bind("DELETE FROM sessions WHERE token = ?"), token)
}

// Find is FindCtx without a context, for the interface scs.Store.
func (s *SCS) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit is CommitCtx without a context.
func (s *SCS) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete is DeleteCtx without a context.
func (s *SCS) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// get reads one row. store and key identify it for the guard.
func get(ctx context.Context, store any, db *sql.DB, query, key string, arg any) (legacy.Entry, error) {
	var e legacy.Entry
	err := db.QueryRowContext(ctx, query, arg).Scan(&e.Value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		legacy.GuardOf(ctx).SawEntry(store, key, legacy.Entry{}, false)
		return legacy.Entry{}, legacy.ErrNoEntry
	case err != nil:
		return legacy.Entry{}, failed("get", err)
	}
	legacy.GuardOf(ctx).SawEntry(store, key, e, true)
	return e, nil
}

// statements write one row. The arguments of all begin with args; insert adds
// more, and equal adds the expected data.
type statements struct {
	update, insert, equal string
	args, more            []any
}

func put(ctx context.Context, store any, db *sql.DB, key string, s statements) error {
	seen, guarded := legacy.GuardOf(ctx).Seen(store, key)
	was, there := seen.([]byte)
	if guarded && there {
		return change(ctx, db, s.equal, append(s.args, was)...)
	}
	insert := func() error { return change(ctx, db, s.insert, append(s.args, s.more...)...) }
	if guarded {
		return insert()
	}
	// An update, else an insert, and again an update after a concurrent insert.
	for range 2 {
		if err := change(ctx, db, s.update, s.args...); !errors.Is(err, legacy.ErrChanged) {
			return err
		}
		if err := insert(); !errors.Is(err, legacy.ErrChanged) {
			return err
		}
	}
	return failed("set", errors.New("it is being deleted and inserted all the time"))
}

// change runs a statement and returns ErrChanged if it affected no row.
func change(ctx context.Context, db *sql.DB, query string, args ...any) error {
	result, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return failed("set", err)
	}
	n, err := result.RowsAffected()
	switch {
	case err != nil:
		return failed("set", err)
	case n == 0:
		return legacy.ErrChanged
	}
	return nil
}

func remove(ctx context.Context, db *sql.DB, query string, arg any) error {
	if _, err := db.ExecContext(ctx, query, arg); err != nil {
		return failed("delete", err)
	}
	return nil
}

// failed wraps a driver's error. Statements contain no values, so neither does the error.
func failed(doing string, err error) error { return fmt.Errorf("legacy sql: %s: %w", doing, err) }
