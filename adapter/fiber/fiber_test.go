package sojournfiber_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/gofiber/fiber/v3/middleware/timeout"

	"github.com/sojourn-go/sojourn"
	sojournfiber "github.com/sojourn-go/sojourn/adapter/fiber"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// site is an application on a real server.
type site struct {
	*sitetest.Lab
	app *fiber.App
	url string
}

// newSite serves an application whose routes are made by routes, inside the
// middleware of a manager.
func newSite(t *testing.T, routes func(*sitetest.Lab, *fiber.App), config ...fiber.Config) *site {
	t.Helper()
	s := &site{Lab: sitetest.NewLab(t), app: fiber.New(config...)}
	s.app.Use(recover.New(), sojournfiber.Middleware(s.Manager))
	routes(s.Lab, s.app)
	s.app.Get("/cart", func(c fiber.Ctx) error {
		session, err := s.Get(c)
		if err != nil {
			return err
		}
		return c.SendString(fmt.Sprint(sitetest.CartKey.Get(session)))
	})
	s.url = serve(t, s.app)
	return s
}

func (s *site) get(v *sitetest.Guest, path string, edit ...func(*http.Request)) *http.Response {
	s.T.Helper()
	r, err := http.NewRequestWithContext(s.T.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	s.T.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Do(v.Prepare(r))
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = resp.Body.Close() })
	return v.Keep(resp)
}

func (s *site) cart(v *sitetest.Guest) string {
	s.T.Helper()
	resp := s.get(v, "/cart")
	sitetest.WantStatus(s.T, resp, http.StatusOK)
	return sitetest.Body(s.T, resp)
}

// session returns the session, as handlers get it.
func session(t *testing.T, m *sojourn.Manager, c context.Context) *sojourn.Session {
	s, err := m.Get(c)
	if err != nil {
		t.Error(err)
	}
	return s
}

// The ends of a handler that has put 2 into the cart, or has logged out.
var endings = map[string]struct {
	end    fiber.Handler
	status int
	kept   bool
}{
	"200":              {func(c fiber.Ctx) error { return c.SendString("fine") }, 200, true},
	"a written 404":    {func(c fiber.Ctx) error { return c.Status(404).SendString("none") }, 404, true},
	"a written 500":    {func(c fiber.Ctx) error { return c.Status(500).SendString("no") }, 500, false},
	"a returned 404":   {func(c fiber.Ctx) error { return fiber.ErrNotFound }, 404, false},
	"a returned error": {func(c fiber.Ctx) error { return errors.New("broken") }, 500, false},
	"an error after a page": {func(c fiber.Ctx) error {
		_ = c.SendString("fine")
		return fiber.NewError(422, "no such size")
	}, 422, false},
	"Fail, and 200": {func(c fiber.Ctx) error {
		if !sojourn.Fail(c) {
			return errors.New("Fail found no request")
		}
		return c.SendString("fine")
	}, 200, false},
	"Commit, and an error": {func(c fiber.Ctx) error {
		if err := sojourn.Commit(c); err != nil {
			return err
		}
		return fiber.ErrTeapot
	}, 418, true},
	"an error on a stream": {func(c fiber.Ctx) error {
		return errors.Join(sojournfiber.Stream(c, func(context.Context, *bufio.Writer) { panic("started") }), fiber.ErrConflict)
	}, 409, false},
}

func TestWhatARequestKeeps(t *testing.T) {
	for name, test := range endings {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
				app.Get("/set", func(c fiber.Ctx) error {
					sitetest.CartKey.Set(session(t, s.Manager, c), 2)
					return test.end(c)
				})
				app.Get("/leave", func(c fiber.Ctx) error {
					session(t, s.Manager, c.Context()).Logout()
					return test.end(c)
				})
			})
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			s.visit(v, "/set", test.status)
			if got := s.cart(v); (got == "2") != test.kept {
				t.Errorf("the cart is %s", got)
			}
			s.visit(v, "/leave", test.status)
			if live := sitetest.Rows(t, s.Store); live != 0 || len(v.Cookies) > 0 {
				t.Errorf("after a logout %d sessions are live, and the visitor has %d cookies", live, len(v.Cookies))
			}
		})
	}
}

