package legacy

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (s Session) text() string { return fmt.Sprintf("legacy.Session(%d values)", s.Data.Len()) }

// Format prints the number of values, whatever the verb.
func (s Session) Format(f fmt.State, _ rune) { plain.Print(f, s.text()) }

// LogValue is what Format prints.
func (s Session) LogValue() slog.Value { return slog.StringValue(s.text()) }

// MarshalText returns what Format prints.
func (s Session) MarshalText() ([]byte, error) { return []byte(s.text()), nil }

func (e Entry) text() string { return fmt.Sprintf("legacy.Entry(%d bytes)", len(e.Value)) }

// Format prints the size, whatever the verb.
func (e Entry) Format(f fmt.State, _ rune) { plain.Print(f, e.text()) }

// LogValue is what Format prints.
func (e Entry) LogValue() slog.Value { return slog.StringValue(e.text()) }

// MarshalText returns what Format prints.
func (e Entry) MarshalText() ([]byte, error) { return []byte(e.text()), nil }

func (g *Guard) text() string { return "legacy.Guard" }

// Format prints the type, without the recorded keys, whatever the verb.
func (g *Guard) Format(f fmt.State, _ rune) { plain.Print(f, g.text()) }

// LogValue is what Format prints.
func (g *Guard) LogValue() slog.Value { return slog.StringValue(g.text()) }
