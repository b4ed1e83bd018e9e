package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
)

// DashboardOptions are the options of [Dashboard].
type DashboardOptions struct {
	// Path is where the handler is mounted, such as "/ops/", with a slash at
	// both ends. Required. Do not strip it (http.StripPrefix).
	Path string

	// Authorize reports whether a request may use the dashboard, which gives
	// access to all users' sessions. It is called for every request and may get
	// the request's session from the manager. Required: without it every
	// request is refused.
	Authorize func(*http.Request) bool

	// Operator returns the operator's name for an authorized request, for the audit. nil = "".
	Operator func(*http.Request) string

	// Audit is called after every action, by several goroutines at once. Logger
	// also gets a line for each action. nil = Logger only.
	Audit func(context.Context, Action)

	// Recorder has the data of the charts. The manager's Config.Events must
	// call its Record. nil = no charts.
	Recorder *Recorder

	// StoreName is the displayed name of the store, such as "PostgreSQL in
	// Oslo". "" = the package of its type.
	StoreName string

	// CountEvery is how long a count of the sessions is shown before the store
	// counts again. Counting reads every record in some stores, and costs money
	// in App Engine's. 0 = 10 seconds, negative = never count.
	CountEvery time.Duration

	// ShowValues shows the values of a viewed session. They are the visitor's
	// private data: leave it off unless operators need them.
	ShowValues bool

	// Site is the service's name, shown at the top with a link to Home. "" =
	// "Sessions". Home is a path on this site; "" = the dashboard itself.
	Site, Home string

	// Logger gets the audit and errors. nil = slog.Default().
	Logger *slog.Logger
}

// The kinds of actions, as Action.Kind.
const (
	ActionFindUser      = "find_user"      // listed the sessions of a user
	ActionViewSession   = "view_session"   // viewed one session
	ActionRevokeSession = "revoke_session" // ended one session
	ActionRevokeUser    = "revoke_user"    // ended all sessions of a user
	ActionSweep         = "sweep"          // swept
)

// Action is something that an operator did, for an audit.
type Action struct {
	Kind     string
	Time     time.Time
	Operator string // DashboardOptions.Operator
	IP       string // the request's RemoteAddr
	User     string // of ActionFindUser and ActionRevokeUser
	Session  string // handle, of ActionViewSession and ActionRevokeSession
	Count    int    // sessions found, ended or swept
	Err      error  // nil = success. A failed ActionRevokeUser may have ended some sessions
}

const (
	sessionsPerPage = 50
	defaultSite     = "Sessions"
	defaultCount    = 10 * time.Second

	// noteCookie carries an action's result to the page after the redirect. A
	// cookie works without a session and on another replica.
	noteCookie = "sojourn-ops-note"
)

type dashboard struct {
	*pages
	m *sojourn.Manager
	o DashboardOptions

	counting sync.Mutex // held during a count, so that there is one at a time
	counted  counted
}

// Dashboard returns a handler with pages for operators: the number of sessions,
// the events of the last 24 hours, the counters of ops.Stats, the state of the
// store and its caches, and a search for the sessions of a user or the session
// with a handle, to view and to end.
//
// o.Authorize decides about access; there is no default. Every action is
// reported to o.Audit and logged. The handler wraps itself in m, so Authorize
// can use its session. If Authorize needs another manager's session, put that
// manager's Wrap around the handler.
//
// The error lists every mistake in o. The handler returned with an error
// refuses every request with 403.
func Dashboard(m *sojourn.Manager, o DashboardOptions) (http.Handler, error) {
	var errs []error
	if m == nil {
		errs = append(errs, errors.New("the manager is nil"))
	}
	if err := checkPath(o.Path); err != nil {
		errs = append(errs, fmt.Errorf("DashboardOptions.%w", err))
	}
	if o.Authorize == nil {
		errs = append(errs, errors.New("DashboardOptions.Authorize is missing: say who may see and end everybody's sessions"))
	}
	if o.Operator == nil {
		o.Operator = func(*http.Request) string { return "" }
	}
	if o.Site == "" {
		o.Site = defaultSite
	}
	if o.CountEvery == 0 {
		o.CountEvery = defaultCount
	}
	if o.Home == "" {
		o.Home = o.Path
	}
	if o.Home != "" && !localPath(o.Home) {
		errs = append(errs, fmt.Errorf("DashboardOptions.Home %q is not a path on this site", o.Home))
	}
	pages, err := newPages(o.Path, o.Logger, "overview", "sessions", "session", "confirm", "message")
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return refusing("Dashboard", errs...)
	}
	d := &dashboard{pages: pages, m: m, o: o}
	pages.problem = func(w http.ResponseWriter, r *http.Request, status int) {
		if status == http.StatusForbidden {
			d.show(w, r, status, "message", "Nothing was changed", "The form came from another site.")
			return
		}
		d.show(w, r, status, "message", "Page not found", "There is no page at this address.")
	}
	routes := map[string]http.HandlerFunc{
		"GET ":             d.overview,
		"GET search":       d.search,
		"GET sessions":     d.sessions,
		"GET session":      d.session,
		"GET revoke":       d.confirmRevoke,
		"POST revoke":      d.revoke,
		"GET revoke-user":  d.confirmRevokeUser,
		"POST revoke-user": d.revokeUser,
		"POST sweep":       d.sweep,
	}
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.o.Authorize(r) {
			d.guard(w, r)
			http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
			return
		}
		d.serve(w, r, routes)
	})), nil
}

