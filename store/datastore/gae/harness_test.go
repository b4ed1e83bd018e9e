package gae_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
	"github.com/sojourn-go/sojourn/store/datastore/internal/suite"
)

// request returns a request inside App Engine's middleware.
func request(t *testing.T) *http.Request {
	t.Helper()
	var seen *http.Request
	h := appengine.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	return seen
}

// inRequest is a store whose calls belong to one request, because the suites
// call it with plain contexts.
type inRequest struct {
	*gae.Store
	r    *http.Request
	wire *suite.Wire // sees the calls, if it is set
}

func (s inRequest) in(ctx context.Context) context.Context {
	ctx = appengine.WithContext(ctx, s.r)
	if s.wire == nil {
		return ctx
	}
	return appengine.WithAPICallFunc(ctx, func(ctx context.Context, service, method string, in, out protoiface.MessageV1) error {
		instead := func(method string) error { return appengine.APICall(ctx, service, method, in, out) }
		return s.wire.Do(suite.Call{Method: method, Send: func() error { return instead(method) }, Instead: instead})
	})
}

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
	return inRequest{s, request(t), nil}
}

func openCache(t *testing.T, o gae.CacheOptions) cacheInRequest {
	t.Helper()
	c, err := gae.NewCache(o)
	if err != nil {
		t.Fatal(err)
	}
	return cacheInRequest{c, request(t)}
}

// alone opens a store in its own namespace.
func alone(t *testing.T) store.Store {
	return open(t, gae.Options{Namespace: suite.Alone().Namespace})
}

// engine is the suite's access to the running server.
func engine(t *testing.T) suite.Engine {
	r := request(t)
	in := func(t *testing.T, namespace string) context.Context {
		t.Helper()
		ctx, err := appengine.Namespace(appengine.WithContext(t.Context(), r), namespace)
		if err != nil {
			t.Fatal(err)
		}
		return ctx
	}
	change := []string{"BeginTransaction", "Get", "Put", "Commit"}
	return suite.Engine{
		Open: func(t *testing.T, at suite.Place, wire *suite.Wire) suite.Store {
			s := open(t, gae.Options{Kind: at.Kind, Namespace: at.Namespace})
			s.wire = wire
			return s
		},
		At: func(s store.Store) suite.Place {
			if p, ok := s.(pageless); ok {
				s = p.Store
			}
			return suite.Place{Namespace: gae.NamespaceOf(s.(inRequest).Store)}
		},
		Check: func(at suite.Place) error {
			_, err := gae.New(gae.Options{Kind: at.Kind, Namespace: at.Namespace})
			return err
		},
		Get: func(t *testing.T, k suite.Key) (props []entity.Property) {
			t.Helper()
			ctx := in(t, k.Namespace)
			var list datastore.PropertyList
			if err := datastore.Get(ctx, keyOf(ctx, &k), &list); err != nil && !errors.Is(err, datastore.ErrNoSuchEntity) {
				t.Fatal(err)
			}
			for _, p := range list {
				last := len(props) - 1
				if p.Multiple && last >= 0 && props[last].Name == p.Name {
					props[last].Value = append(props[last].Value.([]any), p.Value)
					continue
				}
				if p.Multiple {
					p.Value = []any{p.Value}
				}
				props = append(props, entity.Property{Name: p.Name, Value: p.Value, NoIndex: p.NoIndex})
			}
			return props
		},
		PutAll: func(t *testing.T, keys []suite.Key, props [][]entity.Property) {
			t.Helper()
			ctx := in(t, keys[0].Namespace)
			there, lists := make([]*datastore.Key, len(keys)), make([]datastore.PropertyList, len(keys))
			for i, k := range keys {
				there[i], lists[i] = keyOf(ctx, &k), propertyList(props[i])
			}
			if _, err := datastore.PutMulti(ctx, there, lists); err != nil {
				t.Fatal(err)
			}
		},
		Contended: datastore.ErrConcurrentTransaction,
		FirstSave: change, NextSave: change, Delete: change, Load: []string{"Get"},
		Many: 45, // more than fit into two transactions
	}
}

func propertyList(props []entity.Property) (list datastore.PropertyList) {
	for _, p := range props {
		values, many := []any{p.Value}, true
		switch v := p.Value.(type) {
		case []int64:
			values = nil
			for _, n := range v {
				values = append(values, n)
			}
		case []any:
			values = v
		default:
			many = false
		}
		for _, v := range values {
			if bytes, ok := v.([]byte); ok && !p.NoIndex {
				v = datastore.ByteString(bytes)
			}
			list = append(list, datastore.Property{Name: p.Name, Value: v, NoIndex: p.NoIndex, Multiple: many})
		}
	}
	return list
}

func keyOf(ctx context.Context, k *suite.Key) *datastore.Key {
	if k == nil {
		return nil
	}
	kind := k.Kind
	if kind == "" {
		kind = entity.Kind
	}
	return datastore.NewKey(ctx, kind, k.Name, k.ID, keyOf(ctx, k.Parent))
}
