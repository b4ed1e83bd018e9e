package appengine

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (p Property) text() string { return fmt.Sprintf("appengine.Property(%q)", p.Name) }

// Format prints the name, whatever the verb.
func (p Property) Format(f fmt.State, _ rune) { plain.Print(f, p.text()) }

// LogValue is what Format prints.
func (p Property) LogValue() slog.Value { return slog.StringValue(p.text()) }

// MarshalText returns what Format prints.
func (p Property) MarshalText() ([]byte, error) { return []byte(p.text()), nil }

func (e Entity) text() string { return fmt.Sprintf("appengine.Entity(%d properties)", len(e)) }

// Format prints the number of properties, whatever the verb.
func (e Entity) Format(f fmt.State, _ rune) { plain.Print(f, e.text()) }

// LogValue is what Format prints.
func (e Entity) LogValue() slog.Value { return slog.StringValue(e.text()) }

// MarshalText returns what Format prints.
func (e Entity) MarshalText() ([]byte, error) { return []byte(e.text()), nil }

func (e Element) text() string { return fmt.Sprintf("appengine.Element(%q)", e.Kind) }

// Format prints the kind, whatever the verb: the name may be a session's identifier.
func (e Element) Format(f fmt.State, _ rune) { plain.Print(f, e.text()) }

// LogValue is what Format prints.
func (e Element) LogValue() slog.Value { return slog.StringValue(e.text()) }

// MarshalText returns what Format prints.
func (e Element) MarshalText() ([]byte, error) { return []byte(e.text()), nil }

func (k Key) text() string { return fmt.Sprintf("appengine.Key(%v)", k.Path) }

// Format prints the kinds, whatever the verb: names may be sessions' identifiers.
func (k Key) Format(f fmt.State, _ rune) { plain.Print(f, k.text()) }

// LogValue is what Format prints.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.text()) }

// MarshalText returns what Format prints.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.text()), nil }
