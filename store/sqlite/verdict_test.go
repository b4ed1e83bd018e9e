package sqlite

import (
	"errors"
	"os"
	"testing"

	lib "modernc.org/sqlite/lib"

	"github.com/sojourn-go/sojourn/store"
)

// Real failures: SQLite's code, and the error for the caller. A transaction
// that failed before its commit was rolled back, so it changed nothing,
// whatever the code.
func TestRealRefusalsOfSQLite(t *testing.T) {
	for name, test := range map[string]struct {
		code int
		harm func(t *testing.T, s *Store)
	}{
		"BUSY": {lib.SQLITE_BUSY, func(t *testing.T, s *Store) {
			c := other(t, s.path)
			must(t, c.run("BEGIN IMMEDIATE"))
			t.Cleanup(func() { _ = c.run("ROLLBACK") })
		}},
		"READONLY": {lib.SQLITE_READONLY, func(t *testing.T, s *Store) {
			_, err := s.writer.db.Exec("PRAGMA query_only(1)")
			must(t, err)
		}},
		"FULL": {lib.SQLITE_FULL, func(t *testing.T, s *Store) {
			_, err := s.writer.db.Exec("PRAGMA max_page_count(1)")
			must(t, err)
		}},
		"CONSTRAINT": {lib.SQLITE_CONSTRAINT, func(t *testing.T, s *Store) {
			_, err := s.writer.db.Exec("CREATE TRIGGER no BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END")
			must(t, err)
		}},
		"a table that is gone": {lib.SQLITE_ERROR, func(t *testing.T, s *Store) {
			_, err := s.writer.db.Exec("ALTER TABLE sessions RENAME TO gone")
			must(t, err)
		}},
		"CORRUPT": {lib.SQLITE_CORRUPT, func(t *testing.T, s *Store) {
			for n := range 200 { // so that there is more than one page
				insert(t, s, session(100+n, 3000))
			}
			_, err := s.writer.db.Exec("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size=1; PRAGMA shrink_memory")
			must(t, err)
			f, err := os.OpenFile(s.path, os.O_WRONLY, 0) // kept open: closing it would drop SQLite's locks
			must(t, err)
			t.Cleanup(func() { _ = f.Close() })
			info, err := f.Stat()
			must(t, err)
			_, err = f.WriteAt(make([]byte, info.Size()-pageSize), pageSize)
			must(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := opened(t, BusyTimeout(0))
			test.harm(t, s)
			for what, err := range map[string]error{
				"a save in its caller": s.Save(t.Context(), session(1, 9000), store.Base{}),
				"a transaction":        s.writer.single(&request{ctx: t.Context(), do: func(tx *transaction) error { rec := session(2, 9000); return tx.save(&rec, store.Base{}) }}),
			} {
				if code(err) != test.code {
					t.Errorf("%s: %v (%d), want code %d", what, err, code(err), test.code)
				}
				if !errors.Is(err, store.ErrRefused) {
					t.Errorf("%s: %v, want it refused for sure", what, err)
				}
			}
		})
	}
}

// After these, the commit may be in the log although SQLite reports a failure:
// its last step is to sync the log and to update the log's index.
func TestWhichCommitsHaveAnUnknownOutcome(t *testing.T) {
	for _, c := range []int{
		lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_INTERRUPT, lib.SQLITE_INTERNAL, lib.SQLITE_PROTOCOL,
		lib.SQLITE_ABORT, lib.SQLITE_MISUSE, 0,
	} {
		if refusals[c] {
			t.Errorf("code %d is told as a refusal", c)
		}
	}
	for _, c := range []int{
		lib.SQLITE_ERROR, lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PERM, lib.SQLITE_READONLY, lib.SQLITE_FULL,
		lib.SQLITE_CANTOPEN, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_SCHEMA, lib.SQLITE_CONSTRAINT,
	} {
		if !refusals[c] {
			t.Errorf("code %d is told as unknown", c)
		}
	}
}
