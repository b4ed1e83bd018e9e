// Package sqlite is the embedded store. It keeps sessions in one SQLite
// database file and needs no server.
//
//	db, err := sqlite.Open("data/sessions.db")
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
//
// When a Save, Delete or Touch returns nil, the change is on the disk. It
// survives a crash of the process or the operating system and a power failure,
// if the disk keeps what it reports as written. Calls that arrive during a
// transaction are committed together in the next one, for speed, and return
// after it.
//
// Several processes of one machine may open the file at the same time, such as
// the service and the sojourn command. It must not be on a network file system.
// While the file is open, SQLite keeps two more files beside it, with the
// suffixes -wal and -shm. After a crash, the -wal file may hold sessions, so
// copy the files together.
//
// The package does not depend on cgo.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/sojourn-go/sojourn/store"
)

// Store is a store.Store in a SQLite database, and all of its optional
// interfaces but FloorLoader. Make one with Open.
//
// After Close, each method's error is os.ErrClosed.
//
// A Save, Delete, Touch or Sweep whose context ends before its transaction
// begins returns the context's error and store.ErrRefused: nothing was changed.
// If its context ends later, a call with its own transaction finishes it; a
// call that shares a transaction returns the context's error, and its outcome
// is unknown.
//
// After the file was replaced, removed or truncated by another program, all
// methods return ErrReplaced; see there.
type Store struct {
	path   string
	file   *file
	writer *writer
	reader *reader
	log    *checkpointer

	closing  sync.Once
	closed   atomic.Bool
	closeErr error
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
	_ store.Counter     = (*Store)(nil)
)

// Option changes how Open opens a database.
type Option func(*options)

type options struct {
	busyTimeout time.Duration

	// For tests.
	maxPages int // of the database; 0 = no limit but the disk's
	log      logLimits
}

// BusyTimeout sets how long a call waits for another process that is writing to
// the same file before it fails. The default is 5 seconds. Zero means not to
// wait.
func BusyTimeout(d time.Duration) Option {
	return func(o *options) { o.busyTimeout = d }
}

// Open opens the database file at path. A missing file is created for the owner
// only (mode 0600), as are missing folders (0700).
//
// A file that is not a session database is refused with ErrForeign, and one
// that a newer release of this package has written with ErrNewer; neither is
// changed.
func Open(path string, opts ...Option) (*Store, error) {
	o := options{busyTimeout: 5 * time.Second, log: usualLimits}
	for _, opt := range opts {
		opt(&o)
	}
	s := &Store{path: path}
	if err := s.open(o); err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) open(o options) (err error) {
	if s.path == "" || strings.HasPrefix(s.path, ":memory:") || strings.HasPrefix(s.path, "file:") {
		return errors.New("not the path of a file (for sessions in memory, use store/memory)")
	}
	db, err := openFile(s.path, o)
	if err != nil {
		return err
	}
	s.file = new(file)
	if s.writer, err = newWriter(db, s.file, o); err != nil {
		return errors.Join(err, db.Close())
	}
	if s.reader, err = newReader(s.path, o); err == nil {
		s.log, err = newCheckpointer(s.path, o, s.writer)
	}
	if err == nil {
		err = s.file.watch(s.path)
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	s.writer.hold(func() { s.writer.lengthen(o.log.ahead) })
	return nil
}

// openFile prepares the file and returns a connection for writing.
func openFile(path string, o options) (*sql.DB, error) {
	mode := url.Values{"mode": {"rw"}}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		example, err := makeExample(path)
		if err != nil {
			return nil, err
		}
		defer os.Remove(example)
		mode = url.Values{"mode": {"rwc"}, "modeof": {example}}
	} else if err != nil {
		return nil, err
	}
	pragmas := durable(o.busyTimeout,
		fmt.Sprintf("journal_size_limit(%d)", logBytes(o.log.longest())),
		"cache_size(-16384)", // KiB
	)
	if o.maxPages > 0 {
		pragmas = append(pragmas, fmt.Sprintf("max_page_count(%d)", o.maxPages))
	}
	db, err := connect(path, 1, mode, pragmas...)
	if err != nil {
		return nil, err
	}
	if err := retryWhileBusy(context.Background(), o.busyTimeout, func() error { return prepareFile(db) }); err != nil {
		if code(err) == lib.SQLITE_NOTADB {
			err = ErrForeign
		}
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// makeExample makes the folders of a new database, and an empty file whose mode
// SQLite copies. Changing the mode later would leave a moment in which other
// users may open the database. Only SQLite may open the database file itself:
// closing it would drop this process's locks on it.
func makeExample(path string) (string, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(folder, filepath.Base(path)+".new-*")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(f.Chmod(0o600), f.Close())
}

// prepareFile brings the database to the newest schema and into WAL mode.
func prepareFile(db *sql.DB) error {
	if ro, err := readOnly(db); err != nil {
		return err
	} else if ro {
		return fmt.Errorf("the file is read-only: %w", fs.ErrPermission)
	}
	if err := migrate(db); err != nil {
		return err
	}
	var mode string
	if err := db.QueryRow("PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("this file system does not support a write-ahead log (journal mode %s)", mode)
	}
	return nil
}

// Close waits for the calls under way, moves the log into the database file and
// closes it. It may be called several times.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.closed.Store(true)
		s.writer.stop()
		var errs []error
		if s.log != nil {
			errs = append(errs, s.log.close())
		}
		if s.reader != nil {
			errs = append(errs, s.reader.db.Close())
		}
		errs = append(errs, s.writer.db.Close())
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("sqlite: close %s: %w", s.path, err)
		}
	})
	return s.closeErr
}

