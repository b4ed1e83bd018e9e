package sojournecho_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/sojourn-go/sojourn"
	sojournecho "github.com/sojourn-go/sojourn/adapter/echov5"
	"github.com/sojourn-go/sojourn/sojourntest"
)

// echo 5 can answer HEAD with the handler for GET, through a writer that delays
// the header.
func TestAHeadRequestThatEchoAnswersByTheHandlerForGet(t *testing.T) {
	value := sojourn.NewKey[string]("value")
	for name, global := range map[string]bool{"a middleware of all routes": true, "of one route": false} {
		t.Run(name, func(t *testing.T) {
			sessions := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.CookieOnly, InlineLimit: 300})
			e := echo.NewWithConfig(echo.Config{
				Logger: slog.New(slog.DiscardHandler),
				Router: echo.NewRouter(echo.RouterConfig{AutoHandleHEAD: true}),
			})
			var route []echo.MiddlewareFunc
			if global {
				e.Use(sojournecho.Middleware(sessions))
			} else {
				route = append(route, sojournecho.Middleware(sessions))
			}
			e.GET("/:text", func(c *echo.Context) error {
				session, err := sessions.Get(c.Request().Context())
				if err != nil {
					return err
				}
				if c.Param("text") == "missing" {
					return echo.ErrNotFound
				}
				value.Set(session, c.Param("text"))
				return c.String(http.StatusOK, "ok")
			}, route...)
			for target, want := range map[string]int{
				"/short":                        http.StatusOK,
				"/" + strings.Repeat("x", 1000): http.StatusRequestEntityTooLarge,
				"/missing":                      http.StatusNotFound,
			} {
				w := httptest.NewRecorder()
				e.ServeHTTP(w, httptest.NewRequest(http.MethodHead, target, nil))
				if cookies := len(w.Result().Cookies()); w.Code != want || (cookies > 0) != (want == http.StatusOK) {
					t.Errorf("%.8s: the status is %d, want %d, with %d cookies", target, w.Code, want, cookies)
				}
				if want == http.StatusOK && w.Header().Get("Content-Length") != "2" {
					t.Errorf("the length is %q", w.Header().Get("Content-Length"))
				}
			}
		})
	}
}
