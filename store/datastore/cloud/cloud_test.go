package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/sojourn-go/sojourn/store/storetest"
)

const project = "sojourn-test"

// What is tested in the emulator, which starts slowly: once for all. Each test has
// namespaces of its own, and the last one stops the emulator. It refuses queries
// that need an index of their own, as the service does.
func TestInTheEmulator(t *testing.T) {
	server := servers.Datastore(t, "--require_indexes")
	if server == nil {
		return
	}
	t.Setenv("DATASTORE_EMULATOR_HOST", server.Addr)
	warmUp(t)
	t.Run("Conformance", testConformance)
	t.Run("Promises", testPromises)
	t.Run("Interleavings", testInterleavings)
	t.Run("Entities", testEntities)
	t.Run("NoQueryNeedsACompositeIndex", testNoQueryNeedsACompositeIndex)
	t.Run("ByURL", testByURL)
	t.Run("AnOutage", func(t *testing.T) { testAnOutage(t, server) })
}

// warmUp makes sure that the emulator has done some work: a program in Java that
// has just started is slow.
func warmUp(t *testing.T) {
	t.Helper()
	s := open(t, connect(t), cloud.Options{Namespace: "warm-up"})
	for i := range byte(50) {
		rec := session(i)
		save(t, s, rec, store.Base{})
		save(t, s, next(rec), rec.Base())
	}
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

// spaces returns a function that opens stores, each in its own namespace.
func spaces(client *datastore.Client) func(*testing.T) store.Store {
	return func(t *testing.T) store.Store {
		return open(t, client, cloud.Options{Namespace: fmt.Sprintf("test-%d", space.Add(1))})
	}
}

var space atomic.Int64

func testConformance(t *testing.T) {
	client := connect(t)
	storetest.Run(t, spaces(client), storetest.Emulated,
		storetest.Copies(func(t *testing.T, s store.Store, from, to store.ID) {
			key := func(id store.ID) *datastore.Key {
				k := datastore.NameKey("SojournSession", id.String(), nil)
				k.Namespace = cloud.NamespaceOf(s)
				return k
			}
			var props datastore.PropertyList
			if err := client.Get(t.Context(), key(from), &props); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Put(t.Context(), key(to), &props); err != nil {
				t.Fatal(err)
			}
		}))
}

func testPromises(t *testing.T) {
	promises.Run(t, spaces(connect(t)))
}

// calls is what lies between a client and the emulator: it counts the calls by
// method, and hands each to on, if that is set, which may send it.
type calls struct {
	mu      sync.Mutex
	methods []string
	on      func(method string, req any, send func() error) error
}

func (c *calls) connect(t *testing.T) *datastore.Client {
	return connect(t, option.WithGRPCDialOption(grpc.WithUnaryInterceptor(
		func(ctx context.Context, path string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			method := path[strings.LastIndex(path, "/")+1:]
			c.mu.Lock()
			c.methods = append(c.methods, method)
			on := c.on
			c.mu.Unlock()
			send := func() error { return invoke(ctx, path, req, reply, cc, opts...) }
			if on == nil {
				return send()
			}
			return on(method, req, send)
		})))
}

// between sets what happens to the next call of that method, and only to it.
func (c *calls) between(method string, do func(send func() error) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var once sync.Once
	c.on = func(m string, _ any, send func() error) error {
		err := error(nil)
		mine := false
		if m == method {
			once.Do(func() { mine, err = true, do(send) })
		}
		if mine {
			return err
		}
		return send()
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

// What competes for one session, or loses an answer, at a moment that chance
// would seldom hit.
func testInterleavings(t *testing.T) {
	var wire calls
	client := wire.connect(t)
	other := connect(t)
	n := byte(0)
	// Each case has two stores on the same sessions: here, whose calls are
	// watched, and elsewhere.
	scenario := func(name string, run func(t *testing.T, here, elsewhere *cloud.Store)) {
		n++
		o := cloud.Options{Namespace: fmt.Sprintf("interleaving-%d", n)}
		t.Run(name, func(t *testing.T) { run(t, open(t, client, o), open(t, other, o)) })
	}

	scenario("a save that is overtaken between its read and its commit conflicts", func(t *testing.T, here, elsewhere *cloud.Store) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		faster, slower := next(rec), next(rec)
		wire.between("Commit", func(send func() error) error {
			save(t, elsewhere, faster, rec.Base())
			return send()
		})
		if err := here.Save(t.Context(), slower, rec.Base()); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Save: %v, want ErrConflict", err)
		}
		holds(t, here, faster)
	})

	scenario("a touch that is overtaken by a save is applied on top of it", func(t *testing.T, here, elsewhere *cloud.Store) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		faster := next(rec)
		wire.between("Commit", func(send func() error) error {
			save(t, elsewhere, faster, rec.Base())
			return send()
		})
		faster.Seen, faster.Deadline = rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
		if err := here.Touch(t.Context(), rec.ID, faster.Seen, faster.Deadline); err != nil {
			t.Errorf("Touch: %v", err)
		}
		holds(t, here, faster)
	})

	scenario("a save whose answer is lost is saved once when it is sent again", func(t *testing.T, here, _ *cloud.Store) {
		one := session(n)
		two := next(one)
		for _, c := range []struct {
			rec  store.Record
			base store.Base
		}{{one, store.Base{}}, {two, one.Base()}} {
			wire.between("Commit", func(send func() error) error {
				return errors.Join(send(), status.Error(codes.Internal, "the answer is lost"))
			})
			if err := here.Save(t.Context(), c.rec, c.base); err == nil || errors.Is(err, store.ErrConflict) {
				t.Errorf("Save: %v, want an error that leaves the outcome open", err)
			}
			save(t, here, c.rec, c.base)
			holds(t, here, c.rec)
		}
	})

	scenario("an insert finds the record that it met swept meanwhile", func(t *testing.T, here, elsewhere *cloud.Store) {
		old := session(n)
		old.Deadline = old.Deadline.Add(-3 * time.Hour)
		save(t, here, old, store.Base{})
		rec := session(n)
		wire.between("Lookup", func(send func() error) error {
			sweep(t, elsewhere, 10, 1)
			return send()
		})
		save(t, here, rec, store.Base{})
		holds(t, here, rec)
	})

	scenario("a sweep leaves what gets a new deadline between its query and its commit", func(t *testing.T, here, elsewhere *cloud.Store) {
		old := session(n)
		old.Deadline = old.Deadline.Add(-3 * time.Hour)
		save(t, here, old, store.Base{})
		alive := next(old)
		alive.Deadline = old.Deadline.Add(3 * time.Hour)
		wire.between("Commit", func(send func() error) error {
			save(t, elsewhere, alive, old.Base())
			return send()
		})
		sweep(t, here, 10, 0)
		holds(t, here, alive)
	})

	scenario("contention that does not end is over with the context", func(t *testing.T, here, _ *cloud.Store) {
		rec := session(n)
		save(t, here, rec, store.Base{})
		wire.on = func(method string, _ any, send func() error) error {
			if method == "Commit" {
				return status.Error(codes.Aborted, "too much contention on these datastore entities")
			}
			return send()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		var err error
		made := wire.since(func() { err = here.Save(ctx, next(rec), rec.Base()) })
		wire.on = nil
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrConflict) {
			t.Errorf("Save: %v, want an open outcome and the context's error", err)
		}
		if tries := count(made, "Commit"); tries < 2 || tries > 20 {
			t.Errorf("%d commits were tried in 200 ms, want a few, with pauses", tries)
		}
		holds(t, here, rec)
	})

	scenario("a first save is one call, a following one three, a load one", func(t *testing.T, here, _ *cloud.Store) {
		wire.on = nil
		rec := session(n)
		for _, c := range []struct {
			name string
			do   func()
			want []string
		}{
			{"first save", func() { save(t, here, rec, store.Base{}) }, []string{"Commit"}},
			{"following save", func() { save(t, here, next(rec), rec.Base()) }, []string{"BeginTransaction", "Lookup", "Commit"}},
			{"load", func() { _, _ = here.Load(t.Context(), rec.ID) }, []string{"Lookup"}},
		} {
			if made := wire.since(c.do); !slices.Equal(made, c.want) {
				t.Errorf("%s: calls %v, want %v", c.name, made, c.want)
			}
		}
	})

	scenario("errors name no session", func(t *testing.T, here, _ *cloud.Store) {
		rec := session(n)
		wire.on = func(string, any, func() error) error {
			return status.Errorf(codes.FailedPrecondition, "no luck with key { name: %q }", rec.ID)
		}
		defer func() { wire.on = nil }()
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

	scenario("of two first logins at once, where one is allowed, one is refused", func(t *testing.T, here, elsewhere *cloud.Store) {
		limit := store.UserLimit{Max: 1, Refuse: true}
		faster, slower := session(n), session(n)
		slower.ID[0]++
		faster.User, slower.User = store.UserHash{n}, store.UserHash{n}
		wire.between("Commit", func(send func() error) error {
			if _, err := elsewhere.SaveLimited(t.Context(), faster, limit); err != nil {
				t.Errorf("the faster login: %v", err)
			}
			return send()
		})
		if _, err := here.SaveLimited(t.Context(), slower, limit); !errors.Is(err, store.ErrLimit) {
			t.Errorf("the slower login: %v, want ErrLimit", err)
		}
		wire.on = nil
	})

	scenario("a cap that very many sessions exceed ends all of them, at most 500 with each commit", func(t *testing.T, here, _ *cloud.Store) {
		const many = 410
		user := store.UserHash{n}
		var wg sync.WaitGroup
		for w := range 20 {
			wg.Go(func() {
				for i := w; i < many; i += 20 {
					rec := session(n)
					rec.ID, rec.User = store.HashIdentifier(fmt.Append(nil, i)), user
					save(t, here, rec, store.Base{})
				}
			})
		}
		wg.Wait()
		var sizes []int
		wire.on = func(method string, req any, send func() error) error {
			if method == "Commit" {
				sizes = append(sizes, len(req.(*pb.CommitRequest).GetMutations()))
			}
			return send()
		}
		rec := session(n)
		rec.User = user
		ended, err := here.SaveLimited(t.Context(), rec, store.UserLimit{Max: 1, Until: time.Now().Add(time.Hour)})
		wire.on = nil
		if err != nil || len(ended) != many {
			t.Errorf("SaveLimited ended %d sessions, %v; want %d", len(ended), err, many)
		}
		// Each with the user, and the last with the new session.
		if want := []int{400 + 1, 10 + 2}; !slices.Equal(sizes, want) {
			t.Errorf("commits of %v, want %v", sizes, want)
		}
		if live, err := here.ByUser(t.Context(), user); err != nil || len(live) != 1 {
			t.Errorf("%d sessions are live, %v; want 1", len(live), err)
		}
	})

	scenario("a sweep removes many, at most 500 with each commit", func(t *testing.T, here, _ *cloud.Store) {
		const many = 1100
		var wg sync.WaitGroup
		for w := range 20 {
			wg.Go(func() {
				for i := w; i < many; i += 20 {
					old := session(n)
					old.ID = store.HashIdentifier(fmt.Append(nil, i))
					old.Deadline = old.Deadline.Add(-3 * time.Hour)
					save(t, here, old, store.Base{})
				}
			})
		}
		wg.Wait()
		var sizes []int
		wire.on = func(method string, req any, send func() error) error {
			if method == "Commit" {
				sizes = append(sizes, len(req.(*pb.CommitRequest).GetMutations()))
			}
			return send()
		}
		sweep(t, here, 1050, 1050)
		sweep(t, here, 1050, 50)
		wire.on = nil
		if want := []int{500, 500, 50, 50}; !slices.Equal(sizes, want) {
			t.Errorf("commits of %v, want %v", sizes, want)
		}
	})
}

func testNoQueryNeedsACompositeIndex(t *testing.T) {
	client := connect(t)
	q := datastore.NewQuery("K").FilterField("a", "=", 1).FilterField("b", "<", 2)
	if _, err := client.GetAll(t.Context(), q, new([]datastore.PropertyList)); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("a query that needs an index: %v, want it refused", err)
	}
	s := open(t, client, cloud.Options{Namespace: "indexes"})
	old, rec := session(1), session(2)
	old.Deadline = old.Deadline.Add(-3 * time.Hour)
	rec.User = store.UserHash{1}
	save(t, s, old, store.Base{})
	save(t, s, rec, store.Base{})
	sweep(t, s, 10, 1)
	if recs, err := s.ByUser(t.Context(), rec.User); err != nil || len(recs) != 1 {
		t.Errorf("ByUser: %d records, %v; want 1", len(recs), err)
	}
	if _, err := s.SaveLimited(t.Context(), session(3), store.UserLimit{Max: 1}); err != nil {
		t.Errorf("SaveLimited: %v", err)
	}
	if err := s.Delete(t.Context(), session(3).ID, time.Now().Add(time.Hour)); err != nil {
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

// With pessimistic concurrency, transactions lock what they read: who meets
// another one waits, and may be the one to give way. Few writers do here, for
// the emulator lets the loser wait for two seconds; and so the tests wait together.
func TestWhereTransactionsLock(t *testing.T) {
	server := servers.LockingDatastore(t)
	if server == nil {
		return
	}
	t.Setenv("DATASTORE_EMULATOR_HOST", server.Addr)
	client, other := connect(t), connect(t)

	t.Run("parallel touches and saves of one session all count", func(t *testing.T) {
		t.Parallel()
		o := cloud.Options{Namespace: "mixed"}
		here, elsewhere := open(t, client, o), open(t, other, o)
		rec := session(1)
		save(t, here, rec, store.Base{})
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
				save(t, here, next(last), last.Base())
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
		rec := session(1)
		save(t, s, rec, store.Base{})
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				after := next(rec)
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
		rec := session(1)
		save(t, s, rec, store.Base{})
		after := next(rec)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		_ = s.Save(ctx, after, rec.Base()) // over in the middle, somewhere
		cancel()
		save(t, s, after, rec.Base())
		holds(t, s, after)
	})

	t.Run("parallel logins leave as many sessions as allowed", func(t *testing.T) {
		t.Parallel()
		s := open(t, client, cloud.Options{Namespace: "logins"})
		user := store.UserHash{1}
		limit := store.UserLimit{Max: 2, Until: time.Now().Add(time.Hour)}
		var wg sync.WaitGroup
		for i := range byte(4) {
			wg.Go(func() {
				rec := session(i)
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

func testEntities(t *testing.T) {
	client := connect(t)

	t.Run("the largest is kept and a larger one refused", func(t *testing.T) {
		s := open(t, client, cloud.Options{Kind: strings.Repeat("k", 100), Namespace: strings.Repeat("n", 100)})
		rec := session(1)
		rec.Version, rec.User = 1<<62, store.UserHash{1}
		for range store.RecentSaveIDs - 1 {
			rec.SaveIDs = append(rec.SaveIDs, 1<<63)
		}
		rec.Data = make([]byte, 1<<20-4-512-200)
		save(t, s, rec, store.Base{})
		larger := next(rec)
		larger.Data = append(larger.Data, 0)
		if err := s.Save(t.Context(), larger, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Save of one byte more: %v, want ErrTooLarge", err)
		}
		holds(t, s, rec)
	})

	t.Run("only what is queried is indexed", func(t *testing.T) {
		rec := session(2)
		rec.User = store.UserHash{1}
		mark := next(rec)
		mark.Ended, mark.Data = mark.Seen, nil
		for _, c := range []struct {
			name string
			ttl  bool
			rec  store.Record
			want []string
		}{
			{"a session", false, rec, []string{"deadline", "user"}},
			{"a tombstone", false, mark, []string{"deadline", "feed"}},
			{"a session under a TTL policy", true, rec, []string{"user"}},
		} {
			s := open(t, client, cloud.Options{Kind: "S", Namespace: strings.ReplaceAll(c.name, " ", "-"), TTLPolicy: c.ttl})
			save(t, s, c.rec, store.Base{})
			key := datastore.NameKey("S", c.rec.ID.String(), nil)
			key.Namespace = strings.ReplaceAll(c.name, " ", "-")
			var props datastore.PropertyList
			if err := client.Get(t.Context(), key, &props); err != nil {
				t.Fatal(err)
			}
			var indexed []string
			for _, p := range props {
				if !p.NoIndex {
					indexed = append(indexed, p.Name)
				}
				if at, ok := p.Value.(time.Time); p.Name == "deadline" && (!ok || !at.Equal(c.rec.Deadline)) {
					t.Errorf("the deadline is %v, want the timestamp %v: a TTL policy uses it", p.Value, c.rec.Deadline)
				}
			}
			slices.Sort(indexed)
			if !slices.Equal(indexed, c.want) {
				t.Errorf("%s: indexed are %v, want %v", c.name, indexed, c.want)
			}
		}
	})

	t.Run("under a TTL policy there is nothing to sweep", func(t *testing.T) {
		s := open(t, client, cloud.Options{TTLPolicy: true})
		if _, err := s.Sweep(t.Context(), time.Hour, 10); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Sweep: %v, want errors.ErrUnsupported", err)
		}
	})

	t.Run("one that is not a record is an error", func(t *testing.T) {
		s := open(t, client, cloud.Options{Kind: "S", Namespace: "foreign"})
		rec := session(3)
		key := datastore.NameKey("S", rec.ID.String(), nil)
		key.Namespace = "foreign"
		for name, value := range map[string]any{"version": "1", "save_ids": []any{"a"}, "user": "short", "deadline": int64(7), "data": "text"} {
			if _, err := client.Put(t.Context(), key, &datastore.PropertyList{{Name: name, Value: value}}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context(), rec.ID); err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("Load of an entity whose %s is %T: %v, want an error", name, value, err)
			}
		}
	})
}

// An outage is over with the context, and leaves no trace.
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
	rec := session(1)
	save(t, s, rec, store.Base{})
	server.Kill()
	for call, do := range map[string]func(ctx context.Context) error{
		"Load":  func(ctx context.Context) error { _, err := s.Load(ctx, rec.ID); return err },
		"Save":  func(ctx context.Context) error { return s.Save(ctx, next(rec), rec.Base()) },
		"Sweep": func(ctx context.Context) error { _, err := s.Sweep(ctx, time.Hour, 10); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s without a server: %v, want the context's error", call, err)
		}
		cancel()
	}
	server.Start() // empty: the emulator keeps nothing
	save(t, s, rec, store.Base{})
	holds(t, s, rec)
}

func TestNewRefusesNamesThatDatastoreWould(t *testing.T) {
	if _, err := cloud.New(nil, cloud.Options{}); err == nil {
		t.Error("a nil client is accepted")
	}
	for _, o := range []cloud.Options{
		{Kind: "__reserved__"},
		{Kind: "a/b"},
		{Kind: strings.Repeat("k", 101)},
		{Namespace: "__reserved__"},
		{Namespace: "ä"},
		{Namespace: strings.Repeat("n", 101)},
	} {
		if _, err := cloud.New(&datastore.Client{}, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
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

func save(t *testing.T, s *cloud.Store, rec store.Record, base store.Base) {
	t.Helper()
	if err := s.Save(t.Context(), rec, base); err != nil {
		t.Errorf("Save of version %d: %v", rec.Version, err)
	}
}

func sweep(t *testing.T, s *cloud.Store, limit, want int) {
	t.Helper()
	if n, err := s.Sweep(t.Context(), 30*time.Minute, limit); err != nil || n != want {
		t.Errorf("Sweep removed %d, %v; want %d", n, err, want)
	}
}

// holds fails the test unless the store has rec.
func holds(t *testing.T, s *cloud.Store, rec store.Record) {
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

func count(list []string, s string) (n int) {
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n
}
