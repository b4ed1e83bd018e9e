// Package gae reads and writes other libraries' sessions in App Engine's bundled
// memcache and datastore, for a Go service in the same application as the old one.
//
// Contexts must come from a request inside appengine.Middleware; put that
// around the session manager's Wrap.
package gae

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"
	"google.golang.org/appengine/v2/memcache"

	"github.com/sojourn-go/sojourn/legacy"
	legacyengine "github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
)

// ErrNoRequest means that a context does not come from a request inside App
// Engine's middleware.
var ErrNoRequest = errors.New("not in an App Engine request: appengine.Middleware has to be around the handler")

// begin sets the namespace of a call.
func begin(ctx context.Context, namespace, doing string) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, failed(doing, err)
	}
	found := &watched{Context: ctx}
	_ = appengine.RequestID(found) // looks up the request in the context
	if !found.found {
		return nil, failed(doing, ErrNoRequest)
	}
	in, err := appengine.Namespace(ctx, namespace)
	if err != nil {
		return nil, failed(doing, err)
	}
	return in, nil
}

// watched is a context that records whether a value was found in it.
type watched struct {
	context.Context
	found bool
}

// Value implements context.Context.
func (w *watched) Value(key any) any {
	v := w.Context.Value(key)
	w.found = w.found || v != nil
	return v
}

// failed wraps an error of the services. Its text may quote keys, which are
// credentials, so only its kind is passed on.
func failed(doing string, err error) error {
	return fmt.Errorf("legacy App Engine: %s: %w", doing, quiet{err})
}

// quiet is an error without its text.
type quiet struct{ error }

func (q quiet) Error() string {
	switch {
	case errors.Is(q.error, ErrNoRequest), errors.Is(q.error, context.Canceled), errors.Is(q.error, context.DeadlineExceeded):
		return q.error.Error()
	case appengine.IsTimeoutError(q.error):
		return "timeout"
	}
	return fmt.Sprintf("%T", q.error)
}

func (q quiet) Unwrap() error { return q.error }

// Memcache is the bundled memcache in one namespace. It supports guards with
// compare-and-swap. It is safe for concurrent use.
type Memcache struct{ namespace string }

var _ legacyengine.Memcache = (*Memcache)(nil)

// NewMemcache returns a Memcache for the old application's namespace, usually empty.
func NewMemcache(namespace string) *Memcache { return &Memcache{namespace} }

// Get implements appengine.Memcache.
func (m *Memcache) Get(ctx context.Context, key string) (legacyengine.Item, error) {
	in, err := begin(ctx, m.namespace, "memcache get")
	if err != nil {
		return legacyengine.Item{}, err
	}
	item, err := memcache.Get(in, key)
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		legacy.GuardOf(ctx).Saw(m, key, nil)
		return legacyengine.Item{}, legacy.ErrNoEntry
	case err != nil:
		return legacyengine.Item{}, failed("memcache get", err)
	}
	legacy.GuardOf(ctx).Saw(m, key, item)
	return legacyengine.Item{Value: item.Value, Flags: item.Flags}, nil
}

// maxAge is the longest time to live that the service does not read as a date.
const maxAge = 30 * 24 * time.Hour

// Set implements appengine.Memcache. An entry lasts for at most 30 days: the
// service reads longer times as dates, which the library cannot send.
func (m *Memcache) Set(ctx context.Context, key string, e legacyengine.Item) error {
	in, err := begin(ctx, m.namespace, "memcache set")
	if err != nil {
		return err
	}
	item := &memcache.Item{Key: key}
	seen, guarded := legacy.GuardOf(ctx).Seen(m, key)
	was, _ := seen.(*memcache.Item)
	if was != nil {
		next := *was // with the number that compare-and-swap compares
		item = &next
	}
	item.Value, item.Flags, item.Expiration = e.Value, e.Flags, 0
	if !e.Expires.IsZero() {
		item.Expiration = max(min(time.Until(e.Expires), maxAge), time.Nanosecond) // expires at once
	}
	switch {
	case !guarded:
		err = memcache.Set(in, item)
	case was == nil:
		err = memcache.Add(in, item)
	default:
		err = memcache.CompareAndSwap(in, item)
	}
	switch {
	case guarded && (errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCASConflict)):
		return legacy.ErrChanged
	case err != nil:
		return failed("memcache set", err)
	}
	return nil
}

// Delete implements appengine.Memcache.
func (m *Memcache) Delete(ctx context.Context, key string) error {
	in, err := begin(ctx, m.namespace, "memcache delete")
	if err != nil {
		return err
	}
	if err := memcache.Delete(in, key); err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
		return failed("memcache delete", err)
	}
	return nil
}

