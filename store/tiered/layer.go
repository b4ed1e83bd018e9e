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

// layer is a Layer at work.
type layer struct {
	Layer
	inProcess bool
	breaker   breaker
	missed    missed
	failures  atomic.Uint64
}

// entry is what a cache holds under a key: a copy, or a reader's lease.
type entry struct {
	rec   store.Record
	lease bool
}

// The first byte of an entry is its kind.
const (
	kindCopy     = 1 // the record's binary form follows
	kindLease    = 2 // 8 random bytes follow
	kindVolatile = 3 // see volatile
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
		rec, err := store.Decode(id, b[1:])
		if err != nil || rec.IsEnd() {
			return entry{}, store.ErrFormat
		}
		return entry{rec: rec}, nil
	default:
		return entry{}, store.ErrFormat
	}
}

var errPassedOver = errors.New("tiered: the cache is passed over after a failure")

// call runs f with the layer's timeout, unless the layer failed a moment ago.
// A miss, a lost race, and an entry that is too large are no failures.
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
		// The caller gave up; that says nothing about the cache.
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

// tell logs that the cache went away, or has come back, and catches up then.
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
// cache was out of reach.
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
		return entry{}, 0, errPassedOver // whatever is there, it was not told
	}
	b, token, err := l.read(ctx, id)
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

func (l *layer) swap(ctx context.Context, id store.ID, token uint64, rec store.Record) error {
	b, err := encodeCopy(rec)
	if err != nil {
		return err
	}
	return l.call(ctx, func(ctx context.Context) error {
		return l.Cache.Swap(ctx, id, token, b, l.MaxStale)
	})
}

// delete reports whether the entry is surely gone. If not, that is made up for.
func (l *layer) delete(ctx context.Context, id store.ID) bool {
	err := l.call(ctx, func(ctx context.Context) error { return l.Cache.Delete(ctx, id) })
	if err != nil {
		l.missed.add(id)
		return false
	}
	l.missed.remove(id)
	return true
}

// renew replaces an older copy by rec, which the origin has just accepted, and
// deletes anything else that is not newer.
func (l *layer) renew(ctx context.Context, rec store.Record) {
	const tries = 3
	for range tries {
		e, token, err := l.get(ctx, rec.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return // no copy to replace
		case err != nil:
			l.missed.add(rec.ID)
			return
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
