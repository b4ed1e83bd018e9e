package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/store"
)

// refusals counts the statements that the server refused because of their
// names.
type refusals struct{ n atomic.Int64 }

func (*refusals) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (r *refusals) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	var answer *pgconn.PgError
	if errors.As(data.Err, &answer) && (answer.Code == "26000" || answer.Code == "42P05") {
		r.n.Add(1)
	}
}

// traced returns an application's pool with pgx's defaults, and what was refused
// in it.
func traced(t *testing.T, url string, conns int32) (*pgxpool.Pool, *refusals) {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	must(t, err)
	seen := new(refusals)
	cfg.ConnConfig.Tracer, cfg.MaxConns = seen, conns
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool, seen
}

// busily makes many goroutines use all of a store's methods, and fails the test
// if a call fails or a change is lost.
func busily(t *testing.T, s *Store) {
	t.Helper()
	const visitors, each = 32, 10
	user := store.UserHash{1}
	var wg sync.WaitGroup
	for i := range visitors {
		wg.Go(func() {
			rec := session()
			rec.User = user
			ctx := t.Context()
			if i%4 == 0 {
				_, err := s.SaveLimited(ctx, rec, store.UserLimit{Max: visitors, Until: time.Now().Add(time.Hour)})
				if err != nil {
					t.Errorf("save within the limit: %v", err)
				}
			} else if err := s.Save(ctx, rec, store.Base{}); err != nil {
				t.Errorf("save: %v", err)
			}
			for range each {
				next := following(rec)
				if err := s.Save(ctx, next, rec.Base()); err != nil {
					t.Errorf("save: %v", err)
				}
				rec = next
				if err := s.Touch(ctx, rec.ID, time.Now(), rec.Deadline); err != nil {
					t.Errorf("touch: %v", err)
				}
				if got, err := s.Load(ctx, rec.ID); err != nil || got.Version != rec.Version {
					t.Errorf("version %d, %v; want %d", got.Version, err, rec.Version)
				}
			}
			if recs, err := s.ByUser(ctx, user); err != nil || len(recs) == 0 {
				t.Errorf("%d of the user's sessions, %v", len(recs), err)
			}
			if _, _, err := s.Scan(ctx, "", 3); err != nil {
				t.Errorf("scan: %v", err)
			}
			if _, err := s.Ends(ctx, store.FeedFromStart, 3); err != nil {
				t.Errorf("ends: %v", err)
			}
			if i%2 == 0 {
				if err := s.Delete(ctx, rec.ID, time.Now().Add(time.Hour)); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if c, err := s.Count(t.Context()); err != nil || c.Live != visitors/2 || c.Ended != visitors/2 {
		t.Errorf("%d live and %d ended, %v; want %d of each", c.Live, c.Ended, err, visitors/2)
	}
	if _, err := s.Sweep(t.Context(), time.Hour, 10); err != nil {
		t.Errorf("sweep: %v", err)
	}
}

func testBehindAPoolerTheStoreStopsNamingStatementsOnceAndLosesNothing(t *testing.T, db database) {
	const conns = 8
	bouncer := db.bouncer(t, 2)
	pool, seen := traced(t, bouncer, conns)
	s, err := New(t.Context(), pool, Options{})
	must(t, err)
	busily(t, s)
	if !s.unnamed.Load() {
		t.Fatal("statements still have names")
	}
	// Only statements under way at the first refusal can be refused: one batch
	// on each connection.
	const batch = 8
	if n := seen.n.Load(); n == 0 || n > conns*batch {
		t.Errorf("%d statements were refused, want 1 to %d", n, conns*batch)
	}
	before := seen.n.Load()
	sql(t, s, "TRUNCATE sojourn_sessions, sojourn_sessions_ends")
	busily(t, s)
	if n := seen.n.Load() - before; n > 0 {
		t.Errorf("%d statements were refused after that", n)
	}
}

func testWithoutAPoolerStatementsStayPrepared(t *testing.T, db database) {
	pool, seen := traced(t, db.url, 8)
	s, err := New(t.Context(), pool, Options{})
	must(t, err)
	busily(t, s)
	if n := seen.n.Load(); n > 0 || s.unnamed.Load() {
		t.Errorf("%d statements were refused, and the store has stopped naming them: %v", n, s.unnamed.Load())
	}
	if n := prepared(t, s); n == 0 {
		t.Error("no statement is prepared")
	}
	for name, o := range map[string]string{"Open": "", "a URL that says so": "&default_query_exec_mode=cache_describe"} {
		s := opened(t, db.url+o+"&pool_max_conns=1", Options{})
		must(t, s.Save(t.Context(), session(), store.Base{}))
		if n := prepared(t, s); (n > 0) != (o == "") {
			t.Errorf("%s: %d statements are prepared", name, n)
		}
	}
}

func testStatementsThatSomebodyDiscardsAreNamedNoMore(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	second := following(rec)
	must(t, s.Save(t.Context(), second, rec.Base()))
	everyConnection(t, s, "DISCARD ALL")
	must(t, s.Save(t.Context(), following(second), second.Base()))
	if !s.unnamed.Load() {
		t.Error("the store goes on naming statements")
	}
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 3 {
		t.Errorf("version %d, %v; want 3", got.Version, err)
	}
}

func testStatementsWhoseResultHasChangedArePreparedAnew(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	load := func() {
		t.Helper()
		if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 1 {
			t.Errorf("version %d, %v; want 1", got.Version, err)
		}
	}
	load()
	for _, kind := range []string{"numeric", "bigint"} {
		sql(t, s, "ALTER TABLE sojourn_sessions ALTER expires TYPE "+kind)
		for range 2 * defaultConns {
			load()
		}
	}
	if s.unnamed.Load() {
		t.Error("the store has stopped naming statements for good")
	}
}

// prepared is how many statements are prepared in one of the store's
// connections.
func prepared(t *testing.T, s *Store) (n int) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements", pgx.QueryExecModeExec).Scan(&n))
	return n
}

// everyConnection runs a statement in each of the pool's connections.
func everyConnection(t *testing.T, s *Store, statement string) {
	t.Helper()
	for _, c := range s.pool.AcquireAllIdle(t.Context()) {
		_, err := c.Exec(t.Context(), statement)
		c.Release()
		must(t, err)
	}
}
