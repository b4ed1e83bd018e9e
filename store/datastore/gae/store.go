package gae

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// Options are a store's settings. The zero value is a sensible default.
type Options struct {
	// Kind is the entities' kind: up to 100 letters, digits, ".", "_" and "-",
	// not beginning with "__". "" = "SojournSession".
	Kind string

	// Namespace holds the entities: up to 100 letters, digits, ".", "_" and
	// "-". "" = the default namespace. The namespace in the request's context
	// is ignored, so that every request and the cron handler use the same
	// sessions.
	Namespace string
}

const (
	// maxKeys is how many entities one query of a sweep returns at most.
	maxKeys = 500

	// countPage is how many records Count has in memory at once.
	countPage = 100

	// maxGroups is how many entities one transaction may hold: each is an
	// entity group of its own.
	maxGroups = 25

	// maxEvicted is how many sessions one transaction ends, besides the user
	// and its save.
	maxEvicted = maxGroups - 5
)

// Store keeps records as entities of one kind in the bundled datastore. It is
// safe for concurrent use, and holds nothing that needs closing.
type Store struct {
	kind  string
	space string
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
	_ store.Counter     = (*Store)(nil)
)

// New returns a store. It calls no service.
func New(o Options) (*Store, error) {
	if o.Kind == "" {
		o.Kind = entity.Kind
	}
	if err := entity.CheckNames(o.Kind, o.Namespace); err != nil {
		return nil, fmt.Errorf("gae: %w", err)
	}
	return &Store{kind: o.Kind, space: o.Namespace}, nil
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	ctx, err := begin(ctx, s.space, "load")
	if err != nil {
		return store.Record{}, err
	}
	rec, err := s.outside(ctx).Get(id)
	return rec, failed(ctx, "load", err)
}

// Save implements [store.Store], by a transaction of four calls. Data of more
// than about 1,047,000 bytes is store.ErrTooLarge: an entity may take 1,048,572
// bytes in all.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return failed(ctx, "save", err)
	}
	return s.change(ctx, "save", rec.ID, entity.Saving(rec, base))
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return s.change(ctx, "delete", id, entity.Ending(id, until))
}

// Touch implements [store.Toucher]. It rewrites the entity: the datastore has
// nothing smaller.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return s.change(ctx, "touch", id, entity.Touching(seen, deadline))
}

// change applies next to the stored record.
func (s *Store) change(ctx context.Context, doing string, id store.ID, next entity.Change) error {
	ctx, err := begin(ctx, s.space, doing)
	if err != nil {
		return err
	}
	return failed(ctx, doing, entity.Apply(s.outside(ctx), id, next))
}

// SaveLimited implements [store.UserLimiter]. Parallel logins of one user
// conflict and retry, with pauses, until their context ends. If more than 20
// sessions must end, the oldest 20 end first, in separate transactions.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return nil, failed(ctx, "save", err)
	}
	ctx, err := begin(ctx, s.space, "save")
	if err != nil {
		return nil, err
	}
	ended, err := entity.SaveLimited(s.outside(ctx), rec, limit, maxEvicted)
	return ended, failed(ctx, "save", err)
}

// Sweep implements [store.Sweeper], by this process's clock. It reads keys
// only, at most 500 at a time, and deletes up to 25 of them in a transaction
// that checks their deadlines again, so that a record stays if its deadline
// changes meanwhile. Outside of a request it returns ErrNoRequest and
// [errors.ErrUnsupported], so the session manager's own sweeps do nothing. Use
// [Cron].
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	ctx, err := begin(ctx, s.space, "sweep")
	if err != nil {
		return 0, inBackground(err)
	}
	over := time.Now().Add(-age)
	removed, err := sweep(ctx, s.kind, over, limit)
	if err == nil && removed < limit {
		// The entities of users without sessions are not records, so they are not counted.
		_, err = sweep(ctx, s.kind+entity.UserSuffix, over, limit)
	}
	return removed, failed(ctx, "sweep", err)
}

// sweep deletes at most limit entities of a kind whose deadline is before over.
func sweep(ctx context.Context, kind string, over time.Time, limit int) (removed int, err error) {
	for removed < limit {
		page := min(limit-removed, maxKeys)
		keys, err := datastore.NewQuery(kind).Filter(entity.Deadline+" <", over).KeysOnly().Limit(page).GetAll(ctx, nil)
		if err != nil {
			return removed, err
		}
		before := removed
		for group := range slices.Chunk(keys, maxGroups) {
			n, err := remove(ctx, group, over)
			removed += n
			if err != nil {
				return removed, err
			}
		}
		if len(keys) < page || removed == before { // the latter: another sweep is running
			break
		}
	}
	return removed, nil
}

