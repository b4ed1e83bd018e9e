package sojourngin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	gorilla "github.com/gorilla/websocket"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojourngin "github.com/sojourn-go/sojourn/adapter/gin"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultErrorWriter = io.Discard // panics are part of the checks
	m.Run()
}

type socketFunc func(c *gin.Context, serve func(adaptertest.Socket)) error

// app returns the application as a handler of gin. It calls fail with an error
// of the application.
func app(app adaptertest.App, upgrade socketFunc, fail func(*gin.Context, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		call := adaptertest.HTTPCall(c.Writer, c.Request)
		call.Param = c.Query
		call.Respond = func(status int, text string) error {
			c.String(status, "%s", text)
			return nil
		}
		call.Stream = func(body func(func(string) error) error) (err error) {
			next, stop := iter.Pull(func(yield func(string) bool) {
				err = body(func(line string) error {
					if !yield(line) {
						return errors.New("the client has gone")
					}
					return nil
				})
			})
			c.Stream(func(io.Writer) bool {
				line, more := next()
				if more {
					c.SSEvent("line", line)
				}
				return more
			})
			stop()
			return err
		}
		call.WebSocket = func(serve func(adaptertest.Socket)) error { return upgrade(c, serve) }
		call.File = func(path string) error { c.File(path); return nil }
		if err := app(call); err != nil {
			fail(c, err)
		}
	}
}

// withError reports an error that another middleware answers.
func withError(c *gin.Context, err error) { _ = c.Error(err) }

// render is that middleware.
func render(c *gin.Context) {
	c.Next()
	if err := c.Errors.Last(); err != nil && !c.Writer.Written() {
		status, text := adaptertest.ErrorAnswer(err.Err)
		c.JSON(status, gin.H{"message": text})
	}
}

func abort(c *gin.Context, err error) {
	status, _ := adaptertest.ErrorAnswer(err)
	_ = c.AbortWithError(status, err)
}

func withGorilla(c *gin.Context, serve func(adaptertest.Socket)) error {
	var upgrader gorilla.Upgrader
	conn, err := upgrader.Upgrade(c.Writer, c.Request, c.Writer.Header())
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

func withCoder(c *gin.Context, serve func(adaptertest.Socket)) error {
	conn, err := coder.Accept(c.Writer, c.Request, nil)
	if err != nil {
		return nil // it has answered
	}
	defer func() { _ = conn.CloseNow() }()
	serve(coderSocket{conn, c.Request.Context()})
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

// engine returns an engine with these middlewares and one handler.
func engine(handler gin.HandlerFunc, use ...gin.HandlerFunc) *gin.Engine {
	e := gin.New()
	e.Use(use...)
	e.Any("/", handler)
	return e
}

type start = func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client

func serve(wire func(sessions *sojourn.Manager, a adaptertest.App) http.Handler) start {
	return func(t testing.TB, sessions *sojourn.Manager, a adaptertest.App) adaptertest.Client {
		return adaptertest.Serve(t, wire(sessions, a))
	}
}

func TestTheMiddleware(t *testing.T) {
	for name, wire := range map[string]func(*sojourn.Manager, adaptertest.App) http.Handler{
		"with c.AbortWithError": func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			return engine(app(a, withGorilla, abort), sojourngin.Middleware(sessions), gin.Recovery())
		},
		"with c.Error that is answered inside": func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			return engine(app(a, withCoder, withError), gin.Recovery(), sojourngin.Middleware(sessions), render)
		},
		"with c.Error that is answered outside": func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			return engine(app(a, withGorilla, withError), gin.Recovery(), render, sojourngin.Middleware(sessions))
		},
		"inside of Wrap": func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			return sessions.Wrap(engine(app(a, withCoder, abort), sojourngin.Middleware(sessions), gin.Recovery()))
		},
		"twice, and after HandleContext": func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			e := gin.New()
			e.Use(sojourngin.Middleware(sessions), sojourngin.Middleware(sessions), gin.Recovery())
			e.Any("/", func(c *gin.Context) {
				c.Request.URL.Path = "/app"
				e.HandleContext(c)
			})
			e.Any("/app", app(a, withGorilla, abort))
			return e
		},
	} {
		t.Run(name, func(t *testing.T) { adaptertest.Run(t, adaptertest.Wiring{Start: serve(wire)}) })
	}
}

