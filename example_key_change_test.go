package sojourn_test

import (
	"fmt"
	"strings"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
)

// Keys come from a file or from text, such as an environment variable. To
// change keys, publish the new key everywhere, then activate it, and then
// retire the old one.
func ExampleParseKeys() {
	secret := func(key string) string { return key[strings.LastIndex(key, ":"):] }
	old, next := secret(keys.Generate()), secret(keys.Generate())

	for _, text := range []string{
		"active:20260101T000000Z" + old,
		"entries:2, active:20260101T000000Z" + old + ", published:20260601T000000Z" + next,
		"entries:2, retired:20260101T000000Z" + old + ", active:20260601T000000Z" + next,
		"published:20260601T000000Z" + next,
	} {
		_, err := sojourn.ParseKeys(text)
		fmt.Println(err == nil)
	}
	// Output:
	// true
	// true
	// true
	// false
}
