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
	// queueLength is how many requests may wait.
	queueLength = 10_000

	// A transaction takes at most batchLength requests, and no further one once
	// they have batchBytes of data.
	batchLength = 256
	batchBytes  = 8 << 20
)

var errCrowded = fmt.Errorf("%w: %d requests are waiting to be written already", store.ErrRefused, queueLength)

// The writer lets one transaction at a time happen. A request that finds nothing
// under way is carried out in its caller's goroutine: waking up another one twice
// takes as long as the rest of it. Those that come meanwhile are committed together
// when it is done: one wait for the disk serves them all.
type writer struct {
	db          *sql.DB // one connection, of whoever has set busy
	tx          transaction
	begin       *sql.Stmt
	commit      *sql.Stmt
	busyTimeout time.Duration
	file        *file

	mu      sync.Mutex
	busy    bool       // somebody is writing, or has been asked to
	free    *sync.Cond // busy has become false
	crowd   bool       // the last transaction had several requests: more are about to come
	waiting []*request
	holds   []chan struct{} // who waits to have the writer held; closed when it is
	closed  bool

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
	// quickly does it in one statement, which needs no transaction around it, and
	// reports whether that was enough; otherwise it has changed nothing. nil = it
	// takes more.
	quickly func(*transaction) (done bool, err error)

	taken atomic.Bool // it is being carried out, or its caller has left
	// done receives the outcome once it is on the disk. It never blocks the
	// writer.
	done chan error
}

// newWriter takes over a pool of one connection to a file that is prepared.
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

// do has a function run in a transaction, and returns its error once the
// transaction is on the disk. The function may be run again after a rollback.
// size is about how many bytes it writes; quickly may be nil, see request.
//
// When ctx ends before the transaction begins, do returns its error, and the
// function never runs. When it ends while others' requests are in the same
// transaction, do returns its error, and the function may still run.
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

// pass lets go of the writer, or has those served that wait for it.
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

// write serves those that wait until nobody does.
func (w *writer) write() {
	for {
		// The callers that were just answered often come back at once.
		// Letting them in first doubles what a commit carries.
		runtime.Gosched()
		w.mu.Lock()
		if len(w.holds) > 0 {
			held := w.holds[0]
			w.holds = w.holds[1:]
			w.mu.Unlock()
			close(held) // which passes it on
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

// hold runs a function while nothing is being written, unless the writer has
// stopped.
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

// stop lets nothing in any more, and waits for what is in the queue.
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
// one of them cannot be done, none of them is, and each gets a transaction of
// its own.
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

// failedRequest is the error of a request that could not be done.
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
			outcomes[i] = refused(err) // nobody waits for it any more
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
		default: // it has not come round to the last one yet
		}
	}
}

// rollback ends a transaction that some errors have ended already: then it
// fails, which does no harm.
func (w *writer) rollback() { _, _ = w.db.Exec("ROLLBACK") }

func (w *writer) retryWhileBusy(ctx context.Context, f func() error) error {
	return retryWhileBusy(ctx, w.busyTimeout, f)
}

// retryWhileBusy calls f until its error is another one than that the database
// is locked, or the time is over.
//
// SQLite can wait by itself, but does so with pauses that grow to 100 ms. Next
// to a process that writes all the time, the lock is free for moments only,
// which such pauses miss for seconds.
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
