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
	// A flight takes at most batchLength requests, and no more once they have
	// batchBytes of data.
	batchLength = 256
	batchBytes  = 1 << 20

	// slowFlight is when a flight stops counting against its lane's limit: a
	// flight that waits for a locked row, or on a dead connection, must not
	// hold up the others.
	slowFlight = 25 * time.Millisecond
)

// A lane sends requests to the database in batches, called flights. If nothing
// is under way, a request is sent at once, alone, in its caller's goroutine:
// two switches to another goroutine take as long as the database does. Requests
// that arrive meanwhile share the next flight, which starts when that one
// returns, or earlier if there are many. So no request waits for a batch to
// fill, and batches grow with the load.
type lane[Q request, A any] struct {
	limit   int           // parallel flights
	crowd   int           // how many requests must wait to start a further parallel flight
	timeout time.Duration // of a flight
	// exclusive allows one request per session at a time: at most one in each
	// flight, and in one flight at a time.
	exclusive bool
	// carry carries out a flight's requests and answers them. It returns the
	// requests that need separate flights; for a single request it returns
	// none. An error means that the database is away: the requests without an
	// answer were not carried out, or are safe to repeat, and keep waiting.
	carry func(ctx context.Context, calls []*call[Q, A]) (rest []*call[Q, A], away error)

	inside atomic.Int64 // requests without an answer

	mu      sync.Mutex
	waiting []*call[Q, A]
	flying  int // flights that count against limit
	busy    map[store.ID]*flight[Q, A]

	// While the database is away, one flight at a time tests whether it is
	// back.
	away  error         // the reason; nil = the database is there
	pause time.Duration // before the next flight
	timed bool          // the timer for the next flight is running
}

// maxInside is the maximum number of waiting requests of a kind in each
// process.
const maxInside = 10_000

var errCrowded = fmt.Errorf("%d requests wait for the database already", maxInside)

// A request is one session's operation in a batch.
type request interface {
	session() store.ID
	kind() int // requests of different kinds do not share a flight
	size() int // of the data in it
	// shares reports whether a flight may have several such requests of one
	// session.
	shares() bool
}

type call[Q request, A any] struct {
	ctx    context.Context
	q      Q
	answer A
	err    error
	done   chan struct{} // closed once answer and err are set; nil if the caller carries it
	state  atomic.Int32
	flight *flight[Q, A] // guarded by the lane's mu; nil while waiting
	since  time.Time     // when it first failed because the database was away
}

const (
	callOpen = iota // nothing of it was sent
	callSent
	callAnswered
	callLeft // the caller no longer waits
)

// send reports whether a call must still be carried out, and marks it as sent.
func (c *call[Q, A]) send() bool {
	return c.state.CompareAndSwap(callOpen, callSent) || c.state.Load() == callSent
}

type flight[Q request, A any] struct {
	calls  []*call[Q, A]
	counts bool         // against the lane's limit; guarded by the lane's mu
	open   atomic.Int32 // calls without an answer whose callers still wait
	ctx    context.Context
	cancel context.CancelFunc
	proof  bool // it returned an answer of the database
}

// ownFlight marks the context of a flight in its caller's goroutine: when it
// ends, the caller waits for the statement to be canceled.
type ownFlight struct{}

// do carries out one request. When ctx ends first, do returns its error at
// once, or, if the request had its own flight, after canceling its statement;
// see withdrawal. The request may still be carried out then, unless judge says
// that the error is a refusal.
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

// leave removes a call whose caller no longer waits, and returns the error for it.
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
		c.flight.cancel() // no caller waits any more
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

// sendAll returns the calls that must still be carried out, without changing
// calls.
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

// launch starts as many flights as the limit allows. mu is held.
func (l *lane[Q, A]) launch() {
	for f := l.next(); f != nil; f = l.next() {
		go l.fly(f)
	}
}

// next returns the next flight to start, or nil. mu is held.
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

// collect returns a flight with the next waiting requests, or nil. mu is held.
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
		// A flight with several calls must not end with one caller's context.
		f.ctx, f.cancel = context.WithTimeout(context.WithoutCancel(c.ctx), l.timeout)
	}
	if l.exclusive {
		l.busy[c.q.session()] = f
	}
}

// fly carries a flight, and then the next ones while requests are waiting.
func (l *lane[Q, A]) fly(f *flight[Q, A]) {
	for f != nil {
		rest, away := l.lift(f)
		// Callers that were just answered often send the next request at once.
		// Letting them in makes the next batch larger.
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

// stay returns a flight's calls that were not carried out, and fails those that
// have waited for the lane's timeout. mu is held.
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

// lookSoon schedules look after a growing pause. mu is held.
func (l *lane[Q, A]) lookSoon() {
	if !l.timed {
		l.timed = true
		l.pause = longer(l.pause)
		time.AfterFunc(jitter(l.pause), l.look)
	}
}

// look sends a flight to test whether the database is back.
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
	l.away = nil // no request is waiting; the next one will test it
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

// overdue stops counting a slow flight, so that another one may start.
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
