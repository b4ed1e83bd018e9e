package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// together delays a lane until that many requests wait in it, so that they are
// sent in one batch, and returns once all calls have returned.
func together[Q request, A any](t *testing.T, l *lane[Q, A], calls ...func()) {
	t.Helper()
	wait := departure(t, l, calls...)
	wait()
}

// departure is together, but lets the caller wait for the calls.
func departure[Q request, A any](t *testing.T, l *lane[Q, A], calls ...func()) (wait func()) {
	t.Helper()
	crowd := l.crowd
	eventually(t, "nothing is under way", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.flying > 0 {
			return false
		}
		l.flying++ // an empty flight
		l.crowd = math.MaxInt
		return true
	})
	var wg sync.WaitGroup
	for _, call := range calls {
		wg.Go(call)
	}
	eventually(t, "all requests wait", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.waiting) == len(calls)
	})
	l.mu.Lock()
	l.flying--
	l.crowd = crowd
	l.launch()
	l.mu.Unlock()
	return wg.Wait
}

func testEachSaveOfABatchHasItsOwnOutcome(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	save := func(rec store.Record, base store.Base, want error) func() {
		return func() {
			t.Helper()
			if err := s.Save(t.Context(), rec, base); !errors.Is(err, want) {
				t.Errorf("version %d on base %d: %v, want %v", rec.Version, base.Version, err, want)
			}
		}
	}
	stored := func(rec store.Record, base store.Base) store.Record {
		t.Helper()
		must(t, s.Save(t.Context(), rec, base))
		return rec
	}
	good := stored(session(), store.Base{})
	stale := stored(session(), store.Base{})
	newer := stored(following(stale), stale.Base())
	sent := stored(session(), store.Base{})
	again := stored(following(sent), sent.Base())
	over := stored(session(), store.Base{})
	must(t, s.Delete(t.Context(), over.ID, time.Now().Add(time.Hour)))
	missing := session()
	mark := stored(session(), store.Base{})
	end := following(mark)
	end.Ended, end.Data = end.Seen, nil
	shorter := stored(session(), store.Base{})
	short := following(shorter)
	short.Shorten, short.Deadline, short.SaveIDs = true, shorter.Created, short.SaveIDs[:1]
	together(t, &s.writes,
		save(following(good), good.Base(), nil),
		save(following(stale), stale.Base(), store.ErrConflict),
		save(again, sent.Base(), nil), // it was applied before
		save(following(over), over.Base(), store.ErrConflict),
		save(following(missing), missing.Base(), store.ErrConflict),
		save(end, mark.Base(), nil),
		save(short, shorter.Base(), nil),
	)
	for id, version := range map[store.ID]uint64{good.ID: 2, newer.ID: 2, again.ID: 2, over.ID: 1} {
		if got, err := s.Load(t.Context(), id); err != nil || got.Version != version {
			t.Errorf("version %d, %v; want %d", got.Version, err, version)
		}
	}
	for _, want := range []store.Record{short, end} {
		got, err := s.Load(t.Context(), want.ID)
		if err != nil || !got.Deadline.Equal(want.Deadline) || !got.Ended.Equal(want.Ended) || !slices.Equal(got.SaveIDs, want.SaveIDs) || len(got.Data) != len(want.Data) {
			t.Errorf("got %v, want %v (%v)", got, want, err)
		}
	}

	fresh := session()
	expired := stored(old(2*time.Hour), store.Base{})
	reborn := session()
	reborn.ID = expired.ID
	rival := session()
	rival.ID = good.ID
	together(t, &s.writes,
		save(fresh, store.Base{}, nil),
		save(reborn, store.Base{}, nil),
		save(rival, store.Base{}, store.ErrConflict),
		save(shorter, store.Base{}, nil), // it was applied before
		save(sent, store.Base{}, nil),
	)
	for _, want := range []store.Record{fresh, reborn} {
		if got, err := s.Load(t.Context(), want.ID); err != nil || !slices.Equal(got.SaveIDs, want.SaveIDs) {
			t.Errorf("the inserted record: %v", err)
		}
	}
}

