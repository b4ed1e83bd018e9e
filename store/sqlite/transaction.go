package sqlite

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A transaction has the operations of a request. The writer holds the write
// lock, so data that was read cannot change before the write.
type transaction struct {
	insert, update, look, replace, mark, extend *sql.Stmt
	due, postpone, remove, removeEnds           *sql.Stmt
	others                                      *sql.Stmt

	// pages is a rough lower bound for the pages written.
	pages int64
}

func (tx *transaction) prepare(db *sql.DB) error {
	return statements{
		&tx.insert: `INSERT INTO sessions
			(id, version, save_ids, user, created, seen, deadline, expires, ended, sweep, data)
			VALUES (?1, ?2, coalesce(?3, x''), ?4, ?5, ?6, ?7, ?8, ?9, ?7, ?10)
			ON CONFLICT (id) DO NOTHING`,

		// The usual save. It does not change the indexed columns.
		&tx.update: `UPDATE sessions SET version = ?2, save_ids = coalesce(?3, x''), created = ?5,
			seen = max(seen, ?6), deadline = max(deadline, ?7), expires = ?8, data = ?9
			WHERE id = ?1 AND version = ?10 AND substr(save_ids, 1, 8) = ?11
			AND ended IS NULL AND user IS ?4`,

		&tx.look: `SELECT ` + head + `, NULL FROM sessions WHERE id = ?1`,
		&tx.replace: `UPDATE sessions SET version = ?2, save_ids = coalesce(?3, x''), user = ?4, created = ?5,
			seen = ?6, deadline = ?7, expires = ?8, ended = ?9, sweep = min(sweep, ?7), data = ?10
			WHERE id = ?1`,
		&tx.mark: `UPDATE sessions SET ended = coalesce(ended, ?2), data = NULL,
			deadline = iif(ended IS NULL, ?3, max(deadline, ?3)), sweep = min(sweep, ?3)
			WHERE id = ?1`,
		&tx.extend: `UPDATE sessions SET seen = max(seen, ?2), deadline = max(deadline, ?3)
			WHERE id = ?1 AND ended IS NULL`,

		&tx.due:      `SELECT row, deadline FROM sessions WHERE sweep < ?1 ORDER BY sweep LIMIT ?2`,
		&tx.postpone: `UPDATE sessions SET sweep = deadline WHERE row = ?1`,
		&tx.remove:   `DELETE FROM sessions WHERE row = ?1`,
		&tx.removeEnds: `DELETE FROM ends WHERE number IN
			(SELECT number FROM ends WHERE until < ?1 ORDER BY until LIMIT ?2)`,

		&tx.others: `SELECT id, created, deadline FROM sessions WHERE user = ?1 AND ended IS NULL`,
	}.prepare(db)
}

// change runs a statement that changes at most one row, and reports whether it
// did.
func (tx *transaction) change(s *sql.Stmt, args ...any) (bool, error) {
	result, err := s.Exec(args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	if n > 0 {
		tx.pages++
	}
	return n > 0, err
}

// save is Store.Save.
func (tx *transaction) save(rec *store.Record, base store.Base) error {
	done, err := tx.quickly(rec, base)
	if done || err != nil {
		return err
	}
	// It is a conflict, or one of the rare cases.
	stored, _, err := scanRecord(tx.look.QueryRow(rec.ID[:]))
	insert := base == store.Base{}
	seen, deadline := rec.Seen, rec.Deadline
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return store.ErrConflict // the statement in quickly handles every other insert
	case errors.Is(err, store.ErrDamaged):
		if !insert {
			return store.ErrConflict
		}
	case err != nil:
		return err
	case len(rec.SaveIDs) > 0 && stored.HasSaveID(rec.SaveIDs[0]):
		return nil
	case insert:
		if time.Now().UnixMilli() <= stored.Deadline.UnixMilli() {
			return store.ErrConflict
		}
	case stored.IsEnd() || stored.Base() != base:
		return store.ErrConflict
	case !rec.Shorten && !rec.IsEnd():
		seen, deadline = later(seen, stored.Seen), later(deadline, stored.Deadline)
	}
	_, err = tx.change(tx.replace, rec.ID[:], int64(rec.Version), saveIDBytes(rec.SaveIDs), userBytes(rec.User),
		rec.Created.UnixMilli(), seen.UnixMilli(), deadline.UnixMilli(), rec.Expires.UnixMilli(),
		endedMillis(rec.Ended), rec.Data)
	return err
}

