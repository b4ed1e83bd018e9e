package redis

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/printtest"
)

func TestPasswordsAreNotPrinted(t *testing.T) {
	o := Options{Addrs: []string{"127.0.0.1:1"}, Username: "u", Password: "canary-password", SentinelUsername: "v", SentinelPassword: "canary-sentinel"}
	cache, err := NewCache(o)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	parsed, err := ParseURL("redis://u:canary-password@localhost")
	if err != nil {
		t.Fatal(err)
	}
	printtest.Silent(t, []printtest.Secret{{Name: "password", Value: []byte("canary-password")}, {Name: "sentinels' password", Value: []byte("canary-sentinel")}},
		map[string]any{"options": o, "a pointer to them": &o, "those of a URL": parsed, "a cache": cache})
}
