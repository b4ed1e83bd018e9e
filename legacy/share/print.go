package share

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (s *Session) text() string { return "share.Session" }

// Format prints the type, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) { plain.Print(f, s.text()) }

// LogValue is what Format prints.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.text()) }
