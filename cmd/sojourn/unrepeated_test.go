package main

import (
	"strings"
	"testing"
)

// A password that is typed in the wrong place is not written to a screen or a log.
func TestNoErrorRepeatsAPassword(t *testing.T) {
	for _, url := range []string{
		"memcached:/u:hunter2@h", "memcached://u:hunter2@h", "memcached:hunter2", "datastore:u:hunter2@h", "datastore://u:hunter2@h",
		"redis://:hunter2@127.0.0.1:1", "redis:hunter2@h", "redis://u:1/hunter2@h", "redis://u:p@hunter2@127.0.0.1:1", "rediss://u:hunter2@127.0.0.1:1",
		"rediscluster://u:hunter2@127.0.0.1:1,127.0.0.1:2", "redissentinel://u:hunter2@127.0.0.1:1/m",
		"postgres:u:hunter2@h/db", "postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:p@hunter2@127.0.0.1:1/db", "postgres://u:hunter2%zz@h/db",
		"sqlite://u:hunter2@h/db", "mysql://u:hunter2@h/db", "u:hunter2@h", ":hunter2@h", "hunter2:@h", "hunter2",
	} {
		for _, args := range [][]string{
			{"ls", url},
			{"ls", "--store", url},
			{"ls", "--store=" + url},
			{"stats", "--store", url},
			{"stats", url},
			{"migrate", url},
			{"copy", url, "memory:"},
			{"show", url, "--store", url},
			{"ls", "--limit", url},
			{"ls", "--limit=" + url},
			{url},
			{"ls", "--u:" + url},
			{"copy", url, url, url},
		} {
			var out, messages strings.Builder
			status := run(t.Context(), args, terminal{in: strings.NewReader(""), out: &out, messages: &messages})
			if said := out.String() + messages.String(); strings.Contains(said, "hunter2") {
				t.Errorf("%v: status %d, %s", args, status, said)
			}
		}
	}
}
