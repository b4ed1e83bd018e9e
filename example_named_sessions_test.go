package sojourn_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// A shop has separate sessions for visitors and for staff, with different
// cookies and lifetimes. A handler gets the one it needs.
func ExampleManager_Wrap_namedSessions() {
	visitors := manager(sojourn.Config{})
	staff := manager(sojourn.Config{
		Name:        "staff",
		Mode:        sojourn.StoredOnly,
		IdleTimeout: 15 * time.Minute,
		Lifetime:    8 * time.Hour,
		Cookie:      sojourn.Cookie{SameSite: http.SameSiteStrictMode},
	})

	theme := sojourn.NewKey[string]("theme")
	mux := http.NewServeMux()
	mux.HandleFunc("/theme", func(w http.ResponseWriter, r *http.Request) {
		session, err := visitors.Get(r.Context())
		if err != nil {
			visitors.ServeError(w, r, err)
			return
		}
		theme.Set(session, "dark")
		fmt.Fprint(w, "dark from now on")
	})
	mux.HandleFunc("/staff/login", func(w http.ResponseWriter, r *http.Request) {
		session, err := staff.Get(r.Context())
		if err != nil {
			staff.ServeError(w, r, err)
			return
		}
		session.Login("bob")
		fmt.Fprint(w, "good morning")
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		visitor, err := visitors.Get(r.Context())
		if err != nil {
			visitors.ServeError(w, r, err)
			return
		}
		clerk, err := staff.Get(r.Context())
		if err != nil {
			staff.ServeError(w, r, err)
			return
		}
		fmt.Fprintf(w, "visitor %q with theme %q, staff %q", visitor.User(), theme.Get(visitor), clerk.User())
	})

	visit := browse(visitors.Wrap(staff.Wrap(mux)))
	visit("/theme")
	visit("/staff/login")
	visit("/who")
	// Output:
	// /theme 200 dark from now on
	// /staff/login 200 good morning
	// /who 200 visitor "" with theme "dark", staff "bob"
}
