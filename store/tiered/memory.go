package tiered

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// Memory is a cache in the process, bounded by bytes. When it is full, it
// evicts the least recently used entries.
type Memory struct {
	shards [64]memoryShard
	tokens atomic.Uint64
}

type memoryShard struct {
	mu    sync.Mutex
	byID  map[store.ID]*list.Element // of *memoryEntry
	order list.List                  // most recently used first
	bytes int
	limit int
}

type memoryEntry struct {
	id      store.ID
	value   []byte
	token   uint64
	expires time.Time
}

// overhead is about the memory of an entry besides its bytes: itself, its list
// element and its place in the map.
const overhead = 250

var _ store.Cache = (*Memory)(nil)

// NewMemory returns a cache of about that many bytes; less than 1 MiB counts as
// 1 MiB.
func NewMemory(bytes int) *Memory {
	m := &Memory{}
	for i := range m.shards {
		m.shards[i].limit = max(bytes, 1<<20) / len(m.shards)
		m.shards[i].byID = map[store.ID]*list.Element{}
	}
	return m
}

func (m *Memory) shard(id store.ID) *memoryShard {
	return &m.shards[int(id[0])%len(m.shards)]
}

// Get implements [store.Cache].
func (m *Memory) Get(_ context.Context, id store.ID) ([]byte, uint64, error) {
	sh := m.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	el, ok := sh.live(id)
	if !ok {
		return nil, 0, store.ErrNotFound
	}
	sh.order.MoveToFront(el)
	e := el.Value.(*memoryEntry)
	return e.value, e.token, nil
}

// Add implements [store.Cache].
func (m *Memory) Add(_ context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	sh := m.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, ok := sh.live(id); ok {
		return 0, store.ErrConflict
	}
	e := &memoryEntry{id: id, value: entry, token: m.tokens.Add(1), expires: time.Now().Add(ttl)}
	sh.byID[id] = sh.order.PushFront(e)
	sh.bytes += len(entry) + overhead
	sh.shrink()
	return e.token, nil
}

// Swap implements [store.Cache].
func (m *Memory) Swap(_ context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	sh := m.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	el, ok := sh.live(id)
	if !ok || el.Value.(*memoryEntry).token != token {
		return store.ErrConflict
	}
	e := el.Value.(*memoryEntry)
	sh.bytes += len(entry) - len(e.value)
	// The bytes are replaced, not changed: a reader may hold the old bytes.
	e.value, e.token, e.expires = entry, m.tokens.Add(1), time.Now().Add(ttl)
	sh.order.MoveToFront(el)
	sh.shrink()
	return nil
}

// Delete implements [store.Cache].
func (m *Memory) Delete(_ context.Context, id store.ID) error {
	sh := m.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if el, ok := sh.byID[id]; ok {
		sh.remove(el)
	}
	return nil
}

// live returns the entry under id. It removes an expired one.
func (sh *memoryShard) live(id store.ID) (*list.Element, bool) {
	el, ok := sh.byID[id]
	if !ok {
		return nil, false
	}
	if time.Now().After(el.Value.(*memoryEntry).expires) {
		sh.remove(el)
		return nil, false
	}
	return el, true
}

func (sh *memoryShard) remove(el *list.Element) {
	e := el.Value.(*memoryEntry)
	sh.order.Remove(el)
	delete(sh.byID, e.id)
	sh.bytes -= len(e.value) + overhead
}

func (sh *memoryShard) shrink() {
	for sh.bytes > sh.limit && sh.order.Len() > 0 {
		sh.remove(sh.order.Back())
	}
}
