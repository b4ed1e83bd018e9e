package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	// queueLength is the maximum number of waiting requests.
	queueLength = 10_000

	// A transaction takes at most batchLength requests, and no more once they
	// have batchBytes of data.
	batchLength = 256
	batchBytes  = 8 << 20
)

var errCrowded = fmt.Errorf("%w: %d requests are waiting to be written already", store.ErrRefused, queueLength)

// The writer runs one transaction at a time. If nothing is under way, a request
// is carried out in its caller's goroutine: two switches to another goroutine
// take as long as the rest of the work. Requests that arrive meanwhile are then
// committed together, with one wait for the disk.
type writer struct {
	db          *sql.DB // one connection, used by the goroutine that set busy
	tx          transaction
	begin       *sql.Stmt
	commit      *sql.Stmt
	busyTimeout time.Duration
	file        *file

	mu      sync.Mutex
	busy    bool       // a goroutine is writing, or is about to
	free    *sync.Cond // signals that busy has become false
	crowd   bool       // the last transaction had several requests, so more may come soon
	waiting []*request
	holds   []chan struct{} // calls that wait to hold the writer; closed when they do
	closed  bool

	commits atomic.Int64 // number of committed transactions

	check     int64         // after how many pages to wake the checkpointer
	unchecked int64         // pages written since then
	due       chan struct{} // wakes it
}

// A request is an operation to run in a transaction.
type request struct {
	ctx  context.Context
	size int // of the data in it
	do   func(*transaction) error
	// quickly tries the operation in one statement, without an explicit
	// transaction, and reports whether that was enough; otherwise it has
	// changed nothing. nil = not possible.
	quickly func(*transaction) (done bool, err error)

	taken atomic.Bool // it is being carried out, or its caller no longer waits
	// done receives the outcome once it is on the disk. It never blocks the
	// writer.
	done chan error
}

// newWriter takes over a pool of one connection to a prepared file.
func newWriter(db *sql.DB, f *file, o options) (*writer, error) {
	w := &writer{
		db:          db,
		file:        f,
		busyTimeout: o.busyTimeout,
		check:       o.log.check,
		due:         make(chan struct{}, 1),
	}
	w.free = sync.NewCond(&w.mu)
	err := errors.Join(
		setBusy(db, 0), // see retryWhileBusy
		w.tx.prepare(db),
		statements{&w.begin: "BEGIN IMMEDIATE", &w.commit: "COMMIT"}.prepare(db),
	)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// do runs a function in a transaction, and returns its error once the
// transaction is on the disk. The function may run again after a rollback. size
// is about how many bytes it writes; quickly may be nil, see request.
//
// When ctx ends before the transaction begins, do returns its error, and the
// function never runs. When it ends while the transaction also has other
// requests, do returns its error, and the function may still run.
func (w *writer) do(ctx context.Context, size int, do func(*transaction) error, quickly func(*transaction) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ctx: ctx, size: size, do: do, quickly: quickly}
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return os.ErrClosed
	case len(w.waiting) >= queueLength:
		w.mu.Unlock()
		return errCrowded
	case !w.busy && !w.crowd:
		w.busy = true
		w.mu.Unlock()
		defer w.pass()
		r.taken.Store(true)
		return w.alone(r)
	}
	r.done = make(chan error, 1)
	w.waiting = append(w.waiting, r)
	if !w.busy {
		w.busy = true
		go w.write()
	}
	w.mu.Unlock()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.taken.CompareAndSwap(false, true) {
		w.mu.Lock()
		w.waiting = slices.DeleteFunc(w.waiting, func(other *request) bool { return other == r })
		w.mu.Unlock()
		return refused(ctx.Err())
	}
	select {
	case err := <-r.done:
		return err
	default:
		return fmt.Errorf("the outcome is unknown: %w", ctx.Err())
	}
}

// pass releases the writer, or starts write if requests are waiting.
func (w *writer) pass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) > 0 || len(w.holds) > 0 {
		go w.write()
		return
	}
	w.busy = false
	w.free.Broadcast()
}

// write serves requests until none is waiting.
func (w *writer) write() {
	for {
		// Callers that were just answered often send the next request at once.
		// Letting them in doubles the requests per commit.
		runtime.Gosched()
		w.mu.Lock()
		if len(w.holds) > 0 {
			held := w.holds[0]
			w.holds = w.holds[1:]
			w.mu.Unlock()
			close(held) // hold then passes the writer on
			return
		}
		batch := w.collect()
		if len(batch) == 0 {
			w.busy = false
			w.free.Broadcast()
			w.mu.Unlock()
			return
		}
		w.crowd = len(batch) > 1
		w.mu.Unlock()
		w.carryOut(batch)
	}
}

