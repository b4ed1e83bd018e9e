// Package open opens a session store by its URL, for programs that let whoever
// runs them choose one, such as the sojourn command:
//
//	memory:                      in this process; gone when it stops
//	sqlite:PATH                  the embedded store, in that file
//	redis://HOST[:PORT][/DB]     Redis or Valkey, one node
//	rediscluster://HOST,HOST…    a Cluster of them
//	redissentinel://HOST,…/NAME  nodes that sentinels watch under that name
//
// With rediss, redisclusters and redissentinels, connections use TLS; what else
// such a URL may say is with [redis.ParseURL].
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

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

var (
	// ErrURL says that the text is not the URL of a store that this package can
	// open. What was asked for is wrong; no store is at fault.
	ErrURL = errors.New("not a store URL")

	// ErrMissing says that there is no store at that URL, and that none was made.
	ErrMissing = errors.New("no such store")
)

// forms lists what can be opened, for error texts.
const forms = "use memory:, sqlite:PATH, redis://HOST, rediscluster://HOST,HOST or redissentinel://HOST,HOST/NAME"

// Store opens the store that the URL names, and makes an embedded one that does
// not exist yet. The caller closes it with the io.Closer, which is never nil
// when the error is. ctx bounds the opening only.
//
// Errors wrap ErrURL when the URL is at fault. No error contains the URL's
// password.
func Store(ctx context.Context, url string) (store.Store, io.Closer, error) {
	return openStore(ctx, url, true)
}

// Existing is Store for programs that look at what others keep. It never makes
// a store: a missing one is ErrMissing, and so is memory:, which only the
// process that made it can see. A server's database always exists.
func Existing(ctx context.Context, url string) (store.Store, io.Closer, error) {
	return openStore(ctx, url, false)
}

func openStore(ctx context.Context, url string, create bool) (store.Store, io.Closer, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("opening the store: %w", err)
	}
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return nil, nil, fmt.Errorf("%w: it has no scheme; %s", ErrURL, forms)
	}
	switch scheme {
	case "memory":
		if rest != "" {
			return nil, nil, fmt.Errorf("%w: memory: takes no path", ErrURL)
		}
		if !create {
			return nil, nil, fmt.Errorf("%w: a store in memory can be seen by its own process only", ErrMissing)
		}
		return memory.New(), io.NopCloser(nil), nil
	case "sqlite":
		return openSQLite(rest, create)
	case "redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels":
		return openRedis(ctx, url)
	default:
		return nil, nil, fmt.Errorf("%w: stores of kind %q are not available; %s", ErrURL, scheme, forms)
	}
}

func openSQLite(path string, create bool) (store.Store, io.Closer, error) {
	if path == "" {
		return nil, nil, fmt.Errorf("%w: sqlite: needs the path of the database file, such as sqlite:data/sessions.db", ErrURL)
	}
	if !create {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, nil, fmt.Errorf("%w: there is no file %s", ErrMissing, path)
		case err != nil:
			return nil, nil, fmt.Errorf("opening the store: %w", err)
		case !info.Mode().IsRegular():
			return nil, nil, fmt.Errorf("%w: %s is not a regular file", ErrMissing, path)
		case info.Size() == 0:
			return nil, nil, fmt.Errorf("%w: %s is empty", ErrMissing, path)
		}
	}
	db, err := sqlite.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return db, db, nil
}

// openRedis makes nothing: an empty database and a new one are the same.
func openRedis(ctx context.Context, url string) (store.Store, io.Closer, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	db, err := redis.Open(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	return db, db, nil
}
