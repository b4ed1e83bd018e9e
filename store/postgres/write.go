package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/store"
)

// writeFlights is how many batches of writes may be under way at once. A second
// batch is sent only with writeCrowd writes, so that it runs while the first
// waits for the disk. A smaller second batch costs the server more than it
// saves.
const (
	writeFlights = 2
	writeCrowd   = 32
)

// maxData is the maximum size of a record's data. PostgreSQL's own limit is 1
// GiB for a value, and for a message with it.
const maxData = 256 << 20

// kinds of writes
const (
	insert = iota
	update
	touch
	end
	limited // an insert with a limit on the user's sessions
)

// A writing is a save, a touch or an end.
type writing struct {
	what  int
	rec   store.Record // for a touch: ID, Seen and Deadline; for an end: ID and Deadline
	base  store.Base
	limit store.UserLimit
}

func (w writing) session() store.ID { return w.rec.ID }

// kind separates the logins of different users: one user's logins share a
// flight, under one lock.
func (w writing) kind() int {
	if w.what == limited {
		return limited + int(binary.BigEndian.Uint16(w.rec.User[:]))<<8
	}
	return w.what
}

func (w writing) size() int    { return len(w.rec.Data) }
func (w writing) shares() bool { return w.what == touch }

// The answer to a write is the other sessions that it ended.
type writeCall = call[writing, []store.ID]

// Save implements [store.Store]. It returns [store.ErrTooLarge] for more than
// 256 MiB of Data. Saves that arrive during a commit share the next statement
// and commit.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	w := writing{what: insert, rec: rec, base: base}
	if base != (store.Base{}) {
		w.what = update
	}
	_, err := s.save(ctx, w)
	return err
}

// SaveLimited implements [store.UserLimiter]. Logins of one user wait for each
// other in the database; those in one process can share a transaction.
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
	// The caller may change the save IDs after an unknown outcome.
	w.rec.SaveIDs = slices.Clone(w.rec.SaveIDs)
	ended, err := s.writes.do(ctx, w)
	if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrLimit) {
		return nil, failed("save", told(err))
	}
	return ended, err
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	_, err := s.writes.do(ctx, writing{what: end, rec: store.Record{ID: id, Deadline: until}})
	if err != nil {
		return failed("delete", told(err))
	}
	return nil
}

// Touch implements [store.Toucher]. It shares statements and commits as Save
// does.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	_, err := s.writes.do(ctx, writing{what: touch, rec: store.Record{ID: id, Seen: seen, Deadline: deadline}})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return failed("touch", told(err))
	}
	return err
}

// carryWrites commits writes of one kind in one statement. It returns the
// writes that were not applied, because of a locked row or a conflict, to be
// sent separately.
func (s *Store) carryWrites(ctx context.Context, calls []*writeCall) (rest []*writeCall, away error) {
	if len(calls) > 1 && calls[0].q.what == end {
		return calls, nil
	}
	err := s.use(ctx, func(db querier) error {
		calls = sendAll(calls)
		if len(calls) > 1 {
			err := s.writeTogether(ctx, db, calls, &rest)
			if !judge(err).row {
				return err
			}
			// Nothing was applied.
		}
		return s.writeEach(ctx, db, calls, &rest)
	})
	switch {
	case err == nil:
		return rest, nil
	case ctx.Err() == nil && repeats(calls).worthwhile(err):
		return nil, err
	}
	failAll(calls, err)
	return nil, nil
}

// repeats returns whether these calls, of one kind, may be repeated.
func repeats(calls []*writeCall) repetition {
	what := touch // of none
	if len(calls) > 0 {
		what = calls[0].q.what
	}
	return repetition(what == touch || what == end)
}

// writeEach carries out and answers writes one by one, until an error that is
// not about a single write. After an unknown outcome, rest has the writes that
// were not sent.
func (s *Store) writeEach(ctx context.Context, db querier, calls []*writeCall, rest *[]*writeCall) error {
	for i, c := range calls {
		ended, err := s.writeOne(ctx, db, &c.q)
		switch v := judge(err); {
		case err == nil, isAnswer(err), v == oneRow:
			c.settle(ended, err)
		case v == lost && repeats(calls) == once:
			c.settle(nil, err)
			*rest = calls[i+1:]
			return nil
		default:
			return err
		}
	}
	return nil
}

// isAnswer reports whether an error is an answer about a record.
func isAnswer(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrLimit) || errors.Is(err, store.ErrNotFound)
}

