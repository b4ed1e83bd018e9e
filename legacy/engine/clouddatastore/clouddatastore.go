// Package clouddatastore reads and writes other libraries' sessions in Google
// Cloud Datastore, where App Engine applications keep them: those of webapp2,
// gae-sessions, gaeutilities and Beaker's ext:google.
//
// It cannot access App Engine's memcache, which only services on App Engine
// can. If the old application reads a copy there first, it does not see changes
// made here until the copy is gone.
package clouddatastore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
)

// Store is the datastore for the formats, bound to one namespace. It supports
// guards with transactions. It is safe for concurrent use.
type Store struct {
	client    *datastore.Client
	app       string
	namespace string
}

var (
	_ appengine.Datastore      = (*Store)(nil)
	_ gaesessions.CleanupStore = (*Store)(nil)
	_ gaeutilities.Datastore   = (*Gaeutilities)(nil)
)

// New returns a Store. The caller closes the client. app is the application's
// identifier with its partition, such as "s~myapp", which is part of encoded
// keys. namespace is usually empty.
func New(client *datastore.Client, app, namespace string) *Store {
	return &Store{client, app, namespace}
}

func (s *Store) key(kind, name string) *datastore.Key {
	k := datastore.NameKey(kind, name, nil)
	k.Namespace = s.namespace
	return k
}

// Get implements appengine.Datastore.
func (s *Store) Get(ctx context.Context, kind, name string) (appengine.Entity, error) {
	var list datastore.PropertyList
	err := s.client.Get(ctx, s.key(kind, name), &list)
	switch {
	case errors.Is(err, datastore.ErrNoSuchEntity):
		legacy.GuardOf(ctx).Saw(s, kind+"\x00"+name, nil)
		return nil, legacy.ErrNoEntry
	case err != nil:
		return nil, failed("get", err)
	}
	legacy.GuardOf(ctx).Saw(s, kind+"\x00"+name, list)
	return s.entity(list), nil
}

// Put implements appengine.Datastore.
func (s *Store) Put(ctx context.Context, kind, name string, e appengine.Entity) error {
	list, err := s.list(e)
	if err != nil {
		return err
	}
	key := s.key(kind, name)
	seen, guarded := legacy.GuardOf(ctx).Seen(s, kind+"\x00"+name)
	if !guarded {
		if _, err := s.client.Put(ctx, key, &list); err != nil {
			return failed("put", err)
		}
		return nil
	}
	was, there := seen.(datastore.PropertyList)
	_, err = s.client.RunInTransaction(ctx, func(tx *datastore.Transaction) error {
		var now datastore.PropertyList
		err := tx.Get(key, &now)
		switch {
		case errors.Is(err, datastore.ErrNoSuchEntity):
			if there {
				return legacy.ErrChanged
			}
		case err != nil:
			return err
		case !there || !same(was, now):
			return legacy.ErrChanged
		}
		_, err = tx.Put(key, &list)
		return err
	}, datastore.MaxAttempts(1))
	switch {
	case errors.Is(err, legacy.ErrChanged), errors.Is(err, datastore.ErrConcurrentTransaction):
		return legacy.ErrChanged
	case err != nil:
		return failed("put", err)
	}
	return nil
}

// Delete implements appengine.Datastore.
func (s *Store) Delete(ctx context.Context, kind, name string) error {
	if err := s.client.Delete(ctx, s.key(kind, name)); err != nil {
		return failed("delete", err)
	}
	return nil
}

// same compares two states of an entity, whatever the order of its properties.
func same(a, b datastore.PropertyList) bool {
	order := func(x, y datastore.Property) int { return strings.Compare(x.Name, y.Name) }
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, order)
	slices.SortFunc(b, order)
	return slices.EqualFunc(a, b, func(x, y datastore.Property) bool {
		if t, ok := x.Value.(time.Time); ok {
			u, ok := y.Value.(time.Time)
			return ok && x.Name == y.Name && t.Equal(u)
		}
		return x.Name == y.Name && reflect.DeepEqual(x.Value, y.Value)
	})
}

func (s *Store) entity(list datastore.PropertyList) appengine.Entity {
	out := make(appengine.Entity, len(list))
	for i, p := range list {
		out[i] = appengine.Property{Name: p.Name, Value: s.value(p.Value), NoIndex: p.NoIndex}
	}
	return out
}

func (s *Store) value(v any) any {
	switch v := v.(type) {
	case *datastore.Key:
		return s.legacyKey(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = s.value(v[i])
		}
		return out
	case time.Time:
		return v.UTC()
	}
	return v
}

// legacyKey returns a key in the form of App Engine's SDKs.
func (s *Store) legacyKey(k *datastore.Key) appengine.Key {
	out := appengine.Key{App: s.app, Namespace: k.Namespace}
	for ; k != nil; k = k.Parent {
		out.Path = append(out.Path, appengine.Element{Kind: k.Kind, ID: k.ID, Name: k.Name})
	}
	slices.Reverse(out.Path)
	return out
}

