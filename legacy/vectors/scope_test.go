package vectors_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/share"
)

// TestRealBeakerAndShareWriteOneCookie lets an application with Beaker set the
// path and the domain of a session at run time. Afterwards the browser has one
// cookie, and each application sees the other's changes.
func TestRealBeakerAndShareWriteOneCookie(t *testing.T) {
	p := find(t, "Python 3 with Beaker", "import beaker.session, pkg_resources, sys; assert sys.version_info[0] == 3")
	if p.path == "" {
		return
	}
	type answered struct {
		SetCookie string `json:"set_cookie"`
		Data      map[string]any
	}
	ask := func(t *testing.T, options map[string]any, cookie, path, domain string, values map[string]any) (a answered) {
		t.Helper()
		raw := p.run(t, "beaker_scope.py", []map[string]any{
			{"options": options, "cookie": cookie, "path": path, "domain": domain, "values": values},
		})
		if err := json.Unmarshal(raw[0], &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	where := func(setCookie string) string { // name and scope, by which a browser tells cookies apart
		name, rest, _ := strings.Cut(setCookie, "=")
		var scope []string
		for _, a := range strings.Split(rest, ";")[1:] {
			if a = strings.ToLower(strings.TrimSpace(a)); strings.HasPrefix(a, "path=") || strings.HasPrefix(a, "domain=") || strings.HasPrefix(a, "samesite=") {
				scope = append(scope, a)
			}
		}
		return name + " " + strings.Join(scope, " ")
	}
	for name, c := range map[string]struct {
		options      map[string]any
		path, domain string
		format       beaker.Config
	}{
		"path":            {map[string]any{}, "/shop", "", beaker.Config{}},
		"path and domain": {map[string]any{}, "/shop", ".example.com", beaker.Config{}},
		"neither":         {map[string]any{}, "", "", beaker.Config{}},
		"domain over the configured one": {
			map[string]any{"cookie_domain": "old.example.com", "cookie_path": "/a"}, "", ".example.com", beaker.Config{},
		},
		"SameSite is configured":   {map[string]any{"samesite": "Strict"}, "/shop", "", beaker.Config{}},
		"SameSite is switched off": {map[string]any{"samesite": nil}, "/shop", "", beaker.Config{NoSameSite: true}},
	} {
		t.Run(name, func(t *testing.T) {
			options := c.options
			options["type"], options["validate_key"], options["key"] = "cookie", "a key that signs", "s"
			c.format.Name, c.format.ValidateKey = "s", []byte("a key that signs")
			c.format.Cookie.Path, _ = options["cookie_path"].(string)
			c.format.Cookie.Domain, _ = options["cookie_domain"].(string)
			c.format.Cookie.SameSite, _ = options["samesite"].(string)
			format, err := beaker.New(c.format)
			if err != nil {
				t.Fatal(err)
			}
			shared, err := share.New(share.Config{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			first := ask(t, options, "", c.path, c.domain, map[string]any{"n": 1})
			ctx, out := context.Background(), http.Header{}
			s, err := shared.Open(ctx, legacytest.Header(first.SetCookie))
			if err != nil || s.IsNew() {
				t.Fatalf("%v, %v", s.Refused(), err)
			}
			_ = s.Set("m", 2)
			if err := s.Save(ctx, out); err != nil {
				t.Fatal(err)
			}
			ours := out.Get("Set-Cookie")
			if sorted(where(ours)) != sorted(where(first.SetCookie)) {
				t.Errorf("Beaker writes %q, Share %q", first.SetCookie, ours)
			}
			second := ask(t, options, legacytest.Header(ours).Get("Cookie"), "", "", map[string]any{"k": 3})
			if second.Data["n"] != 1.0 || second.Data["m"] != 2.0 || sorted(where(second.SetCookie)) != sorted(where(first.SetCookie)) {
				t.Errorf("Beaker reads %v and writes %q", second.Data, second.SetCookie)
			}
			// A new identifier has the same place, and the end removes the cookie there.
			s.Renew()
			renewed, gone := http.Header{}, http.Header{}
			if err := s.Save(ctx, renewed); err != nil || sorted(where(renewed.Get("Set-Cookie"))) != sorted(where(ours)) {
				t.Errorf("renewed as %q, %v", renewed, err)
			}
			if err := s.End(ctx, gone); err != nil || sorted(where(gone.Get("Set-Cookie"))) != sorted(where(ours)) {
				t.Errorf("removed by %q, %v", gone, err)
			}
			if found, err := format.Read(ctx, legacytest.Header(ours), time.Now()); err != nil || found.Path == "" {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
}

func sorted(s string) string {
	parts := strings.Fields(s)
	for i := range parts {
		for j := i + 1; j < len(parts); j++ {
			if parts[j] < parts[i] {
				parts[i], parts[j] = parts[j], parts[i]
			}
		}
	}
	return strings.Join(parts, " ")
}
