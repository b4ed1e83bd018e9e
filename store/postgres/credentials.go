package postgres

import (
	"context"
	"errors"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

var errURL = errors.New("postgres: the connection URL cannot be parsed") // pgx's error would quote it, with the password

// reread returns the function that pgxpool calls before it makes a connection.
// It reads again the certificate and key files, the password file and the
// environment, so that they may change while the service runs. Then it calls
// credentials, if not nil.
func reread(url string, credentials func(context.Context) (user, password string, err error)) func(context.Context, *pgx.ConnConfig) error {
	return func(ctx context.Context, c *pgx.ConnConfig) error {
		now, err := pgx.ParseConfig(url)
		if err != nil {
			if file := (*fs.PathError)(nil); errors.As(err, &file) {
				return file // it is being replaced
			}
			return errURL
		}
		c.Host, c.Port, c.User, c.Password = now.Host, now.Port, now.User, now.Password
		c.TLSConfig, c.Fallbacks = now.TLSConfig, now.Fallbacks
		if credentials == nil {
			return nil
		}
		user, password, err := credentials(ctx)
		if err != nil {
			return err
		}
		if user != "" {
			c.User = user
		}
		if password != "" {
			c.Password = password
		}
		return nil
	}
}
