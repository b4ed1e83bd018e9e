package sojourntest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/sojourntest"
)

var cart = sojourn.NewKey[[]string]("cart", sojourn.ServerSide)

// shop is what the examples test: a handler that uses sessions.
func shop(sessions *sojourn.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r.Context())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		cart.Update(session, func(items []string) []string { return append(items, r.FormValue("item")) })
		session.Flash("success", "Added to your cart")
		http.Redirect(w, r, "/cart", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r.Context())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		fmt.Fprint(w, cart.Get(session), " ", session.Flashes())
	})
	return sessions.Wrap(mux)
}

// exampleT stands for the *testing.T that a test function gets.
type exampleT struct{ testing.TB }

func (exampleT) Helper()                  {}
func (exampleT) Cleanup(func())           {}
func (exampleT) Context() context.Context { return context.Background() }
func (exampleT) Output() io.Writer        { return os.Stderr }

func (exampleT) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

var t exampleT

// A request of a logged-in visitor with items in the cart, and the session
// after it.
func ExampleRequest() {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	r := sojourntest.Request(t, sessions, "POST", "/cart?item=lamp", nil, func(s *sojourn.Session) {
		s.Login("ada")
		cart.Set(s, []string{"mug"})
	})
	w := httptest.NewRecorder()
	shop(sessions).ServeHTTP(w, r)

	session := sojourntest.Session(t, sessions, r, w.Result())
	fmt.Println(w.Code, session.User(), cart.Get(session), session.Flashes())
	// Output: 303 ada [mug lamp] [{success Added to your cart}]
}

// A handler with a new visitor.
func ExampleSession() {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	w := httptest.NewRecorder()
	shop(sessions).ServeHTTP(w, httptest.NewRequest("POST", "https://example.com/cart?item=lamp", nil))

	session := sojourntest.Session(t, sessions, nil, w.Result())
	fmt.Println(cart.Get(session), session.Info().Placement)
	// Output: [lamp] stored
}

// Several requests of one visitor.
func ExampleBrowser() {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	browser := sojourntest.NewBrowser(t, shop(sessions))

	res := browser.PostForm("/cart", url.Values{"item": {"mug"}})
	fmt.Println(res.Status)
	page, _ := io.ReadAll(browser.Follow(res).Body)
	fmt.Println(string(page))
	page, _ = io.ReadAll(browser.Get("/cart").Body)
	fmt.Println(string(page))
	// Output:
	// 303 See Other
	// [mug] [{success Added to your cart}]
	// [mug] []
}

// A copied cookie is invalid after a logout.
func ExampleBrowser_Request() {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	handler := shop(sessions)
	browser := sojourntest.NewBrowser(t, handler)
	browser.Prepare(sessions, func(s *sojourn.Session) {
		s.Login("ada")
		cart.Set(s, []string{"mug"})
	})
	copied := browser.Request("GET", "/cart", nil)
	browser.Prepare(sessions, (*sojourn.Session).Logout)

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, copied)
	fmt.Println(w.Body)
	// Output: [] []
}
