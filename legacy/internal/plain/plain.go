// Package plain prints types without their secrets.
//
// A type that can hold a secret (a signing key, a credential, the content of a
// session) has three methods that call this package: Format, which fmt calls
// for every verb, LogValue for log/slog, and, if exported fields hold the
// secret, MarshalText for encoding/json and the handlers of log/slog.
package plain

import (
	"fmt"
	"io"
)

// Print writes text, whatever the verb is.
func Print(f fmt.State, text string) { _, _ = io.WriteString(f, text) }
