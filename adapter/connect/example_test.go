package sojournconnect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sojourn-go/sojourn"
	sojournconnect "github.com/sojourn-go/sojourn/adapter/connect"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

func newManager() *sojourn.Manager {
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New(), Cookie: sojourn.Cookie{Insecure: true}})
	if err != nil {
		panic(err)
	}
	return sessions
}

// A handler that returns an error keeps nothing.
func ExampleInterceptor() {
	sessions := newManager()
	calls := sojourn.NewKey[int]("calls")
	const procedure = "/shop.v1.Shop/Count"

	count := func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.Int64Value], error) {
		session, err := sessions.Get(ctx)
		if err != nil {
			return nil, err
		}
		n := calls.Update(session, func(n int) int { return n + 1 })
		if n == 2 {
			return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("call 2 fails"))
		}
		return connect.NewResponse(wrapperspb.Int64(int64(n))), nil
	}

	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure, count, connect.WithInterceptors(sojournconnect.Interceptor())))
	server := httptest.NewServer(sessions.Wrap(mux))
	defer server.Close()

	jar, _ := cookiejar.New(nil) // without options it returns no error
	client := connect.NewClient[emptypb.Empty, wrapperspb.Int64Value](&http.Client{Jar: jar}, server.URL+procedure)
	for range 3 {
		answer, err := client.CallUnary(context.Background(), connect.NewRequest(&emptypb.Empty{}))
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("call", answer.Msg.Value)
	}
	// Output:
	// call 1
	// failed_precondition: call 2 fails
	// failed_precondition: call 2 fails
}
