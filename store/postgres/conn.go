package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// Retries wait for firstPause, then twice as long each time, up to
	// lastPause.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// longer returns the pause after a pause of that length.
func longer(pause time.Duration) time.Duration {
	return min(max(2*pause, firstPause), lastPause)
}

// jitter spreads out the retries of a service's replicas.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }

// use runs do on a connection of the pool. If the connection turns out to be
// unusable, use closes it and the idle ones, which lead to the same server.
func (s *Store) use(ctx context.Context, do func(db querier) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	defer conn.Release()
	err = s.named(func(as naming) error { return do(as.through(conn)) })
	// A canceled statement leaves its connection usable.
	v := judge(err)
	if conn.Conn().IsClosed() || v.discard && (v.refused || ctx.Err() == nil) {
		_ = conn.Conn().Close(ctx)
		s.pool.Reset()
	}
	return err
}

// repetition is whether a statement with an unknown outcome may be sent again.
type repetition bool

const (
	once       repetition = false
	repeatable repetition = true
)

// worthwhile reports whether a statement that failed with err may be sent again
// after a pause.
func (again repetition) worthwhile(err error) bool {
	v := judge(err)
	return v.again || v == lost && again == repeatable
}

// retry runs do, which shares no statement, and repeats it while that is safe,
// the server is unreachable, and ctx and the store's Timeout allow.
func (s *Store) retry(ctx context.Context, again repetition, do func(db querier) error) error {
	begin := time.Now()
	for pause := firstPause; ; pause = longer(pause) {
		err := s.use(ctx, do)
		if err == nil || !again.worthwhile(err) || time.Since(begin)+pause > s.timeout || !sleep(ctx, jitter(pause)) {
			return withEnd(ctx, err)
		}
	}
}

// withEnd adds the context's error to err if the context has ended.
func withEnd(ctx context.Context, err error) error {
	end := ctx.Err()
	if err == nil || end == nil {
		return err
	}
	return fmt.Errorf("%w: %w", end, err)
}

// sleep waits for d, and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run runs one statement and returns how many rows it changed.
func run(ctx context.Context, db querier, sql string, args ...any) (int64, error) {
	saveID, err := db.Exec(ctx, sql, args...)
	return saveID.RowsAffected(), err
}
