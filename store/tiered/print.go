package tiered

import (
	"fmt"
	"io"
	"log/slog"
)

func (s *Store) text() string {
	if s == nil {
		return "tiered.Store(none)"
	}
	return fmt.Sprintf("tiered.Store(%T, %d layers)", s.origin, len(s.layers))
}

// Format prints the type of the store behind the caches and their number,
// whatever the verb.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.text()) }

// LogValue is what Format prints.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.text()) }

// Format prints the type, whatever the verb, and none of the entries.
func (c *Memory) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tiered.Memory") }

// LogValue is what Format prints.
func (c *Memory) LogValue() slog.Value { return slog.StringValue("tiered.Memory") }
