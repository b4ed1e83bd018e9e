package sojourn_test

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/sojourn-go/sojourn"
)

// Update is exact for concurrent requests of a visitor: if another request
// changed the value first, the function runs again on its result.
func ExampleKey_Update() {
	// ServerSide: from the first item on, the session lives in the store.
	cart := sojourn.NewKey[[]string]("cart", sojourn.ServerSide)
	sessions := manager(sojourn.Config{})

	shop := sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if item := r.FormValue("item"); item != "" {
			cart.Update(session, func(items []string) []string { return append(items, item) })
			fmt.Fprintln(w, "added")
			return
		}
		fmt.Fprintln(w, len(cart.Get(session)), "items")
	})
	visit := browse(shop)
	visit("/add?item=tea")

	var tabs sync.WaitGroup
	for _, item := range []string{"cup", "milk", "sugar"} {
		tabs.Go(func() { visit("/add?item=" + item) })
	}
	tabs.Wait()
	visit("/cart")
	// Unordered output:
	// /add?item=tea 200 added
	// /add?item=cup 200 added
	// /add?item=milk 200 added
	// /add?item=sugar 200 added
	// /cart 200 4 items
}
