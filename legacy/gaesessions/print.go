package gaesessions

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (c Config) text() string {
	return fmt.Sprintf("gaesessions.Config(a key of %d bytes)", len(c.Key))
}

// Format prints the length of the key, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText returns what Format prints.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.text()), nil }

func (g Format) text() string { return "gaesessions.Format" }

// Format prints the type, whatever the verb.
func (g Format) Format(f fmt.State, _ rune) { plain.Print(f, g.text()) }

// LogValue is what Format prints.
func (g Format) LogValue() slog.Value { return slog.StringValue(g.text()) }
