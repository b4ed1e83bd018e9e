// Package fault has the errors that applications distinguish, so that every
// package can return them. The root package re-exports them under its public
// names, which are also in their texts.
package fault

import (
	"errors"
	"fmt"
)

var (
	Unavailable = errors.New("sojourn: the session store is unavailable")
	Ended       = errors.New("sojourn: the session has ended")
	Expired     = errors.New("sojourn: the session has expired")
	Closed      = errors.New("sojourn: the manager is closed")
	Taken       = errors.New("sojourn: the value was already taken")
	TooLarge    = errors.New("sojourn: the session is too large")
	TooMany     = errors.New("sojourn: the user has too many sessions")
	NoStore     = errors.New("sojourn: this value needs a store, and the manager has none")
	NotFound    = errors.New("sojourn: no such session")
	NoValue     = errors.New("sojourn: no such value")
	Renew       = errors.New("sojourn: the value could not be renewed")
	BadValue    = errors.New("sojourn: unusable value")
)

// ErrUnknown means that the store may or may not have applied a save: it did
// not answer before the deadline. It is wrapped together with Unavailable.
var ErrUnknown = errors.New("it is not known whether it was saved")

// Away wraps an error of the store in Unavailable.
func Away(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", Unavailable, doing, err)
}

// Size returns the error for a size of n bytes above the limit most.
func Size(n, most int) error {
	return fmt.Errorf("%w: %d bytes, at most %d", TooLarge, n, most)
}

// Reentry is the panic value when an Update function uses its session. Code
// that turns panics into errors must not catch it.
const Reentry = "sojourn: an Update function, and the check of LoginIf, must not use the session: an Update gets the value as its argument and returns the new one"
