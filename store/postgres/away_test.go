package postgres

import (
	"cmp"
	"context"
	"errors"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// writes are all ways to write, of sessions of their own.
func writesOf(t *testing.T, s *Store) map[string]func(context.Context) error {
	t.Helper()
	recs := make([]store.Record, 3)
	for i := range recs {
		recs[i] = session()
		must(t, s.Save(t.Context(), recs[i], store.Base{}))
	}
	return map[string]func(context.Context) error{
		"insert": func(ctx context.Context) error { return s.Save(ctx, session(), store.Base{}) },
		"update": func(ctx context.Context) error { return s.Save(ctx, following(recs[0]), recs[0].Base()) },
		"touch": func(ctx context.Context) error {
			return s.Touch(ctx, recs[1].ID, time.Now(), time.Now().Add(time.Hour))
		},
		"end": func(ctx context.Context) error { return s.Delete(ctx, recs[2].ID, time.Now().Add(time.Hour)) },
		"login": func(ctx context.Context) error {
			rec := session()
			rec.User = store.UserHash{7}
			_, err := s.SaveLimited(ctx, rec, store.UserLimit{Max: 9, Until: time.Now().Add(time.Hour)})
			return err
		},
	}
}

// During a fault, writes wait until their timeout, and then return the cause
// and that nothing was saved; after the repair, waiting writes succeed.
func waitsFor(t *testing.T, s *Store, says string, breaks, repairs func()) {
	t.Helper()
	writes := writesOf(t, s)
	breaks()
	s.pool.Reset() // a write on a connection that breaks would have an unknown outcome
	var wg sync.WaitGroup
	for what, write := range writes {
		wg.Go(func() {
			err := write(within(t, 300*time.Millisecond))
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want it refused after waiting, with %q", what, err, says)
			}
		})
	}
	wg.Wait()
	for what, write := range writes {
		wg.Go(func() {
			if err := write(within(t, time.Minute)); err != nil {
				t.Errorf("%s, which waits until it is repaired: %v", what, err)
			}
		})
	}
	eventually(t, "they wait", func() bool {
		s.writes.mu.Lock()
		defer s.writes.mu.Unlock()
		return s.writes.away != nil
	})
	repairs()
	wg.Wait()
}

func testAReadOnlyDatabaseIsWaitedForOnOtherConnections(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	waitsFor(t, s, "25006", func() {
		db.server.SQL("ALTER DATABASE " + db.name + " SET default_transaction_read_only = on")
	}, func() {
		db.server.SQL("ALTER DATABASE " + db.name + " RESET default_transaction_read_only")
	})
	// Only one connection is read only, as a pooler may leave it.
	everyConnection(t, s, "SET default_transaction_read_only = on")
	must(t, s.Save(t.Context(), session(), store.Base{}))
}

func testAReadOnlyDatabaseIsStillReadFrom(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	everyConnection(t, s, "SET default_transaction_read_only = on")
	if _, err := s.Load(t.Context(), rec.ID); err != nil {
		t.Errorf("load: %v", err)
	}
}

func TestAServerThatIsFullOfClientsIsWaitedFor(t *testing.T) {
	server := servers.Postgres(t, "max_connections=12", "superuser_reserved_connections=0")
	s := opened(t, server.PostgresURL(), Options{})
	var held []*pgx.Conn
	waitsFor(t, s, "53300", func() {
		s.pool.Reset()
		eventually(t, "all places are taken", func() bool {
			c, err := pgx.Connect(t.Context(), server.PostgresURL())
			if err == nil {
				held = append(held, c)
			}
			return err != nil && s.pool.Stat().TotalConns() == 0
		})
	}, func() {
		for _, c := range held {
			_ = c.Close(context.Background())
		}
	})
}

