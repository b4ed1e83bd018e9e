package sitetest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// LogBook is a log handler that keeps a line for each record, with its level,
// message and attributes.
type LogBook struct {
	mu    sync.Mutex
	lines []string
}

// Enabled implements [slog.Handler]: every level is kept.
func (b *LogBook) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements [slog.Handler].
func (b *LogBook) WithAttrs([]slog.Attr) slog.Handler { return b }

// WithGroup implements [slog.Handler].
func (b *LogBook) WithGroup(string) slog.Handler { return b }

// Handle implements [slog.Handler].
func (b *LogBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// With returns the lines that contain text.
func (b *LogBook) With(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.with(text)
}

func (b *LogBook) with(text string) (found []string) {
	for _, line := range b.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// Take returns the lines that contain text, and forgets all lines.
func (b *LogBook) Take(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := b.with(text)
	b.lines = nil
	return found
}

// All returns every line.
func (b *LogBook) All() []string { return b.With("") }
