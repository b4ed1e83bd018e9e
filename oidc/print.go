package oidc

import (
	"fmt"
	"io"
	"log/slog"
)

func (c Config) text() string {
	return fmt.Sprintf("oidc.Config(issuer %s, client %s)", c.Issuer, c.ClientID)
}

// Format prints the issuer and the client, whatever the verb, and no secret.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.text()) }

// LogValue is what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

// MarshalText is what Format prints.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.text()), nil }

// Format prints the issuer and the client, whatever the verb, and no secret.
func (s *SignIn) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.text()) }

// LogValue is what Format prints.
func (s *SignIn) LogValue() slog.Value { return slog.StringValue(s.text()) }

func (s *SignIn) text() string {
	return fmt.Sprintf("oidc.SignIn(issuer %s, client %s)", s.cfg.Issuer, s.cfg.ClientID)
}

func (id Identity) text() string { return fmt.Sprintf("oidc.Identity(%s %s)", id.Issuer, id.Subject) }

// Format prints issuer and subject, whatever the verb, and no claims.
func (id Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, id.text()) }

// LogValue is what Format prints.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.text()) }

// MarshalText is what Format prints.
func (id Identity) MarshalText() ([]byte, error) { return []byte(id.text()), nil }

// Format prints what Error returns, whatever the verb.
func (e Error) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.Error()) }

// LogValue is what Format prints.
func (e Error) LogValue() slog.Value { return slog.StringValue(e.Error()) }

// MarshalText is what Format prints.
func (e Error) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }
