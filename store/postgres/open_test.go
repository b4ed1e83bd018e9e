package postgres_test

import (
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/opentest"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	_ "github.com/sojourn-go/sojourn/store/postgres"
)

func TestByURL(t *testing.T) {
	url := servers.Postgres(t).PostgresURL() + "&pool_max_conns=2"
	opentest.Run(t, opentest.Engine{
		Stores: []string{url, url + "&table=others", strings.Replace(url, "postgres://", "postgresql://", 1) + "&table=alias"},
		Schema: true,
		Away:   []string{"postgres://root:hunter2@127.0.0.1:1/app"},
		Refused: []string{
			"postgres:", "postgres:x", "postgres:hunter2", "postgres://u:hunter2@h:port/db", "postgres://u:hunter2@h/db?sslmode=hunter2",
			"postgres://h/db?table=", "postgres://h/db?table=a&table=b", "postgres://u:hunter2%zz@h/db", "postgres://h/db?pool_max_conns=many",
			"postgres://h/db?password-file=", "postgres://h/db?password-file=a&password-command=b",
		},
		RefusedCaches: []string{"postgres://root:hunter2@db/app"},
	})
}
