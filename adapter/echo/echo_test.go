package sojournecho_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojournecho "github.com/sojourn-go/sojourn/adapter/echo"
	"github.com/sojourn-go/sojourn/sojourntest"
)

type socketFunc func(c echo.Context, serve func(adaptertest.Socket)) error

// newEcho returns an echo that logs nothing.
func newEcho() *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	return e
}

// site returns an echo with these middlewares and the application.
func site(app adaptertest.App, upgrade socketFunc, use ...echo.MiddlewareFunc) *echo.Echo {
	e := newEcho()
	e.Use(use...)
	e.Any("/", handler(app, upgrade))
	return e
}

// handler returns the application as a handler of echo.
func handler(app adaptertest.App, upgrade socketFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		call := adaptertest.HTTPCall(c.Response(), c.Request())
		call.Param = c.QueryParam
		call.Respond = func(status int, text string) error { return c.String(status, text) }
		call.WebSocket = func(serve func(adaptertest.Socket)) error { return upgrade(c, serve) }
		call.File = func(path string) error {
			return c.File(path)
		}
		err := app(call)
		var own adaptertest.StatusError
		if errors.As(err, &own) {
			return echo.NewHTTPError(own.Status, own.Error())
		}
		return err
	}
}

func withGorilla(c echo.Context, serve func(adaptertest.Socket)) error {
	var upgrader gorilla.Upgrader
	conn, err := upgrader.Upgrade(c.Response(), c.Request(), c.Response().Header())
	if err != nil {
		return nil // it has answered
	}
	defer conn.Close()
	serve(gorillaSocket{conn})
	return nil
}

type gorillaSocket struct{ *gorilla.Conn }

func (s gorillaSocket) Send(text string) error {
	return s.WriteMessage(gorilla.TextMessage, []byte(text))
}

func (s gorillaSocket) Receive() (string, error) {
	_, b, err := s.ReadMessage()
	return string(b), err
}

func withCoder(c echo.Context, serve func(adaptertest.Socket)) error {
	conn, err := coder.Accept(c.Response(), c.Request(), nil)
	if err != nil {
		return nil // it has answered
	}
	defer func() { _ = conn.CloseNow() }()
	serve(coderSocket{conn, c.Request().Context()})
	return nil
}

type coderSocket struct {
	conn *coder.Conn
	ctx  context.Context
}

func (s coderSocket) Send(text string) error {
	return s.conn.Write(s.ctx, coder.MessageText, []byte(text))
}

func (s coderSocket) Receive() (string, error) {
	_, b, err := s.conn.Read(s.ctx)
	return string(b), err
}

func (s coderSocket) Close() error { return s.conn.CloseNow() }

type start = func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client

func serve(wire func(sessions *sojourn.Manager, app adaptertest.App) http.Handler) start {
	return func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
		return adaptertest.Serve(t, wire(sessions, app))
	}
}

// careless is an error handler that does not check whether the response is
// already committed, as in many programs.
func careless(err error, c echo.Context) {
	status := http.StatusInternalServerError
	var known *echo.HTTPError
	if errors.As(err, &known) {
		status = known.Code
	}
	_ = c.JSON(status, echo.Map{"error": http.StatusText(status)})
}

func TestTheMiddleware(t *testing.T) {
	for name, wire := range map[string]func(*sojourn.Manager, adaptertest.App) http.Handler{
		"alone": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return site(app, withGorilla, sojournecho.Middleware(sessions))
		},
		"after echo's own": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			log := middleware.RequestLogger()
			return site(app, withCoder, log, middleware.RequestID(), middleware.Recover(), sojournecho.Middleware(sessions))
		},
		"before middleware.Recover": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return site(app, withGorilla, sojournecho.Middleware(sessions), middleware.Recover())
		},
		"of one route, with an error handler of the program": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			e := newEcho()
			e.HTTPErrorHandler = careless
			e.Any("/", handler(app, withCoder), sojournecho.Middleware(sessions))
			return e
		},
		"twice, inside of Wrap": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return sessions.Wrap(site(app, withCoder, sojournecho.Middleware(sessions), sojournecho.Middleware(sessions)))
		},
	} {
		t.Run(name, func(t *testing.T) { adaptertest.Run(t, adaptertest.Wiring{Start: serve(wire)}) })
	}
}

func TestWrapAroundEcho(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: serve(func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			e := site(app, withCoder)
			e.HTTPErrorHandler = func(err error, c echo.Context) { e.DefaultHTTPErrorHandler(sojournecho.Error(err), c) }
			return sessions.Wrap(e)
		}),
		Cannot: map[adaptertest.Ability]string{adaptertest.Errors: "Wrap sees the status only"},
	})
}

// echo answers an error that a handler returns when Wrap has committed.
func TestWrapAsAMiddlewareOfEchoFails(t *testing.T) {
	failures := adaptertest.Check(t, adaptertest.Wiring{
		Start: serve(func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return site(app, withGorilla, echo.WrapMiddleware(sessions.Wrap))
		}),
		Patience: 2 * time.Second,
	})
	const want = "an error that the handler returns keeps nothing but a logout"
	if !slices.ContainsFunc(failures, func(f adaptertest.Failure) bool { return f.Check == want }) {
		t.Errorf("this check passes: %s", want)
	}
}

var visits = sojourn.NewKey[int]("visits")

