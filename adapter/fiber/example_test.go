package sojournfiber_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/gofiber/fiber/v3"

	"github.com/sojourn-go/sojourn"
	sojournfiber "github.com/sojourn-go/sojourn/adapter/fiber"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

func newManager() *sojourn.Manager {
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New()})
	if err != nil {
		panic(err)
	}
	return sessions
}

// ask sends a request with a cookie to the application, and returns the answer and
// the cookie that it sets.
func ask(app *fiber.App, path, cookie string) (answer, next string) {
	r := httptest.NewRequest("GET", "https://shop.example"+path, nil)
	r.Header.Set("Cookie", cookie)
	resp, err := app.Test(r)
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if c := resp.Cookies(); len(c) > 0 {
		cookie = c[0].Name + "=" + c[0].Value
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body)), cookie
}

// A handler that returns an error keeps nothing.
func ExampleMiddleware() {
	sessions := newManager()
	visits := sojourn.NewKey[int]("visits")

	app := fiber.New()
	app.Use(sojournfiber.Middleware(sessions))
	app.Get("/", sojournfiber.Handler(sessions, func(c fiber.Ctx, session *sojourn.Session) error {
		n := visits.Update(session, func(n int) int { return n + 1 })
		if c.Query("broken") != "" {
			return fiber.NewError(http.StatusConflict, "broken")
		}
		return c.SendString(fmt.Sprint("visit ", n))
	}))

	answer, cookie := ask(app, "/", "")
	fmt.Println(answer)
	answer, cookie = ask(app, "/?broken=1", cookie)
	fmt.Println(answer)
	answer, _ = ask(app, "/", cookie)
	fmt.Println(answer)
	// Output:
	// 200 visit 1
	// 409 broken
	// 200 visit 2
}

// A stream of events that ends with the session.
func ExampleStream() {
	sessions := newManager()
	events := make(chan string, 1)
	events <- "hello"
	close(events)

	app := fiber.New()
	app.Use(sojournfiber.Middleware(sessions))
	app.Get("/events", sojournfiber.Handler(sessions, func(c fiber.Ctx, session *sojourn.Session) error {
		c.Set("Content-Type", "text/event-stream")
		return sojournfiber.Stream(c, func(_ context.Context, w *bufio.Writer) {
			for {
				select {
				case <-session.Done():
					return
				case event, ok := <-events:
					if !ok {
						return
					}
					fmt.Fprintf(w, "data: %s\n\n", event)
					if w.Flush() != nil {
						return // the client has gone away
					}
				}
			}
		})
	}))

	answer, _ := ask(app, "/events", "")
	fmt.Print(answer)
	// Output: 200 data: hello
}
