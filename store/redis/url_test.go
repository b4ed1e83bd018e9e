package redis

import (
	"crypto/tls"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestURLs(t *testing.T) {
	encrypted := &tls.Config{MinVersion: tls.VersionTLS12}
	for text, want := range map[string]Options{
		"redis://localhost":            {Addrs: []string{"localhost:6379"}},
		"redis://localhost/":           {Addrs: []string{"localhost:6379"}},
		"redis://10.0.0.1:7000/3":      {Addrs: []string{"10.0.0.1:7000"}, DB: 3},
		"redis://[::1]:7000":           {Addrs: []string{"[::1]:7000"}},
		"redis://[::1]":                {Addrs: []string{"[::1]:6379"}},
		"redis://:secret@a":            {Addrs: []string{"a:6379"}, Password: "secret"},
		"redis://u:s%2F%40%23c@a":      {Addrs: []string{"a:6379"}, Username: "u", Password: "s/@#c"},
		"redis://u:a@b@a":              {Addrs: []string{"a:6379"}, Username: "u", Password: "a@b"},
		"redis://a?prefix=x%3A&db=2":   {Addrs: []string{"a:6379"}, Prefix: "x:", DB: 2},
		"redis://a?allow_eviction=1":   {Addrs: []string{"a:6379"}, AllowEviction: true},
		"rediss://u:p@a:1":             {Addrs: []string{"a:1"}, Username: "u", Password: "p", TLS: encrypted},
		"rediscluster://a:1,b,[::1]:3": {Addrs: []string{"a:1", "b:6379", "[::1]:3"}, Cluster: true},
		"redisclusters://u:p@a:1,b:2":  {Addrs: []string{"a:1", "b:2"}, Cluster: true, Username: "u", Password: "p", TLS: encrypted},
		"redis://a?replicas=1&replica_timeout=50ms&dial_timeout=2s": {
			Addrs: []string{"a:6379"}, Replicas: 1, ReplicaTimeout: 50 * time.Millisecond, DialTimeout: 2 * time.Second,
		},
		"redissentinel://u:p@a:1,b/main?db=1&sentinel_username=x&sentinel_password=y": {
			Addrs: []string{"a:1", "b:26379"}, Master: "main", DB: 1, Username: "u", Password: "p", SentinelUsername: "x", SentinelPassword: "y",
		},
		"redissentinels://a/main": {Addrs: []string{"a:26379"}, Master: "main", TLS: encrypted},
	} {
		got, err := ParseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestOtherURLsAreRefusedWithoutTheirPassword(t *testing.T) {
	for _, text := range []string{
		"", "redis", "redis:", "redis:a", "redis://", "redis://:1", "http://u:hunter2@a", "redisx://u:hunter2@a", "redissentinelx://a",
		"redis://u:hunter2@a:port", "redis://u:hunter2@a:1:2", "redis://u:hunter2@a,b", "redis://u:hunter2@a/x", "redis://u:hunter2@a/1/2", "redis://u:hunter2@a/1?db=1",
		"redis://u:hunter2@a/-1", "redis://u:hunter2@a?nothing=1", "redis://u:hunter2@a?db=1&db=2", "redis://u:hunter2@a?db=hunter2", "redis://u:hunter2@a#x",
		"redis://u:hunter2%zz@a", "redis://u:hunter2@a?x=%zz", "redis://u:/hunter2@a", "redis://u:1/hunter2@a", "redis://u:1#hunter2@a", "redis://u:1?hunter2@a",
		"redis://u:hunter2@a?replicas=-1", "redis://u:hunter2@a?replicas=many", "redis://u:hunter2@a?dial_timeout=5", "redis://u:hunter2@a?replica_timeout=-1s",
		"redis://u:hunter2@a?allow_eviction=perhaps", "redis://u:hunter2@a?prefix={x}", "redis://u:hunter2@a?master=main",
		"rediscluster://u:hunter2@a/1", "rediscluster://u:hunter2@a?db=1", "rediscluster://u:hunter2@a,",
		"redissentinel://u:hunter2@a", "redissentinel://u:hunter2@a/",
	} {
		_, err := ParseURL(text)
		if !errors.Is(err, ErrURL) {
			t.Errorf("%s: %v, want ErrURL", text, err)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error contains the password: %v", err)
		}
	}
}

func TestEveryMistakeInOptionsIsNamed(t *testing.T) {
	_, err := Open(t.Context(), Options{
		Addrs: []string{"a", "b:1"}, Cluster: true, Master: "main", Prefix: "{x}", DB: -1, DialTimeout: -1, Replicas: -1, ReplicaTimeout: -1,
	})
	for _, want := range []string{`"a"`, "Cluster and Master", "prefix", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	for what, o := range map[string]Options{
		"no address":                {},
		"two without a Cluster":     {Addrs: []string{"a:1", "b:1"}},
		"a database of a Cluster":   {Addrs: []string{"a:1"}, Cluster: true, DB: 1},
		"a prefix that is too long": {Addrs: []string{"a:1"}, Prefix: strings.Repeat("x", 201)},
	} {
		if _, err := NewCache(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
