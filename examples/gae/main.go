// Command gae is a small site on App Engine's bundled services: it counts a
// visitor's clicks, and lets people sign in by any name.
//
// See README.md for how to run it on your machine and how to deploy it.
package main

import (
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
	"time"

	"google.golang.org/appengine/v2"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// clicks is exact, even with parallel requests, because it is stored from the
// first click on.
var clicks = sojourn.NewKey[int]("clicks", sojourn.ServerSide)

func main() {
	handler, err := newSite(os.Getenv("SOJOURN_KEYS"))
	if err != nil {
		log.Fatal(err)
	}
	port := os.Getenv("PORT") // App Engine sets it
	if port == "" {
		port = "8080"
	}
	log.Fatal(http.ListenAndServe(":"+port, handler))
}

// newSite returns the site's handler. keyText is the text of the
// keys (README.md): App Engine has no disk to keep a key file on.
func newSite(keyText string) (http.Handler, error) {
	if keyText == "" {
		return nil, errors.New("SOJOURN_KEYS is not set; README.md says how to make keys")
	}
	keys, err := sojourn.ParseKeys(keyText)
	if err != nil {
		return nil, err
	}
	origin, err := gae.New(gae.Options{}) // the bundled datastore
	if err != nil {
		return nil, err
	}
	copies, err := gae.NewCache(gae.CacheOptions{}) // the bundled memcache
	if err != nil {
		return nil, err
	}
	db, err := tiered.New(origin, tiered.Layer{Cache: copies, MaxStale: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", sessions.Handler(home))
	mux.Handle("POST /click", sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		clicks.Update(s, func(n int) int { return n + 1 })
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	mux.Handle("POST /login", sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		if name := r.PostFormValue("name"); name != "" {
			s.Login(name) // a real site asks for a password first
			s.Flash("info", "Welcome, "+name)
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	mux.Handle("POST /logout", sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Logout()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	mux.Handle("GET /tasks/sweep", gae.Cron(db, 0)) // see cron.yaml

	// The bundled services only work inside this middleware, so it goes around
	// everything.
	return appengine.Middleware(sessions.Wrap(mux)), nil
}

var page = template.Must(template.New("home").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sojourn on App Engine</title>
<h1>Sojourn on App Engine</h1>
{{range .Flashes}}<p role="status">{{.Text}}</p>
{{end}}<p>You clicked {{.Clicks}} times. Your session lives here: {{.Info.Placement}}.</p>
<form method="post" action="/click"><button>Click</button></form>
{{if .User}}<form method="post" action="/logout">You are {{.User}}. <button>Sign out</button></form>
{{else}}<form method="post" action="/login"><label>Name <input name="name" required></label> <button>Sign in</button></form>
{{end}}</html>
`))

func home(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err := page.Execute(w, struct {
		Flashes []sojourn.Flash
		Clicks  int
		User    string
		Info    sojourn.Info
	}{s.Flashes(), clicks.Get(s), s.User(), s.Info()})
	if err != nil {
		log.Printf("write the page: %v", err)
	}
}