// audit reports an action to Audit and Logger.
func (d *dashboard) audit(r *http.Request, a Action) {
	a.Time, a.Operator, a.IP = d.now().UTC(), d.o.Operator(r), remoteIP(r)
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("action", a.Kind), slog.String("operator", a.Operator), slog.String("ip", a.IP)}
	if a.User != "" {
		attrs = append(attrs, slog.String("user", a.User))
	}
	if a.Session != "" {
		attrs = append(attrs, slog.String("session", a.Session))
	}
	attrs = append(attrs, slog.Int("count", a.Count))
	if a.Err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("error", a.Err))
	}
	d.logger.LogAttrs(r.Context(), level, "operators' dashboard", attrs...)
	if d.o.Audit != nil {
		d.o.Audit(r.Context(), a)
	}
}

func remoteIP(r *http.Request) string {
	if i := strings.LastIndexByte(r.RemoteAddr, ':'); i > 0 {
		return strings.Trim(r.RemoteAddr[:i], "[]")
	}
	return r.RemoteAddr
}

// search redirects to the page for the entered text: a handle or a user.
func (d *dashboard) search(w http.ResponseWriter, r *http.Request) {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	switch {
	case q == "":
		redirect(w, "./")
	case isHandle(q):
		redirect(w, "session?handle="+q)
	default:
		redirect(w, "sessions?user="+url.QueryEscape(q))
	}
}

// sessionsPage lists a user's sessions.
type sessionsPage struct {
	User     string
	Sessions []sojourn.Info
	Pager    pager
}

func (d *dashboard) sessions(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	if user == "" {
		redirect(w, "./")
		return
	}
	all, err := d.m.Sessions(r.Context(), user)
	d.audit(r, Action{Kind: ActionFindUser, User: user, Count: len(all), Err: err})
	if err != nil {
		d.failed(w, r, err)
		return
	}
	content := sessionsPage{User: user, Pager: newPager(r, len(all), sessionsPerPage, user)}
	content.Pager.Text = DevicesTexts{More: "More sessions"}.complete()
	content.Sessions = cut(all, content.Pager)
	d.show(w, r, http.StatusOK, "sessions", "Sessions of "+user, content)
}

// sessionPage shows one session.
type sessionPage struct {
	sojourn.Info
	ShowValues bool
	Values     []value
	Count      int // of the values, shown or not
}

func (d *dashboard) session(w http.ResponseWriter, r *http.Request) {
	handle := r.URL.Query().Get("handle")
	found, err := ops.For(d.m).Find(r.Context(), handle)
	if !isHandle(handle) {
		handle = "" // it may be any text; only handles go to the audit
	}
	d.audit(r, Action{Kind: ActionViewSession, Session: handle, Count: count(err), Err: err})
	if err != nil {
		d.failed(w, r, err)
		return
	}
	content := sessionPage{Info: found.Info, ShowValues: d.o.ShowValues, Count: len(found.Values)}
	if d.o.ShowValues {
		content.Values = readable(found.Values)
	}
	d.show(w, r, http.StatusOK, "session", "Session", content)
}

// confirmPage asks for a confirmation.
type confirmPage struct {
	Question, Text, Button string
	Action                 string // URL of the form, relative
	Field, Value           string
	Back                   string
}

func (d *dashboard) confirmRevoke(w http.ResponseWriter, r *http.Request) {
	handle := r.URL.Query().Get("handle")
	found, err := ops.For(d.m).Find(r.Context(), handle)
	if err != nil {
		d.failed(w, r, err)
		return
	}
	who := "an anonymous visitor"
	if found.User != "" {
		who = found.User
	}
	d.show(w, r, http.StatusOK, "confirm", "End a session", confirmPage{
		Question: "End this session?",
		Text:     fmt.Sprintf("It belongs to %s: %s. Its values are removed, and its browser has to sign in again.", who, parseAgent(found.UserAgent).Name()),
		Button:   "End the session",
		Action:   "revoke", Field: "handle", Value: handle,
		Back: "session?handle=" + handle,
	})
}

