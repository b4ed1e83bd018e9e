package gae_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/appengine/v2"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
)

// request returns a request that App Engine's middleware has seen.
func request(t *testing.T) *http.Request {
	t.Helper()
	var seen *http.Request
	h := appengine.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	return seen
}

// inRequest is a store whose calls belong to one request: what the suites call
// it with are plain contexts.
type inRequest struct {
	*gae.Store
	r *http.Request
}

func (s inRequest) in(ctx context.Context) context.Context { return appengine.WithContext(ctx, s.r) }

func (s inRequest) Load(ctx context.Context, id store.ID) (store.Record, error) {
	return s.Store.Load(s.in(ctx), id)
}

func (s inRequest) Save(ctx context.Context, rec store.Record, base store.Base) error {
	return s.Store.Save(s.in(ctx), rec, base)
}

func (s inRequest) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return s.Store.Delete(s.in(ctx), id, until)
}

func (s inRequest) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return s.Store.Touch(s.in(ctx), id, seen, deadline)
}

func (s inRequest) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	return s.Store.Sweep(s.in(ctx), age, limit)
}

func (s inRequest) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	return s.Store.ByUser(s.in(ctx), user)
}

func (s inRequest) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	return s.Store.SaveLimited(s.in(ctx), rec, limit)
}

func (s inRequest) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	return s.Store.Ends(s.in(ctx), cursor, limit)
}

func (s inRequest) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	return s.Store.Scan(s.in(ctx), cursor, limit)
}

func (s inRequest) Count(ctx context.Context) (store.Counts, error) {
	return s.Store.Count(s.in(ctx))
}

// cacheInRequest is inRequest for a cache.
type cacheInRequest struct {
	*gae.Cache
	r *http.Request
}

func (c cacheInRequest) in(ctx context.Context) context.Context {
	return appengine.WithContext(ctx, c.r)
}

func (c cacheInRequest) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	return c.Cache.Get(c.in(ctx), id)
}

func (c cacheInRequest) Add(ctx context.Context, id store.ID, entry []byte, ttl time.Duration) (uint64, error) {
	return c.Cache.Add(c.in(ctx), id, entry, ttl)
}

func (c cacheInRequest) Swap(ctx context.Context, id store.ID, token uint64, entry []byte, ttl time.Duration) error {
	return c.Cache.Swap(c.in(ctx), id, token, entry, ttl)
}

func (c cacheInRequest) Delete(ctx context.Context, id store.ID) error {
	return c.Cache.Delete(c.in(ctx), id)
}

func open(t *testing.T, o gae.Options) inRequest {
	t.Helper()
	s, err := gae.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return inRequest{s, request(t)}
}

func openCache(t *testing.T, o gae.CacheOptions) cacheInRequest {
	t.Helper()
	c, err := gae.NewCache(o)
	if err != nil {
		t.Fatal(err)
	}
	return cacheInRequest{c, request(t)}
}

var space atomic.Int64

// alone opens a store in its own namespace.
func alone(t *testing.T) store.Store {
	return open(t, gae.Options{Namespace: fmt.Sprintf("test-%d", space.Add(1))})
}

// session returns a session's first record. The time is the same for all.
func session(i byte) store.Record {
	at := time.Now().UTC().Truncate(time.Hour)
	return store.Record{
		ID: store.HashIdentifier([]byte{i}), Version: 1, SaveIDs: []store.SaveID{store.SaveID(time.Now().UnixNano())},
		Created: at, Seen: at, Deadline: at.Add(2 * time.Hour), Expires: at.Add(24 * time.Hour), Data: []byte("version 1"),
	}
}

// next returns the record that follows on rec.
func next(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{store.SaveID(time.Now().UnixNano())}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	rec.Data = slices.Clone(rec.Data)
	return rec
}

func save(t *testing.T, s store.Store, rec store.Record, base store.Base) {
	t.Helper()
	if err := s.Save(t.Context(), rec, base); err != nil {
		t.Errorf("Save of version %d: %v", rec.Version, err)
	}
}

func sweep(t *testing.T, s store.Sweeper, limit, want int) {
	t.Helper()
	if n, err := s.Sweep(t.Context(), 30*time.Minute, limit); err != nil || n != want {
		t.Errorf("Sweep removed %d, %v; want %d", n, err, want)
	}
}

// holds fails the test unless the store has rec.
func holds(t *testing.T, s store.Store, rec store.Record) {
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