func (s *site) visit(v *sitetest.Guest, path string, want int) *http.Response {
	s.T.Helper()
	resp := s.get(v, path)
	sitetest.WantStatus(s.T, resp, want)
	return resp
}

func TestAPanicKeepsNothing(t *testing.T) {
	for name, middleware := range map[string][]any{"recovered outside": nil, "recovered inside": {recover.New()}} {
		s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
			if middleware != nil {
				app.Use(middleware...)
			}
			app.Get("/set", func(c fiber.Ctx) error {
				sitetest.CartKey.Set(session(t, s.Manager, c), 2)
				panic("broken")
			})
			app.Get("/stream", func(c fiber.Ctx) error {
				sitetest.CartKey.Set(session(t, s.Manager, c), 2)
				if err := sojournfiber.Stream(c, func(context.Context, *bufio.Writer) { t.Error("the stream was started") }); err != nil {
					t.Error(err)
				}
				panic("broken")
			})
		})
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		for _, path := range []string{"/set", "/stream"} {
			s.visit(v, path, http.StatusInternalServerError)
			if got := s.cart(v); got != "1" {
				t.Errorf("%s, %s: the cart is %s", name, path, got)
			}
		}
	}
}

func TestAnUntouchedRequestCostsNothing(t *testing.T) {
	s := newSite(t, func(_ *sitetest.Lab, app *fiber.App) {
		app.Get("/", func(c fiber.Ctx) error { return c.SendString("public") })
	})
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	calls := s.Calls()
	resp := s.visit(v, "/", http.StatusOK)
	if s.Calls() != calls || resp.Header.Get("Vary") != "" || resp.Header.Get("Cache-Control") != "" {
		t.Errorf("%d calls, the header is %q", s.Calls()-calls, resp.Header)
	}
	resp = s.visit(v, "/cart", http.StatusOK)
	if resp.Header.Get("Vary") != "Cookie" || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("of a page that depends on the session the header is %q", resp.Header)
	}
}

func TestEveryCookieArrives(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/", func(c fiber.Ctx) error {
			c.Cookie(&fiber.Cookie{Name: "own", Value: "1", Path: "/"})
			c.Response().Header.Add("Set-Cookie", "own=2; Path=/elsewhere")
			sitetest.ThemeKey.Set(session(t, s.Manager, c), "dark")
			c.Vary("Accept-Language")
			c.Cookie(&fiber.Cookie{Name: "other", Value: "3"})
			return nil
		})
		app.Get("/grow", func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 1)
			c.Cookie(&fiber.Cookie{Name: "other", Value: "4"})
			return nil
		})
	})
	v := sitetest.NewGuest(t)
	resp := s.visit(v, "/", http.StatusOK)
	sitetest.WantCookies(t, resp, "own", "own", "other", sitetest.StateCookie)
	if got := strings.Join(resp.Header.Values("Vary"), ", "); got != "Accept-Language, Cookie" {
		t.Errorf("Vary: %s", got)
	}
	resp = s.visit(v, "/grow", http.StatusOK) // into the store
	if names := sitetest.SetNames(resp); len(names) != 3 || names[0] != "other" {
		t.Errorf("the response sets %q", names)
	}
	s.visit(v, "/", http.StatusOK)
	if !s.Has(v, "cart") || !s.Has(v, "theme") {
		t.Error("a value is lost")
	}
}

func TestTheErrorHandlerAnswersBeforeTheCommit(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/", func(c fiber.Ctx) error {
			session(t, s.Manager, c).Logout()
			return fiber.NewError(402, "first pay")
		})
	}, fiber.Config{ErrorHandler: func(c fiber.Ctx, err error) error {
		c.Set("X-Handled", err.Error())
		c.Cookie(&fiber.Cookie{Name: "own", Value: "1"})
		return c.Status(402).SendString("<p>" + err.Error())
	}})
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.visit(v, "/", 402)
	sitetest.WantCookies(t, resp, "own", "-"+sitetest.RefCookie)
	if body := sitetest.Body(t, resp); body != "<p>first pay" || resp.Header["X-Handled"] == nil || resp.Header.Get("Vary") != "Cookie" {
		t.Errorf("%q, the header is %q", body, resp.Header)
	}
}

