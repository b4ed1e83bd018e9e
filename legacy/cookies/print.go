package cookies

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (c Cookie) text() string { return fmt.Sprintf("cookies.Cookie(%q)", c.Name) }

// Format prints the name, whatever the verb.
func (c Cookie) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Cookie) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText returns what Format prints.
func (c Cookie) MarshalText() ([]byte, error) { return []byte(c.text()), nil }
