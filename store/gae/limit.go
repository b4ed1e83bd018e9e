package gae

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/internal/entity"
	"github.com/sojourn-go/sojourn/store"
)

// maxEvicted is how many sessions one transaction ends, besides the user and
// what it saves.
const maxEvicted = maxGroups - 5

// userEntity is where parallel logins of one user meet: each writes it, so that
// of two which know nothing of each other only one is committed. It is swept
// when the last session that it let in is over for good.
type userEntity struct {
	Deadline time.Time `datastore:"deadline"`
}

// SaveLimited implements [store.UserLimiter]. Parallel logins of one user get in
// each other's way and try again, with pauses, until their context is over.
// Where more than 20 sessions have to end, the oldest 20 end first, in
// transactions of their own.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return nil, failed(ctx, "save", err)
	}
	ctx, err := begin(ctx, s.space, "save")
	if err != nil {
		return nil, err
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

func (s *Store) saveLimited(outside context.Context, rec store.Record, limit store.UserLimit) (victims []store.ID, saved bool, err error) {
	free := func(ctx context.Context) error {
		have, err := s.get(ctx, rec.ID)
		if err != nil && !missing(err) {
			return err
		}
		_, err = entity.Saving(rec, store.Base{})(have, err == nil)
		return err
	}
	err = transact(outside, func(ctx context.Context) error {
		var user userEntity
		userKey := datastore.NewKey(ctx, s.kind+entity.UserSuffix, entity.UserText(rec.User), 0, nil)
		if err := datastore.Get(ctx, userKey, &user); err != nil && !errors.Is(err, datastore.ErrNoSuchEntity) {
			return err
		}
		if err := free(ctx); err != nil {
			return err
		}
		// The bundled datastore has no such query in a transaction. Outside of it
		// the query sees at least what was there when the user was read: a login
		// that is committed later writes the user, and this one then fails.
		sessions, err := collect(outside, datastore.NewQuery(s.kind).Filter(entity.User+" =", entity.UserText(rec.User)))
		if err != nil {
			return err
		}
		if victims, err = limit.InTheWay(sessions, &rec, time.Now()); err != nil {
			return err
		}
		saved = len(victims) <= maxEvicted
		victims = victims[:min(len(victims), maxEvicted)]
		if err := s.endAll(ctx, victims, limit.Until); err != nil {
			return err
		}
		user.Deadline = entity.Later(user.Deadline, entity.Millis(rec.Expires))
		if _, err := datastore.Put(ctx, userKey, &user); err != nil {
			return err
		}
		if !saved {
			return nil
		}
		_, err = datastore.Put(ctx, s.key(ctx, rec.ID), &row{rec})
		return err
	}, func() error { return free(outside) })
	return victims, saved, err
}

// endAll ends sessions, in a transaction. It reads them itself: what a query
// found may have been changed since.
func (s *Store) endAll(ctx context.Context, ids []store.ID, until time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	keys := make([]*datastore.Key, len(ids))
	rows := make([]*row, len(ids))
	for i, id := range ids {
		keys[i] = s.key(ctx, id)
		rows[i] = &row{store.Record{ID: id}}
	}
	if err := datastore.GetMulti(ctx, keys, rows); err != nil {
		var each appengine.MultiError
		if errors.As(err, &each) && slices.ContainsFunc(each, func(err error) bool { return errors.Is(err, datastore.ErrNoSuchEntity) }) {
			return datastore.ErrConcurrentTransaction // swept since the query
		}
		return err
	}
	var marks []*row
	var markKeys []*datastore.Key
	for i, r := range rows {
		mark, err := entity.Ending(r.rec.ID, until)(r.rec, true)
		if errors.Is(err, entity.ErrUnchanged) {
			continue
		}
		marks, markKeys = append(marks, &row{mark}), append(markKeys, keys[i])
	}
	_, err := datastore.PutMulti(ctx, markKeys, marks)
	return err
}
