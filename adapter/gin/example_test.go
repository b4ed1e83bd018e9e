package sojourngin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/sojourn-go/sojourn"
	sojourngin "github.com/sojourn-go/sojourn/adapter/gin"
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

	engine := gin.New()
	engine.Use(sojourngin.Middleware(sessions), gin.Recovery())
	engine.POST("/cart", sojourngin.Handler(sessions, func(c *gin.Context, session *sojourn.Session) {
		n := cart.Update(session, func(n int) int { return n + 1 })
		if n > 2 { // what was put into the cart is taken out again
			_ = c.AbortWithError(http.StatusConflict, fmt.Errorf("a cart of %d is too big", n))
			return
		}
		c.String(http.StatusOK, "%d in the cart", n)
	}))

	server := httptest.NewServer(engine)
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
		fmt.Printf("%d %q\n", response.StatusCode, text)
		if set := response.Cookies(); len(set) > 0 {
			cookies = set
		}
	}
	// Output:
	// 200 "1 in the cart"
	// 200 "2 in the cart"
	// 409 ""
	// 409 ""
}