func TestAServerThatIsDownIsWaitedForDirectlyAndBehindPgbouncer(t *testing.T) {
	server := servers.Postgres(t)
	bouncer := servers.PgBouncer(t, server, 4)
	t.Run("directly", func(t *testing.T) {
		s := opened(t, server.PostgresURL(), Options{})
		waitsFor(t, s, "connection refused", server.Stop, server.Start)
	})
	t.Run("a pooler that is down", func(t *testing.T) {
		s := opened(t, bouncer.PostgresURL(), Options{})
		waitsFor(t, s, "connection refused", bouncer.Kill, bouncer.Start)
	})
	t.Run("a server behind a pooler", func(t *testing.T) {
		s := opened(t, bouncer.PostgresURL(), Options{})
		writes := writesOf(t, s)
		server.Stop()
		var wg sync.WaitGroup
		for what, write := range writes {
			wg.Go(func() {
				if err := settles(write); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		<-time.After(200 * time.Millisecond)
		server.Start()
		wg.Wait()
	})
}

// settles sends a write again while its outcome is unknown, as the manager does.
func settles(write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := write(ctx)
		if err == nil || errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// PgBouncer is killed and restarted four times: waiting requests succeed.
func TestAPoolerThatIsKilledUnderLoadFailsNobody(t *testing.T) {
	server := servers.Postgres(t)
	bouncer := servers.PgBouncer(t, server, 4)
	s := opened(t, bouncer.PostgresURL(), Options{})
	stop := make(chan struct{})
	var served, failures atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			rec := session()
			must := func(err error) bool {
				if err != nil {
					t.Errorf("while the pooler was restarted: %v", err)
					failures.Add(1)
				}
				served.Add(1)
				return err == nil
			}
			if !must(settles(func(ctx context.Context) error { return s.Save(ctx, rec, store.Base{}) })) {
				return
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				next := following(rec)
				_, err := s.Load(within(t, time.Minute), rec.ID)
				if !must(err) || !must(settles(func(ctx context.Context) error { return s.Save(ctx, next, rec.Base()) })) {
					return
				}
				rec = next
			}
		})
	}
	for range 4 {
		before := served.Load()
		eventually(t, "they are served", func() bool { return failures.Load() > 0 || served.Load() > before+50 })
		bouncer.Kill()
		<-time.After(100 * time.Millisecond)
		bouncer.Start()
	}
	close(stop)
	wg.Wait()
}

// Many waiting requests call the server no more often than one client.
func TestWhileTheDatabaseIsAwayOneRequestAtATimeLooksForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := laneFor(2, true)
		l.timeout = 5 * time.Second
		answers := l.carry
		var tries atomic.Int64
		begin := time.Now()
		const back = 2 * time.Second
		l.carry = func(ctx context.Context, calls []*call[errand, string]) ([]*call[errand, string], error) {
			if time.Since(begin) < back {
				tries.Add(1)
				return nil, errors.New("away")
			}
			return answers(ctx, calls)
		}
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if _, err := l.do(t.Context(), errand{id: byte(i), joins: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took > back+lastPause {
			t.Errorf("they waited for %v", took)
		}
		if n := tries.Load(); n < 5 || n > 30 {
			t.Errorf("%d tries in %v", n, back)
		}
		idle(t, l)
		_ = seen
	})
}

func TestWhoeverWaitsForADatabaseThatStaysAwayIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := laneFor(2, false)
		l.timeout = 5 * time.Second
		gone := errors.New("too many clients")
		l.carry = func(context.Context, []*call[errand, string]) ([]*call[errand, string], error) { return nil, gone }
		for _, limit := range []time.Duration{time.Second, time.Hour} { // the caller's, and the lane's
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			begin := time.Now()
			_, err := l.do(ctx, errand{id: 1})
			cancel()
			if !errors.Is(err, gone) || !errors.Is(err, context.DeadlineExceeded) || !judge(err).refused {
				t.Errorf("%v: %v", limit, err)
			}
			if took := time.Since(begin); took > l.timeout+2*lastPause {
				t.Errorf("%v: after %v", limit, took)
			}
		}
		idle(t, l)
	})
}

func TestThereIsALimitToHowManyRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := laneFor(1, false)
		for range maxInside {
			go func() { _, _ = l.do(t.Context(), errand{before: time.Second}) }()
		}
		synctest.Wait()
		begin := time.Now()
		if _, err := l.do(t.Context(), errand{}); !errors.Is(err, errCrowded) || !judge(err).refused || time.Since(begin) > 0 {
			t.Errorf("one more: %v after %v", err, time.Since(begin))
		}
		time.Sleep(time.Hour)
		if _, err := l.do(t.Context(), errand{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// counted counts what is sent to the server.
type counted struct{ n atomic.Int64 }

func (c *counted) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (*counted) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A lock held across round trips would be held for as long as the client is
// frozen.
func testALoginIsOneRoundTrip(t *testing.T, db database) {
	cfg, err := pgxpool.ParseConfig(db.url)
	must(t, err)
	sent := new(counted)
	cfg.ConnConfig.Tracer = sent
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	must(t, err)
	t.Cleanup(pool.Close)
	s, err := New(t.Context(), pool, Options{})
	must(t, err)
	limit := store.UserLimit{Max: 2, Until: time.Now().Add(time.Hour)}
	for i := range 5 {
		rec := session()
		rec.User = store.UserHash{1}
		before := sent.n.Load()
		ended, err := s.SaveLimited(t.Context(), rec, limit)
		if err != nil || len(ended) != min(1, max(0, i-1)) {
			t.Errorf("login %d ended %d sessions, %v", i, len(ended), err)
		}
		if n := sent.n.Load() - before; n != 1 {
			t.Errorf("login %d took %d statements", i, n)
		}
	}
}

// They come from a function, from the file that the URL points to, or from a file
// or command of package open.
func TestCredentialsMayChangeWhileTheStoreIsUsed(t *testing.T) {
	server := servers.Postgres(t)
	server.SQL("CREATE ROLE app LOGIN PASSWORD 'one'", "GRANT ALL ON SCHEMA public TO app")
	server.AskPasswords()
	url := strings.Replace(server.PostgresURL(), "postgres@", "app@", 1)

	var password atomic.Value
	password.Store("one")
	passfile := filepath.Join(t.TempDir(), "pgpass")
	wordfile := filepath.Join(t.TempDir(), "password")
	write := func() {
		word := password.Load().(string)
		must(t, os.WriteFile(passfile, []byte("*:*:*:app:"+word+"\n"), 0o600))
		must(t, os.WriteFile(wordfile, []byte(word+"\n"), 0o600))
	}
	write()
	cfg, err := pgxpool.ParseConfig(url)
	must(t, err)
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.Password = password.Load().(string)
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	must(t, err)
	t.Cleanup(pool.Close)
	own, err := New(t.Context(), pool, Options{})
	must(t, err)
	byURL := func(option, value string) *Store {
		s, closer, err := open.Store(t.Context(), url+"&"+option+"="+neturl.QueryEscape(value))
		must(t, err)
		t.Cleanup(func() { _ = closer.Close() })
		return s.(*Store)
	}
	stores := map[string]*Store{
		"password-file":             byURL("password-file", wordfile),
		"password-command":          byURL("password-command", "cat "+wordfile),
		"a pool with BeforeConnect": own,
		"a password file":           opened(t, url+"&passfile="+passfile, Options{}),
		"Options.Credentials": opened(t, url, Options{Credentials: func(context.Context) (string, string, error) {
			return "", password.Load().(string), nil
		}}),
	}
	rec := session()
	must(t, own.Save(t.Context(), rec, store.Base{}))
	server.SQL("ALTER ROLE app PASSWORD 'two'",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	var wg sync.WaitGroup
	for name, s := range stores {
		wg.Go(func() { // before the new password is available here
			if err := settles(func(ctx context.Context) error { return s.Save(ctx, session(), store.Base{}) }); err != nil {
				t.Errorf("%s: save: %v", name, err)
			}
			if _, err := s.Load(t.Context(), rec.ID); err != nil {
				t.Errorf("%s: load: %v", name, err)
			}
		})
	}
	<-time.After(50 * time.Millisecond)
	password.Store("two")
	write()
	wg.Wait()
}

// A standby's data is outdated. Requests wait until it is promoted, even if a
// pooler has routed an existing connection to it.
func TestAStandbyIsNotReadFrom(t *testing.T) {
	server := servers.Postgres(t)
	bouncer := servers.PgBouncer(t, server, 4)
	stores := map[string]*Store{
		"directly":         opened(t, server.PostgresURL(), Options{}),
		"through a pooler": opened(t, bouncer.PostgresURL(), Options{}),
	}
	rec := session()
	rec.User = store.UserHash{5}
	reads := map[string]func(context.Context, *Store) error{
		"load": func(ctx context.Context, s *Store) error { _, err := s.Load(ctx, rec.ID); return err },
		"load of nothing": func(ctx context.Context, s *Store) error {
			if _, err := s.Load(ctx, store.ID{9}); !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return nil
		},
		"loads together": func(ctx context.Context, s *Store) error {
			a := &loadCall{ctx: ctx, q: loading{rec.ID}, flight: new(flight[loading, store.Record])}
			b := &loadCall{ctx: ctx, q: loading{store.ID{9}}, flight: new(flight[loading, store.Record])}
			_, away := s.carryLoads(ctx, []*loadCall{a, b})
			if away == nil && a.err == nil && !errors.Is(b.err, store.ErrNotFound) {
				away = b.err
			}
			return cmp.Or(away, a.err)
		},
		"list":              func(ctx context.Context, s *Store) error { _, err := s.ByUser(ctx, rec.User); return err },
		"list of nobody":    func(ctx context.Context, s *Store) error { _, err := s.ByUser(ctx, store.UserHash{6}); return err },
		"scan":              func(ctx context.Context, s *Store) error { _, _, err := s.Scan(ctx, "", 5); return err },
		"count":             func(ctx context.Context, s *Store) error { _, err := s.Count(ctx); return err },
		"feed from now":     func(ctx context.Context, s *Store) error { _, err := s.Ends(ctx, store.FeedFromNow, 5); return err },
		"feed of all":       func(ctx context.Context, s *Store) error { _, err := s.Ends(ctx, store.FeedFromStart, 5); return err },
		"feed since before": func(ctx context.Context, s *Store) error { _, err := s.Ends(ctx, "1:1:", 5); return err },
	}
	must(t, stores["directly"].Save(t.Context(), rec, store.Base{}))
	for _, s := range stores {
		for range 3 {
			must(t, reads["load"](t.Context(), s))
		}
	}
	server.Stop()
	server.StartAsStandby()
	for where, s := range stores {
		for what, read := range reads {
			// Until the server is reached: the earlier connections are broken.
			eventually(t, "the standby is met: "+what, func() bool {
				err := read(within(t, 300*time.Millisecond), s)
				if err == nil {
					t.Fatalf("%s, %s: the standby was read from", what, where)
				}
				return errors.Is(err, errStandby)
			})
		}
	}
	server.SQL("SELECT pg_promote()")
	for where, s := range stores {
		for what, read := range reads {
			if err := read(within(t, time.Minute), s); err != nil {
				t.Errorf("%s, %s, after the promotion: %v", what, where, err)
			}
		}
	}
}
