package postgres

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	// A flight takes at most batchLength requests, and no further one once they
	// have batchBytes of data.
	batchLength = 256
	batchBytes  = 1 << 20

	// slowFlight is after how long a flight no longer counts against its lane's
	// limit: one that waits for a locked row, or on a connection that swallows
	// everything, must not hold up the others.
	slowFlight = 25 * time.Millisecond
)

// A lane carries requests to the database. A request that finds nothing under
// way leaves at once, alone, and in its caller's goroutine: waking up another
// one twice takes as long as the database does. Those that come meanwhile leave
// together, when that flight is back, or before, once they are a crowd. So
// nobody waits for company, and batches grow with the load.
type lane[Q request, A any] struct {
	limit   int           // flights at once
	crowd   int           // how many wait before another flight leaves besides those under way
	timeout time.Duration // of a flight
	// exclusive keeps the requests of one session apart: in one flight at a
	// time, and in each flight at most one.
	exclusive bool
	// carry does what a flight's requests ask for and answers them. It returns
	// those that it could not answer and that shall each have a flight of their
	// own; of a single request it returns none. With an error, the database is away:
	// those that are not answered were not carried out either, or do no harm when
	// they are carried out twice, and go on waiting.
	carry func(ctx context.Context, calls []*call[Q, A]) (rest []*call[Q, A], away error)

	inside atomic.Int64 // requests that are not answered

	mu      sync.Mutex
	waiting []*call[Q, A]
	flying  int // flights that count
	busy    map[store.ID]*flight[Q, A]

	// While the database is away, one flight after the other looks whether it is
	// back, however many requests wait.
	away  error         // why; nil = it is there
	pause time.Duration // before the next flight
	timed bool          // that one's timer runs
}

// maxInside is how many requests of a kind wait for the database at most, in each
// process.
const maxInside = 10_000

var errCrowded = fmt.Errorf("%d requests wait for the database already", maxInside)

// A request is one session's part in a batch.
type request interface {
	session() store.ID
	kind() int // requests of different kinds do not go together
	size() int // of the data in it
	// shares reports whether it goes together with another one of the same
	// session, kind and flight.
	shares() bool
}

type call[Q request, A any] struct {
	ctx    context.Context
	q      Q
	answer A
	err    error
	done   chan struct{} // closed once answer and err are there; nil if the caller carries it
	state  atomic.Int32
	flight *flight[Q, A] // guarded by the lane's mu; nil while waiting
	since  time.Time     // when it first met a database that was away
}

const (
	callOpen = iota // nothing of it was sent
	callSent
	callAnswered
	callLeft // the caller waits no more
)

// send reports whether a call is still to be carried out, and notes that it may
// have been from now on.
func (c *call[Q, A]) send() bool {
	return c.state.CompareAndSwap(callOpen, callSent) || c.state.Load() == callSent
}

type flight[Q request, A any] struct {
	calls  []*call[Q, A]
	counts bool         // against the lane's limit; guarded by the lane's mu
	open   atomic.Int32 // calls that are neither answered nor left
	ctx    context.Context
	cancel context.CancelFunc
	proof  bool // it has come back with an answer of the database
}

// ownFlight marks the context of a flight in its caller's goroutine: when that
// context ends, somebody is waiting to get away.
type ownFlight struct{}

// do has one request carried out. When ctx ends first, do returns its error at
// once, or, if it had the database for itself, when its statement was taken
// back, see withdrawal. The request may still be carried out then, unless the
// error is one of those that judge calls refused.
func (l *lane[Q, A]) do(ctx context.Context, q Q) (A, error) {
	var none A
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if l.inside.Add(1) > maxInside {
		l.inside.Add(-1)
		return none, fmt.Errorf("%w: %w", errNotSent, errCrowded)
	}
	defer l.inside.Add(-1)
	c := &call[Q, A]{ctx: ctx, q: q}
	l.mu.Lock()
	if l.flying == 0 && len(l.waiting) == 0 && l.busy[q.session()] == nil && l.away == nil {
		f := &flight[Q, A]{counts: true}
		f.ctx, f.cancel = context.WithTimeout(context.WithValue(ctx, ownFlight{}, true), l.timeout)
		l.board(f, c)
		l.flying++
		l.mu.Unlock()
		if l.flyAlone(f, c) {
			return c.answer, c.err
		}
	} else {
		c.done = make(chan struct{})
		l.waiting = append(l.waiting, c)
		l.launch()
		l.mu.Unlock()
	}
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
	}
	switch {
	case c.state.CompareAndSwap(callOpen, callLeft):
		return none, l.leave(c, errNotSent)
	case c.state.CompareAndSwap(callSent, callLeft):
		return none, l.leave(c, errUnknown)
	}
	<-c.done
	return c.answer, c.err
}

