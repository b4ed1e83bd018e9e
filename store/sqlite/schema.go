package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
)

var (
	// ErrForeign means that the file is not a session database. It was not
	// changed.
	ErrForeign = errors.New("sqlite: not a session database")

	// ErrNewer means that a newer release of this package has upgraded the
	// database's schema, so this release cannot use it. It was not changed.
	ErrNewer = errors.New("sqlite: the database belongs to a newer release")
)

// applicationID marks a database file as ours, in the four bytes that SQLite's
// file format has for this: "Sjrn".
const applicationID = 0x536a726e

// migrations[v] leads from schema version v to v+1. A release only appends to
// them. Each must leave a schema that the previous release can use, because it
// may still be running on the same file.
//
// The columns' order and the two indexes were chosen by measurement:
//
//   - One table with rowids. WITHOUT ROWID, an insert takes twice as long (a
//     row lands on a random page and drags its data along), and a load of 20 KB
//     four times.
//   - data is the last column, not a table of its own: SQLite leaves pages
//     alone whose bytes an UPDATE does not change, so that a touch writes the
//     one page with the times on it, however long the data.
//   - Nothing that a save or touch usually changes is in an index, or each
//     would write one or two more pages. So the index by deadline uses a
//     column that may be earlier: sweep is when to check the row, at the
//     deadline or before. A sweep updates it (see sweep).
//   - row is named, or a VACUUM could change it under a scan.
var migrations = []string{
	`CREATE TABLE sessions (
		row      INTEGER PRIMARY KEY,
		id       BLOB NOT NULL UNIQUE,
		version  INTEGER NOT NULL, -- as a signed number
		save_ids     BLOB NOT NULL,    -- 8 bytes each, big-endian, the newest first
		user     BLOB,             -- NULL: nobody
		created  INTEGER NOT NULL, -- this and the times below: Unix milliseconds
		seen     INTEGER NOT NULL,
		deadline INTEGER NOT NULL,
		expires  INTEGER NOT NULL,
		ended    INTEGER,          -- NULL: not a tombstone
		sweep    INTEGER NOT NULL, -- at the deadline or before
		data     BLOB
	) STRICT;
	CREATE INDEX sessions_user ON sessions(user) WHERE user IS NOT NULL AND ended IS NULL;
	CREATE INDEX sessions_sweep ON sessions(sweep);`,

	// The ends, oldest first. Triggers write them, so that processes of the
	// previous release also do.
	`CREATE TABLE ends (
		number INTEGER PRIMARY KEY AUTOINCREMENT,
		id     BLOB NOT NULL,
		until  INTEGER NOT NULL -- the tombstone's deadline, Unix milliseconds
	) STRICT;
	CREATE INDEX ends_until ON ends(until);
	INSERT INTO ends (id, until) SELECT id, deadline FROM sessions WHERE ended IS NOT NULL;
	CREATE TRIGGER sessions_end AFTER UPDATE OF ended ON sessions WHEN NEW.ended IS NOT NULL
		BEGIN INSERT INTO ends (id, until) VALUES (NEW.id, NEW.deadline); END;
	CREATE TRIGGER sessions_insert_end AFTER INSERT ON sessions WHEN NEW.ended IS NOT NULL
		BEGIN INSERT INTO ends (id, until) VALUES (NEW.id, NEW.deadline); END;`,
}

// migrate brings the database to the newest schema.
func migrate(db *sql.DB) error {
	var version int
	err := inTransaction(db, "BEGIN", func() (err error) {
		version, err = identify(db)
		return err
	})
	if err != nil || version == len(migrations) {
		return err
	}
	return inTransaction(db, "BEGIN IMMEDIATE", func() error {
		version, err := identify(db) // another process may have migrated meanwhile
		if err != nil {
			return err
		}
		for ; version < len(migrations); version++ {
			if _, err := db.Exec(migrations[version]); err != nil {
				return fmt.Errorf("from schema %d: %w", version, err)
			}
		}
		_, err = db.Exec(fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, version))
		return err
	})
}

// identify returns the schema version of the database, 0 for an empty one. It
// changes nothing. It must run in a transaction, or it could see another
// process's partial migration.
func identify(db *sql.DB) (version int, err error) {
	id, err := number(db, "PRAGMA application_id")
	if err != nil {
		return 0, err
	}
	v, err := number(db, "PRAGMA user_version")
	if err != nil {
		return 0, err
	}
	tables, err := number(db, "SELECT count(*) FROM sqlite_schema")
	switch {
	case err != nil:
		return 0, err
	case id == 0 && v == 0 && tables == 0:
		return 0, nil
	case id != applicationID:
		return 0, ErrForeign
	case v > int64(len(migrations)):
		return 0, fmt.Errorf("%w: schema %d, newest known %d", ErrNewer, v, len(migrations))
	}
	return int(v), nil
}

// inTransaction runs f between begin and COMMIT on a single connection, and
// rolls back if f fails.
func inTransaction(db *sql.DB, begin string, f func() error) error {
	if _, err := db.Exec(begin); err != nil {
		return err
	}
	err := f()
	if err == nil {
		_, err = db.Exec("COMMIT")
	}
	if err != nil {
		// Some errors have rolled back already. Then ROLLBACK fails, which is
		// harmless.
		_, _ = db.Exec("ROLLBACK")
	}
	return err
}