func TestWrapAroundAnEngine(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: serve(func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
			// Without gin.Recovery, which treats http.ErrAbortHandler as a
			// disconnected client and answers an empty page and 200.
			return sessions.Wrap(engine(app(a, withCoder, abort)))
		}),
		Cannot: map[adaptertest.Ability]string{adaptertest.Errors: "Wrap does not see c.Errors"},
	})
}

// loose is a gin writer that sends through another one, but does not replace
// Hijack.
type loose struct {
	gin.ResponseWriter
	out http.ResponseWriter
}

func (w loose) Write(b []byte) (int, error)       { return w.out.Write(b) }
func (w loose) WriteString(s string) (int, error) { return io.WriteString(w.out, s) }
func (w loose) WriteHeader(status int)            { w.out.WriteHeader(status) }
func (w loose) WriteHeaderNow()                   {}
func (w loose) Flush()                            { _ = http.NewResponseController(w.out).Flush() }
func (w loose) Unwrap() http.ResponseWriter       { return w.out }

// Each of these middlewares works at first sight.
func TestAMiddlewareThatLooksRightFails(t *testing.T) {
	for name, test := range map[string]struct {
		middleware func(*sojourn.Manager) gin.HandlerFunc
		fails      []string
	}{
		"it replaces the request only": {
			func(sessions *sojourn.Manager) gin.HandlerFunc {
				return func(c *gin.Context) {
					sessions.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						c.Request = r
						c.Next()
					})).ServeHTTP(c.Writer, c.Request)
				}
			},
			[]string{
				"a session is there in the next request", "a commit that fails is answered with an error",
				"an answer of 500 or above keeps nothing but a logout", "a WebSocket handshake carries the cookie",
			},
		},
		"its writer lets Hijack through": {
			func(sessions *sojourn.Manager) gin.HandlerFunc {
				return func(c *gin.Context) {
					sessions.Wrap(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
						c.Request, c.Writer = r, loose{c.Writer, out}
						c.Next()
					})).ServeHTTP(c.Writer, c.Request)
				}
			},
			[]string{
				"a WebSocket handshake carries the cookie", "a connection that is taken over has the cookie",
				"an error that the handler returns keeps nothing but a logout",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			failures := adaptertest.Check(t, adaptertest.Wiring{
				Start: serve(func(sessions *sojourn.Manager, a adaptertest.App) http.Handler {
					return engine(app(a, withGorilla, abort), gin.Recovery(), test.middleware(sessions))
				}),
				Patience: 2 * time.Second,
			})
			for _, want := range test.fails {
				if !slices.ContainsFunc(failures, func(f adaptertest.Failure) bool { return f.Check == want }) {
					t.Errorf("this check passes: %s", want)
				}
			}
		})
	}
}

var visits = sojourn.NewKey[int]("visits")