func testARowThatMakesTheStatementFailFailsAlone(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	const n = 5
	bad := func(rec store.Record) store.Record {
		rec.Deadline = time.UnixMilli(math.MaxInt64 / 2) // beyond what the table can hold
		return rec
	}
	for name, base := range map[string]bool{"insert": false, "update": true, "touch": true} {
		t.Run(name, func(t *testing.T) {
			var calls []func()
			for i := range n {
				rec := session()
				if base {
					must(t, s.Save(t.Context(), rec, store.Base{}))
				}
				calls = append(calls, func() {
					var err error
					if i == n/2 {
						rec = bad(rec)
					}
					switch {
					case name == "touch":
						err = s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline)
					case base:
						err = s.Save(t.Context(), following(rec), rec.Base())
					default:
						err = s.Save(t.Context(), rec, store.Base{})
					}
					if i == n/2 {
						if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
							t.Errorf("the bad row: %v, want an error that leaves the outcome open", err)
						}
					} else if err != nil {
						t.Errorf("a good row: %v", err)
					}
				})
			}
			together(t, &s.writes, calls...)
		})
	}
	t.Run("load", func(t *testing.T) {
		var calls []func()
		for i := range n {
			rec := session()
			must(t, s.Save(t.Context(), rec, store.Base{}))
			if i == n/2 {
				sql(t, s, "UPDATE sojourn_sessions SET usr = 'x' WHERE id = $1", rec.ID[:])
			}
			calls = append(calls, func() {
				got, err := s.Load(t.Context(), rec.ID)
				if (i == n/2) != errors.Is(err, errNotARecord) || i != n/2 && got.ID != rec.ID {
					t.Errorf("row %d: %v", i, err)
				}
			})
		}
		together(t, &s.loads, calls...)
	})
}

func testSavesOfOneSessionOnOneBaseHaveOneWinner(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	recs := []store.Record{rec, session(), session(), rec, rec}
	for _, fresh := range recs[1:3] {
		must(t, s.Save(t.Context(), fresh, store.Base{}))
	}
	errs := make([]error, len(recs))
	var calls []func()
	for i, rec := range recs {
		calls = append(calls, func() { errs[i] = s.Save(t.Context(), following(rec), rec.Base()) })
	}
	together(t, &s.writes, calls...)
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case recs[i].ID != rec.ID || !errors.Is(err, store.ErrConflict):
			t.Errorf("save %d: %v", i, err)
		}
	}
	if won != 3 {
		t.Errorf("%d saves were accepted, want one for each of the 3 sessions", won)
	}
}

func testTooMuchDataIsRefusedBeforeItIsSent(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	big := following(rec)
	big.Data = make([]byte, maxData+1)
	if err := s.Save(t.Context(), big, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("%v, want store.ErrTooLarge", err)
	}
	big.Data, big.SaveIDs = nil, nil
	if err := s.Save(t.Context(), big, rec.Base()); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("a save without a save ID: %v, want an error", err)
	}
}

