package gae

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/internal/entity"
	"github.com/sojourn-go/sojourn/store"
)

// Options are a store's settings. The zero value is a sensible default.
type Options struct {
	// Kind is the entities' kind: up to 100 letters, digits, ".", "_" and "-",
	// not beginning with "__". "" = "SojournSession".
	Kind string

	// Namespace holds the entities: up to 100 letters, digits, ".", "_" and
	// "-". "" = the default namespace. A namespace that the application put into
	// the request's context has no say, so that every request, and the cron
	// handler, meet the same sessions.
	Namespace string
}

const (
	defaultKind = "SojournSession"

	// maxKeys is how many entities one query for a sweep asks for.
	maxKeys = 500

	// maxGroups is how many entities one transaction may hold: each is an
	// entity group of its own.
	maxGroups = 25

	// Pauses between the attempts of contending transactions double from the
	// first to the last, and are spread at random over their upper half.
	firstPause = 8 * time.Millisecond
	lastPause  = time.Second
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
		o.Kind = defaultKind
	}
	if err := errors.Join(checkName("kind", o.Kind), checkName("namespace", o.Namespace)); err != nil {
		return nil, err
	}
	return &Store{kind: o.Kind, space: o.Namespace}, nil
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	ctx, err := begin(ctx, s.space, "load")
	if err != nil {
		return store.Record{}, err
	}
	rec, err := s.get(ctx, id)
	return rec, failed(ctx, "load", err)
}

// Save implements [store.Store], by a transaction of four calls. Data of over
// 1,047,000 bytes or so is store.ErrTooLarge: an entity may take 1,048,572
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

// change stores what next makes of the record that is there, in a transaction,
// and asks it again when another writer was faster. An error of next's changes
// nothing; entity.ErrUnchanged is success.
func (s *Store) change(ctx context.Context, doing string, id store.ID, next entity.Change) error {
	ctx, err := begin(ctx, s.space, doing)
	if err != nil {
		return err
	}
	look := func(ctx context.Context) (store.Record, error) {
		have, err := s.get(ctx, id)
		if err != nil && !missing(err) {
			return store.Record{}, err
		}
		return next(have, err == nil)
	}
	err = transact(ctx, func(ctx context.Context) error {
		rec, err := look(ctx)
		if err != nil {
			return err
		}
		_, err = datastore.Put(ctx, s.key(ctx, id), &row{rec})
		return err
	}, func() error {
		_, err := look(ctx)
		return err
	})
	return failed(ctx, doing, entity.Unless(entity.ErrUnchanged, err))
}

