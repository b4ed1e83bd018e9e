package vectors

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
)

// stores holds the entries of one case in memory and simulates every back end.
type stores struct {
	now  time.Time
	app  string
	data map[string]Entry
}

func newStores(c *Case) *stores {
	s := &stores{data: map[string]Entry{}}
	if c != nil {
		s.now, s.app = c.now(), c.app()
		for _, e := range c.Storage {
			s.put(e)
		}
	}
	return s
}

// backends returns the stores for the formats.
func (s *stores) backends(c *Case) Backends {
	var in struct {
		Options struct {
			Type string `json:"type"`
		} `json:"options"`
	}
	_ = json.Unmarshal(c.Config, &in) // only Beaker's has it; the format reports errors
	return Backends{Memcache: memcache{s}, Datastore: datastore{s}, Entities: entities{s}, Store: bytesStore{s, in.Options.Type}, App: s.app}
}

func place(backend, namespace, kind string, key any) string {
	return fmt.Sprintf("%s\x00%s\x00%s\x00%v", backend, namespace, kind, key)
}

func (s *stores) put(e Entry) {
	if e.Backend == "datastore" && e.KeyIs == "id" {
		if n, ok := e.Key.(float64); ok { // JSON numbers
			e.Key = int64(n)
		}
	}
	s.data[place(e.Backend, e.Namespace, e.Kind, e.Key)] = e
}

// entries returns everything in a stable order.
func (s *stores) entries() []Entry {
	out := make([]Entry, 0, len(s.data))
	for _, e := range s.data {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Backend, b.Backend), strings.Compare(fmt.Sprint(a.Key), fmt.Sprint(b.Key)))
	})
	return out
}

// memcache is App Engine's memcache in the default namespace.
type memcache struct{ *stores }

func (m memcache) Get(_ context.Context, key string) (appengine.Item, error) {
	e, ok := m.data[place("memcache", "", "", key)]
	if !ok || e.ExpiresAt != nil && *e.ExpiresAt != 0 && m.now.Unix() >= *e.ExpiresAt {
		return appengine.Item{}, legacy.ErrNoEntry
	}
	item := appengine.Item{Value: e.Value}
	if e.Flags != nil {
		item.Flags = *e.Flags
	}
	if e.ExpiresAt != nil && *e.ExpiresAt != 0 {
		item.Expires = time.Unix(*e.ExpiresAt, 0)
	}
	return item, nil
}

func (m memcache) Set(_ context.Context, key string, item appengine.Item) error {
	e := Entry{Backend: "memcache", Key: key, Value: item.Value, Flags: &item.Flags}
	if !item.Expires.IsZero() {
		at := item.Expires.Unix()
		e.ExpiresAt = &at
	}
	m.put(e)
	return nil
}

func (m memcache) Delete(_ context.Context, key string) error {
	delete(m.data, place("memcache", "", "", key))
	return nil
}

// datastore is the datastore in the default namespace.
type datastore struct{ *stores }

func (d datastore) Get(_ context.Context, kind, name string) (appengine.Entity, error) {
	e, ok := d.data[place("datastore", "", kind, name)]
	if !ok {
		return nil, legacy.ErrNoEntry
	}
	return entity(e), nil
}

// entity turns recorded properties into those of package appengine.
func entity(e Entry) appengine.Entity {
	var out appengine.Entity
	for name, p := range e.Properties {
		out = append(out, appengine.Property{Name: name, Value: property(p)})
	}
	return out
}

func property(p Property) any {
	switch p.Type {
	case "blob":
		return p.Base64
	case "datetime":
		text, _ := p.Value.(string)
		t, err := time.Parse("2006-01-02T15:04:05.999999", text)
		if err != nil {
			return nil
		}
		return t
	case "list":
		items, _ := p.Value.([]any)
		out := make([]any, 0, len(items))
		for _, it := range items {
			if m, ok := it.(map[string]any); ok {
				out = append(out, m["value"])
			}
		}
		return out
	case "key":
		text, _ := p.Value.(string)
		key, err := appengine.ParseKey(text)
		if err != nil {
			return nil
		}
		return key
	}
	return p.Value
}

func (d datastore) Put(_ context.Context, kind, name string, e appengine.Entity) error {
	key := appengine.Key{App: d.app, Path: []appengine.Element{{Kind: kind, Name: name}}}
	out := Entry{
		Backend: "datastore", Kind: kind, Key: name, KeyIs: "name", EncodedKey: key.Encode(),
		Properties: map[string]Property{},
	}
	for _, p := range e {
		switch v := p.Value.(type) {
		case []byte:
			out.Properties[p.Name] = Property{Type: "blob", Base64: v}
			out.Value = v
		case time.Time:
			out.Properties[p.Name] = Property{Type: "datetime", Value: v.UTC().Format("2006-01-02T15:04:05.999999")}
		default:
			return fmt.Errorf("unexpected property %T", v)
		}
	}
	d.put(out)
	return nil
}

func (d datastore) Delete(_ context.Context, kind, name string) error {
	delete(d.data, place("datastore", "", kind, name))
	return nil
}

// bytesStore is one of Beaker's server-side stores.
type bytesStore struct {
	*stores
	option string // Beaker's type
}

func (b bytesStore) backend() string { return strings.TrimPrefix(b.option, "ext:") }

func (b bytesStore) Get(_ context.Context, key string) (legacy.Entry, error) {
	e, ok := b.data[place(b.backend(), "", "", key)]
	if !ok {
		return legacy.Entry{}, legacy.ErrNoEntry
	}
	out := legacy.Entry{Value: e.Value}
	if e.Flags != nil {
		out.Flags = *e.Flags
	}
	return out, nil
}

func (b bytesStore) Set(_ context.Context, key string, in legacy.Entry) error {
	e := Entry{Backend: b.backend(), Key: key, Value: in.Value}
	switch e.Backend {
	case "memcached":
		e.Flags = &in.Flags
	case "redis":
		ttl := int64(-1)
		if !in.Expires.IsZero() {
			ttl = int64(in.Expires.Sub(b.now) / time.Second)
		}
		e.TTL = &ttl
	case "database":
		e.Table = "beaker_cache"
	}
	b.put(e)
	return nil
}

func (b bytesStore) Delete(_ context.Context, key string) error {
	delete(b.data, place(b.backend(), "", "", key))
	return nil
}

// entities is the datastore for gaeutilities.
type entities struct{ *stores }

func (d entities) Session(_ context.Context, key appengine.Key) (appengine.Entity, error) {
	e, ok := d.data[place("datastore", key.Namespace, gaeutilities.Kind, key.Path[0].ID)]
	if !ok {
		return nil, legacy.ErrNoEntry
	}
	return entity(e), nil
}

func (d entities) Values(_ context.Context, session appengine.Key) ([]appengine.Entity, error) {
	var out []appengine.Entity
	for _, e := range d.stores.entries() {
		if e.Backend != "datastore" || e.Kind != gaeutilities.DataKind {
			continue
		}
		values := entity(e)
		if key, ok := values.Get("session").(appengine.Key); ok && key.Encode() == session.Encode() {
			out = append(out, values)
		}
	}
	return out, nil
}

func (d entities) Delete(_ context.Context, session appengine.Key) error {
	delete(d.data, place("datastore", session.Namespace, gaeutilities.Kind, session.Path[0].ID))
	for at, e := range d.data {
		if e.Kind != gaeutilities.DataKind {
			continue
		}
		if key, ok := entity(e).Get("session").(appengine.Key); ok && key.Encode() == session.Encode() {
			delete(d.data, at)
		}
	}
	return nil
}
