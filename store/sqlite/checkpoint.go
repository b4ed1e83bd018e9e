package sqlite

import (
	"database/sql"
	"errors"
	"net/url"
	"time"
)

const pageSize = 4 << 10

// logLimits says how large the write-ahead log becomes, in pages.
type logLimits struct {
	check int64         // looked at after that many
	size  int64         // started over from here on, if nobody reads from it
	most  int64         // started over even if readers must be waited for
	wait  time.Duration // for how long they are waited for
	ahead int64         // the file is made this much longer than what is in it; 0 = it grows with each commit
}

// longest is what the log has before it is started over, if nobody reads from it.
func (l logLimits) longest() int64 { return l.size + l.check }

// logBytes is how long a log's file is that has that many pages.
func logBytes(pages int64) int64 { return 32 + pages*(24+pageSize) }

// The log is 12 to 16 MiB long as a rule. The file is kept at that length, and made that
// long ahead of what is written, because overwriting a file is faster than letting
// it grow.
var usualLimits = logLimits{check: 1_000, size: 3_000, most: 16_000, wait: time.Second, ahead: 1_250}

// The checkpointer moves what is in the write-ahead log into the database file,
// beside the writer, so that no commit has to.
//
// What it cannot do beside the writer is to start the log over: that takes a
// log which is in the database file to the last page, and which nobody reads
// from. So the writer holds for a moment, when only its latest pages are left
// to be moved. Readers that come and go leave such moments. If they overlap
// without a gap, the log grows to its limit, and then the writer holds until
// they have gone; new readers do not need the log by then.
//
// The only thing that lets the log grow beyond that is one single reader, in
// another process, that stays for longer than the wait.
type checkpointer struct {
	db      *sql.DB // one connection
	move    *sql.Stmt
	restart *sql.Stmt
	limits  logLimits
	// patience is from how many pages on readers are waited for: the limit, or
	// more after waiting in vain.
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

// trim moves the log's pages and starts it over if it is long enough. If that
// fails, nothing is lost: the pages are in the log, and the next try follows
// soon.
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

// logState is what a checkpoint says about the log.
type logState struct {
	busy         bool  // not everything could be done
	pages, moved int64 // in the log, and how many of them are in the database
}

func (cp *checkpointer) checkpoint(s *sql.Stmt) (state logState, err error) {
	err = s.QueryRow().Scan(&state.busy, &state.pages, &state.moved)
	return state, err
}

// close stops the goroutine, which the writer must not be waiting for any more,
// and moves what is left in the log unless another process is using it.
func (cp *checkpointer) close() error {
	close(cp.done)
	<-cp.stopped
	_, err := cp.checkpoint(cp.restart)
	return errors.Join(err, cp.db.Close())
}
