package memory

import (
	"fmt"
	"io"
	"log/slog"
)

// Format prints the type, whatever the verb, and none of the records.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "memory.Store") }

// LogValue is what Format prints.
func (s *Store) LogValue() slog.Value { return slog.StringValue("memory.Store") }
