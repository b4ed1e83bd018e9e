package cloud_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/datastore"
	pb "cloud.google.com/go/datastore/apiv1/datastorepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/cloud"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
	"github.com/sojourn-go/sojourn/store/datastore/internal/suite"
	"github.com/sojourn-go/sojourn/store/storetest"
)

const project = "sojourn-test"

// All tests share one emulator, which starts slowly. Each test has its own
// namespaces, and the last one stops the emulator. It refuses queries that need
// a composite index, like the service.
func TestInTheEmulator(t *testing.T) {
	server := servers.Datastore(t, "--require_indexes")
	t.Setenv("DATASTORE_EMULATOR_HOST", server.Addr)
	e := engine(t)
	t.Run("Conformance", func(t *testing.T) {
		storetest.Run(t, alone(connect(t)), storetest.Emulated, e.Copies())
	})
	t.Run("Promises", func(t *testing.T) { promises.Run(t, alone(connect(t))) })
	t.Run("Interleavings", func(t *testing.T) { e.Interleavings(t, interleavings...) })
	t.Run("ASweepOfMany", func(t *testing.T) { testASweepOfManyRemovesAtMost500WithEachCommit(t, e) })
	t.Run("Entities", e.Entities)
	t.Run("Foreign", e.Foreign)
	t.Run("UnderATTLPolicy", func(t *testing.T) { testUnderATTLPolicy(t, e) })
	t.Run("NoQueryNeedsACompositeIndex", testNoQueryNeedsACompositeIndex)
	t.Run("ByURL", testByURL)
	t.Run("AnOutage", func(t *testing.T) { testAnOutage(t, server) })
}

