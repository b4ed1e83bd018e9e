package sojourn_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"

	"github.com/sojourn-go/sojourn"
)

// apiClient is an http.RoundTripper for an API client that stores its token
// itself: it sends the token and stores a renewed one.
type apiClient struct {
	base http.RoundTripper

	mu    sync.Mutex
	token string
}

func (c *apiClient) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	sent := c.token
	c.mu.Unlock()
	r = r.Clone(r.Context()) // a RoundTripper must not change its argument
	if sent != "" {
		r.Header.Set("Authorization", "Bearer "+sent)
	}
	resp, err := c.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if renewed, ok := resp.Header["Sojourn-Token"]; ok { // empty: the session has ended
		c.mu.Lock()
		if c.token == sent { // else another request was faster
			c.token = renewed[0]
		}
		c.mu.Unlock()
	}
	return resp, nil
}

// A client without cookies, such as a mobile app, gets a token when it logs in,
// sends it as "Authorization: Bearer", and stores a renewed token from the
// response header Sojourn-Token. The handlers are the same as for browsers.
func ExampleSession_Token() {
	sessions := manager(sojourn.Config{Bearer: true})
	mux := http.NewServeMux()
	mux.Handle("POST /api/login", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Login("ada", "pwd") // once the password is right
		token, err := session.Token(r.Context())
		if err != nil {
			sessions.ServeError(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	}))
	mux.Handle("GET /api/me", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		_ = json.NewEncoder(w).Encode(map[string]string{"user": session.User()})
	}))
	mux.Handle("POST /api/logout", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Logout()
	}))
	server := httptest.NewServer(mux)
	defer server.Close()

	keeps := &apiClient{base: http.DefaultTransport}
	client := &http.Client{Transport: keeps}
	call := func(method, path string) (answer map[string]string) {
		r, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			panic(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		_ = json.NewDecoder(resp.Body).Decode(&answer)
		return answer
	}
	keeps.token = call("POST", "/api/login")["token"]
	fmt.Println("signed in:", call("GET", "/api/me")["user"])
	call("POST", "/api/logout")
	fmt.Println("has a token:", keeps.token != "")
	fmt.Printf("signed in: %q\n", call("GET", "/api/me")["user"])
	// Output:
	// signed in: ada
	// has a token: false
	// signed in: ""
}
