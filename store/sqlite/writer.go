package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueLength is how many requests may wait before callers wait to get in.
	queueLength = 1024

	// A transaction takes at most batchLength requests, and no further one once
	// they have batchBytes of data.
	batchLength = 256
	batchBytes  = 8 << 20
)

// The writer is the one goroutine that writes. It takes the requests that have
// queued up while it committed the ones before, and commits them together: one
// wait for the disk serves them all.
type writer struct {
	db          *sql.DB // one connection
	tx          transaction
	begin       *sql.Stmt
	commit      *sql.Stmt
	busyTimeout time.Duration

	queue   chan *request
	holds   chan func()
	stopped chan struct{} // closed when the goroutine has returned

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool

	commits atomic.Int64 // how many transactions were committed

	check     int64         // after how many pages to tell the checkpointer
	unchecked int64         // pages written since it was told
	due       chan struct{} // tells it
}

// A request is something to be done in a transaction.
type request struct {
	ctx  context.Context
	size int // of the data in it
	do   func(*transaction) error
	// done receives the outcome once it is on the disk. It never blocks the
	// writer.
	done chan error
}

// newWriter takes over a pool of one connection to a file that is prepared.
func newWriter(db *sql.DB, o options) (*writer, error) {
	w := &writer{
		db:          db,
		busyTimeout: o.busyTimeout,
		queue:       make(chan *request, queueLength),
		holds:       make(chan func()),
		stopped:     make(chan struct{}),
		check:       o.log.check,
		due:         make(chan struct{}, 1),
	}
	err := errors.Join(
		setBusy(db, 0), // see retryWhileBusy
		w.tx.prepare(db),
		statements{&w.begin: "BEGIN IMMEDIATE", &w.commit: "COMMIT"}.prepare(db),
	)
	if err != nil {
		return nil, err
	}
	go w.loop()
	return w, nil
}

// do has a function run in a transaction, and returns its error once the
// transaction is on the disk. The function may be run again after a rollback.
// size is about how many bytes it writes.
//
// When ctx ends first, do returns its error, and the function may still run.
func (w *writer) do(ctx context.Context, size int, do func(*transaction) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ctx: ctx, size: size, do: do, done: make(chan error, 1)}
	if err := w.send(r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-r.done:
		return err
	default:
		return fmt.Errorf("the outcome is unknown: %w", ctx.Err())
	}
}

func (w *writer) send(r *request) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return os.ErrClosed
	}
	select {
	case w.queue <- r:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// hold runs a function while nothing is being written, unless the writer has
// stopped.
func (w *writer) hold(f func()) {
	done := make(chan struct{})
	select {
	case w.holds <- func() { f(); close(done) }:
		<-done
	case <-w.stopped:
	}
}

// stop ends the goroutine after the requests that are in the queue.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	close(w.queue)
	w.mu.Unlock()
	<-w.stopped
}

func (w *writer) loop() {
	defer close(w.stopped)
	batch := make([]*request, 0, batchLength)
	for {
		select {
		case f := <-w.holds:
			f()
		case r, open := <-w.queue:
			if !open {
				return
			}
			// The callers that were just answered often come back at once.
			// Letting them in first doubles what a commit carries.
			runtime.Gosched()
			batch = w.collect(append(batch[:0], r))
			w.carryOut(batch)
			clear(batch)
		}
	}
}

// collect adds what else is in the queue to the batch.
func (w *writer) collect(batch []*request) []*request {
	bytes := batch[0].size
	for len(batch) < batchLength && bytes < batchBytes {
		select {
		case r, open := <-w.queue:
			if !open {
				return batch
			}
			batch = append(batch, r)
			bytes += r.size
		default:
			return batch
		}
	}
	return batch
}

// carryOut does the batch's requests in one transaction and answers them. If
// one of them cannot be done, none of them is, and each gets a transaction of
// its own.
func (w *writer) carryOut(batch []*request) {
	outcomes, err := w.attempt(batch)
	var failed *failedRequest
	if errors.As(err, &failed) && len(batch) > 1 {
		for i := range batch {
			w.carryOut(batch[i : i+1])
		}
		return
	}
	for i, r := range batch {
		if err != nil {
			r.done <- err
		} else {
			r.done <- outcomes[i]
		}
	}
}

// failedRequest is the error of a request that could not be done.
type failedRequest struct{ error }

func (e *failedRequest) Unwrap() error { return e.error }

// attempt does the requests in one transaction, and returns their outcomes if
// it is committed.
func (w *writer) attempt(batch []*request) (outcomes []error, err error) {
	err = retryWhileBusy(w.busyTimeout, func() error {
		_, err := w.begin.Exec()
		return err
	})
	if err != nil {
		return nil, err
	}
	outcomes = make([]error, len(batch))
	w.tx.pages = 0
	for i, r := range batch {
		if outcomes[i] = r.ctx.Err(); outcomes[i] != nil {
			continue // nobody waits for it any more
		}
		outcomes[i] = r.do(&w.tx)
		if err := outcomes[i]; err != nil && !isAnswer(err) {
			w.rollback()
			return nil, &failedRequest{err}
		}
	}
	if _, err := w.commit.Exec(); err != nil {
		w.rollback()
		return nil, err
	}
	w.commits.Add(1)
	if w.unchecked += w.tx.pages; w.unchecked >= w.check {
		w.unchecked = 0
		select {
		case w.due <- struct{}{}:
		default: // it has not come round to the last one yet
		}
	}
	return outcomes, nil
}

// rollback ends a transaction that some errors have ended already: then it
// fails, which does no harm.
func (w *writer) rollback() { _, _ = w.db.Exec("ROLLBACK") }

// retryWhileBusy calls f until its error is another one than that the database
// is locked, or the time is over.
//
// SQLite can wait by itself, but does so with pauses that grow to 100 ms. Next
// to a process that writes all the time, the lock is free for moments only,
// which such pauses miss for seconds.
func retryWhileBusy(timeout time.Duration, f func() error) error {
	start := time.Now()
	for {
		err := f()
		if !isBusy(err) {
			return err
		}
		if time.Since(start) >= timeout {
			return fmt.Errorf("another process kept the database locked for %v: %w", timeout, err)
		}
		time.Sleep(time.Duration(200+rand.IntN(800)) * time.Microsecond)
	}
}
