package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/store"
)

// writeFlights is how many batches of writes are under way at once, if there
// are writeCrowd writes for the second one: then it is prepared while the first
// one waits for the disk. A batch of fewer costs the server more than that saves.
const (
	writeFlights = 2
	writeCrowd   = 32
)

// maxData is how long a record's data may be. PostgreSQL's own limit is 1 GiB
// for a value, and for a message that holds it.
const maxData = 256 << 20

// kinds of writes
const (
	insert = iota
	update
	touch
	end
	limited // an insert that holds the user to a number of sessions
)

// A writing is a save, a touch or an end.
type writing struct {
	what  int
	rec   store.Record // of a touch: ID, Seen and Deadline; of an end: ID and Deadline
	base  store.Base
	limit store.UserLimit
}

func (w writing) session() store.ID { return w.rec.ID }

// kind keeps the logins of different users apart: those of one user go together,
// under one lock.
func (w writing) kind() int {
	if w.what == limited {
		return limited + int(binary.BigEndian.Uint16(w.rec.User[:]))<<8
	}
	return w.what
}

func (w writing) size() int    { return len(w.rec.Data) }
func (w writing) shares() bool { return w.what == touch }

// The answer to a write are the sessions that it ended besides.
type writeCall = call[writing, []store.ID]

// Save implements [store.Store]. It returns [store.ErrTooLarge] for more than
// 256 MiB of Data. Saves that come while others are being committed share a
// statement and a commit.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	w := writing{what: insert, rec: rec, base: base}
	if base != (store.Base{}) {
		w.what = update
	}
	_, err := s.save(ctx, w)
	return err
}

// SaveLimited implements [store.UserLimiter]. Those of one user wait for each
// other, in the database; those that meet here share one transaction.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	return s.save(ctx, writing{what: limited, rec: rec, limit: limit})
}

func (s *Store) save(ctx context.Context, w writing) ([]store.ID, error) {
	switch n := len(w.rec.SaveIDs); {
	case n == 0 || n > store.RecentSaveIDs:
		return nil, fmt.Errorf("postgres: save: a record has 1 to %d save_ids, not %d", store.RecentSaveIDs, n)
	case len(w.rec.Data) > maxData:
		return nil, store.ErrTooLarge
	}
	// The caller may change the save IDs after an outcome that is unknown.
	w.rec.SaveIDs = slices.Clone(w.rec.SaveIDs)
	ended, err := s.writes.do(ctx, w)
	if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrLimit) {
		return nil, failed("save", err)
	}
	return ended, err
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	_, err := s.writes.do(ctx, writing{what: end, rec: store.Record{ID: id, Deadline: until}})
	if err != nil {
		return failed("delete", err)
	}
	return nil
}

// Touch implements [store.Toucher]. It shares statements and commits as Save
// does.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	_, err := s.writes.do(ctx, writing{what: touch, rec: store.Record{ID: id, Seen: seen, Deadline: deadline}})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return failed("touch", err)
	}
	return err
}

// carryWrites commits writes of one kind in one statement. Those that it did
// not apply are returned: what is locked by somebody else shall hold up nobody,
// and whether the others are conflicts shows when they are sent alone.
func (s *Store) carryWrites(ctx context.Context, calls []*writeCall) (rest []*writeCall) {
	if len(calls) == 1 {
		calls[0].settle(s.writeOne(ctx, &calls[0].q))
		return nil
	}
	switch calls[0].q.what {
	case end:
		return calls
	case limited:
		return s.carryLimited(ctx, calls)
	}
	applied, err := s.writeMany(ctx, calls)
	switch {
	case err == nil:
		for _, c := range calls {
			if applied[c.q.rec.ID] {
				c.settle(nil, nil)
			} else {
				rest = append(rest, c)
			}
		}
		return rest
	case oneRowsFault(err):
		// Nothing was applied.
		for _, c := range calls {
			s.carryWrites(ctx, []*writeCall{c})
		}
		return nil
	default:
		for _, c := range calls {
			c.settle(nil, err)
		}
		return nil
	}
}

// writeMany returns the sessions to which the writes were applied.
func (s *Store) writeMany(ctx context.Context, calls []*writeCall) (map[store.ID]bool, error) {
	// In the order of the IDs, so that two statements never wait for each other.
	calls = slices.Clone(calls)
	slices.SortFunc(calls, func(a, b *writeCall) int {
		return bytes.Compare(a.q.rec.ID[:], b.q.rec.ID[:])
	})
	var sql string
	var args []any
	switch what := calls[0].q.what; what {
	case touch:
		sql, args = s.sql.touchMany, touchColumns(calls)
	case insert:
		sql, args = s.sql.insertMany, recordColumns(calls)
	case update:
		sql, args = s.sql.updateMany, append(recordColumns(calls), baseColumns(calls)...)
	}
	applied := make(map[store.ID]bool, len(calls))
	err := s.retry(ctx, once, func(as naming) error {
		rows, err := as.through(s.pool).Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return err
		}
		for _, id := range ids {
			if len(id) == len(store.ID{}) {
				applied[store.ID(id)] = true
			}
		}
		return nil
	})
	return applied, err
}

