package sojourngqlgen_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/sojourn-go/sojourn"
	sojourngqlgen "github.com/sojourn-go/sojourn/adapter/gqlgen"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A mutation whose response has errors keeps nothing.
func Example() {
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New()})
	if err != nil {
		panic(err)
	}
	calls := sojourn.NewKey[int]("calls")

	// The schema stands for graph.NewExecutableSchema(…), which gqlgen generates.
	schema := &resolvers{mutation: func(ctx context.Context, _ map[string]any) (string, error) {
		session, err := sessions.Get(ctx)
		if err != nil {
			return "", err
		}
		n := calls.Update(session, func(n int) int { return n + 1 })
		if n == 2 {
			return "", errors.New("call 2 fails")
		}
		return fmt.Sprint("call ", n), nil
	}}
	server := handler.New(schema)
	server.AddTransport(transport.POST{})
	server.Use(sojourngqlgen.New(sessions))
	site := httptest.NewServer(sessions.Wrap(server))
	defer site.Close()

	cookies := http.Header{}
	for range 3 {
		answer, err := call(context.Background(), site.URL, mutation, nil, cookies)
		if err != nil {
			panic(err)
		}
		for _, c := range (&http.Response{Header: answer.header}).Cookies() {
			cookies.Set("Cookie", c.Name+"="+c.Value)
		}
		if len(answer.Errors) > 0 {
			fmt.Println("error:", answer.Errors[0].Message)
			continue
		}
		fmt.Println(answer.Data.Do)
	}
	// Output:
	// call 1
	// error: call 2 fails
	// error: call 2 fails
}
