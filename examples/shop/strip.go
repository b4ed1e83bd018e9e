package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
)

// The strip at the bottom of every page says where the session lives, as
// Session.Info tells it, and what it cost to answer this request. The cost is
// counted between Sojourn and its store: the store is wrapped in a meteredStore,
// and each request's context carries the counters for its own calls.

// strip is what the template shows.
type strip struct {
	sojourn.Info
	Page tally  // the request that this page answers, up to the page's rendering; all loads and saves are done by then
	Form *tally // the form that led here by a redirect, from start to end; nil if none did
}

// tally is what one request did.
type tally struct {
	Method, Path string
	Loads        int           // records read
	Saves        int           // records written
	Touches      int           // idle timeouts extended without writing the record
	Ends         int           // sessions ended without reading them
	InStore      time.Duration // spent in all of these
	Total        time.Duration // since the request arrived
}

// Calls is how often the store was asked.
func (t tally) Calls() int { return t.Loads + t.Saves + t.Touches + t.Ends }

// cost collects a request's tally. A nil cost counts nothing.
type cost struct {
	began time.Time
	mu    sync.Mutex
	tally tally
}

type costContext struct{}

// metered gives each request its counters.
func metered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &cost{began: time.Now(), tally: tally{Method: r.Method, Path: r.URL.Path}}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), costContext{}, c)))
	})
}

// costOf returns the counters of the request that ctx belongs to, nil if it
// belongs to none: Sojourn also works in the background.
func costOf(ctx context.Context) *cost {
	c, _ := ctx.Value(costContext{}).(*cost)
	return c
}

// count notes one store call. It is used as defer c.count(&…, time.Now()).
func (c *cost) count(calls func(*tally) *int, began time.Time) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	*calls(&c.tally)++
	c.tally.InStore += time.Since(began)
}

func (c *cost) soFar(now time.Time) tally {
	if c == nil {
		return tally{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	t.Total = now.Sub(c.began)
	return t
}

// sessionStore is what the shop asks of a store. An interface of its own,
// because Sojourn finds out by type assertion what a store can do beyond
// store.Store: a wrapper that hides an ability takes it away.
type sessionStore interface {
	store.Store
	store.Toucher
	store.Sweeper
	store.UserIndex
	store.EndFeed
	store.Counter
}

// meteredStore counts the calls of each request on their way to the store.
type meteredStore struct{ sessionStore }

func (m meteredStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	defer costOf(ctx).count(func(t *tally) *int { return &t.Loads }, time.Now())
	return m.sessionStore.Load(ctx, id)
}

func (m meteredStore) Save(ctx context.Context, rec store.Record, base store.Base) error {
	defer costOf(ctx).count(func(t *tally) *int { return &t.Saves }, time.Now())
	return m.sessionStore.Save(ctx, rec, base)
}

func (m meteredStore) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	defer costOf(ctx).count(func(t *tally) *int { return &t.Touches }, time.Now())
	return m.sessionStore.Touch(ctx, id, seen, deadline)
}

func (m meteredStore) Delete(ctx context.Context, id store.ID, until time.Time) error {
	defer costOf(ctx).count(func(t *tally) *int { return &t.Ends }, time.Now())
	return m.sessionStore.Delete(ctx, id, until)
}

// costs remembers what a visitor's last form cost until the page after the
// redirect asks. It is kept in memory, by the session's public handle: putting
// it into the session would cost a save, and spoil the numbers.
type costs struct {
	mu    sync.Mutex
	forms map[string]tally
}

func newCosts() *costs { return &costs{forms: map[string]tally{}} }

func (c *costs) put(handle string, t tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.forms) >= 1000 { // visitors who never followed their redirect
		clear(c.forms)
	}
	c.forms[handle] = t
}

func (c *costs) take(handle string) *tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.forms[handle]
	if !ok {
		return nil
	}
	delete(c.forms, handle)
	return &t
}
