package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/store"
)

// loadFlights is how many batches of loads are under way at once, if there are
// loadCrowd loads for each further one.
const (
	loadFlights = 3
	loadCrowd   = 8
)

type loading struct{ id store.ID }

func (l loading) session() store.ID { return l.id }
func (loading) kind() int           { return 0 }
func (loading) size() int           { return 0 }
func (loading) shares() bool        { return true }

type loadCall = call[loading, store.Record]

// Load implements [store.Store]. Loads that come while others are under way
// share a query.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	rec, err := s.loads.do(ctx, loading{id})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Record{}, failed("load", err)
	}
	return rec, err
}

// carryLoads answers loads, all with one query.
func (s *Store) carryLoads(ctx context.Context, calls []*loadCall) []*loadCall {
	if len(calls) == 1 {
		calls[0].settle(s.loadOne(ctx, calls[0].q.id))
		return nil
	}
	missing := make(map[store.ID][]*loadCall, len(calls))
	for _, c := range calls {
		missing[c.q.id] = append(missing[c.q.id], c)
	}
	err := s.retry(ctx, repeatable, func(as naming) error { return s.loadMany(ctx, as.through(s.pool), missing) })
	switch {
	case err == nil:
		for _, same := range missing {
			for _, c := range same {
				c.settle(store.Record{}, store.ErrNotFound)
			}
		}
	case oneRowsFault(err):
		for _, same := range missing {
			rec, err := s.loadOne(ctx, same[0].q.id)
			for _, c := range same {
				c.settle(rec, err)
			}
		}
	default:
		for _, same := range missing {
			for _, c := range same {
				c.settle(store.Record{}, err)
			}
		}
	}
	return nil
}

// loadMany answers the calls whose records it finds, each as soon as its row is
// there, and takes them out of missing.
func (s *Store) loadMany(ctx context.Context, db querier, missing map[store.ID][]*loadCall) error {
	ids := make([][]byte, 0, len(missing))
	for id := range missing {
		ids = append(ids, id[:])
	}
	rows, err := db.Query(ctx, s.sql.loadMany, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		rec, err := scan(rows)
		if err != nil {
			return err
		}
		for i, c := range missing[rec.ID] {
			if i > 0 {
				rec.SaveIDs = slices.Clone(rec.SaveIDs)
			}
			c.settle(rec, nil)
		}
		delete(missing, rec.ID)
	}
	return rows.Err()
}

func (s *Store) loadOne(ctx context.Context, id store.ID) (rec store.Record, err error) {
	err = s.retry(ctx, repeatable, func(as naming) error {
		rec, err = scan(as.through(s.pool).QueryRow(ctx, s.sql.load, id[:]))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotFound
	}
	return rec, err
}