func TestAnErrorHandlerThatFailsKeepsNothing(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/", func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 1)
			return fiber.ErrNotFound
		})
	}, fiber.Config{ErrorHandler: func(c fiber.Ctx, err error) error { return err }})
	v := sitetest.NewGuest(t)
	sitetest.WantCookies(t, s.visit(v, "/", http.StatusInternalServerError))
}

func TestACommitThatFailsIsAnsweredWithAnError(t *testing.T) {
	var handled error
	handler := func(c fiber.Ctx, err error) error {
		handled = err
		return fiber.DefaultErrorHandler(c, err)
	}
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/", func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 2)
			c.Set("Etag", `"1"`)
			c.Set("Content-Disposition", "attachment")
			c.Set("Content-Security-Policy", "default-src 'self'")
			c.Set("Cache-Control", "max-age=60")
			c.Status(http.StatusCreated)
			c.Location("/new")
			return c.SendString("done")
		})
		app.Get("/stream", func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 2)
			return sojournfiber.Stream(c, func(context.Context, *bufio.Writer) { t.Error("the stream was started") })
		})
		app.Get("/upgrade", func(c fiber.Ctx) error {
			session := session(t, s.Manager, c)
			sitetest.CartKey.Set(session, 2)
			session.Done()
			if _, _, err := sojournfiber.Hold(c); err != nil {
				return err
			}
			c.Set("Connection", "Upgrade")
			c.Set("Upgrade", "echo")
			c.RequestCtx().Hijack(func(net.Conn) { t.Error("the connection was taken over") })
			return c.SendStatus(http.StatusSwitchingProtocols)
		})
		app.Get("/large", func(c fiber.Ctx) error {
			sojourn.NewKey[string]("large", sojourn.ServerSide).Set(session(t, s.Manager, c), strings.Repeat("x", 4<<20))
			return c.SendString("done")
		})
	}, fiber.Config{ErrorHandler: handler})
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	for _, path := range []string{"/", "/stream", "/upgrade"} {
		s.Store.SaveDown.Store(true)
		resp := s.visit(v, path, http.StatusServiceUnavailable)
		s.Store.SaveDown.Store(false)
		_, text := sojourn.ErrorStatus(sojourn.ErrUnavailable)
		if body := sitetest.Body(t, resp); body != text {
			t.Errorf("%s: the body is %q", path, body)
		}
		for _, name := range []string{"Etag", "Location", "Content-Disposition", "Upgrade"} {
			if resp.Header.Get(name) != "" {
				t.Errorf("%s: the error has %s: %s", path, name, resp.Header.Get(name))
			}
		}
		if h := resp.Header; h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Cookie" || path == "/" && h.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: the header is %q", path, h)
		}
		var answer *fiber.Error
		if !errors.Is(handled, sojourn.ErrUnavailable) || !errors.As(handled, &answer) || answer.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: the ErrorHandler got %v", path, handled)
		}
		if got := s.cart(v); got != "1" {
			t.Errorf("%s: the cart is %s", path, got)
		}
	}
	s.eventually(func() bool { return s.Streams() == 0 })
	s.visit(v, "/large", http.StatusRequestEntityTooLarge)
	if !errors.Is(handled, sojourn.ErrTooLarge) {
		t.Errorf("the ErrorHandler got %v", handled)
	}
}

