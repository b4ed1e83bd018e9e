package sqlite

import (
	"context"
	"fmt"
	"net/url"
	"time"

	lib "modernc.org/sqlite/lib"
)

// SchemaVersion returns the version of the database's schema, 0 for an empty
// file, and the newest version that this package supports, to which Open
// upgrades the database. It changes nothing. It fails if the file is missing,
// and with ErrForeign and ErrNewer like Open.
func SchemaVersion(path string) (version, newest int, err error) {
	const patience = 5 * time.Second
	db, err := connect(path, 1, url.Values{"mode": {"rw"}}, fmt.Sprintf("busy_timeout(%d)", patience.Milliseconds()))
	if err != nil {
		return 0, 0, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	defer db.Close()
	err = retryWhileBusy(context.Background(), patience, func() error {
		return inTransaction(db, "BEGIN", func() (err error) {
			version, err = identify(db)
			return err
		})
	})
	if code(err) == lib.SQLITE_NOTADB {
		err = ErrForeign
	}
	if err != nil {
		return 0, 0, fmt.Errorf("sqlite: read the schema version of %s: %w", path, err)
	}
	return version, len(migrations), nil
}
