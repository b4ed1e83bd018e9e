package sojourntest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/printtest"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestBrowsersClientsAndOutcomesPrintNoCredential(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Bearer: true})
	handler := m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		s.Login("ada")
		s.Set("card", "canary-value")
	})
	b := sojourntest.NewBrowser(t, handler)
	res := b.Get("/")
	if len(res.Cookies()) == 0 {
		t.Fatal("no cookie was set")
	}
	o := sojourntest.Serve(t, m, handler, b.Request(http.MethodGet, "/", nil))
	secrets := []printtest.Secret{{Name: "value", Value: []byte("canary-value")}}
	for _, c := range append(res.Cookies(), o.Cookies()...) {
		if len(c.Value) > 6 {
			secrets = append(secrets, printtest.Secret{Name: "cookie", Value: []byte(c.Value)})
		}
	}
	c := sojourntest.NewClient(t, handler)
	c.Prepare(m, func(s *sojourn.Session) { s.Login("ada") })
	token, _ := strings.CutPrefix(c.Request(http.MethodGet, "/", nil).Header.Get("Authorization"), "Bearer ")
	secrets = append(secrets, printtest.Secret{Name: "token", Value: []byte(token)})
	printtest.Silent(t, secrets, map[string]any{"a browser": b, "a client": c, "an outcome": o, "its value": *o, "its session": o.Session})
}