// remove deletes those of the entities whose deadline is before over.
func remove(ctx context.Context, keys []*datastore.Key, over time.Time) (n int, err error) {
	err = transact(ctx, func(ctx context.Context) error {
		n = 0
		found := make([]deadline, len(keys))
		err := datastore.GetMulti(ctx, keys, found)
		var each appengine.MultiError
		if err != nil && !errors.As(err, &each) {
			return err
		}
		var old []*datastore.Key
		for i, key := range keys {
			switch {
			case each != nil && errors.Is(each[i], datastore.ErrNoSuchEntity):
			case each != nil && each[i] != nil:
				return each[i]
			case found[i].at.Before(over):
				old = append(old, key)
			}
		}
		if len(old) == 0 {
			return entity.ErrUnchanged
		}
		n = len(old)
		return datastore.DeleteMulti(ctx, old)
	}, func() error { return nil })
	if err != nil {
		n = 0
	}
	return n, entity.Unless(entity.ErrUnchanged, err)
}

// ByUser implements [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	const doing = "list a user's sessions"
	ctx, err := begin(ctx, s.space, doing)
	if err != nil {
		return nil, err
	}
	recs, err := entity.ByUser(s.outside(ctx), user)
	return recs, failed(ctx, doing, err)
}

// Ends implements [store.EndFeed], by one query that reads nothing but an
// index. It uses the clocks of the processes that end sessions, and each call
// repeats the ends of the last 90 seconds before the previous call. An end is
// missed if two processes' clocks differ by more than a minute, or if writing
// it takes more than half a minute. Outside of a request it returns
// ErrNoRequest and [errors.ErrUnsupported].
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	const doing = "read the feed of ends"
	ctx, err := begin(ctx, s.space, doing)
	if err != nil {
		return store.EndPage{}, inBackground(err)
	}
	page, err := entity.ReadFeed(cursor, limit, func(after string, limit int) ([]string, error) {
		var found []entity.Projection
		q := datastore.NewQuery(s.kind).Filter(entity.Feed+" >", after).Filter(entity.Feed+" <", entity.FeedEnd).Order(entity.Feed).Project(entity.Feed).Limit(limit)
		_, err := q.GetAll(ctx, &found)
		return entity.Feeds(found), err
	})
	return page, failed(ctx, doing, err)
}

// Scan implements [store.Scanner], in the order of the handles.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	ctx, err := begin(ctx, s.space, "scan")
	if err != nil {
		return nil, "", err
	}
	recs, next, err := entity.ReadPage(cursor, limit, datastore.DecodeKey, func(after *datastore.Key, limit int) (entity.Found[*datastore.Key], error) {
		q := datastore.NewQuery(s.kind).Order("__key__").Limit(limit)
		if after != nil {
			q = q.Filter("__key__ >", after)
		}
		return collect(ctx, q)
	})
	return recs, next, failed(ctx, "scan", err)
}

// Count implements [store.Counter]. It reads every record, and each read is
// billed, so do not call it every few seconds.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	now := time.Now()
	for cursor := ""; ; {
		recs, next, err := s.Scan(ctx, cursor, countPage)
		if err != nil {
			return store.Counts{}, err
		}
		for _, rec := range recs {
			c.Bytes += int64(len(rec.Data))
			switch {
			case rec.IsEnd():
				c.Ended++
			case rec.Expired(now):
				c.Expired++
			default:
				c.Live++
				if rec.User != (store.UserHash{}) {
					c.LoggedIn++
				}
			}
		}
		if cursor = next; cursor == "" {
			return c, nil
		}
	}
}

// collect is [entity.Collect] of what q finds.
func collect(ctx context.Context, q *datastore.Query) (entity.Found[*datastore.Key], error) {
	it := q.Run(ctx)
	return entity.Collect(func(rec *store.Record) (*datastore.Key, string, error) {
		var e row
		key, err := it.Next(&e)
		if *rec = e.rec; key == nil || key.Parent() != nil {
			return key, "", err
		}
		return key, key.StringID(), err
	}, datastore.Done)
}

func (s *Store) key(ctx context.Context, id store.ID) *datastore.Key {
	return datastore.NewKey(ctx, s.kind, id.String(), 0, nil)
}
