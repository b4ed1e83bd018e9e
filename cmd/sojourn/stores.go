package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"

	// The engines whose stores the command opens.
	_ "github.com/sojourn-go/sojourn/store/datastore/cloud"
	_ "github.com/sojourn-go/sojourn/store/memcached"
	_ "github.com/sojourn-go/sojourn/store/postgres"
	_ "github.com/sojourn-go/sojourn/store/redis"
	_ "github.com/sojourn-go/sojourn/store/sqlite"
)

// storeVariable is the environment variable with the URL of the store.
const storeVariable = "SOJOURN_STORE"

// storeFlag is the flag of commands that need a store.
type storeFlag struct {
	Store string `placeholder:"URL" env:"SOJOURN_STORE" help:"The store, such as sqlite:data/sessions.db."`
}

// named refuses a command line that names no store.
func (f *storeFlag) named() error {
	if f.Store == "" {
		return usagef("which store? Give its URL with --store, such as --store sqlite:data/sessions.db, or in the environment variable %s", storeVariable)
	}
	return nil
}

// openTime bounds the opening of a store.
const openTime = 30 * time.Second

// open opens the store, which must exist.
func (f *storeFlag) open(ctx context.Context) (store.Store, func() error, error) {
	if err := f.named(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	s, closer, err := open.Existing(ctx, f.Store)
	if err != nil {
		return nil, nil, storeError("--store", err)
	}
	return s, closer.Close, nil
}

// storeError is the error for a store that could not be opened, with the name
// under which its URL was given.
func storeError(given string, err error) error {
	switch {
	case errors.Is(err, open.ErrURL):
		return usagef("%s: %w", given, err)
	case errors.Is(err, open.ErrSchema):
		return fmt.Errorf("%s: %w (with sojourn migrate)", given, err)
	default:
		return fmt.Errorf("%s: %w", given, err)
	}
}

// load returns one record by its handle.
func load(ctx context.Context, s store.Store, handle string) (store.Record, error) {
	id, err := parseHandle(handle)
	if err != nil {
		return store.Record{}, err
	}
	rec, err := s.Load(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return rec, fmt.Errorf("%w with the handle %s: it may have ended a while ago, or still live in the visitor's cookie", err, handle)
	}
	return rec, err
}

// parseHandle does not repeat an invalid handle: it may be a cookie.
func parseHandle(text string) (store.ID, error) {
	id, err := store.ParseID(text)
	if err != nil {
		return id, usagef("that is not a handle, which has 26 lower-case letters and digits; sojourn ls lists them. (A cookie is no argument: sojourn inspect reads it from standard input or a file)")
	}
	return id, nil
}

// pageSize is how many records are read at once.
const pageSize = 200

// scan walks all records of a store, each once.
func scan(ctx context.Context, s store.Store) (iter.Seq2[store.Record, error], error) {
	scanner, ok := s.(store.Scanner)
	if !ok {
		return nil, errors.New("this kind of store cannot list its sessions")
	}
	return func(yield func(store.Record, error) bool) {
		seen := map[store.ID]struct{}{} // a scan may return a record again
		for cursor := ""; ; {
			recs, next, err := scanner.Scan(ctx, cursor, pageSize)
			if err != nil {
				yield(store.Record{}, err)
				return
			}
			for _, rec := range recs {
				if _, again := seen[rec.ID]; again {
					continue
				}
				seen[rec.ID] = struct{}{}
				if !yield(rec, nil) {
					return
				}
			}
			if cursor = next; cursor == "" {
				return
			}
		}
	}, nil
}
