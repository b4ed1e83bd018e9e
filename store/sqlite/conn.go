package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// connect returns a pool of up to n connections to the file, opened on demand.
// mode is SQLite's: rw, or rwc to create the file.
//
// A pool of one acts as a single connection, with plain BEGIN and COMMIT.
func connect(path string, n int, mode url.Values, pragmas ...string) (*sql.DB, error) {
	// The absolute path, so that later connections open the same file after a
	// change of the working directory.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	params := url.Values{
		"_error_rc": {"1"}, // errors have only their own cause
		"_pragma":   pragmas,
	}
	for name, value := range mode {
		params[name] = value
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path)}
	// SQLite does not read a plus sign as a space.
	name.RawQuery = strings.ReplaceAll(params.Encode(), "+", "%20")
	connector, err := driver.NewConnector(name.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// durable returns the pragmas of a connection that writes, with more of them:
// commits wait for the disk, and the checkpointer does the checkpoints.
func durable(busyTimeout time.Duration, more ...string) []string {
	return append([]string{
		busy(busyTimeout), // first, since the next one reads the file
		"synchronous(FULL)",
		// On macOS, an ordinary fsync does not reach the disk.
		"fullfsync(1)",
		"checkpoint_fullfsync(1)",
		"wal_autocheckpoint(0)",
	}, more...)
}

// busy returns the pragma for how long to wait for a lock.
func busy(timeout time.Duration) string {
	return fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds())
}

// setBusy sets how long a single connection waits for a lock.
func setBusy(db *sql.DB, timeout time.Duration) error {
	_, err := db.Exec("PRAGMA " + busy(timeout))
	return err
}

// statements maps each variable to its statement.
type statements map[**sql.Stmt]string

func (all statements) prepare(db *sql.DB) error {
	for to, query := range all {
		var err error
		//nolint:sqlclosecheck // the holder of the statements closes them
		if *to, err = db.Prepare(query); err != nil {
			return err
		}
	}
	return nil
}

// number returns the number that a query returns.
func number(db *sql.DB, query string) (n int64, err error) {
	err = db.QueryRow(query).Scan(&n)
	return n, err
}

// readOnly reports whether the file cannot be written to.
func readOnly(db *sql.DB) (ro bool, err error) {
	c, err := db.Conn(context.Background())
	if err != nil {
		return false, err
	}
	defer c.Close()
	err = c.Raw(func(raw any) error {
		d, ok := raw.(interface{ IsReadOnly(string) (bool, error) })
		if !ok {
			return fmt.Errorf("the driver's %T cannot say whether a file is read-only", raw)
		}
		ro, err = d.IsReadOnly("main")
		return err
	})
	return ro, err
}

// code returns SQLite's primary result code for an error, or 0.
func code(err error) int {
	if e := (*driver.Error)(nil); errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// isBusy reports whether another connection holds the lock that was needed.
func isBusy(err error) bool { return code(err) == lib.SQLITE_BUSY }
