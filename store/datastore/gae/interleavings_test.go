package gae_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/datastore/internal/suite"
)

var interleavings = []suite.Scenario{
	{Name: "a transaction that the service forgot is started anew", Run: func(t *testing.T, here, _ suite.Store, wire *suite.Wire) {
		rec := suite.Session(1)
		wire.Next("Commit", func(c suite.Call) error {
			if err := c.Instead("Rollback"); err != nil {
				t.Errorf("Rollback: %v", err)
			}
			err := c.Send()
			if err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("the commit of a transaction that is no more: %v", err)
			}
			return err
		})
		suite.Save(t, here, rec, store.Base{})
		suite.Holds(t, here, rec)
	}},

	{Name: "contention that shows before the commit is retried", Run: func(t *testing.T, here, _ suite.Store, wire *suite.Wire) {
		rec := suite.Session(1)
		for _, text := range []string{
			"API error 2 (datastore_v3: CONCURRENT_TRANSACTION): too much contention on these datastore entities",
			"API error 1 (datastore_v3: BAD_REQUEST): The referenced transaction has expired or is no longer valid.",
		} {
			wire.Next("Get", func(suite.Call) error { return errors.New(text) })
			suite.Save(t, here, rec, store.Base{})
			suite.Holds(t, here, rec)
		}
	}},
}

func testAFrozenServerHoldsNobodyBeyondHisDeadline(t *testing.T, server *servers.Server) {
	here := alone(t)
	rec := suite.Session(1)
	suite.Save(t, here, rec, store.Base{})
	copies := openCache(t, gae.CacheOptions{})
	server.Pause()
	load := func(ctx context.Context) error { _, err := here.Load(ctx, rec.ID); return err }
	within := func(call func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return call(ctx)
	}
	for within(load) == nil { // on a busy machine it takes a moment to freeze
	}
	for call, do := range map[string]func(ctx context.Context) error{
		"Load":  load,
		"Save":  func(ctx context.Context) error { return here.Save(ctx, suite.Next(rec), rec.Base()) },
		"Cache": func(ctx context.Context) error { _, _, err := copies.Get(ctx, rec.ID); return err },
	} {
		if err := within(do); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want the context's error", call, err)
		}
	}
	server.Resume()
	suite.Holds(t, here, rec)
}
