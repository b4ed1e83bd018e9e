package sqlite

import (
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"github.com/sojourn-go/sojourn/store"
)

// refused marks the error of a request that changed nothing: its transaction
// did not begin, or was rolled back.
func refused(err error) error {
	if err == nil || isAnswer(err) || errors.Is(err, store.ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrRefused, err)
}

// refusals are the primary result codes after which a commit was certainly not
// made: its commit record was not written. After any other code it may be in
// the log, and be recovered later.
var refusals = map[int]bool{
	lib.SQLITE_ERROR:      true, // a table that is missing, or a transaction that was rolled back
	lib.SQLITE_BUSY:       true, // another process is writing
	lib.SQLITE_LOCKED:     true,
	lib.SQLITE_PERM:       true,
	lib.SQLITE_READONLY:   true,
	lib.SQLITE_FULL:       true,
	lib.SQLITE_CANTOPEN:   true,
	lib.SQLITE_CORRUPT:    true,
	lib.SQLITE_NOTADB:     true,
	lib.SQLITE_SCHEMA:     true,
	lib.SQLITE_TOOBIG:     true,
	lib.SQLITE_CONSTRAINT: true,
}

// atCommit marks the error of a statement that commits.
func atCommit(err error) error {
	if refusals[code(err)] {
		return refused(err)
	}
	return err
}

// explained adds an explanation for operators to an error.
func explained(err error) error {
	switch code(err) {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("the database file is damaged, or another program has written to it while it was open: %w", err)
	default:
		return err
	}
}
