package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// settled saves a record as the manager does: until the outcome is known.
func settled(t testing.TB, s *Store, rec store.Record, base store.Base) error {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := s.Save(ctx, rec, base)
		cancel()
		if err == nil || errors.Is(err, store.ErrConflict) || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestARestartInTheMiddleOfTheLoadLosesAndDoublesNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart func(t *testing.T, server *servers.Server)
	}{
		{"restart", func(_ *testing.T, server *servers.Server) { server.Stop(); server.Start() }},
		{"crash", crash},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := servers.Postgres(t)
			bouncer := servers.PgBouncer(t, server, 4)
			stores := []*Store{
				opened(t, server.PostgresURL(), Options{}),
				opened(t, server.PostgresURL(), Options{}),
				opened(t, bouncer.PostgresURL(), Options{}),
			}
			recs := make([]store.Record, 24)
			saved := make([]atomic.Int64, len(recs))
			for i := range recs {
				recs[i] = session()
				must(t, stores[0].Save(t.Context(), recs[i], store.Base{}))
			}
			stop := make(chan struct{})
			var total atomic.Int64
			var wg sync.WaitGroup
			for n := range len(recs) * 2 { // two writers for each session
				wg.Go(func() {
					i, s := n%len(recs), stores[n%len(stores)]
					for {
						select {
						case <-stop:
							return
						default:
						}
						rec, err := s.Load(within(t, 10*time.Second), recs[i].ID)
						if err != nil {
							<-time.After(5 * time.Millisecond)
							continue
						}
						switch err := settled(t, s, following(rec), rec.Base()); {
						case err == nil:
							saved[i].Add(1)
							total.Add(1)
						case !errors.Is(err, store.ErrConflict):
							t.Errorf("a save did not recover: %v", err)
							return
						}
					}
				})
			}
			more := func() {
				before := total.Load()
				eventually(t, "saves go on", func() bool { return t.Failed() || total.Load() > before+100 })
			}
			for range 2 {
				more()
				c.restart(t, server)
			}
			more()
			close(stop)
			wg.Wait()
			for i := range recs {
				got, err := stores[1].Load(t.Context(), recs[i].ID)
				if want := uint64(1 + saved[i].Load()); err != nil || got.Version != want {
					t.Errorf("version %d, %v; want %d: one more with each save that was acknowledged", got.Version, err, want)
				}
			}
		})
	}
}

// crash kills one of the server's processes, upon which it drops all of them,
// forgets what it had in memory and recovers from its log.
func crash(t *testing.T, server *servers.Server) {
	c, err := pgx.Connect(t.Context(), server.PostgresURL())
	must(t, err)
	defer func() { _ = c.Close(context.Background()) }()
	var pid int
	must(t, c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	p, err := os.FindProcess(pid)
	must(t, err)
	must(t, p.Signal(syscall.SIGKILL))
}

func TestConnectionsThatDiedTogetherCostOneCall(t *testing.T) {
	server, s := single(t)
	recs := make([]store.Record, 6)
	for i := range recs {
		recs[i] = session()
		must(t, s.Save(t.Context(), recs[i], store.Base{}))
	}
	// Four connections that were just used.
	var conns []interface{ Release() }
	for range 4 {
		c, err := s.pool.Acquire(t.Context())
		must(t, err)
		conns = append(conns, c)
	}
	server.Stop()
	server.Start()
	for _, c := range conns {
		c.Release()
	}
	failures := 0
	for _, rec := range recs {
		next := following(rec)
		err := s.Save(t.Context(), next, rec.Base())
		if err != nil {
			failures++
			must(t, s.Save(t.Context(), next, rec.Base()))
		}
	}
	if failures > 1 {
		t.Errorf("%d saves failed after the restart, want at most the first one", failures)
	}
	if _, err := s.Load(t.Context(), recs[0].ID); err != nil {
		t.Errorf("load: %v", err)
	}
}

func testALoadOverABrokenConnectionIsRepeated(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	for range 5 {
		victim, err := s.pool.Acquire(t.Context())
		must(t, err)
		killer, err := s.pool.Acquire(t.Context())
		must(t, err)
		pid := victim.Conn().PgConn().PID()
		_, err = killer.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid)
		must(t, err)
		eventually(t, "the connection is gone", func() bool {
			var n int
			must(t, killer.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n))
			return n == 0
		})
		victim.Release() // the pool does not know it yet
		if _, err := s.Load(t.Context(), rec.ID); err != nil {
			t.Errorf("load: %v", err)
		}
		killer.Release()
	}
}

