package sojourntest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/sojourntest"
)

// api is a service whose clients have tokens: each request counts up.
func api(m *sojourn.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /login", m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Login("ada")
		token, err := s.Token(r.Context())
		if err != nil {
			m.ServeError(w, r, err)
			return
		}
		_, _ = io.WriteString(w, token)
	}))
	mux.Handle("POST /cart", m.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		var items []string
		if r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&items) != nil {
			http.Error(w, "no JSON", http.StatusUnsupportedMediaType)
			return
		}
		cart.Update(s, func(have []string) []string { return append(have, items...) })
	}))
	mux.Handle("POST /logout", m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Logout() }))
	return mux
}

// A client of an API: it logs in for a token, and sends it from then on.
func ExampleClient() {
	sessions := sojourntest.NewManager(t, sojourn.Config{Bearer: true})
	client := sojourntest.NewClient(t, api(sessions))

	token, _ := io.ReadAll(client.Post("/login", nil).Body)
	client.UseToken(string(token))
	client.Post("/cart", sojourntest.JSON([]string{"mug"}))
	session := client.Session(sessions)
	fmt.Println(session.User(), cart.Get(session))
	// Output: ada [mug]
}

func TestAClientNeedsNoLogin(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Bearer: true})
	client := sojourntest.NewClient(t, api(m))
	client.Prepare(m, func(s *sojourn.Session) {
		s.Login("ada")
		cart.Set(s, []string{"mug"})
	})
	o := sojourntest.Serve(t, m, api(m), client.Request("POST", "/cart", sojourntest.JSON([]string{"lamp"})))
	o.WantUser("ada")
	o.WantSaved(true)
	sojourntest.WantValue(o, cart, []string{"mug", "lamp"})
}

func TestAClientTakesARenewedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sojourntest.NewManager(t, sojourn.Config{Bearer: true, Rotation: sojourn.Rotation{Every: time.Hour}})
		client := sojourntest.NewClient(t, api(m))
		client.Prepare(m, func(s *sojourn.Session) { s.Login("ada") })
		first := client.Request("GET", "/", nil).Header.Get("Authorization")
		time.Sleep(2 * time.Hour)
		r := client.Request("POST", "/cart", sojourntest.JSON([]string{"mug"}))
		res := client.Do(r)
		if next := client.Request("GET", "/", nil).Header.Get("Authorization"); next == first || next == "" || res.Header.Get("Sojourn-Token") == "" {
			t.Errorf("the token was not renewed (status %d)", res.StatusCode)
		}
		if s := client.Session(m); s.User() != "ada" || len(cart.Get(s)) != 1 {
			t.Errorf("with the new token: %q, %v", s.User(), cart.Get(s))
		}
		if s := sojourntest.Session(t, m, r, res); s.User() != "ada" {
			t.Errorf("the session after that request is %q's", s.User())
		}
	})
}

func TestAClientHasNoTokenAfterALogout(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Bearer: true})
	for name, logOut := range map[string]func(*sojourntest.Client){
		"of the API": func(c *sojourntest.Client) { c.Post("/logout", nil) },
		"prepared":   func(c *sojourntest.Client) { c.Prepare(m, (*sojourn.Session).Logout) },
	} {
		client := sojourntest.NewClient(t, api(m))
		client.Prepare(m, func(s *sojourn.Session) { s.Login("ada") })
		logOut(client)
		if got := client.Request("GET", "/", nil).Header.Get("Authorization"); got != "" || client.Session(m).User() != "" {
			t.Errorf("%s: the client still has a token", name)
		}
	}
}

func TestBodiesSayWhatTheyAre(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Bearer: true})
	handler := m.Handler(func(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) {
		_, _ = fmt.Fprintf(w, "%s, %d bytes, item %q", r.Header.Get("Content-Type"), r.ContentLength, r.PostFormValue("item"))
	})
	form := url.Values{"item": {"mug"}}
	browser, client := sojourntest.NewBrowser(t, handler), sojourntest.NewClient(t, handler)
	const asForm, asJSON = `application/x-www-form-urlencoded, 8 bytes, item "mug"`, `application/json, 3 bytes, item ""`
	for name, c := range map[string]struct {
		r    *http.Request
		want string
	}{
		"LoggedIn, a form":   {sojourntest.LoggedIn(t, m, "ada", "POST", "/", sojourntest.Form(form)), asForm},
		"Request, a form":    {sojourntest.Request(t, m, "POST", "/", sojourntest.Form(form), nil), asForm},
		"Request, JSON":      {sojourntest.Request(t, m, "PUT", "/", sojourntest.JSON([]int{1}), nil), asJSON},
		"a browser's form":   {browser.Request("POST", "/", sojourntest.Form(form)), asForm},
		"a client's JSON":    {client.Request("POST", "/", sojourntest.JSON([]int{1})), asJSON},
		"no body, no type":   {browser.Request("POST", "/", nil), `, 0 bytes, item ""`},
		"JSON that is empty": {client.Request("POST", "/", sojourntest.JSON(nil)), `application/json, 4 bytes, item ""`},
	} {
		o := sojourntest.Serve(t, m, handler, c.r)
		if got, _ := io.ReadAll(o.Body); string(got) != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got, _ := io.ReadAll(browser.Post("/", sojourntest.JSON([]int{1})).Body); string(got) != asJSON {
		t.Errorf("a browser that posts JSON: %s", got)
	}
}
