package sojourn

import (
	"context"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/store"
)

func init() { bridge.Operator = func(m any) any { return operator{m.(*Manager)} } }

// operator has the methods of a manager that package ops makes public, and
// documents.
type operator struct{ m *Manager }

func (o operator) Name() string { return o.m.name }

func (o operator) Store() store.Store { return o.m.store }

func (o operator) Find(ctx context.Context, handle string) (Export, error) {
	st, err := o.m.findHandle(ctx, handle, 0)
	if err != nil {
		return Export{}, err
	}
	return o.m.export(st), nil
}

func (o operator) End(ctx context.Context, handle string) error {
	st, err := o.m.findHandle(ctx, handle, rules.Skew)
	if err != nil {
		return err
	}
	return o.m.revokeWithin(ctx, st, ReasonRevoked)
}

func (o operator) Streams() int { return o.m.ends.Waiting() }

func (o operator) Sweep(ctx context.Context) (int, error) { return o.m.sweep(ctx) }

func (o operator) SweepDue() time.Time {
	if _, ok := o.m.store.(store.Sweeper); !ok {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(time.Duration(o.m.nextSweep.Load()) - now.Sub(o.m.started)).UTC().Truncate(time.Millisecond)
}

func (o operator) AdoptStats() map[string]adopt.Stats { return o.m.adoption.Stats() }
