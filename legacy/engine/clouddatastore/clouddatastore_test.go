//go:build linux

package clouddatastore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/engine/clouddatastore"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/vectors"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

const app = "s~legacy-app"

var secret = []byte("a secret of the old application!")

// client is a client of the emulator.
func client(t *testing.T) (*datastore.Client, *servers.Server) {
	t.Helper()
	server := servers.Datastore(t)
	c, err := datastore.NewClient(context.Background(), "legacy-app", option.WithEndpoint(server.Addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, server
}

// load puts a recorded entity into the datastore, without the code under test.
func load(t *testing.T, c *datastore.Client, e vectors.Entry) {
	t.Helper()
	var list datastore.PropertyList
	for name, p := range e.Properties {
		list = append(list, datastore.Property{Name: name, Value: property(t, p), NoIndex: p.Type == "blob"})
	}
	key := &datastore.Key{Kind: e.Kind, Namespace: e.Namespace}
	switch k := e.Key.(type) {
	case string:
		key.Name = k
	case float64:
		key.ID = int64(k)
	}
	if _, err := c.Put(context.Background(), key, &list); err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
}

func property(t *testing.T, p vectors.Property) any {
	switch p.Type {
	case "blob":
		return p.Base64
	case "datetime":
		at, err := time.Parse("2006-01-02T15:04:05.999999", p.Value.(string))
		if err != nil {
			t.Fatal(err)
		}
		return at
	case "list":
		var out []any
		for _, it := range p.Value.([]any) {
			out = append(out, it.(map[string]any)["value"])
		}
		return out
	case "key":
		key, err := appengine.ParseKey(p.Value.(string))
		if err != nil {
			t.Fatal(err)
		}
		return &datastore.Key{Kind: key.Path[0].Kind, ID: key.Path[0].ID, Namespace: key.Namespace}
	}
	return p.Value
}

func TestRecordedSessionsAreReadFromTheDatastore(t *testing.T) {
	c, server := client(t)
	wanted := func(k *vectors.Case) bool { return recorded.Has(k, "datastore") }
	recorded.Sessions(t, "../../testdata", 100, wanted, func(t *testing.T, k *vectors.Case) vectors.Backends {
		resp, err := http.Post("http://"+server.Addr+"/reset", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		memcache := &legacytest.Memcache{Now: time.UnixMicro(int64(k.Now * 1e6))}
		for _, e := range k.Storage {
			switch {
			case e.Backend == "datastore":
				load(t, c, e)
			case e.Namespace == "" && recorded.Live(k, e):
				item := appengine.Item{Value: e.Value}
				if e.Flags != nil {
					item.Flags = *e.Flags
				}
				if err := memcache.Set(context.Background(), e.Key.(string), item); err != nil {
					t.Fatal(err)
				}
			}
		}
		return vectors.Backends{
			Memcache: memcache, Datastore: clouddatastore.New(c, app, ""), Entities: clouddatastore.NewGaeutilities(c, app, ""), App: app,
		}
	})
}

func TestParallelChangesInTheDatastoreAreKept(t *testing.T) {
	c, _ := client(t)
	db := clouddatastore.New(c, app, "")
	one, err := gaesessions.New(gaesessions.Config{Key: secret, CookieOnlyThreshold: -1, Datastore: db})
	two, err2 := webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Datastore, Memcache: forgetful{}, Datastore: db, App: app})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Run("gae-sessions", func(t *testing.T) { recorded.Parallel(t, one) })
	t.Run("webapp2", func(t *testing.T) { recorded.Parallel(t, two) })
}

// forgetful is a memcache that evicts everything at once.
type forgetful struct{}

func (forgetful) Get(context.Context, string) (appengine.Item, error) {
	return appengine.Item{}, legacy.ErrNoEntry
}
func (forgetful) Set(context.Context, string, appengine.Item) error { return nil }
func (forgetful) Delete(context.Context, string) error              { return nil }

func TestCleanUpRemovesWhatHasExpired(t *testing.T) {
	c, _ := client(t)
	ctx, db, now := context.Background(), clouddatastore.New(c, app, "tenant"), time.Unix(1_500_000_000, 0)
	name := func(expires int) string { return fmt.Sprintf("%010d_%032x", expires, 1) }
	for _, expires := range []int{0, 1_400_000_000, 1_499_999_999, 1_500_000_000, 1_600_000_000} {
		if err := db.Put(ctx, gaesessions.Kind, name(expires), appengine.Entity{{Name: "pdump", Value: []byte("x"), NoIndex: true}}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := gaesessions.Cleanup(ctx, db, now); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	left, err := db.NamesBetween(ctx, gaesessions.Kind, "0", "9", 10)
	if want := []string{name(0), name(1_500_000_000), name(1_600_000_000)}; err != nil || !slices.Equal(left, want) {
		t.Errorf("%q, %v", left, err)
	}
}

func TestADatastoreThatIsDownIsAnErrorWithoutTheKey(t *testing.T) {
	c, server := client(t)
	server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := clouddatastore.New(c, app, "").Get(ctx, "Session", "secret-id")
	if err == nil || errors.Is(err, legacy.ErrNoEntry) || strings.Contains(err.Error(), "secret-id") {
		t.Errorf("%v", err)
	}
}