// transact runs do in a transaction, again and again while others are in the
// way and ctx is not over. An error of do's own rolls back. So does one of
// overtaken's, which is asked before each further attempt: who was overtaken has
// mostly lost, and needs no second transaction to know. Running again after a
// transaction that may have been committed does no harm: do then finds what it
// did.
func transact(ctx context.Context, do func(context.Context) error, overtaken func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := datastore.RunInTransaction(ctx, do, &datastore.TransactionOptions{XG: true, Attempts: 1})
		if !contended(err) {
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

// contended reports whether a transaction failed because of others, or because
// the service forgot it. The library has no type for errors that it finds
// before the commit, only their text.
func contended(err error) bool {
	if err == nil {
		return false
	}
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

// Sweep implements [store.Sweeper], by this process's clock. It asks for keys
// only, at most 500 at a time, and deletes up to 25 of them in a transaction
// that looks at their deadlines once more, so that what got a new one meanwhile
// stays. Outside of a request it answers ErrNoRequest and
// [errors.ErrUnsupported]: the session manager's own sweeps then do nothing, and
// [Cron] is what cleans up.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	ctx, err := begin(ctx, s.space, "sweep")
	if err != nil {
		return 0, inBackground(err)
	}
	over := time.Now().Add(-age)
	removed, err := sweep(ctx, s.kind, over, limit)
	if err == nil && removed < limit {
		// What is left of users who have no session is no record, and not counted.
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
		if len(keys) < page || removed == before { // the latter: others are at it
			break
		}
	}
	return removed, nil
}

// due is what a sweep reads of an entity.
type due struct{ deadline time.Time }

// Load implements [datastore.PropertyLoadSaver].
func (d *due) Load(props []datastore.Property) error {
	for _, p := range props {
		if at, ok := p.Value.(time.Time); ok && p.Name == entity.Deadline {
			d.deadline = at
		}
	}
	return nil
}

// Save implements [datastore.PropertyLoadSaver]; nothing saves a due.
func (d *due) Save() ([]datastore.Property, error) { return nil, entity.ErrNotRecord }

// remove deletes those of the entities whose deadline is before over.
func remove(ctx context.Context, keys []*datastore.Key, over time.Time) (n int, err error) {
	err = transact(ctx, func(ctx context.Context) error {
		n = 0
		found := make([]due, len(keys))
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
			case found[i].deadline.Before(over):
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
	if user == (store.UserHash{}) {
		return nil, nil
	}
	recs, err := collect(ctx, datastore.NewQuery(s.kind).Filter(entity.User+" =", entity.UserText(user)))
	return recs, failed(ctx, doing, err)
}

// Scan implements [store.Scanner], in the order of the handles.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	ctx, err := begin(ctx, s.space, "scan")
	if err != nil {
		return nil, "", err
	}
	q := datastore.NewQuery(s.kind).Order("__key__").Limit(limit)
	if cursor != "" {
		after, err := store.ParseID(cursor)
		if err != nil {
			return nil, "", failed(ctx, "scan", err)
		}
		q = q.Filter("__key__ >", s.key(ctx, after))
	}
	recs, err := collect(ctx, q)
	if err != nil {
		return nil, "", failed(ctx, "scan", err)
	}
	if len(recs) < limit {
		return recs, "", nil
	}
	return recs, recs[len(recs)-1].ID.String(), nil
}

// Count implements [store.Counter]. The datastore cannot sum what it does not
// index, so Count reads every record, and each one read is paid for: it is for
// now and then, not for a page that is loaded every few seconds.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	ctx, err := begin(ctx, s.space, "count")
	if err != nil {
		return store.Counts{}, err
	}
	var c store.Counts
	now := time.Now()
	err = walk(ctx, datastore.NewQuery(s.kind), func(rec *store.Record) {
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
	})
	if err != nil {
		return store.Counts{}, failed(ctx, "count", err)
	}
	return c, nil
}

func collect(ctx context.Context, q *datastore.Query) (recs []store.Record, err error) {
	err = walk(ctx, q, func(rec *store.Record) { recs = append(recs, *rec) })
	return recs, err
}

// walk hands every record that q finds to see, but no damaged ones.
func walk(ctx context.Context, q *datastore.Query, see func(*store.Record)) error {
	for it := q.Run(ctx); ; {
		var e row
		key, err := it.Next(&e)
		if errors.Is(err, datastore.Done) {
			return nil
		}
		if errors.Is(err, store.ErrDamaged) {
			continue
		}
		if err != nil {
			return err
		}
		if e.rec.ID, err = store.ParseID(key.StringID()); err != nil {
			continue
		}
		see(&e.rec)
	}
}

// get reads a record, or finds store.ErrNotFound.
func (s *Store) get(ctx context.Context, id store.ID) (store.Record, error) {
	e := row{rec: store.Record{ID: id}}
	err := datastore.Get(ctx, s.key(ctx, id), &e)
	if errors.Is(err, datastore.ErrNoSuchEntity) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, err
	}
	return e.rec, nil
}

// missing reports whether there is no record, though maybe an entity in its place.
func missing(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged)
}

func (s *Store) key(ctx context.Context, id store.ID) *datastore.Key {
	return datastore.NewKey(ctx, s.kind, id.String(), 0, nil)
}
