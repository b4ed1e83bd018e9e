package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return opened(t) }, storetest.Records(20_000), storetest.Copies(copyRow))
}

// copyRow puts a row in the place of another one, from another connection.
func copyRow(t *testing.T, s store.Store, from, to store.ID) {
	t.Helper()
	_, err := other(t, s.(*Store).path).Exec(`REPLACE INTO sessions (id, version, save_ids, user, created, seen, deadline, expires, ended, sweep, data)
		SELECT ?2, version, save_ids, user, created, seen, deadline, expires, ended, sweep, data FROM sessions WHERE id = ?1`, from[:], to[:])
	must(t, err)
}

// opened returns a store in a new file, which the test closes.
func opened(t testing.TB, opts ...Option) *Store {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "sessions.db"), opts...)
}

func reopen(t testing.TB, path string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// A client is a separate connection to the store's file.
type client struct{ *sql.DB }

func other(t testing.TB, path string) client {
	t.Helper()
	db, err := connect(path, 1, nil)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return client{db}
}

func (c client) run(statements string) error {
	_, err := c.Exec(statements)
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func id(n int) store.ID {
	return store.HashIdentifier(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// session returns the first record of session n, with that much data.
func session(n, size int) store.Record {
	now := time.Now()
	return store.Record{
		ID:       id(n),
		Version:  1,
		SaveIDs:  []store.SaveID{store.SaveID(n + 1)},
		Created:  now,
		Seen:     now,
		Deadline: now.Add(time.Hour),
		Expires:  now.Add(24 * time.Hour),
		Data:     bytes.Repeat([]byte{byte(n)}, size),
	}
}

// next returns the record that follows.
func next(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{rec.SaveIDs[0] + 1<<32}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	return rec
}

func insert(t testing.TB, s *Store, rec store.Record) store.Record {
	t.Helper()
	must(t, s.Save(context.Background(), rec, store.Base{}))
	return rec
}

// whileHeld queues what calls do while the writer is held, so that it finds
// all of it at once, and waits until they have returned.
func whileHeld(t testing.TB, s *Store, calls ...func()) {
	t.Helper()
	var wg sync.WaitGroup
	s.writer.hold(func() {
		for _, call := range calls {
			wg.Go(call)
		}
		eventually(t, "the calls are queued", func() bool { return queued(s) == len(calls) })
	})
	wg.Wait()
}

// queued is how many requests wait.
func queued(s *Store) int {
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	return len(s.writer.waiting)
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so, even after 30 seconds: %s", what)
		}
		runtime.Gosched()
	}
}

func TestSavesThatQueueUpShareACommit(t *testing.T) {
	s := opened(t)
	before := s.writer.commits.Load()
	var calls []func()
	for n := range 100 {
		calls = append(calls, func() {
			if err := s.Save(t.Context(), session(n, 100), store.Base{}); err != nil {
				t.Errorf("Save %d: %v", n, err)
			}
		})
	}
	whileHeld(t, s, calls...)
	if n := s.writer.commits.Load() - before; n != 1 {
		t.Errorf("100 saves took %d commits, want 1: each waits for the disk", n)
	}
	for n := range 100 {
		if _, err := s.Load(t.Context(), id(n)); err != nil {
			t.Errorf("Load %d: %v", n, err)
		}
	}
}

func TestEachRequestOfACommitHasItsOwnOutcome(t *testing.T) {
	s := opened(t)
	one := insert(t, s, session(1, 10))
	ended := insert(t, s, session(2, 10))
	must(t, s.Delete(t.Context(), ended.ID, time.Now().Add(time.Hour)))
	outcomes := make([]error, 5)
	whileHeld(t, s,
		func() { outcomes[0] = s.Save(t.Context(), next(one), one.Base()) },
		func() { outcomes[1] = s.Save(t.Context(), session(3, 10), store.Base{}) },
		func() { outcomes[2] = s.Save(t.Context(), next(ended), ended.Base()) },
		func() { outcomes[3] = s.Touch(t.Context(), id(4), time.Now(), time.Now()) },
		func() { outcomes[4] = s.Delete(t.Context(), id(5), time.Now().Add(time.Hour)) },
	)
	for i, want := range []error{nil, nil, store.ErrConflict, store.ErrNotFound, nil} {
		if !errors.Is(outcomes[i], want) {
			t.Errorf("call %d: %v, want %v", i, outcomes[i], want)
		}
	}
}

func TestARequestThatFailsIsUndoneAlone(t *testing.T) {
	s := opened(t)
	mishap := errors.New("mishap")
	outcomes := make([]error, 3)
	whileHeld(t, s,
		func() { outcomes[0] = s.Save(t.Context(), session(1, 10), store.Base{}) },
		func() {
			outcomes[1] = s.writer.do(t.Context(), 0, func(tx *transaction) error {
				rec := session(2, 10)
				return errors.Join(tx.save(&rec, store.Base{}), mishap)
			}, nil)
		},
		func() { outcomes[2] = s.Save(t.Context(), session(3, 10), store.Base{}) },
	)
	for i, want := range []error{nil, mishap, nil} {
		if !errors.Is(outcomes[i], want) {
			t.Errorf("request %d: %v, want %v", i, outcomes[i], want)
		}
		_, err := s.Load(t.Context(), id(i+1))
		if saved := err == nil; saved != (want == nil) {
			t.Errorf("request %d: %v when loaded afterwards", i, err)
		}
	}
}

func TestEveryWriteWaitsForTheDisk(t *testing.T) {
	s := opened(t)
	const full = 2
	for who, db := range map[string]*sql.DB{"the writer": s.writer.db, "the checkpointer": s.log.db} {
		if mode, err := number(db, "PRAGMA synchronous"); mode != full || err != nil {
			t.Errorf("%s's synchronous mode is %d, %v, want %d", who, mode, err, full)
		}
	}
}

func TestAFullDatabaseRefusesWhatDoesNotFitAndKeepsTheRest(t *testing.T) {
	s := opened(t, func(o *options) { o.maxPages = 100 })
	small := insert(t, s, session(1, 100))
	outcomes := make([]error, 3)
	whileHeld(t, s, // one transaction, until it turns out that one does not fit
		func() { outcomes[0] = s.Save(t.Context(), session(2, 100), store.Base{}) },
		func() { outcomes[1] = s.Save(t.Context(), session(3, 1<<20), store.Base{}) },
		func() { outcomes[2] = s.Save(t.Context(), next(small), small.Base()) },
	)
	if outcomes[0] != nil || outcomes[2] != nil {
		t.Errorf("saves that fit: %v and %v, want them saved", outcomes[0], outcomes[2])
	}
	if outcomes[1] == nil || !strings.Contains(outcomes[1].Error(), "full") {
		t.Errorf("a save that does not fit: %v, want an error that says the database is full", outcomes[1])
	}

	// Fill it completely, then keep using it.
	kept := 0
	for n := 100; ; n++ {
		if err := s.Save(t.Context(), session(n, 4000), store.Base{}); err != nil {
			break
		}
		kept++
	}
	if kept == 0 {
		t.Fatal("nothing could be saved after an error")
	}
	for n := 100; n < 100+kept; n++ {
		if _, err := s.Load(t.Context(), id(n)); err != nil {
			t.Errorf("Load of an acknowledged save: %v", err)
		}
		must(t, s.Touch(t.Context(), id(n), time.Now(), time.Now().Add(2*time.Hour)))
		must(t, s.Delete(t.Context(), id(n), time.Now().Add(-2*time.Hour)))
	}
	if n, err := s.Sweep(t.Context(), time.Hour, 1000); n != kept || err != nil {
		t.Errorf("Sweep of a full database: %d, %v, want %d removed", n, err, kept)
	}
	if err := s.Save(t.Context(), session(99, 100_000), store.Base{}); err != nil {
		t.Errorf("Save after room was made: %v", err)
	}
}

func TestACallStopsWaitingWhenItsContextEnds(t *testing.T) {
	s := opened(t)
	one := insert(t, s, session(1, 10))
	ctx, cancel := context.WithCancel(t.Context())
	s.writer.hold(func() {
		outcome := make(chan error)
		go func() { outcome <- s.Save(ctx, next(one), one.Base()) }()
		eventually(t, "the save is queued", func() bool { return queued(s) == 1 })
		cancel()
		if err := <-outcome; !errors.Is(err, context.Canceled) {
			t.Errorf("Save: %v, want context.Canceled while the writer is busy", err)
		} else if !errors.Is(err, store.ErrRefused) {
			t.Errorf("Save: %v, want to know that nothing was saved", err)
		}
	})
	if n := queued(s); n != 0 {
		t.Errorf("%d requests are left in the queue", n)
	}
	if err := s.Save(t.Context(), next(one), one.Base()); err != nil {
		t.Errorf("the same save sent again: %v, want it settled", err)
	}
}

func TestAFullQueueRefusesWhatComesBesides(t *testing.T) {
	s := opened(t)
	var wg sync.WaitGroup
	s.writer.hold(func() {
		for n := range queueLength {
			wg.Go(func() { _ = s.Touch(t.Context(), id(n), time.Now(), time.Now()) }) // there is no such record
		}
		eventually(t, "the queue is full", func() bool { return queued(s) == queueLength })
		if err := s.Save(t.Context(), session(1, 10), store.Base{}); !errors.Is(err, store.ErrRefused) {
			t.Errorf("Save: %v, want store.ErrRefused", err)
		}
	})
	wg.Wait()
	insert(t, s, session(1, 10))
}

func TestCloseWaitsForQueuedSaves(t *testing.T) {
	s := opened(t)
	outcomes := make(chan error, 10)
	closed := make(chan error)
	s.writer.hold(func() {
		for n := range cap(outcomes) {
			go func() { outcomes <- s.Save(context.Background(), session(n, 10), store.Base{}) }()
		}
		eventually(t, "the saves are queued", func() bool { return queued(s) == cap(outcomes) })
		go func() { closed <- s.Close() }()
		eventually(t, "nothing new is let in", func() bool {
			s.writer.mu.Lock()
			defer s.writer.mu.Unlock()
			return s.writer.closed
		})
	})
	for range cap(outcomes) {
		if err := <-outcomes; err != nil {
			t.Errorf("Save during Close: %v, want it saved", err)
		}
	}
	must(t, <-closed)
	s = reopen(t, s.path)
	for n := range cap(outcomes) {
		if _, err := s.Load(t.Context(), id(n)); err != nil {
			t.Errorf("Load after opening again: %v", err)
		}
	}
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := opened(t)
	must(t, s.Close())
	must(t, s.Close())
	ctx := t.Context()
	_, load := s.Load(ctx, id(1))
	_, byUser := s.ByUser(ctx, store.UserHash{1})
	_, _, scan := s.Scan(ctx, "", 1)
	_, count := s.Count(ctx)
	_, sweep := s.Sweep(ctx, 0, 1)
	for call, err := range map[string]error{
		"Load":   load,
		"Save":   s.Save(ctx, session(1, 1), store.Base{}),
		"Delete": s.Delete(ctx, id(1), time.Now()),
		"Touch":  s.Touch(ctx, id(1), time.Now(), time.Now()),
		"ByUser": byUser,
		"Scan":   scan,
		"Count":  count,
		"Sweep":  sweep,
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v, want os.ErrClosed", call, err)
		}
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	folder := t.TempDir()
	for range 5 {
		s, err := Open(filepath.Join(folder, "sessions.db"))
		must(t, err)
		insertOrReplace(t, s)
		must(t, s.Close())
	}
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
	files, err := os.ReadDir(folder)
	must(t, err)
	if len(files) != 1 {
		t.Errorf("files after Close: %v, want the database alone", files)
	}
}

// insertOrReplace saves session 1, whether it exists or not.
func insertOrReplace(t *testing.T, s *Store) {
	t.Helper()
	stored, err := s.Load(t.Context(), id(1))
	if errors.Is(err, store.ErrNotFound) {
		insert(t, s, session(1, 10))
		return
	}
	must(t, err)
	must(t, s.Save(t.Context(), next(stored), stored.Base()))
}

func TestSessionsSurviveClosingAndOpening(t *testing.T) {
	s := opened(t)
	rec := insert(t, s, session(1, 1000))
	must(t, s.Close())
	s = reopen(t, s.path)
	got, err := s.Load(t.Context(), rec.ID)
	must(t, err)
	if got.Version != 1 || !bytes.Equal(got.Data, rec.Data) {
		t.Errorf("got version %d with %d bytes, want what was saved", got.Version, len(got.Data))
	}
}

func TestOpenMakesFilesAndFoldersForTheOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "lib", "sessions.db")
	s := reopen(t, path)
	insert(t, s, session(1, 10))
	for name, want := range map[string]fs.FileMode{
		path:                             0o600,
		path + "-wal":                    0o600,
		path + "-shm":                    0o600,
		filepath.Dir(path):               0o700 | fs.ModeDir,
		filepath.Dir(filepath.Dir(path)): 0o700 | fs.ModeDir,
	} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(name), info.Mode(), want)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(files) != 3 {
		t.Errorf("files: %v, want the database and its two companions", files)
	}
}

