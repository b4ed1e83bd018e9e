package open

import (
	"context"
	"io"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/postgres"
)

func openPostgres(ctx context.Context, url string, create bool) (store.Store, io.Closer, error) {
	text, options, err := parsePostgres(url)
	if err != nil {
		return nil, nil, err
	}
	if !create {
		if err := current(ctx, url); err != nil {
			return nil, nil, err
		}
	}
	db, err := postgres.Open(ctx, text, options)
	if err != nil {
		return nil, nil, err
	}
	return db, db, nil
}

// parsePostgres takes our own options out of the URL: the server would refuse
// what it does not know.
func parsePostgres(text string) (string, postgres.Options, error) {
	if !strings.Contains(text, "://") {
		return "", postgres.Options{}, urlError("it is not written as in postgres://USER@HOST/DATABASE")
	}
	var o postgres.Options
	if before, rest, ok := strings.Cut(text, "?"); ok {
		query, err := url.ParseQuery(rest)
		if err != nil {
			return "", o, urlError("its options are not written as in a URL")
		}
		if o.Table, err = single(query, "table"); err != nil {
			return "", o, err
		}
		text = before
		if query.Del("table"); len(query) > 0 {
			text += "?" + query.Encode()
		}
	}
	if _, err := pgxpool.ParseConfig(text); err != nil {
		// The error would quote it, password and all.
		return "", o, urlError("it is not written as in postgres://USER@HOST/DATABASE, or has an option of the wrong kind")
	}
	return text, o, nil
}