// An error in c.Errors counts as the handler's error if the status is an error.
func TestWhatAHandlerAnswersAnErrorWithDecidesWhatIsKept(t *testing.T) {
	oops := errors.New("oops")
	for name, test := range map[string]struct {
		handle func(c *gin.Context)
		status int
		keeps  bool
	}{
		"AbortWithError 404":                  {func(c *gin.Context) { _ = c.AbortWithError(404, oops) }, 404, false},
		"AbortWithError 500":                  {func(c *gin.Context) { _ = c.AbortWithError(500, oops) }, 500, false},
		"Error, then AbortWithStatus":         {func(c *gin.Context) { _ = c.Error(oops); c.AbortWithStatus(403) }, 403, false},
		"Error, then JSON with 422":           {func(c *gin.Context) { _ = c.Error(oops); c.JSON(422, gin.H{}) }, 422, false},
		"Error, then a page":                  {func(c *gin.Context) { _ = c.Error(oops); c.String(200, "ok") }, 200, true},
		"Error, then a redirect":              {func(c *gin.Context) { _ = c.Error(oops); c.Redirect(303, "/") }, 303, true},
		"Error, and no answer":                {func(c *gin.Context) { _ = c.Error(oops) }, 500, false},
		"Error, and a status alone":           {func(c *gin.Context) { c.Status(409); _ = c.Error(oops) }, 409, false},
		"AbortWithStatus 404":                 {func(c *gin.Context) { c.AbortWithStatus(404) }, 404, true},
		"AbortWithStatusJSON 422":             {func(c *gin.Context) { c.AbortWithStatusJSON(422, gin.H{}) }, 422, true},
		"AbortWithStatus 500":                 {func(c *gin.Context) { c.AbortWithStatus(500) }, 500, false},
		"a status of 500 alone":               {func(c *gin.Context) { c.Status(500) }, 500, false},
		"a status of 404 alone":               {func(c *gin.Context) { c.Status(404) }, 404, true},
		"nothing":                             {func(c *gin.Context) {}, 200, true},
		"WriteHeaderNow, then a page":         {func(c *gin.Context) { c.Status(201); c.Writer.WriteHeaderNow(); c.String(400, "ok") }, 201, true},
		"a page, then AbortWithError":         {func(c *gin.Context) { c.String(200, "ok"); _ = c.AbortWithError(500, oops) }, 200, true},
		"a page that c.JSON cannot make":      {func(c *gin.Context) { c.JSON(200, func() {}) }, 500, false},
		"a status that c.JSON cannot explain": {func(c *gin.Context) { c.JSON(400, func() {}) }, 400, false},
		"what c.Writer's callers see": {func(c *gin.Context) {
			if c.Writer.Written() || c.Writer.Size() != -1 {
				t.Errorf("before the header: written %v, size %d", c.Writer.Written(), c.Writer.Size())
			}
			c.Status(202)
			c.Writer.WriteHeaderNow()
			if !c.Writer.Written() || c.Writer.Size() != 0 || c.Writer.Status() != 202 {
				t.Errorf("after the header: written %v, size %d, status %d", c.Writer.Written(), c.Writer.Size(), c.Writer.Status())
			}
			_, _ = c.Writer.WriteString("four")
			if c.Writer.Size() != 4 {
				t.Errorf("after four bytes: size %d", c.Writer.Size())
			}
		}, 202, true},
	} {
		t.Run(name, func(t *testing.T) {
			sessions := sojourntest.NewManager(t, sojourn.Config{})
			browser := sojourntest.NewBrowser(t, engine(func(c *gin.Context) {
				session, err := sessions.Get(c.Request.Context())
				if err != nil {
					t.Error(err)
					return
				}
				visits.Set(session, 1)
				test.handle(c)
			}, sojourngin.Middleware(sessions)))
			resp := browser.Get("/")
			if kept := visits.Get(browser.Session(sessions)) == 1; resp.StatusCode != test.status || kept != test.keeps {
				t.Errorf("the status is %d, want %d; kept: %v, want %v", resp.StatusCode, test.status, kept, test.keeps)
			}
		})
	}
}

