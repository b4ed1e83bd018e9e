// Package sojournfiber is Sojourn for Fiber, directly on fasthttp:
//
//	app := fiber.New()
//	app.Use(sojournfiber.Middleware(sessions))
//	app.Get("/", sojournfiber.Handler(sessions, func(c fiber.Ctx, session *sojourn.Session) error {
//		…
//	}))
//
// A request's changes are kept once, after its handlers have returned with a
// status below 500. After an error, a status of 500 or above, or a panic, only a
// Logout is kept.
//
// Pass c.Context() to functions that take the request's context, such as
// [sojourn.Fail].
package sojournfiber

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/sojourn-go/sojourn"
)

// Middleware returns the middleware for the sessions of m. It renders handlers'
// errors with the application's ErrorHandler, so that the commit sees the final
// response; outer middlewares get nil. The ErrorHandler also renders a failed
// commit; see [Error].
//
// Several managers each need a middleware; the inner one commits first.
func Middleware(m *sojourn.Manager) fiber.Handler {
	return func(c fiber.Ctx) error {
		if c.Value(m) != nil {
			return c.Next() // after c.RestartRouting, or if it is used twice
		}
		v, inner := c.Locals(visitKey{}).(*visit)
		if !inner {
			v = &visit{}
			c.Locals(visitKey{}, v)
			defer v.finish()
		}
		info := &request{c: c}
		defer info.close()
		ctx, x := m.Attach(c.Context(), info.get)
		defer func() { _ = x.Finish() }() // an error is already logged
		c.Locals(m, x)
		c.Locals((*sojourn.Exchange)(nil), x) // for sojourn.Fail and sojourn.Commit
		c.SetContext(ctx)
		v.add(part{x, info})

		err := respond(c, x, v, c.Next())
		if !inner && err == nil {
			v.start(c)
		}
		return err
	}
}

// Handler returns a handler that calls f with the request's session, for use inside
// Middleware. If the session cannot be loaded, it returns that error. It corresponds
// to [sojourn.Manager.Handler].
func Handler(m *sojourn.Manager, f func(fiber.Ctx, *sojourn.Session) error) fiber.Handler {
	return func(c fiber.Ctx) error {
		session, err := m.Get(c)
		if err != nil {
			return err
		}
		return f(c, session)
	}
}

// respond renders err, and commits.
func respond(c fiber.Ctx, x *sojourn.Exchange, v *visit, err error) error {
	if late := c.RequestCtx().LastTimeoutErrorResponse(); late != nil {
		// The handler is still running and owns the response of c. This one is
		// sent instead.
		v.fail()
		_ = x.Commit(late.StatusCode(), header{&late.Header})
		return err
	}
	if err != nil {
		v.fail()
		render(c, Error(err))
	}
	if err := x.Commit(c.Response().StatusCode(), header{&c.Response().Header}); err != nil {
		v.fail()
		clearPage(c)
		render(c, newFailure(err))
	}
	return nil
}

// render handles an error like Fiber.
func render(c fiber.Ctx, err error) {
	if c.App().ErrorHandler(c, err) != nil {
		_ = c.SendStatus(fiber.StatusInternalServerError) // always nil
	}
}

// Error returns the public error for an error of sojourn, such as one of
// [sojourn.Manager.Get]. It wraps err, and a [fiber.Error] with the status and
// text of [sojourn.ErrorStatus] for clients. Other errors, and a fiber.Error,
// are returned unchanged. The middleware calls Error for the errors of
// handlers.
func Error(err error) error {
	if already := (*fiber.Error)(nil); errors.As(err, &already) || !sojourn.IsError(err) {
		return err
	}
	return newFailure(err)
}

func newFailure(cause error) error {
	return &failure{answer: fiber.NewError(sojourn.ErrorStatus(cause)), cause: cause}
}

type failure struct {
	answer *fiber.Error
	cause  error
}

func (f *failure) Error() string   { return f.answer.Message }
func (f *failure) Unwrap() []error { return []error{f.answer, f.cause} }

// clearPage removes the unsent response, except cookies and the headers for
// caches.
func clearPage(c fiber.Ctx) {
	c.RequestCtx().Hijack(nil)
	resp := c.Response()
	resp.ResetBody()
	var page []string
	for name := range resp.Header.All() {
		switch name := string(name); name {
		case "Etag", "ETag", fiber.HeaderLastModified, fiber.HeaderLocation, fiber.HeaderUpgrade, fiber.HeaderConnection:
			page = append(page, name)
		default:
			if strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, fiber.HeaderContentSecurityPolicy) ||
				strings.HasPrefix(strings.ToLower(name), "sec-websocket-") {
				page = append(page, name)
			}
		}
	}
	for _, name := range page {
		resp.Header.Del(name)
	}
	resp.Header.Set(fiber.HeaderCacheControl, "no-store")
}

