package sojournfiber_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojournfiber "github.com/sojourn-go/sojourn/adapter/fiber"
)

func TestSuite(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
			f := fiber.New()
			f.Use(recover.New(), sojournfiber.Middleware(sessions))
			f.Get("/", func(c fiber.Ctx) error {
				err := app(call(c))
				var own adaptertest.StatusError
				if errors.As(err, &own) {
					return fiber.NewError(own.Status, own.Error())
				}
				return err
			})
			return adaptertest.HTTP(serve(t, f))
		},
		Cannot: map[adaptertest.Ability]string{
			adaptertest.Hijacking:  "fasthttp hands a connection over after it has written the response",
			adaptertest.BodyLimits: "fasthttp reads bodies before it calls handlers",
		},
	})
}

// serve starts a server on loopback and returns its URL.
func serve(t testing.TB, app *fiber.App) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() {
		_ = app.ShutdownWithTimeout(time.Second) // connections may be open
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String()
}

func call(c fiber.Ctx) *adaptertest.Call {
	call := &adaptertest.Call{Context: c}
	call.Param = func(name string) string { return c.Query(name) }
	call.Respond = func(status int, text string) error { return c.Status(status).SendString(text) }
	call.File = func(path string) error { return c.SendFile(path) }
	call.Stream = func(body func(func(string) error) error) error {
		c.Set("Content-Type", "text/event-stream")
		return sojournfiber.Stream(c, func(ctx context.Context, w *bufio.Writer) {
			call.Context = ctx
			err := body(func(line string) error {
				if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
					return err
				}
				return w.Flush()
			})
			if err != nil {
				sojourn.Fail(ctx)
			}
		})
	}
	call.WebSocket = func(serve func(adaptertest.Socket)) error {
		ctx, release, err := sojournfiber.Hold(c)
		if err != nil {
			return err
		}
		return new(websocket.FastHTTPUpgrader).Upgrade(c.RequestCtx(), func(conn *websocket.Conn) {
			defer release()
			call.Context = ctx
			serve(socket{conn})
		})
	}
	return call
}

type socket struct{ *websocket.Conn }

func (s socket) Receive() (string, error) {
	_, text, err := s.ReadMessage()
	return string(text), err
}

func (s socket) Send(text string) error { return s.WriteMessage(websocket.TextMessage, []byte(text)) }

// Close makes Receive return: fasthttp closes a hijacked connection when its
// handler returns, and its Close does nothing.
func (s socket) Close() error { return s.SetReadDeadline(time.Now()) }
