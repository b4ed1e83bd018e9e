package main

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/store"
)

// The new shop's values, in its own types.
var (
	cartKey   = sojourn.NewKey[map[string]int]("cart")
	visitsKey = sojourn.NewKey[int]("visits")
)

// fromOld turns a session of the old shop into one of the new. It runs once per
// visitor.
func fromOld(old *adopt.Session, s *sojourn.Session) error {
	var cart map[string]int
	if err := old.Get("cart", &cart); err == nil {
		cartKey.Set(s, cart)
	}
	var visits int
	if err := old.Get("visits", &visits); err == nil {
		visitsKey.Set(s, visits)
	}
	var user string
	if err := old.Get("user", &user); err == nil && user != "" {
		s.Login(user)
	}
	return nil
}

// The phases of the move.
const (
	sharing  = "share" // the new shop uses the old shop's sessions
	adopting = "adopt" // it has its own sessions, and adopts old ones
	alone    = "alone" // it has only its own sessions
)

// newApp is the shop in Go.
type newApp struct {
	phase  atomic.Value // a string
	shared *share.Sessions
	// adopts and plain share sessions: they have one name and one store.
	adopts, plain *sojourn.Manager

	sharing, adopting, alone http.Handler
}

func newShop(old legacy.Format, keys *sojourn.KeyRing, sessions store.Store) (*newApp, error) {
	a := &newApp{}
	a.phase.Store(sharing)
	var err error
	if a.shared, err = share.New(share.Config{Format: old}); err != nil {
		return nil, err
	}
	config := sojourn.Config{Name: "shop-session", Keys: keys, Store: sessions}
	if a.plain, err = sojourn.New(config); err != nil {
		return nil, err
	}
	config.Adopt = &sojourn.Adopt{
		From: []adopt.Format{formats.From(old)},
		Map:  fromOld,
		// The old shop's sessions never expire. Visitors who do not return by
		// then must log in again.
		Until: time.Now().AddDate(0, 3, 0),
	}
	if a.adopts, err = sojourn.New(config); err != nil {
		return nil, err
	}
	a.sharing = http.HandlerFunc(a.serveShared)
	a.adopting = a.adopts.Handler(serveOwn)
	a.alone = a.plain.Handler(serveOwn)
	return a, nil
}

func (a *newApp) close() error {
	a.adopts.Close()
	a.plain.Close()
	return nil
}

func (a *newApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch a.phase.Load() {
	case sharing:
		a.sharing.ServeHTTP(w, r)
	case adopting:
		a.adopting.ServeHTTP(w, r)
	default:
		a.alone.ServeHTTP(w, r)
	}
}

// serveShared answers from the old shop's session.
func (a *newApp) serveShared(w http.ResponseWriter, r *http.Request) {
	session, err := a.shared.Open(r.Context(), r.Header)
	if err != nil {
		http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
		return
	}
	v := &sharedVisit{Session: session}
	act(v, r)
	if v.over {
		err = session.End(r.Context(), w.Header())
	} else {
		err = session.Save(r.Context(), w.Header())
	}
	if err != nil {
		http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
		return
	}
	answer(v, w, r)
}

// serveOwn answers from a session of the new shop, which the manager saves.
func serveOwn(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
	v := ownVisit{s}
	act(v, r)
	answer(v, w, r)
}

// visit is the pages' interface to a session of either shop.
type visit interface {
	user() string
	login(user string)
	logout()
	cart() map[string]int
	put(item string)
	visits() int
	count()
}

// act carries out a request.
func act(v visit, r *http.Request) {
	switch post := r.Method == http.MethodPost; {
	case post && r.URL.Path == "/logout":
		v.logout()
	case post && r.URL.Path == "/login":
		v.login(r.PostFormValue("user"))
	case post && r.URL.Path == "/cart":
		v.put(r.PostFormValue("item"))
	case !post && r.URL.Path == "/":
		v.count()
	}
}

// answer shows the visitor's session.
func answer(v visit, w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	shown := shown{AnsweredBy: answeredByGo, User: v.user(), Visits: v.visits(), Cart: v.cart()}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(shown) // the visitor may have gone
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, shown)
}

// answeredByGo identifies the new shop in its answers.
const answeredByGo = "Go"

// shown is the content of a page, in both shops.
type shown struct {
	AnsweredBy string         `json:"answered_by"`
	User       string         `json:"user"`
	Visits     int            `json:"visits"`
	Cart       map[string]int `json:"cart"`
}

var page = template.Must(template.New("page").Parse(`<!doctype html><title>The shop</title>
<p>This page comes from <b>{{.AnsweredBy}}</b>.</p>
<p>Logged in: {{or .User "nobody"}}. Visits: {{.Visits}}.</p><ul>{{range $item, $n := .Cart}}<li>{{$item}} &times; {{$n}}</li>{{end}}</ul>
<form method=post action=/cart><input name=item value=tea> <button>Into the cart</button></form>
<form method=post action=/login><input name=user value=ada> <button>Log in</button></form>
<form method=post action=/logout><button>Log out</button></form>
<p><a href=/>Home</a> <a href=/cart>Cart</a></p>
`))

// sharedVisit is a visit on the old shop's session, with the old shop's names
// of values.
type sharedVisit struct {
	*share.Session
	over bool
}

func (v *sharedVisit) user() (name string) {
	_ = v.Get("user", &name) // "" = not logged in
	return name
}

func (v *sharedVisit) login(user string) {
	_ = v.Set("user", user) // text can be kept
	v.Renew()               // the old shop does not do this
}

func (v *sharedVisit) logout() { v.over = true }

func (v *sharedVisit) cart() map[string]int {
	cart := map[string]int{}
	_ = v.Get("cart", &cart) // empty if there is none
	return cart
}

func (v *sharedVisit) put(item string) {
	cart := v.cart()
	cart[item]++
	_ = v.Set("cart", cart)
}

func (v *sharedVisit) visits() (n int) {
	_ = v.Get("visits", &n)
	return n
}

func (v *sharedVisit) count() { _ = v.Set("visits", v.visits()+1) }

// ownVisit is a visit on a session of the new shop.
type ownVisit struct{ *sojourn.Session }

func (v ownVisit) user() string         { return v.User() }
func (v ownVisit) login(user string)    { v.Login(user) }
func (v ownVisit) logout()              { v.Logout() }
func (v ownVisit) cart() map[string]int { return cartKey.Get(v.Session) }
func (v ownVisit) visits() int          { return visitsKey.Get(v.Session) }

func (v ownVisit) put(item string) {
	cartKey.Update(v.Session, func(cart map[string]int) map[string]int {
		if cart == nil {
			cart = map[string]int{}
		}
		cart[item]++
		return cart
	})
}

func (v ownVisit) count() {
	visitsKey.Update(v.Session, func(n int) int { return n + 1 })
}
