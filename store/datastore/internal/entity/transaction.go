package entity

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A Tx is what a change needs of a client library, within a transaction or
// outside of any.
type Tx interface {
	// Get reads a record: store.ErrNotFound if there is no entity,
	// store.ErrDamaged if it is no record.
	Get(id store.ID) (store.Record, error)

	// GetAll reads records that a query has found. Where one of them is gone the
	// error is one that the transaction's retries know.
	GetAll(ids []store.ID) ([]store.Record, error)

	// Put writes records: in place of entities, or where there are none.
	Put(there bool, recs ...store.Record) error

	// ByUser finds a user's live sessions. Within a transaction it finds at least
	// what was there when the transaction first read something.
	ByUser(user store.UserHash) ([]store.Record, error)

	// User reads until when the entity is kept that logins of one user meet at:
	// zero if there is none. PutUser writes it.
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
	// first to the last, and are spread at random over their upper half.
	firstPause = 8 * time.Millisecond
	lastPause  = time.Second
)

// Retry calls attempt, a transaction, again and again while others are in the
// way, as contended says of its error, and ctx is not over. Before each further
// attempt it asks overtaken, whose error it returns: who was overtaken has mostly
// lost, and needs no second transaction to know. A further attempt after a
// transaction that may have been committed does no harm where the transaction
// finds what it did.
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

// Apply stores what change makes of the record that is there, in a transaction,
// and asks it again when another writer was faster.
func Apply(db DB, id store.ID, change Change) error {
	return Unless(ErrUnchanged, db.Transact(func(tx Tx) error {
		rec, there, err := look(tx, id, change)
		if err != nil {
			return err
		}
		return tx.Put(there, rec)
	}, func() error { return Look(db, id, change) }))
}

// Look returns change's error for the record that is there.
func Look(tx Tx, id store.ID, change Change) error {
	_, _, err := look(tx, id, change)
	return err
}

// look returns what change makes of the record that is there, and whether there
// is an entity: one that is damaged is no record.
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

// SaveLimited is [store.UserLimiter]'s. A transaction ends at most most sessions,
// besides the user's entity and the new session that it writes; where more have
// to end, the oldest end first, in transactions of their own.
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

// endAll makes a transaction end sessions. It reads them itself: what a query
// found may have been changed since, and only what was read by key is compared
// for sure when the transaction is committed.
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
