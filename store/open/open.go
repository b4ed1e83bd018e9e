// Package open opens a session store, or a cache for package tiered, by its
// URL, for programs that let whoever runs them choose one, such as the sojourn
// command.
//
// Stores:
//
//	memory:                          in this process; gone when it stops
//	sqlite:PATH                      the embedded store, in that file
//	postgres://USER@HOST/DATABASE    PostgreSQL
//	redis://HOST[:PORT][/DB]         Redis or Valkey, one node
//	rediscluster://HOST,HOST…        a Cluster of them
//	redissentinel://HOST,…/NAME      nodes that sentinels watch under that name
//	datastore://PROJECT[/DATABASE]   Google Cloud Datastore
//	memcached://HOST,HOST…           memcached alone: sessions are lost when it restarts or is full
//
// Caches:
//
//	memory:BYTES                     in this process
//	memcached://HOST,HOST…
//	redis://…                        and its relatives, as above
//
// What else such a URL may say, as options after a "?":
//
//   - postgres (or postgresql): what libpq and pgxpool know, and table, the
//     table's name.
//   - redis and its relatives: see [redis.ParseURL]; with rediss, redisclusters
//     and redissentinels, connections use TLS.
//   - datastore: namespace, kind, and ttl_policy (true or false), as in
//     [cloud.Options]. Credentials come from the environment, and
//     DATASTORE_EMULATOR_HOST names an emulator.
//   - memcached: prefix, timeout (such as 250ms) and max_item (bytes), as in
//     [memcached.Options]. The default port is 11211.
//
// It imports every engine that it can open. A service that knows its store does
// better to import that store's package alone.
package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

var (
	// ErrURL says that the text is not the URL of a store or cache that this
	// package can open. What was asked for is wrong; no server is at fault.
	ErrURL = errors.New("not a URL of its kind")

	// ErrMissing says that there is no store at that URL, and that none was made.
	ErrMissing = errors.New("no such store")
)

// forms lists what can be opened, for error texts.
const forms = "use memory:, sqlite:PATH, postgres://USER@HOST/DATABASE, redis://HOST, rediscluster://HOST,HOST, redissentinel://HOST,HOST/NAME, datastore://PROJECT or memcached://HOST,HOST"

// Store opens the store that the URL names, and makes what does not exist yet:
// the file of an embedded one, the table of PostgreSQL, whose schemas are
// brought up to date. It returns an error if
// the store does not answer. The caller closes it with the io.Closer, which is
// never nil when the error is. ctx bounds the opening only; without a deadline
// on it, the opening gives up when the engine does.
//
// Errors wrap ErrURL when the URL is at fault. No error contains the URL's
// password.
func Store(ctx context.Context, url string) (store.Store, io.Closer, error) {
	return openStore(ctx, url, true)
}

// Existing is Store for programs that look at what others keep. It never makes
// a store: a missing one is ErrMissing, and so is memory:, which only the
// process that made it can see. Nor does it change a schema: an older one is
// ErrSchema.
func Existing(ctx context.Context, url string) (store.Store, io.Closer, error) {
	return openStore(ctx, url, false)
}

func openStore(ctx context.Context, url string, create bool) (store.Store, io.Closer, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("opening the store: %w", err)
	}
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return nil, nil, urlError("it has no scheme; %s", forms)
	}
	switch scheme {
	case "memory":
		if rest != "" {
			return nil, nil, urlError("memory: takes no path")
		}
		if !create {
			return nil, nil, fmt.Errorf("%w: a store in memory can be seen by its own process only", ErrMissing)
		}
		return memory.New(), io.NopCloser(nil), nil
	case "sqlite":
		return openSQLite(ctx, rest, create)
	case "postgres", "postgresql":
		return openPostgres(ctx, url, create)
	case "redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels":
		return openRedis(ctx, url)
	case "datastore":
		return openDatastore(ctx, url)
	case "memcached":
		return openMemcached(ctx, url)
	default:
		return nil, nil, urlError("stores of kind %q are not available; %s", scheme, forms)
	}
}

func urlError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrURL, fmt.Errorf(format, args...))
}

// answerTime is how long a server is waited for whose client would wait
// forever, or not even begin to connect.
const answerTime = 10 * time.Second

// answers reports whether a server answers, by asking for a record that there
// cannot be.
func answers(ctx context.Context, s store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := s.Load(ctx, store.ID{}); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

func openSQLite(ctx context.Context, path string, create bool) (store.Store, io.Closer, error) {
	if path == "" {
		return nil, nil, urlError("sqlite: needs the path of the database file, such as sqlite:data/sessions.db")
	}
	if !create {
		if err := current(ctx, "sqlite:"+path); err != nil {
			return nil, nil, err
		}
	}
	db, err := sqlite.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return db, db, nil
}

// existingFile returns an error unless there is a file with something in it.
func existingFile(path string) error {
	if path == "" {
		return urlError("sqlite: needs the path of the database file, such as sqlite:data/sessions.db")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s", ErrMissing, path)
	case err != nil:
		return fmt.Errorf("opening the store: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrMissing, path)
	case info.Size() == 0:
		return fmt.Errorf("%w: %s is empty", ErrMissing, path)
	}
	return nil
}

// openRedis makes nothing: an empty database and a new one are the same.
func openRedis(ctx context.Context, url string) (store.Store, io.Closer, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, urlError("%w", err)
	}
	db, err := redis.Open(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	return db, db, nil
}
