package clouddatastore

import (
	"context"
	"errors"
	"slices"
	"time"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/internal/entity"
	"github.com/sojourn-go/sojourn/store"
)

// maxEvicted is how many sessions one transaction ends, besides what it saves.
const maxEvicted = maxMutations - 100

// userEntity is where parallel logins of one user meet: each writes it, so that
// of two which know nothing of each other only one is committed. It is swept
// when the last session that it let in is over for good.
type userEntity struct {
	Deadline time.Time `datastore:"deadline"`
}

// unsweptUser is a userEntity under a TTL policy.
type unsweptUser struct {
	Deadline time.Time `datastore:"deadline,noindex"`
}

// SaveLimited implements [store.UserLimiter]. Parallel logins of one user get in
// each other's way and try again, with pauses, until their context is over.
// Where more than 400 sessions have to end, the oldest 400 end first, in
// transactions of their own.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return nil, failed(ctx, "save", err)
	}
	var ended []store.ID
	for {
		victims, saved, err := s.saveLimited(ctx, rec, limit)
		if err != nil {
			return nil, failed(ctx, "save", entity.Unless(entity.ErrUnchanged, err))
		}
		ended = append(ended, victims...)
		if saved {
			return ended, nil
		}
	}
}

func (s *Store) saveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (victims []store.ID, saved bool, err error) {
	free := entity.Saving(rec, store.Base{})
	err = s.transact(ctx, func(tx *datastore.Transaction) error {
		var user userEntity
		if err := tx.Get(s.userKey(rec.User), &user); err != nil && !errors.Is(err, datastore.ErrNoSuchEntity) {
			return err
		}
		have, found, err := s.found(rec.ID, tx.Get)
		damaged := errors.Is(err, store.ErrDamaged)
		if err != nil && !damaged {
			return err
		}
		if _, err := free(have, found); err != nil {
			return err
		}
		sessions, err := s.collect(ctx, s.query().FilterField(entity.User, "=", entity.UserText(rec.User)).Transaction(tx))
		if err != nil {
			return err
		}
		if victims, err = limit.InTheWay(sessions, &rec, time.Now()); err != nil {
			return err
		}
		saved = len(victims) <= maxEvicted
		victims = victims[:min(len(victims), maxEvicted)]
		if err := s.endAll(tx, victims, limit.Until); err != nil {
			return err
		}
		if err := s.putUser(tx, rec.User, entity.Later(user.Deadline, entity.Millis(rec.Expires))); err != nil {
			return err
		}
		if !saved {
			return nil
		}
		return s.put(tx, rec, found || damaged)
	}, func() error { return s.look(ctx, rec.ID, free) })
	return victims, saved, err
}

// endAll makes a transaction end sessions. It reads them itself: what a query
// found may have been changed since, and only what was read by key is compared
// for sure when the transaction is committed.
func (s *Store) endAll(tx *datastore.Transaction, ids []store.ID, until time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	keys := make([]*datastore.Key, len(ids))
	rows := make([]*row, len(ids))
	for i, id := range ids {
		keys[i] = s.key(id)
		rows[i] = &row{rec: store.Record{ID: id}}
	}
	if err := tx.GetMulti(keys, rows); err != nil {
		var each datastore.MultiError
		if errors.As(err, &each) && slices.ContainsFunc(each, func(err error) bool { return errors.Is(err, datastore.ErrNoSuchEntity) }) {
			return datastore.ErrConcurrentTransaction // swept since the query
		}
		return err
	}
	for _, r := range rows {
		mark, err := entity.Ending(r.rec.ID, until)(r.rec, true)
		if errors.Is(err, entity.ErrUnchanged) {
			continue
		}
		if err := s.put(tx, mark, true); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) putUser(tx *datastore.Transaction, user store.UserHash, deadline time.Time) error {
	var e any = &userEntity{deadline}
	if s.ttl {
		e = &unsweptUser{deadline}
	}
	_, err := tx.Put(s.userKey(user), e)
	return err
}

func (s *Store) userKey(user store.UserHash) *datastore.Key {
	k := datastore.NameKey(s.kind+entity.UserSuffix, entity.UserText(user), nil)
	k.Namespace = s.space
	return k
}
