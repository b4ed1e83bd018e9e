package sojourn_test

import (
	"fmt"
	"net/http"

	"github.com/sojourn-go/sojourn"
)

// Without a store, sessions are only in the visitors' browsers, sealed. A
// logout then does not end a copy of the cookie.
func ExampleConfig_cookieOnly() {
	language := sojourn.NewKey[string]("language")
	sessions := manager(sojourn.Config{Mode: sojourn.CookieOnly})
	visit := browse(sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if l := r.FormValue("language"); l != "" {
			language.Set(session, l)
		}
		fmt.Fprintf(w, "%s, %s", language.Get(session), session.Info().Placement)
	}))
	visit("/?language=de")
	visit("/")
	// Output:
	// /?language=de 200 de, none
	// / 200 de, inline
}
