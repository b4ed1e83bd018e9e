package stored

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
)

// FetchTime bounds the fetch of a new value.
const FetchTime = 30 * time.Second

// Renewal replaces a value of a stored session, once for all concurrent
// requests.
type Renewal struct {
	State *State // the session as the request has it
	Slot  draft.Slot
	// Stale is called for the state that is about to be changed.
	Stale func(raw []byte) (bool, error)
	// Fetch returns the new value for the old one. No lock is held, and no queue
	// waits, while it runs.
	Fetch func(ctx context.Context, raw []byte) ([]byte, error)
	// Unheard is called with an error that occurs after Renew has returned
	// because its context ended.
	Unheard func(error)
}

// Renewed is a session after a Renewal, as far as known.
type Renewed struct {
	State *State // nil = unknown
	// Raw is the value. With fault.Ended, fault.NoValue and fault.TooLarge it
	// is the fetched value, which could not be saved; nil = none.
	Raw []byte
}

// Renew returns the value, replaced first if it is stale. The error is Stale's, or
// it wraps fault.Renew if Fetch has failed, fault.Ended, fault.NoValue,
// fault.TooLarge, fault.Closed, fault.Unavailable or the cause of ctx.
func (s *Sessions) Renew(ctx context.Context, r Renewal) (Renewed, error) {
	k := leaseKey{r.State.ID, r.Slot.Name}
	for {
		if ctx.Err() != nil {
			return Renewed{}, tired(ctx)
		}
		f, mine := s.leases.join(k)
		if mine {
			(&leader{s, &r, k, f}).lead(ctx)
		}
		if err := f.wait(ctx, s.Timeout); err != nil {
			if mine {
				f.leave()
			}
			return Renewed{}, err
		}
		switch {
		case f.again:
			continue
		case f.panicked != nil && mine:
			panic(f.panicked)
		}
		return f.result, f.err
	}
}

// flight is a Renewal under way, for which other requests in this process wait.
type flight struct {
	k       leaseKey
	of      *leases
	fetched chan struct{} // closed when Fetch has returned
	done    chan struct{}
	// The following are set before done is closed. again: the request that
	// began it has left before anything was fetched.
	again    bool
	result   Renewed
	err      error
	panicked any

	left bool        // the request that began it no longer waits; guarded by of.mu
	held chan *State // another process has the lease
}

// join returns the flight of a value. mine means that the caller begins it.
func (ls *leases) join(k leaseKey) (f *flight, mine bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if f := ls.flights[k]; f != nil {
		return f, false
	}
	if ls.flights == nil {
		ls.flights = map[leaseKey]*flight{}
	}
	f = &flight{k: k, of: ls, fetched: make(chan struct{}), done: make(chan struct{}), held: make(chan *State, 1)}
	ls.flights[k] = f
	return f, true
}

// finish ends the flight. It reports whether its beginner has left.
func (f *flight) finish(result Renewed, err error) (left bool) {
	f.result, f.err = result, err
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	delete(f.of.flights, f.k)
	close(f.done)
	return f.left
}

func (f *flight) hand(st *State) {
	f.of.mu.Lock()
	left := f.left
	if !left {
		f.held <- st
	}
	f.of.mu.Unlock()
	if left {
		f.again = true
		f.finish(Renewed{}, nil)
	}
}

func (f *flight) leave() {
	f.of.mu.Lock()
	f.left = true
	f.of.mu.Unlock()
	select {
	case <-f.held:
		f.again = true
		f.finish(Renewed{}, nil)
	default:
	}
}

func tired(ctx context.Context) error {
	return fmt.Errorf("sojourn: wait for a value that is being renewed: %w", context.Cause(ctx))
}

var errNotKept = errors.New("what was fetched is not kept yet")

// wait waits until the flight ends; once a value is fetched, for no longer than
// the store's timeout.
func (f *flight) wait(ctx context.Context, timeout time.Duration) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return tired(ctx)
	case <-f.fetched:
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return tired(ctx)
	case <-t.C:
		return fault.Away("save", errNotKept)
	}
}

// leader is the request that begins a flight. It waits for leases of other
// processes with its own context, but does the work independently of it.
type leader struct {
	s *Sessions
	r *Renewal
	k leaseKey
	f *flight
}