func TestAFrozenServerHoldsUpNobodyForLong(t *testing.T) {
	server := servers.Postgres(t)
	s := opened(t, server.PostgresURL(), Options{Timeout: 100 * time.Millisecond})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	next := following(rec)
	server.Pause()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, err := s.Load(context.Background(), rec.ID); err == nil {
					t.Error("a frozen server answered a load")
				}
			} else if err := s.Save(context.Background(), next, rec.Base()); err == nil || errors.Is(err, store.ErrConflict) {
				t.Errorf("a frozen server answered a save: %v", err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	go cancel()
	if _, err := s.Load(ctx, rec.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v, want context.Canceled", err)
	}
	server.Resume()
	must(t, settled(t, s, next, rec.Base()))
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 2 {
		t.Errorf("version %d, %v; want 2", got.Version, err)
	}
}

// The caller of a request with its own statement waits for it, but can still
// leave: after the statement was canceled at the server, on a connection that
// stays; and when the server is frozen.
func testACallerLeavesAnswersThatDoNotCome(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	release := lock(t, s, rec.ID)
	var made int64 // once all the connections that this takes are there
	for i := range 4 {
		if i == 1 {
			made = s.pool.Stat().NewConnsCount()
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- s.Save(ctx, following(rec), rec.Base()) }()
		waitsForLock(t, s)
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	}
	if n := s.pool.Stat().NewConnsCount() - made; n > 0 {
		t.Errorf("%d connections were replaced", n)
	}
	release()
	must(t, s.Save(t.Context(), following(rec), rec.Base()))
}

func testAPoolThatIsUsedUpIsWaitedFor(t *testing.T, db database) {
	s := opened(t, db.url+"&pool_max_conns=2", Options{})
	recs := make([]store.Record, 300)
	var wg sync.WaitGroup
	for i := range recs {
		recs[i] = session()
		wg.Go(func() {
			if err := errors.Join(
				s.Save(t.Context(), recs[i], store.Base{}),
				s.Touch(t.Context(), recs[i].ID, recs[i].Seen, recs[i].Deadline),
				s.Save(t.Context(), following(recs[i]), recs[i].Base()),
				s.Delete(t.Context(), recs[i].ID, recs[i].Deadline),
			); err != nil {
				t.Error(err)
			}
			if got, err := s.Load(t.Context(), recs[i].ID); err != nil || !got.IsEnd() || got.Version != 2 {
				t.Errorf("version %d, %v; want the second one's end", got.Version, err)
			}
		})
	}
	wg.Wait()

	var held []interface{ Release() }
	for range 2 {
		c, err := s.pool.Acquire(t.Context())
		must(t, err)
		held = append(held, c)
	}
	for range 10 {
		if _, err := s.Load(within(t, 10*time.Millisecond), recs[0].ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("load: %v, want context.DeadlineExceeded", err)
		}
		if err := s.Touch(within(t, 10*time.Millisecond), recs[0].ID, time.Now(), time.Now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("touch: %v, want context.DeadlineExceeded", err)
		}
	}
	for _, c := range held {
		c.Release()
	}
	if _, err := s.Load(t.Context(), recs[0].ID); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAThousandFailuresLeaveNothingBehind(t *testing.T) {
	server := servers.Postgres(t)
	before := goleak.IgnoreCurrent()
	s := opened(t, server.PostgresURL(), Options{Timeout: time.Second})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	fail := func(n int, d time.Duration) {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), d)
				defer cancel()
				mine := following(rec)
				mine.ID = store.ID{byte(i), byte(i >> 8)}
				if s.Save(ctx, mine, rec.Base()) == nil {
					t.Error("a save succeeded")
				}
				if _, err := s.Load(ctx, mine.ID); err == nil {
					t.Error("a load succeeded")
				}
				if s.Touch(ctx, rec.ID, rec.Seen, rec.Deadline) == nil {
					t.Error("a touch succeeded")
				}
			})
		}
		wg.Wait()
	}
	server.Pause()
	fail(200, 50*time.Millisecond)
	server.Resume()
	server.Stop()
	fail(200, time.Minute)
	server.Start()
	must(t, settled(t, s, following(rec), rec.Base()))
	var clients int
	must(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").Scan(&clients))
	if most := int(s.pool.Config().MaxConns); clients > most {
		t.Errorf("%d connections, want at most the pool's %d", clients, most)
	}
	eventually(t, "nothing is under way", func() bool {
		s.writes.mu.Lock()
		defer s.writes.mu.Unlock()
		return s.writes.flying == 0 && len(s.writes.busy) == 0
	})
	must(t, s.Close())
	server.Kill() // which the test has goroutines for
	goleak.VerifyNone(t, before)
}

func testClosedIsAnError(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	must(t, s.Close())
	must(t, s.Close())
	if _, err := s.Load(t.Context(), session().ID); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	if err := s.Save(t.Context(), session(), store.Base{}); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("save: %v", err)
	}
}

func testAnApplicationsPoolStaysItsOwn(t *testing.T, db database) {
	first := opened(t, db.url, Options{})
	s, err := New(t.Context(), first.pool, Options{Table: "other"})
	must(t, err)
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	must(t, s.Close())
	if err := first.pool.Ping(t.Context()); err != nil {
		t.Errorf("after Close: %v, want the pool open", err)
	}
	if _, err := New(t.Context(), first.pool, Options{Timeout: -time.Second}); err == nil {
		t.Error("a negative Timeout was accepted")
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	const secret = "hunter2"
	for _, url := range []string{"postgres://me:" + secret + "@127.0.0.1:x/db", "postgres://me:" + secret + "@127.0.0.1:1/db", "password=" + secret + " port=x"} {
		_, err := Open(within(t, time.Minute), url, Options{})
		if err == nil {
			t.Fatal("it was opened")
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, secret) {
			t.Errorf("the error has the password in it")
		}
	}
}