func TestOpenTakesAnyFileName(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory", "a#b", "a%20b", "ä&é=1.db", "a'b"} {
		s := reopen(t, filepath.Join(t.TempDir(), name))
		insert(t, s, session(1, 10))
		if _, err := os.Stat(s.path); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOpenRefusesWhatIsNotAFile(t *testing.T) {
	for _, path := range []string{"", ":memory:", "file:x.db", t.TempDir()} {
		s, err := Open(path)
		if err == nil {
			s.Close()
			t.Errorf("Open(%q) succeeded, want an error", path)
		}
	}
}

func TestOpenRefusesForeignFilesAndLeavesThemAlone(t *testing.T) {
	for name, make := range map[string]func(path string){
		"a text": func(path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("Dear diary, ", 1000)), 0o644))
		},
		"a short text": func(path string) {
			must(t, os.WriteFile(path, []byte("hello\n"), 0o644))
		},
		"another program's database": func(path string) {
			must(t, other(t, path).run("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ann')"))
		},
		"another program's database in WAL mode": func(path string) {
			c := other(t, path)
			must(t, c.run("PRAGMA journal_mode=WAL; CREATE TABLE sessions (id TEXT)"))
			must(t, c.Close())
		},
		"a database with another application's mark": func(path string) {
			must(t, other(t, path).run("PRAGMA application_id=1"))
		},
		"an empty database with a version": func(path string) {
			must(t, other(t, path).run("PRAGMA user_version=1"))
		},
	} {
		path := filepath.Join(t.TempDir(), "sessions.db")
		make(path)
		before, err := os.ReadFile(path)
		must(t, err)
		if s, err := Open(path); !errors.Is(err, ErrForeign) {
			t.Errorf("Open of %s: %v, want ErrForeign", name, err)
			if err == nil {
				s.Close()
			}
		}
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(before, after) {
			t.Errorf("Open changed %s", name)
		}
	}
}

func TestOpenTakesAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	must(t, os.WriteFile(path, nil, 0o600))
	insert(t, reopen(t, path), session(1, 10))
}

func TestOpenRefusesANewerSchemaAndLeavesItAlone(t *testing.T) {
	s := opened(t)
	insert(t, s, session(1, 10))
	must(t, s.Close())
	c := other(t, s.path)
	must(t, c.run(fmt.Sprintf("PRAGMA user_version=%d", len(migrations)+1)))
	if newer, err := Open(s.path); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v, want ErrNewer", err)
		if err == nil {
			newer.Close()
		}
	}
	if v, err := number(c.DB, "PRAGMA user_version"); v != int64(len(migrations)+1) || err != nil {
		t.Errorf("the schema version is now %d, %v", v, err)
	}
}

func TestOpenMigratesFromEveryEarlierSchema(t *testing.T) {
	for version := range migrations {
		path := filepath.Join(t.TempDir(), "sessions.db")
		c := other(t, path)
		for _, step := range migrations[:version] {
			must(t, c.run(step))
		}
		if version > 0 {
			must(t, c.run(fmt.Sprintf("PRAGMA application_id=%d", applicationID)))
			must(t, c.run(fmt.Sprintf("PRAGMA user_version=%d", version)))
		}
		must(t, c.Close())
		s := reopen(t, path)
		insert(t, s, session(1, 10))
		if v, err := number(other(t, path).DB, "PRAGMA user_version"); v != int64(len(migrations)) || err != nil {
			t.Errorf("from schema %d: it is %d now, %v, want %d", version, v, err, len(migrations))
		}
	}
}

func TestManyMayOpenANewFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			s, err := Open(path)
			if err != nil {
				t.Errorf("Open %d: %v", n, err)
				return
			}
			defer s.Close()
			if err := s.Save(t.Context(), session(n, 10), store.Base{}); err != nil {
				t.Errorf("Save %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	c, err := reopen(t, path).Count(t.Context())
	if c.Live != 8 || err != nil {
		t.Errorf("%d sessions, %v, want 8", c.Live, err)
	}
}

func TestASaveWaitsForAnotherProcess(t *testing.T) {
	s := opened(t)
	c := other(t, s.path)
	must(t, c.run("BEGIN IMMEDIATE"))
	outcome := make(chan error)
	go func() { outcome <- s.Save(t.Context(), session(1, 10), store.Base{}) }()
	eventually(t, "the save is being written", func() bool {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return s.writer.busy
	})
	select {
	case err := <-outcome:
		t.Fatalf("Save while the database is locked: %v, want it to wait", err)
	default:
	}
	if _, err := s.Load(t.Context(), id(1)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load while the database is locked: %v, want an answer at once", err)
	}
	must(t, c.run("COMMIT"))
	must(t, <-outcome)
}

func TestASaveDoesNotWaitForeverForAnotherProcess(t *testing.T) {
	s := opened(t, BusyTimeout(20*time.Millisecond))
	c := other(t, s.path)
	must(t, c.run("BEGIN IMMEDIATE"))
	err := s.Save(t.Context(), session(1, 10), store.Base{})
	if err == nil || !strings.Contains(err.Error(), "locked for 20ms") {
		t.Errorf("Save: %v, want an error that says for how long the database was locked", err)
	}
	must(t, c.run("COMMIT"))
	insert(t, s, session(1, 10))
}

func TestAnErrorNamesNeitherTheSessionNorItsData(t *testing.T) {
	s := opened(t, func(o *options) { o.maxPages = 20 })
	rec := session(1, 1<<20)
	err := s.Save(t.Context(), rec, store.Base{})
	if err == nil {
		t.Fatal("a megabyte fit into 20 pages")
	}
	for _, secret := range []string{rec.ID.String(), fmt.Sprintf("%x", rec.ID), string(rec.Data[:8])} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error names the session or its data: %v", err)
		}
	}
}