// quickly does the two usual kinds of save with one statement, which compares
// and writes. done is false if it did not write.
func (tx *transaction) quickly(rec *store.Record, base store.Base) (done bool, err error) {
	switch {
	case base == store.Base{}:
		done, err = tx.change(tx.insert, rec.ID[:], int64(rec.Version), saveIDBytes(rec.SaveIDs), userBytes(rec.User),
			rec.Created.UnixMilli(), rec.Seen.UnixMilli(), rec.Deadline.UnixMilli(), rec.Expires.UnixMilli(),
			endedMillis(rec.Ended), rec.Data)
	case !rec.Shorten && !rec.IsEnd():
		done, err = tx.change(tx.update, rec.ID[:], int64(rec.Version), saveIDBytes(rec.SaveIDs), userBytes(rec.User),
			rec.Created.UnixMilli(), rec.Seen.UnixMilli(), rec.Deadline.UnixMilli(), rec.Expires.UnixMilli(),
			rec.Data, int64(base.Version), saveIDBytes([]store.SaveID{base.SaveID}))
	}
	tx.pages += int64(len(rec.Data) / pageSize)
	return done, err
}

// end is Store.Delete.
func (tx *transaction) end(id store.ID, until time.Time) error {
	now := time.Now().UnixMilli()
	if done, err := tx.change(tx.mark, id[:], now, until.UnixMilli()); done || err != nil {
		return err
	}
	never := time.Time{}.UnixMilli()
	_, err := tx.change(tx.insert, id[:], int64(0), []byte{}, nil, never, never, until.UnixMilli(), never, now, nil)
	return err
}

// saveLimited is Store.SaveLimited.
func (tx *transaction) saveLimited(rec *store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	now := time.Now()
	stored, _, err := scanRecord(tx.look.QueryRow(rec.ID[:]))
	switch {
	case errors.Is(err, sql.ErrNoRows), errors.Is(err, store.ErrDamaged):
	case err != nil:
		return nil, err
	case stored.HasSaveID(rec.SaveIDs[0]):
		return nil, nil
	case now.UnixMilli() <= stored.Deadline.UnixMilli():
		return nil, store.ErrConflict
	}
	sessions, err := tx.sessionsOf(rec.User)
	if err != nil {
		return nil, err
	}
	victims, err := limit.InTheWay(sessions, rec, now)
	if err != nil {
		return nil, err
	}
	for _, id := range victims {
		if err := tx.end(id, limit.Until); err != nil {
			return nil, err
		}
	}
	return victims, tx.save(rec, store.Base{})
}

// sessionsOf returns a user's sessions with the fields that store.UserLimit.InTheWay reads.
func (tx *transaction) sessionsOf(user store.UserHash) (recs []store.Record, err error) {
	rows, err := tx.others.Query(user[:])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		var created, deadline int64
		if err := rows.Scan(&id, &created, &deadline); err != nil {
			return nil, err
		}
		if len(id) != len(store.ID{}) {
			continue // damaged, so it does not count
		}
		recs = append(recs, store.Record{ID: store.ID(id), User: user, Created: time.UnixMilli(created), Deadline: time.UnixMilli(deadline)})
	}
	return recs, rows.Err()
}

// touch is Store.Touch.
func (tx *transaction) touch(id store.ID, seen, deadline time.Time) error {
	done, err := tx.extendOne(id, seen, deadline)
	if !done && err == nil {
		err = store.ErrNotFound
	}
	return err
}

// extendOne is touch in one statement. done is false if there is no such session.
func (tx *transaction) extendOne(id store.ID, seen, deadline time.Time) (done bool, err error) {
	return tx.change(tx.extend, id[:], seen.UnixMilli(), deadline.UnixMilli())
}

// sweep checks at most limit rows that may have expired, and returns how many
// it checked and how many it removed. The others are checked again at their
// deadlines, which saves and touches have moved.
func (tx *transaction) sweep(before time.Time, limit int) (looked, removed int, err error) {
	due, err := tx.dueRows(before, limit)
	for _, r := range due {
		if err != nil {
			return 0, 0, err
		}
		if r.deadline < before.UnixMilli() {
			_, err = tx.change(tx.remove, r.number)
			removed++
		} else {
			_, err = tx.change(tx.postpone, r.number)
		}
	}
	if err == nil {
		_, err = tx.change(tx.removeEnds, before.UnixMilli(), limit)
	}
	return len(due), removed, err
}

type dueRow struct{ number, deadline int64 }

func (tx *transaction) dueRows(before time.Time, limit int) (due []dueRow, err error) {
	rows, err := tx.due.Query(before.UnixMilli(), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r dueRow
		if err := rows.Scan(&r.number, &r.deadline); err != nil {
			return nil, err
		}
		due = append(due, r)
	}
	return due, rows.Err()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func saveIDBytes(saveIDs []store.SaveID) []byte {
	saveIDs = saveIDs[:min(len(saveIDs), store.RecentSaveIDs)]
	b := make([]byte, 0, 8*len(saveIDs))
	for _, saveID := range saveIDs {
		b = binary.BigEndian.AppendUint64(b, uint64(saveID))
	}
	return b
}

func userBytes(user store.UserHash) []byte {
	if user == (store.UserHash{}) {
		return nil
	}
	return user[:]
}

func endedMillis(at time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: at.UnixMilli(), Valid: !at.IsZero()}
}
