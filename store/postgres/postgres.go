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
// It needs PostgreSQL 12 or newer, and the right to make tables, indexes, a
// functions and triggers in one schema: Open and New make or upgrade them, from
// as many replicas at once as there are. While the replicas of a service are
// replaced one by one, those of the version before go on working.
//
// # How requests travel
//
// A request that finds the database idle is sent at once, as a statement for
// one row. Those that come meanwhile share the next statement: many loads one
// query, many saves or touches one update and one wait for the disk. Each gets
// its own outcome, and what one of them meets (a conflict, a row that somebody
// has locked, data that the database refuses) holds up none of the others.
// At most three batches of loads and two of writes are under way at a time, so a
// store needs few connections: the default of 8, or of one for each processor if
// there are more, is enough for thousands of visitors, and pool_max_conns in the
// URL changes it. A pool that is given to New should have 6 or more; pgx's default is
// 4 on a small machine. When the pool is used up, requests wait for it as long as
// their contexts allow.
//
// # What is kept, and when
//
// A Save, SaveLimited, Delete or Touch that returned nil was committed. What
// that is worth is the server's configuration: with fsync and synchronous_commit
// on, as they are by default, it survives a crash of the server; with
// synchronous_standby_names also the loss of the machine. With
// synchronous_commit off, a crash loses what was acknowledged in the last
// moments.
//
// A request whose context ends stops waiting, and its outcome is unknown then, as
// after a lost connection: sent again, the same Save is applied once. It stops at
// once if it shared a statement or waited for one. If it had the database for
// itself, its statement is taken back first, which takes a third of a second on a
// frozen server; with a pool that is given to New, that pool's settings decide.
// The store itself sends again only what was surely not carried out, or what does
// no harm when it is done twice: loads, touches and ends.
//
// # When the server is away
//
// While the server cannot be reached, is starting, has no place for another client,
// refuses the password, or is read-only or a standby, requests wait for as long as
// their contexts and Options.Timeout allow, 10,000 of each kind at most in each
// process. One after the other looks whether it is back. Then the error says what
// was wrong. Errors of what was surely not carried out wrap store.ErrRefused: an
// ERROR of the server does, whatever its SQLSTATE, except for the codes that leave
// the outcome open (class 08, and 40003); the end of a session (FATAL) only if it
// never began. A connection that turns out to be of no more use is closed together
// with those that are idle, and new ones go where the URL leads then.
//
// No lock is held across round trips: a process that is frozen blocks nobody.
//
// # Poolers, replicas, accounts
//
// Statements are prepared, once in each connection. Where a pooler in
// transaction mode is in between, the server refuses them sooner or later: the
// store then repeats what was refused, of which nothing had been carried out,
// and from there on sends statements that have no names and are planned each
// time, which costs the server about twice as much for a single row and nearly
// nothing for a batch. pgbouncer as of version 1.21 lets clients prepare
// statements (max_prepared_statements), so this does not happen there. There is
// nothing to be set, but default_query_exec_mode=cache_describe in the URL, or
// QueryExecModeCacheDescribe in a pool that is given to New, prepares none from
// the start. The store uses no session settings and no LISTEN; it is tested with
// pgbouncer 1.18.
//
// The URL must name a server that accepts writes; with several hosts, add
// target_session_attrs=read-write. A standby lags behind, so that a session that
// has ended would be live there: the store does not read from one.
//
// The table holds no credential (see the package store). An account needs
// SELECT, INSERT, UPDATE and DELETE on the tables, once they are made.
//
// # Care
//
// Sessions are updated often. The table leaves room in its pages so that an
// update stays within its page, and keeps times out of the indexes; autovacuum
// does the rest. Long transactions, also of other applications on the same
// server, keep it from doing so: watch n_dead_tup in pg_stat_user_tables.
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

	// Timeout is how long a Load, Save, SaveLimited, Delete or Touch takes at
	// most when its context does not end sooner, waiting for a connection
	// included. 0 = 10 seconds; negative is an error.
	Timeout time.Duration

	// Credentials returns the user and the password of a connection, and is called
	// for each that is made: so they may change while the service runs. An empty
	// user or password is the URL's. Connections that exist go on. An error, which
	// must not have the password in its text, is as if the server could not be
	// reached. nil = those of the URL. New ignores it: its pool has a BeforeConnect.
	Credentials func(ctx context.Context) (user, password string, err error)
}