var errUnknown = errors.New("the outcome is unknown")

// leave takes out a call whose caller waits no more, and says what is known.
func (l *lane[Q, A]) leave(c *call[Q, A], known error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := fmt.Errorf("%w: %w", known, c.ctx.Err())
	if l.away != nil {
		err = fmt.Errorf("%w: %w", err, l.away)
	}
	switch {
	case c.flight == nil:
		l.waiting = slices.DeleteFunc(l.waiting, func(w *call[Q, A]) bool { return w == c })
	case c.flight.open.Add(-1) == 0:
		c.flight.cancel() // nobody waits for any of it
	}
	return err
}

// flyAlone carries a flight of one call in its caller's goroutine, and reports
// whether the call was answered.
func (l *lane[Q, A]) flyAlone(f *flight[Q, A], c *call[Q, A]) bool {
	var away error
	// Deferred, because a panic may be recovered from further up.
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.land(f, away)
		l.launch()
	}()
	if _, away = l.lift(f); away != nil {
		c.done = make(chan struct{})
		return false
	}
	c.err = withEnd(c.ctx, c.err)
	return true
}

// sendAll returns the calls that are still to be carried out. It leaves calls as
// it is.
func sendAll[Q request, A any](calls []*call[Q, A]) []*call[Q, A] {
	for i, c := range calls {
		if !c.send() {
			open := slices.Clone(calls[:i])
			for _, c := range calls[i+1:] {
				if c.send() {
					open = append(open, c)
				}
			}
			return open
		}
	}
	return calls
}

// settle answers a call, unless its caller has left.
func (c *call[Q, A]) settle(answer A, err error) {
	if !c.state.CompareAndSwap(callSent, callAnswered) && !c.state.CompareAndSwap(callOpen, callAnswered) {
		return
	}
	c.answer, c.err = answer, err
	c.flight.open.Add(-1)
	if c.done != nil {
		close(c.done)
	}
}

// failAll answers all calls with one error.
func failAll[Q request, A any](calls []*call[Q, A], err error) {
	var none A
	for _, c := range calls {
		c.settle(none, err)
	}
}

// launch starts as many flights as there may be. mu is held.
func (l *lane[Q, A]) launch() {
	for f := l.next(); f != nil; f = l.next() {
		go l.fly(f)
	}
}

// next returns a flight that has to start, nil if there is none. mu is held.
func (l *lane[Q, A]) next() *flight[Q, A] {
	if l.away != nil || l.flying >= l.limit || l.flying > 0 && len(l.waiting) < l.crowd {
		return nil
	}
	f := l.collect()
	if f != nil {
		l.flying++
	}
	return f
}

// collect takes the requests of the next flight, nil if there are none. mu is
// held.
func (l *lane[Q, A]) collect() *flight[Q, A] {
	if len(l.waiting) == 0 {
		return nil
	}
	f := &flight[Q, A]{counts: true}
	bytes := 0
	stay := l.waiting[:0]
	for _, c := range l.waiting {
		if c.state.Load() == callLeft {
			continue
		}
		if len(f.calls) > 0 && (len(f.calls) == batchLength || c.q.kind() != f.calls[0].q.kind() || bytes+c.q.size() > batchBytes) {
			stay = append(stay, c)
			continue
		}
		if l.exclusive {
			if by := l.busy[c.q.session()]; by != nil && !(by == f && c.q.shares()) {
				stay = append(stay, c)
				continue
			}
		}
		bytes += c.q.size()
		l.board(f, c)
	}
	clear(l.waiting[len(stay):])
	l.waiting = stay
	if len(f.calls) == 0 {
		return nil
	}
	return f
}