// writeOne carries out a single write.
func (s *Store) writeOne(ctx context.Context, w *writing) (ended []store.ID, err error) {
	switch w.what {
	case touch:
		return nil, s.touchOne(ctx, w.rec.ID, w.rec.Seen, w.rec.Deadline)
	case end:
		_, err := s.exec(ctx, repeatable, s.sql.end, w.rec.ID[:], time.Now().UnixMilli(), w.rec.Deadline.UnixMilli())
		return nil, err
	case limited:
		answers, err := s.saveLimited(ctx, []*writing{w})
		if err != nil {
			return nil, err
		}
		return answers[0].ended, answers[0].err
	default:
		return nil, s.saveOne(ctx, w.rec, w.base)
	}
}

func (s *Store) saveOne(ctx context.Context, rec store.Record, base store.Base) error {
	sql, args := s.sql.insert, row(rec)
	if base != (store.Base{}) {
		sql, args = s.sql.update, append(args, int64(base.Version), int64(base.SaveID), rec.Shorten || rec.IsEnd())
	}
	n, err := s.exec(ctx, once, sql, args...)
	if err != nil || n == 1 {
		return err
	}
	// A statement of its own: the one before may have waited for this very save,
	// sent earlier, and its snapshot is older than that.
	var saved bool
	err = s.retry(ctx, repeatable, func(as naming) error {
		return as.through(s.pool).QueryRow(ctx, s.sql.hasSaveID, rec.ID[:], int64(rec.SaveIDs[0])).Scan(&saved)
	})
	if err == nil && !saved {
		err = store.ErrConflict
	}
	return err
}

func (s *Store) touchOne(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	n, err := s.exec(ctx, repeatable, s.sql.touch, id[:], seen.UnixMilli(), deadline.UnixMilli())
	if err == nil && n == 0 {
		err = store.ErrNotFound
	}
	return err
}

// carryLimited commits the logins of one user together.
func (s *Store) carryLimited(ctx context.Context, calls []*writeCall) (rest []*writeCall) {
	writings := make([]*writing, len(calls))
	for i, c := range calls {
		if writings[i] = &c.q; c.q.rec.User != calls[0].q.rec.User {
			return calls // of a kind by chance
		}
	}
	answers, err := s.saveLimited(ctx, writings)
	if oneRowsFault(err) {
		return calls // nothing was applied
	}
	for i, c := range calls {
		if err != nil {
			c.settle(nil, err)
		} else {
			c.settle(answers[i].ended, answers[i].err)
		}
	}
	return nil
}

// limitedAnswer is what came of one of several logins in a transaction.
type limitedAnswer struct {
	ended []store.ID
	err   error // ErrConflict or ErrLimit: nothing was changed for it
}

// saveLimited inserts sessions of one user, one after the other, and makes room
// for each. Whoever does so for the same user waits until this is committed, in
// whatever process.
func (s *Store) saveLimited(ctx context.Context, writings []*writing) (answers []limitedAnswer, err error) {
	err = s.retry(ctx, once, func(as naming) error {
		answers = make([]limitedAnswer, len(writings))
		return pgx.BeginFunc(ctx, s.pool, func(began pgx.Tx) error {
			tx := as.through(began)
			if _, err := tx.Exec(ctx, lockSQL, lockNumber(s.table, writings[0].rec.User[:])); err != nil {
				return err
			}
			for i, w := range writings {
				ended, err := s.makeRoom(ctx, tx, &w.rec, w.limit)
				if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrLimit) {
					return err
				}
				answers[i] = limitedAnswer{ended, err}
			}
			return nil
		})
	})
	return answers, err
}

// makeRoom inserts a user's session and ends those that are too many then, in a
// transaction that has the user's lock.
func (s *Store) makeRoom(ctx context.Context, tx querier, rec *store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	var there bool
	var saveIDs []int64
	err = tx.QueryRow(ctx, s.sql.look, rec.ID[:]).Scan(&saveIDs, &there)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return nil, err
	case slices.Contains(saveIDs, int64(rec.SaveIDs[0])):
		return nil, nil // saved before
	case there:
		return nil, store.ErrConflict
	}
	sessions, err := s.others(ctx, tx, rec, limit.Replaces)
	if err != nil {
		return nil, err
	}
	victims, err := limit.InTheWay(sessions, rec, time.Now())
	if err != nil {
		return nil, err
	}
	saveID, err := tx.Exec(ctx, s.sql.insert, row(*rec)...)
	switch {
	case err != nil:
		return nil, err
	case saveID.RowsAffected() == 0:
		return nil, store.ErrConflict // with somebody who was faster
	case len(victims) == 0:
		return nil, nil
	}
	ids := make([][]byte, len(victims))
	for i := range ids {
		ids[i] = victims[i][:]
	}
	_, err = tx.Exec(ctx, s.sql.endMany, ids, time.Now().UnixMilli(), limit.Until.UnixMilli())
	return victims, err
}

// others locks a user's sessions, besides the new one and the one that it
// replaces, and returns what decides which of them have to go.
func (s *Store) others(ctx context.Context, tx querier, rec *store.Record, replaces store.ID) ([]store.Record, error) {
	rows, err := tx.Query(ctx, s.sql.others, userColumn(rec), rec.ID[:], replaces[:])
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) {
		var id []byte
		var created, deadline int64
		if err := row.Scan(&id, &created, &deadline); err != nil {
			return store.Record{}, err
		}
		if len(id) != len(store.ID{}) {
			return store.Record{}, errNotARecord
		}
		return store.Record{ID: store.ID(id), User: rec.User, Created: time.UnixMilli(created), Deadline: time.UnixMilli(deadline)}, nil
	})
}
