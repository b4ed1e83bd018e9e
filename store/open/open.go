// Package open opens a session store, or a cache for package tiered, by its
// URL, for programs whose operators choose the store, such as the sojourn
// command.
//
// A program imports only the engines that it offers. Each registers itself,
// like a driver of package database/sql:
//
//	import (
//		"github.com/sojourn-go/sojourn/store/open"
//		_ "github.com/sojourn-go/sojourn/store/postgres"
//		_ "github.com/sojourn-go/sojourn/store/sqlite"
//	)
//
//	db, closer, err := open.Store(ctx, os.Getenv("SESSIONS"))
//
// Stores, and their packages in github.com/sojourn-go/sojourn:
//
//	memory:                          in this process; gone when it stops
//	sqlite:PATH                      store/sqlite           the embedded store, in that file
//	postgres://USER@HOST/DATABASE    store/postgres         PostgreSQL
//	redis://HOST[:PORT][/DB]         store/redis            Redis or Valkey, one node
//	rediscluster://HOST,HOST…        store/redis            a Cluster of them
//	redissentinel://HOST,…/NAME      store/redis            nodes that sentinels watch under that name
//	datastore://PROJECT[/DATABASE]   store/datastore/cloud  Google Cloud Datastore
//	memcached://HOST,HOST…           store/memcached        memcached alone: sessions are lost when it restarts or is full
//
// Caches:
//
//	memory:BYTES                     in this process
//	memcached://HOST,HOST…
//	redis://…                        and its relatives, as above
//
// Options of URLs, after a "?":
//
//   - postgres (or postgresql): what libpq and pgxpool know, and table, the
//     table's name.
//   - redis and its relatives: see ParseURL of store/redis; with rediss,
//     redisclusters and redissentinels, connections use TLS.
//   - datastore: namespace, kind, and ttl_policy (true or false), as in Options
//     of store/datastore/cloud. Credentials come from the environment, and
//     DATASTORE_EMULATOR_HOST names an emulator.
//   - postgres, redis and their relatives: password-file=PATH, the file that the
//     password is in, or password-command=COMMAND, a command that writes it to
//     its standard output. Both are used for each new connection, so the
//     password may change; see [PasswordSource].
//   - memcached: prefix, timeout (such as 250ms) and max_item (bytes), as in
//     Options of store/memcached. The default port is 11211.
//
// A service with a fixed store should call that store's package directly.
package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

var (
	// ErrURL means that a text is not the URL of a store or cache that this
	// program can open.
	ErrURL = errors.New("not a valid URL")

	// ErrMissing means that there is no store at that URL, and that none was created.
	ErrMissing = errors.New("no such store")

	// ErrSchema means that Existing found a store with the schema of an older
	// release, and did not change it. Store upgrades it.
	ErrSchema = errors.New("the store's schema is of an older release")
)

// inProcess is the scheme of stores and caches in this process. No engine may register it.
const inProcess = "memory"

// Store opens the store that the URL names, creates what does not exist yet,
// such as a file or a table, and upgrades an older schema. It returns an error
// if the store does not answer. The caller closes it with the io.Closer, which
// is never nil when the error is. ctx bounds the opening only; without a
// deadline, the engine's own limits apply.
//
// Errors wrap ErrURL if the URL is invalid, or names an engine that the program
// does not import. No error contains the URL's password.
func Store(ctx context.Context, url string) (store.Store, io.Closer, error) {
	if err := begin(ctx); err != nil {
		return nil, nil, err
	}
	scheme, rest, _ := strings.Cut(url, ":")
	if scheme == inProcess {
		if rest != "" {
			return nil, nil, urlError("memory: takes no path")
		}
		return memory.New(), io.NopCloser(nil), nil
	}
	e, err := find(stores, url)
	if err != nil {
		return nil, nil, err
	}
	return e.Store(ctx, url)
}

// Existing is Store for programs that read other programs' sessions. It never
// creates a store: a missing one is ErrMissing, and so is memory:, which no
// other process can read. It does not change a schema: an older one is
// ErrSchema.
func Existing(ctx context.Context, url string) (store.Store, io.Closer, error) {
	if err := begin(ctx); err != nil {
		return nil, nil, err
	}
	if url == inProcess+":" {
		return nil, nil, fmt.Errorf("%w: a store in memory can be seen by its own process only", ErrMissing)
	}
	version, newest, err := Schema(ctx, url)
	switch {
	case errors.Is(err, errors.ErrUnsupported): // the engine has no schema
	case err != nil:
		return nil, nil, err
	case version == 0:
		return nil, nil, fmt.Errorf("%w: the database has no table for sessions yet", ErrMissing)
	case version < newest:
		return nil, nil, fmt.Errorf("%w: version %d, and this program needs %d: bring it up to date first", ErrSchema, version, newest)
	}
	return Store(ctx, url) // which refuses a newer schema with a clearer error
}

// Schema returns the schema version of the store at that URL, 0 if there is
// none yet, and the newest version that this program supports. It changes
// nothing. For engines without a schema it returns [errors.ErrUnsupported].
// Errors wrap ErrURL and ErrMissing like those of Existing.
func Schema(ctx context.Context, url string) (version, newest int, err error) {
	scheme, _, _ := strings.Cut(url, ":")
	var e Engine
	if scheme != inProcess {
		if e, err = find(stores, url); err != nil {
			return 0, 0, err
		}
	}
	if e.Schema == nil {
		return 0, 0, fmt.Errorf("stores of kind %s have no schema: %w", scheme, errors.ErrUnsupported)
	}
	return e.Schema(ctx, url)
}

// Cache opens the cache that the URL names, for a layer of package tiered. It
// does not connect, so a service starts even if its cache is down. The caller
// closes the cache with the io.Closer, which is never nil when the error is.
//
// Errors wrap ErrURL, and do not contain the URL's password.
func Cache(url string) (store.Cache, io.Closer, error) {
	if size, ok := strings.CutPrefix(url, inProcess+":"); ok {
		bytes, err := strconv.Atoi(size)
		if err != nil || bytes <= 0 {
			return nil, nil, urlError("a cache in memory needs its size in bytes, such as memory:67108864")
		}
		return tiered.NewMemory(bytes), io.NopCloser(nil), nil
	}
	e, err := find(caches, url)
	if err != nil {
		return nil, nil, err
	}
	return e.Cache(url)
}

func begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	return nil
}

func urlError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrURL, fmt.Errorf(format, args...))
}
