package redis_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/opentest"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store/open"
	_ "github.com/sojourn-go/sojourn/store/redis"
)

func TestByURL(t *testing.T) {
	server := servers.Redis(t).Addr
	opentest.Run(t, opentest.Engine{
		Stores:     []string{"redis://" + server, "redis://" + server + "?prefix=a:", "redis://" + server + "/1?prefix=a:"},
		Caches:     []string{"redis://" + server + "?prefix=b:"},
		Away:       []string{"redis://root:hunter2@127.0.0.1:1"},
		AwayCaches: []string{"redis://:hunter2@127.0.0.1:1", "rediscluster://127.0.0.1:1,127.0.0.1:2", "redissentinel://127.0.0.1:1/main"},
		Refused:    []string{"redis:", "redis://root:hunter2@db/sessions", "rediscluster://:hunter2@db?x=y"},

		RefusedCaches: []string{"redis://", "redis://:hunter2@a?x=hunter2", "redis://:hunter2@a:port"},
	})
}

func TestARedisThatEvictsIsACacheAndNoStore(t *testing.T) {
	url := "redis://" + servers.Redis(t, "--maxmemory-policy", "allkeys-lru").Addr
	if _, _, err := open.Store(t.Context(), url); err == nil || errors.Is(err, open.ErrURL) || !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Errorf("as a store: %v", err)
	}
	opentest.Run(t, opentest.Engine{Stores: []string{url + "?allow_eviction=true"}, Caches: []string{url}})
}
