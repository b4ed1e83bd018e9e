package entity

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sojourn-go/sojourn/store"
)

// Kind is the default kind of the entities.
const Kind = "SojournSession"

var partName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,100}$`)

// CheckNames returns an error for an invalid kind or namespace.
func CheckNames(kind, namespace string) error {
	return errors.Join(checkName("kind", kind), checkName("namespace", namespace))
}

func checkName(what, name string) error {
	if !partName.MatchString(name) || strings.HasPrefix(name, "__") {
		return fmt.Errorf("%s %.120q: up to 100 letters, digits, \".\", \"_\" and \"-\", not beginning with \"__\"", what, name)
	}
	return nil
}

// Failed adds the operation to err, unless err is nil or an error of package
// store about a save's outcome. If the context has ended, its error comes
// first, because the client libraries have their own errors for that.
func Failed(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrLimit):
		return err
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%s: %w: %w", doing, ctx.Err(), hushed{err})
	}
	return fmt.Errorf("%s: %w", doing, hushed{err})
}

// hushed is an error of the service without the handles in its text: the
// service quotes the keys of entities.
type hushed struct{ err error }

var handles = regexp.MustCompile(`[a-z2-7]{26}`)

func (h hushed) Error() string { return handles.ReplaceAllString(h.err.Error(), "…") }
func (h hushed) Unwrap() error { return h.err }
