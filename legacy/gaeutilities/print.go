package gaeutilities

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (d Detail) text() string { return fmt.Sprintf("gaeutilities.Detail(%d tokens)", len(d.Tokens)) }

// Format prints the number of tokens, whatever the verb.
func (d Detail) Format(f fmt.State, _ rune) { plain.Print(f, d.text()) }

// LogValue is what Format prints.
func (d Detail) LogValue() slog.Value { return slog.StringValue(d.text()) }

// MarshalText returns what Format prints.
func (d Detail) MarshalText() ([]byte, error) { return []byte(d.text()), nil }
