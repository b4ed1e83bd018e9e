//go:build linux

package gae_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"
	"google.golang.org/appengine/v2/memcache"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/legacy"
	legacyengine "github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/engine/gae"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/vectors"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

var secret = []byte("a secret of the old application!")

// request is a request inside App Engine's middleware.
func request() *http.Request {
	var seen *http.Request
	h := appengine.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	return seen
}

// Memcache and datastore in one request, because the suite calls them with
// plain contexts.
type inMemcache struct {
	*gae.Memcache
	r *http.Request
}

func (m inMemcache) Get(ctx context.Context, key string) (legacyengine.Item, error) {
	return m.Memcache.Get(appengine.WithContext(ctx, m.r), key)
}

func (m inMemcache) Set(ctx context.Context, key string, e legacyengine.Item) error {
	return m.Memcache.Set(appengine.WithContext(ctx, m.r), key, e)
}

func (m inMemcache) Delete(ctx context.Context, key string) error {
	return m.Memcache.Delete(appengine.WithContext(ctx, m.r), key)
}

type inDatastore struct {
	*gae.Datastore
	r *http.Request
}

func (d inDatastore) Get(ctx context.Context, kind, name string) (legacyengine.Entity, error) {
	return d.Datastore.Get(appengine.WithContext(ctx, d.r), kind, name)
}

// Put retries because the API server's transactions sometimes fail without a reason.
func (d inDatastore) Put(ctx context.Context, kind, name string, e legacyengine.Entity) error {
	for try := 1; ; try++ {
		err := d.Datastore.Put(appengine.WithContext(ctx, d.r), kind, name, e)
		if err == nil || errors.Is(err, legacy.ErrChanged) || try == 20 {
			return err
		}
	}
}

func (d inDatastore) Delete(ctx context.Context, kind, name string) error {
	return d.Datastore.Delete(appengine.WithContext(ctx, d.r), kind, name)
}

type inGaeutilities struct {
	*gae.Gaeutilities
	r *http.Request
}

func (g inGaeutilities) Session(ctx context.Context, key legacyengine.Key) (legacyengine.Entity, error) {
	return g.Gaeutilities.Session(appengine.WithContext(ctx, g.r), g.local(key))
}

func (g inGaeutilities) Values(ctx context.Context, key legacyengine.Key) ([]legacyengine.Entity, error) {
	return g.Gaeutilities.Values(appengine.WithContext(ctx, g.r), g.local(key))
}

// local is the key in the API server's application.
func (g inGaeutilities) local(key legacyengine.Key) legacyengine.Key {
	key.App = "dev~testapp"
	return key
}

func load(t *testing.T, in context.Context, e vectors.Entry) {
	t.Helper()
	var list datastore.PropertyList
	for name, p := range e.Properties {
		switch p.Type {
		case "blob":
			list = append(list, datastore.Property{Name: name, Value: p.Base64, NoIndex: true})
		case "datetime":
			at, err := time.Parse("2006-01-02T15:04:05.999999", p.Value.(string))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, datastore.Property{Name: name, Value: at})
		case "list":
			for _, it := range p.Value.([]any) {
				list = append(list, datastore.Property{Name: name, Value: it.(map[string]any)["value"], Multiple: true})
			}
		case "key":
			key, err := legacyengine.ParseKey(p.Value.(string))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, datastore.Property{Name: name, Value: datastore.NewKey(in, key.Path[0].Kind, "", key.Path[0].ID, nil)})
		default:
			list = append(list, datastore.Property{Name: name, Value: p.Value})
		}
	}
	key := datastore.NewKey(in, e.Kind, "", 0, nil)
	switch k := e.Key.(type) {
	case string:
		key = datastore.NewKey(in, e.Kind, k, 0, nil)
	case float64:
		key = datastore.NewKey(in, e.Kind, "", int64(k), nil)
	}
	if _, err := datastore.Put(in, key, &list); err != nil {
		t.Fatal(err)
	}
}

