package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"

	"github.com/alexedwards/scs/sqlite3store"
	"github.com/sojourn-go/sojourn/store/sqlite"
	_ "modernc.org/sqlite" // the driver that Sojourn's store also uses
)

var (
	oursSQLite = side{"Sojourn, SQLite", func(dir string) (library, error) {
		db, err := sqlite.Open(filepath.Join(dir, "sojourn.db"))
		if err != nil {
			return nil, err
		}
		return newOurs(db, false)
	}, ""}

	scsSQLite = side{"scs, SQLite", func(dir string) (library, error) {
		db, err := openForSCS(filepath.Join(dir, "scs.db"))
		if err != nil {
			return nil, err
		}
		return newSCS(sqlite3store.NewWithCleanupInterval(db, 0), db), nil
	}, oursSQLite.name}
)

// openForSCS opens a database with careful settings, as durable as Sojourn's: a
// write-ahead log, every commit synced before the answer, and waiting for locks
// instead of failing. It has two connections, so that one can read while the
// other writes; more connections only contend for SQLite's write lock.
func openForSCS(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	// The table of its documentation.
	const schema = `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BLOB NOT NULL, expiry REAL NOT NULL);
		CREATE INDEX sessions_expiry_idx ON sessions(expiry)`
	if _, err := db.ExecContext(context.Background(), schema); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("making the table for scs: %w", err)
	}
	return db, nil
}

// sqliteBytes is the size of the database at path: its pages, in the file and
// in the log.
func sqliteBytes(ctx context.Context, path string) (float64, error) {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var bytes float64
	err = db.QueryRowContext(ctx, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&bytes)
	return bytes, err
}
