package gae

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// tx is a transaction of a store: ctx carries it. Outside of any, both contexts
// are the same.
type tx struct {
	s            *Store
	ctx, outside context.Context
}

var _ entity.DB = tx{}

func (s *Store) outside(ctx context.Context) tx { return tx{s, ctx, ctx} }

// Transact implements [entity.DB].
func (t tx) Transact(do func(entity.Tx) error, overtaken func() error) error {
	return transact(t.outside, func(ctx context.Context) error { return do(tx{t.s, ctx, t.outside}) }, overtaken)
}

// transact runs do in a transaction. It retries while other transactions
// conflict and ctx has not ended. An error of do rolls back. See [entity.Retry]
// for overtaken.
func transact(ctx context.Context, do func(context.Context) error, overtaken func() error) error {
	return entity.Retry(ctx, func() error {
		return datastore.RunInTransaction(ctx, do, &datastore.TransactionOptions{XG: true, Attempts: 1})
	}, contended, overtaken)
}

// contended reports whether a transaction failed because of other transactions,
// or because the service lost it. The library has no type for errors before the
// commit, only their text.
func contended(err error) bool {
	if errors.Is(err, datastore.ErrConcurrentTransaction) {
		return true
	}
	text := err.Error()
	if strings.HasPrefix(text, "API error 2 (datastore_v3: CONCURRENT_TRANSACTION)") {
		return true
	}
	detail, bad := strings.CutPrefix(text, "API error 1 (datastore_v3: BAD_REQUEST): ")
	detail = strings.ToLower(detail)
	return bad && strings.Contains(detail, "transaction") &&
		(strings.Contains(detail, "not found") || strings.Contains(detail, "no longer valid") || strings.Contains(detail, "has expired"))
}

// Get implements [entity.Tx].
func (t tx) Get(id store.ID) (store.Record, error) {
	e := row{rec: store.Record{ID: id}}
	err := datastore.Get(t.ctx, t.s.key(t.ctx, id), &e)
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
		keys[i] = t.s.key(t.ctx, id)
		rows[i] = &row{store.Record{ID: id}}
	}
	if err := datastore.GetMulti(t.ctx, keys, rows); err != nil {
		var each appengine.MultiError
		if errors.As(err, &each) && slices.ContainsFunc(each, func(err error) bool { return errors.Is(err, datastore.ErrNoSuchEntity) }) {
			return nil, datastore.ErrConcurrentTransaction // swept since the query
		}
		return nil, err
	}
	recs := make([]store.Record, len(rows))
	for i, r := range rows {
		recs[i] = r.rec
	}
	return recs, nil
}

// Put implements [entity.Tx]. The library does not distinguish inserts from updates.
func (t tx) Put(_ bool, recs ...store.Record) error {
	keys := make([]*datastore.Key, len(recs))
	rows := make([]*row, len(recs))
	for i, rec := range recs {
		keys[i], rows[i] = t.s.key(t.ctx, rec.ID), &row{rec}
	}
	_, err := datastore.PutMulti(t.ctx, keys, rows)
	return err
}

// ByUser implements [entity.Tx]. The bundled datastore has no such query in a
// transaction. Outside of it, the query returns at least the sessions that
// existed when the user was read: a login that is committed later writes the
// user, so this transaction fails.
func (t tx) ByUser(user store.UserHash) ([]store.Record, error) {
	found, err := collect(t.outside, datastore.NewQuery(t.s.kind).Filter(entity.User+" =", entity.UserText(user)))
	return found.Records, err
}

// User implements [entity.Tx].
func (t tx) User(user store.UserHash) (time.Time, error) {
	var e deadline
	err := datastore.Get(t.ctx, t.userKey(user), &e)
	if errors.Is(err, datastore.ErrNoSuchEntity) {
		err = nil
	}
	return e.at, err
}

// PutUser implements [entity.Tx].
func (t tx) PutUser(user store.UserHash, until time.Time) error {
	_, err := datastore.Put(t.ctx, t.userKey(user), &deadline{until})
	return err
}

func (t tx) userKey(user store.UserHash) *datastore.Key {
	return datastore.NewKey(t.ctx, t.s.kind+entity.UserSuffix, entity.UserText(user), 0, nil)
}
