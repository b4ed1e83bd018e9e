package clouddatastore

import (
	"context"
	"errors"
	"slices"
	"time"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/store"
)

// userSuffix ends the kind of the entities that logins of one user meet at.
const userSuffix = "User"

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
	if err := s.fits(&rec); err != nil {
		return nil, err
	}
	var ended []store.ID
	for {
		victims, saved, err := s.saveLimited(ctx, rec, limit)
		if err != nil {
			return nil, failed(ctx, "save", unless(errUnchanged, err))
		}
		ended = append(ended, victims...)
		if saved {
			return ended, nil
		}
	}
}

func (s *Store) saveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (victims []store.ID, saved bool, err error) {
	free := func(have store.Record, found bool) (store.Record, error) {
		switch {
		case found && have.HasTag(rec.Tags[0]):
			return store.Record{}, errUnchanged
		case found && !have.Expired(time.Now()):
			return store.Record{}, store.ErrConflict
		}
		return rec, nil
	}
	err = s.transact(ctx, func(tx *datastore.Transaction) error {
		var user userEntity
		if err := tx.Get(s.userKey(rec.User), &user); err != nil && !errors.Is(err, datastore.ErrNoSuchEntity) {
			return err
		}
		have, found, err := s.found(rec.ID, tx.Get)
		if err != nil {
			return err
		}
		if _, err := free(have, found); err != nil {
			return err
		}
		sessions, err := s.collect(ctx, s.query().FilterField(propUser, "=", userText(rec.User)).Transaction(tx))
		if err != nil {
			return err
		}
		victims = inTheWay(sessions, rec.ID, limit)
		if len(victims) > 0 && limit.Refuse {
			return store.ErrLimit
		}
		saved = len(victims) <= maxEvicted
		victims = victims[:min(len(victims), maxEvicted)]
		if err := s.endAll(tx, victims, limit.Until); err != nil {
			return err
		}
		if err := s.putUser(tx, rec.User, later(user.Deadline, millis(rec.Expires))); err != nil {
			return err
		}
		if !saved {
			return nil
		}
		return s.put(tx, rec, found)
	}, func() error { return s.look(ctx, rec.ID, free) })
	return victims, saved, err
}

// inTheWay returns the oldest of a user's live sessions that a new one has no
// room beside.
func inTheWay(sessions []store.Record, id store.ID, limit store.UserLimit) []store.ID {
	now := time.Now()
	sessions = slices.DeleteFunc(sessions, func(r store.Record) bool {
		return r.ID == id || r.ID == limit.Replaces || r.IsEnd() || r.Expired(now)
	})
	slices.SortFunc(sessions, func(a, b store.Record) int {
		if n := a.Created.Compare(b.Created); n != 0 {
			return n
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	over := max(len(sessions)-(limit.Max-1), 0)
	ids := make([]store.ID, over)
	for i := range ids {
		ids[i] = sessions[i].ID
	}
	return ids
}

// endAll makes a transaction end sessions. It reads them itself: what a query
// found may have been changed since, and only what was read by key is compared
// for sure when the transaction is committed.
func (s *Store) endAll(tx *datastore.Transaction, ids []store.ID, until time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	keys := make([]*datastore.Key, len(ids))
	entities := make([]*entity, len(ids))
	for i, id := range ids {
		keys[i] = s.key(id)
		entities[i] = &entity{rec: store.Record{ID: id}}
	}
	if err := tx.GetMulti(keys, entities); err != nil {
		var each datastore.MultiError
		if errors.As(err, &each) && slices.ContainsFunc(each, func(err error) bool { return errors.Is(err, datastore.ErrNoSuchEntity) }) {
			return datastore.ErrConcurrentTransaction // swept since the query
		}
		return err
	}
	for _, e := range entities {
		mark, err := endMark(e.rec, until)
		if errors.Is(err, errUnchanged) {
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
	k := datastore.NameKey(s.kind+userSuffix, userText(user), nil)
	k.Namespace = s.space
	return k
}
