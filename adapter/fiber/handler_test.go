package sojournfiber_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v3"

	"github.com/sojourn-go/sojourn"
	sojournfiber "github.com/sojourn-go/sojourn/adapter/fiber"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestHandlerPassesTheSessionOrAnswersWhyThereIsNone(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	app := fiber.New()
	app.Use(sojournfiber.Middleware(sessions))
	app.Get("/", sojournfiber.Handler(sessions, func(c fiber.Ctx, session *sojourn.Session) error {
		session.Set("seen", true)
		return c.SendStatus(http.StatusAccepted)
	}))
	visit := func() *http.Response {
		res, err := app.Test(httptest.NewRequest(http.MethodGet, "/", nil), fiber.TestConfig{Timeout: 0})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res
	}
	if res := visit(); res.StatusCode != http.StatusAccepted || res.Header.Get("Set-Cookie") == "" {
		t.Errorf("%d, %v", res.StatusCode, res.Header)
	}
	if err := sessions.Close(); err != nil {
		t.Fatal(err)
	}
	if res := visit(); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a session: %d", res.StatusCode)
	}
}
