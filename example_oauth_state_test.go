package sojourn_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// The state of an OAuth flow can be used once. Save settles who had it, if two
// requests come back with it at once.
func ExampleKey_Pop() {
	state := sojourn.NewKey[string]("oauth_state", sojourn.TTL(10*time.Minute), sojourn.ServerSide)
	var sent string // what the identity provider would send back

	sessions := manager(sojourn.Config{})
	mux := http.NewServeMux()
	mux.Handle("/start", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		sent = rand.Text()
		state.Set(session, sent)
		fmt.Fprint(w, "go to the identity provider")
	}))
	mux.Handle("/callback", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		// Two values: a state that is missing never equals a missing parameter.
		want, ok := state.Pop(session)
		if !ok || want != sent {
			http.Error(w, "start again", http.StatusForbidden)
			return
		}
		session.Login("anna")
		if err := session.Save(r.Context()); err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		fmt.Fprintf(w, "welcome, %s", session.User())
	}))

	visit := browse(mux)
	visit("/start")
	visit("/callback")
	visit("/callback")
	// Output:
	// /start 200 go to the identity provider
	// /callback 200 welcome, anna
	// /callback 403 start again
}

// A value with a TTL ends by itself; each Set or Update starts its time anew.
func ExampleTTL() {
	code := sojourn.NewKey[string]("code", sojourn.TTL(24*time.Hour))

	session := newVisitor()
	code.Set(session, "314-159")
	fmt.Println(code.Get(session))
	// Output: 314-159
}
