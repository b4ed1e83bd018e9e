package webapp2

import (
	"fmt"
	"log/slog"

	"github.com/sojourn-go/sojourn/legacy/internal/plain"
)

func (c Config) text() string { return fmt.Sprintf("webapp2.Config(%q)", c.Name) }

// Format prints the cookie's name, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { plain.Print(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText returns what Format prints.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.text()), nil }

func (w Format) text() string { return fmt.Sprintf("webapp2.Format(%q)", w.c.Name) }

// Format prints the cookie's name, whatever the verb.
func (w Format) Format(f fmt.State, _ rune) { plain.Print(f, w.text()) }

// LogValue is what Format prints.
func (w Format) LogValue() slog.Value { return slog.StringValue(w.text()) }

func (u User) text() string { return fmt.Sprintf("webapp2.User(%s)", u.ID) }

// Format prints the user's ID, whatever the verb.
func (u User) Format(f fmt.State, _ rune) { plain.Print(f, u.text()) }

// LogValue is what Format prints.
func (u User) LogValue() slog.Value { return slog.StringValue(u.text()) }

// MarshalText returns what Format prints.
func (u User) MarshalText() ([]byte, error) { return []byte(u.text()), nil }

func (d Detail) text() string { return fmt.Sprintf("webapp2.Detail(%v)", d.User) }

// Format prints the user as User.Format does, whatever the verb.
func (d Detail) Format(f fmt.State, _ rune) { plain.Print(f, d.text()) }

// LogValue is what Format prints.
func (d Detail) LogValue() slog.Value { return slog.StringValue(d.text()) }

// MarshalText returns what Format prints.
func (d Detail) MarshalText() ([]byte, error) { return []byte(d.text()), nil }
