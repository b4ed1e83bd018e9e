// Package suite has the shared tests of the stores on Datastore. The tests for
// every store are in package storetest.
package suite

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// Store is the methods of both stores.
type Store interface {
	store.Store
	store.Toucher
	store.Sweeper
	store.UserIndex
	store.UserLimiter
	store.EndFeed
	store.Scanner
}

// Place is where a store keeps its entities. Kind "" = the default.
type Place struct{ Kind, Namespace string }

// Key is an entity's key: with a name or, if that is "", a number.
type Key struct {
	Place
	Name   string
	ID     int64
	Parent *Key // may be of another kind
}

// Engine is the suite's access to a store, and directly to its entities.
type Engine struct {
	// Open opens a store whose calls go through wire; nil = directly to the service.
	Open func(t *testing.T, at Place, wire *Wire) Store

	// At returns the place of a store that Open or the suite of package storetest opened.
	At func(s store.Store) Place

	// Check is the error of opening a store there.
	Check func(at Place) error

	// Get reads an entity, and PutAll writes entities with those keys and properties,
	// at most 500 of them. A list is a []any, or a []int64.
	Get    func(t *testing.T, key Key) []entity.Property
	PutAll func(t *testing.T, keys []Key, props [][]entity.Property)

	// Contended is the client library's error for a commit that conflicted with
	// other transactions.
	Contended error

	// FirstSave, NextSave, Delete and Load are the calls that each operation makes.
	FirstSave, NextSave, Delete, Load []string

	// Many is a number of sessions that one transaction cannot end. If Commits
	// is set, ending them takes commits of these sizes; Size returns the number
	// of entities in the call Commit.
	Many    int
	Commits []int
	Size    func(Call) int
}

var space atomic.Int64

// Alone returns a place that no other test uses.
func Alone() Place { return Place{Namespace: fmt.Sprintf("test-%d", space.Add(1))} }

// Copies is [storetest.Copies].
func (e Engine) Copies() storetest.Option {
	return storetest.Copies(func(t *testing.T, s store.Store, from, to store.ID) {
		at := e.At(s)
		e.put(t, Key{Place: at, Name: to.String()}, e.Get(t, Key{Place: at, Name: from.String()}))
	})
}

// Wire lies between a client library and the service, and records the calls.
type Wire struct {
	mu      sync.Mutex
	methods []string
	on      func(Call) error
}

// Call is a call of the service.
type Call struct {
	Method  string
	Request any
	Send    func() error
	// Instead sends another method with the same message, if the library can.
	Instead func(method string) error
}

// Do is called with each call, in place of it.
func (w *Wire) Do(c Call) error {
	w.mu.Lock()
	w.methods = append(w.methods, c.Method)
	on := w.on
	w.mu.Unlock()
	if on == nil {
		return c.Send()
	}
	return on(c)
}

// On sets what future calls do; nil = they are sent.
func (w *Wire) On(on func(Call) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = on
}

// Next sets what the next call of that method does, and only that call.
func (w *Wire) Next(method string, do func(Call) error) {
	var once sync.Once
	w.On(func(c Call) error {
		err, mine := error(nil), false
		if c.Method == method {
			once.Do(func() { mine, err = true, do(c) })
		}
		if mine {
			return err
		}
		return c.Send()
	})
}

// Since returns the calls made by do.
func (w *Wire) Since(do func()) []string {
	w.mu.Lock()
	w.methods = nil
	w.mu.Unlock()
	do()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.methods)
}

// Session returns a session's first record. The time is the same for all.
func Session(i byte) store.Record {
	at := time.Now().UTC().Truncate(time.Hour)
	return store.Record{
		ID: store.HashIdentifier([]byte{i}), Version: 1, SaveIDs: []store.SaveID{store.SaveID(time.Now().UnixNano())},
		Created: at, Seen: at, Deadline: at.Add(2 * time.Hour), Expires: at.Add(24 * time.Hour), Data: []byte("version 1"),
	}
}

// Expired returns a session's first record, which a sweep removes.
func Expired(i byte) store.Record {
	rec := Session(i)
	rec.Deadline = rec.Deadline.Add(-4 * time.Hour)
	return rec
}

// Next returns the record of the next save after rec.
func Next(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{store.SaveID(time.Now().UnixNano())}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	rec.Data = slices.Clone(rec.Data)
	return rec
}

// Save saves rec, and fails the test if it cannot.
func Save(t *testing.T, s store.Store, rec store.Record, base store.Base) {
	t.Helper()
	if err := s.Save(t.Context(), rec, base); err != nil {
		t.Errorf("Save of version %d: %v", rec.Version, err)
	}
}

// put writes one entity.
func (e Engine) put(t *testing.T, key Key, props []entity.Property) {
	t.Helper()
	e.PutAll(t, []Key{key}, [][]entity.Property{props})
}

// PutMany writes n sessions, as copies of rec with other IDs, without using the store.
func (e Engine) PutMany(t *testing.T, at Place, n int, rec store.Record) {
	t.Helper()
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = Key{Place: at, Name: store.HashIdentifier(fmt.Append(nil, "of many ", i)).String()}
	}
	props := slices.Repeat([][]entity.Property{entity.Properties(&rec)}, n)
	for some := range slices.Chunk(keys, 500) {
		e.PutAll(t, some, props[:len(some)])
	}
}

// Sweep removes at most limit expired sessions, and fails the test unless it
// removes want.
func Sweep(t *testing.T, s store.Sweeper, limit, want int) {
	t.Helper()
	if n, err := s.Sweep(t.Context(), 30*time.Minute, limit); err != nil || n != want {
		t.Errorf("Sweep removed %d, %v; want %d", n, err, want)
	}
}

// Holds fails the test unless the store has rec.
func Holds(t *testing.T, s store.Store, rec store.Record) {
	t.Helper()
	got, err := s.Load(t.Context(), rec.ID)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	a, _ := got.MarshalBinary()
	b, _ := rec.MarshalBinary()
	if !slices.Equal(a, b) {
		t.Errorf("the store holds version %d until %v, want version %d until %v", got.Version, got.Deadline, rec.Version, rec.Deadline)
	}
}
