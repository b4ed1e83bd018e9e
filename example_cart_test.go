package sojourn_test

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/sojourn-go/sojourn"
)

// Update is exact when requests of one visitor run at once: its function is
// called again on the result of whoever was faster.
func ExampleKey_Update() {
	// ServerSide: from the first item on, the session lives in the store.
	cart := sojourn.NewKey[[]string]("cart", sojourn.ServerSide)
	sessions := manager(sojourn.Config{})

	add := func(request http.Header, item string) (response http.Header) {
		response = http.Header{}
		session, err := sessions.Open(ctx, request, response)
		if err != nil {
			panic(err)
		}
		cart.Update(session, func(items []string) []string { return append(items, item) })
		if err := session.Save(ctx); err != nil {
			panic(err)
		}
		return response
	}
	cookies := cookiesOf(add(http.Header{}, "tea"))

	var tabs sync.WaitGroup
	for _, item := range []string{"cup", "milk", "sugar"} {
		tabs.Go(func() { add(cookies, item) })
	}
	tabs.Wait()

	session, err := sessions.Open(ctx, cookies, http.Header{})
	if err != nil {
		panic(err)
	}
	fmt.Println(len(cart.Get(session)), "items")
	// Output: 4 items
}
