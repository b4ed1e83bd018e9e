package postgres

import (
	"context"
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
	// own; of a single request it returns none.
	carry func(ctx context.Context, calls []*call[Q, A]) (rest []*call[Q, A])

	mu      sync.Mutex
	waiting []*call[Q, A]
	flying  int // flights that count
	busy    map[store.ID]*flight[Q, A]
}

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
}

const (
	callOpen = iota
	callAnswered
	callLeft // the caller waits no more
)

type flight[Q request, A any] struct {
	calls  []*call[Q, A]
	counts bool         // against the lane's limit; guarded by the lane's mu
	open   atomic.Int32 // calls that are neither answered nor left
	ctx    context.Context
	cancel context.CancelFunc
}

// ownFlight marks the context of a flight in its caller's goroutine: when that
// context ends, somebody is waiting to get away.
type ownFlight struct{}

// do has one request carried out. When ctx ends first, do returns its error at
// once, or, if it had the database for itself, when its statement was taken
// back, see withdrawal. The request may still be carried out then.
func (l *lane[Q, A]) do(ctx context.Context, q Q) (A, error) {
	var none A
	if err := ctx.Err(); err != nil {
		return none, err
	}
	c := &call[Q, A]{ctx: ctx, q: q}
	l.mu.Lock()
	if l.flying == 0 && len(l.waiting) == 0 && l.busy[q.session()] == nil {
		f := &flight[Q, A]{counts: true}
		f.ctx, f.cancel = context.WithTimeout(context.WithValue(ctx, ownFlight{}, true), l.timeout)
		l.board(f, c)
		l.flying++
		l.mu.Unlock()
		return l.flyAlone(f, c)
	}
	c.done = make(chan struct{})
	l.waiting = append(l.waiting, c)
	l.launch()
	l.mu.Unlock()
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
	}
	if !c.state.CompareAndSwap(callOpen, callLeft) {
		<-c.done
		return c.answer, c.err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.flight == nil {
		l.waiting = slices.DeleteFunc(l.waiting, func(w *call[Q, A]) bool { return w == c })
		return none, ctx.Err()
	}
	if c.flight.open.Add(-1) == 0 {
		c.flight.cancel() // nobody waits for any of it
	}
	return none, unknown(ctx)
}

func unknown(ctx context.Context) error {
	return fmt.Errorf("the outcome is unknown: %w", ctx.Err())
}

// flyAlone carries a flight of one call in its caller's goroutine.
func (l *lane[Q, A]) flyAlone(f *flight[Q, A], c *call[Q, A]) (A, error) {
	// Deferred, because a panic may be recovered from further up.
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.land(f)
		l.launch()
	}()
	l.lift(f)
	if c.err != nil && c.ctx.Err() != nil {
		var none A
		return none, unknown(c.ctx)
	}
	return c.answer, c.err
}

// settle answers a call, unless its caller has left.
func (c *call[Q, A]) settle(answer A, err error) {
	if !c.state.CompareAndSwap(callOpen, callAnswered) {
		return
	}
	c.answer, c.err = answer, err
	c.flight.open.Add(-1)
	if c.done != nil {
		close(c.done)
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
	if l.flying >= l.limit || l.flying > 0 && len(l.waiting) < l.crowd {
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
		rest := l.lift(f)
		// The callers that were just answered often come back at once: letting
		// them in first makes the next batch longer.
		runtime.Gosched()

		l.mu.Lock()
		l.land(f)
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

// land ends a flight. mu is held.
func (l *lane[Q, A]) land(f *flight[Q, A]) {
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
}

// lift carries one flight.
func (l *lane[Q, A]) lift(f *flight[Q, A]) (rest []*call[Q, A]) {
	slow := time.AfterFunc(slowFlight, func() { l.overdue(f) })
	defer slow.Stop()
	defer f.cancel()
	return l.carry(f.ctx, f.calls)
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
}