func TestScanRefusesAForeignCursor(t *testing.T) {
	s := opened(t)
	for _, cursor := range []string{"x", "1", "1-", "-1"} {
		if _, _, err := s.Scan(t.Context(), cursor, 10); err == nil {
			t.Errorf("Scan from %q succeeded, want an error", cursor)
		}
	}
}

func TestARecordBeyondSQLitesLimitIsTooLarge(t *testing.T) {
	s := opened(t)
	rec := insert(t, s, session(1, 10))
	big := next(rec)
	big.Data = make([]byte, maxData+1)
	if err := s.Save(t.Context(), big, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Save: %v, want store.ErrTooLarge", err)
	}
}

// The design of the table: the following tests fail when a change of a
// statement or index makes each save or touch write more than it must.

func TestASaveAndATouchWriteOnePage(t *testing.T) {
	s := opened(t, noCheckpoints)
	for n := range 1000 {
		rec := session(n, 200)
		rec.User = store.UserHash{byte(n), 1}
		insert(t, s, rec)
	}
	rec, err := s.Load(t.Context(), id(500))
	must(t, err)
	if n := pagesWritten(t, s, func() { must(t, s.Save(t.Context(), next(rec), rec.Base())) }); n != 1 {
		t.Errorf("a save wrote %d pages, want 1", n)
	}
	later := time.Now().Add(2 * time.Hour)
	if n := pagesWritten(t, s, func() { must(t, s.Touch(t.Context(), id(501), later, later)) }); n != 1 {
		t.Errorf("a touch wrote %d pages, want 1", n)
	}
}

