// Package ops is what operators, dashboards and the command need of a
// [sojourn.Manager], and an application does not.
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

// Ops watches over one manager. It is safe for concurrent use.
type Ops struct {
	m       *sojourn.Manager
	manager manager
}

// manager is what the root gives away; see package bridge.
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

// Store returns Config.Store, for pages and programs that watch over it: those
// that count its records (see [store.Counter]), or measure how fast it answers.
// It is nil with CookieOnly. What changes its records behind the manager's back
// breaks the manager's promises.
func (o *Ops) Store() store.Store { return o.manager.Store() }

// Find returns the live stored session with that handle, whoever's it is, with
// its values; sojourn.ErrNotFound if there is none. It is for operators: an
// application's own users may only see what Manager.Sessions lists for them.
func (o *Ops) Find(ctx context.Context, handle string) (sojourn.Export, error) {
	return o.manager.Find(ctx, handle)
}

// End ends the session with that handle, whoever's it is, anonymous ones
// included; sojourn.ErrNotFound if there is none. It is for operators: an
// application's own users end theirs with Manager.Revoke.
func (o *Ops) End(ctx context.Context, handle string) error { return o.manager.End(ctx, handle) }

// Streams returns how many requests wait for the end of their session now: those
// that have asked for Session.Done and are not over.
func (o *Ops) Streams() int { return o.manager.Streams() }

// Sweep removes sessions and tombstones that were over for more than an hour,
// in small batches, and returns how many. It also runs by itself in a process
// that saves sessions, about every ten minutes, so it is only needed where
// nothing is saved for a long time. Stores that expire records by themselves
// have nothing to sweep.
func (o *Ops) Sweep(ctx context.Context) (int, error) { return o.manager.Sweep(ctx) }

// SweepDue returns when this process will sweep next: with the first session that
// it saves at or after that time. It is the zero time where there is nothing to
// sweep, because the store expires records by itself or there is none.
func (o *Ops) SweepDue() time.Time { return o.manager.SweepDue() }
