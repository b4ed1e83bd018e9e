// Package admin has two handlers to mount in an application: [Devices], where
// users see their signed-in devices and sign them out, and [Dashboard], where
// operators see the state of the sessions and end some.
//
//	devices, err := admin.Devices(sessions, admin.DevicesOptions{
//		Path:     "/account/devices/",
//		LoginURL: "/login",
//	})
//	recorder := admin.NewRecorder() // and recorder.Record in sojourn.Config.Events
//	ops, err := admin.Dashboard(sessions, admin.DashboardOptions{
//		Path:      "/ops/",
//		Authorize: func(r *http.Request) bool { return isOperator(r) },
//		Operator:  func(r *http.Request) string { return operatorName(r) },
//		Recorder:  recorder,
//	})
//	mux.Handle("/account/devices/", devices)
//	mux.Handle("/ops/", ops)
//
// The pages are rendered on the server. They need no script, load nothing from
// other sites, and set their own headers, including a strict
// Content-Security-Policy. Forms from another site are refused
// ([http.CrossOriginProtection]), and only POST requests change anything.
// Sessions are identified by their public handles. This package has no access
// to identifiers, cookies or keys.
package admin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

//go:embed static templates
var files embed.FS

// policy is the pages' Content-Security-Policy.
const policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// maxBody bounds a form, which has a handle and a user's name, in bytes.
const maxBody = 16 << 10

// pages renders the templates of one handler and serves its stylesheet.
type pages struct {
	templates map[string]*template.Template
	style     []byte
	styleURL  string // relative to any page
	sameSite  *http.CrossOriginProtection
	problem   func(w http.ResponseWriter, r *http.Request, status int) // a page for 403, 404 and 405
	path      string
	logger    *slog.Logger
	now       func() time.Time
}

func newPages(path string, logger *slog.Logger, names ...string) (*pages, error) {
	if logger == nil {
		logger = slog.Default()
	}
	style, err := fs.ReadFile(files, "static/style.css")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(style)
	p := &pages{
		templates: map[string]*template.Template{},
		style:     style,
		styleURL:  "style.css?" + hex.EncodeToString(sum[:6]),
		sameSite:  http.NewCrossOriginProtection(),
		path:      path,
		logger:    logger,
		now:       time.Now,
	}
	for _, name := range names {
		t, err := template.New("").Funcs(p.functions()).ParseFS(files, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, err
		}
		p.templates[name] = t
	}
	return p, nil
}

func (p *pages) functions() template.FuncMap {
	return template.FuncMap{
		"ago":    func(t time.Time) string { return ago(p.now(), t) },
		"moment": moment,
		"day":    day,
		"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"agent":  parseAgent,
		"bytes":  byteCount,
		"size":   func(n int) string { return byteCount(int64(n)) },
		"group":  func(n any) string { return group(fmt.Sprint(n)) },
		"query":  url.QueryEscape,
		"plural": plural,
	}
}

// page is the data of the layout around a page's own content.
type page struct {
	Text     *DevicesTexts
	Title    string
	Site     string // name at the top, with a link to Home
	Home     string
	Style    string // URL
	Messages []message
	Look     string // URL of the application's stylesheet, "" = none
	Wide     bool   // a page for operators
	Overview bool   // the first page of the dashboard
	Content  any
}

type message struct {
	Kind string // "done", "problem" or "note"
	Text string
}

// render answers with a page.
func (p *pages) render(w http.ResponseWriter, r *http.Request, status int, name string, pg page) {
	pg.Style = p.styleURL
	var html bytes.Buffer
	if err := p.templates[name].ExecuteTemplate(&html, "layout.html", pg); err != nil {
		p.logger.ErrorContext(r.Context(), "an admin page could not be rendered", slog.String("page", name), slog.Any("error", err))
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = html.WriteTo(w) // the client may have left
}

// serve does what both handlers share: headers, routing, the stylesheet, and
// the protection of forms. routes are by method and path below the mount, such
// as "GET session".
func (p *pages) serve(w http.ResponseWriter, r *http.Request, routes map[string]http.HandlerFunc) {
	p.guard(w, r)
	rest, ok := strings.CutPrefix(r.URL.Path, p.path)
	if !ok {
		p.problem(w, r, http.StatusNotFound)
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if method == http.MethodGet && rest == "style.css" {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "private, max-age=86400")
		_, _ = w.Write(p.style)
		return
	}
	if h, ok := routes[method+" "+rest]; ok {
		if err := p.sameSite.Check(r); err != nil {
			p.problem(w, r, http.StatusForbidden)
			return
		}
		h(w, r)
		return
	}
	for _, other := range []string{http.MethodGet, http.MethodPost} {
		if _, ok := routes[other+" "+rest]; ok {
			w.Header().Set("Allow", other)
			p.problem(w, r, http.StatusMethodNotAllowed)
			return
		}
	}
	p.problem(w, r, http.StatusNotFound)
}

// guard sets the headers of every response and limits the size of the request.
func (p *pages) guard(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// Not "no-referrer": with it, browsers send no Origin with forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
}

// redirect answers with a redirect that is relative to the current page, so
// that it is right behind a proxy.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// checkPath checks where a handler is mounted.
func checkPath(path string) error {
	u, err := url.Parse(path)
	if err != nil || !localPath(path) || !strings.HasSuffix(path, "/") || u.RawQuery != "" || u.Fragment != "" || u.Path != path {
		return fmt.Errorf("Path %q: it is where the handler is mounted, such as \"/ops/\", with a slash at both ends", path)
	}
	return nil
}

// localPath reports whether a URL is a path of this site: it starts with
// exactly one slash. Browsers read a second slash or a backslash as the start
// of a host.
func localPath(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsFunc(s, func(r rune) bool {
		return r == '\\' || r < ' ' || r == 0x7f
	}) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "" && u.Host == "" && u.User == nil
}

// refusing answers every request with 403, because the handler is not set up.
func refusing(what string, errs ...error) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
	}), fmt.Errorf("admin: %s: %w", what, errors.Join(errs...))
}

// pager is one page of a list.
type pager struct {
	Page, Pages int
	Total       int
	First, Last int // the range shown, counted from 1
	Text        *DevicesTexts
	User        string // kept in the links to other pages, if not empty
}

func newPager(r *http.Request, total, size int, user string) pager {
	p := pager{Page: 1, Total: total, Pages: max(1, (total+size-1)/size), User: user}
	if n, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil {
		p.Page = min(max(n, 1), p.Pages)
	}
	p.First = min((p.Page-1)*size+1, total)
	p.Last = min(p.Page*size, total)
	return p
}

// Prev and Next are the pages beside this one, 0 if there is none.
func (p pager) Prev() int { return p.Page - 1 }

func (p pager) Next() int {
	if p.Page >= p.Pages {
		return 0
	}
	return p.Page + 1
}

func cut[T any](list []T, p pager) []T {
	if len(list) == 0 {
		return nil
	}
	return list[p.First-1 : p.Last]
}
