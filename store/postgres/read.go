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

// Load implements [store.Store]. Loads that arrive while others are under way
// share a query.
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	rec, err := s.loads.do(ctx, loading{id})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Record{}, failed("load", err)
	}
	return rec, err
}

// carryLoads answers loads, all with one query.
func (s *Store) carryLoads(ctx context.Context, calls []*loadCall) (_ []*loadCall, away error) {
	var missing map[store.ID][]*loadCall
	err := s.use(ctx, func(db querier) error {
		missing = make(map[store.ID][]*loadCall, len(calls))
		for _, c := range calls {
			if c.send() {
				missing[c.q.id] = append(missing[c.q.id], c)
			}
		}
		if len(calls) == 1 {
			return s.loadOne(ctx, db, missing)
		}
		err := s.loadMany(ctx, db, missing)
		if !judge(err).row {
			return err
		}
		for id, same := range missing {
			one := map[store.ID][]*loadCall{id: same}
			switch err = s.loadOne(ctx, db, one); {
			case err == nil:
				answerLoads(one, store.ErrNotFound)
			case judge(err).row:
				answerLoads(one, err)
			default:
				return err
			}
			delete(missing, id)
		}
		return nil
	})
	switch {
	case err == nil:
		answerLoads(missing, store.ErrNotFound)
	case ctx.Err() == nil && repeatable.worthwhile(err):
		return nil, err
	case missing == nil:
		failAll(calls, err)
	default:
		answerLoads(missing, err)
	}
	return nil, nil
}

// answerLoads answers the remaining calls with an error.
func answerLoads(missing map[store.ID][]*loadCall, err error) {
	for _, same := range missing {
		for _, c := range same {
			c.settle(store.Record{}, err)
		}
	}
}

// loadMany answers the calls whose records it finds, each as soon as its row
// arrives, and removes them from missing.
func (s *Store) loadMany(ctx context.Context, db querier, missing map[store.ID][]*loadCall) error {
	ids := make([][]byte, 0, len(missing))
	for id := range missing {
		ids = append(ids, id[:])
	}
	return s.loadInto(ctx, db, missing, s.sql.loadMany, ids)
}

// loadOne is loadMany for one ID.
func (s *Store) loadOne(ctx context.Context, db querier, missing map[store.ID][]*loadCall) error {
	for id := range missing {
		return s.loadInto(ctx, db, missing, s.sql.load, id[:])
	}
	return nil // all callers have left
}

func (s *Store) loadInto(ctx context.Context, db querier, missing map[store.ID][]*loadCall, sql string, args ...any) error {
	return eachRecord(ctx, db, func(rec store.Record, _ []byte, err error) error {
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
		return nil
	}, sql, args...)
}

// eachRecord calls do for each row that a query of the primary finds, with
// errNotARecord for a row that is not a record.
func eachRecord(ctx context.Context, db querier, do func(rec store.Record, id []byte, err error) error, sql string, args ...any) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		rec, id, err := scan(rows)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err == nil || errors.Is(err, errNotARecord) {
			err = do(rec, id, err)
		}
		if err != nil {
			return err
		}
	}
	return rows.Err()
}