func (d *dashboard) revoke(w http.ResponseWriter, r *http.Request) {
	handle := r.PostFormValue("handle")
	// The session's user, to return to that user's list.
	found, err := ops.For(d.m).Find(r.Context(), handle)
	if err == nil {
		err = ops.For(d.m).End(r.Context(), handle)
	}
	if !isHandle(handle) {
		handle = ""
	}
	d.audit(r, Action{Kind: ActionRevokeSession, Session: handle, User: found.User, Count: count(err), Err: err})
	if err != nil {
		d.failed(w, r, err)
		return
	}
	d.countAgain()
	d.note(w, r, ActionRevokeSession, 1)
	if found.User == "" {
		redirect(w, "./")
		return
	}
	redirect(w, "sessions?user="+url.QueryEscape(found.User))
}

func (d *dashboard) confirmRevokeUser(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	all, err := d.m.Sessions(r.Context(), user)
	if err != nil {
		d.failed(w, r, err)
		return
	}
	d.show(w, r, http.StatusOK, "confirm", "End all sessions of a user", confirmPage{
		Question: "End all sessions of " + user + "?",
		Text:     "There are " + plural(len(all), "session") + " now. Their values are removed, and their browsers have to sign in again.",
		Button:   "End " + plural(len(all), "session"),
		Action:   "revoke-user", Field: "user", Value: user,
		Back: "sessions?user=" + url.QueryEscape(user),
	})
}

func (d *dashboard) revokeUser(w http.ResponseWriter, r *http.Request) {
	user := r.PostFormValue("user")
	n, err := d.m.RevokeUser(r.Context(), user)
	d.audit(r, Action{Kind: ActionRevokeUser, User: user, Count: n, Err: err})
	if err != nil {
		d.failed(w, r, err)
		return
	}
	d.countAgain()
	d.note(w, r, ActionRevokeUser, n)
	redirect(w, "sessions?user="+url.QueryEscape(user))
}

func (d *dashboard) sweep(w http.ResponseWriter, r *http.Request) {
	n, err := ops.For(d.m).Sweep(r.Context())
	d.audit(r, Action{Kind: ActionSweep, Count: n, Err: err})
	if err != nil {
		d.failed(w, r, err)
		return
	}
	d.countAgain()
	d.note(w, r, ActionSweep, n)
	redirect(w, "./#sweep")
}

func count(err error) int {
	if err != nil {
		return 0
	}
	return 1
}

// note leaves a message for the next page.
func (d *dashboard) note(w http.ResponseWriter, r *http.Request, kind string, n int) {
	http.SetCookie(w, &http.Cookie{
		Name: noteCookie, Value: kind + "." + strconv.Itoa(n), Path: d.o.Path, MaxAge: 60,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}

// takeNote returns the message that note left, and removes it. The texts are
// fixed: an attacker who plants the cookie can only choose one of them.
func (d *dashboard) takeNote(w http.ResponseWriter, r *http.Request) []message {
	c, err := r.Cookie(noteCookie)
	if err != nil {
		return nil
	}
	http.SetCookie(w, &http.Cookie{Name: noteCookie, Path: d.o.Path, MaxAge: -1, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	kind, number, _ := strings.Cut(c.Value, ".")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return nil
	}
	switch kind {
	case ActionRevokeSession:
		return []message{{"done", "The session is ended."}}
	case ActionRevokeUser:
		return []message{{"done", plural(n, "session") + " ended."}}
	case ActionSweep:
		return []message{{"done", "Cleaned up: " + plural(n, "old record") + " removed."}}
	}
	return nil
}

func (d *dashboard) show(w http.ResponseWriter, r *http.Request, status int, name, title string, content any) {
	d.render(w, r, status, name, page{
		Text: DevicesTexts{More: "More sessions"}.complete(), Title: title, Site: d.o.Site, Home: d.o.Home, Wide: true, Content: content,
		Overview: name == "overview",
		Messages: d.takeNote(w, r),
	})
}

// failed answers a request that could not be carried out.
func (d *dashboard) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, sojourn.ErrNotFound):
		d.show(w, r, http.StatusNotFound, "message", "No such session", "There is no live session with this handle in the store. It may have ended, or it lives in its visitor's cookie.")
	case errors.Is(err, errors.ErrUnsupported):
		d.show(w, r, http.StatusNotImplemented, "message", "Not available", "This store has no index by user, so a user's sessions cannot be listed.")
	default:
		d.logger.ErrorContext(r.Context(), "operators' dashboard", slog.Any("error", err))
		d.show(w, r, http.StatusServiceUnavailable, "message", "The store did not answer", "What you asked for may not have been done, or only in part. The log says more.")
	}
}
