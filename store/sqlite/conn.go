package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// A conn is one connection to the database file, for one goroutine at a time.
//
// It uses the driver without database/sql: a pool that opens connections as it
// likes is of no use to a store that has one writer, and the driver's own
// interface costs half as much per statement.
type conn struct {
	raw interface {
		driver.Conn
		driver.ExecerContext
	}
	stmts []*stmt
}

// connect opens the file. params are SQLite's URI parameters.
func connect(path string, params url.Values) (*conn, error) {
	// The absolute path, so that a change of the working directory does not
	// move the files that SQLite opens later on.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path)}
	params.Set("_error_rc", "1") // errors name their own cause only
	name.RawQuery = params.Encode()
	var d sqlite.Driver
	raw, err := d.Open(name.String())
	if err != nil {
		return nil, err
	}
	c := &conn{}
	var ok bool
	if c.raw, ok = raw.(interface {
		driver.Conn
		driver.ExecerContext
	}); !ok {
		raw.Close()
		return nil, errors.New("the driver cannot run statements")
	}
	return c, nil
}

// close is a no-op on a nil conn.
func (c *conn) close() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// run executes statements that return nothing.
func (c *conn) run(statements string) error {
	_, err := c.raw.ExecContext(context.Background(), statements, nil)
	return err
}

// pragma sets a pragma.
func (c *conn) pragma(name string, value any) error {
	if err := c.run(fmt.Sprintf("PRAGMA %s=%v", name, value)); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// durable makes the connection wait until the disk has what it writes, and
// leaves checkpoints to the checkpointer.
func durable(c *conn) error {
	return errors.Join(
		c.pragma("synchronous", "FULL"),
		// On macOS, an ordinary fsync does not reach the disk.
		c.pragma("fullfsync", 1),
		c.pragma("checkpoint_fullfsync", 1),
		c.pragma("wal_autocheckpoint", 0),
	)
}

// readOnly reports whether the file cannot be written to.
func (c *conn) readOnly() (bool, error) {
	d, ok := c.raw.(interface{ IsReadOnly(string) (bool, error) })
	if !ok {
		return false, nil
	}
	return d.IsReadOnly("main")
}

// number returns the one number that a query results in.
func (c *conn) number(query string) (n int64, err error) {
	row, err := c.row(query)
	if err != nil {
		return 0, err
	}
	n, ok := row[0].(int64)
	if !ok {
		return 0, fmt.Errorf("%s: not a number", query)
	}
	return n, nil
}

// row returns the first row that a query results in.
func (c *conn) row(query string) ([]driver.Value, error) {
	s, err := newStmt(c, query)
	if err != nil {
		return nil, err
	}
	defer s.raw.Close()
	var first []driver.Value
	err = s.query(context.Background(), func(row []driver.Value) error {
		if first == nil {
			first = append(first, row...)
		}
		return nil
	})
	if err == nil && first == nil {
		err = fmt.Errorf("%s: no result", query)
	}
	return first, err
}

// statements says which statement goes where.
type statements map[**stmt]string

// prepare prepares statements that live as long as the connection.
func (c *conn) prepare(all statements) error {
	for to, query := range all {
		s, err := newStmt(c, query)
		if err != nil {
			return err
		}
		c.stmts = append(c.stmts, s)
		*to = s
	}
	return nil
}

// A stmt is a prepared statement. Its buffers are used again with each call.
type stmt struct {
	raw interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}
	args []driver.NamedValue
	row  []driver.Value
}

func newStmt(c *conn, query string) (*stmt, error) {
	raw, err := c.raw.Prepare(query)
	if err != nil {
		return nil, err
	}
	s := &stmt{}
	var ok bool
	if s.raw, ok = raw.(interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}); !ok {
		raw.Close()
		return nil, errors.New("the driver cannot run prepared statements")
	}
	return s, nil
}

// exec runs the statement and returns how many rows it changed.
func (s *stmt) exec(args ...driver.Value) (int64, error) {
	s.bind(args)
	result, err := s.raw.ExecContext(context.Background(), s.args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query runs the statement and calls each for every row of the result, until
// it returns an error. The slice is used again, the values in it are not. Only
// the time to the first row can be cut short by ctx, and one that can be
// cancelled costs a goroutine.
func (s *stmt) query(ctx context.Context, each func(row []driver.Value) error, args ...driver.Value) (err error) {
	s.bind(args)
	rows, err := s.raw.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	if n := len(rows.Columns()); len(s.row) != n {
		s.row = make([]driver.Value, n)
	}
	for {
		switch err := rows.Next(s.row); err {
		case nil:
			if err := each(s.row); err != nil {
				return err
			}
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

func (s *stmt) bind(args []driver.Value) {
	s.args = s.args[:0]
	for i, arg := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
}

// code returns SQLite's primary result code for an error, or 0.
func code(err error) int {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// isBusy reports whether another connection holds the lock that was needed.
func isBusy(err error) bool { return code(err) == lib.SQLITE_BUSY }
