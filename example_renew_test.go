package sojourn_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// An access token that is about to expire is replaced once, even if many
// requests on several replicas need it at the same time. Many providers end a
// login if its refresh token is used twice.
func ExampleKey_Renew() {
	type token struct {
		Access, Refresh string
		Expires         time.Time
	}
	tokens := sojourn.NewKey[token]("token", sojourn.ServerSide)
	expired := func(t token) bool { return time.Until(t.Expires) < time.Minute }
	refresh := func(_ context.Context, old token) (token, error) { // asks the provider
		return token{"access-2", "refresh-2", time.Now().Add(time.Hour)}, nil
	}

	sessions := manager(sojourn.Config{})
	mux := http.NewServeMux()
	mux.Handle("/login", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Login("anna")
		tokens.Set(session, token{"access-1", "refresh-1", time.Now()})
		fmt.Fprint(w, "welcome")
	}))
	mux.Handle("/mail", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		t, err := tokens.Renew(r.Context(), session, expired, refresh)
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		fmt.Fprint(w, "read mail with ", t.Access)
	}))

	visit := browse(mux)
	visit("/login")
	visit("/mail")
	visit("/mail")
	// Output:
	// /login 200 welcome
	// /mail 200 read mail with access-2
	// /mail 200 read mail with access-2
}
