package cloud

import (
	"context"
	"errors"
	"slices"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// tx is a transaction of a store, or, if in is nil, the database outside of
// any.
type tx struct {
	s   *Store
	ctx context.Context
	in  *datastore.Transaction
}

var _ entity.DB = tx{}

func (s *Store) outside(ctx context.Context) tx { return tx{s: s, ctx: ctx} }

// Transact implements [entity.DB].
func (t tx) Transact(do func(entity.Tx) error, overtaken func() error) error {
	return t.transact(func(t tx) error { return do(t) }, overtaken)
}

// transact runs do and commits its changes. It retries while other transactions
// conflict and the context has not ended. An error of do rolls back. See
// [entity.Retry] for overtaken.
//
// datastore.BeginLater would save a call, but the client loses a transaction
// whose first read finds nothing (or whose answer does not name it). The commit
// then runs outside of it, and its locks stay.
func (t tx) transact(do func(tx) error, overtaken func() error) error {
	return entity.Retry(t.ctx, func() error {
		in, err := t.s.client.NewTransaction(t.ctx)
		if err != nil {
			return err
		}
		if err := do(tx{t.s, t.ctx, in}); err != nil {
			_ = in.Rollback() // releases locks; if it fails, the transaction expires
			return err
		}
		return commit(in)
	}, contended, overtaken)
}

// commit commits a transaction. If the entity to update was swept, or the one
// to insert was created, meanwhile, that is contention.
func commit(in *datastore.Transaction) error {
	_, err := in.Commit()
	if code := status.Code(err); code == codes.NotFound || code == codes.AlreadyExists {
		return datastore.ErrConcurrentTransaction
	}
	return err
}

// contended reports whether a transaction failed because of other transactions.
func contended(err error) bool {
	return errors.Is(err, datastore.ErrConcurrentTransaction) || status.Code(err) == codes.Aborted
}

// get is the client's Get, in the transaction if there is one.
func (t tx) get(key *datastore.Key, dst any) error {
	if t.in == nil {
		return t.s.client.Get(t.ctx, key, dst)
	}
	return t.in.Get(key, dst)
}

// Get implements [entity.Tx].
func (t tx) Get(id store.ID) (store.Record, error) {
	e := row{rec: store.Record{ID: id}}
	err := t.get(t.s.key(id), &e)
	if errors.Is(err, datastore.ErrNoSuchEntity) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, err
	}
	return e.rec, nil
}

// GetAll implements [entity.Tx].
func (t tx) GetAll(ids []store.ID) ([]store.Record, error) {
	keys := make([]*datastore.Key, len(ids))
	rows := make([]*row, len(ids))
	for i, id := range ids {
		keys[i] = t.s.key(id)
		rows[i] = &row{rec: store.Record{ID: id}}
	}
	if err := t.in.GetMulti(keys, rows); err != nil {
		var each datastore.MultiError
		if errors.As(err, &each) && slices.ContainsFunc(each, func(err error) bool { return errors.Is(err, datastore.ErrNoSuchEntity) }) {
			return nil, datastore.ErrConcurrentTransaction // swept since the query
		}
		return nil, err
	}
	return records(rows), nil
}

// Put implements [entity.Tx].
func (t tx) Put(there bool, recs ...store.Record) error {
	mutation := datastore.NewInsert
	if there {
		mutation = datastore.NewUpdate
	}
	for _, rec := range recs {
		if _, err := t.in.Mutate(mutation(t.s.key(rec.ID), t.s.row(rec))); err != nil {
			return err
		}
	}
	return nil
}

// ByUser implements [entity.Tx].
func (t tx) ByUser(user store.UserHash) ([]store.Record, error) {
	q := t.s.owned(user)
	if t.in != nil {
		q = q.Transaction(t.in)
	}
	found, err := t.s.collect(t.ctx, q)
	return found.Records, err
}

// User implements [entity.Tx].
func (t tx) User(user store.UserHash) (time.Time, error) {
	var e deadline
	err := t.get(t.userKey(user), &e)
	if errors.Is(err, datastore.ErrNoSuchEntity) {
		err = nil
	}
	return e.at, err
}

// PutUser implements [entity.Tx].
func (t tx) PutUser(user store.UserHash, until time.Time) error {
	_, err := t.in.Put(t.userKey(user), &deadline{until, t.s.ttl})
	return err
}

func (t tx) userKey(user store.UserHash) *datastore.Key {
	k := datastore.NameKey(t.s.kind+entity.UserSuffix, entity.UserText(user), nil)
	k.Namespace = t.s.space
	return k
}