// Stream sends the body of the response with write, like SendStreamWriter.
// write is called after the session's changes are kept and the header is
// complete; it is not called if the handler returns an error or the commit
// fails. The session stays open until write returns. Then a stored session's
// further changes are kept, unless write calls [sojourn.Fail]. Get finds the
// session in ctx; do not use c in write, because Fiber reuses it.
//
// A long stream should end with the session:
//
//	return sojournfiber.Stream(c, func(ctx context.Context, w *bufio.Writer) {
//		for {
//			select {
//			case <-session.Done():
//				return
//			case message := <-messages:
//				fmt.Fprintf(w, "data: %s\n\n", message)
//				if w.Flush() != nil {
//					return // the client has gone away
//				}
//			}
//		}
//	})
//
// It returns [sojourn.ErrNoMiddleware] without the middleware of this package,
// and [sojourn.ErrTooLate] after the request's end.
func Stream(c fiber.Ctx, write func(ctx context.Context, w *bufio.Writer)) error {
	v, ok := c.Locals(visitKey{}).(*visit)
	if !ok {
		return sojourn.ErrNoMiddleware
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stream == nil {
		_, release, err := v.hold()
		if err != nil {
			return err
		}
		v.release = release
	}
	v.stream = write
	return nil
}

// Hold keeps the session open after the handler has returned, for a connection
// that is taken over, such as a WebSocket. Until release is called, Get finds
// the session in ctx, and Session.Done works. release keeps a stored session's
// further changes. It need not be called if the handler returns an error or
// panics, or if the commit fails. The errors are those of [Stream].
func Hold(c fiber.Ctx) (ctx context.Context, release func(), err error) {
	v, ok := c.Locals(visitKey{}).(*visit)
	if !ok {
		return nil, nil, sojourn.ErrNoMiddleware
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.hold()
}

type visitKey struct{}

// visit is a request with the middlewares of all managers. Its outermost
// middleware starts the stream: the others have committed then.
type visit struct {
	mu      sync.Mutex // a handler may continue after its timeout
	parts   []part     // the outermost first
	stream  func(context.Context, *bufio.Writer)
	release func()   // of the stream
	holds   []func() // released unless the request succeeds
	over    bool     // for handlers
}

type part struct {
	exchange *sojourn.Exchange
	info     *request
}

func (v *visit) add(p part) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.parts = append(v.parts, p)
}

func (v *visit) last() *sojourn.Exchange { return v.parts[len(v.parts)-1].exchange }

// hold keeps the exchanges open, even if the handler has not used a session
// yet.
func (v *visit) hold() (ctx context.Context, release func(), err error) {
	if v.over {
		return nil, nil, sojourn.ErrTooLate
	}
	releases := make([]func(), len(v.parts))
	for i, p := range v.parts {
		p.info.get()
		releases[i] = p.exchange.Hold()
	}
	v.holds = append(v.holds, releases...)
	return v.last(), func() {
		for _, release := range releases {
			release()
		}
	}, nil
}

// fail marks the request as failed, for the sessions of all managers.
func (v *visit) fail() {
	v.mu.Lock()
	defer v.mu.Unlock()
	sojourn.Fail(v.last())
	v.drop()
}

// drop cancels the stream and the holds.
func (v *visit) drop() {
	for _, release := range v.holds {
		release()
	}
	v.stream, v.holds, v.over = nil, nil, true
}

// start starts them: the request has succeeded.
func (v *visit) start(c fiber.Ctx) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holds = nil
	if v.stream != nil {
		ctx, stream, release := v.last(), v.stream, v.release
		c.RequestCtx().SetBodyStreamWriter(func(w *bufio.Writer) {
			defer release()
			stream(ctx, w)
		})
	}
}

// finish ends the request, also after a panic.
func (v *visit) finish() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop()
}

// request is the part of a request that a session needs. Fiber and fasthttp
// reuse theirs, so it is copied on first use, and never after the handler.
type request struct {
	mu     sync.Mutex
	c      fiber.Ctx // nil after the request, or when copied
	copied sojourn.RequestInfo
}

func (r *request) get() sojourn.RequestInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		r.copied = infoOf(r.c)
		r.c = nil
	}
	return r.copied
}

func (r *request) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.c = nil
}

func infoOf(c fiber.Ctx) sojourn.RequestInfo {
	from := &c.Request().Header
	h := http.Header{}
	for name, value := range from.All() {
		name := http.CanonicalHeaderKey(string(name))
		h[name] = append(h[name], string(value))
	}
	return sojourn.RequestInfo{
		Header: h,
		Method: strings.Clone(c.Method()),
		// Behind a proxy that Config.TrustProxy names, these are the visitor's.
		Host:       strings.Clone(c.Host()),
		RemoteAddr: strings.Clone(c.IP()),
		Encrypted:  c.RequestCtx().IsTLS(),
	}
}

// header is fasthttp's header, which stores cookies separately.
type header struct{ *fasthttp.ResponseHeader }

// Values implements [sojourn.ResponseHeader].
func (h header) Values(name string) (values []string) {
	if name == fiber.HeaderSetCookie {
		for _, line := range h.Cookies() {
			values = append(values, string(line))
		}
		return values
	}
	for _, value := range h.PeekAll(name) {
		values = append(values, string(value))
	}
	return values
}
