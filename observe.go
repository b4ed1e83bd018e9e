package sojourn

import (
	"context"
	"errors"
	"log/slog"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
)

// observer counts and logs what happens in the store. It is a type of its own, so
// that its methods are none of the Manager's.
type observer struct{ m *core }

func (o observer) Loaded()        { o.m.count.loads.Add(1) }
func (o observer) Saved()         { o.m.count.saves.Add(1) }
func (o observer) Conflicted()    { o.m.count.conflicts.Add(1) }
func (o observer) Retried()       { o.m.count.retries.Add(1) }
func (o observer) Touched()       { o.m.count.touches.Add(1) }
func (o observer) VolatileSaved() { o.m.count.volatile.Add(1) }

func (o observer) StoreFailed(ctx context.Context, doing string, err error) error {
	return o.m.storeFailed(ctx, doing, err)
}

func (o observer) Damaged(id store.ID, err error) {
	o.m.count.damaged.Add(1)
	o.m.log.Report(slog.LevelError, "a stored session does not open: its record was damaged or moved",
		slog.String("session", id.String()), slog.Any("error", err))
}

func (o observer) KeyLacking(id store.ID) {
	o.m.log.Report(slog.LevelError, "a stored session cannot be opened: the key ring lacks its key",
		slog.String("session", id.String()))
}

func (o observer) LostWrites(id store.ID) {
	o.m.count.lost.Add(1)
	o.m.log.Error("the store answered with an older version of a session than was seen before: it has lost writes",
		slog.String("session", id.String()))
}

func (o observer) Mended() {
	o.m.log.Report(slog.LevelWarn, "a session was used or created in the future: the clock of a machine is wrong, or was; the session's lifetime begins now")
}

// gaveUp reports whether a call failed because its caller waits no longer: a
// client that left, or Close.
func gaveUp(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// storeFailed counts and logs that the store could not do something, and returns
// the error for it. A caller that gave up says nothing about the store; one
// whose deadline has passed does.
func (m *core) storeFailed(ctx context.Context, doing string, err error) error {
	if !gaveUp(ctx) {
		m.count.storeErrors.Add(1)
		m.log.Report(slog.LevelError, "the session store failed: could not "+doing, slog.Any("error", err))
	}
	return fault.Away(doing, err)
}
