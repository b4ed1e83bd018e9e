// Package sqlite is the embedded store: sessions in one SQLite database file,
// with nothing else to install or run.
//
//	db, err := sqlite.Open("data/sessions.db")
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
//
// What a Save, Delete or Touch has answered with nil is on the disk: it
// survives a crash of the process, of the operating system, and a power cut,
// as far as the disk keeps what it says it has written. So that this is fast,
// whatever comes while a transaction is under way is committed together in the
// next one, and its callers are answered after it.
//
// The file may be opened by several processes of one machine at the same time,
// for instance by the sojourn command while the service runs. It must not be on
// a network file system. Beside the file, SQLite keeps two more with the
// suffixes -wal and -shm while it is open, and the former may hold sessions
// after a crash: they belong together when copied.
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
// A Save, Delete, Touch or Sweep whose context ends before its transaction begins
// returns the context's error and store.ErrRefused: nothing was changed. One that
// has the file for itself is not cut short after that; one in a transaction with
// others returns the context's error, and its outcome is unknown.
//
// While the file is replaced, removed or cut short behind its back, all methods
// return ErrReplaced; see there.
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

// BusyTimeout is how long to wait for another process that is writing to the
// same file, before a call fails. Without this option it is 5 seconds. Zero
// does not wait.
func BusyTimeout(d time.Duration) Option {
	return func(o *options) { o.busyTimeout = d }
}

// Open opens the database file at path. A missing file is created, readable for
// the owner only (mode 0600), and so are missing folders (0700).
//
// A file that holds anything else is refused with ErrForeign, and one that a
// newer release of this package has written with ErrNewer; neither is changed.
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

// openFile returns a connection for writing to a file that is ready for it.
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

// makeExample makes the folders of a new database, and an empty file from which
// SQLite takes the mode of the new one. Changing the mode later would leave a
// moment in which others may open it. And nothing but SQLite should ever open
// the file itself: closing it would drop the locks that this process has on it.
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

// Close waits for the calls under way, moves everything into the database file
// and closes it. It may be called several times.
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

// Load returns a record, as store.Store says. Once it has started, it is not
// cut short: that would cost more than it takes.
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

// maxData is how long a record's data may be. SQLite's limit for a row is a
// little more.
const maxData = 999_000_000

// Save stores a record, as store.Store says. It returns store.ErrTooLarge for
// more than 999,000,000 bytes of Data.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if len(rec.Data) > maxData {
		return store.ErrTooLarge
	}
	// The caller may change the save IDs after an outcome that is unknown.
	rec.SaveIDs = slices.Clone(rec.SaveIDs)
	err := s.writer.do(ctx, len(rec.Data),
		func(tx *transaction) error { return tx.save(&rec, base) },
		func(tx *transaction) (bool, error) { return tx.quickly(&rec, base) })
	return s.wrap("save", err)
}

// SaveLimited stores a user's new session, as store.UserLimiter says.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if len(rec.Data) > maxData {
		return nil, store.ErrTooLarge
	}
	rec.SaveIDs = slices.Clone(rec.SaveIDs)
	ended := make(chan []store.ID, 1)
	err := s.writer.do(ctx, len(rec.Data), func(tx *transaction) error {
		ids, err := tx.saveLimited(&rec, limit)
		select { // what an attempt that was rolled back left
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

// Delete ends a session, as store.Store says.
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	err := s.writer.do(ctx, 0, func(tx *transaction) error {
		return tx.end(id, until)
	}, nil)
	return s.wrap("delete", err)
}

// Touch extends a session, as store.Toucher says. A record past its deadline
// that was not swept yet is extended.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	err := s.writer.do(ctx, 0,
		func(tx *transaction) error { return tx.touch(id, seen, deadline) },
		func(tx *transaction) (bool, error) { return tx.extendOne(id, seen, deadline) })
	return s.wrap("touch", err)
}

// sweepStep is how many rows are swept in one go. It is small enough to let
// saves in between.
const sweepStep = 100

// Sweep removes old records, as store.Sweeper says. Saves are let in between
// every hundred records. The file does not shrink; the room is used again.
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

// ByUser returns a user's records, as store.UserIndex says.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := s.file.inPlace(); err != nil {
		return nil, s.wrap("list a user's sessions", err)
	}
	// Nobody's sessions are not in the index.
	recs, _, err := s.reader.list(ctx, s.reader.byUser, userBytes(user))
	return recs, s.wrap("list a user's sessions", err)
}

var errCursor = errors.New("not a cursor of this store")

// Ends returns what has ended, as store.EndFeed says.
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
	over := int64(math.MinInt64) // marks that ended before are left out
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

// Scan returns the next records, as store.Scanner says. A record that stays is
// returned exactly once, and one that is added during the walk not at all.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if err := s.file.inPlace(); err != nil {
		return nil, "", s.wrap("scan", err)
	}
	// The cursor is the last row that was returned, and the last of all when
	// the walk began.
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

// parseScan reads what scanCursor wrote, and nothing else.
func parseScan(cursor string) (after, end int64, err error) {
	if n, e := fmt.Sscanf(cursor, "%d-%d", &after, &end); n != 2 || e != nil || scanCursor(after, end) != cursor {
		return 0, 0, errCursor
	}
	return after, end, nil
}

// Count counts the records, as store.Counter says. It reads the whole table
// except for long data: about a second for a million sessions.
func (s *Store) Count(ctx context.Context) (c store.Counts, err error) {
	if err := s.file.inPlace(); err != nil {
		return c, s.wrap("count", err)
	}
	row := s.reader.count.QueryRowContext(ctx, time.Now().UnixMilli())
	err = row.Scan(&c.Live, &c.LoggedIn, &c.Expired, &c.Ended, &c.Bytes)
	return c, s.wrap("count", err)
}

// wrap adds what was being done to an error that is not an answer in itself.
func (s *Store) wrap(doing string, err error) error {
	if err == nil || isAnswer(err) {
		return err
	}
	if s.closed.Load() && !errors.Is(err, os.ErrClosed) {
		err = fmt.Errorf("%w: %w", os.ErrClosed, err)
	}
	return fmt.Errorf("sqlite: %s: %w", doing, explained(err))
}

// isAnswer reports whether an error says something about a record, not about
// the database.
func isAnswer(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrLimit) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrTooLarge)
}
