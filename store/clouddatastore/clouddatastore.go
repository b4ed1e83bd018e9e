// Package clouddatastore keeps session records in Google Cloud Datastore, that
// is, in a Firestore database in Datastore mode.
//
//	db, err := clouddatastore.Open(ctx, "my-project", clouddatastore.Options{})
//	defer db.Close()
//
// It keeps one entity per session, named by the session's handle, and needs no
// composite index. Compare-and-set is a transaction; where several processes
// write one session at once, the losers try again with growing pauses until
// their context is over.
package clouddatastore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn/store"
)

// Options are a store's settings. The zero value is a sensible default.
type Options struct {
	// Kind is the entities' kind: up to 100 letters, digits, ".", "_" and "-",
	// not beginning with "__". "" = "SojournSession".
	Kind string

	// Namespace holds the entities: up to 100 letters, digits, ".", "_" and
	// "-". "" = the default namespace.
	Namespace string

	// TTLPolicy says that the kind has a TTL policy on its property "deadline".
	// Then the property is not indexed, which makes saves cheaper and lifts the
	// limit that an index of ever later times sets (about 500 writes a second),
	// and Sweep answers [errors.ErrUnsupported].
	TTLPolicy bool
}

const (
	defaultKind = "SojournSession"

	// maxMutations is how many entities one commit may change.
	maxMutations = 500

	// Pauses between the attempts of contending transactions double from the
	// first to the last, and are spread at random over their upper half.
	firstPause = 8 * time.Millisecond
	lastPause  = time.Second
)

