package sojourn_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sojourn-go/sojourn"
)

// ctx is the context of a request.
var ctx = context.Background()

// cookiesOf returns the header of a request with the cookies that a response
// set.
func cookiesOf(response http.Header) http.Header {
	request := http.Header{}
	for _, c := range (&http.Response{Header: response}).Cookies() {
		request.Add("Cookie", c.Name+"="+c.Value)
	}
	return request
}

// Open is for servers without an http.ResponseWriter, such as gRPC: the session
// comes from the call's metadata, Save keeps the changes, and what it writes to
// the other header travels back.
func ExampleManager_Open() {
	sessions := manager(sojourn.Config{})
	calls := sojourn.NewKey[int]("calls", sojourn.ServerSide)

	call := func(metadata http.Header) (response http.Header) {
		response = http.Header{}
		session, err := sessions.Open(ctx, metadata, response)
		if err != nil {
			panic(err) // status.Error(codes.Unavailable, …)
		}
		calls.Update(session, func(n int) int { return n + 1 })
		if err := session.Save(ctx); err != nil {
			panic(err) // nothing was kept
		}
		fmt.Println("call", calls.Get(session), "of", session.Info().Placement, "session")
		return response
	}
	response := call(http.Header{})
	call(cookiesOf(response))
	// Output:
	// call 1 of stored session
	// call 2 of stored session
}
