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

	"github.com/sojourn-go/sojourn/internal/entity"
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
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
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
	rec, found, err := s.found(id, func(key *datastore.Key, dst any) error { return s.client.Get(ctx, key, dst) })
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return rec, failed(ctx, "load", err)
}

// Save implements [store.Store]. A first save is one call, and a following one
// is three. Data of over 1,047,000 bytes or so is store.ErrTooLarge: an entity
// may take 1,048,572 bytes in all.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := entity.Fits(&rec, s.kind, s.space); err != nil {
		return failed(ctx, "save", err)
	}
	next := entity.Saving(rec, base)
	if base == (store.Base{}) {
		return failed(ctx, "save", s.insert(ctx, rec, next))
	}
	return failed(ctx, "save", s.change(ctx, rec.ID, next))
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return failed(ctx, "delete", s.change(ctx, id, entity.Ending(id, until)))
}

// Touch implements [store.Toucher]. It rewrites the entity: Datastore has
// nothing smaller.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return failed(ctx, "touch", s.change(ctx, id, entity.Touching(seen, deadline)))
}

// insert stores rec where there is no record, and otherwise what next makes of
// the one that is there.
func (s *Store) insert(ctx context.Context, rec store.Record, next entity.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.client.Mutate(ctx, datastore.NewInsert(s.key(rec.ID), s.row(rec)))
	if code := status.Code(err); code != codes.AlreadyExists && code != codes.Aborted {
		return err
	}
	if err := s.look(ctx, rec.ID, next); err != nil {
		return entity.Unless(entity.ErrUnchanged, err)
	}
	return s.change(ctx, rec.ID, next)
}

// change stores what next makes of the record that is there, in a transaction,
// and asks it again when another writer was faster.
func (s *Store) change(ctx context.Context, id store.ID, next entity.Change) error {
	return entity.Unless(entity.ErrUnchanged, s.transact(ctx, func(tx *datastore.Transaction) error {
		have, found, err := s.found(id, tx.Get)
		damaged := errors.Is(err, store.ErrDamaged)
		if err != nil && !damaged {
			return err
		}
		rec, err := next(have, found)
		if err != nil {
			return err
		}
		return s.put(tx, rec, found || damaged)
	}, func() error { return s.look(ctx, id, next) }))
}

// look returns next's error for the record that is there, by one call. Who was
// overtaken has mostly lost, and needs no second transaction to know.
func (s *Store) look(ctx context.Context, id store.ID, next entity.Change) error {
	have, found, err := s.found(id, func(key *datastore.Key, dst any) error { return s.client.Get(ctx, key, dst) })
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	_, err = next(have, found)
	return err
}

// found reads a record. One that is damaged is an error and not found.
func (s *Store) found(id store.ID, get func(*datastore.Key, any) error) (rec store.Record, found bool, err error) {
	e := row{rec: store.Record{ID: id}}
	err = get(s.key(id), &e)
	if errors.Is(err, datastore.ErrNoSuchEntity) {
		return store.Record{}, false, nil
	}
	if err != nil {
		return store.Record{}, false, err
	}
	return e.rec, true, nil
}

// put makes a transaction write a record, which it has found or not.
func (s *Store) put(tx *datastore.Transaction, rec store.Record, found bool) error {
	mutation := datastore.NewInsert
	if found {
		mutation = datastore.NewUpdate
	}
	_, err := tx.Mutate(mutation(s.key(rec.ID), s.row(rec)))
	return err
}

// transact runs do and commits what it asks for, again and again while other
// transactions are in the way and ctx is not over. An error of do's own rolls
// back. So does one of overtaken's, which is asked before each further attempt.
//
// datastore.BeginLater would save a call, but the client forgets a transaction
// that began with a read which found nothing (or whose answer lacks its name):
// the commit is then no part of it, and its locks stay.
func (s *Store) transact(ctx context.Context, do func(*datastore.Transaction) error, overtaken func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := ctx.Err(); err != nil {
			return err
		}
		tx, err := s.client.NewTransaction(ctx)
		if err != nil {
			return err
		}
		if err = do(tx); err == nil {
			if err = commit(tx); err == nil {
				return nil
			}
		} else {
			_ = tx.Rollback() // lets go of locks; what is left behind ends by itself
		}
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

// commit commits a transaction. That the entity to update has just been swept,
// or the one to insert just been made, is the work of others, too.
func commit(tx *datastore.Transaction) error {
	_, err := tx.Commit()
	if code := status.Code(err); code == codes.NotFound || code == codes.AlreadyExists {
		return datastore.ErrConcurrentTransaction
	}
	return err
}

// contended reports whether a transaction failed because of others.
func contended(err error) bool {
	return errors.Is(err, datastore.ErrConcurrentTransaction) || status.Code(err) == codes.Aborted
}

// Sweep implements [store.Sweeper], by this process's clock: Datastore's cannot
// be asked. It reads keys only, at most 500 at a time, in the transaction that
// deletes them, so that a record which gets a new deadline meanwhile stays.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if s.ttl {
		return 0, fmt.Errorf("clouddatastore: sweep: the TTL policy does that: %w", errors.ErrUnsupported)
	}
	over := time.Now().Add(-age)
	removed, err := s.sweep(ctx, s.query(), over, limit)
	if err == nil && removed < limit {
		// What is left of users who have no session is no record, and not counted.
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
		err := s.transact(ctx, func(tx *datastore.Transaction) error {
			keys, err := s.client.GetAll(ctx, q.Limit(batch).Transaction(tx), nil)
			if err != nil {
				return err
			}
			if n = len(keys); n == 0 {
				return entity.ErrUnchanged
			}
			return tx.DeleteMulti(keys)
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
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, "list a user's sessions", err)
	}
	if user == (store.UserHash{}) {
		return nil, nil
	}
	recs, err := s.collect(ctx, s.query().FilterField(entity.User, "=", entity.UserText(user)))
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

// collect returns the records that q finds, without damaged ones.
func (s *Store) collect(ctx context.Context, q *datastore.Query) ([]store.Record, error) {
	var recs []store.Record
	for it := s.client.Run(ctx, q); ; {
		var e row
		key, err := it.Next(&e)
		if errors.Is(err, iterator.Done) {
			return recs, nil
		}
		if errors.Is(err, store.ErrDamaged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.rec.ID, err = store.ParseID(key.Name); err != nil {
			continue
		}
		recs = append(recs, e.rec)
	}
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

// users finds the entities that logins of one user meet at.
func (s *Store) users() *datastore.Query {
	return datastore.NewQuery(s.kind + entity.UserSuffix).Namespace(s.space)
}

// failed wraps err, unless it is nil or one of package store's own. What the
// context did comes first: it is lost among gRPC's errors.
func failed(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrLimit):
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