func TestSeveralManagers(t *testing.T) {
	other := sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	set := func(c fiber.Ctx, m *sojourn.Manager) {
		for _, m := range []*sojourn.Manager{m, other.Manager} {
			sitetest.CartKey.Set(session(t, m, c), 2)
			if session(t, m, c) != session(t, m, c.Context()) {
				t.Error("c and its context have different sessions")
			}
		}
	}
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Use(sojournfiber.Middleware(other.Manager))
		app.Get("/fail", func(c fiber.Ctx) error { set(c, s.Manager); return fiber.ErrNotFound })
		app.Get("/", func(c fiber.Ctx) error { set(c, s.Manager); return nil })
		app.Get("/stream", func(c fiber.Ctx) error {
			set(c, s.Manager)
			return sojournfiber.Stream(c, func(ctx context.Context, w *bufio.Writer) {
				for _, m := range []*sojourn.Manager{s.Manager, other.Manager} {
					sitetest.CartKey.Update(session(t, m, ctx), sitetest.AddOne)
				}
				_, _ = w.WriteString("done")
			})
		})
	})
	v := sitetest.NewGuest(t)
	sitetest.WantCookies(t, s.visit(v, "/fail", http.StatusNotFound))
	s.Store.SaveDown.Store(true) // the outer one fails
	s.visit(v, "/", http.StatusServiceUnavailable)
	s.visit(v, "/stream", http.StatusServiceUnavailable)
	s.Store.SaveDown.Store(false)
	other.Store.SaveDown.Store(true) // the inner one does, and neither is kept
	sitetest.WantCookies(t, s.visit(sitetest.NewGuest(t), "/", http.StatusServiceUnavailable))
	other.Store.SaveDown.Store(false)
	sitetest.WantCookies(t, s.visit(sitetest.NewGuest(t), "/", http.StatusOK), "__Host-other", sitetest.RefCookie)
	s.visit(v, "/", http.StatusOK)
	if body := sitetest.Body(t, s.visit(v, "/stream", http.StatusOK)); body != "done" {
		t.Errorf("the body is %q", body)
	}
	s.eventually(func() bool { return s.cart(v) == "3" })
	s.eventually(func() (kept bool) {
		other.Do(v, func(session *sojourn.Session) { kept = sitetest.CartKey.Get(session) == 3 })
		return kept
	})
}

// eventually waits for a condition after a response has ended.
func (s *site) eventually(ok func() bool) {
	s.T.Helper()
	for !ok() {
		select {
		case <-s.T.Context().Done():
			s.T.Fatal("the test has ended")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTheMiddlewareTwiceAndARoutingThatStartsAgain(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/again", sojournfiber.Middleware(s.Manager), func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 2)
			c.Path("/cart")
			return c.RestartRouting()
		})
		app.Get("/lost", sojournfiber.Middleware(s.Manager), func(c fiber.Ctx) error {
			sitetest.CartKey.Set(session(t, s.Manager, c), 3)
			c.Path("/nowhere")
			return c.RestartRouting()
		})
	})
	v := sitetest.NewGuest(t)
	if body := sitetest.Body(t, s.visit(v, "/again", http.StatusOK)); body != "2" {
		t.Errorf("the cart is %s", body)
	}
	s.visit(v, "/lost", http.StatusNotFound)
	if got := s.cart(v); got != "2" {
		t.Errorf("the cart is %s", got)
	}
}

func TestAHandlerThatIsStillRunningWhenItsTimeIsUpKeepsNothing(t *testing.T) {
	answered, over := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		run := func(change func(*sojourn.Session)) fiber.Handler {
			return func(c fiber.Ctx) error {
				defer func() { over <- struct{}{} }()
				session := session(t, s.Manager, c)
				change(session)
				<-answered
				sitetest.CartKey.Set(session, 3)
				if err := session.Save(c.Context()); !errors.Is(err, sojourn.ErrTooLate) {
					t.Errorf("Save: %v", err)
				}
				if err := sojournfiber.Stream(c, nil); !errors.Is(err, sojourn.ErrTooLate) {
					t.Errorf("Stream: %v", err)
				}
				return nil
			}
		}
		soon := timeout.Config{Timeout: time.Millisecond, OnTimeout: func(c fiber.Ctx) error { return c.Status(202).SendString("later") }}
		app.Get("/set", timeout.New(run(func(s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }), soon))
		app.Get("/leave", timeout.New(run(func(s *sojourn.Session) { s.Logout() }), timeout.Config{Timeout: time.Second}))
	})
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.visit(v, "/set", http.StatusAccepted)
	answered <- struct{}{}
	<-over
	if got := s.cart(v); got != "1" {
		t.Errorf("the cart is %s", got)
	}
	resp := s.visit(v, "/leave", http.StatusRequestTimeout)
	sitetest.WantCookies(t, resp, "-"+sitetest.RefCookie)
	answered <- struct{}{}
	<-over
}

