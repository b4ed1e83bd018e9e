package sojourn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/sojourn-go/sojourn/internal/caching"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/request"
)

// Errors that callers test for with [errors.Is]. What wraps them says what was
// being done; none of them contains an identifier, a key or a value.
var (
	// ErrNoMiddleware: the context comes from no request inside [Manager.Wrap], nor
	// from [Manager.Attach].
	ErrNoMiddleware = errors.New("sojourn: no session in this context: wrap the handler with Manager.Wrap")
	ErrUnavailable  = fault.Unavailable // the store could not answer, or not in time
	// ErrEnded: the session ended (logout, login, revocation) while this request was
	// under way, or the request's credential is no longer good for it. The changes
	// were dropped.
	ErrEnded   = fault.Ended
	ErrExpired = fault.Expired // the session reached its idle timeout or its lifetime
	ErrClosed  = fault.Closed  // the Manager was closed
	// ErrTaken: another request had already taken a value that this one popped. None
	// of this request's changes was kept.
	ErrTaken = fault.Taken
	// ErrTooLarge: the session would exceed Config.MaxSize, what a cookie can hold
	// where there is no store, or what the store can keep. The session is as it was.
	ErrTooLarge = fault.TooLarge
	// ErrTooLate: the change needs a cookie and the response has started, or the
	// handler has returned, or has answered with an error; see [Session.Save].
	ErrTooLate = errors.New("sojourn: too late to change the session")
	// ErrCrossSite: the browser withheld the session cookies because another site
	// started the request (SameSite), and the handler changed the session. A new
	// cookie would replace the visitor's own, so only a login is kept.
	ErrCrossSite = errors.New("sojourn: the browser withheld the session cookies from a cross-site request, so its changes cannot be kept")
	// ErrHasCookie: the session came with a cookie, so it cannot have a token as well.
	// Log in again for one.
	ErrHasCookie       = errors.New("sojourn: the session has a cookie, and no token beside it; log in to make a session with a token")
	ErrNoStore         = fault.NoStore  // a value has to be kept on the server, and Mode is CookieOnly
	ErrTooManySessions = fault.TooMany  // the user has Limit.Max sessions, and Limit.Refuse is set
	ErrNotFound        = fault.NotFound // no live session has that handle, or it is not that user's
	ErrNoValue         = fault.NoValue  // the session has no value of that name
	// ErrRenewFailed: the function that [Key.Renew] was given has failed, in this
	// process or in another one that was faster. The value is as it was.
	ErrRenewFailed = fault.Renew
	// ErrBadValue: a value does not decode into the requested type or would not come
	// back as it is (see [NewKey]), or its name cannot be used. What wraps it names
	// the key and the path to the part.
	ErrBadValue = fault.BadValue
)

// Why it is too late.
var (
	errNeedsCookie = fmt.Errorf("%w: the change needs a cookie, and the response has started", ErrTooLate)
	errReturned    = fmt.Errorf("%w: the handler has returned", ErrTooLate)
	errAnswered    = fmt.Errorf("%w: the response is an error or the handler has panicked, which keeps nothing but an earlier Logout", ErrTooLate)
	errNoEdit      = fmt.Errorf("%w: Edit cannot log in, log out or rotate", errDraft)
	errNoTenant    = errors.New("sojourn: Config.Tenant is set, and this is no request of a tenant: name one with WithTenant")
	errNoLogin     = errors.New("sojourn: Link needs a Login in the same request, and there was none")
	errNoBearer    = errors.New("sojourn: Config.Bearer is not set, so there are no tokens")
	errDraft       = fmt.Errorf("%w: it is not that of a request", ErrTooLate)
)

// notKept says that nothing is kept any more because a commit has failed.
func notKept(err error) error {
	return fmt.Errorf("%w: the commit has failed: %w", ErrTooLate, err)
}

// ServeError answers a request whose session could not be loaded or kept:
// through Config.ErrorHandler, or with a short text, as HTML for
// Sec-Fetch-Mode: navigate, and 413 ([ErrTooLarge]), 409 ([ErrEnded],
// [ErrExpired], [ErrTaken], [ErrCrossSite], [ErrTooManySessions], [ErrHasCookie]), 401
// ([ErrEnded], if the request brought a credential that is no longer good),
// 404 ([ErrNotFound]), 503 ([ErrUnavailable], [ErrRenewFailed], [ErrClosed]) or 500 (everything
// else). It first removes Content-*, ETag,
// Last-Modified, Location, Cache-Control and an upgrade from the header, and
// drops the session's pending changes, except a Logout.
func (m *Manager) ServeError(w http.ResponseWriter, r *http.Request, err error) {
	if x := m.request(r.Context()); x != nil {
		x.Fail()
	}
	// A compressor between here and the connection is still at work: its
	// Content-Encoding stays.
	m.answerError(w, r, err, w.Header()["Content-Encoding"])
}

// answering is the context key that says that a manager's ErrorHandler is at
// work: when it calls ServeError, it wants the plain answer.
type answering struct{ m *Manager }

// answerError writes the answer for err. The response keeps encoding as its
// Content-Encoding.
func (m *Manager) answerError(w http.ResponseWriter, r *http.Request, err error, encoding []string) {
	h := w.Header()
	clearPageHeaders(h)
	if len(encoding) > 0 {
		h["Content-Encoding"] = encoding
	}
	h.Set("Cache-Control", "no-store")
	guarded := &errorWriter{ResponseWriter: w, m: m, r: r}
	defer guarded.start() // an ErrorHandler may write nothing
	w = guarded
	if ctx := r.Context(); m.errorHandler != nil && ctx.Value(answering{m}) == nil {
		m.errorHandler(w, r.WithContext(context.WithValue(ctx, answering{m}, true)), err)
		return
	}
	status, text := ErrorStatus(err)
	if r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		http.Error(w, text, status)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, errorPage(r, status, text, err))
	}
}

