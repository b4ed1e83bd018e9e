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

// Errors that callers test for with [errors.Is]. A wrapping error says what was
// being done. No error contains an identifier, a key, or a value.
var (
	ErrNoMiddleware = errors.New("sojourn: no session in this context: wrap the handler with Manager.Wrap")
	ErrUnavailable  = fault.Unavailable // the store failed or did not answer in time
	// ErrEnded: the session ended during this request (logout, login, revocation), or the
	// request's credential is no longer valid. The changes were dropped.
	ErrEnded   = fault.Ended
	ErrExpired = fault.Expired // the session reached its idle timeout or its lifetime
	ErrClosed  = fault.Closed  // the Manager was closed
	ErrTaken   = fault.Taken   // another request took a popped value first; nothing was saved
	// ErrTooLarge: the session would exceed Config.MaxSize, the space in cookies (without
	// a store), or a limit of the store. The session is unchanged.
	ErrTooLarge = fault.TooLarge
	ErrTooLate  = errors.New("sojourn: too late to change the session") // see [Session.Save]
	// ErrCrossSite: only a login is saved, since a new cookie would replace the visitor's.
	ErrCrossSite       = errors.New("sojourn: the browser withheld the session cookies from a cross-site request, so its changes cannot be kept")
	ErrHasCookie       = errors.New("sojourn: the session has a cookie and so cannot have a token; log in to make a session with a token")
	ErrNoStore         = fault.NoStore  // a value must be stored on the server, and Mode is CookieOnly
	ErrTooManySessions = fault.TooMany  // the user has Limit.Max sessions, and Limit.Refuse is set
	ErrNotFound        = fault.NotFound // no live session has that handle, or it belongs to another user
	ErrNoValue         = fault.NoValue  // the session has no value of that name
	ErrRenewFailed     = fault.Renew    // the fetch of [Key.Renew] failed; the value is unchanged
	// ErrBadValue: a value does not decode into the type or cannot be restored unchanged
	// (see [NewKey]), or a name is invalid. The text names the key and the part.
	ErrBadValue = fault.BadValue
)

// Details of ErrTooLate, and mistakes of the program.
var (
	errNeedsCookie = fmt.Errorf("%w: the change needs a cookie, and the response has started", ErrTooLate)
	errReturned    = fmt.Errorf("%w: the handler has returned", ErrTooLate)
	errAnswered    = fmt.Errorf("%w: the response is an error or the handler has panicked, so only an earlier Logout is kept", ErrTooLate)
	errNoEdit      = fmt.Errorf("%w: Edit cannot log in, log out or rotate", errDraft)
	errNoTenant    = errors.New("sojourn: Config.Tenant is set, and the context belongs to no request: name the tenant with WithTenant")
	errNoLogin     = errors.New("sojourn: Link needs a Login in the same request, and there was none")
	errNoBearer    = errors.New("sojourn: Config.Bearer is not set, so there are no tokens")
	errDraft       = fmt.Errorf("%w: it belongs to no request", ErrTooLate)
)

// notKept returns the reason why nothing is saved after a failed commit.
func notKept(err error) error {
	return fmt.Errorf("%w: the commit has failed: %w", ErrTooLate, err)
}

// ServeError responds to a request whose session could not be loaded or saved.
// It calls Config.ErrorHandler, or else sends a short text, as HTML for
// Sec-Fetch-Mode: navigate. The status is 413 for [ErrTooLarge]; 409 for
// [ErrEnded], [ErrExpired], [ErrTaken], [ErrCrossSite], [ErrTooManySessions],
// and [ErrHasCookie]; 401 for an [ErrEnded] because of the request's
// credential; 404 for [ErrNotFound]; 503 for [ErrUnavailable],
// [ErrRenewFailed], [ErrClosed], and an exceeded deadline; 500 for all others.
// Before that, it drops the pending changes, except a Logout, and removes
// Content-*, ETag, Last-Modified, Location, Cache-Control, and an upgrade from
// the header.
func (m *Manager) ServeError(w http.ResponseWriter, r *http.Request, err error) {
	if x := m.request(r.Context()); x != nil {
		x.Fail()
	}
	// A compressor outside of this handler also compresses the error: its
	// Content-Encoding stays.
	m.answerError(w, r, err, w.Header()["Content-Encoding"])
}

// answering is the context key for a running ErrorHandler of a manager. If that
// calls ServeError, it gets the default response.
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

// errorPage is the error as a page, for a screen of any width.
//
// After a link from another site, it makes the browser request the page again
// from our own site, so that the browser sends SameSite=Strict cookies. Nothing
// was saved for the first request, and its method is a safe one.
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

// errorWriter is the response writer for an error. An ErrorHandler may set any
// header, so the cache headers are set last.
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

// WriteHeader sets the cache headers, unless status is informational.
func (w *errorWriter) WriteHeader(status int) {
	if status >= 200 {
		w.start()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sets the cache headers before the first byte.
func (w *errorWriter) Write(b []byte) (int, error) {
	w.start()
	return w.ResponseWriter.Write(b)
}

// Flush sets the cache headers and sends the buffered data.
func (w *errorWriter) Flush() { _ = w.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (w *errorWriter) FlushError() error {
	w.start()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// clearPageHeaders removes the headers of the page that the error replaces.
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

// answers has the errors of this package and the status of each. The first
// match counts.
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

// IsError reports whether err is an error of this package.
func IsError(err error) bool {
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return true
		}
	}
	return false
}

// ErrorStatus returns the HTTP status and the public text for an error, as in
// [Manager.ServeError]: one or two English sentences without HTML and without
// the cause.
func ErrorStatus(err error) (status int, text string) {
	status = http.StatusInternalServerError
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrTooLarge) {
		// The deadline of the request, with ErrTooLate, or of a store.
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

// errorText is the text for visitors. It has no characters that are special in
// HTML.
func errorText(status int, err error) string {
	if errors.Is(err, ErrCrossSite) {
		return "This request came from another site, so it was not saved. Please repeat it on our own pages."
	}
	if errors.Is(err, ErrTooManySessions) {
		return "You are signed in on as many devices as your account allows. Please sign out on one of them first."
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
		level = slog.LevelInfo // caused by the visitor, not by a fault
	}
	m.log.Log(context.Background(), level, "the session could not be kept; the response was replaced by an error",
		slog.String("session", s.Handle()), slog.Any("error", err))
}

// limitCaching sets Vary and Cache-Control for a response that depends on the
// session.
func (m *core) limitCaching(h http.Header, pattern string) {
	if caching.Limit(h, m.varies) {
		m.log.Once(slog.LevelWarn, "a response that depends on the session allows shared caches to keep it (Cache-Control: public or s-maxage); "+
			"a cache that ignores Vary: Cookie shows one visitor's page to another", slog.String("pattern", pattern))
	}
}
