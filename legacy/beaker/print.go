package beaker

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (c Config) text() string { return fmt.Sprintf("beaker.Config(%q)", c.Name) }

// Format prints the cookie's name, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText returns what Format prints.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.text()), nil }

func (b Format) text() string { return fmt.Sprintf("beaker.Format(%q)", b.c.Name) }

// Format prints the cookie's name, whatever the verb.
func (b Format) Format(f fmt.State, _ rune) { plain.Print(f, b.text()) }

// LogValue is what Format prints.
func (b Format) LogValue() slog.Value { return slog.StringValue(b.text()) }

func (d Detail) text() string { return fmt.Sprintf("beaker.Detail(%d entries)", d.Meta.Len()) }

// Format prints the number of entries, whatever the verb.
func (d Detail) Format(f fmt.State, _ rune) { plain.Print(f, d.text()) }

// LogValue is what Format prints.
func (d Detail) LogValue() slog.Value { return slog.StringValue(d.text()) }

// MarshalText returns what Format prints.
func (d Detail) MarshalText() ([]byte, error) { return []byte(d.text()), nil }
