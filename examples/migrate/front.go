package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/sojourn-go/sojourn/ops"
)

// routes are the pages of the shop, in the order in which the tour moves them.
var routes = []string{"/cart", "/login", "/logout", "/"}

// front is the shop's public address. It sends each route to one of the two
// applications.
type front struct {
	old *oldApp
	new *newApp

	mu    sync.RWMutex
	moved map[string]bool
	gone  bool // the old shop
}

func newFront(old *oldApp, app *newApp) *front {
	return &front{old: old, new: app, moved: map[string]bool{}}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(routes, r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	f.mu.RLock()
	moved := f.moved[r.URL.Path]
	f.mu.RUnlock()
	if moved {
		f.new.ServeHTTP(w, r)
		return
	}
	f.old.handler.ServeHTTP(w, r)
}

// move sends a route to the new shop, or back to the old one.
func (f *front) move(route string, toNew bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !slices.Contains(routes, route):
		return fmt.Errorf("there is no route %q", route)
	case !toNew && f.new.phase.Load() != sharing:
		return fmt.Errorf("the new shop has sessions of its own by now: the old one would not know them")
	}
	f.moved[route] = toNew
	return nil
}

// next begins the next phase of the move.
func (f *front) next(phase string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch was := f.new.phase.Load(); {
	case phase == adopting && was == sharing:
		for _, route := range routes {
			if !f.moved[route] {
				return fmt.Errorf("the old shop still answers %s", route)
			}
		}
	case phase == alone && was == adopting:
		if err := f.old.close(); err != nil {
			return err
		}
		f.gone = true
	default:
		return fmt.Errorf("after the phase %q comes no %q", was, phase)
	}
	f.new.phase.Store(phase)
	return nil
}

// status is the progress of the move.
type status struct {
	Phase   string            `json:"phase"`
	OldApp  string            `json:"old_app"`
	Routes  map[string]string `json:"routes"` // the application: old or new
	Sojourn uint64            `json:"adopted"`
	Found   uint64            `json:"legacy_sessions_seen"`
	// Left is the number of sessions in the old shop's store that have not been
	// adopted yet; null if they are in cookies.
	Left *int `json:"legacy_sessions_left"`
}

func (f *front) status() (status, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := status{Phase: f.new.phase.Load().(string), OldApp: f.old.kind, Routes: map[string]string{}}
	if f.gone {
		s.OldApp = "stopped"
	}
	for _, route := range routes {
		s.Routes[route] = "old"
		if f.moved[route] {
			s.Routes[route] = "new"
		}
	}
	var ended uint64
	for _, stats := range ops.For(f.new.adopts).AdoptStats() {
		s.Sojourn, s.Found, ended = s.Sojourn+stats.Adopted, s.Found+stats.Found, ended+stats.Ended
	}
	left, known, err := f.old.left()
	if known {
		// An adopted session's file stays until the session ends.
		left = max(left-int(s.Sojourn-ended), 0)
		s.Left = &left
	}
	return s, err
}

// admin is the control interface. It has a separate address.
//
//	GET  /                            how far the move is
//	POST /route?path=/cart&to=new     who answers a page: new or old
//	POST /phase?to=adopt              begin to adopt, or be alone
func (f *front) admin() http.Handler {
	mux := http.NewServeMux()
	show := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		s, err := f.status()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		_ = out.Encode(s) // the client may have gone
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, nil) })
	mux.HandleFunc("POST /route", func(w http.ResponseWriter, r *http.Request) {
		to := r.FormValue("to")
		if to != "new" && to != "old" {
			http.Error(w, "to is new or old", http.StatusBadRequest)
			return
		}
		show(w, f.move(r.FormValue("path"), to == "new"))
	})
	mux.HandleFunc("POST /phase", func(w http.ResponseWriter, r *http.Request) {
		show(w, f.next(r.FormValue("to")))
	})
	return http.NewCrossOriginProtection().Handler(mux)
}
