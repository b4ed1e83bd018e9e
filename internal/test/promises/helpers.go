package promises

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

func mustBe(t *testing.T, status int, a *sitetest.Answer) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("got %d %s, want %d", a.Status, a.Body, status)
	}
}

// read returns the count that the visitor gets.
func read(t *testing.T, browser *sitetest.Browser, site *sitetest.Site) (n int) {
	t.Helper()
	mustBe(t, 200, browser.Visit(site, func(s *sojourn.Session) { n = count.Get(s) }))
	return n
}

// setCookie returns the value that the answer gives a cookie.
func setCookie(a *sitetest.Answer, name string) string {
	for _, line := range a.Header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == name {
			return c.Value
		}
	}
	return ""
}

// damage changes one character in the middle.
func damage(s string) string {
	b := []byte(s)
	if i := len(b) / 2; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// lagging is a store with a cache that misses all writes: only the floor keeps
// its old copies from being used.
type lagging struct {
	store.Store
	dead atomic.Bool
	hits atomic.Int64

	mu     sync.Mutex
	copies map[store.ID]store.Record
}

// LoadFrom implements store.FloorLoader.
func (l *lagging) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	if l.dead.Load() {
		return l.Load(ctx, id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if rec, ok := l.copies[id]; ok && floor > 0 && rec.Version >= floor {
		l.hits.Add(1)
		return rec, nil
	}
	rec, err := l.Load(ctx, id)
	if err == nil {
		if l.copies == nil {
			l.copies = map[store.ID]store.Record{}
		}
		l.copies[id] = rec
	}
	return rec, err
}

func (l *lagging) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.copies)
}
