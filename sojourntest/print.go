package sojourntest

import (
	"fmt"
	"io"
	"log/slog"
)

// Format prints the type, whatever the verb, and no cookie.
func (b *Browser) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sojourntest.Browser") }

// LogValue is what Format prints.
func (b *Browser) LogValue() slog.Value { return slog.StringValue("sojourntest.Browser") }

// Format prints the type, whatever the verb, and no token.
func (c Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sojourntest.Client") }

// LogValue is what Format prints.
func (c Client) LogValue() slog.Value { return slog.StringValue("sojourntest.Client") }

func (o Outcome) text() string {
	status := 0
	if o.Response != nil {
		status = o.StatusCode
	}
	return fmt.Sprintf("sojourntest.Outcome(status %d, %v)", status, o.Session)
}

// Format prints the status and the session's handle, whatever the verb, and no
// cookie.
func (o Outcome) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.text()) }

// LogValue is what Format prints.
func (o Outcome) LogValue() slog.Value { return slog.StringValue(o.text()) }

// MarshalText returns what Format prints.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.text()), nil }