func TestATouchDoesNotRewriteLongData(t *testing.T) {
	s := opened(t, noCheckpoints)
	insert(t, s, session(1, 1<<20))
	later := time.Now().Add(2 * time.Hour)
	if n := pagesWritten(t, s, func() { must(t, s.Touch(t.Context(), id(1), later, later)) }); n != 1 {
		t.Errorf("a touch wrote %d pages, want 1", n)
	}
}

func TestNoSearchReadsTheWholeTable(t *testing.T) {
	c := other(t, opened(t).path)
	for query, want := range map[string]string{
		`SELECT * FROM sessions WHERE id = ?1`:                                       "sqlite_autoindex_sessions_1",
		`SELECT * FROM sessions WHERE user = ?1 AND ended IS NULL`:                   "sessions_user",
		`SELECT * FROM sessions WHERE sweep < ?1 ORDER BY sweep LIMIT ?2`:            "sessions_sweep",
		`SELECT * FROM sessions WHERE row > ?1 AND row <= ?2 ORDER BY row`:           "INTEGER PRIMARY KEY",
		`UPDATE sessions SET seen = 1 WHERE id = ?1 AND ended IS NULL`:               "sqlite_autoindex_sessions_1",
		`UPDATE sessions SET seen = 1 WHERE id = ?1 AND version = ?2 AND user IS ?3`: "sqlite_autoindex_sessions_1",
	} {
		var a, b, d int
		var plan string
		must(t, c.QueryRow("EXPLAIN QUERY PLAN "+query, 1, 2, 3).Scan(&a, &b, &d, &plan))
		if !strings.HasPrefix(plan, "SEARCH") || !strings.Contains(plan, want) {
			t.Errorf("%s: %s, want a search by %s", query, plan, want)
		}
	}
}

// noCheckpoints keeps the checkpointer out of the way of pagesWritten.
func noCheckpoints(o *options) { o.log.check = math.MaxInt64 }

// pagesWritten returns how many pages a call added to the log.
func pagesWritten(t *testing.T, s *Store, call func()) int64 {
	t.Helper()
	c := other(t, s.path)
	checkpoint := func(mode string) (s logState) {
		row := c.QueryRow("PRAGMA wal_checkpoint(" + mode + ")")
		must(t, row.Scan(&s.busy, &s.pages, &s.moved))
		if s.busy {
			t.Fatal("the log is in use")
		}
		return s
	}
	checkpoint("TRUNCATE")
	call()
	return checkpoint("PASSIVE").pages
}