// cloudKey is the opposite. It reports false for keys of other applications.
func (s *Store) cloudKey(k appengine.Key) (*datastore.Key, bool) {
	if k.App != s.app || k.Namespace != s.namespace {
		return nil, false
	}
	var out *datastore.Key
	for _, e := range k.Path {
		out = &datastore.Key{Kind: e.Kind, ID: e.ID, Name: e.Name, Parent: out, Namespace: k.Namespace}
		if e.Name != "" {
			out.ID = 0
		}
	}
	return out, out != nil
}

func (s *Store) list(e appengine.Entity) (datastore.PropertyList, error) {
	out := make(datastore.PropertyList, len(e))
	for i, p := range e {
		v := p.Value
		if k, ok := v.(appengine.Key); ok {
			key, ok := s.cloudKey(k)
			if !ok {
				return nil, errors.New("legacy datastore: put: a key of another application")
			}
			v = key
		}
		out[i] = datastore.Property{Name: p.Name, Value: v, NoIndex: p.NoIndex}
	}
	return out, nil
}

// NamesBetween implements gaesessions.CleanupStore.
func (s *Store) NamesBetween(ctx context.Context, kind, from, to string, limit int) ([]string, error) {
	q := datastore.NewQuery(kind).Namespace(s.namespace).KeysOnly().Limit(limit).
		FilterField("__key__", ">=", s.key(kind, from)).FilterField("__key__", "<", s.key(kind, to)).Order("__key__")
	keys, err := s.client.GetAll(ctx, q, nil)
	if err != nil {
		return nil, failed("query", err)
	}
	var names []string
	for _, k := range keys {
		if k.Name != "" {
			names = append(names, k.Name)
		}
	}
	return names, nil
}

// DeleteNames implements gaesessions.CleanupStore.
func (s *Store) DeleteNames(ctx context.Context, kind string, names []string) error {
	keys := make([]*datastore.Key, len(names))
	for i, n := range names {
		keys[i] = s.key(kind, n)
	}
	return s.deleteAll(ctx, keys)
}

// maxMutations is how many entities one call may delete.
const maxMutations = 500

func (s *Store) deleteAll(ctx context.Context, keys []*datastore.Key) error {
	for part := range slices.Chunk(keys, maxMutations) {
		if err := s.client.DeleteMulti(ctx, part); err != nil {
			return failed("delete", err)
		}
	}
	return nil
}

// Gaeutilities is the datastore for gaeutilities: one entity per session and
// one per value.
type Gaeutilities struct{ s *Store }

// NewGaeutilities has the parameters of New.
func NewGaeutilities(client *datastore.Client, app, namespace string) *Gaeutilities {
	return &Gaeutilities{New(client, app, namespace)}
}

// Session implements gaeutilities.Datastore.
func (g *Gaeutilities) Session(ctx context.Context, key appengine.Key) (appengine.Entity, error) {
	k, ok := g.s.cloudKey(key)
	if !ok {
		return nil, legacy.ErrNoEntry
	}
	var list datastore.PropertyList
	err := g.s.client.Get(ctx, k, &list)
	switch {
	case errors.Is(err, datastore.ErrNoSuchEntity):
		return nil, legacy.ErrNoEntry
	case err != nil:
		return nil, failed("get", err)
	}
	return g.s.entity(list), nil
}

func (g *Gaeutilities) values(k *datastore.Key) *datastore.Query {
	return datastore.NewQuery(gaeutilities.DataKind).Namespace(g.s.namespace).FilterField("session", "=", k)
}

// Values implements gaeutilities.Datastore.
func (g *Gaeutilities) Values(ctx context.Context, session appengine.Key) ([]appengine.Entity, error) {
	k, ok := g.s.cloudKey(session)
	if !ok {
		return nil, nil
	}
	var out []appengine.Entity
	for it := g.s.client.Run(ctx, g.values(k)); ; {
		var list datastore.PropertyList
		_, err := it.Next(&list)
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err != nil {
			return nil, failed("query", err)
		}
		out = append(out, g.s.entity(list))
	}
}

// Delete implements gaeutilities.Datastore.
func (g *Gaeutilities) Delete(ctx context.Context, session appengine.Key) error {
	k, ok := g.s.cloudKey(session)
	if !ok {
		return nil
	}
	keys, err := g.s.client.GetAll(ctx, g.values(k).KeysOnly(), nil)
	if err != nil {
		return failed("query", err)
	}
	// The session first, because its values are useless without it.
	return g.s.deleteAll(ctx, append([]*datastore.Key{k}, keys...))
}

// failed wraps an error of the client. Its text may contain the key, a
// credential, so only its kind is passed on.
func failed(doing string, err error) error {
	return fmt.Errorf("legacy datastore: %s: %w", doing, quiet{err})
}

// quiet is an error without its text.
type quiet struct{ error }

func (q quiet) Error() string {
	if code := status.Code(q.error); code != codes.Unknown {
		return code.String()
	}
	return fmt.Sprintf("%T", q.error)
}

func (q quiet) Unwrap() error { return q.error }
