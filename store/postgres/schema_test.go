package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// openVariable tells a copy of this test program which database to open.
const openVariable = "POSTGRES_TEST_OPEN"

// parallelOpens is how many stores each process opens at once.
const parallelOpens = 4

func TestManyReplicasMayStartOnAnEmptyDatabaseAtOnce(t *testing.T) {
	if url := os.Getenv(openVariable); url != "" {
		openAtOnce(t, url)
		return
	}
	server := servers.Postgres(t)
	bouncer := servers.PgBouncer(t, server, 3)
	program, err := os.Executable()
	must(t, err)
	for what, url := range map[string]string{"directly": server.PostgresURL(), "through pgbouncer": bouncer.PostgresURL()} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				child := exec.Command(program, "-test.run", "^"+t.Name()+"$")
				child.Env = append(os.Environ(), openVariable+"="+url)
				if out, err := child.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", what, err, out)
				}
			})
		}
		wg.Wait()
		s := opened(t, url, Options{})
		var versions []int32
		rows, err := s.pool.Query(t.Context(), "SELECT version FROM sojourn_sessions_schema ORDER BY version")
		must(t, err)
		versions, err = pgx.CollectRows(rows, pgx.RowTo[int32])
		must(t, err)
		if !slices.Equal(versions, []int32{1, 2, 3}) {
			t.Errorf("%s: the migrations ran to %v, want each of them once", what, versions)
		}
		sql(t, s, "DROP TABLE sojourn_sessions, sojourn_sessions_ends, sojourn_sessions_schema")
		sql(t, s, "DROP FUNCTION sojourn_sessions_note_end, sojourn_sessions_save_limited")
	}
}