// A redirect of a POST has no body, so gin only records its status.
func TestARedirectWithoutABodyLeavesFlashMessages(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	browser := sojourntest.NewBrowser(t, engine(func(c *gin.Context) {
		session, err := sessions.Get(c.Request.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if c.Request.Method == http.MethodPost {
			session.Flashes()
			c.Redirect(http.StatusSeeOther, "/")
			return
		}
		c.String(http.StatusOK, "%d", len(session.Flashes()))
	}, sojourngin.Middleware(sessions)))
	browser.Prepare(sessions, func(s *sojourn.Session) { s.Flash("success", "saved") })
	if resp := browser.PostForm("/", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the status is %d", resp.StatusCode)
	}
	if resp := browser.Get("/"); text(t, resp) != "1" {
		t.Error("the redirect has taken the message")
	}
	if resp := browser.Get("/"); text(t, resp) != "0" {
		t.Error("the page has not taken the message")
	}
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnAccessLogOutsideSeesWhatWasSent(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{InlineLimit: 300, Mode: sojourn.CookieOnly})
	var line string
	accessLog := func(c *gin.Context) {
		before := c.Writer
		c.Next()
		if c.Writer != before {
			t.Error("outside c.Writer is another one than before")
		}
		line = fmt.Sprint(c.Writer.Status(), c.Writer.Size(), c.Writer.Written())
	}
	long := sojourn.NewKey[string]("long")
	handler := engine(func(c *gin.Context) {
		session, err := sessions.Get(c.Request.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if c.Query("long") != "" {
			long.Set(session, strings.Repeat("x", 1000)) // does not fit
		}
		c.String(http.StatusOK, "ok")
	}, accessLog, sojourngin.Middleware(sessions))
	for target, want := range map[string]int{"/": http.StatusOK, "/?long=yes": http.StatusRequestEntityTooLarge} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if sent := fmt.Sprint(want, w.Body.Len(), true); w.Code != want || line != sent {
			t.Errorf("%s: the access log has %q, want %q; the answer is %d %s", target, line, sent, w.Code, w.Body)
		}
	}
}

// An engine that is a handler of another one has contexts and errors of its own.
func TestAnEngineInsideAnEngineHasItsOwnErrors(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	inner := engine(func(c *gin.Context) {
		session, err := sessions.Get(c.Request.Context())
		if err != nil {
			t.Error(err)
			return
		}
		visits.Update(session, func(n int) int { return n + 1 })
		if c.Query("fail") != "" {
			_ = c.AbortWithError(http.StatusNotFound, errors.New("oops"))
			return
		}
		c.String(http.StatusOK, "ok")
	}, sojourngin.Middleware(sessions))
	browser := sojourntest.NewBrowser(t, engine(gin.WrapH(inner), sojourngin.Middleware(sessions)))
	for target, status := range map[string]int{"/": http.StatusOK, "/?fail=yes": http.StatusNotFound} {
		if resp := browser.Get(target); resp.StatusCode != status {
			t.Errorf("%s is answered %d", target, resp.StatusCode)
		}
	}
	if n := visits.Get(browser.Session(sessions)); n != 1 {
		t.Errorf("%d visits, want 1", n)
	}
}

// The context of a tunnel's requests comes from that of the request that opened
// it, and gin may use the same *gin.Context for both.
func TestARequestWhoseContextComesFromAnEarlierOneIsAnsweredItself(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	var before context.Context
	e := engine(func(c *gin.Context) {
		session, err := sessions.Get(c.Request.Context())
		if err != nil {
			t.Error(err)
			return
		}
		before = c.Request.Context()
		c.String(http.StatusOK, "%d", visits.Update(session, func(n int) int { return n + 1 }))
	}, sojourngin.Middleware(sessions))
	visitor := sojourntest.Request(t, sessions, http.MethodGet, "/", nil, func(s *sojourn.Session) { visits.Set(s, 5) })
	for range 8 { // the pool forgets contexts at random, with the race detector
		before = t.Context()
		for i, want := range []string{"1", "6"} {
			r := httptest.NewRequestWithContext(before, http.MethodGet, "/", nil)
			if i == 1 {
				r.Header = visitor.Header.Clone()
			}
			w := httptest.NewRecorder()
			e.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Body.String() != want {
				t.Errorf("request %d is answered %d %q, want %q", i, w.Code, w.Body, want)
			}
		}
	}
}

func TestTwoManagersCommitBeforeTheFirstByte(t *testing.T) {
	shop := sojourntest.NewManager(t, sojourn.Config{})
	staff := sojourntest.NewManager(t, sojourn.Config{Name: "staff"})
	browser := sojourntest.NewBrowser(t, engine(func(c *gin.Context) {
		for _, sessions := range []*sojourn.Manager{shop, staff} {
			session, err := sessions.Get(c.Request.Context())
			if err != nil {
				t.Error(err)
				return
			}
			visits.Update(session, func(n int) int { return n + 1 })
		}
		if c.Query("fail") != "" {
			_ = c.AbortWithError(http.StatusConflict, errors.New("oops"))
			return
		}
		c.String(http.StatusOK, "ok")
	}, sojourngin.Middleware(shop), sojourngin.Middleware(staff)))
	browser.Get("/")
	browser.Get("/?fail=yes")
	for name, sessions := range map[string]*sojourn.Manager{"shop": shop, "staff": staff} {
		if n := visits.Get(browser.Session(sessions)); n != 1 {
			t.Errorf("%s: %d visits, want 1", name, n)
		}
	}
}

func TestAContextOfGinFindsTheSessionIfTheEngineSaysSo(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	for _, fallback := range []bool{false, true} {
		e := engine(func(c *gin.Context) {
			if _, err := sessions.Get(c); (err == nil) != fallback || err != nil && !errors.Is(err, sojourn.ErrNoMiddleware) {
				t.Errorf("ContextWithFallback is %v: %v", fallback, err)
			}
		}, sojourngin.Middleware(sessions))
		e.ContextWithFallback = fallback
		sojourntest.NewBrowser(t, e).Get("/")
	}
}
