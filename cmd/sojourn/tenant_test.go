package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestTheUsersOfTenantsAreApart(t *testing.T) {
	t.Parallel()
	urls, c := engines(t)
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenant := ""
			s := newServiceOn(t, url, sojourn.Config{Tenant: func(*sojourn.RequestInfo) string { return tenant }})
			handles, cookies := map[string]string{}, map[string]string{}
			for _, tenant = range []string{"acme", "globex"} {
				handles[tenant], cookies[tenant] = s.visit(t, login("ada"))
			}
			for tenant, handle := range handles {
				var list []struct{ Handle string }
				r := c.run(t, s.of("list", "ada", "--json", "--tenant", tenant)...).ok(t)
				if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 || list[0].Handle != handle {
					t.Errorf("%s: listed are %+v, %v", tenant, list, err)
				}
			}
			for _, wrong := range [][]string{nil, {"--tenant", "initech"}} {
				if r := c.run(t, s.of("revoke", "ada", wrong...)...); r.status != 1 || !strings.Contains(r.stderr, "enant") {
					t.Errorf("revoke with %q: status %d, %s", wrong, r.status, r.stderr)
				}
			}
			if r := c.run(t, "end", handles["globex"], "--store", s.store, "--keys", s.keys, "--tenant", "acme"); r.status != 1 {
				t.Errorf("end in another tenant: status %d, %s", r.status, r.stderr)
			}
			if r := c.run(t, "inspect", handles["globex"], "--store", s.store, "--keys", s.keys, "--tenant", "globex").ok(t); !strings.Contains(r.stdout, "ada") {
				t.Errorf("inspect: %s", r.stdout)
			}
			c.run(t, s.of("revoke", "ada", "--tenant", "acme")...).ok(t)
			tenant = "acme"
			s.comesBack(t, cookies["acme"], "")
			tenant = "globex"
			s.comesBack(t, cookies["globex"], "ada")
			c.run(t, "end", handles["globex"], "--store", s.store, "--keys", s.keys, "--tenant", "globex").ok(t)
			s.comesBack(t, cookies["globex"], "")
		})
	}
}

func TestInspectOpensAToken(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Bearer: true})
	session, _, err := sitetest.Begin(t.Context(), s.sessions, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	session.Login("ada")
	token, err := session.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, input := range []string{token, token + "\n", "Bearer " + token, "Authorization: Bearer " + token + "\r\n"} {
		r := call{stdin: input}.run(t, "inspect", "--store", s.store, "--keys", s.keys).ok(t)
		if !strings.Contains(r.stdout, session.Handle()) || !strings.Contains(r.stdout, "ada") || strings.Contains(r.stdout+r.stderr, token[4:]) {
			t.Errorf("%s%s", r.stdout, r.stderr)
		}
	}
}