// Load returns a record; see [store.Store]. Once started, it ignores its
// context, because interrupting it would take longer.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, s.wrap("load", err)
	}
	if err := s.file.inPlace(); err != nil {
		return store.Record{}, s.wrap("load", err)
	}
	rec, err := s.reader.load(context.WithoutCancel(ctx), id)
	return rec, s.wrap("load", err)
}

// maxData is the maximum size of a record's data. SQLite's limit for a row is
// slightly higher.
const maxData = 999_000_000

// Save stores a record; see [store.Store]. It returns store.ErrTooLarge for
// more than 999,000,000 bytes of Data.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if len(rec.Data) > maxData {
		return store.ErrTooLarge
	}
	// The caller may change the save IDs after an unknown outcome.
	rec.SaveIDs = slices.Clone(rec.SaveIDs)
	err := s.writer.do(ctx, len(rec.Data),
		func(tx *transaction) error { return tx.save(&rec, base) },
		func(tx *transaction) (bool, error) { return tx.quickly(&rec, base) })
	return s.wrap("save", err)
}

// SaveLimited stores a user's new session; see [store.UserLimiter].
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if len(rec.Data) > maxData {
		return nil, store.ErrTooLarge
	}
	rec.SaveIDs = slices.Clone(rec.SaveIDs)
	ended := make(chan []store.ID, 1)
	err := s.writer.do(ctx, len(rec.Data), func(tx *transaction) error {
		ids, err := tx.saveLimited(&rec, limit)
		select { // discard the result of an attempt that was rolled back
		case <-ended:
		default:
		}
		ended <- ids
		return err
	}, nil)
	if err != nil {
		return nil, s.wrap("save", err)
	}
	return <-ended, nil
}

// Delete ends a session; see [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	err := s.writer.do(ctx, 0, func(tx *transaction) error {
		return tx.end(id, until)
	}, nil)
	return s.wrap("delete", err)
}

// Touch extends a session; see [store.Toucher]. It extends a record past its
// deadline that was not swept yet.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	err := s.writer.do(ctx, 0,
		func(tx *transaction) error { return tx.touch(id, seen, deadline) },
		func(tx *transaction) (bool, error) { return tx.extendOne(id, seen, deadline) })
	return s.wrap("touch", err)
}

// sweepStep is how many rows one transaction sweeps, so that saves can run in
// between.
const sweepStep = 100

// Sweep removes old records; see [store.Sweeper]. Saves can run after every
// hundred records. The file does not shrink; the space is reused.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (removed int, err error) {
	before := time.Now().Add(-age)
	for removed < limit {
		step := min(limit-removed, sweepStep)
		var looked, gone int
		err := s.writer.do(ctx, 0, func(tx *transaction) (err error) {
			looked, gone, err = tx.sweep(before, step)
			return err
		}, nil)
		if err != nil {
			return removed, s.wrap("sweep", err)
		}
		removed += gone
		if looked < step {
			break
		}
	}
	return removed, nil
}

