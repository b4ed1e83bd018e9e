package sojourn_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// A ticket holds the state of an OAuth flow, which comes back once. If two
// requests bring it at the same time, Redeem returns it to one of them.
func ExampleTicket() {
	type login struct{ Verifier, Next string }
	logins := sojourn.NewTicket[login]("oauth", 10*time.Minute)
	var sent string // what the identity provider would send back

	sessions := manager(sojourn.Config{})
	mux := http.NewServeMux()
	mux.Handle("/start", sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		sent = logins.Issue(session, login{rand.Text(), "/account"})
		fmt.Fprint(w, "go to the identity provider")
	}))
	mux.Handle("/callback", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		started, err := logins.Redeem(r.Context(), session, sent)
		switch {
		case errors.Is(err, sojourn.ErrTaken): // a second click: the first one logs in
			http.Redirect(w, r, "/account", http.StatusSeeOther)
			return
		case err != nil:
			sessions.ServeError(w, r, err)
			return
		}
		session.Login("anna")
		http.Redirect(w, r, started.Next, http.StatusSeeOther)
	}))

	visit := browse(mux)
	visit("/start")
	visit("/callback")
	visit("/callback")
	// Output:
	// /start 200 go to the identity provider
	// /callback 303 to /account
	// /callback 303 to /account
}

// Pop takes a value that can be used once. Of concurrent requests, Save
// succeeds for one.
func ExampleKey_Pop() {
	voucher := sojourn.NewKey[string]("voucher", sojourn.ServerSide)
	session := newVisitor()
	voucher.Set(session, "TEA-10")
	fmt.Println(voucher.Pop(session))
	fmt.Println(voucher.Pop(session))
	// Output:
	// TEA-10 true
	//  false
}

// A value with a TTL expires. Each Set or Update restarts its time.
func ExampleTTL() {
	code := sojourn.NewKey[string]("code", sojourn.TTL(24*time.Hour))

	session := newVisitor()
	code.Set(session, "314-159")
	fmt.Println(code.Get(session))
	// Output: 314-159
}
