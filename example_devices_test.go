package sojourn_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/sojourn-go/sojourn"
)

// A page lists a user's devices. A change of the password signs out all other
// devices.
func ExampleManager_Sessions() {
	sessions := manager(sojourn.Config{})
	mux := http.NewServeMux()
	mux.Handle("/login", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Login("anna", "pwd")
		fmt.Fprint(w, "welcome")
	}))
	mux.Handle("/devices", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		devices, err := sessions.Sessions(r.Context(), session.User())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		fmt.Fprintf(w, "%d devices ", len(devices))
		for _, d := range devices {
			// For people: d.UserAgent, d.IP, d.LastSeen. For a form: d.Handle.
			fmt.Fprintf(w, "[signed in with %v, current %t]", d.Methods, d.Current)
		}
	}))
	mux.Handle("/password", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		// … after the password was changed:
		n, err := sessions.RevokeUser(r.Context(), session.User(), session.Handle())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		fmt.Fprintf(w, "%d other device was signed out", n)
	}))

	phone, laptop := browse(mux), browse(mux)
	phone("/login")
	laptop("/login")
	laptop("/password")
	laptop("/devices")
	phone("/devices")
	// Output:
	// /login 200 welcome
	// /login 200 welcome
	// /password 200 1 other device was signed out
	// /devices 200 1 devices [signed in with [pwd], current true]
	// /devices 200 0 devices
}

// A user can change the password only within ten minutes of an authentication.
func ExampleManager_RequireRecent() {
	sessions := manager(sojourn.Config{})
	askAgain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	})
	recent := sessions.RequireRecent(10*time.Minute, askAgain)

	mux := http.NewServeMux()
	mux.Handle("/login", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Login("anna", "pwd", "otp")
		fmt.Fprint(w, "welcome")
	}))
	mux.Handle("/password", recent(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "the form")
	})))

	visit := browse(sessions.Wrap(mux))
	visit("/password")
	visit("/login")
	visit("/password")
	// Output:
	// /password 303 to /login
	// /login 200 welcome
	// /password 200 the form
}

// AuditLog writes a line for each event. This output omits the time, the
// session's handle, the address, and the user agent.
func ExampleAuditLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "session" || a.Key == "ip" || a.Key == "user_agent" {
				return slog.Attr{}
			}
			return a
		},
	}))
	sessions := manager(sojourn.Config{Events: sojourn.AuditLog(logger)})
	visit := browse(sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if r.URL.Path == "/login" {
			session.Login("anna")
			fmt.Fprint(w, "welcome")
			return
		}
		session.Logout()
		fmt.Fprint(w, "goodbye")
	}))
	visit("/login")
	visit("/logout")
	// Output:
	// level=INFO msg="session login" event=login manager=session user=anna
	// level=INFO msg="session created" event=created manager=session user=anna
	// /login 200 welcome
	// level=INFO msg="session logout" event=logout manager=session user=anna
	// /logout 200 goodbye
}

// An application can send its own notifications in addition to the audit log.
func ExampleEvent() {
	audit := sojourn.AuditLog(slog.New(slog.DiscardHandler))
	events := func(ctx context.Context, e sojourn.Event) { // for Config.Events
		audit(ctx, e)
		if e.Kind == sojourn.EventTheftSuspected {
			fmt.Println("tell", e.User, "that somebody may have copied a cookie")
		}
	}
	events(context.Background(), sojourn.Event{Kind: sojourn.EventTheftSuspected, User: "anna"})
	// Output: tell anna that somebody may have copied a cookie
}