func TestAStreamBeginsAfterTheCommitAndItsChangesAreKept(t *testing.T) {
	for name, fails := range map[string]bool{"kept": false, "after Fail": true} {
		s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
			app.Get("/", func(c fiber.Ctx) error {
				session := session(t, s.Manager, c)
				err := sojournfiber.Stream(c, func(ctx context.Context, w *bufio.Writer) {
					again, err := s.Get(ctx)
					if again != session || err != nil {
						t.Errorf("Get: %v", err)
					}
					if live := sitetest.Rows(t, s.Store); live != 1 {
						t.Error("the stream began before the commit")
					}
					sitetest.CartKey.Set(session, 2)
					if fails {
						sojourn.Fail(ctx)
					}
					_, _ = io.WriteString(w, "data: 1\n\n")
				})
				c.Set("Content-Type", "text/event-stream")
				sitetest.CartKey.Set(session, 1)
				return err
			})
		})
		v := sitetest.NewGuest(t)
		resp := s.visit(v, "/", http.StatusOK)
		if body := sitetest.Body(t, resp); body != "data: 1\n\n" || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s: the body is %q, the header %q", name, body, resp.Header)
		}
		want := "2"
		if fails {
			want = "1"
		}
		s.eventually(func() bool { return s.cart(v) == want })
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/stream", func(c fiber.Ctx) error {
			session := session(t, s.Manager, c)
			return sojournfiber.Stream(c, func(_ context.Context, w *bufio.Writer) {
				_, _ = w.WriteString("hello")
				_ = w.Flush()
				<-session.Done()
				_, _ = fmt.Fprint(w, errors.Is(session.Err(), sojourn.ErrEnded))
			})
		})
		app.Get("/leave", func(c fiber.Ctx) error {
			session(t, s.Manager, c).Logout()
			return nil
		})
	})
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.visit(v.Copy(), "/stream", http.StatusOK)
	if _, err := io.ReadFull(resp.Body, make([]byte, len("hello"))); err != nil {
		t.Fatal(err)
	}
	s.visit(v, "/leave", http.StatusOK)
	if rest := sitetest.Body(t, resp); rest != "true" {
		t.Errorf("the stream ended with %q", rest)
	}
}

