package ops_test

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func TestOperatorsLearnWhatAManagerIsMadeOf(t *testing.T) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	manager := func(c sojourn.Config) *sojourn.Manager {
		t.Helper()
		c.Keys = keys
		m, err := sojourn.New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	db := memory.New()
	m := manager(sojourn.Config{Store: db})
	if ops.For(m).Name() != "session" || ops.For(m).Store() != store.Store(db) {
		t.Errorf("name %q, store %v", ops.For(m).Name(), ops.For(m).Store())
	}
	if due := time.Until(ops.For(m).SweepDue()); due <= 0 || due > time.Hour {
		t.Errorf("the first sweep is due in %v", due)
	}
	m = manager(sojourn.Config{Name: "admin", Mode: sojourn.CookieOnly})
	if ops.For(m).Name() != "admin" || ops.For(m).Store() != nil || !ops.For(m).SweepDue().IsZero() {
		t.Errorf("in cookies only: name %q, store %v, sweep due %v", ops.For(m).Name(), ops.For(m).Store(), ops.For(m).SweepDue())
	}
	// A store that is only a store has nothing to sweep.
	m = manager(sojourn.Config{Store: struct{ store.Store }{db}})
	if !ops.For(m).SweepDue().IsZero() {
		t.Errorf("without a sweeper the sweep is due %v", ops.For(m).SweepDue())
	}
}
