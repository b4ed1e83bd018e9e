package sqlite

import (
	"database/sql"
	"errors"
	"net/url"
	"time"
)

const pageSize = 4 << 10

// logLimits bounds the size of the write-ahead log, in pages.
type logLimits struct {
	check int64         // the size is checked after this many
	size  int64         // restarted from this size on, if it has no readers
	most  int64         // restarted from this size on, after waiting for readers
	wait  time.Duration // how long to wait for readers
	ahead int64         // the file is made this much longer than its contents; 0 = it grows with each commit
}

// longest is the log's largest size if it has no readers.
func (l logLimits) longest() int64 { return l.size + l.check }

// logBytes is the size of a log file with that many pages.
func logBytes(pages int64) int64 { return 32 + pages*(24+pageSize) }

// The log usually has 12 to 16 MiB. Its file is created and kept at that size,
// because overwriting a file is faster than extending it.
var usualLimits = logLimits{check: 1_000, size: 3_000, most: 16_000, wait: time.Second, ahead: 1_250}

// The checkpointer moves the write-ahead log into the database file, in
// parallel with the writer, so that commits need not.
//
// It cannot restart the log in parallel with the writer: for that, all pages
// must be in the database file, and no reader may use the log. So it pauses the
// writer briefly once only the latest pages are left to move. There are usually
// gaps between readers. If not, the log grows to its limit, and then the writer
// waits until they have finished; new readers do not need the log by then.
//
// The log grows beyond that only if a reader in another process reads for
// longer than the wait.
type checkpointer struct {
	db      *sql.DB // one connection
	move    *sql.Stmt
	restart *sql.Stmt
	limits  logLimits
	// patience is the size from which to wait for readers: the limit, or more
	// after a wait that failed.
	patience int64

	done    chan struct{} // closed to stop the goroutine
	stopped chan struct{} // closed when it has returned
}

func newCheckpointer(path string, o options, w *writer) (*checkpointer, error) {
	db, err := connect(path, 1, url.Values{"mode": {"rw"}}, durable(o.busyTimeout)...)
	if err != nil {
		return nil, err
	}
	cp := &checkpointer{
		db:       db,
		limits:   o.log,
		patience: o.log.most,
		done:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	err = errors.Join(
		setBusy(db, 0),
		statements{
			&cp.move:    "PRAGMA wal_checkpoint(PASSIVE)",
			&cp.restart: "PRAGMA wal_checkpoint(RESTART)",
		}.prepare(db),
	)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go cp.loop(w)
	return cp, nil
}

func (cp *checkpointer) loop(w *writer) {
	defer close(cp.stopped)
	for {
		select {
		case <-w.due:
			cp.trim(w)
		case <-cp.done:
			return
		}
	}
}

// trim moves the log's pages and restarts the log if it is long enough. If that
// fails, nothing is lost: the pages are in the log, and the next attempt
// follows soon.
func (cp *checkpointer) trim(w *writer) {
	const rest = 200 // pages: a few milliseconds
	var s logState
	for range 3 {
		var err error
		if s, err = cp.checkpoint(cp.move); err != nil || s.pages-s.moved <= rest {
			break
		}
	}
	if s.pages < cp.limits.size {
		w.hold(func() { w.lengthen(min(s.pages+cp.limits.ahead, cp.limits.longest())) })
		return
	}
	w.hold(func() {
		if s.pages < cp.patience {
			_, _ = cp.checkpoint(cp.restart)
			return
		}
		_ = setBusy(cp.db, cp.limits.wait)
		s, err := cp.checkpoint(cp.restart)
		_ = setBusy(cp.db, 0)
		cp.patience = cp.limits.most
		if err != nil || s.busy {
			cp.patience = 2 * s.pages
		}
	})
}

// logState is the result of a checkpoint.
type logState struct {
	busy         bool  // the checkpoint was incomplete
	pages, moved int64 // in the log, and how many of them are in the database
}

func (cp *checkpointer) checkpoint(s *sql.Stmt) (state logState, err error) {
	err = s.QueryRow().Scan(&state.busy, &state.pages, &state.moved)
	return state, err
}

// close stops the goroutine and moves the rest of the log, unless another
// process is using it. The writer must not wait for the goroutine any more.
func (cp *checkpointer) close() error {
	close(cp.done)
	<-cp.stopped
	_, err := cp.checkpoint(cp.restart)
	return errors.Join(err, cp.db.Close())
}