// Datastore is the bundled datastore in one namespace. It supports guards with
// transactions. It is safe for concurrent use.
type Datastore struct{ namespace string }

var (
	_ legacyengine.Datastore   = (*Datastore)(nil)
	_ gaesessions.CleanupStore = (*Datastore)(nil)
	_ gaeutilities.Datastore   = (*Gaeutilities)(nil)
)

// NewDatastore returns a Datastore for the old application's namespace, usually empty.
func NewDatastore(namespace string) *Datastore { return &Datastore{namespace} }

// Get implements appengine.Datastore.
func (d *Datastore) Get(ctx context.Context, kind, name string) (legacyengine.Entity, error) {
	in, err := begin(ctx, d.namespace, "datastore get")
	if err != nil {
		return nil, err
	}
	list, err := get(in, datastore.NewKey(in, kind, name, 0, nil))
	switch {
	case errors.Is(err, datastore.ErrNoSuchEntity):
		legacy.GuardOf(ctx).Saw(d, kind+"\x00"+name, nil)
		return nil, legacy.ErrNoEntry
	case err != nil:
		return nil, failed("datastore get", err)
	}
	legacy.GuardOf(ctx).Saw(d, kind+"\x00"+name, list)
	return entity(list), nil
}

func get(in context.Context, key *datastore.Key) (datastore.PropertyList, error) {
	var list datastore.PropertyList
	err := datastore.Get(in, key, &list)
	return list, err
}

// Put implements appengine.Datastore.
func (d *Datastore) Put(ctx context.Context, kind, name string, e legacyengine.Entity) error {
	in, err := begin(ctx, d.namespace, "datastore put")
	if err != nil {
		return err
	}
	var list datastore.PropertyList
	for _, p := range e {
		list = append(list, datastore.Property{Name: p.Name, Value: p.Value, NoIndex: p.NoIndex})
	}
	key := datastore.NewKey(in, kind, name, 0, nil)
	seen, guarded := legacy.GuardOf(ctx).Seen(d, kind+"\x00"+name)
	if !guarded {
		if _, err := datastore.Put(in, key, &list); err != nil {
			return failed("datastore put", err)
		}
		return nil
	}
	was, there := seen.(datastore.PropertyList)
	err = datastore.RunInTransaction(in, func(tx context.Context) error {
		now, err := get(tx, key)
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
		_, err = datastore.Put(tx, key, &list)
		return err
	}, &datastore.TransactionOptions{Attempts: 1})
	switch {
	case errors.Is(err, legacy.ErrChanged), errors.Is(err, datastore.ErrConcurrentTransaction):
		return legacy.ErrChanged
	case err != nil:
		return failed("datastore put", err)
	}
	return nil
}

