package gorilla

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (k KeyPair) text() string {
	return fmt.Sprintf("gorilla.KeyPair(%d and %d bytes)", len(k.Hash), len(k.Block))
}

// Format prints the lengths of the keys, whatever the verb.
func (k KeyPair) Format(f fmt.State, _ rune) { plain.Print(f, k.text()) }

// LogValue is what Format prints.
func (k KeyPair) LogValue() slog.Value { return slog.StringValue(k.text()) }

// MarshalText returns what Format prints.
func (k KeyPair) MarshalText() ([]byte, error) { return []byte(k.text()), nil }

func (c Config) text() string { return fmt.Sprintf("gorilla.Config(%q, %d keys)", c.Name, len(c.Keys)) }

// Format prints the session's name and the number of keys, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText returns what Format prints.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.text()), nil }

func (g Format) text() string { return fmt.Sprintf("gorilla.Format(%q)", g.c.Name) }

// Format prints the session's name, whatever the verb.
func (g Format) Format(f fmt.State, _ rune) { plain.Print(f, g.text()) }

// LogValue is what Format prints.
func (g Format) LogValue() slog.Value { return slog.StringValue(g.text()) }
