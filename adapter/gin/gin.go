// Package sojourngin gives the handlers of a gin engine sessions, as a
// middleware of gin.
//
//	engine := gin.New()
//	engine.Use(sojourngin.Middleware(sessions), gin.Recovery())
//	engine.GET("/", func(c *gin.Context) {
//		session, err := sessions.Get(c.Request.Context())
//		if err != nil {
//			sessions.ServeError(c.Writer, c.Request, err)
//			return
//		}
//		c.String(http.StatusOK, "visit %d", visits.Update(session, func(n int) int { return n + 1 }))
//	})
//
// Where the whole engine can be wrapped, sessions.Wrap(engine) does, without
// this package, with one difference: it does not see [gin.Context.Errors].
package sojourngin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/sojourn-go/sojourn"
)

// Middleware returns a middleware that does what [sojourn.Manager.Wrap] does. Put
// it before every other that asks for a session. There may be one for each of
// several managers, and Wrap may be around the engine as well.
//
// A handler of gin returns no error. It calls c.Error or c.AbortWithError, and
// that is what counts as an error which a handler returns: with a status of 400
// or above and an error in c.Errors, nothing of the session is kept but a Logout.
// So it is if the handlers end with an error and without a response, which another
// middleware is to write; if none does, the status is 500. With a status below 400
// c.Errors is taken for what must be logged, and the changes are kept.
//
// For that, c.AbortWithStatus and c.Writer.WriteHeaderNow do not send the
// header at once, but with the first byte of the body, with a Flush, or when the
// handlers have returned.
func Middleware(sessions *sojourn.Manager) gin.HandlerFunc {
	return func(c *gin.Context) {
		// A context of gin is used again for another request, which may have a context
		// that comes from the one before, as in a tunnel.
		if w, _ := c.Request.Context().Value(key{sessions}).(*writer); w != nil && w.c == c && !w.over {
			w.again()
			return
		}
		own := c.Writer
		sessions.Wrap(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			w := &writer{ResponseWriter: own, own: own, out: out, c: c}
			w.ctx = context.WithValue(r.Context(), key{sessions}, w)
			c.Writer, c.Request = w, r.WithContext(w.ctx)
			defer w.leave()
			c.Next()
			w.end()
		})).ServeHTTP(own, c.Request)
	}
}

// key is the context key of a request's writer.
type key struct{ *sojourn.Manager }

// writer is gin's writer of a response, with sojourn's in front of it: gin's own
// notes the status and counts bytes, and what is sent goes through out, which
// commits the session before the first byte.
type writer struct {
	gin.ResponseWriter // own
	own                gin.ResponseWriter
	out                http.ResponseWriter
	c                  *gin.Context
	ctx                context.Context // of the request, with its session
	due                bool            // the status is decided
	sent               bool            // the header is on its way
	ended              bool            // the handlers have returned, and did not panic
	over               bool            // gin has its writer back
}

// again is the middleware where it is met a second time.
func (w *writer) again() {
	c := w.c
	if c.Writer != w.own {
		c.Next()
		return
	}
	c.Writer = w // Engine.HandleContext has put gin's own back
	c.Next()
	w.end()
	w.send() // gin does so, and knows nothing of w
}

// leave gives gin its writer back, for the middlewares outside.
func (w *writer) leave() {
	if !w.ended && !w.Written() { // a panic; gin.Recovery may answer with nothing but this
		w.own.WriteHeader(http.StatusInternalServerError)
	}
	w.c.Writer, w.over = w.own, true
}

// end is called when the handlers have returned.
func (w *writer) end() {
	w.ended = true
	switch failed := len(w.c.Errors) > 0; {
	case w.sent:
	case w.due, !failed && w.Status() != http.StatusOK:
		w.send()
	case failed: // a middleware outside may still answer
		sojourn.Fail(w.ctx)
		if w.Status() < http.StatusBadRequest {
			w.own.WriteHeader(http.StatusInternalServerError)
		}
	}
}

func (w *writer) send() {
	if w.sent {
		return
	}
	w.due, w.sent = true, true
	if len(w.c.Errors) > 0 && w.Status() >= http.StatusBadRequest {
		sojourn.Fail(w.ctx)
	}
	w.out.WriteHeader(w.Status())
	w.own.WriteHeaderNow()
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.out }

// WriteHeader notes the status.
func (w *writer) WriteHeader(status int) {
	if !w.due {
		w.own.WriteHeader(status)
	}
}

// WriteHeaderNow decides the status, which is sent later: c.AbortWithError calls
// it before it adds its error.
func (w *writer) WriteHeaderNow() { w.due = true }

// Written reports whether the status is decided.
func (w *writer) Written() bool { return w.due || w.own.Written() }

// Size returns the number of bytes of the body so far, -1 before the header.
func (w *writer) Size() int {
	if w.due {
		return max(0, w.own.Size())
	}
	return w.own.Size()
}

// Write sends the header, and b.
func (w *writer) Write(b []byte) (int, error) {
	w.send()
	return w.out.Write(b)
}

// WriteString sends the header, and s.
func (w *writer) WriteString(s string) (int, error) {
	w.send()
	return io.WriteString(w.out, s)
}

// Flush sends the header, and what was written.
func (w *writer) Flush() {
	w.send()
	_ = http.NewResponseController(w.out).Flush() // gin's has no error either
}

// Hijack commits the session and hands over the connection. The cookies are in
// Header then, for whoever writes the response by hand.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.due {
		w.send() // of an upgrade
	}
	return http.NewResponseController(w.out).Hijack()
}

// CloseNotify is for c.Stream: the channel gets a value when the client has gone.
func (w *writer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.ctx, func() { gone <- true })
	return gone
}
