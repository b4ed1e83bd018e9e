// Package postgres keeps session records in PostgreSQL, for services that run
// on more than one machine.
//
//	db, err := postgres.Open(ctx, "postgres://user@host/app", postgres.Options{})
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
//
// It needs PostgreSQL 12 or newer, and the right to create tables, indexes,
// functions and triggers in one schema. Open and New create or upgrade them;
// several replicas may do so at once. During a rolling update, replicas of the
// previous version keep working.
//
// # How requests travel
//
// A request that finds the database idle is sent at once, as a statement for
// one row. Requests that arrive meanwhile share the next statement: many loads
// share a query, and many saves or touches share an update and a disk sync.
// Each gets its own outcome. A conflict, a locked row, or data that the
// database refuses affects only its own request. At most three batches of loads
// and two of writes are under way at a time, so a store needs few connections.
// The default, 8 or the number of processors if that is higher, is enough for
// thousands of visitors; pool_max_conns in the URL changes it. A pool that is
// given to New should have 6 or more; pgx's default is 4 on a small machine. If
// all connections are in use, requests wait until their contexts end.
//
// # What is kept, and when
//
// A Save, SaveLimited, Delete or Touch that returned nil was committed. Its
// durability depends on the server's configuration. With fsync and
// synchronous_commit on, the defaults, it survives a crash of the server; with
// synchronous_standby_names, also the loss of the machine. With
// synchronous_commit off, a crash loses the last acknowledged changes.
//
// A request whose context ends stops waiting. Its outcome is then unknown, as
// after a lost connection; send the same Save again, and it is applied once. A
// request that shares a statement, or waits for one, stops at once. A request
// with its own statement cancels it first, which takes a third of a second on a
// frozen server; with a pool that is given to New, that pool's settings decide.
// The store itself repeats only requests that were certainly not carried out,
// and those that are safe to repeat: loads, touches and ends.
//
// # When the server is away
//
// While the server is unreachable, is starting, has too many clients, refuses
// the password, or is read-only or a standby, requests wait until their
// contexts end or Options.Timeout has passed, at most 10,000 of each kind in
// each process. One request at a time tests whether the server is back. The
// final error gives the reason. It wraps store.ErrRefused if the request was
// certainly not carried out: after an ERROR of the server, except for the codes
// that leave the outcome open (class 08, and 40003), and after a FATAL only if
// the session never began. A connection that turns out to be unusable is closed
// together with the idle ones, and new connections go to the server to which
// the URL then leads.
//
// No lock is held across round trips, so a frozen process does not block others.
//
// # Poolers, replicas, accounts
//
// Statements are prepared once in each connection. Behind a pooler in
// transaction mode, the server eventually refuses a prepared statement before
// carrying it out. The store then repeats it, and from then on sends unnamed
// statements, which are planned each time. That doubles the server's cost for a
// single row and adds almost nothing for a batch. pgbouncer 1.21 and newer
// supports prepared statements (max_prepared_statements), so this does not
// happen there. No setting is needed, but
// default_query_exec_mode=cache_describe in the URL, or
// QueryExecModeCacheDescribe in a pool that is given to New, avoids prepared
// statements from the start. The store uses no session settings and no LISTEN.
// It is tested with pgbouncer 1.18.
//
// The URL must name a server that accepts writes; with several hosts, add
// target_session_attrs=read-write. The store does not read from a standby: it
// lags behind, so an ended session could still be live there.
//
// The table holds no credential (see the package store). Once the tables exist,
// an account needs only SELECT, INSERT, UPDATE and DELETE on them.
//
// # Care
//
// Sessions are updated often. The table leaves free space in its pages, so that
// an update stays within its page, and has no indexes on frequently changing
// times. Autovacuum does the rest, unless long transactions prevent it, even
// those of other applications on the same server. Monitor n_dead_tup in
// pg_stat_user_tables.
package postgres

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/store"
)