var partName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,100}$`)

// Store keeps records as entities of one kind. It is safe for concurrent use.
type Store struct {
	client *datastore.Client
	own    bool // the client is closed with the store
	kind   string
	space  string
	ttl    bool // old records are deleted by a TTL policy
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Toucher   = (*Store)(nil)
	_ store.Sweeper   = (*Store)(nil)
	_ store.UserIndex = (*Store)(nil)
	_ store.Scanner   = (*Store)(nil)
)

// Open connects to that project's default database, with the credentials that
// the environment gives. The connection is made with the first call. If
// DATASTORE_EMULATOR_HOST is set, that emulator is used. The caller closes the
// store. For a named database or other credentials, make a client and use New.
func Open(ctx context.Context, project string, o Options) (*Store, error) {
	client, err := datastore.NewClient(ctx, project)
	if err != nil {
		return nil, failed(ctx, "open", err)
	}
	s, err := New(client, o)
	if err != nil {
		_ = client.Close() // nothing was sent
		return nil, err
	}
	s.own = true
	return s, nil
}

// New keeps records through a client that the application already has. The
// client stays the caller's. It does not connect.
func New(client *datastore.Client, o Options) (*Store, error) {
	if client == nil {
		return nil, errors.New("clouddatastore: the client is nil")
	}
	if o.Kind == "" {
		o.Kind = defaultKind
	}
	for what, name := range map[string]string{"kind": o.Kind, "namespace": o.Namespace} {
		if !partName.MatchString(name) || len(name) > 1 && name[:2] == "__" {
			return nil, fmt.Errorf("clouddatastore: %s %.120q: up to 100 letters, digits, \".\", \"_\" and \"-\", not beginning with \"__\"", what, name)
		}
	}
	return &Store{client: client, kind: o.Kind, space: o.Namespace, ttl: o.TTLPolicy}, nil
}

// Close closes the client that Open made.
func (s *Store) Close() error {
	if !s.own {
		return nil
	}
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("clouddatastore: close: %w", err)
	}
	return nil
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, failed(ctx, "load", err)
	}
	e := entity{rec: store.Record{ID: id}}
	err := s.client.Get(ctx, s.key(id), &e)
	switch {
	case errors.Is(err, datastore.ErrNoSuchEntity):
		return store.Record{}, store.ErrNotFound
	case err != nil:
		return store.Record{}, failed(ctx, "load", err)
	}
	return e.rec, nil
}

// Save implements [store.Store]. A first save is one call, and a following one
// is three. Data of over 1,047,000 bytes or so is store.ErrTooLarge: an entity
// may take 1,048,572 bytes in all.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := s.fits(&rec); err != nil {
		return err
	}
	var err error
	if base == (store.Base{}) {
		err = s.insert(ctx, rec, func(have store.Record) (store.Record, error) {
			switch {
			case have.HasTag(rec.Tags[0]):
				return store.Record{}, errUnchanged
			case !have.Expired(time.Now()):
				return store.Record{}, store.ErrConflict
			}
			return rec, nil
		})
	} else {
		err = s.update(ctx, rec.ID, func(have store.Record) (store.Record, error) {
			switch {
			case have.HasTag(rec.Tags[0]):
				return store.Record{}, errUnchanged
			case have.IsEnd() || have.Base() != base:
				return store.Record{}, store.ErrConflict
			}
			next := rec
			if !rec.Shorten && !rec.IsEnd() {
				next.Seen, next.Deadline = later(rec.Seen, have.Seen), later(rec.Deadline, have.Deadline)
			}
			return next, nil
		})
		if errors.Is(err, store.ErrNotFound) {
			err = store.ErrConflict
		}
	}
	return failed(ctx, "save", err)
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	now := time.Now()
	mark := store.Record{ID: id, Created: now, Seen: now, Deadline: until, Expires: until, Ended: now}
	return failed(ctx, "delete", s.insert(ctx, mark, func(have store.Record) (store.Record, error) {
		if have.IsEnd() {
			if !until.After(have.Deadline) {
				return store.Record{}, errUnchanged
			}
			have.Deadline = until
			return have, nil
		}
		have.Ended, have.Deadline, have.Data = now, until, nil
		return have, nil
	}))
}

// Touch implements [store.Toucher]. It rewrites the entity: Datastore has
// nothing smaller.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return failed(ctx, "touch", s.update(ctx, id, func(have store.Record) (store.Record, error) {
		if have.IsEnd() {
			return store.Record{}, store.ErrNotFound
		}
		next := have
		next.Seen, next.Deadline = later(have.Seen, millis(seen)), later(have.Deadline, millis(deadline))
		if next.Seen.Equal(have.Seen) && next.Deadline.Equal(have.Deadline) {
			return store.Record{}, errUnchanged
		}
		return next, nil
	}))
}

// errUnchanged is what a change answers when there is nothing to write.
var errUnchanged = errors.New("clouddatastore: nothing to change")

// insert stores rec where there is no record, and otherwise what change makes
// of the one that is there.
func (s *Store) insert(ctx context.Context, rec store.Record, change func(have store.Record) (store.Record, error)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := s.client.Mutate(ctx, datastore.NewInsert(s.key(rec.ID), s.entity(rec)))
		switch status.Code(err) {
		case codes.AlreadyExists:
		case codes.Aborted: // another insert was faster
		default:
			return err
		}
		if err := s.update(ctx, rec.ID, change); !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
}

// update replaces a record by what change makes of it, in a transaction, and
// runs change again when another writer was faster. It returns
// store.ErrNotFound where there is no record.
func (s *Store) update(ctx context.Context, id store.ID, change func(have store.Record) (store.Record, error)) error {
	err := s.transact(ctx, func(tx *datastore.Transaction) error {
		key := s.key(id)
		e := entity{rec: store.Record{ID: id}}
		if err := tx.Get(key, &e); err != nil {
			if errors.Is(err, datastore.ErrNoSuchEntity) {
				return store.ErrNotFound
			}
			return err
		}
		next, err := change(e.rec)
		if err != nil {
			return err
		}
		_, err = tx.Mutate(datastore.NewUpdate(key, s.entity(next)))
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// transact runs do and commits what it asks for, again and again while other
// transactions are in the way and ctx is not over. An error of do's own rolls
// back.
//
// datastore.BeginLater would save a call, but the client forgets a transaction
// that began with a read which found nothing (or whose answer lacks its name):
// the commit is then no part of it, and its locks stay.
func (s *Store) transact(ctx context.Context, do func(*datastore.Transaction) error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := ctx.Err(); err != nil {
			return err
		}
		tx, err := s.client.NewTransaction(ctx)
		if err != nil {
			return err
		}
		err = do(tx)
		if err == nil {
			if _, err = tx.Commit(); err == nil {
				return nil
			}
			if status.Code(err) == codes.NotFound { // the entity to update has just been swept
				err = datastore.ErrConcurrentTransaction
			}
		}
		_ = tx.Rollback() // lets go of locks; what is left behind ends by itself
		if !errors.Is(err, datastore.ErrConcurrentTransaction) && status.Code(err) != codes.Aborted {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// Sweep implements [store.Sweeper], by this process's clock: Datastore's cannot
// be asked. It reads keys only, at most 500 at a time, in the transaction that
// deletes them, so that a record which gets a new deadline meanwhile stays.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if s.ttl {
		return 0, fmt.Errorf("clouddatastore: sweep: the TTL policy does that: %w", errors.ErrUnsupported)
	}
	over := time.Now().Add(-age)
	removed := 0
	for removed < limit {
		batch := min(limit-removed, maxMutations)
		var n int
		err := s.transact(ctx, func(tx *datastore.Transaction) error {
			q := s.query().FilterField(propDeadline, "<", over).KeysOnly().Limit(batch).Transaction(tx)
			keys, err := s.client.GetAll(ctx, q, nil)
			if err != nil {
				return err
			}
			if n = len(keys); n == 0 {
				return errUnchanged
			}
			return tx.DeleteMulti(keys)
		})
		if err != nil && !errors.Is(err, errUnchanged) {
			return removed, failed(ctx, "sweep", err)
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
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, "list a user's sessions", err)
	}
	if user == (store.UserHash{}) {
		return nil, nil
	}
	recs, err := s.collect(ctx, s.query().FilterField(propUser, "=", user[:]))
	return recs, failed(ctx, "list a user's sessions", err)
}

// Scan implements [store.Scanner], in the order of the handles.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", failed(ctx, "scan", err)
	}
	q := s.query().Order("__key__").Limit(limit)
	if cursor != "" {
		after, err := store.ParseID(cursor)
		if err != nil {
			return nil, "", failed(ctx, "scan", err)
		}
		q = q.FilterField("__key__", ">", s.key(after))
	}
	recs, err := s.collect(ctx, q)
	if err != nil {
		return nil, "", failed(ctx, "scan", err)
	}
	if len(recs) < limit {
		return recs, "", nil
	}
	return recs, recs[len(recs)-1].ID.String(), nil
}

func (s *Store) collect(ctx context.Context, q *datastore.Query) ([]store.Record, error) {
	var recs []store.Record
	for it := s.client.Run(ctx, q); ; {
		var e entity
		key, err := it.Next(&e)
		if errors.Is(err, iterator.Done) {
			return recs, nil
		}
		if err != nil {
			return nil, err
		}
		if e.rec.ID, err = store.ParseID(key.Name); err != nil {
			return nil, errNotRecord
		}
		recs = append(recs, e.rec)
	}
}

func (s *Store) key(id store.ID) *datastore.Key {
	k := datastore.NameKey(s.kind, id.String(), nil)
	k.Namespace = s.space
	return k
}

func (s *Store) entity(rec store.Record) *entity {
	return &entity{rec: rec, unswept: s.ttl}
}

func (s *Store) query() *datastore.Query {
	return datastore.NewQuery(s.kind).Namespace(s.space)
}

// failed wraps err, unless it is nil or one of package store's own. What the
// context did comes first: it is lost among gRPC's errors.
func failed(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("clouddatastore: %s: %w: %w", doing, ctx.Err(), hushed{err})
	}
	return fmt.Errorf("clouddatastore: %s: %w", doing, hushed{err})
}

// hushed is an error of the service whose text is free of handles: it quotes
// the keys of entities.
type hushed struct{ err error }

var handles = regexp.MustCompile(`[a-z2-7]{26}`)

func (h hushed) Error() string { return handles.ReplaceAllString(h.err.Error(), "…") }
func (h hushed) Unwrap() error { return h.err }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
