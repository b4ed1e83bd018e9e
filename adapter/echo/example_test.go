package sojournecho_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sojourn-go/sojourn"
	sojournecho "github.com/sojourn-go/sojourn/adapter/echo"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

func Example() {
	ring, err := sojourn.ParseKeys(keys.Generate()) // a program loads its own: sojourn.LoadKeyFile
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New(), Cookie: sojourn.Cookie{Insecure: true}})
	if err != nil {
		panic(err)
	}
	cart := sojourn.NewKey[int]("cart")

	e := echo.New()
	e.Use(middleware.Recover(), sojournecho.Middleware(sessions))
	e.POST("/cart", sojournecho.Handler(sessions, func(c echo.Context, session *sojourn.Session) error {
		n := cart.Update(session, func(n int) int { return n + 1 })
		if n > 2 { // what was put into the cart is taken out again
			return echo.NewHTTPError(http.StatusConflict, fmt.Sprintf("a cart of %d is too big", n))
		}
		return c.String(http.StatusOK, fmt.Sprintf("%d in the cart", n))
	}))

	server := httptest.NewServer(e)
	defer server.Close()
	var cookies []*http.Cookie
	for range 4 {
		request, err := http.NewRequest(http.MethodPost, server.URL+"/cart", nil)
		if err != nil {
			panic(err)
		}
		for _, c := range cookies {
			request.AddCookie(c)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			panic(err)
		}
		response.Body.Close()
		fmt.Println(response.StatusCode, string(text))
		if set := response.Cookies(); len(set) > 0 {
			cookies = set
		}
	}
	// Output:
	// 200 1 in the cart
	// 200 2 in the cart
	// 409 {"message":"a cart of 3 is too big"}
	//
	// 409 {"message":"a cart of 3 is too big"}
}
