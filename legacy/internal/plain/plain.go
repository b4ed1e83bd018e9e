// Package plain prints what holds secrets without them.
//
// A type that can hold a secret (a signing key, a credential, the content of a
// session) has three methods that call this package: Format, which fmt asks
// whatever the verb, LogValue for log/slog, and MarshalText for encoding/json
// and the handlers of log/slog where exported fields hold the secret.
package plain

import (
	"fmt"
	"io"
)

// Print writes text, whatever the verb is.
func Print(f fmt.State, text string) { _, _ = io.WriteString(f, text) }
