package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sojourn-go/sojourn/store"
)

// testEveryAnswerOfTheServerIsToldForWhatItIs has a trigger raise each of these
// errors during a save. The server always rolls the save back. Only for codes
// that mean an unknown outcome, which a pooler may send, the error does not say
// so.
func testEveryAnswerOfTheServerIsToldForWhatItIs(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	sql(t, s, "CREATE TABLE raises (code text)")
	sql(t, s, "INSERT INTO raises VALUES ('')")
	sql(t, s, `CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c text; BEGIN
		SELECT code INTO c FROM raises;
		IF c <> '' THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = c; END IF;
		RETURN NEW;
	END $$`)
	sql(t, s, "CREATE TRIGGER raise BEFORE INSERT OR UPDATE ON sojourn_sessions FOR EACH ROW EXECUTE FUNCTION raise()")
	const refused, waits, open = "refused", "refused after waiting", "open"
	for code, want := range map[string]string{
		"08000": open, "08003": open, "08006": open, "08007": open, "08P01": open, "40003": open,
		"25006": waits, "25P02": waits, "55000": waits, "40001": waits, "40P01": waits, "40002": waits,
		"53000": refused, "53100": refused, "53200": refused, "53400": refused, "57014": refused, "55P03": refused,
		"55006": refused, "25001": refused, "28000": refused, "3D000": refused, "3F000": refused, "42501": refused,
		"42P01": refused, "42601": refused, "54000": refused, "58000": refused, "58030": refused, "58P01": refused,
		"F0000": refused, "XX000": refused, "XX001": refused, "XX002": refused, "22001": refused, "23505": refused,
		"23514": refused, "21000": refused, "2F003": refused, "P0001": refused, "72000": refused, "HV000": refused,
		"ZZ999": refused,
	} {
		sql(t, s, "UPDATE raises SET code = '"+code+"'")
		rec := session()
		ctx := within(t, time.Minute)
		if want == waits {
			ctx = within(t, 100*time.Millisecond)
		}
		err := s.Save(ctx, rec, store.Base{})
		var answer *pgconn.PgError
		for i := 0; i < 5 && want == waits && !errors.As(err, &answer); i++ { // too slow to have asked once
			ctx = within(t, time.Second)
			err = s.Save(ctx, rec, store.Base{})
		}
		if !errors.As(err, &answer) || answer.Code != code || errors.Is(err, store.ErrRefused) != (want != open) ||
			(ctx.Err() != nil) != (want == waits) {
			t.Errorf("%s: %v, want it %s", code, err, want)
		}
		sql(t, s, "UPDATE raises SET code = ''")
		if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: after it: %v", code, err)
		}
		if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
			t.Errorf("%s: sent again: %v", code, err)
		}
	}
}

// met is the error that a statement on one of the store's connections meets.
func met(t *testing.T, s *Store, statement string) error {
	t.Helper()
	return s.use(within(t, time.Minute), func(db querier) error {
		_, err := db.Exec(context.Background(), statement, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// testASessionThatTheServerEndsLeavesTheOutcomeOpen: a commit may have come before
// it.
func testASessionThatTheServerEndsLeavesTheOutcomeOpen(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	for code, statement := range map[string]string{
		"57P01": "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)",
		"25P03": "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 1",
	} {
		err := met(t, s, statement)
		if code == "25P03" { // which ends it afterwards
			conn, err2 := s.pool.Acquire(t.Context())
			must(t, err2)
			_, err = conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			eventually(t, "the session is over", func() bool {
				_, err = conn.Exec(t.Context(), "SELECT 1", pgx.QueryExecModeSimpleProtocol)
				return err != nil
			})
			conn.Release()
		}
		if v := judge(err); v.refused || !v.discard {
			t.Errorf("%s: %v is judged %+v, want the outcome open and the connection discarded", code, err, v)
		}
	}
}

// testSessionsThatTheServerRefusesWereRefused: nothing of them was carried out.
func testSessionsThatTheServerRefusesWereRefused(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	sql(t, s, "CREATE ROLE few LOGIN CONNECTION LIMIT 0")
	sql(t, s, "CREATE ROLE shut NOLOGIN")
	sql(t, s, "CREATE DATABASE closed ALLOW_CONNECTIONS false")
	as := func(user string) string { return strings.Replace(db.url, "postgres@", user+"@", 1) }
	for code, url := range map[string]string{
		"53300": as("few"),
		"28000": as("shut"),
		"3D000": onDatabase(db.server, "nowhere"),
		"55000": onDatabase(db.server, "closed"),
	} {
		_, err := pgx.Connect(t.Context(), url)
		var answer *pgconn.PgError
		if !errors.As(err, &answer) || answer.Code != code {
			t.Errorf("%s: %v", code, err)
			continue
		}
		if code == "55000" { // FATAL there, as well as ERROR while recovery is in progress
			continue
		}
		if v := judge(answer); !v.refused || !v.again {
			t.Errorf("%s: %v is judged %+v", code, err, v)
		}
	}
	// The server ends idle sessions, and reports that on their next use.
	conn, err := pgx.Connect(t.Context(), db.url)
	must(t, err)
	_, err = conn.Exec(t.Context(), "SET idle_session_timeout = 1")
	must(t, err)
	eventually(t, "the session is over", func() bool {
		var n int
		must(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", conn.PgConn().PID()).Scan(&n))
		return n == 0
	})
	_, err = conn.Exec(t.Context(), "SELECT 1")
	if v := judge(err); err == nil || v.refused && !v.again {
		t.Errorf("an idle session that was ended: %v is judged %+v", err, v)
	}
}

// PgBouncer has one code for all of its own errors.
func TestWhatAPoolerSaysIsToldApartByItsWords(t *testing.T) {
	for message, refused := range map[string]bool{
		"query_wait_timeout": true,
		"server login has been failing, try again later (server_login_retry)":              true,
		"server login has been failing, cached error: connect failed (server_login_retry)": true,
		"no more connections allowed (max_client_conn)":                                    true,
		"client_login_timeout (server down)":                                               true,
		"server login failed: FATAL the database system is starting up":                    true,
		"pgbouncer cannot connect to server":                                               true,
		"server conn crashed?":                                                             false,
		"server closed the connection unexpectedly":                                        false,
		"query timeout":            false,
		"idle transaction timeout": false,
		"server_idle_timeout":      false,
		"a query_wait_timeout that somebody else speaks of": false,
		"": false,
	} {
		err := &pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: message}
		if v := judge(err); v.refused != refused || v.again != refused {
			t.Errorf("%q is judged %+v", message, v)
		}
		err.Code = "XX000"
		if judge(err).refused {
			t.Errorf("%q with another code is told as a refusal", message)
		}
	}
}
