package sojourn_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn"
)

// A Key is the name and the type of a session value. Make each key once, as a
// package variable.
func ExampleKey() {
	type Address struct{ Street, City string }
	var (
		address = sojourn.NewKey[Address]("address")
		visits  = sojourn.NewKey[int]("visits")
		seen    = sojourn.NewKey[map[string]bool]("seen")
	)

	session := newVisitor()
	address.Set(session, Address{"1 Main Street", "Springfield"})
	visits.Update(session, func(n int) int { return n + 1 })

	fmt.Println(address.Get(session).City, visits.Get(session))
	fmt.Println(seen.Get(session)["x"]) // the zero value
	_, err := seen.Lookup(session)
	fmt.Println(errors.Is(err, sojourn.ErrNoValue))
	// Output:
	// Springfield 1
	// false
	// true
}

// jsonCodec stores values as JSON, for programs in other languages.
type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// A custom codec determines how a key's values are stored.
func ExampleNewKeyCodec() {
	type Cart struct{ Items []string }
	cart := sojourn.NewKeyCodec("cart", sojourn.Codec[Cart](jsonCodec[Cart]{}), sojourn.ServerSide)

	session := newVisitor()
	cart.Set(session, Cart{[]string{"tea"}})
	fmt.Println(cart.Get(session))
	// Output: {[tea]}
}
