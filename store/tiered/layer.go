package tiered

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// layer is a Layer with its state.
type layer struct {
	Layer
	inProcess bool
	breaker   breaker
	missed    missed
	failures  atomic.Uint64
}

// copied is a copy of a record, as the origin had it at asked or later.
type copied struct {
	rec           store.Record
	asked, filled time.Time
}

// entry is a cache's entry: a copy, or a reader's lease.
type entry struct {
	copied
	lease bool
}

// The first byte of an entry is its kind.
const (
	kindCopy     = 1 // the record's binary form follows
	kindLease    = 2 // 8 random bytes follow
	kindVolatile = 3 // see volatile
	kindNear     = 4 // asked and filled follow, 8 bytes each, and the record's binary form
)

// began is the zero of the times in copies in the process, which use the
// monotonic clock.
var began = time.Now()

// leaseTime bounds how long the lease of a dead reader keeps others from filling the cache.
const leaseTime = 5 * time.Second

func (l *layer) encode(c copied) ([]byte, error) {
	b := make([]byte, 0, 176+len(c.rec.Data))
	if !l.inProcess {
		return c.rec.AppendBinary(append(b, kindCopy))
	}
	b = binary.BigEndian.AppendUint64(append(b, kindNear), uint64(c.asked.Sub(began)))
	b = binary.BigEndian.AppendUint64(b, uint64(c.filled.Sub(began)))
	return c.rec.AppendBinary(b)
}

func encodeLease() []byte {
	return binary.BigEndian.AppendUint64([]byte{kindLease}, newNonce())
}

// decodeEntry decodes an entry of the session id. Other data under its key
// counts as a lease that is never filled: it stays until it expires.
func decodeEntry(id store.ID, b []byte) (e entry, err error) {
	if len(b) == 0 {
		return entry{}, store.ErrFormat
	}
	switch b[0] {
	case kindLease:
		return entry{lease: true}, nil
	case kindCopy:
		b = b[1:]
	case kindNear:
		if len(b) < 17 {
			return entry{}, store.ErrFormat
		}
		e.asked = began.Add(time.Duration(binary.BigEndian.Uint64(b[1:])))
		e.filled = began.Add(time.Duration(binary.BigEndian.Uint64(b[9:])))
		b = b[17:]
	default:
		return entry{}, store.ErrFormat
	}
	e.rec, err = store.Decode(id, b)
	if err != nil || e.rec.IsEnd() {
		return entry{}, store.ErrFormat
	}
	return e, nil
}

var errPassedOver = errors.New("tiered: the cache is passed over after a failure")

// call runs f with the layer's timeout, unless the layer failed recently. A
// miss, a lost race, and an entry that is too large are not failures.
func (l *layer) call(ctx context.Context, f func(ctx context.Context) error) error {
	if l.inProcess { // it neither waits nor fails
		return f(ctx)
	}
	p := l.breaker.allow(time.Now())
	if p == passOver {
		return errPassedOver
	}
	once, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	err := f(once)
	ok := err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrTooLarge)
	if !ok && ctx.Err() != nil {
		// The caller's context ended, which says nothing about the cache.
		l.breaker.unknown(p)
		return err
	}
	if !ok {
		l.failures.Add(1)
	}
	if l.breaker.report(time.Now(), p, ok) {
		l.tell(ok, err)
	}
	return err
}

// tell logs that the cache failed or is back, and then catches up.
func (l *layer) tell(back bool, err error) {
	if !back {
		l.Logger.Warn("a cache of session copies does not answer; it is passed over until it does",
			slog.String("cache", l.Name), slog.Any("error", err))
		return
	}
	l.Logger.Info("a cache of session copies answers again", slog.String("cache", l.Name))
	if l.missed.any() {
		go l.catchUp()
	}
}

// catchUp deletes the copies that could not be replaced or deleted while the
// cache was unreachable.
func (l *layer) catchUp() {
	for {
		id, ok := l.missed.next()
		if !ok || !l.delete(context.Background(), id) {
			return
		}
	}
}

func (l *layer) get(ctx context.Context, id store.ID) (e entry, token uint64, err error) {
	if l.missed.has(id) && !l.delete(ctx, id) {
		return entry{}, 0, errPassedOver // the entry may have missed an invalidation
	}
	b, token, err := l.read(ctx, id)
	if err != nil {
		return entry{}, 0, err
	}
	e, err = decodeEntry(id, b)
	if err != nil {
		// Not ours, so it is useless.
		l.delete(ctx, id)
		return entry{}, 0, store.ErrNotFound
	}
	return e, token, nil
}

func (l *layer) read(ctx context.Context, id store.ID) (b []byte, token uint64, err error) {
	err = l.call(ctx, func(ctx context.Context) error {
		var err error
		b, token, err = l.Cache.Get(ctx, id)
		return err
	})
	return b, token, err
}

func (l *layer) lease(ctx context.Context, id store.ID) (token uint64, ok bool) {
	err := l.call(ctx, func(ctx context.Context) error {
		var err error
		token, err = l.Cache.Add(ctx, id, encodeLease(), min(leaseTime, l.MaxStale))
		return err
	})
	return token, err == nil
}

func (l *layer) swap(ctx context.Context, id store.ID, token uint64, c copied) error {
	b, err := l.encode(c)
	if err != nil {
		return err
	}
	return l.call(ctx, func(ctx context.Context) error {
		return l.Cache.Swap(ctx, id, token, b, l.MaxStale)
	})
}

// delete reports whether the entry was certainly deleted. If not, it is deleted later.
func (l *layer) delete(ctx context.Context, id store.ID) bool {
	err := l.call(ctx, func(ctx context.Context) error { return l.Cache.Delete(ctx, id) })
	if err != nil {
		l.missed.add(id)
		return false
	}
	l.missed.remove(id)
	return true
}

// renew replaces an older copy with c, which the origin has just accepted, and
// deletes any other entry that is not newer.
func (l *layer) renew(ctx context.Context, c copied) {
	const tries = 3
	for range tries {
		e, token, err := l.get(ctx, c.rec.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return // no copy to replace
		case err != nil:
			l.missed.add(c.rec.ID)
			return
		case e.lease:
			// Its reader may have loaded from the origin before this save.
			l.delete(ctx, c.rec.ID)
			return
		case e.rec.Version >= c.rec.Version:
			return
		}
		if err := l.swap(ctx, c.rec.ID, token, c); !errors.Is(err, store.ErrConflict) {
			if err != nil {
				l.delete(ctx, c.rec.ID)
			}
			return
		}
	}
	l.delete(ctx, c.rec.ID)
}