// lead returns when the flight has ended, has fetched a value, or ctx has ended.
func (w *leader) lead(ctx context.Context) {
	st := w.r.State
	for st != nil {
		base := st
		if err := w.s.goes(func() { (&holder{leader: *w, ctx: context.WithoutCancel(ctx)}).run(base) }); err != nil {
			w.f.finish(Renewed{}, err)
			return
		}
		select {
		case st = <-w.f.held:
			st = w.watch(ctx, st)
		case <-w.f.fetched:
			return
		case <-w.f.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// goes runs f in another goroutine, for which Close waits.
func (s *Sessions) goes(f func()) error {
	if s.Go == nil {
		go f()
		return nil
	}
	return s.Go(f)
}

// stopped is closed when the process ends.
func (s *Sessions) stopped() <-chan struct{} {
	if s.Stop == nil {
		return nil
	}
	return s.Stop.Done()
}

// watch waits for the holder of a lease in another process. It returns the
// state in which the lease may be taken, or nil if the flight has ended.
func (w *leader) watch(ctx context.Context, st *State) *State {
	s, name := w.s, w.k.name
	first := leaseOf(st, name)
	old, _ := liveValue(st, name, s.Now())
	failing := time.Time{}
	pause := firstLook
	for {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.stopped():
			t.Stop()
			w.f.finish(Renewed{}, fault.Closed)
			return nil
		case <-ctx.Done():
			t.Stop()
			w.f.again = true
			w.f.finish(Renewed{}, nil)
			return nil
		}
		pause = nextLook(pause, first.ttl())
		begin := time.Now()
		now, err := s.look(ctx, w.k, st.Who)
		switch {
		case errors.Is(err, ErrGone):
			w.f.finish(Renewed{}, fault.Ended)
			return nil
		case err != nil && ctx.Err() != nil:
			continue
		case err != nil:
			if failing.IsZero() {
				failing = begin
			}
			if time.Since(failing) >= s.Timeout {
				w.f.finish(Renewed{}, err)
				return nil
			}
			continue
		}
		failing = time.Time{}
		l := leaseOf(now, name)
		raw, ok := liveValue(now, name, s.Now())
		switch changed := !bytes.Equal(raw, old); {
		case !ok:
			w.f.finish(Renewed{State: now}, fault.NoValue)
			return nil
		case changed && (l.Nonce != first.Nonce || !w.stale(raw)):
			w.f.finish(Renewed{now, raw}, nil)
			return nil
		case l.Fails > first.Fails:
			w.f.finish(Renewed{now, raw}, fault.Renew)
			return nil
		case !s.leases.held(w.k, l):
			return now
		case s.leases.suspect(w.k, l):
			s.knock(ctx, w.k, now)
		}
		first, old = l, raw
	}
}

// stale calls Stale where an error or a panic must not prevent saving the
// fetched value.
func (w *leader) stale(raw []byte) (stale bool) {
	stale = true
	defer func() { _ = recover() }()
	if is, err := w.r.Stale(raw); err == nil {
		return is
	}
	return stale
}

// holder takes a lease, fetches, and saves the result.
type holder struct {
	leader
	ctx   context.Context
	lease lease
	old   []byte // the input of Fetch
	seen  *State // the session, with another process's lease
	fresh bool   // the value was not stale
}

var (
	errHeld    = errors.New("sojourn: somebody else has the lease")
	errAborted = errors.New("the function has panicked or ended its goroutine")
)

// run takes the lease in st or a newer state, and ends the flight, or passes on
// the state with another process's lease.
func (h *holder) run(st *State) {
	s, f := h.s, h.f
	var result Renewed
	err := fmt.Errorf("%w: %w", fault.Renew, errAborted)
	defer func() {
		if p := recover(); p != nil {
			f.panicked = p
		}
		if h.seen != nil {
			f.hand(h.seen)
		} else if f.finish(result, err) && err != nil && h.r.Unheard != nil {
			h.r.Unheard(err)
		}
	}()
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	h.lease = lease{Nonce: binary.LittleEndian.Uint64(b[:]) | 1, Beat: 1, TTL: s.leaseTTL().Milliseconds()}
	cur, taking := h.take(st)
	switch {
	case errors.Is(taking, errHeld):
		return
	case errors.Is(taking, ErrGone):
		err = fault.Ended
		return
	case taking != nil:
		err = taking
		if errors.Is(err, fault.Unavailable) {
			s.leases.blind(h.k.id)
		}
		if errors.Is(err, fault.ErrUnknown) {
			s.leases.abandon(h.k, h.lease)
		}
		return
	case h.fresh:
		raw, _ := liveValue(cur, h.k.name, s.Now())
		result, err = Renewed{cur, raw}, nil
		return
	}
	raw, failed := h.fetch(cur)
	close(f.fetched)
	if failed != nil {
		cur, raw = h.fail(cur)
		result, err = Renewed{cur, raw}, fmt.Errorf("%w: %w", fault.Renew, failed)
		return
	}
	result, err = h.keep(cur, raw)
}

func (h *holder) take(st *State) (*State, error) {
	ctx, cancel := h.s.Bounded(h.ctx)
	defer cancel()
	return h.s.Edit(ctx, st, func(cur *State) (*draft.Draft, error) {
		d := h.draft(cur)
		h.fresh, h.seen = false, nil
		raw, ok := liveValue(cur, h.k.name, h.s.Now())
		if !ok {
			return nil, fmt.Errorf("%w: %q", fault.NoValue, h.k.name)
		}
		if stale, err := h.r.Stale(raw); err != nil || !stale {
			h.fresh = true
			return d, err
		}
		there := leaseOf(cur, h.k.name)
		if h.s.leases.held(h.k, there) {
			h.seen = cur
			return nil, errHeld
		}
		h.old = raw
		// The new value may be twice as long, and the record must still have
		// space for it.
		h.lease.Fails, h.lease.Room = there.Fails, make([]byte, len(raw))
		return d, h.lease.put(d, h.k.name)
	})
}

func (h *holder) draft(cur *State) *draft.Draft {
	d := &draft.Draft{Now: h.s.Now}
	d.Start(&cur.Rec)
	return d
}

// fetch calls Fetch, and beats meanwhile. It abandons a Fetch that does not end
// with its context.
func (h *holder) fetch(st *State) ([]byte, error) {
	ctx, cancel := context.WithTimeout(h.ctx, FetchTime)
	defer cancel()
	type fetched struct {
		raw      []byte
		err      error
		panicked any
	}
	done := make(chan fetched, 1)
	go func() {
		got := fetched{err: errAborted}
		defer func() { done <- got }()
		defer func() { got.panicked = recover() }()
		raw, err := h.r.Fetch(ctx, h.old)
		got.raw, got.err = raw, err
	}()
	late := time.NewTimer(FetchTime + h.s.Timeout)
	defer late.Stop()
	every := time.NewTicker(h.lease.ttl() / beatsPerTTL)
	defer every.Stop()
	for {
		select {
		case got := <-done:
			h.f.panicked = got.panicked
			return got.raw, got.err
		case <-late.C:
			return nil, context.DeadlineExceeded
		case <-every.C:
			h.beat(st)
		}
	}
}

// beat writes that the holder is alive. If it fails, the next beat may succeed.
func (h *holder) beat(st *State) {
	ctx, cancel := context.WithTimeout(h.ctx, h.s.Timeout)
	defer cancel()
	_, _ = h.s.Edit(ctx, st, func(cur *State) (*draft.Draft, error) {
		d := h.draft(cur)
		if leaseOf(cur, h.k.name).Nonce != h.lease.Nonce {
			return d, nil
		}
		next := h.lease
		next.Beat++
		h.lease.Beat = next.Beat
		return d, next.put(d, h.k.name)
	})
}

// persist repeats f while the store is unavailable and the process runs.
// Closing ends that with one last attempt.
func (h *holder) persist(f func(ctx context.Context) (*State, error)) (*State, error) {
	pause := firstLook
	for {
		stopping := false
		select {
		case <-h.s.stopped():
			stopping = true
		default:
		}
		ctx, cancel := context.WithTimeout(h.ctx, h.s.Timeout)
		st, err := f(ctx)
		cancel()
		if stopping || !errors.Is(err, fault.Unavailable) && !errors.Is(err, errHeld) {
			return st, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-h.s.stopped():
			t.Stop()
		}
		pause = min(2*pause, longestLook)
	}
}

// keep saves only the fetched value and the end of the lease.
func (h *holder) keep(st *State, raw []byte) (Renewed, error) {
	name, kept := h.k.name, raw
	cur, err := h.persist(func(ctx context.Context) (*State, error) {
		cur, err := h.s.Edit(ctx, st, func(cur *State) (*draft.Draft, error) {
			d := h.draft(cur)
			there := leaseOf(cur, name)
			mine := there.Nonce == h.lease.Nonce
			value, ok := liveValue(cur, name, h.s.Now())
			free := lease{}
			switch {
			case !ok && !mine:
				return nil, fault.NoValue
			case !ok:
				kept = nil
				return d, free.put(d, name)
			case !mine && !bytes.Equal(value, h.old):
				// Stored by an attempt with an unknown outcome, or by another process.
				kept = value
				return d, nil
			case !mine && h.s.leases.held(h.k, there):
				return nil, errHeld
			case !bytes.Equal(value, h.old) && !h.stale(value):
				kept = value
				return d, free.put(d, name)
			}
			kept = raw
			d.Set(h.r.Slot, raw, true)
			return d, free.put(d, name)
		})
		if errors.Is(err, errHeld) {
			// Another process considered this one dead, and uses the same old
			// value. If it fails, our result is still there.
			_, _ = h.s.look(ctx, h.k, st.Who)
		}
		return cur, err
	})
	switch {
	case err == nil && kept == nil, errors.Is(err, fault.NoValue):
		return Renewed{cur, raw}, fault.NoValue
	case err == nil:
		return Renewed{cur, kept}, nil
	case errors.Is(err, ErrGone):
		return Renewed{nil, raw}, fault.Ended
	case errors.Is(err, errHeld):
		return Renewed{}, fault.Away("save", err)
	case errors.Is(err, fault.TooLarge):
		_, _ = h.fail(st)
		return Renewed{nil, raw}, err
	default:
		return Renewed{}, err
	}
}

// fail ends the lease without a value, and records the failure for waiting processes.
func (h *holder) fail(st *State) (*State, []byte) {
	cur, err := h.persist(func(ctx context.Context) (*State, error) {
		return h.s.Edit(ctx, st, func(cur *State) (*draft.Draft, error) {
			d := h.draft(cur)
			there := leaseOf(cur, h.k.name)
			if there.Nonce != h.lease.Nonce {
				return d, nil
			}
			failed := lease{TTL: there.TTL, Fails: there.Fails + 1}
			return d, failed.put(d, h.k.name)
		})
	})
	if err != nil || cur == nil {
		return nil, nil
	}
	raw, _ := liveValue(cur, h.k.name, h.s.Now())
	return cur, raw
}
