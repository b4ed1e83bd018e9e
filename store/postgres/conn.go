package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// A server that cannot do something now is asked again after firstPause, then
	// after twice as long, and so on up to lastPause.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// longer is the pause that follows one of that length.
func longer(pause time.Duration) time.Duration {
	return min(max(2*pause, firstPause), lastPause)
}

// jitter spreads out the replicas of a service, which all wait for the same.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }

// use does something on a connection of the pool. A connection that is of no more
// use is closed, and the others that are idle: they lead to the same server.
func (s *Store) use(ctx context.Context, do func(db querier) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	defer conn.Release()
	err = s.named(func(as naming) error { return do(as.through(conn)) })
	// A statement that was taken back has left its connection as it was.
	v := judge(err)
	if conn.Conn().IsClosed() || v.discard && (v.refused || ctx.Err() == nil) {
		_ = conn.Conn().Close(ctx)
		s.pool.Reset()
	}
	return err
}

// repetition says whether a statement may be sent again when nobody knows whether
// it was carried out.
type repetition bool

const (
	once       repetition = false
	repeatable repetition = true
)

// worthwhile reports whether what met err may be sent again, once a while has
// passed.
func (again repetition) worthwhile(err error) bool {
	v := judge(err)
	return v.again || v == lost && again == repeatable
}

// retry does something that shares no statement, and again for as long as that is
// safe, the server is away, and ctx and the store's Timeout allow.
func (s *Store) retry(ctx context.Context, again repetition, do func(db querier) error) error {
	begin := time.Now()
	for pause := firstPause; ; pause = longer(pause) {
		err := s.use(ctx, do)
		if err == nil || !again.worthwhile(err) || time.Since(begin)+pause > s.timeout || !sleep(ctx, jitter(pause)) {
			return withEnd(ctx, err)
		}
	}
}

// withEnd says with an error that the context is over, if it is.
func withEnd(ctx context.Context, err error) error {
	end := ctx.Err()
	if err == nil || end == nil {
		return err
	}
	return fmt.Errorf("%w: %w", end, err)
}

// sleep waits for d, and reports whether ctx is still alive then.
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