func testALockedRowHoldsUpNobodyElse(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	recs := make([]store.Record, 8)
	for i := range recs {
		recs[i] = session()
		must(t, s.Save(t.Context(), recs[i], store.Base{}))
	}
	locked := recs[3]
	release := lock(t, s, locked.ID)
	for name, write := range map[string]func(context.Context, *store.Record) error{
		"save": func(ctx context.Context, rec *store.Record) error {
			next := following(*rec)
			err := s.Save(ctx, next, rec.Base())
			if err == nil {
				*rec = next
			}
			return err
		},
		"touch": func(ctx context.Context, rec *store.Record) error {
			return s.Touch(ctx, rec.ID, rec.Seen, rec.Deadline)
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var free, all sync.WaitGroup
		var calls []func()
		for i := range recs {
			at := recs[i]
			if at.ID != locked.ID {
				free.Add(1)
			}
			calls = append(calls, func() {
				err := write(ctx, &at)
				if at.ID == locked.ID {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("%s of a locked row: %v, want it to wait until its caller leaves", name, err)
					}
					return
				}
				if err != nil {
					t.Errorf("%s beside a locked row: %v", name, err)
				}
				recs[i] = at
				free.Done()
			})
		}
		all.Go(departure(t, &s.writes, calls...))
		free.Wait() // the locked row is still locked
		waitsForLock(t, s)
		cancel()
		all.Wait()
		// The statement was canceled: otherwise it would be applied when the lock is released.
		eventually(t, "nobody waits for the lock", func() bool { return waiters(t, s) == 0 })
	}
	release()
	if err := s.Save(within(t, time.Minute), following(locked), locked.Base()); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

func testTwoProcessesThatWriteTheSameSessionsDoNotDeadlock(t *testing.T, db database) {
	a := opened(t, db.url, Options{})
	b := opened(t, db.url, Options{})
	recs := make([]store.Record, 16)
	for i := range recs {
		recs[i] = session()
		must(t, a.Save(t.Context(), recs[i], store.Base{}))
	}
	const each = 30
	var wg sync.WaitGroup
	for _, s := range []*Store{a, b} {
		for _, rec := range recs {
			wg.Go(func() {
				for range each {
					if err := bump(t.Context(), s, rec.ID); err != nil {
						t.Errorf("save: %v", err)
						return
					}
					if err := s.Touch(t.Context(), rec.ID, time.Now(), time.Now().Add(time.Hour)); err != nil {
						t.Errorf("touch: %v", err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for _, rec := range recs {
		if got, err := a.Load(t.Context(), rec.ID); err != nil || got.Version != 2*each+1 {
			t.Errorf("version %d, %v; want %d: each save counts once", got.Version, err, 2*each+1)
		}
	}
	var deadlocks int
	must(t, a.pool.QueryRow(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&deadlocks))
	if deadlocks > 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

func testTouchesOfOneSessionMeet(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec, other := session(), session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	must(t, s.Save(t.Context(), other, store.Base{}))
	touch := func(id store.ID, later time.Duration, want error) func() {
		return func() {
			if err := s.Touch(t.Context(), id, rec.Seen.Add(later), rec.Deadline.Add(later)); !errors.Is(err, want) {
				t.Errorf("touch: %v, want %v", err, want)
			}
		}
	}
	together(t, &s.writes, touch(rec.ID, 2*time.Second, nil), touch(rec.ID, 3*time.Second, nil), touch(rec.ID, time.Second, nil),
		touch(other.ID, -time.Hour, nil), touch(session().ID, 0, store.ErrNotFound))
	got, err := s.Load(t.Context(), rec.ID)
	if want := rec.Deadline.Add(3 * time.Second); err != nil || !got.Deadline.Equal(want) || !got.Seen.Equal(rec.Seen.Add(3*time.Second)) {
		t.Errorf("until %v, %v; want the latest, %v", got.Deadline, err, want)
	}
	if got, err := s.Load(t.Context(), other.ID); err != nil || !got.Deadline.Equal(other.Deadline) {
		t.Errorf("a touch with earlier times moved the deadline to %v (%v), want %v", got.Deadline, err, other.Deadline)
	}
}

func testLoadsOfOneSessionMeet(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	rec := session()
	must(t, s.Save(t.Context(), rec, store.Base{}))
	recs := make([]store.Record, 3)
	var calls []func()
	for i := range recs {
		calls = append(calls, func() {
			var err error
			if recs[i], err = s.Load(t.Context(), rec.ID); err != nil {
				t.Error(err)
			}
		})
	}
	calls = append(calls, func() {
		if _, err := s.Load(t.Context(), session().ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("an unknown session: %v, want store.ErrNotFound", err)
		}
	})
	together(t, &s.loads, calls...)
	recs[0].SaveIDs[0]++
	for _, got := range recs[1:] {
		if !slices.Equal(got.SaveIDs, rec.SaveIDs) {
			t.Error("the callers share their save_ids")
		}
	}
}

func testASaveWhoseCallerLeftIsSettledByTheSameSave(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	recs := make([]store.Record, 4)
	for i := range recs {
		recs[i] = session()
		must(t, s.Save(t.Context(), recs[i], store.Base{}))
	}
	release := lock(t, s, recs[0].ID)
	next := following(recs[0])
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- s.Save(ctx, next, recs[0].Base()) }()
	waitsForLock(t, s)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	again := make(chan error)
	go func() { again <- s.Save(t.Context(), next, recs[0].Base()) }()
	release()
	must(t, <-again)
	if got, err := s.Load(t.Context(), next.ID); err != nil || got.Version != 2 {
		t.Errorf("version %d, %v", got.Version, err)
	}
}

// bump saves a session's next version, by compare-and-set.
func bump(ctx context.Context, s *Store, id store.ID) error {
	for {
		rec, err := s.Load(ctx, id)
		if err != nil {
			return err
		}
		if err = s.Save(ctx, following(rec), rec.Base()); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// old is the first record of a session that was over that long ago.
func old(ago time.Duration) store.Record {
	rec := session()
	rec.Deadline = rec.Deadline.Add(-time.Hour - ago)
	rec.Created, rec.Seen = rec.Deadline, rec.Deadline
	return rec
}

// sql runs a statement of the test's own.
func sql(t testing.TB, s *Store, statement string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// lock locks a session's row until the returned function is called.
func lock(t testing.TB, s *Store, id store.ID) (release func()) {
	t.Helper()
	tx, err := s.pool.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), fmt.Sprintf("SELECT FROM %s WHERE id = $1 FOR UPDATE", s.table), id[:])
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return func() { must(t, tx.Rollback(context.Background())) }
}

// waitsForLock returns once a statement waits for a lock.
func waitsForLock(t testing.TB, s *Store) {
	t.Helper()
	eventually(t, "somebody waits for the lock", func() bool { return waiters(t, s) > 0 })
}

// waiters counts the statements that wait for a lock.
func waiters(t testing.TB, s *Store) (n int) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&n))
	return n
}

// Rows that are no records end no walk, whatever their keys are.
func testDamagedRowsEndNoScan(t *testing.T, db database) {
	s := opened(t, db.url, Options{})
	want := map[store.ID]bool{}
	for i := range 12 {
		rec := session()
		must(t, s.Save(t.Context(), rec, store.Base{}))
		if i%3 == 0 {
			want[rec.ID] = true
			continue
		}
		sql(t, s, "UPDATE sojourn_sessions SET usr = 'x' WHERE id = $1", rec.ID[:])
	}
	for _, key := range []string{`'\x'`, `'\x00'`, `'\xff'`, `decode(repeat('8', 80), 'hex')`} {
		sql(t, s, "INSERT INTO sojourn_sessions SELECT created, expires, ended, due, "+key+"::bytea, usr, seen, deadline, version, save_ids, data FROM sojourn_sessions LIMIT 1")
	}
	for limit := 1; limit < 20; limit++ {
		found, cursor := map[store.ID]bool{}, ""
		for range 40 {
			recs, next, err := s.Scan(t.Context(), cursor, limit)
			must(t, err)
			for _, rec := range recs {
				found[rec.ID] = true
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		for id := range want {
			if !found[id] {
				t.Errorf("pages of %d: %s is not found", limit, id)
			}
		}
		if cursor != "" {
			t.Errorf("pages of %d: the walk does not end", limit)
		}
	}
}
