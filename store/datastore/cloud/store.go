package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

const (
	// maxMutations is how many entities one commit may change.
	maxMutations = 500

	// maxEvicted is how many sessions one transaction ends, besides its save.
	maxEvicted = maxMutations - 100
)

// Store keeps records as entities of one kind. It is safe for concurrent use.
type Store struct {
	client *datastore.Client
	own    bool // the client is closed with the store
	kind   string
	space  string
	ttl    bool // old records are deleted by a TTL policy
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
)

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, failed(ctx, "load", err)
	}
	rec, err := s.outside(ctx).Get(id)
	return rec, failed(ctx, "load", err)
}

// Save implements [store.Store]. A first save is one call, and a later one is
// three. Data of more than about 1,047,000 bytes is store.ErrTooLarge: an
// entity may take 1,048,572 bytes in all.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return failed(ctx, "save", err)
	}
	change := entity.Saving(rec, base)
	if base == (store.Base{}) {
		return failed(ctx, "save", s.insert(ctx, rec, change))
	}
	return failed(ctx, "save", entity.Apply(s.outside(ctx), rec.ID, change))
}

// insert stores rec if there is no record, and otherwise applies change to the
// stored record.
func (s *Store) insert(ctx context.Context, rec store.Record, change entity.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.client.Mutate(ctx, datastore.NewInsert(s.key(rec.ID), s.row(rec)))
	if code := status.Code(err); code != codes.AlreadyExists && code != codes.Aborted {
		return err
	}
	db := s.outside(ctx)
	if err := entity.Look(db, rec.ID, change); err != nil {
		return entity.Unless(entity.ErrUnchanged, err)
	}
	return entity.Apply(db, rec.ID, change)
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return failed(ctx, "delete", entity.Apply(s.outside(ctx), id, entity.Ending(id, until)))
}

// Touch implements [store.Toucher]. It rewrites the entity: Datastore has
// nothing smaller.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return failed(ctx, "touch", entity.Apply(s.outside(ctx), id, entity.Touching(seen, deadline)))
}

// SaveLimited implements [store.UserLimiter]. Parallel logins of one user
// conflict and retry, with pauses, until their context ends. If more than 400
// sessions must end, the oldest 400 end first, in separate transactions.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return nil, failed(ctx, "save", err)
	}
	ended, err := entity.SaveLimited(s.outside(ctx), rec, limit, maxEvicted)
	return ended, failed(ctx, "save", err)
}

// Sweep implements [store.Sweeper], by this process's clock, because
// Datastore's is not available. It reads keys only, at most 500 at a time, in
// the transaction that deletes them, so that a record stays if its deadline
// changes meanwhile.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if s.ttl {
		return 0, fmt.Errorf("cloud datastore: sweep: the TTL policy does that: %w", errors.ErrUnsupported)
	}
	over := time.Now().Add(-age)
	removed, err := s.sweep(ctx, s.query(), over, limit)
	if err == nil && removed < limit {
		// The entities of users without sessions are not records, so they are not counted.
		_, err = s.sweep(ctx, s.users(), over, limit)
	}
	return removed, failed(ctx, "sweep", err)
}

// sweep deletes at most limit of the entities that q finds whose deadline is
// before over.
func (s *Store) sweep(ctx context.Context, q *datastore.Query, over time.Time, limit int) (removed int, err error) {
	q = q.FilterField(entity.Deadline, "<", over).KeysOnly()
	for removed < limit {
		batch := min(limit-removed, maxMutations)
		n := 0
		err := s.outside(ctx).transact(func(t tx) error {
			keys, err := s.client.GetAll(ctx, q.Limit(batch).Transaction(t.in), nil)
			if err != nil {
				return err
			}
			if n = len(keys); n == 0 {
				return entity.ErrUnchanged
			}
			return t.in.DeleteMulti(keys)
		}, func() error { return nil })
		if err := entity.Unless(entity.ErrUnchanged, err); err != nil {
			return removed, err
		}
		removed += n
		if n < batch {
			break
		}
	}
	return removed, nil
}

// ByUser implements [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	const doing = "list a user's sessions"
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, doing, err)
	}
	recs, err := entity.ByUser(s.outside(ctx), user)
	return recs, failed(ctx, doing, err)
}

// Ends implements [store.EndFeed], by one query that reads nothing but an
// index. It uses the clocks of the processes that end sessions, and each call
// repeats the ends of the last 90 seconds before the previous call. An end is
// missed if two processes' clocks differ by more than a minute, or if writing
// it takes more than half a minute.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	const doing = "read the feed of ends"
	if err := ctx.Err(); err != nil {
		return store.EndPage{}, failed(ctx, doing, err)
	}
	page, err := entity.ReadFeed(cursor, limit, func(after string, limit int) ([]string, error) {
		var found []entity.Projection
		q := s.query().FilterField(entity.Feed, ">", after).FilterField(entity.Feed, "<", entity.FeedEnd).Order(entity.Feed).Project(entity.Feed).Limit(limit)
		_, err := s.client.GetAll(ctx, q, &found)
		return entity.Feeds(found), err
	})
	return page, failed(ctx, doing, err)
}

// Scan implements [store.Scanner], in the order of the handles.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", failed(ctx, "scan", err)
	}
	recs, next, err := entity.ReadPage(cursor, limit, datastore.DecodeKey, func(after *datastore.Key, limit int) (entity.Found[*datastore.Key], error) {
		q := s.query().Order("__key__").Limit(limit)
		if after != nil {
			q = q.FilterField("__key__", ">", after)
		}
		return s.collect(ctx, q)
	})
	return recs, next, failed(ctx, "scan", err)
}

// collect is [entity.Collect] of what q finds.
func (s *Store) collect(ctx context.Context, q *datastore.Query) (entity.Found[*datastore.Key], error) {
	it := s.client.Run(ctx, q)
	return entity.Collect(func(rec *store.Record) (*datastore.Key, string, error) {
		var e row
		key, err := it.Next(&e)
		if *rec = e.rec; key == nil || key.Parent != nil {
			return key, "", err
		}
		return key, key.Name, err
	}, iterator.Done)
}

func (s *Store) key(id store.ID) *datastore.Key {
	k := datastore.NameKey(s.kind, id.String(), nil)
	k.Namespace = s.space
	return k
}

func (s *Store) row(rec store.Record) *row {
	return &row{rec: rec, unswept: s.ttl}
}

func (s *Store) query() *datastore.Query {
	return datastore.NewQuery(s.kind).Namespace(s.space)
}

// users finds the users' entities.
func (s *Store) users() *datastore.Query {
	return datastore.NewQuery(s.kind + entity.UserSuffix).Namespace(s.space)
}

// owned finds a user's live sessions: the property is not indexed in tombstones.
func (s *Store) owned(user store.UserHash) *datastore.Query {
	return s.query().FilterField(entity.User, "=", entity.UserText(user))
}
