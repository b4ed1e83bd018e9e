package sojourn_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sojourn-go/sojourn"
)

// newVisitor returns the session of a request without cookies.
func newVisitor() *sojourn.Session {
	sessions := manager(sojourn.Config{})
	ctx, _ := sessions.Attach(context.Background(), func() sojourn.RequestInfo { return sojourn.RequestInfo{} })
	session, err := sessions.Get(ctx)
	if err != nil {
		panic(err)
	}
	return session
}

// Attach is for servers without an http.ResponseWriter. The session comes from
// the header of a call, handlers get it from their context, and Commit writes
// its cookies to the header of the response. A call that fails saves nothing.
func ExampleManager_Attach() {
	sessions := manager(sojourn.Config{})
	calls := sojourn.NewKey[int]("calls", sojourn.ServerSide)

	// serve is what an adapter does for each call.
	serve := func(header http.Header, handle func(context.Context) error) (response http.Header, err error) {
		ctx, exchange := sessions.Attach(context.Background(), func() sojourn.RequestInfo {
			return sojourn.RequestInfo{Header: header}
		})
		defer func() { _ = exchange.Finish() }()
		status := http.StatusOK
		if err = handle(ctx); err != nil {
			status = http.StatusInternalServerError
		}
		response = http.Header{}
		if err := exchange.Commit(status, response); err != nil {
			return response, err
		}
		return response, err
	}

	count := func(ctx context.Context) error {
		session, err := sessions.Get(ctx)
		if err != nil {
			return err
		}
		if n := calls.Update(session, func(n int) int { return n + 1 }); n == 2 {
			return errors.New("call 2 fails")
		}
		fmt.Println("call", calls.Get(session))
		return nil
	}
	response, _ := serve(http.Header{}, count)
	cookies := http.Header{}
	for _, c := range (&http.Response{Header: response}).Cookies() {
		cookies.Add("Cookie", c.Name+"="+c.Value)
	}
	_, err := serve(cookies, count)
	fmt.Println(err)
	_, err = serve(cookies, count)
	fmt.Println(err)
	// Output:
	// call 1
	// call 2 fails
	// call 2 fails
}