// A connection's buffers are used for its next request.
func TestWhatIsHeldIsTheSessionOfItsOwnRequest(t *testing.T) {
	type held struct {
		ctx     context.Context
		release func()
	}
	holds := make(chan held, 1)
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/hold", func(c fiber.Ctx) error {
			ctx, release, err := sojournfiber.Hold(c)
			holds <- held{ctx, release}
			return err
		})
		app.Get("/leak", func(c fiber.Ctx) error {
			holds <- held{c.Context(), func() {}}
			return nil
		})
	})
	anna, bert := sitetest.NewGuest(t), sitetest.NewGuest(t)
	s.Do(anna, func(session *sojourn.Session) { session.Login("anna") })
	s.Do(bert, func(session *sojourn.Session) { session.Login("bert") })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	ask := func(v *sitetest.Guest, path string) {
		t.Helper()
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: shop.example\r\nCookie: %s\r\n\r\n", path, v.Header())
		resp, err := http.ReadResponse(answers, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	ask(anna, "/hold")
	ask(bert, "/cart")
	h := <-holds
	first := session(t, s.Manager, h.ctx)
	if first.User() != "anna" {
		t.Errorf("the session is that of %s", first.User())
	}
	sitetest.CartKey.Set(first, 7)
	h.release()
	if got := s.cart(anna); got != "7" {
		t.Errorf("the cart is %s", got)
	}
	ask(anna, "/leak")
	ask(bert, "/cart")
	if user := session(t, s.Manager, (<-holds).ctx).User(); user != "" {
		t.Errorf("after the end of a request its session is that of %s", user)
	}
}

func TestAConnectionThatIsTakenOverHasTheCookieAndTheSession(t *testing.T) {
	s := newSite(t, func(s *sitetest.Lab, app *fiber.App) {
		app.Get("/ws", func(c fiber.Ctx) error {
			session := session(t, s.Manager, c)
			sitetest.CartKey.Set(session, 1)
			_, release, err := sojournfiber.Hold(c)
			if err != nil {
				return err
			}
			c.Set("Connection", "Upgrade")
			c.Set("Upgrade", "echo")
			c.RequestCtx().Hijack(func(conn net.Conn) {
				defer release()
				sitetest.CartKey.Update(session, sitetest.AddOne)
				_, _ = io.WriteString(conn, "hello")
			})
			return c.SendStatus(http.StatusSwitchingProtocols)
		})
	})
	v := sitetest.NewGuest(t)
	resp := s.get(v, "/ws", func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "echo")
	})
	sitetest.WantStatus(t, resp, http.StatusSwitchingProtocols)
	if body := sitetest.Body(t, resp); body != "hello" {
		t.Errorf("the connection said %q", body)
	}
	s.eventually(func() bool { return s.cart(v) == "2" })
}

func TestWithoutTheMiddlewareThereIsNoSession(t *testing.T) {
	s := sitetest.NewLab(t)
	app := fiber.New()
	app.Get("/", func(c fiber.Ctx) error {
		_, err := s.Get(c)
		_, _, held := sojournfiber.Hold(c)
		for _, err := range []error{err, held, sojournfiber.Stream(c, nil)} {
			if !errors.Is(err, sojourn.ErrNoMiddleware) {
				t.Errorf("got %v", err)
			}
		}
		return nil
	})
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	if _, err := app.Test(r); err != nil {
		t.Error(err)
	}
}

func TestAnErrorOfSojournThatAHandlerReturnsIsAnsweredInPublic(t *testing.T) {
	for err, want := range map[error]int{
		fmt.Errorf("secret: %w", sojourn.ErrUnavailable): 503, fmt.Errorf("secret: %w", sojourn.ErrEnded): 409,
		fmt.Errorf("secret: %w", sojourn.ErrTooLate): 500, fmt.Errorf("secret: %w", sojourn.ErrNotFound): 404,
		errors.New("broken"): 500, fiber.ErrTeapot: 418, errors.Join(fiber.ErrTeapot, sojourn.ErrEnded): 418,
	} {
		s := newSite(t, func(_ *sitetest.Lab, app *fiber.App) {
			app.Get("/", func(fiber.Ctx) error { return err })
		})
		if body := sitetest.Body(t, s.visit(sitetest.NewGuest(t), "/", want)); strings.Contains(body, "secret") {
			t.Errorf("%v is answered %q", err, body)
		}
	}
}

// Fiber's own way to use a middleware of net/http, which looks right.
func TestWrapAsAMiddlewareOfFiberFindsNoSession(t *testing.T) {
	s := sitetest.NewLab(t)
	app := fiber.New()
	app.Use(adaptor.HTTPMiddleware(s.Wrap))
	var errs []error
	app.Get("/", func(c fiber.Ctx) error {
		for _, ctx := range []context.Context{c, c.Context(), c.RequestCtx()} {
			_, err := s.Get(ctx)
			errs = append(errs, err)
		}
		return nil
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, serve(t, app), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for _, err := range errs {
		if !errors.Is(err, sojourn.ErrNoMiddleware) {
			t.Errorf("Get: %v", err)
		}
	}
	if len(errs) != 3 {
		t.Errorf("the handler ran %d times", len(errs)/3)
	}
}
