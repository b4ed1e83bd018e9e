package store

import (
	"fmt"
	"io"
	"log/slog"
)

func (r Record) text() string {
	if r.IsEnd() {
		return fmt.Sprintf("store.Record(%v, version %d, ended)", r.ID, r.Version)
	}
	return fmt.Sprintf("store.Record(%v, version %d, %d bytes)", r.ID, r.Version, len(r.Data))
}

// Format prints the handle, the version and the size, whatever the verb. It does
// not print Data and User.
func (r Record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.text()) }

// LogValue is what Format prints.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.text()) }

func (v Volatile) text() string { return fmt.Sprintf("store.Volatile(%d bytes)", len(v.Data)) }

// Format prints the size, whatever the verb.
func (v Volatile) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.text()) }

// LogValue is what Format prints.
func (v Volatile) LogValue() slog.Value { return slog.StringValue(v.text()) }
