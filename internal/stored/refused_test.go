package stored

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/store"
)

var errFull = fmt.Errorf("%w: the disk is full", store.ErrRefused)

// A refusal is reported as one, but only if no earlier attempt may have been applied.
func TestARefusalIsNeverAnUnknownOutcomeNorTheOtherWayRound(t *testing.T) {
	// Attempts are answered with these errors, one after the other; the last one repeats.
	for name, test := range map[string]struct {
		answers []error
		unknown bool
		tries   int
	}{
		"refused at once":                  {[]error{errFull}, false, 1},
		"refused after an unknown outcome": {[]error{faults.ErrLost, errFull}, true, 2},
		"unknown after another":            {[]error{faults.ErrLost}, true, 4},
		"the caller's time is over":        {[]error{context.DeadlineExceeded}, true, 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "n=")
			tries := 0
			g.db.OnSave = func(context.Context, store.Record, store.Base) error {
				tries++
				return test.answers[min(tries, len(test.answers))-1]
			}
			_, err := g.save(g.Sessions, change(st, set("n", "1")))
			if !errors.Is(err, fault.Unavailable) || errors.Is(err, fault.ErrUnknown) != test.unknown || tries != test.tries {
				t.Errorf("%s: %v after %d tries", name, err, tries)
			}
		})
	}
}

// If a store waited for its share of the time without sending anything, the
// save is repeated while there is time.
func TestAStoreThatWaitsIsAskedAgainWithinTheTimeout(t *testing.T) {
	for _, back := range []time.Duration{3 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "n=")
			began := time.Now()
			g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
				select {
				case <-ctx.Done():
					return fmt.Errorf("%w: too many clients: %w", store.ErrRefused, ctx.Err())
				case <-time.After(time.Until(began.Add(back))):
					return g.rows.Save(ctx, r, base)
				}
			}
			_, err := g.save(g.Sessions, change(st, set("n", "1")))
			took := time.Since(began)
			switch {
			case back < g.Timeout && (err != nil || g.values(st.Who) != "n=1"):
				t.Errorf("back after %v: %v", back, err)
			case back > g.Timeout && (!errors.Is(err, fault.Unavailable) || errors.Is(err, fault.ErrUnknown) || took > g.Timeout):
				t.Errorf("not back: %v after %v", err, took)
			}
		})
	}
}