func TestWhatAHandlerReturnsDecidesWhatIsKept(t *testing.T) {
	oops := errors.New("oops")
	for name, test := range map[string]struct {
		handle func(c echo.Context) error
		status int
		keeps  bool
	}{
		"an error":                  {func(echo.Context) error { return oops }, 500, false},
		"echo.ErrNotFound":          {func(echo.Context) error { return echo.ErrNotFound }, 404, false},
		"an error with 422":         {func(echo.Context) error { return echo.NewHTTPError(422, "no") }, 422, false},
		"a page with 422":           {func(c echo.Context) error { return c.String(422, "no") }, 422, true},
		"no content":                {func(c echo.Context) error { return c.NoContent(204) }, 204, true},
		"a redirect":                {func(c echo.Context) error { return c.Redirect(303, "/") }, 303, true},
		"a page with 500":           {func(c echo.Context) error { return c.String(500, "no") }, 500, false},
		"nothing":                   {func(c echo.Context) error { return nil }, 200, true},
		"a page, and then an error": {func(c echo.Context) error { _ = c.String(200, "ok"); return oops }, 200, true},
		"an error of sojourn": {func(echo.Context) error {
			return fmt.Errorf("reading: %w", sojourn.ErrUnavailable)
		}, 503, false},
		"a mistake of the program": {func(echo.Context) error { return sojourn.ErrBadValue }, 500, false},
		"no such value":            {func(echo.Context) error { return sojourn.ErrNoValue }, 500, false},
		"an error of sojourn that the program has translated": {func(echo.Context) error {
			return echo.NewHTTPError(418).SetInternal(sojourn.ErrTooLarge)
		}, 418, false},
	} {
		t.Run(name, func(t *testing.T) {
			sessions := sojourntest.NewManager(t, sojourn.Config{})
			e := newEcho()
			e.Use(sojournecho.Middleware(sessions))
			e.GET("/", func(c echo.Context) error {
				session, err := sessions.Get(c.Request().Context())
				if err != nil {
					return err
				}
				visits.Set(session, 1)
				return test.handle(c)
			})
			browser := sojourntest.NewBrowser(t, e)
			resp := browser.Get("/")
			if kept := visits.Get(browser.Session(sessions)) == 1; resp.StatusCode != test.status || kept != test.keeps {
				t.Errorf("the status is %d, want %d; kept: %v, want %v", resp.StatusCode, test.status, kept, test.keeps)
			}
		})
	}
}

// Changes that must survive a failed call are saved before it fails.
func TestASaveBeforeAnErrorIsKept(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	e := newEcho()
	e.Use(sojournecho.Middleware(sessions))
	e.GET("/", func(c echo.Context) error {
		session, err := sessions.Get(c.Request().Context())
		if err != nil {
			return err
		}
		visits.Update(session, func(n int) int { return n + 1 })
		if err := session.Save(c.Request().Context()); err != nil {
			return err
		}
		visits.Update(session, func(n int) int { return n + 10 })
		return echo.ErrUnauthorized
	})
	browser := sojourntest.NewBrowser(t, e)
	for i := range 3 {
		if resp := browser.Get("/"); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("the status is %d", resp.StatusCode)
		}
		if n := visits.Get(browser.Session(sessions)); n != i+1 {
			t.Errorf("%d attempts are noted, want %d", n, i+1)
		}
	}
}

func TestAnErrorIsAnsweredOnceAndTheLogSeesIt(t *testing.T) {
	for name, careful := range map[string]bool{"echo's error handler": true, "an error handler of the program": false} {
		t.Run(name, func(t *testing.T) {
			sessions := sojourntest.NewManager(t, sojourn.Config{})
			var seen error
			e := newEcho()
			if !careful {
				e.HTTPErrorHandler = careless
			}
			e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					before := c.Response()
					seen = next(c)
					if c.Response() != before {
						t.Error("outside the response is another one than before")
					}
					return seen
				}
			}, sojournecho.Middleware(sessions))
			e.GET("/", func(c echo.Context) error {
				if _, err := sessions.Get(c.Request().Context()); err != nil {
					return err
				}
				return echo.ErrNotFound
			})
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code != http.StatusNotFound || strings.Count(w.Body.String(), "Not Found") != 1 {
				t.Errorf("the answer is %d %s", w.Code, w.Body)
			}
			if !errors.Is(seen, echo.ErrNotFound) {
				t.Errorf("outside the error is %v", seen)
			}
			if vary := w.Header().Values("Vary"); len(vary) != 1 || vary[0] != "Cookie" {
				t.Errorf("Vary: %q", vary)
			}
		})
	}
}

// A session that cannot be kept is answered by echo's error handler, if
// Config.ErrorHandler leads there.
func TestEchoAnswersACommitThatFails(t *testing.T) {
	e := newEcho()
	sessions := sojourntest.NewManager(t, sojourn.Config{
		Mode: sojourn.CookieOnly, InlineLimit: 300,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			e.HTTPErrorHandler(sojournecho.Error(err), e.NewContext(r, w))
		},
	})
	var logged int
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			err := next(c)
			logged = c.Response().Status
			return err
		}
	}, sojournecho.Middleware(sessions))
	long := sojourn.NewKey[string]("long")
	e.GET("/", func(c echo.Context) error {
		session, err := sessions.Get(c.Request().Context())
		if err != nil {
			return err
		}
		long.Set(session, strings.Repeat("x", 1000)) // does not fit
		return c.String(http.StatusOK, "all is well")
	})
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if want := `{"message":"What you sent does not fit into your session."}`; w.Code != http.StatusRequestEntityTooLarge ||
		strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("the answer is %d %s, want %s", w.Code, w.Body, want)
	}
	if logged != w.Code {
		t.Errorf("the log has status %d", logged)
	}
}