func openAtOnce(t *testing.T, url string) {
	var wg sync.WaitGroup
	for range parallelOpens {
		wg.Go(func() {
			s, err := Open(t.Context(), url, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			rec := session()
			if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
				t.Error(err)
			}
			if err := bump(t.Context(), s, rec.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// atVersion makes a table with an earlier version's schema.
func atVersion(t testing.TB, url string, version int) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	script := "CREATE TABLE sojourn_sessions_schema (version integer NOT NULL);"
	for v := range version {
		script += fmt.Sprintf(migrations[v], "sojourn_sessions", "sojourn_sessions") +
			fmt.Sprintf("INSERT INTO sojourn_sessions_schema VALUES (%d);", v+1)
	}
	_, err = c.PgConn().Exec(t.Context(), script).ReadAll()
	must(t, err)
	return c
}

func testUpgradeFromVersion1KeepsEverything(t *testing.T, db database) {
	earlier := atVersion(t, db.url, 1)
	statements := statementsFor("sojourn_sessions")
	insert := func(rec store.Record) {
		t.Helper()
		_, err := earlier.Exec(t.Context(), statements.insert, row(rec)...)
		must(t, err)
	}
	live, over, later := session(), session(), session()
	insert(live)
	insert(later)
	over.Ended, over.Data = over.Seen, nil
	insert(over)

	s := opened(t, db.url, Options{})
	if got, err := s.Load(t.Context(), live.ID); err != nil || len(got.Data) != len(live.Data) || !slices.Equal(got.SaveIDs, live.SaveIDs) {
		t.Errorf("a session from before: %v", err)
	}
	page, err := s.Ends(t.Context(), store.FeedFromStart, 10)
	if err != nil || len(page.Ends) != 1 || page.Ends[0].ID != over.ID {
		t.Errorf("the feed from the start tells of %d ends, %v; want the one from before", len(page.Ends), err)
	}
	// The replicas of the version before still run.
	_, err = earlier.Exec(t.Context(), statements.end, later.ID[:], time.Now().UnixMilli(), time.Now().Add(time.Hour).UnixMilli())
	must(t, err)
	page, err = s.Ends(t.Context(), page.Cursor, 10)
	if err != nil || len(page.Ends) != 1 || page.Ends[0].ID != later.ID {
		t.Errorf("the feed tells of %d ends, %v; want the one by a program of version 1", len(page.Ends), err)
	}
}

func testAnAccountThatMayNotMakeTablesCanUseThem(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	sql(t, s, "CREATE ROLE app LOGIN")
	sql(t, s, "REVOKE CREATE ON SCHEMA public FROM public")
	sql(t, s, "GRANT SELECT, INSERT, UPDATE, DELETE ON sojourn_sessions, sojourn_sessions_ends, sojourn_sessions_schema TO app")
	url := strings.Replace(db.url, "postgres@", "app@", 1)
	app := opened(t, url, Options{})
	recs := []store.Record{session(), session(), session()}
	var calls []func()
	for _, rec := range recs {
		must(t, app.Save(t.Context(), rec, store.Base{}))
		calls = append(calls, func() {
			if err := app.Save(t.Context(), following(rec), rec.Base()); err != nil {
				t.Error(err)
			}
		})
	}
	together(t, &app.writes, calls...)
	must(t, app.Delete(t.Context(), recs[0].ID, time.Now().Add(-2*time.Hour)))
	if n, err := app.Sweep(t.Context(), time.Hour, 10); err != nil || n != 1 {
		t.Errorf("sweep: %d, %v", n, err)
	}
	if _, err := Open(t.Context(), url, Options{Table: "new"}); err == nil {
		t.Error("it made a table all the same")
	}
}

func testATableOfANewerVersionIsRefused(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	sql(t, s, "INSERT INTO sojourn_sessions_schema VALUES (99)")
	if _, err := Open(t.Context(), db.url, Options{}); err == nil || !strings.Contains(err.Error(), "99") {
		t.Errorf("%v, want a refusal that names the version", err)
	}
}

func testTablesInSchemasAndWithLongNamesWork(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	sql(t, s, "CREATE SCHEMA app")
	for _, table := range []string{"app.sessions", "app." + strings.Repeat("x", 51), "sessions"} {
		other := opened(t, db.url, Options{Table: table})
		rec := session()
		must(t, other.Save(t.Context(), rec, store.Base{}))
		must(t, other.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)))
		page, err := other.Ends(t.Context(), store.FeedFromStart, 10)
		if err != nil || len(page.Ends) != 1 {
			t.Errorf("%s: %d ends, %v; want its own one", table, len(page.Ends), err)
		}
	}
	for _, table := range []string{"a.b.c", "Sessions", "x; DROP TABLE x", "1x", strings.Repeat("x", 52)} {
		if _, err := Open(t.Context(), db.url, Options{Table: table}); err == nil {
			t.Errorf("the table name %q was accepted", table)
		}
	}
}

func testSweepLeavesWhatOthersHaveLockedToThem(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	recs := make([]store.Record, 5)
	for i := range recs {
		recs[i] = old(2 * time.Hour)
		must(t, s.Save(t.Context(), recs[i], store.Base{}))
	}
	must(t, s.Delete(t.Context(), session().ID, time.Now().Add(-2*time.Hour)))
	release := lock(t, s, recs[2].ID)
	if n, err := s.Sweep(within(t, time.Minute), time.Hour, 10); err != nil || n != 5 {
		t.Errorf("beside a locked row: %d, %v; want the 5 others, and no waiting", n, err)
	}
	release()
	if n, err := s.Sweep(t.Context(), time.Hour, 10); err != nil || n != 1 {
		t.Errorf("afterwards: %d, %v; want the one that was locked", n, err)
	}
	var ends int
	must(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM sojourn_sessions_ends").Scan(&ends))
	if ends != 0 {
		t.Errorf("%d ends are left in the feed, want none: they are as old", ends)
	}
}

func testAFeedMissesNoEndThatCommitsLate(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	late, prompt := session(), session()
	must(t, s.Save(t.Context(), late, store.Base{}))
	must(t, s.Save(t.Context(), prompt, store.Base{}))
	first, err := s.Ends(t.Context(), store.FeedFromNow, 10)
	must(t, err)

	tx, err := s.pool.Begin(t.Context())
	must(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	until := time.Now().Add(time.Hour)
	_, err = tx.Exec(t.Context(), s.sql.end, late.ID[:], time.Now().UnixMilli(), until.UnixMilli())
	must(t, err)
	must(t, s.Delete(t.Context(), prompt.ID, until))
	second, err := s.Ends(t.Context(), first.Cursor, 10)
	if err != nil || len(second.Ends) != 1 || second.Ends[0].ID != prompt.ID {
		t.Fatalf("%d ends, %v; want the one that was committed", len(second.Ends), err)
	}
	must(t, tx.Commit(t.Context()))
	third, err := s.Ends(t.Context(), second.Cursor, 10)
	if err != nil || len(third.Ends) != 1 || third.Ends[0].ID != late.ID {
		t.Fatalf("%d ends, %v; want the one that began before the last and was committed after it", len(third.Ends), err)
	}
	if fourth, err := s.Ends(t.Context(), third.Cursor, 10); err != nil || len(fourth.Ends) != 0 || fourth.More {
		t.Errorf("%d ends, %v; want none twice", len(fourth.Ends), err)
	}
}

func testAFeedStartsAnewOnACopyOfTheDatabase(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)))
	page, err := s.Ends(t.Context(), "9000000000:9000000001:9000000000", 10)
	if err != nil || len(page.Ends) != 1 {
		t.Errorf("%d ends, %v; want all of them: the copy counts its transactions anew", len(page.Ends), err)
	}
}
