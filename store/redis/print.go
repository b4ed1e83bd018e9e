package redis

import (
	"fmt"
	"io"
	"log/slog"
)

func (o Options) text() string {
	return fmt.Sprintf("redis.Options(%d servers, user %q)", len(o.Addrs), o.Username)
}

// Format prints the number of servers and the name of the ACL user, whatever the
// verb, and no password.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.text()) }

// LogValue is what Format prints.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.text()) }

// MarshalText returns what Format prints.
func (o Options) MarshalText() ([]byte, error) { return []byte(o.text()), nil }

// Format prints the type, whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "redis.Store") }

// LogValue is what Format prints.
func (s *Store) LogValue() slog.Value { return slog.StringValue("redis.Store") }

// Format prints the type, whatever the verb: the cache keeps its Options.
func (c *Cache) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "redis.Cache") }

// LogValue is what Format prints.
func (c *Cache) LogValue() slog.Value { return slog.StringValue("redis.Cache") }
