package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
)

// The strip at the bottom of every page shows where the session lives, from
// Session.Info, and the cost of the request. The cost is counted between
// Sojourn and its store: a meteredStore wraps the store, and each request's
// context has the counters for its own calls.

// strip is the data of the template.
type strip struct {
	sojourn.Info
	Page tally  // this page's request, up to the rendering, after all loads and saves
	Form *tally // the form that redirected to this page, from start to end; nil = none
}

// tally is the calls of one request.
type tally struct {
	Method, Path string
	Loads        int           // records read
	Saves        int           // records written
	Touches      int           // idle timeouts extended without writing the record
	Ends         int           // sessions ended without reading them
	InStore      time.Duration // spent in all of these
	Total        time.Duration // since the request arrived
}

// Calls is the number of calls to the store.
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

// costOf returns the counters of ctx's request, nil if it has none: Sojourn
// also works in the background.
func costOf(ctx context.Context) *cost {
	c, _ := ctx.Value(costContext{}).(*cost)
	return c
}

// count counts one store call. It is used as defer c.count(&…, time.Now()).
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

// sessionStore is the shop's interface to a store. It lists optional
// interfaces, because Sojourn finds them by type assertion, so a wrapper that
// hides one disables the feature.
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

// costs keeps the cost of a visitor's last form for the page after the
// redirect. It is in memory, by the session's public handle: keeping it in the
// session would cost a save and distort the numbers.
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
