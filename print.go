package sojourn

import (
	"fmt"
	"io"
	"log/slog"
)

// Types that reach a secret (a cookie, an identifier, a key, a session's values)
// have a Format method here, which fmt asks whatever the verb, and LogValue for
// log/slog. Those whose exported fields hold one have MarshalText too, which
// encoding/json and the handlers of log/slog use. Receivers are values where the
// type is used by value: a method of the pointer is not found in a copy.
//
// A method cannot help a value in somebody's unexported field: fmt calls no
// methods there. It does not follow pointers there either.

func printText(f fmt.State, text string) { _, _ = io.WriteString(f, text) }

// handleOf returns the session's handle, or "in use" where somebody is changing
// the session, perhaps the caller: printing never waits.
func handleOf(s *Session) string {
	if s == nil || s.session == nil {
		return "none"
	}
	if !s.mu.TryLock() {
		return "in use"
	}
	defer s.mu.Unlock()
	if s.last == nil { // it was not loaded
		return "none"
	}
	return s.identity().ID.String()
}

// Format prints the handle, or "in use" while it is being changed, whatever
// the verb.
func (s *Session) Format(f fmt.State, _ rune) { printText(f, "sojourn.Session("+handleOf(s)+")") }

// LogValue is the session's handle, as Format prints it.
func (s *Session) LogValue() slog.Value { return slog.StringValue(handleOf(s)) }

func (m *Manager) text() string {
	if m == nil {
		return "sojourn.Manager(none)"
	}
	return "sojourn.Manager(" + m.name + ")"
}

// Format prints the manager's name, whatever the verb.
func (m *Manager) Format(f fmt.State, _ rune) { printText(f, m.text()) }

// LogValue is what Format prints.
func (m *Manager) LogValue() slog.Value { return slog.StringValue(m.text()) }

func (c Config) text() string {
	return fmt.Sprintf("sojourn.Config(name %q, store %T, %v)", c.Name, c.Store, c.Keys)
}

// Format prints the name, the type of the store and the key ring, whatever the
// verb.
func (c Config) Format(f fmt.State, _ rune) { printText(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

func (a Adopt) text() string { return fmt.Sprintf("sojourn.Adopt(%d formats)", len(a.From)) }

// Format prints how many formats there are, whatever the verb.
func (a Adopt) Format(f fmt.State, _ rune) { printText(f, a.text()) }

// LogValue is what Format prints.
func (a Adopt) LogValue() slog.Value { return slog.StringValue(a.text()) }

func (b WriteBack) text() string { return fmt.Sprintf("sojourn.WriteBack(%T)", b.To) }

// Format prints the type of the format, whatever the verb.
func (b WriteBack) Format(f fmt.State, _ rune) { printText(f, b.text()) }

// LogValue is what Format prints.
func (b WriteBack) LogValue() slog.Value { return slog.StringValue(b.text()) }

func (e Export) text() string {
	return fmt.Sprintf("sojourn.Export(%s, %d values)", e.Handle, len(e.Values))
}

// Format prints the handle and the number of values, whatever the verb.
func (e Export) Format(f fmt.State, _ rune) { printText(f, e.text()) }

// LogValue is what Format prints.
func (e Export) LogValue() slog.Value { return slog.StringValue(e.text()) }

// Format keeps the request's header, and the session, out of what prints the
// context or the response writer of a wrapped request.
func (q *exchange) Format(f fmt.State, _ rune) { printText(f, "sojourn request of "+q.m.text()) }

// LogValue is what Format prints.
func (q *exchange) LogValue() slog.Value { return slog.StringValue("sojourn request of " + q.m.text()) }