const (
	defaultTable   = "sojourn_sessions"
	defaultTimeout = 10 * time.Second

	// defaultConns are enough for the flights of all lanes, and for a few
	// requests that fly alone.
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

	fallsBack bool        // statements are prepared, unless that turns out not to work
	unnamed   atomic.Bool // it has
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
// just that. The caller closes the store.
//
// It fails when the URL or the Options are wrong, when the database cannot be
// reached, when the account may not make what is missing, and when the table
// was made by a newer version of this package. No error holds a password.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errURL
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, defaultConns)
	}
	// A cancelled statement is taken back at the server, and its real outcome
	// waited for, instead of being left behind on a closed connection.
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

// New keeps records through a pool that the application already has, and
// brings the table up to date; see Open for its errors. The pool stays the
// caller's, and so do its settings: credentials that change are up to its
// BeforeConnect, and its ConnectTimeout, 2 minutes unless it is set, should be
// a few seconds, or attempts to reach a server that is frozen take up its places.
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
	// cancelTime is how long the outcome of a cancelled statement is waited for,
	// and cancelDelay how long before it is taken back: most are done by then.
	cancelTime  = time.Second
	cancelDelay = 100 * time.Millisecond

	// leaveTime and leaveDelay are the same while the caller itself waits.
	leaveTime  = 200 * time.Millisecond
	leaveDelay = 20 * time.Millisecond

	// requestTime is how long a cancel request may take, in the background.
	requestTime = 10 * time.Second

	// settleTime is for how long a connection rests after a statement on it was taken
	// back.
	settleTime = 100 * time.Millisecond

	// pingTime is how long a connection may take to show that it is alive.
	pingTime = time.Second

	// connectTime is how long making one may take, unless the URL says otherwise.
	connectTime = 3 * time.Second
)

// withdrawal takes a statement back whose context has ended. pgx's own handler
// breaks its request off when the statement ends first, and PgBouncer 1.18 exits
// then ("bad client state"). This one sees a request through that it has begun.
type withdrawal struct {
	conn     *pgconn.PgConn
	ended    chan struct{} // closed when the statement has ended
	finished chan struct{} // closed when nothing is sent any more
	wait     time.Duration // for that, at most
}

// HandleCancel is called when the statement's context has ended.
func (w *withdrawal) HandleCancel(ctx context.Context) {
	delay, wait := cancelDelay, cancelTime
	if ctx.Value(ownFlight{}) != nil {
		delay, wait = leaveDelay, leaveTime
	}
	ended, finished := make(chan struct{}), make(chan struct{})
	w.ended, w.finished, w.wait = ended, finished, wait
	_ = w.conn.Conn().SetDeadline(time.Now().Add(wait)) // a closed one fails by itself
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
		_ = w.conn.CancelRequest(request) // without it, the deadline ends the statement
		// The server passes the request on after it has taken it: it must not meet
		// the next statement.
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
		// The request may still take back whatever comes next on this connection.
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

// failed wraps an error of the driver, whose texts never hold parameters.
func failed(doing string, err error) error { return fmt.Errorf("postgres: %s: %w", doing, err) }

// Sweep implements [store.Sweeper], by the database's clock. Replicas that
// sweep at once take different rows, and leave what is locked for the next time.
// It also forgets the ends in the feed whose marks are as old.
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

// list returns the records that a statement selects, without damaged ones; and the
// ID of the last row, and how many there are, with damaged ones.
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