func TestRecordedSessionsAreReadFromAppEngine(t *testing.T) {
	servers.AppEngine(t)
	r := request()
	n := 0
	wanted := func(c *vectors.Case) bool {
		if strings.HasPrefix(c.System, "webapp2-") && c.System != "webapp2-memcache" {
			n++
			return n%4 == 0 && recorded.Has(c, "datastore") // they are slow, and alike
		}
		return recorded.Has(c, "memcache") && c.System != "gaeutilities" || c.System == "gae-sessions" && recorded.Has(c, "datastore")
	}
	recorded.Sessions(t, "../../testdata", 100, wanted, func(t *testing.T, c *vectors.Case) vectors.Backends {
		in := appengine.WithContext(t.Context(), r)
		if err := memcache.Flush(in); err != nil {
			t.Fatal(err)
		}
		for _, e := range c.Storage {
			if e.Namespace != "" || !recorded.Live(c, e) {
				continue
			}
			if e.Backend == "datastore" {
				load(t, in, e)
				continue
			}
			item := &memcache.Item{Key: e.Key.(string), Value: e.Value}
			if e.Flags != nil {
				item.Flags = *e.Flags
			}
			if err := memcache.Set(in, item); err != nil {
				t.Fatal(err)
			}
		}
		return vectors.Backends{
			Memcache: immortal{inMemcache{gae.NewMemcache(""), r}}, Datastore: inDatastore{gae.NewDatastore(""), r},
			Entities: inGaeutilities{gae.NewGaeutilities(""), r}, App: "dev~testapp",
		}
	})
}

// immortal stores entries without expiry, because the recorded times are in the past.
type immortal struct{ legacy.Store }

func (s immortal) Set(ctx context.Context, key string, e legacy.Entry) error {
	e.Expires = time.Time{}
	return s.Store.Set(ctx, key, e)
}

func TestASessionOfGaeutilitiesIsReadFromAppEngine(t *testing.T) {
	servers.AppEngine(t)
	r := request()
	done := 0
	wanted := func(c *vectors.Case) bool {
		if c.System != "gaeutilities" || !c.Expect.Valid || !recorded.Has(c, "datastore") {
			return false
		}
		done++
		return done <= 5
	}
	recorded.Sessions(t, "../../testdata", 5, wanted, func(t *testing.T, c *vectors.Case) vectors.Backends {
		in := appengine.WithContext(t.Context(), r)
		for _, kind := range []string{gaeutilities.Kind, gaeutilities.DataKind} { // the recorded ones all have one key
			keys, err := datastore.NewQuery(kind).KeysOnly().GetAll(in, nil)
			if err == nil {
				err = datastore.DeleteMulti(in, keys)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range c.Storage {
			if e.Backend == "datastore" {
				load(t, in, e)
			}
		}
		return vectors.Backends{Memcache: inMemcache{gae.NewMemcache(""), r}, Entities: inGaeutilities{gae.NewGaeutilities(""), r}}
	})
}

func TestParallelChangesInAppEngineAreKept(t *testing.T) {
	servers.AppEngine(t)
	r := request()
	cache, db := inMemcache{gae.NewMemcache(""), r}, inDatastore{gae.NewDatastore(""), r}
	one, err := webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Memcache, Memcache: cache})
	two, err2 := memcachevars.New(memcachevars.Config{Names: []string{"n"}, Memcache: cache})
	three, err3 := gaesessions.New(gaesessions.Config{Key: secret, CookieOnlyThreshold: -1, Datastore: db})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]legacy.Format{"webapp2": one, "memcache variables": two, "gae-sessions": three} {
		t.Run(name, func(t *testing.T) { recorded.Parallel(t, f) })
	}
}

func TestOutsideARequestThereIsAnError(t *testing.T) {
	_, err := gae.NewMemcache("").Get(context.Background(), "k")
	if !errors.Is(err, gae.ErrNoRequest) {
		t.Errorf("%v", err)
	}
	_, err = gae.NewDatastore("").Get(context.Background(), "k", "n")
	if !errors.Is(err, gae.ErrNoRequest) {
		t.Errorf("%v", err)
	}
}
