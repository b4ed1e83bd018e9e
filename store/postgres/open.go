package postgres

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// A program that imports this package can open its stores by URL.
func init() {
	open.Register(open.Engine{
		Schemes: []string{"postgres", "postgresql"},
		Forms:   []string{"postgres://USER@HOST/DATABASE"},
		Store: func(ctx context.Context, url string) (store.Store, io.Closer, error) {
			text, o, err := parseURL(url)
			if err != nil {
				return nil, nil, err
			}
			db, err := Open(ctx, text, o)
			if err != nil {
				return nil, nil, err
			}
			return db, db, nil
		},
		Schema: func(ctx context.Context, url string) (version, newest int, err error) {
			text, o, err := parseURL(url)
			if err != nil {
				return 0, 0, err
			}
			return SchemaVersion(ctx, text, o)
		},
	})
}

// parseURL removes our own options from the URL, which the server would refuse.
// Its errors do not repeat the URL, which may contain a password.
func parseURL(text string) (string, Options, error) {
	var o Options
	if !strings.Contains(text, "://") {
		return "", o, urlError("it is not written as in postgres://USER@HOST/DATABASE")
	}
	if before, rest, ok := strings.Cut(text, "?"); ok {
		query, err := url.ParseQuery(rest)
		if err != nil {
			return "", o, urlError("its options are not written as in a URL")
		}
		if tables, given := query["table"]; given {
			if o.Table = tables[0]; len(tables) > 1 || o.Table == "" {
				return "", o, urlError("table is given twice, or empty")
			}
		}
		password, err := open.PasswordSource(query)
		if err != nil {
			return "", o, err
		}
		if password != nil {
			o.Credentials = func(ctx context.Context) (string, string, error) {
				word, err := password(ctx)
				return "", word, err
			}
		}
		text = before
		if query.Del("table"); len(query) > 0 {
			text += "?" + query.Encode()
		}
	}
	if _, err := pgxpool.ParseConfig(text); err != nil {
		return "", o, urlError("it is not written as in postgres://USER@HOST/DATABASE, or has an option of the wrong kind")
	}
	return text, o, nil
}

func urlError(text string) error { return fmt.Errorf("%w: %s", open.ErrURL, text) }
