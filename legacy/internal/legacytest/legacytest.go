// Package legacytest has stores in memory for tests of the legacy formats.
package legacytest

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
)

// Store is a legacy.Store in memory. The zero value is empty.
type Store struct {
	mu      sync.Mutex
	entries map[string]legacy.Entry
	Err     error // returned by everything while it is set
	// BeforeSet, if set, is called once, by the next Set.
	BeforeSet func()
}

// Get implements legacy.Store.
func (s *Store) Get(ctx context.Context, key string) (legacy.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err != nil {
		return legacy.Entry{}, s.Err
	}
	e, ok := s.entries[key]
	legacy.GuardOf(ctx).SawEntry(s, key, e, ok)
	if !ok {
		return legacy.Entry{}, legacy.ErrNoEntry
	}
	return e, nil
}

// Set implements legacy.Store.
func (s *Store) Set(ctx context.Context, key string, e legacy.Entry) error {
	if f := s.BeforeSet; f != nil {
		s.BeforeSet = nil
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err != nil {
		return s.Err
	}
	if now, ok := s.entries[key]; !legacy.GuardOf(ctx).Allows(s, key, now, ok) {
		return legacy.ErrChanged
	}
	if s.entries == nil {
		s.entries = map[string]legacy.Entry{}
	}
	s.entries[key] = e
	return nil
}

// Delete implements legacy.Store.
func (s *Store) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err != nil {
		return s.Err
	}
	delete(s.entries, key)
	return nil
}

// Edit replaces the value of every entry, like another program.
func (s *Store) Edit(f func(key string, v []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range s.entries {
		e.Value = f(key, bytes.Clone(e.Value))
		s.entries[key] = e
	}
}

// Len returns how many entries there are.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// Memcache is an appengine.Memcache in memory, without a clock of its own:
// entries expire when Now is past their time. The zero value is empty.
type Memcache struct {
	Store
	Now time.Time
}

// Get implements appengine.Memcache.
func (m *Memcache) Get(ctx context.Context, key string) (appengine.Item, error) {
	e, err := m.Store.Get(ctx, key)
	if err != nil {
		return appengine.Item{}, err
	}
	if !e.Expires.IsZero() && m.Now.After(e.Expires) {
		return appengine.Item{}, legacy.ErrNoEntry
	}
	return e, nil
}

// Set implements appengine.Memcache.
func (m *Memcache) Set(ctx context.Context, key string, item appengine.Item) error {
	return m.Store.Set(ctx, key, item)
}

// Datastore is an appengine.Datastore in memory. The zero value is empty.
type Datastore struct {
	mu       sync.Mutex
	entities map[string]appengine.Entity
	saves    map[string]int
	// BeforePut, if set, is called once, by the next Put.
	BeforePut func()
	Err       error // returned by everything while it is set
}

// Get implements appengine.Datastore.
func (d *Datastore) Get(ctx context.Context, kind, name string) (appengine.Entity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Err != nil {
		return nil, d.Err
	}
	e, ok := d.entities[kind+"\x00"+name]
	legacy.GuardOf(ctx).Saw(d, kind+"\x00"+name, d.saves[kind+"\x00"+name])
	if !ok {
		return nil, legacy.ErrNoEntry
	}
	return e, nil
}

// Put implements appengine.Datastore.
func (d *Datastore) Put(ctx context.Context, kind, name string, e appengine.Entity) error {
	if f := d.BeforePut; f != nil {
		d.BeforePut = nil
		f()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Err != nil {
		return d.Err
	}
	if seen, ok := legacy.GuardOf(ctx).Seen(d, kind+"\x00"+name); ok && seen != d.saves[kind+"\x00"+name] {
		return legacy.ErrChanged
	}
	if d.saves == nil {
		d.saves = map[string]int{}
	}
	d.saves[kind+"\x00"+name]++
	if d.entities == nil {
		d.entities = map[string]appengine.Entity{}
	}
	d.entities[kind+"\x00"+name] = e
	return nil
}

// Delete implements appengine.Datastore.
func (d *Datastore) Delete(_ context.Context, kind, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Err != nil {
		return d.Err
	}
	delete(d.entities, kind+"\x00"+name)
	return nil
}

// Edit replaces every property of bytes, like another program.
func (d *Datastore) Edit(f func(key string, v []byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, e := range d.entities {
		e = slices.Clone(e)
		for i, p := range e {
			if b, ok := p.Value.([]byte); ok {
				e[i].Value = f(key, bytes.Clone(b))
			}
		}
		d.entities[key] = e
		d.saves[key]++
	}
}

// Len returns how many entities there are.
func (d *Datastore) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.entities)
}

// Header returns a request's header with one Cookie field made of the cookies
// in Set-Cookie fields; removed ones (with an empty value) are left out.
func Header(setCookie ...string) http.Header {
	var pairs []string
	for _, field := range setCookie {
		pair := field
		quoted := false
		for i := range len(field) {
			if field[i] == '"' && field[i-1] != '\\' {
				quoted = !quoted
			}
			if field[i] == ';' && !quoted {
				pair = field[:i]
				break
			}
		}
		if _, v, _ := strings.Cut(pair, "="); v != "" {
			pairs = append(pairs, pair)
		}
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}
