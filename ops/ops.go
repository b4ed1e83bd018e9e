// Package ops has the operations on a [sojourn.Manager] that operators,
// dashboards and the command need and applications do not.
//
//	stats := ops.For(sessions).Stats()
package ops

import (
	"context"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/store"
)

// Ops has one manager's operations. It is safe for concurrent use.
type Ops struct {
	m       *sojourn.Manager
	manager manager
}

// manager has the methods that the root package provides; see package bridge.
type manager interface {
	Name() string
	Store() store.Store
	Find(ctx context.Context, handle string) (sojourn.Export, error)
	End(ctx context.Context, handle string) error
	Stats() bridge.Stats
	AdoptStats() map[string]adopt.Stats
	Streams() int
	Sweep(ctx context.Context) (int, error)
	SweepDue() time.Time
}

// For returns the Ops of a manager.
func For(m *sojourn.Manager) *Ops { return &Ops{m, bridge.Operator(m).(manager)} }

// Name returns Config.Name, or "session" if it was empty.
func (o *Ops) Name() string { return o.manager.Name() }

// Store returns Config.Store, for pages and programs that count its records
// (see [store.Counter]) or measure how fast it answers. It is nil with
// CookieOnly. Do not change records through it: that breaks the manager's
// promises.
func (o *Ops) Store() store.Store { return o.manager.Store() }

// Find returns the live stored session with that handle, of any user, with its
// values; sojourn.ErrNotFound if there is none. It is for operators: users may
// only see the sessions that Manager.Sessions lists for them.
func (o *Ops) Find(ctx context.Context, handle string) (sojourn.Export, error) {
	return o.manager.Find(ctx, handle)
}

// End ends the session with that handle, of any user or anonymous;
// sojourn.ErrNotFound if there is none. It is for operators: for users ending
// their own sessions, use Manager.Revoke.
func (o *Ops) End(ctx context.Context, handle string) error { return o.manager.End(ctx, handle) }

// Streams returns how many requests are now waiting for the end of their
// session: those that called Session.Done and have not finished.
func (o *Ops) Streams() int { return o.manager.Streams() }

// Sweep removes sessions and tombstones that expired more than an hour ago, in
// small batches, and returns how many. A process that saves sessions sweeps by
// itself about every ten minutes, so call Sweep only where nothing is saved for
// a long time. Stores that expire records by themselves have nothing to sweep.
func (o *Ops) Sweep(ctx context.Context) (int, error) { return o.manager.Sweep(ctx) }

// SweepDue returns when this process will sweep next: with the first session
// that it saves at or after that time. It is the zero time if there is no
// store, or the store expires records by itself.
func (o *Ops) SweepDue() time.Time { return o.manager.SweepDue() }