// writeTogether carries out writes in one statement, and answers the applied
// ones. rest has the others.
func (s *Store) writeTogether(ctx context.Context, db querier, calls []*writeCall, rest *[]*writeCall) error {
	*rest = nil
	if calls[0].q.what == limited {
		return s.writeLimited(ctx, db, calls, rest)
	}
	applied, err := s.writeMany(ctx, db, calls)
	if err != nil {
		return err
	}
	for _, c := range calls {
		if applied[c.q.rec.ID] {
			c.settle(nil, nil)
		} else {
			*rest = append(*rest, c)
		}
	}
	return nil
}

// writeMany returns the sessions to which the writes were applied.
func (s *Store) writeMany(ctx context.Context, db querier, calls []*writeCall) (map[store.ID]bool, error) {
	// In the order of the IDs, so that two statements cannot deadlock.
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
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	for _, id := range ids {
		if len(id) == len(store.ID{}) {
			applied[store.ID(id)] = true
		}
	}
	return applied, err
}

// writeOne carries out a single write.
func (s *Store) writeOne(ctx context.Context, db querier, w *writing) (ended []store.ID, err error) {
	switch w.what {
	case touch:
		n, err := run(ctx, db, s.sql.touch, w.rec.ID[:], w.rec.Seen.UnixMilli(), w.rec.Deadline.UnixMilli())
		if err == nil && n == 0 {
			err = store.ErrNotFound
		}
		return nil, err
	case end:
		_, err := run(ctx, db, s.sql.end, w.rec.ID[:], time.Now().UnixMilli(), w.rec.Deadline.UnixMilli())
		return nil, err
	case limited:
		var answer error
		err := s.saveLimited(ctx, db, []*writing{w}, func(_ int, gone []store.ID, err error) { ended, answer = gone, err })
		return ended, cmp.Or(err, answer)
	default:
		return nil, s.saveOne(ctx, db, w.rec, w.base)
	}
}

func (s *Store) saveOne(ctx context.Context, db querier, rec store.Record, base store.Base) error {
	sql, args := s.sql.insert, row(rec)
	if base != (store.Base{}) {
		sql, args = s.sql.update, append(args, int64(base.Version), int64(base.SaveID), rec.Shorten || rec.IsEnd())
	}
	n, err := run(ctx, db, sql, args...)
	if err != nil || n == 1 {
		return err
	}
	// A separate statement: the previous one may have waited for an earlier
	// copy of this save, and its snapshot is older than that commit.
	var saved bool
	err = db.QueryRow(ctx, s.sql.hasSaveID, rec.ID[:], int64(rec.SaveIDs[0])).Scan(&saved)
	if err == nil && !saved {
		err = store.ErrConflict
	}
	return err
}

// writeLimited carries out the logins of one user together.
func (s *Store) writeLimited(ctx context.Context, db querier, calls []*writeCall, rest *[]*writeCall) error {
	writings := make([]*writing, len(calls))
	for i, c := range calls {
		if writings[i] = &c.q; c.q.rec.User != calls[0].q.rec.User {
			*rest = calls // of a kind by chance
			return nil
		}
	}
	return s.saveLimited(ctx, db, writings, func(i int, ended []store.ID, err error) { calls[i].settle(ended, err) })
}

// saveLimited inserts sessions of one user, one after the other, and makes room
// for each. It returns for each the sessions that were ended for it, or
// ErrConflict or ErrLimit. Concurrent calls for the same user, in any process,
// wait until this is committed. It is one round trip, so a user's lock is never
// held while the server waits for a client.
func (s *Store) saveLimited(ctx context.Context, db querier, writings []*writing, tell func(i int, ended []store.ID, err error)) error {
	user := writings[0].rec.User
	rows, err := db.Query(ctx, s.sql.saveLimited, limitedColumns(lockNumber(s.table, user[:]), writings)...)
	if err != nil {
		return err
	}
	type answer struct {
		ended []store.ID
		err   error
	}
	answers := make([]answer, len(writings))
	var nr, outcome int
	var gone [][]byte
	_, err = pgx.ForEachRow(rows, []any{&nr, &outcome, &gone}, func() error {
		a := &answers[nr-1]
		a.err = [...]error{nil, store.ErrConflict, store.ErrLimit}[outcome]
		for _, id := range gone {
			a.ended = append(a.ended, store.ID(id))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, a := range answers { // after the commit
		tell(i, a.ended, a.err)
	}
	return nil
}
