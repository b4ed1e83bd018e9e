package oidc_test

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/oidc"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A service whose users sign in with a provider. It does not run here: there is no
// provider.
func Example() {
	keys, err := sojourn.LoadKeyFile("data/session.keys")
	check(err)
	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New()})
	check(err)
	signIn, err := oidc.New(oidc.Config{
		Sessions:     sessions,
		Issuer:       "https://login.example",
		ClientID:     "shop",
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		URL:          "https://shop.example/auth",
	})
	check(err)
	mux := http.NewServeMux()
	mux.Handle("/auth/", signIn)
	mux.Handle("/", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if session.User() == "" {
			http.Redirect(w, r, "/auth/login?next="+r.URL.Path, http.StatusSeeOther)
			return
		}
		fmt.Fprintf(w, "You are %s.\n", session.User())
	}))
	log.Fatal(http.ListenAndServe("localhost:8080", mux))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
