package open

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sojourn-go/sojourn/store/postgres"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

// ErrSchema says that a store is there, but was made by an older release, and
// that Existing did not change it. Store brings it up to date.
var ErrSchema = errors.New("the store's schema is of an older release")

// Schema returns the version of the schema that the store at that URL has, 0
// where there is none yet, and the newest that this program knows. It changes
// nothing. Kinds of stores that have no schema answer [errors.ErrUnsupported].
// Errors wrap ErrURL and ErrMissing like those of Existing.
func Schema(ctx context.Context, url string) (version, newest int, err error) {
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return 0, 0, urlError("it has no scheme; %s", forms)
	}
	switch scheme {
	case "sqlite":
		if err := existingFile(rest); err != nil {
			return 0, 0, err
		}
		return sqlite.SchemaVersion(rest)
	case "postgres", "postgresql":
		text, options, err := parsePostgres(url)
		if err != nil {
			return 0, 0, err
		}
		return postgres.SchemaVersion(ctx, text, options)
	case "memory", "redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels", "datastore", "memcached":
		return 0, 0, fmt.Errorf("stores of kind %s have no schema: %w", scheme, errors.ErrUnsupported)
	default:
		return 0, 0, urlError("stores of kind %q are not available; %s", scheme, forms)
	}
}

// current returns an error unless the store at that URL has the newest schema,
// or none that this program would change.
func current(ctx context.Context, url string) error {
	version, newest, err := Schema(ctx, url)
	switch {
	case err != nil:
		return err
	case version == 0:
		return fmt.Errorf("%w: the database has no table for sessions yet", ErrMissing)
	case version < newest:
		return fmt.Errorf("%w: version %d, and this program needs %d: bring it up to date first", ErrSchema, version, newest)
	}
	return nil // a newer one is refused in clearer words when it is opened
}
