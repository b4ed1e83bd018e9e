package sojournecho_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/sojourn-go/sojourn"
	sojournecho "github.com/sojourn-go/sojourn/adapter/echo"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestHandlerPassesTheSessionOrAnswersWhyThereIsNone(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	e := echo.New()
	e.Use(sojournecho.Middleware(sessions))
	e.GET("/", sojournecho.Handler(sessions, func(c echo.Context, session *sojourn.Session) error {
		session.Set("seen", true)
		return c.NoContent(http.StatusAccepted)
	}))
	visit := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w
	}
	if w := visit(); w.Code != http.StatusAccepted || w.Header().Get("Set-Cookie") == "" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	if err := sessions.Close(); err != nil {
		t.Fatal(err)
	}
	if w := visit(); w.Code != http.StatusServiceUnavailable || w.Body.Len() == 0 {
		t.Errorf("without a session: %d %q", w.Code, w.Body)
	}
}