// board puts a call on a flight. mu is held.
func (l *lane[Q, A]) board(f *flight[Q, A], c *call[Q, A]) {
	f.calls = append(f.calls, c)
	c.flight = f
	f.open.Add(1)
	if f.ctx == nil {
		// No caller's end ends the others' flight.
		f.ctx, f.cancel = context.WithTimeout(context.WithoutCancel(c.ctx), l.timeout)
	}
	if l.exclusive {
		l.busy[c.q.session()] = f
	}
}

// fly carries a flight, and goes on with the next one for as long as somebody
// waits.
func (l *lane[Q, A]) fly(f *flight[Q, A]) {
	for f != nil {
		rest, away := l.lift(f)
		// The callers that were just answered often come back at once: letting
		// them in first makes the next batch longer.
		runtime.Gosched()

		l.mu.Lock()
		l.land(f, away)
		for _, c := range rest {
			if c.state.Load() == callLeft {
				continue
			}
			alone := &flight[Q, A]{}
			l.board(alone, c)
			go l.fly(alone)
		}
		f = l.next()
		l.launch()
		l.mu.Unlock()
	}
}

// land ends a flight, after which the database is away or there. mu is held.
func (l *lane[Q, A]) land(f *flight[Q, A], away error) {
	if l.exclusive {
		for _, c := range f.calls {
			if l.busy[c.q.session()] == f {
				delete(l.busy, c.q.session())
			}
		}
	}
	if f.counts {
		f.counts = false
		l.flying--
	}
	switch {
	case away == nil && f.proof:
		l.away = nil
	case away != nil:
		if l.away == nil {
			l.pause = 0
		}
		l.away = away
		l.waiting = append(l.stay(f.calls), l.waiting...)
	}
	if l.away != nil {
		l.lookSoon()
	}
}

// stay returns those of a flight's calls that were not carried out, and answers
// those that have waited for as long as the lane allows. mu is held.
func (l *lane[Q, A]) stay(calls []*call[Q, A]) (back []*call[Q, A]) {
	for _, c := range calls {
		if !c.state.CompareAndSwap(callSent, callOpen) && c.state.Load() != callOpen {
			continue
		}
		if c.since.IsZero() {
			c.since = time.Now()
		}
		if time.Since(c.since) >= l.timeout {
			var none A
			c.settle(none, fmt.Errorf("%w: %w: %w", errNotSent, context.DeadlineExceeded, l.away))
			continue
		}
		c.flight = nil
		back = append(back, c)
	}
	return back
}

// lookSoon has the next flight look whether the database is back, after a pause
// that grows. mu is held.
func (l *lane[Q, A]) lookSoon() {
	if !l.timed {
		l.timed = true
		l.pause = longer(l.pause)
		time.AfterFunc(jitter(l.pause), l.look)
	}
}

// look sends a flight that shows whether the database is back.
func (l *lane[Q, A]) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timed = false
	if l.away == nil {
		return
	}
	if f := l.collect(); f != nil {
		l.flying++
		go l.fly(f)
		return
	}
	l.away = nil // nobody waits, and whoever comes next will see
}

// lift carries one flight.
func (l *lane[Q, A]) lift(f *flight[Q, A]) (rest []*call[Q, A], away error) {
	slow := time.AfterFunc(slowFlight, func() { l.overdue(f) })
	defer slow.Stop()
	defer f.cancel()
	rest, away = l.carry(f.ctx, f.calls)
	f.proof = away == nil && len(rest) < len(f.calls) && f.ctx.Err() == nil
	return rest, away
}

// overdue lets another flight start in place of a slow one.
func (l *lane[Q, A]) overdue(f *flight[Q, A]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.counts {
		f.counts = false
		l.flying--
		l.launch()
	}
	if l.away != nil {
		l.lookSoon()
	}
}
