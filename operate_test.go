package sojourn_test

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
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
	if m.Name() != "session" || m.Store() != store.Store(db) {
		t.Errorf("name %q, store %v", m.Name(), m.Store())
	}
	if due := time.Until(m.SweepDue()); due <= 0 || due > time.Hour {
		t.Errorf("the first sweep is due in %v", due)
	}
	m = manager(sojourn.Config{Name: "admin", Mode: sojourn.CookieOnly})
	if m.Name() != "admin" || m.Store() != nil || !m.SweepDue().IsZero() {
		t.Errorf("in cookies only: name %q, store %v, sweep due %v", m.Name(), m.Store(), m.SweepDue())
	}
	// A store that is only a store has nothing to sweep.
	m = manager(sojourn.Config{Store: struct{ store.Store }{db}})
	if !m.SweepDue().IsZero() {
		t.Errorf("without a sweeper the sweep is due %v", m.SweepDue())
	}
}
