package tiered

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// layer is a Layer at work.
type layer struct {
	Layer
	inProcess bool
	breaker   breaker
	failures  atomic.Uint64
}

// entry is what a cache holds under a key: a copy, or a reader's lease.
type entry struct {
	rec   store.Record
	lease bool
}

// The first byte of an entry is its kind.
const (
	kindCopy  = 1 // the record's binary form follows
	kindLease = 2 // 8 random bytes follow
)

// leaseTime bounds how long a reader that died keeps others from filling.
const leaseTime = 5 * time.Second

func encodeCopy(rec store.Record) ([]byte, error) {
	return rec.AppendBinary(append(make([]byte, 0, 160+len(rec.Data)), kindCopy))
}

func encodeLease() []byte {
	return binary.BigEndian.AppendUint64([]byte{kindLease}, newNonce())
}

// decodeEntry reads an entry of the session id. Anything else under its key is
// as good as a lease that will never be filled: it goes by its time to live.
func decodeEntry(id store.ID, b []byte) (entry, error) {
	if len(b) == 0 {
		return entry{}, store.ErrFormat
	}
	switch b[0] {
	case kindLease:
		return entry{lease: true}, nil
	case kindCopy:
		var e entry
		if err := e.rec.UnmarshalBinary(b[1:]); err != nil {
			return entry{}, err
		}
		if e.rec.ID != id || e.rec.IsEnd() {
			return entry{}, store.ErrFormat
		}
		return e, nil
	default:
		return entry{}, store.ErrFormat
	}
}

var errPassedOver = errors.New("tiered: the cache is passed over after a failure")

// call runs f with the layer's timeout, unless the layer failed a moment ago.
// A miss and a lost race are no failures.
func (l *layer) call(ctx context.Context, f func(ctx context.Context) error) error {
	if !l.breaker.allow(time.Now()) {
		return errPassedOver
	}
	once, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	err := f(once)
	failed := err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict)
	if failed && ctx.Err() != nil {
		// The caller gave up; that says nothing about the cache.
		l.breaker.unknown()
		return err
	}
	if failed {
		l.failures.Add(1)
	}
	l.breaker.report(time.Now(), !failed)
	return err
}

func (l *layer) get(ctx context.Context, id store.ID) (e entry, token uint64, err error) {
	var b []byte
	err = l.call(ctx, func(ctx context.Context) error {
		var err error
		b, token, err = l.Cache.Get(ctx, id)
		return err
	})
	if err != nil {
		return entry{}, 0, err
	}
	e, err = decodeEntry(id, b)
	if err != nil {
		// Not ours: whatever it is, nobody can use it.
		l.delete(ctx, id)
		return entry{}, 0, store.ErrNotFound
	}
	return e, token, nil
}

func (l *layer) lease(ctx context.Context, id store.ID) (token uint64, ok bool) {
	err := l.call(ctx, func(ctx context.Context) error {
		var err error
		token, err = l.Cache.Add(ctx, id, encodeLease(), min(leaseTime, l.MaxStale))
		return err
	})
	return token, err == nil
}

func (l *layer) swap(ctx context.Context, id store.ID, token uint64, rec store.Record) error {
	b, err := encodeCopy(rec)
	if err != nil {
		return err
	}
	return l.call(ctx, func(ctx context.Context) error {
		return l.Cache.Swap(ctx, id, token, b, l.MaxStale)
	})
}

func (l *layer) delete(ctx context.Context, id store.ID) {
	_ = l.call(ctx, func(ctx context.Context) error { return l.Cache.Delete(ctx, id) }) // counted
}

// renew replaces an older copy by rec, which the origin has just accepted, and
// deletes anything else that is not newer.
func (l *layer) renew(ctx context.Context, rec store.Record) {
	ctx = context.WithoutCancel(ctx)
	const tries = 3
	for range tries {
		e, token, err := l.get(ctx, rec.ID)
		switch {
		case err != nil:
			return // no copy to replace, or no way to reach it
		case e.lease:
			// Its reader may have asked the origin before this save.
			l.delete(ctx, rec.ID)
			return
		case e.rec.Version >= rec.Version:
			return
		}
		if err := l.swap(ctx, rec.ID, token, rec); !errors.Is(err, store.ErrConflict) {
			if err != nil {
				l.delete(ctx, rec.ID)
			}
			return
		}
	}
	l.delete(ctx, rec.ID)
}

// touch notes activity in a copy, so that it is not noted again and again.
func (l *layer) touch(ctx context.Context, id store.ID, seen, deadline time.Time) {
	e, token, err := l.get(ctx, id)
	if err != nil || e.lease || !seen.After(e.rec.Seen) {
		return
	}
	e.rec.Seen = seen
	if deadline.After(e.rec.Deadline) {
		e.rec.Deadline = deadline
	}
	_ = l.swap(ctx, id, token, e.rec) // a lost race means a newer copy
}

// breaker lets a cache that failed rest for a while, so that a dead or frozen
// one costs one timeout and not one per request.
type breaker struct {
	mu      sync.Mutex
	until   time.Time // passed over until then
	rest    time.Duration
	probing bool
}

const (
	shortestRest = 250 * time.Millisecond
	longestRest  = 5 * time.Second
)

// allow reports whether a call may go out now. After a rest one call at a time
// finds out whether the cache is back.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest == 0 {
		return true
	}
	if now.Before(b.until) || b.probing {
		return false
	}
	b.probing = true
	return true
}

func (b *breaker) report(now time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if ok {
		b.rest = 0
		return
	}
	b.rest = min(max(2*b.rest, shortestRest), longestRest)
	b.until = now.Add(b.rest)
}

// unknown ends a call that proved nothing.
func (b *breaker) unknown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

func (b *breaker) isOpen(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest != 0 && (now.Before(b.until) || b.probing)
}
