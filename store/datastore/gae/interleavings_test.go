package gae_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
)

// calls is what lies between the library and the API server: it notes the calls
// by method, and hands each to on, if that is set, which may send it.
type calls struct {
	mu      sync.Mutex
	methods []string
	on      func(c call) error
}

type call struct {
	method string
	send   func() error
	// instead sends another method with the same message.
	instead func(method string) error
}

// watch returns a context whose calls c sees.
func (c *calls) watch(ctx context.Context) context.Context {
	return appengine.WithAPICallFunc(ctx, func(ctx context.Context, service, method string, in, out protoiface.MessageV1) error {
		c.mu.Lock()
		c.methods = append(c.methods, method)
		on := c.on
		c.mu.Unlock()
		instead := func(method string) error { return appengine.APICall(ctx, service, method, in, out) }
		send := func() error { return instead(method) }
		if on == nil {
			return send()
		}
		return on(call{method, send, instead})
	})
}

// between sets what happens to the next call of that method, and only to it.
func (c *calls) between(method string, do func(c call) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var once sync.Once
	c.on = func(this call) error {
		mine, err := false, error(nil)
		if this.method == method {
			once.Do(func() { mine, err = true, do(this) })
		}
		if mine {
			return err
		}
		return this.send()
	}
}

// since returns the calls made by do.
func (c *calls) since(do func()) []string {
	c.mu.Lock()
	c.methods = nil
	c.mu.Unlock()
	do()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.methods)
}

// watched is a store whose calls are watched.
type watched struct {
	inRequest
	wire *calls
}

func (w watched) Load(ctx context.Context, id store.ID) (store.Record, error) {
	return w.inRequest.Load(w.wire.watch(ctx), id)
}

func (w watched) Save(ctx context.Context, rec store.Record, base store.Base) error {
	return w.inRequest.Save(w.wire.watch(ctx), rec, base)
}

func (w watched) Delete(ctx context.Context, id store.ID, until time.Time) error {
	return w.inRequest.Delete(w.wire.watch(ctx), id, until)
}

func (w watched) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	return w.inRequest.Touch(w.wire.watch(ctx), id, seen, deadline)
}

func (w watched) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	return w.inRequest.Sweep(w.wire.watch(ctx), age, limit)
}

func (w watched) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) ([]store.ID, error) {
	return w.inRequest.SaveLimited(w.wire.watch(ctx), rec, limit)
}

