package entity

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A Tx is the part of a client library that a change needs, within a
// transaction or outside of any.
type Tx interface {
	// Get reads a record: store.ErrNotFound if there is no entity,
	// store.ErrDamaged if it is not a record.
	Get(id store.ID) (store.Record, error)

	// GetAll reads records that a query has found. If one of them is gone, the
	// error makes the transaction retry.
	GetAll(ids []store.ID) ([]store.Record, error)

	// Put writes records: in place of entities if there is true, and otherwise new ones.
	Put(there bool, recs ...store.Record) error

	// ByUser finds a user's live sessions. Within a transaction it finds at
	// least the sessions that existed at the transaction's first read.
	ByUser(user store.UserHash) ([]store.Record, error)

	// User reads the deadline of the user's entity: zero if there is none.
	// PutUser writes it.
	User(user store.UserHash) (time.Time, error)
	PutUser(user store.UserHash, deadline time.Time) error
}

// A DB is a Tx outside of any transaction, which can begin one.
type DB interface {
	Tx

	// Transact runs do in transactions by way of Retry.
	Transact(do func(Tx) error, overtaken func() error) error
}

const (
	// Pauses between the attempts of contending transactions double from the
	// first to the last, and are random within their upper half.
	firstPause = 8 * time.Millisecond
	lastPause  = time.Second
)

// Retry calls attempt, a transaction, until it succeeds, contended is false for
// its error, or ctx ends. Before each further attempt it calls overtaken, and
// returns its error: after a conflict the change has usually lost, which
// overtaken finds out without a transaction. Retrying a transaction that may
// have been committed is harmless if the transaction recognizes its own change.
func Retry(ctx context.Context, attempt func() error, contended func(error) bool, overtaken func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := attempt()
		if err == nil || !contended(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		if err := overtaken(); err != nil {
			return err
		}
	}
}

// Apply applies change to the stored record, in a transaction, and again after
// a conflict with another writer.
func Apply(db DB, id store.ID, change Change) error {
	return Unless(ErrUnchanged, db.Transact(func(tx Tx) error {
		rec, there, err := look(tx, id, change)
		if err != nil {
			return err
		}
		return tx.Put(there, rec)
	}, func() error { return Look(db, id, change) }))
}

// Look returns change's error for the stored record.
func Look(tx Tx, id store.ID, change Change) error {
	_, _, err := look(tx, id, change)
	return err
}

// look returns change's result for the stored record, and whether there is an
// entity. A damaged entity counts as no record.
func look(tx Tx, id store.ID, change Change) (rec store.Record, there bool, err error) {
	have, err := tx.Get(id)
	damaged := errors.Is(err, store.ErrDamaged)
	if err != nil && !damaged && !errors.Is(err, store.ErrNotFound) {
		return store.Record{}, false, err
	}
	found := err == nil
	rec, err = change(have, found)
	return rec, found || damaged, err
}

// SaveLimited is [store.UserLimiter]'s. A transaction ends at most most
// sessions, besides writing the user's entity and the new session. If more must
// end, the oldest end first, in separate transactions.
func SaveLimited(db DB, rec store.Record, limit store.UserLimit, most int) (ended []store.ID, err error) {
	for {
		victims, saved, err := saveLimited(db, rec, limit, most)
		if err != nil {
			return nil, Unless(ErrUnchanged, err)
		}
		ended = append(ended, victims...)
		if saved {
			return ended, nil
		}
	}
}

func saveLimited(db DB, rec store.Record, limit store.UserLimit, most int) (victims []store.ID, saved bool, err error) {
	insert := inserting(rec)
	err = db.Transact(func(tx Tx) error {
		deadline, err := tx.User(rec.User)
		if err != nil {
			return err
		}
		_, there, err := look(tx, rec.ID, insert)
		if err != nil {
			return err
		}
		sessions, err := tx.ByUser(rec.User)
		if err != nil {
			return err
		}
		if victims, err = limit.InTheWay(sessions, &rec, time.Now()); err != nil {
			return err
		}
		saved = len(victims) <= most
		victims = victims[:min(len(victims), most)]
		if err := endAll(tx, victims, limit.Until); err != nil {
			return err
		}
		if err := tx.PutUser(rec.User, Later(deadline, Millis(rec.Expires))); err != nil || !saved {
			return err
		}
		return tx.Put(there, rec)
	}, func() error { return Look(db, rec.ID, insert) })
	return victims, saved, err
}

// endAll makes a transaction end sessions. It reads them by key: a query's
// results may have changed since, and the commit only compares entities that
// were read by key.
func endAll(tx Tx, ids []store.ID, until time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	recs, err := tx.GetAll(ids)
	if err != nil {
		return err
	}
	var marks []store.Record
	for _, rec := range recs {
		mark, err := Ending(rec.ID, until)(rec, true)
		if errors.Is(err, ErrUnchanged) {
			continue
		}
		marks = append(marks, mark)
	}
	return tx.Put(true, marks...)
}