// same compares two states of an entity, whatever the order of its properties.
func same(a, b datastore.PropertyList) bool {
	x, y := entity(a), entity(b)
	if len(x) != len(y) {
		return false
	}
	for _, p := range x {
		v, w := p.Value, y.Get(p.Name)
		if t, ok := v.(time.Time); ok {
			if u, ok := w.(time.Time); !ok || !t.Equal(u) {
				return false
			}
			continue
		}
		if !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return true
}

// Delete implements appengine.Datastore.
func (d *Datastore) Delete(ctx context.Context, kind, name string) error {
	in, err := begin(ctx, d.namespace, "datastore delete")
	if err != nil {
		return err
	}
	if err := datastore.Delete(in, datastore.NewKey(in, kind, name, 0, nil)); err != nil {
		return failed("datastore delete", err)
	}
	return nil
}

// entity joins the values of a property that has several, and converts keys to
// the formats' form.
func entity(list datastore.PropertyList) legacyengine.Entity {
	var out legacyengine.Entity
	for _, p := range list {
		v := p.Value
		switch t := v.(type) {
		case datastore.ByteString:
			v = []byte(t)
		case time.Time:
			v = t.UTC()
		case *datastore.Key:
			key, err := legacyengine.ParseKey(t.Encode())
			if err == nil {
				v = key
			}
		}
		if !p.Multiple {
			out = append(out, legacyengine.Property{Name: p.Name, Value: v, NoIndex: p.NoIndex})
			continue
		}
		i := slices.IndexFunc(out, func(o legacyengine.Property) bool { return o.Name == p.Name })
		if i < 0 {
			out = append(out, legacyengine.Property{Name: p.Name, Value: []any{}, NoIndex: p.NoIndex})
			i = len(out) - 1
		}
		out[i].Value = append(out[i].Value.([]any), v)
	}
	return out
}

// NamesBetween implements gaesessions.CleanupStore.
func (d *Datastore) NamesBetween(ctx context.Context, kind, from, to string, limit int) ([]string, error) {
	in, err := begin(ctx, d.namespace, "datastore query")
	if err != nil {
		return nil, err
	}
	q := datastore.NewQuery(kind).KeysOnly().Limit(limit).Order("__key__").
		Filter("__key__ >=", datastore.NewKey(in, kind, from, 0, nil)).Filter("__key__ <", datastore.NewKey(in, kind, to, 0, nil))
	keys, err := q.GetAll(in, nil)
	if err != nil {
		return nil, failed("datastore query", err)
	}
	var names []string
	for _, k := range keys {
		if k.StringID() != "" {
			names = append(names, k.StringID())
		}
	}
	return names, nil
}

// DeleteNames implements gaesessions.CleanupStore.
func (d *Datastore) DeleteNames(ctx context.Context, kind string, names []string) error {
	in, err := begin(ctx, d.namespace, "datastore delete")
	if err != nil {
		return err
	}
	keys := make([]*datastore.Key, len(names))
	for i, name := range names {
		keys[i] = datastore.NewKey(in, kind, name, 0, nil)
	}
	return deleteAll(in, keys)
}

// maxMutations is how many entities one call may delete.
const maxMutations = 500

func deleteAll(in context.Context, keys []*datastore.Key) error {
	for part := range slices.Chunk(keys, maxMutations) {
		if err := datastore.DeleteMulti(in, part); err != nil {
			return failed("datastore delete", err)
		}
	}
	return nil
}

// Gaeutilities is the datastore for gaeutilities: one entity per session and
// one per value.
type Gaeutilities struct{ namespace string }

// NewGaeutilities returns a Gaeutilities for the old application's namespace, usually empty.
func NewGaeutilities(namespace string) *Gaeutilities { return &Gaeutilities{namespace} }

// key is a session's key; ok is false for those of other applications.
func (g *Gaeutilities) key(in context.Context, key legacyengine.Key) (k *datastore.Key, ok bool) {
	k, err := datastore.DecodeKey(key.Encode())
	if err != nil || k.Namespace() != g.namespace {
		return nil, false
	}
	return k, k.AppID() == datastore.NewKey(in, k.Kind(), "", 1, nil).AppID()
}

// Session implements gaeutilities.Datastore.
func (g *Gaeutilities) Session(ctx context.Context, key legacyengine.Key) (legacyengine.Entity, error) {
	in, err := begin(ctx, g.namespace, "datastore get")
	if err != nil {
		return nil, err
	}
	k, ok := g.key(in, key)
	if !ok {
		return nil, legacy.ErrNoEntry
	}
	list, err := get(in, k)
	switch {
	case errors.Is(err, datastore.ErrNoSuchEntity):
		return nil, legacy.ErrNoEntry
	case err != nil:
		return nil, failed("datastore get", err)
	}
	return entity(list), nil
}

// Values implements gaeutilities.Datastore.
func (g *Gaeutilities) Values(ctx context.Context, session legacyengine.Key) ([]legacyengine.Entity, error) {
	in, err := begin(ctx, g.namespace, "datastore query")
	if err != nil {
		return nil, err
	}
	k, ok := g.key(in, session)
	if !ok {
		return nil, nil
	}
	var lists []datastore.PropertyList
	if _, err := datastore.NewQuery(gaeutilities.DataKind).Filter("session =", k).GetAll(in, &lists); err != nil {
		return nil, failed("datastore query", err)
	}
	out := make([]legacyengine.Entity, len(lists))
	for i, list := range lists {
		out[i] = entity(list)
	}
	return out, nil
}

// Delete implements gaeutilities.Datastore.
func (g *Gaeutilities) Delete(ctx context.Context, session legacyengine.Key) error {
	in, err := begin(ctx, g.namespace, "datastore delete")
	if err != nil {
		return err
	}
	k, ok := g.key(in, session)
	if !ok {
		return nil
	}
	keys, err := datastore.NewQuery(gaeutilities.DataKind).Filter("session =", k).KeysOnly().GetAll(in, nil)
	if err != nil {
		return failed("datastore query", err)
	}
	// The session first, because its values are useless without it.
	return deleteAll(in, append([]*datastore.Key{k}, keys...))
}
