// Package sojournecho gives the handlers of echo, version 5, sessions, as a
// middleware of echo. Package adapter/echo is for version 4.
//
//	e := echo.New()
//	e.Use(middleware.RequestLogger(), middleware.Recover(), sojournecho.Middleware(sessions))
//	e.GET("/", func(c *echo.Context) error {
//		session, err := sessions.Get(c.Request().Context())
//		if err != nil {
//			return err
//		}
//		n := visits.Update(session, func(n int) int { return n + 1 })
//		return c.String(http.StatusOK, fmt.Sprint(n))
//	})
//
// Where the whole of echo can be wrapped, sessions.Wrap(e) does, without this
// package, with one difference: it sees no error that a handler returns, but only
// the status that echo answers it with.
package sojournecho

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/sojourn-go/sojourn"
)

// Middleware returns a middleware that does what [sojourn.Manager.Wrap] does. An
// error that the handler returns keeps nothing of the session but a Logout,
// whatever status echo answers it with. A status that the handler writes itself
// keeps its changes if it is below 500.
//
// Put it after the middlewares that answer errors by themselves, such as
// middleware.RequestLogger and middleware.Recover, and before those that ask for a
// session. There may be one for each of several managers, and Wrap may be around
// echo as well.
//
// Errors of sojourn that the handler returns are answered with the status and
// the text of [Error].
func Middleware(sessions *sojourn.Manager) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) (err error) {
			own := c.Response()
			defer c.SetResponse(own) // echo answers an error there
			sessions.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				c.SetResponse(w)
				if err = next(c); err != nil {
					sojourn.Fail(r.Context())
				}
			})).ServeHTTP(own, c.Request())
			return Error(err)
		}
	}
}

// Error returns an [echo.HTTPError] with the status and the text of
// [sojourn.ErrorStatus] for an error of sojourn that is no mistake of the program,
// and any other error as it is. It is for Config.ErrorHandler:
//
//	cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
//		e.HTTPErrorHandler(e.NewContext(r, w), sojournecho.Error(err))
//	}
func Error(err error) error {
	if echo.StatusCode(err) != 0 {
		return err
	}
	status, text := sojourn.ErrorStatus(err)
	if !sojourn.IsError(err) || status == http.StatusInternalServerError {
		return err
	}
	return echo.NewHTTPError(status, text).Wrap(err)
}
