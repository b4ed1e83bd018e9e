package sojourn_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A handler remembers its visitors. The examples use the store in memory; a
// service uses a durable one, such as package sqlite.
func Example() {
	keys, err := sojourn.ParseKeys(keys.Generate()) // or LoadKeyFile
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New()})
	if err != nil {
		panic(err)
	}
	defer sessions.Close()

	name := sojourn.NewKey[string]("name")
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r.Context())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		if n := r.FormValue("name"); n != "" {
			name.Set(session, n)
		}
		fmt.Fprintf(w, "Hello, %s!", name.Get(session))
	})

	visit := browse(sessions.Wrap(mux))
	visit("/hello")
	visit("/hello?name=Anna")
	visit("/hello")
	// Output:
	// /hello 200 Hello, !
	// /hello?name=Anna 200 Hello, Anna!
	// /hello 200 Hello, Anna!
}

// manager returns a manager for an example. It panics where a program would
// report an error.
func manager(cfg sojourn.Config) *sojourn.Manager {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	cfg.Keys = keys
	if cfg.Store == nil && cfg.Mode != sojourn.CookieOnly {
		cfg.Store = memory.New()
	}
	m, err := sojourn.New(cfg)
	if err != nil {
		panic(err)
	}
	return m
}

// browse returns a function that requests a page of the site, with the cookies
// of earlier responses, and prints the response.
func browse(site http.Handler) func(path string) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err)
	}
	return func(path string) {
		server := httptest.NewTLSServer(site)
		defer server.Close()
		client := server.Client()
		client.Jar = jar
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, err := client.Get(server.URL + path)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(err)
		}
		answer := strings.TrimSpace(string(body))
		if to := resp.Header.Get("Location"); to != "" {
			answer = "to " + to
		}
		fmt.Println(path, resp.StatusCode, answer)
	}
}
