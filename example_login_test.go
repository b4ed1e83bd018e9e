package sojourn_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// Login gives the visitor a new identifier and keeps the cart. A flash message
// waits for the next page, also after a Logout.
func ExampleSession_Login() {
	sessions := manager(sojourn.Config{})
	mux := http.NewServeMux()
	mux.Handle("/login", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		// … after the password was checked:
		session.Login(r.FormValue("user"))
		session.Flash("success", "Welcome back")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	mux.Handle("/logout", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Logout()
		session.Flash("info", "You are signed out")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	mux.Handle("/", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		// Before the first byte, so that the messages can be removed.
		messages := session.Flashes()
		fmt.Fprintf(w, "user %q", session.User())
		for _, m := range messages {
			fmt.Fprintf(w, ", %s: %s", m.Level, m.Text)
		}
	}))

	visit := browse(mux)
	visit("/login?user=anna")
	visit("/")
	visit("/")
	visit("/logout")
	visit("/")
	// Output:
	// /login?user=anna 303 to /
	// / 200 user "anna", success: Welcome back
	// / 200 user "anna"
	// /logout 303 to /
	// / 200 user "", info: You are signed out
}

// A visitor who ticks "remember me" stays signed in for ninety days, even if
// the browser closes. Other visitors stay signed in until the browser closes,
// for at most eight hours.
func ExampleSession_Remember() {
	sessions := manager(sojourn.Config{
		Lifetime: 8 * time.Hour,
		Cookie:   sojourn.Cookie{BrowserSession: true},
	})
	visit := browse(sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Login("anna")
		if r.FormValue("remember") == "on" {
			session.Remember(true)
			session.SetExpiry(-1, 90*24*time.Hour) // no idle timeout
		}
		if err := session.Save(r.Context()); err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		info := session.Info()
		fmt.Fprintf(w, "persistent: %v, for %v", info.Persistent, info.Expires.Sub(info.Created))
	}))
	visit("/login")
	visit("/login?remember=on")
	// Output:
	// /login 200 persistent: false, for 8h0m0s
	// /login?remember=on 200 persistent: true, for 2160h0m0s
}