// errorPage is the answer that somebody sees, on a screen of any width.
//
// It lets a browser that followed a link from another site ask for the page again,
// this time from our own, so that it sends SameSite=Strict cookies. Nothing was
// kept of the first request, whose method is a safe one.
func errorPage(r *http.Request, status int, text string, err error) string {
	info := request.Info(InfoOf(r))
	const head = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
`
	switch {
	case !errors.Is(err, ErrCrossSite) || !request.TopLevel(&info):
		return head + "<title>" + http.StatusText(status) + "</title>\n<p>" + text + "\n</html>\n"
	case request.MayRefresh(&info):
		return head + `<meta http-equiv="refresh" content="0">
<title>One moment</title>
<p>One moment, please. <a id="continue" href="">Continue</a>
</html>
`
	default:
		return head + `<title>Continue</title>
<p>Another site has sent you here. <a id="continue" href="">Continue to the page</a>
<p>If you see this again, open the address in a new tab.
</html>
`
	}
}

// errorWriter is where an error answer is written to. An ErrorHandler may set
// any header, and caches have to be told what holds for that answer, too.
type errorWriter struct {
	http.ResponseWriter
	m       *Manager
	r       *http.Request
	started bool
}

// Unwrap is for [http.ResponseController].
func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *errorWriter) start() {
	if !w.started {
		w.started = true
		w.m.limitCaching(w.Header(), w.r.Pattern)
	}
}

// WriteHeader tells caches first, unless status is informational.
func (w *errorWriter) WriteHeader(status int) {
	if status >= 200 {
		w.start()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write tells caches before the first byte.
func (w *errorWriter) Write(b []byte) (int, error) {
	w.start()
	return w.ResponseWriter.Write(b)
}

// Flush tells caches, and sends what was written.
func (w *errorWriter) Flush() { _ = w.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (w *errorWriter) FlushError() error {
	w.start()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// clearPageHeaders removes what describes a page that will not be sent.
func clearPageHeaders(h http.Header) {
	for name := range h {
		switch name {
		case "Etag", "Last-Modified", "Location", "Cache-Control", "Upgrade":
			delete(h, name)
		case "Connection":
			if strings.EqualFold(h.Get(name), "Upgrade") {
				delete(h, name)
			}
		default:
			if strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, "Content-Security-Policy") ||
				strings.HasPrefix(name, "Sec-Websocket-") {
				delete(h, name)
			}
		}
	}
}

// answers are the errors of this package, with the status that answers each. The
// first that matches counts.
var answers = [...]struct {
	err    error
	status int
}{
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{errRefused, http.StatusUnauthorized},
	{ErrEnded, http.StatusConflict},
	{ErrExpired, http.StatusConflict},
	{ErrTaken, http.StatusConflict},
	{ErrCrossSite, http.StatusConflict},
	{ErrTooManySessions, http.StatusConflict},
	{ErrHasCookie, http.StatusConflict},
	{ErrNotFound, http.StatusNotFound},
	{ErrUnavailable, http.StatusServiceUnavailable},
	{ErrRenewFailed, http.StatusServiceUnavailable},
	{ErrClosed, http.StatusServiceUnavailable},
	{ErrNoMiddleware, http.StatusInternalServerError},
	{ErrBadValue, http.StatusInternalServerError},
	{ErrNoValue, http.StatusInternalServerError},
	{ErrNoStore, http.StatusInternalServerError},
	{ErrTooLate, http.StatusInternalServerError},
	{errNoTenant, http.StatusInternalServerError},
	{errNoLogin, http.StatusInternalServerError},
	{errNoBearer, http.StatusInternalServerError},
}

// IsError reports whether an error is one of this package's, for adapters that
// answer those.
func IsError(err error) bool {
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return true
		}
	}
	return false
}

// ErrorStatus returns the HTTP status and the public text that answer an error,
// as [Manager.ServeError] does: 500 for one that is not of this package. The text
// is one or two English sentences without HTML, and says nothing about the cause.
func ErrorStatus(err error) (status int, text string) {
	status = http.StatusInternalServerError
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrTooLarge) {
		// The request's, with ErrTooLate, or a store's.
		return http.StatusServiceUnavailable, errorText(http.StatusServiceUnavailable, err)
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			status = a.status
			break
		}
	}
	return status, errorText(status, err)
}

// errorText is what people are told. It has no characters that mean something in
// HTML.
func errorText(status int, err error) string {
	if errors.Is(err, ErrCrossSite) {
		return "Another site has sent this, so it was not kept. Please do it again on our own pages."
	}
	switch status {
	case http.StatusRequestEntityTooLarge:
		return "What you sent does not fit into your session."
	case http.StatusUnauthorized:
		return "You have been signed out. Please reload the page and try again."
	case http.StatusNotFound:
		return "There is no such session."
	case http.StatusConflict:
		return "Your session has changed in the meantime. Please reload the page and try again."
	case http.StatusServiceUnavailable:
		return "Your session is not available right now. Please try again in a moment."
	default:
		return "Something went wrong on our side."
	}
}

func (m *Manager) commitFailed(s *Session, err error) {
	m.count.failed.Add(1)
	level := slog.LevelError
	if errors.Is(err, ErrEnded) || errors.Is(err, ErrExpired) || errors.Is(err, ErrTaken) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCrossSite) || errors.Is(err, ErrTooManySessions) {
		level = slog.LevelInfo // the visitor's doing, not a fault
	}
	m.log.Log(context.Background(), level, "the session could not be kept; the response was replaced by an error",
		slog.String("session", s.Handle()), slog.Any("error", err))
}

// limitCaching tells caches that a response depends on the session.
func (m *core) limitCaching(h http.Header, pattern string) {
	if caching.Limit(h, m.varies) {
		m.log.Once(slog.LevelWarn, "a response that depends on the session allows shared caches to keep it (Cache-Control: public or s-maxage); "+
			"one that does not heed Vary: Cookie shows one visitor's page to another", slog.String("pattern", pattern))
	}
}