// What competes for one session, or loses an answer, at a moment that chance
// would seldom hit.
func testInterleavings(t *testing.T, server *servers.Server) {
	n := byte(0)
	// Each case has two stores on the same sessions: here, whose calls are
	// watched, and elsewhere.
	scenario := func(name string, run func(t *testing.T, here watched, elsewhere inRequest)) {
		n++
		o := gae.Options{Namespace: strings.Repeat("n", int(n))}
		t.Run(name, func(t *testing.T) {
			elsewhere := open(t, o)
			run(t, watched{elsewhere, &calls{}}, elsewhere)
		})
	}

	scenario("a save that is overtaken between its read and its commit conflicts", func(t *testing.T, here watched, elsewhere inRequest) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		faster, slower := next(rec), next(rec)
		here.wire.between("Commit", func(c call) error {
			save(t, elsewhere, faster, rec.Base())
			return c.send()
		})
		if err := here.Save(t.Context(), slower, rec.Base()); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Save: %v, want ErrConflict", err)
		}
		holds(t, here, faster)
	})

	scenario("of two first saves at once one conflicts", func(t *testing.T, here watched, elsewhere inRequest) {
		faster, slower := session(n), session(n)
		here.wire.between("Commit", func(c call) error {
			save(t, elsewhere, faster, store.Base{})
			return c.send()
		})
		if err := here.Save(t.Context(), slower, store.Base{}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Save: %v, want ErrConflict", err)
		}
		holds(t, here, faster)
	})

	scenario("a touch that is overtaken by a save is applied on top of it", func(t *testing.T, here watched, elsewhere inRequest) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		faster := next(rec)
		here.wire.between("Commit", func(c call) error {
			save(t, elsewhere, faster, rec.Base())
			return c.send()
		})
		faster.Seen, faster.Deadline = rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
		if err := here.Touch(t.Context(), rec.ID, faster.Seen, faster.Deadline); err != nil {
			t.Errorf("Touch: %v", err)
		}
		holds(t, here, faster)
	})

	scenario("a save whose answer is lost is saved once when it is sent again", func(t *testing.T, here watched, _ inRequest) {
		one := session(n)
		two := next(one)
		for _, c := range []struct {
			rec  store.Record
			base store.Base
		}{{one, store.Base{}}, {two, one.Base()}} {
			here.wire.between("Commit", func(c call) error {
				return errors.Join(c.send(), errors.New("the answer is lost"))
			})
			if err := here.Save(t.Context(), c.rec, c.base); err == nil || errors.Is(err, store.ErrConflict) {
				t.Errorf("Save: %v, want an error that leaves the outcome open", err)
			}
			save(t, here, c.rec, c.base)
			holds(t, here, c.rec)
		}
	})

	scenario("a transaction that the service forgot is started anew", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		here.wire.between("Commit", func(c call) error {
			if err := c.instead("Rollback"); err != nil {
				t.Errorf("Rollback: %v", err)
			}
			err := c.send()
			if err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("the commit of a transaction that is no more: %v", err)
			}
			return err
		})
		save(t, here, rec, store.Base{})
		holds(t, here, rec)
	})

	scenario("contention that shows before the commit is retried", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		for _, text := range []string{
			"API error 2 (datastore_v3: CONCURRENT_TRANSACTION): too much contention on these datastore entities",
			"API error 1 (datastore_v3: BAD_REQUEST): The referenced transaction has expired or is no longer valid.",
		} {
			here.wire.between("Get", func(call) error { return errors.New(text) })
			save(t, here, rec, store.Base{})
			holds(t, here, rec)
		}
	})

	scenario("contention that does not end is over with the context", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		here.wire.on = func(c call) error {
			if c.method == "Commit" {
				return datastore.ErrConcurrentTransaction
			}
			return c.send()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var err error
		made := here.wire.since(func() { err = here.Save(ctx, next(rec), rec.Base()) })
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrConflict) {
			t.Errorf("Save: %v, want an open outcome and the context's error", err)
		}
		if tries := count(made, "Commit"); tries > 20 {
			t.Errorf("%d commits were tried in half a second, want a few, with pauses", tries)
		}
		here.wire.on = nil
		holds(t, here, rec)
	})

	scenario("a sweep leaves what gets a new deadline after its query", func(t *testing.T, here watched, elsewhere inRequest) {
		for i, moment := range []string{"BeginTransaction", "Commit"} {
			old := session(n)
			old.ID[0] = byte(i)
			old.Deadline = old.Deadline.Add(-3 * time.Hour)
			save(t, elsewhere, old, store.Base{})
			alive := next(old)
			alive.Deadline = old.Deadline.Add(3 * time.Hour)
			here.wire.between(moment, func(c call) error {
				save(t, elsewhere, alive, old.Base())
				return c.send()
			})
			sweep(t, here, 10, 0)
			holds(t, here, alive)
		}
	})

	scenario("a login that another one overtakes makes room for both", func(t *testing.T, here watched, elsewhere inRequest) {
		limit := store.UserLimit{Max: 2, Until: time.Now().Add(time.Hour)}
		logins := make([]store.Record, 4)
		for i := range logins {
			logins[i] = session(n)
			logins[i].ID[0] = byte(i)
			logins[i].User = store.UserHash{n}
			logins[i].Created = logins[i].Created.Add(time.Duration(i) * time.Second)
		}
		for _, rec := range logins[:2] {
			save(t, elsewhere, rec, store.Base{})
		}
		here.wire.between("Commit", func(c call) error {
			if _, err := elsewhere.SaveLimited(t.Context(), logins[2], limit); err != nil {
				t.Errorf("the faster login: %v", err)
			}
			return c.send()
		})
		ended, err := here.SaveLimited(t.Context(), logins[3], limit)
		if err != nil || len(ended) != 1 || ended[0] != logins[1].ID {
			t.Errorf("SaveLimited ended %d sessions, %v; want the second alone: the faster login ended the first", len(ended), err)
		}
		if live, err := here.ByUser(t.Context(), store.UserHash{n}); err != nil || len(live) != limit.Max {
			t.Errorf("%d sessions are live, %v; want %d", len(live), err, limit.Max)
		}
	})

	scenario("of two first logins at once, where one is allowed, one is refused", func(t *testing.T, here watched, elsewhere inRequest) {
		limit := store.UserLimit{Max: 1, Refuse: true}
		faster, slower := session(n), session(n)
		slower.ID[0]++
		faster.User, slower.User = store.UserHash{n}, store.UserHash{n}
		here.wire.between("Commit", func(c call) error {
			if _, err := elsewhere.SaveLimited(t.Context(), faster, limit); err != nil {
				t.Errorf("the faster login: %v", err)
			}
			return c.send()
		})
		if _, err := here.SaveLimited(t.Context(), slower, limit); !errors.Is(err, store.ErrLimit) {
			t.Errorf("the slower login: %v, want ErrLimit", err)
		}
	})

	scenario("a cap that many sessions exceed ends all of them", func(t *testing.T, here watched, elsewhere inRequest) {
		const many = 45 // more than fit into two transactions
		user := store.UserHash{n}
		for i := range many {
			rec := session(n)
			rec.ID[0], rec.User = byte(i), user
			save(t, elsewhere, rec, store.Base{})
		}
		rec := session(n)
		rec.ID[0], rec.User = many, user
		ended, err := here.SaveLimited(t.Context(), rec, store.UserLimit{Max: 1, Until: time.Now().Add(time.Hour)})
		if err != nil || len(ended) != many {
			t.Errorf("SaveLimited ended %d sessions, %v; want %d", len(ended), err, many)
		}
		if live, err := here.ByUser(t.Context(), user); err != nil || len(live) != 1 {
			t.Errorf("%d sessions are live, %v; want 1", len(live), err)
		}
	})

	scenario("a save is four calls, a load one", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		change := []string{"BeginTransaction", "Get", "Put", "Commit"}
		for _, c := range []struct {
			name string
			do   func()
			want []string
		}{
			{"first save", func() { save(t, here, rec, store.Base{}) }, change},
			{"following save", func() { save(t, here, next(rec), rec.Base()) }, change},
			{"load", func() { _, _ = here.Load(t.Context(), rec.ID) }, []string{"Get"}},
			{"delete", func() { _ = here.Delete(t.Context(), rec.ID, time.Now()) }, change},
		} {
			if made := here.wire.since(c.do); !slices.Equal(made, c.want) {
				t.Errorf("%s: calls %v, want %v", c.name, made, c.want)
			}
		}
	})

	scenario("errors name no session", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		here.wire.on = func(call) error { return errors.New("no luck with /SojournSession," + rec.ID.String()) }
		_, loadErr := here.Load(t.Context(), rec.ID)
		for call, err := range map[string]error{
			"load":   loadErr,
			"save":   here.Save(t.Context(), rec, store.Base{}),
			"delete": here.Delete(t.Context(), rec.ID, rec.Deadline),
			"touch":  here.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline),
		} {
			if err == nil || strings.Contains(err.Error(), rec.ID.String()) || !strings.Contains(err.Error(), call+": ") || !strings.Contains(err.Error(), "no luck") {
				t.Errorf("%s: %v, want what was done and what went wrong, without the handle", call, err)
			}
		}
	})

	scenario("a server that is frozen holds nobody beyond his deadline", func(t *testing.T, here watched, _ inRequest) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		copies := openCache(t, gae.CacheOptions{})
		server.Pause()
		load := func(ctx context.Context) error { _, err := here.Load(ctx, rec.ID); return err }
		within := func(call func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			return call(ctx)
		}
		for within(load) == nil { // on a busy machine it takes a moment to freeze
		}
		for call, do := range map[string]func(ctx context.Context) error{
			"Load":  load,
			"Save":  func(ctx context.Context) error { return here.Save(ctx, next(rec), rec.Base()) },
			"Cache": func(ctx context.Context) error { _, _, err := copies.Get(ctx, rec.ID); return err },
		} {
			if err := within(do); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v, want the context's error", call, err)
			}
		}
		server.Resume()
		holds(t, here, rec)
	})
}

func count(list []string, s string) (n int) {
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n
}
