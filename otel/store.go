package sojournotel

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// Store returns a store that measures each call to inner. It adds a span for
// the call if the context has a span already, so the manager's background work,
// such as polling the feed of ends, starts no traces. name distinguishes
// stores, such as "sqlite".
//
// Methods that inner does not have return [errors.ErrUnsupported]. Around a
// [tiered] store it measures what the manager waits for; around the store
// behind the caches, it measures the calls that pass them. The caller still
// closes inner.
func (t *Telemetry) Store(name string, inner store.Store) store.Store {
	s := &measured{t: t, inner: inner, name: storeKey.String(name)}
	// The manager treats stores with copies differently, so only those get
	// LoadFrom.
	_, floors := inner.(store.FloorLoader)
	_, volatile := inner.(store.VolatileKeeper)
	if floors || volatile {
		return &measuredCopies{s}
	}
	return s
}

// measured is a store whose calls are measured.
type measured struct {
	t     *Telemetry
	inner store.Store
	name  attribute.KeyValue
}

// measuredCopies is one with copies.
type measuredCopies struct{ *measured }

// do measures one call. The zero id is none.
func (s *measured) do(ctx context.Context, operation string, id store.ID, call func(ctx context.Context) error) error {
	var span trace.Span
	if trace.SpanContextFromContext(ctx).IsValid() {
		attributes := []attribute.KeyValue{s.name, operationKey.String(operation)}
		if id != (store.ID{}) {
			attributes = append(attributes, sessionKey.String(id.String()))
		}
		ctx, span = s.t.tracer.Start(ctx, "sojourn.store."+operation, trace.WithAttributes(attributes...))
		defer span.End()
	}
	start := time.Now()
	err := call(ctx)
	took := time.Since(start)
	result := outcome(err)
	if span != nil {
		span.SetAttributes(outcomeKey.String(result))
		if result == "error" || result == "timeout" {
			span.SetStatus(codes.Error, err.Error())
		}
	}
	if result != "unsupported" {
		s.t.duration.Record(ctx, took.Seconds(),
			metric.WithAttributes(s.name, operationKey.String(operation), outcomeKey.String(result)))
	}
	return err
}

// outcome is the word for a call's outcome.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrNotFound):
		return "not_found"
	case errors.Is(err, store.ErrConflict):
		return "conflict"
	case errors.Is(err, store.ErrLimit):
		return "limit"
	case errors.Is(err, store.ErrTooLarge):
		return "too_large"
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return "error"
	}
}

func (s *measured) Load(ctx context.Context, id store.ID) (rec store.Record, err error) {
	err = s.do(ctx, "load", id, func(ctx context.Context) (err error) {
		rec, err = s.inner.Load(ctx, id)
		return err
	})
	return rec, err
}

func (s *measured) Save(ctx context.Context, rec store.Record, base store.Base) error {
	return s.do(ctx, "save", rec.ID, func(ctx context.Context) error { return s.inner.Save(ctx, rec, base) })
}

func (s *measured) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return s.do(ctx, "delete", id, func(ctx context.Context) error { return s.inner.Delete(ctx, id, until) })
}

func (s *measured) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	inner, ok := s.inner.(store.Toucher)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.do(ctx, "touch", id, func(ctx context.Context) error { return inner.Touch(ctx, id, seen, deadline) })
}

func (s *measured) Sweep(ctx context.Context, age time.Duration, limit int) (n int, err error) {
	inner, ok := s.inner.(store.Sweeper)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	err = s.do(ctx, "sweep", store.ID{}, func(ctx context.Context) (err error) {
		n, err = inner.Sweep(ctx, age, limit)
		return err
	})
	return n, err
}

func (s *measured) ByUser(ctx context.Context, user store.UserHash) (recs []store.Record, err error) {
	inner, ok := s.inner.(store.UserIndex)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = s.do(ctx, "by_user", store.ID{}, func(ctx context.Context) (err error) {
		recs, err = inner.ByUser(ctx, user)
		return err
	})
	return recs, err
}

func (s *measured) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	inner, ok := s.inner.(store.UserLimiter)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = s.do(ctx, "save_limited", rec.ID, func(ctx context.Context) (err error) {
		ended, err = inner.SaveLimited(ctx, rec, limit)
		return err
	})
	return ended, err
}

func (s *measured) Ends(ctx context.Context, cursor string, limit int) (page store.EndPage, err error) {
	inner, ok := s.inner.(store.EndFeed)
	if !ok {
		return store.EndPage{}, errors.ErrUnsupported
	}
	err = s.do(ctx, "ends", store.ID{}, func(ctx context.Context) (err error) {
		page, err = inner.Ends(ctx, cursor, limit)
		return err
	})
	return page, err
}

func (s *measured) Scan(ctx context.Context, cursor string, limit int) (recs []store.Record, next string, err error) {
	inner, ok := s.inner.(store.Scanner)
	if !ok {
		return nil, "", errors.ErrUnsupported
	}
	err = s.do(ctx, "scan", store.ID{}, func(ctx context.Context) (err error) {
		recs, next, err = inner.Scan(ctx, cursor, limit)
		return err
	})
	return recs, next, err
}

func (s *measured) Count(ctx context.Context) (n store.Counts, err error) {
	inner, ok := s.inner.(store.Counter)
	if !ok {
		return store.Counts{}, errors.ErrUnsupported
	}
	err = s.do(ctx, "count", store.ID{}, func(ctx context.Context) (err error) {
		n, err = inner.Count(ctx)
		return err
	})
	return n, err
}

// CacheStats is the inner store's, or zeros.
func (s *measured) CacheStats() (hits, misses uint64) {
	if inner, ok := s.inner.(store.CacheCounter); ok {
		return inner.CacheStats()
	}
	return 0, 0
}

func (s *measuredCopies) LoadFrom(ctx context.Context, id store.ID, floor uint64) (rec store.Record, err error) {
	inner, ok := s.inner.(store.FloorLoader)
	if !ok {
		return s.Load(ctx, id)
	}
	err = s.do(ctx, "load", id, func(ctx context.Context) (err error) {
		rec, err = inner.LoadFrom(ctx, id, floor)
		return err
	})
	return rec, err
}

// Health returns the health of a [tiered.Store]'s caches.
func (s *measuredCopies) Health() []tiered.Health {
	if inner, ok := s.inner.(*tiered.Store); ok {
		return inner.Health()
	}
	return nil
}

func (s *measuredCopies) LoadVolatile(ctx context.Context, id store.ID, base store.Base) (v store.Volatile, err error) {
	inner, ok := s.inner.(store.VolatileKeeper)
	if !ok {
		return store.Volatile{}, errors.ErrUnsupported
	}
	err = s.do(ctx, "load_volatile", id, func(ctx context.Context) (err error) {
		v, err = inner.LoadVolatile(ctx, id, base)
		return err
	})
	return v, err
}

func (s *measuredCopies) SaveVolatile(ctx context.Context, id store.ID, base store.Base, prev store.SaveID, next store.Volatile, until time.Time) error {
	inner, ok := s.inner.(store.VolatileKeeper)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.do(ctx, "save_volatile", id, func(ctx context.Context) error {
		return inner.SaveVolatile(ctx, id, base, prev, next, until)
	})
}
