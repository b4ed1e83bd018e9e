package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// TestStore has the tests that share a server: each test has its own database.
func TestStore(t *testing.T) {
	// The fault tests check durability; here it would only cost time.
	server := servers.Postgres(t, "synchronous_commit=off")
	for i, one := range []struct {
		name string
		test func(*testing.T, database)
	}{
		{"EachSaveOfABatchHasItsOwnOutcome", testEachSaveOfABatchHasItsOwnOutcome},
		{"ARowThatMakesTheStatementFailFailsAlone", testARowThatMakesTheStatementFailFailsAlone},
		{"DamagedRowsEndNoScan", testDamagedRowsEndNoScan},
		{"SavesOfOneSessionOnOneBaseHaveOneWinner", testSavesOfOneSessionOnOneBaseHaveOneWinner},
		{"TooMuchDataIsRefusedBeforeItIsSent", testTooMuchDataIsRefusedBeforeItIsSent},
		{"ALockedRowHoldsUpNobodyElse", testALockedRowHoldsUpNobodyElse},
		{"TwoProcessesThatWriteTheSameSessionsDoNotDeadlock", testTwoProcessesThatWriteTheSameSessionsDoNotDeadlock},
		{"TouchesOfOneSessionMeet", testTouchesOfOneSessionMeet},
		{"LoadsOfOneSessionMeet", testLoadsOfOneSessionMeet},
		{"ASaveWhoseCallerLeftIsSettledByTheSameSave", testASaveWhoseCallerLeftIsSettledByTheSameSave},
		{"BehindAPoolerTheStoreStopsNamingStatementsOnceAndLosesNothing", testBehindAPoolerTheStoreStopsNamingStatementsOnceAndLosesNothing},
		{"WithoutAPoolerStatementsStayPrepared", testWithoutAPoolerStatementsStayPrepared},
		{"StatementsThatSomebodyDiscardsAreNamedNoMore", testStatementsThatSomebodyDiscardsAreNamedNoMore},
		{"StatementsWhoseResultHasChangedArePreparedAnew", testStatementsWhoseResultHasChangedArePreparedAnew},
		{"UpgradeFromVersion1KeepsEverything", testUpgradeFromVersion1KeepsEverything},
		{"AnAccountThatMayNotMakeTablesCanUseThem", testAnAccountThatMayNotMakeTablesCanUseThem},
		{"ATableOfANewerVersionIsRefused", testATableOfANewerVersionIsRefused},
		{"TablesInSchemasAndWithLongNamesWork", testTablesInSchemasAndWithLongNamesWork},
		{"SweepLeavesWhatOthersHaveLockedToThem", testSweepLeavesWhatOthersHaveLockedToThem},
		{"AFeedMissesNoEndThatCommitsLate", testAFeedMissesNoEndThatCommitsLate},
		{"AFeedStartsAnewOnACopyOfTheDatabase", testAFeedStartsAnewOnACopyOfTheDatabase},
		{"ALoadOverABrokenConnectionIsRepeated", testALoadOverABrokenConnectionIsRepeated},
		{"ACallerLeavesAnswersThatDoNotCome", testACallerLeavesAnswersThatDoNotCome},
		{"APoolThatIsUsedUpIsWaitedFor", testAPoolThatIsUsedUpIsWaitedFor},
		{"EveryAnswerOfTheServerIsToldForWhatItIs", testEveryAnswerOfTheServerIsToldForWhatItIs},
		{"ASessionThatTheServerEndsLeavesTheOutcomeOpen", testASessionThatTheServerEndsLeavesTheOutcomeOpen},
		{"SessionsThatTheServerRefusesWereRefused", testSessionsThatTheServerRefusesWereRefused},
		{"AReadOnlyDatabaseIsWaitedForOnOtherConnections", testAReadOnlyDatabaseIsWaitedForOnOtherConnections},
		{"AReadOnlyDatabaseIsStillReadFrom", testAReadOnlyDatabaseIsStillReadFrom},
		{"ALoginIsOneRoundTrip", testALoginIsOneRoundTrip},
		{"ClosedIsAnError", testClosedIsAnError},
		{"AnApplicationsPoolStaysItsOwn", testAnApplicationsPoolStaysItsOwn},
		{"Conformance", testConformance},
		{"ConformanceThroughPgbouncerInTransactionMode", testConformanceThroughPgbouncerInTransactionMode},
		{"Promises", testPromises},
	} {
		t.Run(one.name, func(t *testing.T) { one.test(t, newDatabase(t, server, fmt.Sprintf("test_%d", i))) })
	}
}

// A database is an empty one on a server that others use.
type database struct {
	server *servers.Server
	name   string
	url    string
}

func newDatabase(t *testing.T, server *servers.Server, name string) database {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server.PostgresURL())
	must(t, err)
	defer func() { _ = c.Close(context.Background()) }()
	_, err = c.Exec(t.Context(), "CREATE DATABASE "+name)
	must(t, err)
	return database{server, name, onDatabase(server, name)}
}

// bouncer returns a URL that leads to the database through a pooler in
// transaction mode with that many connections.
func (d database) bouncer(t *testing.T, connections int) (url string) {
	t.Helper()
	return onDatabase(servers.PgBouncer(t, d.server, connections), d.name)
}

func onDatabase(server *servers.Server, name string) (url string) {
	return strings.Replace(server.PostgresURL(), "/postgres?", "/"+name+"?", 1)
}

// tables returns a function that opens an empty store, with a table of its own.
func tables(url string) func(t *testing.T) store.Store {
	n := 0
	return func(t *testing.T) store.Store {
		n++
		s, err := Open(t.Context(), url, Options{Table: fmt.Sprintf("sessions_%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func testConformance(t *testing.T, db database) {
	storetest.Run(t, tables(db.url), storetest.Records(1_000), storetest.Copies(copyRow))
}

// copyRow puts a row in the place of another one.
func copyRow(t *testing.T, st store.Store, from, to store.ID) {
	t.Helper()
	s := st.(*Store)
	_, err := s.pool.Exec(t.Context(), "DELETE FROM "+s.table+" WHERE id = $1", to[:])
	must(t, err)
	_, err = s.pool.Exec(t.Context(), "INSERT INTO "+s.table+" ("+columns+", due) SELECT $2, "+strings.TrimPrefix(columns, "id, ")+
		", due FROM "+s.table+" WHERE id = $1", from[:], to[:])
	must(t, err)
}

func testConformanceThroughPgbouncerInTransactionMode(t *testing.T, db database) {
	bouncer := db.bouncer(t, 2)
	storetest.Run(t, tables(bouncer+"&pool_max_conns=16"), storetest.Records(500))
}

func testPromises(t *testing.T, db database) {
	promises.Run(t, tables(db.url))
}

// open returns a store on a server of its own.
func single(t testing.TB, settings ...string) (*servers.Server, *Store) {
	t.Helper()
	server := servers.Postgres(t, settings...)
	return server, opened(t, server.PostgresURL(), Options{})
}

func opened(t testing.TB, url string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), url, o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within is a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute, not yet: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