// connect returns a client of the running emulator.
func connect(t *testing.T, o ...option.ClientOption) *datastore.Client {
	t.Helper()
	client, err := datastore.NewClient(t.Context(), project, o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func open(t *testing.T, client *datastore.Client, o cloud.Options) *cloud.Store {
	t.Helper()
	s, err := cloud.New(client, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// alone returns a function that opens stores, each in its own namespace.
func alone(client *datastore.Client) func(*testing.T) store.Store {
	return func(t *testing.T) store.Store {
		return open(t, client, cloud.Options{Namespace: suite.Alone().Namespace})
	}
}

// engine is the suite's access to the running emulator.
func engine(t *testing.T) suite.Engine {
	client := connect(t)
	change := []string{"BeginTransaction", "Lookup", "Commit"}
	return suite.Engine{
		Open: func(t *testing.T, at suite.Place, wire *suite.Wire) suite.Store {
			client := client
			if wire != nil {
				client = watched(t, wire)
			}
			return open(t, client, cloud.Options{Kind: at.Kind, Namespace: at.Namespace})
		},
		At: func(s store.Store) suite.Place { return suite.Place{Namespace: cloud.NamespaceOf(s)} },
		Check: func(at suite.Place) error {
			_, err := cloud.New(client, cloud.Options{Kind: at.Kind, Namespace: at.Namespace})
			return err
		},
		Get: func(t *testing.T, k suite.Key) (props []entity.Property) {
			t.Helper()
			var list datastore.PropertyList
			if err := client.Get(t.Context(), keyOf(&k), &list); err != nil && !errors.Is(err, datastore.ErrNoSuchEntity) {
				t.Fatal(err)
			}
			for _, p := range list {
				props = append(props, entity.Property{Name: p.Name, Value: p.Value, NoIndex: p.NoIndex})
			}
			return props
		},
		PutAll: func(t *testing.T, keys []suite.Key, props [][]entity.Property) {
			t.Helper()
			there, lists := make([]*datastore.Key, len(keys)), make([]datastore.PropertyList, len(keys))
			for i, k := range keys {
				there[i], lists[i] = keyOf(&k), propertyList(props[i])
			}
			if _, err := client.PutMulti(t.Context(), there, lists); err != nil {
				t.Fatal(err)
			}
		},
		Contended: status.Error(codes.Aborted, "too much contention on these datastore entities"),
		FirstSave: []string{"Commit"}, NextSave: change, Delete: change, Load: []string{"Lookup"},
		// Each with the user, and the last with the new session.
		Many: 410, Commits: []int{400 + 1, 10 + 2}, Size: size,
	}
}

func propertyList(props []entity.Property) (list datastore.PropertyList) {
	for _, p := range props {
		if numbers, ok := p.Value.([]int64); ok {
			var all []any
			for _, n := range numbers {
				all = append(all, n)
			}
			p.Value = all
		}
		list = append(list, datastore.Property{Name: p.Name, Value: p.Value, NoIndex: p.NoIndex})
	}
	return list
}

func keyOf(k *suite.Key) *datastore.Key {
	if k == nil {
		return nil
	}
	kind := k.Kind
	if kind == "" {
		kind = entity.Kind
	}
	return &datastore.Key{Kind: kind, Name: k.Name, ID: k.ID, Namespace: k.Namespace, Parent: keyOf(k.Parent)}
}

// size is how many entities a commit changes.
func size(c suite.Call) int { return len(c.Request.(*pb.CommitRequest).GetMutations()) }

// watched returns a client whose calls go through the wire.
func watched(t *testing.T, wire *suite.Wire) *datastore.Client {
	return connect(t, option.WithGRPCDialOption(grpc.WithUnaryInterceptor(
		func(ctx context.Context, path string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return wire.Do(suite.Call{
				Method: path[strings.LastIndex(path, "/")+1:], Request: req,
				Send: func() error { return invoke(ctx, path, req, reply, cc, opts...) },
			})
		})))
}

var interleavings = []suite.Scenario{
	{Name: "an insert finds the record that it met swept meanwhile", Run: func(t *testing.T, here, elsewhere suite.Store, wire *suite.Wire) {
		suite.Save(t, here, suite.Expired(1), store.Base{})
		rec := suite.Session(1)
		wire.Next("Lookup", func(c suite.Call) error {
			suite.Sweep(t, elsewhere, 10, 1)
			return c.Send()
		})
		suite.Save(t, here, rec, store.Base{})
		suite.Holds(t, here, rec)
	}},
}

func testASweepOfManyRemovesAtMost500WithEachCommit(t *testing.T, e suite.Engine) {
	at, wire := suite.Alone(), new(suite.Wire)
	s := e.Open(t, at, wire)
	e.PutMany(t, at, 1100, suite.Expired(1))
	var commits []int
	wire.On(func(c suite.Call) error {
		if c.Method == "Commit" {
			commits = append(commits, size(c))
		}
		return c.Send()
	})
	suite.Sweep(t, s, 1050, 1050)
	suite.Sweep(t, s, 1050, 50)
	if want := []int{500, 500, 50, 50}; !slices.Equal(commits, want) {
		t.Errorf("commits of %v, want %v", commits, want)
	}
}

func testUnderATTLPolicy(t *testing.T, e suite.Engine) {
	at := suite.Alone()
	s := open(t, connect(t), cloud.Options{Namespace: at.Namespace, TTLPolicy: true})
	rec := suite.Session(1)
	rec.User = store.UserHash{1}
	suite.Save(t, s, rec, store.Base{})
	if got := e.Indexed(t, at, rec); !slices.Equal(got, []string{"user"}) {
		t.Errorf("indexed are %v, want the user alone", got)
	}
	if _, err := s.Sweep(t.Context(), time.Hour, 10); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Sweep: %v, want errors.ErrUnsupported: there is nothing to sweep", err)
	}
}

func testNoQueryNeedsACompositeIndex(t *testing.T) {
	client := connect(t)
	q := datastore.NewQuery("K").FilterField("a", "=", 1).FilterField("b", "<", 2)
	if _, err := client.GetAll(t.Context(), q, new([]datastore.PropertyList)); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("a query that needs an index: %v, want it refused", err)
	}
	s := open(t, client, cloud.Options{Namespace: "indexes"})
	old, rec := suite.Expired(1), suite.Session(2)
	rec.User = store.UserHash{1}
	suite.Save(t, s, old, store.Base{})
	suite.Save(t, s, rec, store.Base{})
	suite.Sweep(t, s, 10, 1)
	if recs, err := s.ByUser(t.Context(), rec.User); err != nil || len(recs) != 1 {
		t.Errorf("ByUser: %d records, %v; want 1", len(recs), err)
	}
	if _, err := s.SaveLimited(t.Context(), suite.Session(3), store.UserLimit{Max: 1}); err != nil {
		t.Errorf("SaveLimited: %v", err)
	}
	if err := s.Delete(t.Context(), suite.Session(3).ID, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if page, err := s.Ends(t.Context(), store.FeedFromStart, 10); err != nil || len(page.Ends) != 1 {
		t.Errorf("Ends: %d ends, %v; want 1", len(page.Ends), err)
	}
	if recs, cursor, err := s.Scan(t.Context(), "", 1); err != nil || len(recs) != 1 || cursor == "" {
		t.Errorf("Scan: %d records, %v; want 1 and a cursor", len(recs), err)
	} else if recs, _, err := s.Scan(t.Context(), cursor, 2); err != nil || len(recs) != 1 {
		t.Errorf("Scan from the cursor: %d records, %v; want the tombstone", len(recs), err)
	}
}

// With pessimistic concurrency, transactions lock entities that they read: a
// conflicting one waits, and may be aborted. The tests have few writers and run
// in parallel, because the emulator makes the loser wait for two seconds.
func TestWhereTransactionsLock(t *testing.T) {
	server := servers.LockingDatastore(t)
	t.Setenv("DATASTORE_EMULATOR_HOST", server.Addr)
	client, other := connect(t), connect(t)

	t.Run("parallel touches and saves of one session all count", func(t *testing.T) {
		t.Parallel()
		o := cloud.Options{Namespace: "mixed"}
		here, elsewhere := open(t, client, o), open(t, other, o)
		rec := suite.Session(1)
		suite.Save(t, here, rec, store.Base{})
		seen, deadline := rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := elsewhere.Touch(t.Context(), rec.ID, seen, deadline); err != nil {
				t.Errorf("Touch: %v", err)
			}
		})
		last := rec
		wg.Go(func() {
			for range 3 {
				suite.Save(t, here, suite.Next(last), last.Base())
				last, _ = here.Load(t.Context(), rec.ID)
			}
		})
		wg.Wait()
		got, err := here.Load(t.Context(), rec.ID)
		if err != nil || got.Version != 4 || !got.Seen.Equal(seen) || !got.Deadline.Equal(deadline) {
			t.Errorf("version %d until %v, %v; want version 4 until %v", got.Version, got.Deadline, err, deadline)
		}
	})

	t.Run("of three saves on one base one wins", func(t *testing.T) {
		t.Parallel()
		s := open(t, client, cloud.Options{Namespace: "race"})
		rec := suite.Session(1)
		suite.Save(t, s, rec, store.Base{})
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				after := suite.Next(rec)
				after.SaveIDs[0] = store.SaveID(i + 1)
				errs[i] = s.Save(t.Context(), after, rec.Base())
			})
		}
		wg.Wait()
		wins := 0
		for _, err := range errs {
			switch {
			case err == nil:
				wins++
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("Save: %v, want nil or ErrConflict", err)
			}
		}
		if wins != 1 {
			t.Errorf("%d saves on one base were accepted, want 1", wins)
		}
	})

	t.Run("a save that is given up may be applied, and is settled by sending it again", func(t *testing.T) {
		t.Parallel()
		s := open(t, client, cloud.Options{Namespace: "given-up"})
		rec := suite.Session(1)
		suite.Save(t, s, rec, store.Base{})
		after := suite.Next(rec)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		_ = s.Save(ctx, after, rec.Base()) // over in the middle, somewhere
		cancel()
		suite.Save(t, s, after, rec.Base())
		suite.Holds(t, s, after)
	})

	t.Run("parallel logins leave as many sessions as allowed", func(t *testing.T) {
		t.Parallel()
		s := open(t, client, cloud.Options{Namespace: "logins"})
		user := store.UserHash{1}
		limit := store.UserLimit{Max: 2, Until: time.Now().Add(time.Hour)}
		var wg sync.WaitGroup
		for i := range byte(4) {
			wg.Go(func() {
				rec := suite.Session(i)
				rec.User = user
				if _, err := s.SaveLimited(t.Context(), rec, limit); err != nil {
					t.Errorf("SaveLimited: %v", err)
				}
			})
		}
		wg.Wait()
		if recs, err := s.ByUser(t.Context(), user); err != nil || len(recs) != limit.Max {
			t.Errorf("%d sessions are live, %v; want %d", len(recs), err, limit.Max)
		}
	})
}

// During an outage a call ends with its context, and leaves nothing behind.
func testAnOutage(t *testing.T, server *servers.Server) {
	s, err := cloud.Open(t.Context(), project, cloud.Options{Namespace: "outage"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	rec := suite.Session(1)
	suite.Save(t, s, rec, store.Base{})
	server.Kill()
	for call, do := range map[string]func(ctx context.Context) error{
		"Load":  func(ctx context.Context) error { _, err := s.Load(ctx, rec.ID); return err },
		"Save":  func(ctx context.Context) error { return s.Save(ctx, suite.Next(rec), rec.Base()) },
		"Sweep": func(ctx context.Context) error { _, err := s.Sweep(ctx, time.Hour, 10); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s without a server: %v, want the context's error", call, err)
		}
		cancel()
	}
	server.Start() // empty: the emulator keeps nothing
	suite.Save(t, s, rec, store.Base{})
	suite.Holds(t, s, rec)
}

func TestNewNeedsAClient(t *testing.T) {
	if _, err := cloud.New(nil, cloud.Options{}); err == nil {
		t.Error("a nil client is accepted")
	}
}
