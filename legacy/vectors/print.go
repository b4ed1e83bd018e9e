package vectors

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

// The JSON form of these types is complete, because they are for JSON.

func (v File) text() string { return fmt.Sprintf("vectors.File(%s, %d cases)", v.System, len(v.Cases)) }

// Format prints the system and the number of cases, whatever the verb.
func (v File) Format(f fmt.State, _ rune) { plain.Print(f, v.text()) }

// LogValue is what Format prints.
func (v File) LogValue() slog.Value { return slog.StringValue(v.text()) }

func (c Case) text() string { return fmt.Sprintf("vectors.Case(%s)", c.Name) }

// Format prints the name, whatever the verb.
func (c Case) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Case) LogValue() slog.Value { return slog.StringValue(c.text()) }

func (e Expectation) text() string { return fmt.Sprintf("vectors.Expectation(valid: %v)", e.Valid) }

// Format prints whether the session is valid, whatever the verb.
func (e Expectation) Format(f fmt.State, _ rune) { plain.Print(f, e.text()) }

// LogValue is what Format prints.
func (e Expectation) LogValue() slog.Value { return slog.StringValue(e.text()) }

func (e Entry) text() string {
	return fmt.Sprintf("vectors.Entry(%s, %d bytes)", e.Backend, len(e.Value))
}

// Format prints the back end and the size, whatever the verb.
func (e Entry) Format(f fmt.State, _ rune) { plain.Print(f, e.text()) }

// LogValue is what Format prints.
func (e Entry) LogValue() slog.Value { return slog.StringValue(e.text()) }

func (p Property) text() string { return fmt.Sprintf("vectors.Property(%s)", p.Type) }

// Format prints the type of the value, whatever the verb.
func (p Property) Format(f fmt.State, _ rune) { plain.Print(f, p.text()) }

// LogValue is what Format prints.
func (p Property) LogValue() slog.Value { return slog.StringValue(p.text()) }

func (v Verdict) text() string { return fmt.Sprintf("vectors.Verdict(%s, valid: %v)", v.Name, v.Valid) }

// Format prints the name and whether the session is valid, whatever the verb.
func (v Verdict) Format(f fmt.State, _ rune) { plain.Print(f, v.text()) }

// LogValue is what Format prints.
func (v Verdict) LogValue() slog.Value { return slog.StringValue(v.text()) }

func (w Written) text() string { return fmt.Sprintf("vectors.Written(%s)", w.Name) }

// Format prints the name, whatever the verb.
func (w Written) Format(f fmt.State, _ rune) { plain.Print(f, w.text()) }

// LogValue is what Format prints.
func (w Written) LogValue() slog.Value { return slog.StringValue(w.text()) }