// collect takes requests out of the queue for one transaction. mu is held.
func (w *writer) collect() (batch []*request) {
	bytes, n := 0, 0
	for ; n < len(w.waiting) && len(batch) < batchLength && bytes < batchBytes; n++ {
		if r := w.waiting[n]; r.taken.CompareAndSwap(false, true) {
			batch = append(batch, r)
			bytes += r.size
		}
	}
	w.waiting = slices.Delete(w.waiting, 0, n)
	return batch
}

// hold runs a function while nothing is written, unless the writer has stopped.
func (w *writer) hold(f func()) {
	w.mu.Lock()
	if w.closed && !w.busy {
		w.mu.Unlock()
		return
	}
	if w.busy {
		held := make(chan struct{})
		w.holds = append(w.holds, held)
		w.mu.Unlock()
		<-held
	} else {
		w.busy = true
		w.mu.Unlock()
	}
	defer w.pass()
	f()
}

// stop refuses new requests, and waits for those in the queue.
func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for w.busy {
		w.free.Wait()
	}
}

// alone does one request, in one statement if that is enough.
func (w *writer) alone(r *request) error {
	if r.quickly == nil {
		return w.single(r)
	}
	if err := w.file.inPlace(); err != nil {
		return refused(err)
	}
	w.tx.pages = 0
	var done bool
	err := w.retryWhileBusy(r.ctx, func() (err error) {
		done, err = r.quickly(&w.tx)
		return err
	})
	switch {
	case err != nil:
		return atCommit(err)
	case !done:
		return w.single(r)
	}
	w.committed()
	return nil
}

// single does one request in a transaction.
func (w *writer) single(r *request) error {
	outcomes, err := w.attempt(r.ctx, []*request{r})
	if err != nil {
		return err
	}
	return outcomes[0]
}

// carryOut does the batch's requests in one transaction and answers them. If
// one of them fails, the transaction is rolled back, and each gets its own.
func (w *writer) carryOut(batch []*request) {
	outcomes, err := w.attempt(context.Background(), batch)
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

// failedRequest is the error of a request that failed.
type failedRequest struct{ error }

func (e *failedRequest) Unwrap() error { return e.error }

// attempt does the requests in one transaction, and returns their outcomes if
// it is committed.
func (w *writer) attempt(ctx context.Context, batch []*request) (outcomes []error, err error) {
	if err := w.file.inPlace(); err != nil {
		return nil, refused(err)
	}
	err = w.retryWhileBusy(ctx, func() error {
		_, err := w.begin.Exec()
		return err
	})
	if err != nil {
		return nil, refused(err)
	}
	outcomes = make([]error, len(batch))
	w.tx.pages = 0
	for i, r := range batch {
		if err := r.ctx.Err(); err != nil {
			outcomes[i] = refused(err) // its caller no longer waits
			continue
		}
		outcomes[i] = r.do(&w.tx)
		if err := outcomes[i]; err != nil && !isAnswer(err) {
			w.rollback()
			return nil, &failedRequest{refused(err)}
		}
	}
	if _, err := w.commit.Exec(); err != nil {
		w.rollback()
		return nil, atCommit(err)
	}
	w.committed()
	return outcomes, nil
}

// committed is called after each commit.
func (w *writer) committed() {
	w.commits.Add(1)
	if w.unchecked += w.tx.pages; w.unchecked >= w.check {
		w.unchecked = 0
		select {
		case w.due <- struct{}{}:
		default: // it has not handled the previous signal yet
		}
	}
}

// rollback ends a transaction. Some errors have ended it already; then ROLLBACK
// fails, which is harmless.
func (w *writer) rollback() { _, _ = w.db.Exec("ROLLBACK") }

func (w *writer) retryWhileBusy(ctx context.Context, f func() error) error {
	return retryWhileBusy(ctx, w.busyTimeout, f)
}

// retryWhileBusy calls f until it returns something else than that the database
// is locked, or until the timeout.
//
// SQLite can wait by itself, but with pauses that grow to 100 ms. If another
// process writes constantly, the lock is free only briefly, and such pauses can
// miss it for seconds.
func retryWhileBusy(ctx context.Context, timeout time.Duration, f func() error) error {
	start := time.Now()
	for {
		err := f()
		if !isBusy(err) {
			return err
		}
		if end := ctx.Err(); end != nil {
			return fmt.Errorf("another process kept the database locked: %w: %w", end, err)
		}
		if time.Since(start) >= timeout {
			return fmt.Errorf("another process kept the database locked for %v: %w", timeout, err)
		}
		time.Sleep(time.Duration(200+rand.IntN(800)) * time.Microsecond)
	}
}
