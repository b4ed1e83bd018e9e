package sojourn_test

import (
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn"
)

// Set and Get are for names that are not known at compile time, such as the
// fields of a form.
func ExampleSession_Set() {
	session := newVisitor()
	session.Set("draft.title", "Tea")
	session.Set("draft.lines", []string{"Boil water", "wait"})
	session.Set("steps", 2)

	var title string
	fmt.Println(session.Get("draft.title", &title), title)
	fmt.Println(session.Names())

	session.Delete("draft.title")
	fmt.Println(session.Has("draft.title"), errors.Is(session.Get("draft.title", &title), sojourn.ErrNoValue))
	fmt.Println(errors.Is(session.Get("steps", &title), sojourn.ErrBadValue), title)

	session.Clear()
	fmt.Println(session.Names())
	// Output:
	// <nil> Tea
	// [draft.lines draft.title steps]
	// false true
	// true Tea
	// []
}
