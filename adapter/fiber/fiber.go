// Package sojournfiber is Sojourn for Fiber, on fasthttp itself:
//
//	app := fiber.New()
//	app.Use(sojournfiber.Middleware(sessions))
//	app.Get("/", func(c fiber.Ctx) error {
//		session, err := sessions.Get(c) // or of c.Context()
//		if err != nil {
//			return err
//		}
//		…
//	})
//
// A request's changes are kept once, when its handlers have returned. A status
// below 500 that a handler writes keeps them. An error that it returns, a status
// of 500 or above, and a panic keep nothing; the first two keep a Logout.
//
// Functions that find the request themselves, such as [sojourn.Fail], take
// c.Context().
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

// Middleware returns the middleware for the sessions of m. It renders the errors that
// handlers return, with the ErrorHandler of the application, so that what that
// sets is part of the response that is committed: a middleware outside gets nil.
// A commit that fails is answered by the ErrorHandler as well; see [Error].
//
// Several managers have a middleware each; the inner one commits first.
func Middleware(m *sojourn.Manager) fiber.Handler {
	return func(c fiber.Ctx) error {
		if c.Value(m) != nil {
			return c.Next() // c.RestartRouting, or it is used twice
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
		defer func() { _ = x.Finish() }() // an error was logged
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

// respond renders err, and commits.
func respond(c fiber.Ctx, x *sojourn.Exchange, v *visit, err error) error {
	if late := c.RequestCtx().LastTimeoutErrorResponse(); late != nil {
		// The handler is still running and has the response of c. This one is sent
		// instead.
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

// render is what Fiber does with an error that reaches it.
func render(c fiber.Ctx, err error) {
	if c.App().ErrorHandler(c, err) != nil {
		_ = c.SendStatus(fiber.StatusInternalServerError) // always nil
	}
}

// Error returns the error that answers an error of sojourn, such as one of
// [sojourn.Manager.Get]: it wraps a [fiber.Error] with the status and text of
// [sojourn.ErrorStatus], which is what clients see, and err. Other errors, and
// what is a fiber.Error already, are returned as they are. The middleware calls it
// for the errors that handlers return.
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

// clearPage removes the response that is not sent, but not the cookies and what
// caches are told.
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

// Stream makes write the body of the response, as SendStreamWriter does, but
// write is called when the session's changes have been kept and the header is
// complete; not at all, if the handler returns an error or the commit fails. The
// session stays open until write returns: what a stored session changes
// meanwhile is kept then, unless write calls [sojourn.Fail]. Get finds the
// session in ctx; c must not be used in write, since Fiber reuses it.
//
// A stream that goes on ends itself with the session:
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
// It returns [sojourn.ErrNoMiddleware] if no middleware of this package has seen
// the request, and [sojourn.ErrTooLate] after its end.
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

// Hold keeps the session open beyond the end of the handler, for a connection
// that is taken over, such as a WebSocket. Until release is called, Get finds the
// session in ctx, and Session.Done lasts; what a stored session changes meanwhile
// is kept by release. It need not be called if the handler returns an error, if it
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
	mu      sync.Mutex // a handler may go on after its time is up
	parts   []part     // the outermost first
	stream  func(context.Context, *bufio.Writer)
	release func()   // of the stream
	holds   []func() // what releases everything, unless the request succeeds
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

// hold keeps the exchanges open. What is held may be the first to ask for a
// session.
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

// fail says that the request has failed, for the sessions of all managers.
func (v *visit) fail() {
	v.mu.Lock()
	defer v.mu.Unlock()
	sojourn.Fail(v.last())
	v.drop()
}

// drop gives up what was to go on after the request.
func (v *visit) drop() {
	for _, release := range v.holds {
		release()
	}
	v.stream, v.holds, v.over = nil, nil, true
}

// start lets it go on: the request has succeeded.
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

// request is what a session needs to know of its request. Fiber and fasthttp
// reuse theirs, so it is copied when somebody asks, and never after the handler.
type request struct {
	mu     sync.Mutex
	c      fiber.Ctx // nil when it is over, or copied
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

// header is fasthttp's, which keeps cookies apart.
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
