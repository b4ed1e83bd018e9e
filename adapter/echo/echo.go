// Package sojournecho is a middleware that adds sessions to echo, version 4.
// Package adapter/echov5 is for version 5.
//
//	e := echo.New()
//	e.Use(middleware.RequestLogger(), middleware.Recover(), sojournecho.Middleware(sessions))
//	e.GET("/", sojournecho.Handler(sessions, func(c echo.Context, session *sojourn.Session) error {
//		n := visits.Update(session, func(n int) int { return n + 1 })
//		return c.String(http.StatusOK, fmt.Sprint(n))
//	}))
//
// Instead of this package you can wrap all of echo with sessions.Wrap(e). The
// difference is that Wrap does not see a handler's error, but only the status
// of echo's answer.
package sojournecho

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/sojourn-go/sojourn"
)

// Middleware returns a middleware that corresponds to [sojourn.Manager.Wrap].
// If the handler returns an error, only a Logout is kept, whatever the status
// of echo's answer. If the handler itself writes a status below 500, its
// changes are kept.
//
// Put it after middlewares that answer errors themselves, such as
// middleware.RequestLogger and middleware.Recover, and before those that use a
// session. Several managers can each have one, also with Wrap around echo.
//
// A handler's errors of sojourn are answered with the status and the text of
// [Error].
func Middleware(sessions *sojourn.Manager) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) (err error) {
			own := c.Response()
			defer c.SetResponse(own) // echo answers an error there
			sessions.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				c.SetResponse(echo.NewResponse(w, c.Echo()))
				if err = next(c); err != nil {
					sojourn.Fail(r.Context())
				}
			})).ServeHTTP(own, c.Request())
			return Error(err)
		}
	}
}

// Handler returns a handler that calls f with the request's session, for use inside
// Middleware. If the session cannot be loaded, it returns that error. It corresponds
// to [sojourn.Manager.Handler].
func Handler(sessions *sojourn.Manager, f func(echo.Context, *sojourn.Session) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		session, err := sessions.Get(c.Request().Context())
		if err != nil {
			return err
		}
		return f(c, session)
	}
}

// Error returns an [echo.HTTPError] with the status and the text of
// [sojourn.ErrorStatus] for an error of sojourn, unless that is a programming
// mistake. Other errors are returned unchanged. Use it in Config.ErrorHandler:
//
//	cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
//		e.HTTPErrorHandler(sojournecho.Error(err), e.NewContext(r, w))
//	}
func Error(err error) error {
	if already := (*echo.HTTPError)(nil); errors.As(err, &already) {
		return err
	}
	status, text := sojourn.ErrorStatus(err)
	if !sojourn.IsError(err) || status == http.StatusInternalServerError {
		return err
	}
	return echo.NewHTTPError(status, text).SetInternal(err)
}
