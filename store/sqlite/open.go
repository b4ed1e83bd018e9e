package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// A program that imports this package can open its stores by URL.
func init() {
	open.Register(open.Engine{
		Schemes: []string{"sqlite"},
		Forms:   []string{"sqlite:PATH"},
		Store: func(_ context.Context, url string) (store.Store, io.Closer, error) {
			path, err := urlPath(url)
			if err != nil {
				return nil, nil, err
			}
			db, err := Open(path)
			if err != nil {
				return nil, nil, err
			}
			return db, db, nil
		},
		Schema: func(_ context.Context, url string) (version, newest int, err error) {
			path, err := urlPath(url)
			if err == nil {
				err = existingFile(path)
			}
			if err != nil {
				return 0, 0, err
			}
			return SchemaVersion(path)
		},
	})
}

// urlPath returns the path of the database file that a URL names.
func urlPath(url string) (string, error) {
	_, path, _ := strings.Cut(url, ":")
	if host, _, _ := strings.Cut(strings.TrimPrefix(path, "//"), "/"); strings.HasPrefix(path, "//") && strings.Contains(host, "@") {
		return "", fmt.Errorf("%w: sqlite: a file has neither user nor password", open.ErrURL)
	}
	if path == "" {
		return "", fmt.Errorf("%w: sqlite: needs the path of the database file, such as sqlite:data/sessions.db", open.ErrURL)
	}
	return path, nil
}

// existingFile returns an error unless the file exists and is not empty.
func existingFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s", open.ErrMissing, path)
	case err != nil:
		return fmt.Errorf("opening the store: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", open.ErrMissing, path)
	case info.Size() == 0:
		return fmt.Errorf("%w: %s is empty", open.ErrMissing, path)
	}
	return nil
}