// ByUser returns a user's records; see [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := s.file.inPlace(); err != nil {
		return nil, s.wrap("list a user's sessions", err)
	}
	// Anonymous sessions are not in the index.
	recs, _, err := s.reader.list(ctx, s.reader.byUser, userBytes(user))
	return recs, s.wrap("list a user's sessions", err)
}

var errCursor = errors.New("not a cursor of this store")

// Ends returns the ends of sessions; see [store.EndFeed].
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	page, err := s.ends(ctx, cursor, max(limit, 1))
	return page, s.wrap("read the feed of ends", err)
}

func (s *Store) ends(ctx context.Context, cursor string, limit int) (page store.EndPage, err error) {
	if err := s.file.inPlace(); err != nil {
		return page, err
	}
	var after, last int64
	if err := s.reader.lastEnd.QueryRowContext(ctx).Scan(&last); err != nil {
		return page, err
	}
	over := int64(math.MinInt64) // tombstones that expired before are left out
	switch cursor {
	case store.FeedFromNow:
		after = last
	case store.FeedFromStart:
		over = time.Now().UnixMilli()
	default:
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil || after < 0 || after > last {
			return page, errCursor
		}
	}
	rows, err := s.reader.ends.QueryContext(ctx, after, last, over, limit)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		var until int64
		if err := rows.Scan(&after, &id, &until); err != nil {
			return page, err
		}
		page.Ends = append(page.Ends, store.End{ID: store.ID(id), Until: time.UnixMilli(until).UTC()})
	}
	if page.More = len(page.Ends) == limit; !page.More {
		after = last
	}
	page.Cursor = strconv.FormatInt(after, 10)
	return page, rows.Err()
}

// Scan returns the next records; see [store.Scanner]. A record that stays is
// returned exactly once, and one that is added during the scan is not returned.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if err := s.file.inPlace(); err != nil {
		return nil, "", s.wrap("scan", err)
	}
	// The cursor has the last returned row, and the last row when the scan
	// began.
	var after, end int64
	var err error
	if cursor == "" {
		err = s.reader.last.QueryRowContext(ctx).Scan(&end)
	} else {
		after, end, err = parseScan(cursor)
	}
	if err != nil {
		return nil, "", s.wrap("scan", err)
	}
	recs, last, err := s.reader.list(ctx, s.reader.page, after, end, limit)
	if err != nil {
		return nil, "", s.wrap("scan", err)
	}
	if last == 0 || last == end { // no row was left, damaged or not
		return recs, "", nil
	}
	return recs, scanCursor(last, end), nil
}

func scanCursor(after, end int64) string { return fmt.Sprintf("%d-%d", after, end) }

// parseScan parses the result of scanCursor.
func parseScan(cursor string) (after, end int64, err error) {
	if n, e := fmt.Sscanf(cursor, "%d-%d", &after, &end); n != 2 || e != nil || scanCursor(after, end) != cursor {
		return 0, 0, errCursor
	}
	return after, end, nil
}

// Count counts the records; see [store.Counter]. It reads the whole table
// except long data: about a second for a million sessions.
func (s *Store) Count(ctx context.Context) (c store.Counts, err error) {
	if err := s.file.inPlace(); err != nil {
		return c, s.wrap("count", err)
	}
	row := s.reader.count.QueryRowContext(ctx, time.Now().UnixMilli())
	err = row.Scan(&c.Live, &c.LoggedIn, &c.Expired, &c.Ended, &c.Bytes)
	return c, s.wrap("count", err)
}

// wrap adds the operation to an error, unless that is an answer about a record.
func (s *Store) wrap(doing string, err error) error {
	if err == nil || isAnswer(err) {
		return err
	}
	if s.closed.Load() && !errors.Is(err, os.ErrClosed) {
		err = fmt.Errorf("%w: %w", os.ErrClosed, err)
	}
	return fmt.Errorf("sqlite: %s: %w", doing, explained(err))
}

// isAnswer reports whether an error is about a record, not about the database.
func isAnswer(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrLimit) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrTooLarge)
}