// Options are a store's settings. The zero value is a sensible default. Other
// settings are part of the URL: pool_max_conns, connect_timeout in seconds, TLS
// (sslmode, sslrootcert).
type Options struct {
	// Table is the table's name, with or without a schema in front: lower-case
	// letters, digits and "_", at most 51 of them. Two more tables, two
	// functions and the indexes are named after it. "" = "sojourn_sessions".
	Table string

	// Timeout bounds each Load, Save, SaveLimited, Delete and Touch, including
	// the wait for a connection, if its context does not end sooner. 0 = 10
	// seconds; negative is an error.
	Timeout time.Duration

	// Credentials returns the user and the password. It is called for each new
	// connection, so they may change while the service runs; existing
	// connections stay. An empty user or password means that of the URL. An
	// error counts as an unreachable server; its text must not contain the
	// password. nil = those of the URL. New ignores it: its pool has a
	// BeforeConnect.
	Credentials func(ctx context.Context) (user, password string, err error)
}

const (
	defaultTable   = "sojourn_sessions"
	defaultTimeout = 10 * time.Second

	// defaultConns is enough for the flights of all lanes and a few separate
	// requests.
	defaultConns = 8
)

var tableName = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,50}$`)

// Store is a [store.Store] in one PostgreSQL table, and all of its optional
// interfaces but FloorLoader. It is safe for concurrent use. Make one with Open
// or New.
type Store struct {
	pool  *pgxpool.Pool
	own   bool // the pool is closed with the store
	table string
	sql   statements

	loads   lane[loading, store.Record]
	writes  lane[writing, []store.ID]
	timeout time.Duration

	fallsBack bool        // statements are prepared until that fails
	unnamed   atomic.Bool // that has failed
}

var (
	_ store.Store       = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.Sweeper     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
	_ store.Counter     = (*Store)(nil)
)

// Open connects to the database that url names (libpq's URL or key=value form,
// with pgxpool's pool_* settings) and brings the table up to date. ctx bounds
// only the opening. The caller closes the store.
//
// It fails if the URL or the Options are invalid, if the database is
// unreachable, if the account may not create what is missing, or if a newer
// version of this package has changed the table. No error contains a password.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errURL
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, defaultConns)
	}
	// Cancel a statement at the server and wait for its outcome, instead of
	// leaving it running and closing the connection.
	cfg.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &withdrawal{conn: conn}
	}
	cfg.PingTimeout = pingTime
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTime
	}
	cfg.BeforeConnect = reread(url, o.Credentials)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, failed("open", err)
	}
	s, err := New(ctx, pool, o)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.own = true
	return s, nil
}

// New returns a store that uses the application's pool, and brings the table up
// to date; see Open for its errors. The caller still closes and configures the
// pool. Use its BeforeConnect for credentials that change. Set its
// ConnectTimeout, 2 minutes by default, to a few seconds; otherwise attempts to
// connect to a frozen server use up the pool.
func New(ctx context.Context, pool *pgxpool.Pool, o Options) (*Store, error) {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("postgres: table %.60q: lower-case letters, digits and \"_\", with at most one schema in front", o.Table)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("postgres: Timeout %v is negative", o.Timeout)
	}
	s := &Store{pool: pool, table: o.Table, sql: statementsFor(o.Table), timeout: o.Timeout}
	conn := pool.Config().ConnConfig
	s.fallsBack = conn.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && conn.DescriptionCacheCapacity > 0
	s.loads = lane[loading, store.Record]{limit: loadFlights, crowd: loadCrowd, timeout: o.Timeout, carry: s.carryLoads}
	s.writes = lane[writing, []store.ID]{
		limit: writeFlights, crowd: writeCrowd, timeout: o.Timeout, carry: s.carryWrites,
		exclusive: true, busy: map[store.ID]*flight[writing, []store.ID]{},
	}
	if err := migrate(ctx, pool, o.Table); err != nil {
		return nil, err
	}
	return s, nil
}

const (
	// cancelTime is how long to wait for the outcome of a canceled statement,
	// and cancelDelay how long to wait before canceling it: most statements
	// finish by then.
	cancelTime  = time.Second
	cancelDelay = 100 * time.Millisecond

	// leaveTime and leaveDelay are the same while the caller is waiting.
	leaveTime  = 200 * time.Millisecond
	leaveDelay = 20 * time.Millisecond

	// requestTime is how long a cancel request may take, in the background.
	requestTime = 10 * time.Second

	// settleTime is how long a connection is unused after a statement on it was
	// canceled.
	settleTime = 100 * time.Millisecond

	// pingTime bounds the ping of a connection.
	pingTime = time.Second

	// connectTime bounds connecting, unless the URL sets a limit.
	connectTime = 3 * time.Second
)

// withdrawal cancels a statement whose context has ended. pgx's own handler
// aborts its cancel request when the statement ends first, which makes
// PgBouncer 1.18 exit ("bad client state"). This one completes a request that
// it has begun.
type withdrawal struct {
	conn     *pgconn.PgConn
	ended    chan struct{} // closed when the statement has ended
	finished chan struct{} // closed when nothing more is sent
	wait     time.Duration // the limit of the wait for finished
}

// HandleCancel is called when the statement's context has ended.
func (w *withdrawal) HandleCancel(ctx context.Context) {
	delay, wait := cancelDelay, cancelTime
	if ctx.Value(ownFlight{}) != nil {
		delay, wait = leaveDelay, leaveTime
	}
	ended, finished := make(chan struct{}), make(chan struct{})
	w.ended, w.finished, w.wait = ended, finished, wait
	_ = w.conn.Conn().SetDeadline(time.Now().Add(wait)) // a closed connection fails by itself
	go func() {
		defer close(finished)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-ended:
			return
		case <-timer.C:
		}
		request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		defer cancel()
		_ = w.conn.CancelRequest(request) // if it fails, the deadline ends the statement
		// The server acts on the request after it has accepted it, so wait
		// before the next statement.
		time.Sleep(settleTime)
	}()
}

// HandleUnwatchAfterCancel is called when the statement has ended.
func (w *withdrawal) HandleUnwatchAfterCancel() {
	close(w.ended)
	timer := time.NewTimer(w.wait + settleTime)
	defer timer.Stop()
	select {
	case <-w.finished:
		_ = w.conn.Conn().SetDeadline(time.Time{})
	case <-timer.C:
		// The request may still cancel the next statement on this connection.
		_ = w.conn.Conn().Close()
	}
}

// Close closes the connections that Open made.
func (s *Store) Close() error {
	if s.own {
		s.pool.Close()
	}
	return nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return failed("ping", err)
	}
	return nil
}

// failed wraps an error of the driver, whose texts never contain parameters.
func failed(doing string, err error) error { return fmt.Errorf("postgres: %s: %w", doing, err) }

// Sweep implements [store.Sweeper], by the database's clock. Concurrent sweeps
// take different rows, and skip locked rows. It also removes ends from the feed
// whose tombstones are as old.
func (s *Store) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	var n int64
	err := s.retry(ctx, once, func(db querier) (err error) {
		n, err = run(ctx, db, s.sql.sweep, age.Milliseconds(), limit)
		return err
	})
	if err == nil {
		err = s.retry(ctx, once, func(db querier) error {
			_, err := run(ctx, db, s.sql.sweepEnds, age.Milliseconds(), limit)
			return err
		})
	}
	if err != nil {
		return int(n), failed("sweep", err)
	}
	return int(n), nil
}

// ByUser implements [store.UserIndex].
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	recs, _, _, err := s.list(ctx, s.sql.byUser, user[:])
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	return recs, nil
}

// Scan implements [store.Scanner], in the order of the IDs.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return nil, "", failed("scan", errCursor)
	}
	recs, last, rows, err := s.list(ctx, s.sql.scan, after, limit)
	if err != nil {
		return nil, "", failed("scan", err)
	}
	if rows < limit {
		return recs, "", nil
	}
	return recs, hex.EncodeToString(last), nil
}

// list returns the records that a statement selects, without damaged ones. It
// also returns the ID of the last row and the number of rows, including damaged
// ones.
func (s *Store) list(ctx context.Context, sql string, args ...any) (recs []store.Record, last []byte, rows int, err error) {
	err = s.retry(ctx, repeatable, func(db querier) error {
		recs, rows = nil, 0
		return eachRecord(ctx, db, func(rec store.Record, id []byte, err error) error {
			last, rows = id, rows+1
			if err == nil {
				recs = append(recs, rec)
			}
			return nil
		}, sql, args...)
	})
	return recs, last, rows, err
}

// Count implements [store.Counter]. It reads the whole table's small columns.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	err := s.retry(ctx, repeatable, func(db querier) error {
		var standby bool
		row := db.QueryRow(ctx, s.sql.count, time.Now().UnixMilli())
		return primary(&standby, row.Scan(&standby, &c.Live, &c.LoggedIn, &c.Expired, &c.Ended, &c.Bytes))
	})
	if err != nil {
		return store.Counts{}, failed("count", err)
	}
	return c, nil
}
