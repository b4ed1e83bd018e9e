package memcachevars

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (d Detail) text() string { return fmt.Sprintf("memcachevars.Detail(%d variables)", len(d.Stored)) }

// Format prints the number of variables, whatever the verb.
func (d Detail) Format(f fmt.State, _ rune) { plain.Print(f, d.text()) }

// LogValue is what Format prints.
func (d Detail) LogValue() slog.Value { return slog.StringValue(d.text()) }

// MarshalText returns what Format prints.
func (d Detail) MarshalText() ([]byte, error) { return []byte(d.text()), nil }
