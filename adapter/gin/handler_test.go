package sojourngin_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sojourn-go/sojourn"
	sojourngin "github.com/sojourn-go/sojourn/adapter/gin"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestHandlerPassesTheSessionOrAnswersWhyThereIsNone(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	after := 0
	engine := gin.New()
	engine.Use(sojourngin.Middleware(sessions))
	engine.GET("/", sojourngin.Handler(sessions, func(c *gin.Context, session *sojourn.Session) {
		session.Set("seen", true)
		c.Status(http.StatusAccepted)
	}), func(*gin.Context) { after++ })
	visit := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w
	}
	if w := visit(); w.Code != http.StatusAccepted || w.Header().Get("Set-Cookie") == "" || after != 1 {
		t.Errorf("%d, %v, %d handlers after it", w.Code, w.Header(), after)
	}
	if err := sessions.Close(); err != nil {
		t.Fatal(err)
	}
	if w := visit(); w.Code != http.StatusServiceUnavailable || w.Body.Len() == 0 || after != 1 {
		t.Errorf("without a session: %d %q, %d handlers after it", w.Code, w.Body, after)
	}
}
