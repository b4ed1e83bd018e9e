package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
	"github.com/sojourn-go/sojourn/store/tiered"

	// The engines for -store and -cache.
	_ "github.com/sojourn-go/sojourn/store/datastore/cloud"
	_ "github.com/sojourn-go/sojourn/store/memcached"
	_ "github.com/sojourn-go/sojourn/store/postgres"
	_ "github.com/sojourn-go/sojourn/store/redis"
	_ "github.com/sojourn-go/sojourn/store/sqlite"
)

// openTime bounds the opening of the store, so that an unreachable one is
// reported soon.
const openTime = 30 * time.Second

// tiers are the store and the caches in front of it.
type tiers struct {
	store.Store
	closers []io.Closer // in the order in which they were opened
}

// openTiers opens the store, which must answer, and the caches, which need not.
func openTiers(ctx context.Context, opts options, logger *slog.Logger) (_ *tiers, err error) {
	t := &tiers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	var layers []tiered.Layer
	for _, url := range opts.caches {
		cache, closer, err := open.Cache(url)
		if err != nil {
			return nil, usageError{fmt.Errorf("-cache: %w", err)}
		}
		t.closers = append(t.closers, closer)
		scheme, _, _ := strings.Cut(url, ":")
		layer := tiered.Layer{Cache: cache, Name: scheme, Logger: logger}
		if _, inProcess := cache.(*tiered.Memory); !inProcess {
			layer.MaxStale = opts.maxStale
		}
		layers = append(layers, layer)
	}

	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	db, closer, err := open.Store(opening, opts.store)
	if errors.Is(err, open.ErrURL) {
		return nil, usageError{fmt.Errorf("-store: %w", err)}
	}
	if err != nil {
		return nil, err
	}
	t.Store, t.closers = db, append(t.closers, closer)
	if len(layers) == 0 {
		return t, nil
	}
	for _, layer := range layers {
		tryCache(ctx, layer, logger)
	}
	t.Store, err = tiered.New(db, layers...)
	return t, err
}

// tryCache logs if a cache does not answer. The probe starts anyway: caches are
// optional at run time, and this one is tried again.
func tryCache(ctx context.Context, layer tiered.Layer, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, _, err := layer.Cache.Get(ctx, store.ID{}); err != nil && !errors.Is(err, store.ErrNotFound) {
		logger.Warn("a cache does not answer; sessions come from the store until it does", "cache", layer.Name, "error", err)
	}
}

// Close closes the store and then the caches.
func (t *tiers) Close() error {
	var errs []error
	for i := range t.closers {
		errs = append(errs, t.closers[len(t.closers)-1-i].Close())
	}
	return errors.Join(errs...)
}
