package formats_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The new application's values, in its own types.
type item struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

var cart = sojourn.NewKey[[]item]("cart", sojourn.ServerSide)

// fromPython turns an old session into a new one. It runs once per visitor.
func fromPython(old *adopt.Session, s *sojourn.Session) error {
	var items []item
	if err := old.Get("cart", &items); err == nil {
		cart.Set(s, items)
	}
	var user string
	if err := old.Get("user_id", &user); err == nil {
		s.Login(user)
	}
	return nil
}

// A shop moves from webapp2 to Go. Signed-in visitors stay signed in and keep
// their carts.
func Example() {
	python, err := webapp2.New(webapp2.Config{
		Secret: []byte("the secret_key of the old application"), MaxAge: 30 * 24 * time.Hour,
	})
	if err != nil {
		panic(err)
	}
	keys, err := sojourn.ParseKeys(keys.Generate()) // sojourn.LoadKeyFile in real life
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{
		Keys: keys, Store: memory.New(), // sqlite.Open in real life
		Adopt: &sojourn.Adopt{
			From: []adopt.Format{formats.From(python)},
			Map:  fromPython,
		},
	})
	if err != nil {
		panic(err)
	}
	defer sessions.Close()
	site := sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		fmt.Fprintf(w, "%s has %v", s.User(), cart.Get(s))
	})

	r := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
	r.Header.Set("Cookie", pythonCookie(python))
	w := httptest.NewRecorder()
	site.ServeHTTP(w, r)
	fmt.Println(w.Body)
	for _, c := range w.Result().Cookies() {
		fmt.Println(c.Name, c.Value != "")
	}
	stats := ops.For(sessions).AdoptStats()["webapp2 session"]
	fmt.Println(stats.Found, stats.Adopted)
	// Output:
	// anna has [{tea 2}]
	// session false
	// __Host-session true
	// 1 1
}

// A service without HTTP middleware, such as a gRPC server beside a site that
// still uses gae-sessions, opens the same session with only the request's
// metadata.
func Example_serviceWithoutMiddleware() {
	python, err := gaesessions.New(gaesessions.Config{Key: []byte("a cookie_key of at least 32 bytes")})
	if err != nil {
		panic(err)
	}
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{
		Keys: keys, Store: memory.New(),
		Adopt: &sojourn.Adopt{
			From: []adopt.Format{formats.From(python)},
			Map:  fromPython,
			Keep: true, // the site still needs its cookie
		},
	})
	if err != nil {
		panic(err)
	}
	defer sessions.Close()

	// An interceptor makes these of the call's metadata, and sends out back with it.
	in, out := http.Header{"Cookie": {pythonCookie(python)}}, http.Header{}
	ctx := context.Background()
	ctx, exchange := sessions.Attach(ctx, func() sojourn.RequestInfo { return sojourn.RequestInfo{Header: in} })
	defer func() { _ = exchange.Finish() }()
	session, err := sessions.Get(ctx)
	if err != nil {
		panic(err) // codes.Unavailable
	}
	if session.User() == "" {
		panic("codes.Unauthenticated")
	}
	cart.Update(session, func(items []item) []item { return append(items, item{"pot", 1}) })
	if err := exchange.Commit(http.StatusOK, out); err != nil {
		panic(err)
	}
	fmt.Println(session.User(), cart.Get(session), len(out["Set-Cookie"]))
	// Output:
	// anna [{tea 2} {pot 1}] 1
}
