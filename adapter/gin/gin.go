// Package sojourngin is a middleware that adds sessions to gin.
//
//	engine := gin.New()
//	engine.Use(sojourngin.Middleware(sessions), gin.Recovery())
//	engine.GET("/", sojourngin.Handler(sessions, func(c *gin.Context, session *sojourn.Session) {
//		c.String(http.StatusOK, "visit %d", visits.Update(session, func(n int) int { return n + 1 }))
//	}))
//
// Instead of this package you can wrap the whole engine with
// sessions.Wrap(engine). The difference is that Wrap does not see
// [gin.Context.Errors].
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

// Middleware returns a middleware that corresponds to [sojourn.Manager.Wrap].
// Put it before every middleware that uses a session. Several managers can each
// have one, also with Wrap around the engine.
//
// A gin handler reports an error with c.Error or c.AbortWithError. If c.Errors
// has an error and the status is 400 or above, only a Logout is kept. The same
// holds if there is an error and no response yet, because another middleware
// writes it; if none does, the status is 500. With a status below 400, the
// errors count as log entries, and the changes are kept.
//
// To make this work, c.AbortWithStatus and c.Writer.WriteHeaderNow do not send
// the header at once. It is sent with the first byte of the body, with a Flush,
// or after the handlers have returned.
func Middleware(sessions *sojourn.Manager) gin.HandlerFunc {
	return func(c *gin.Context) {
		// gin reuses its contexts for other requests, and a request's context
		// may derive from an earlier one, as in a tunnel.
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

// Handler returns a handler that calls f with the request's session, for use inside
// Middleware. If the session cannot be loaded, it responds with
// [sojourn.Manager.ServeError] and aborts. It corresponds to
// [sojourn.Manager.Handler].
func Handler(sessions *sojourn.Manager, f func(*gin.Context, *sojourn.Session)) gin.HandlerFunc {
	return func(c *gin.Context) {
		session, err := sessions.Get(c.Request.Context())
		if err != nil {
			sessions.ServeError(c.Writer, c.Request, err)
			c.Abort()
			return
		}
		f(c, session)
	}
}

// key is the context key of a request's writer.
type key struct{ *sojourn.Manager }

// writer combines gin's response writer and sojourn's: gin's own records the
// status and counts bytes, and data is sent through out, which commits the
// session before the first byte.
type writer struct {
	gin.ResponseWriter // own
	own                gin.ResponseWriter
	out                http.ResponseWriter
	c                  *gin.Context
	ctx                context.Context // of the request, with its session
	due                bool            // the status is fixed
	sent               bool            // the header has been sent
	ended              bool            // the handlers have returned without a panic
	over               bool            // gin has its writer back
}

// again is the middleware's second run for a request.
func (w *writer) again() {
	c := w.c
	if c.Writer != w.own {
		c.Next()
		return
	}
	c.Writer = w // Engine.HandleContext has put gin's own back
	c.Next()
	w.end()
	w.send() // as gin does, on its own writer
}

// leave restores gin's writer for the outer middlewares.
func (w *writer) leave() {
	if !w.ended && !w.Written() { // a panic; gin.Recovery may only set the status
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
	case failed: // an outer middleware may still answer
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

// WriteHeader records the status.
func (w *writer) WriteHeader(status int) {
	if !w.due {
		w.own.WriteHeader(status)
	}
}

// WriteHeaderNow fixes the status, which is sent later: c.AbortWithError calls
// it before it adds its error.
func (w *writer) WriteHeaderNow() { w.due = true }

// Written reports whether the status is fixed.
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

// Flush sends the header and the data written so far.
func (w *writer) Flush() {
	w.send()
	_ = http.NewResponseController(w.out).Flush() // gin's has no error either
}

// Hijack commits the session and hands over the connection. The cookies are
// then in Header, for a response that is written by hand.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.due {
		w.send() // of an upgrade
	}
	return http.NewResponseController(w.out).Hijack()
}

// CloseNotify is for c.Stream: the channel gets a value when the client disconnects.
func (w *writer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.ctx, func() { gone <- true })
	return gone
}
