package entity

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sojourn-go/sojourn/store"
)

// Kind is the kind of the entities, unless a store is told another one.
const Kind = "SojournSession"

var partName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,100}$`)

// CheckNames says what is wrong with the names of a kind and a namespace.
func CheckNames(kind, namespace string) error {
	return errors.Join(checkName("kind", kind), checkName("namespace", namespace))
}

func checkName(what, name string) error {
	if !partName.MatchString(name) || strings.HasPrefix(name, "__") {
		return fmt.Errorf("%s %.120q: up to 100 letters, digits, \".\", \"_\" and \"-\", not beginning with \"__\"", what, name)
	}
	return nil
}

// Failed says what was being done when err came back, unless err is nil or one of
// those of package store that say what became of a save. What the context did
// comes first: the client libraries have errors of their own for it.
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

// hushed is an error of the service whose text is free of handles: it quotes the
// keys of entities.
type hushed struct{ err error }

var handles = regexp.MustCompile(`[a-z2-7]{26}`)

func (h hushed) Error() string { return handles.ReplaceAllString(h.err.Error(), "…") }
func (h hushed) Unwrap() error { return h.err }
