package sojourn_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/sojourn-go/sojourn"
)

// The visitor's session decides which requests a proxy forwards. The upstream
// server gets the other cookies, but not the session's credential.
func ExampleManager_Strip() {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["Cookie"])
	}))
	defer behind.Close()
	upstream, err := url.Parse(behind.URL)
	if err != nil {
		panic(err)
	}

	sessions := manager(sojourn.Config{})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		sessions.Strip(r.Out.Header)
	}}
	visit := browse(sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if session.User() == "" {
			session.Login("anna")
			http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
			fmt.Fprint(w, "welcome")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	visit("/login")
	visit("/wiki")
	// Output:
	// /login 200 welcome
	// /wiki 200 [theme=dark]
}
