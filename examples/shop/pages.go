package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// pages renders templates and serves the files they need.
type pages struct {
	templates map[string]*template.Template // by file name without ending, each with the layout
	languages []*language                   // the first is the fallback
	files     fs.FS
	build     string // part of every file's URL, so that browsers may cache files without expiry
}

func newPages(root fs.FS) (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}}
	var err error
	if p.languages, err = readLanguages(root, "en", "de"); err != nil {
		return nil, err
	}
	if p.files, err = fs.Sub(root, "static"); err != nil {
		return nil, err
	}
	if p.build, err = fingerprint(p.files); err != nil {
		return nil, err
	}
	layout, err := template.New("").Funcs(template.FuncMap{
		"file":      func(name string) string { return "/static/" + p.build + "/" + name },
		"shelves":   shelves,
		"themes":    themes,
		"languages": func() []*language { return p.languages },
		"tiers":     func() []string { return []string{"none", "inline", "stored"} },
		"item":      func(p page, of any) item { return item{p, of} },
		"field":     newField,
	}).ParseFS(root, "templates/layout/*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(root, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		t, err := layout.Clone()
		if err == nil {
			t, err = t.ParseFS(root, name)
		}
		if err != nil {
			return nil, err
		}
		p.templates[strings.TrimSuffix(path.Base(name), ".html")] = t
	}
	return p, nil
}

// page is the data of the layout around a page's own content.
type page struct {
	*language
	Name      string // of the template
	Here      string // path of this page, for forms that return to it
	Theme     string
	User      bool
	There     bool // the user signed in with the provider
	Customer  Customer
	CartCount int
	WishCount int
	Flashes   []sojourn.Flash
	Strip     *strip // nil without a session
	Content   any
}

// item is one of several items on a page, for a template that shows one.
type item struct {
	Page page
	Of   any
}

// field is a labeled input.
type field struct {
	Page                              page
	Name, Type, Label, Complete, Hint string
	Value, Problem                    string // from the draft, if there is one
}

// newField makes a field of a page whose content has a Form.
func newField(p page, name, kind, label, complete string, hint ...string) field {
	f := field{Page: p, Name: name, Type: kind, Label: label, Complete: complete, Hint: strings.Join(hint, " ")}
	if content, ok := p.Content.(interface{ form() draft }); ok {
		f.Value, f.Problem = content.form().Values[name], content.form().Problems[name]
	}
	return f
}

// greeting is the level of a message that is a customer's name. The page makes a
// sentence of it, in the visitor's language.
const greeting = "greeting"

// message is the content of a page that only says something, with a button that
// leads to the first page, or to the login.
type message struct {
	Title, Text string
	SignIn      bool
}

// show renders a page. It first reads the page's data from the session, then
// starts the response, which saves the changes, and fills in the strip last, so
// that it shows this request's cost. A handler without such a strip simply
// writes.
func (s *shop) show(w http.ResponseWriter, r *http.Request, session *sojourn.Session, status int, name string, content any) {
	p := page{
		language:  s.pages.language(r, session),
		Name:      name,
		Here:      r.URL.RequestURI(),
		Theme:     theme(session),
		User:      session.User() != "",
		There:     s.signedInThere(session),
		Customer:  customerKey.Get(session),
		CartCount: cartKey.Get(session).count(),
		WishCount: len(wishesKey.Get(session)),
		Flashes:   session.Flashes(), // each is returned once, so reading them is a change
		Content:   content,
	}
	for i, f := range p.Flashes {
		if f.Level == greeting {
			p.Flashes[i] = sojourn.Flash{Level: "success", Text: p.T("login.welcome", f.Text)}
		}
	}
	start(w, status, p)
	p.Strip = &strip{Info: session.Info(), Page: costOf(r.Context()).soFar(time.Now()), Form: s.earlier.take(session.Handle())}
	s.write(w, p)
}

// failure renders a page without a session, because that has failed.
func (s *shop) failure(w http.ResponseWriter, r *http.Request, status int, text string) {
	p := page{
		language: s.pages.preferred(r),
		Name:     "message",
		Here:     "/",
		Theme:    "auto",
		Content:  message{Title: "error.title", Text: text},
	}
	start(w, status, p)
	s.write(w, p)
}

// start sends the status and the header of a page.
func start(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Code)
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Language")
	w.WriteHeader(status)
}

// write sends a page's body. A template that fails leaves the page empty: the
// tests render every page.
func (s *shop) write(w http.ResponseWriter, p page) {
	var html bytes.Buffer
	if err := s.pages.templates[p.Name].ExecuteTemplate(&html, "layout.html", p); err != nil {
		s.logger.Error("rendering failed", "page", p.Name, "error", err)
		return
	}
	_, _ = html.WriteTo(w) // the client may have left
}

// static serves stylesheet and pictures. It does not use the session.
func (p *pages) static() http.Handler {
	prefix := "/static/" + p.build + "/"
	server := http.StripPrefix(prefix, http.FileServerFS(p.files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, prefix) || strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		server.ServeHTTP(w, r)
	})
}

// fingerprint names the content of all files together.
func fingerprint(files fs.FS) (string, error) {
	hash := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		fmt.Fprintf(hash, "%s %d\n%s", name, len(content), content)
		return err
	})
	return hex.EncodeToString(hash.Sum(nil)[:6]), err
}
