package providers

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/oidc"
	"github.com/sojourn-go/sojourn/sojourntest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// glewlwyd is a provider that is written in C, with one user and one client.
type glewlwyd struct {
	t    *testing.T
	url  string
	site string
	http *http.Client // a browser
}

// api sends JSON to the provider's own API.
func (g *glewlwyd) api(as *http.Client, method, path string, body any) string {
	g.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+"/api/"+path, bytes.NewReader(b))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := as.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		g.t.Fatalf("%s /api/%s: %d %s, %v", method, path, res.StatusCode, text, err)
	}
	return string(text)
}

func browser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

func startGlewlwyd(t *testing.T, site string) *glewlwyd {
	t.Helper()
	g := &glewlwyd{t: t, url: "http://" + servers.Glewlwyd(t).Addr, site: site, http: browser(t)}
	admin := browser(t)
	g.api(admin, "POST", "auth/", map[string]any{"username": "admin", "password": "password"})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	g.api(admin, "POST", "mod/plugin/", map[string]any{
		"module": "oidc", "name": "oidc", "display_name": "OIDC", "enabled": true,
		"parameters": map[string]any{
			"iss": g.issuer(), "jwt-type": "rsa", "jwt-key-size": "256",
			"key":                   string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
			"cert":                  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
			"access-token-duration": 3600, "refresh-token-duration": 1209600, "code-duration": 600,
			"refresh-token-rolling": true, "refresh-token-one-use": "always",
			"auth-type-code-enabled": true, "auth-type-refresh-enabled": true,
			"subject-type": "public", "jwks-show": true, "allowed-scope": []string{"openid"},
			"pkce-allowed": true, "pkce-required": true,
			"session-management-allowed": true, "session-cookie-name": "GLEWLWYD2_OIDC_SID", "session-cookie-expiration": 2419200,
			"front-channel-logout-allowed": true, "back-channel-logout-allowed": true,
		},
	})
	g.api(admin, "POST", "client/", map[string]any{
		"client_id": clientID, "name": "Shop", "confidential": true, "client_secret": secret, "enabled": true,
		"authorization_type": []string{"code", "refresh_token"}, "token_endpoint_auth_method": []string{"client_secret_basic"},
		"redirect_uri": []string{site + "/auth/callback"}, "post_logout_redirect_uri": site + "/goodbye",
		"backchannel_logout_uri": site + "/auth/backchannel-logout", "backchannel_logout_session_required": "true",
		"scope": []string{"openid"},
	})
	g.api(admin, "POST", "user/", map[string]any{
		"username": "ida", "name": "Ida", "password": password, "enabled": true, "scope": []string{"openid", "g_profile"},
	})
	return g
}

func (g *glewlwyd) issuer() string { return g.url + "/api/oidc" }

// signIn signs the user in at the provider, like its login page, and returns
// the site's final page.
func (g *glewlwyd) signIn(path string) page {
	g.t.Helper()
	v := visitor{&site{t: g.t}, g.http}
	g.api(g.http, "POST", "auth/", map[string]any{"username": "ida", "password": password})
	g.api(g.http, "PUT", "auth/grant/"+clientID, map[string]any{"scope": "openid"})
	at := v.read(g.http.Get(g.site + path)) // the provider's login page, which its script would go on from
	callback := at.at.Query().Get("callback_url")
	if callback == "" {
		return at
	}
	return v.read(g.http.Get(callback + "&g_continue"))
}

func TestAProviderThatIsNotGo(t *testing.T) {
	// The provider needs the site's address, and the site the provider's.
	var handler http.Handler
	told := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		if r.URL.Path == "/auth/backchannel-logout" {
			told <- struct{}{}
		}
	}))
	t.Cleanup(server.Close)
	g := startGlewlwyd(t, server.URL)
	sessions := sojourntest.NewManager(t, sojourn.Config{Keys: newKeys(t), Store: memory.New(), Cookie: sojourn.Cookie{Insecure: true}})
	signIn, err := oidc.New(oidc.Config{
		Sessions: sessions, Issuer: g.issuer(), ClientID: clientID, ClientSecret: secret, URL: server.URL + "/auth",
		Scopes: []string{}, AfterLogout: server.URL + "/goodbye",
		User: func(_ context.Context, id *oidc.Identity) (string, error) { return "user " + id.Subject, nil },
		LoggedIn: func(session *sojourn.Session, id *oidc.Identity) {
			var claims struct{ SID string }
			if err := id.Claims(&claims); err != nil {
				t.Error(err)
			}
			name.Set(session, claims.SID)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler = app(sessions, signIn)
	s := &site{Server: server, t: t, issuer: g.issuer(), replicas: []*replica{{sessions: sessions}}}
	v := visitor{s, g.http}

	got := g.signIn("/auth/login?next=/who")
	user := v.user()
	if user == "" || got.at.Path != "/who" {
		t.Fatalf("signing in leads to %s (%d): %s", got.at, got.status, got.text)
	}
	first := v.get("/token").text
	s.makeOld(user)
	if second := v.get("/token"); second.text == first || !strings.HasSuffix(second.text, " true true") {
		t.Errorf("the token was %s and is %d %s", first, second.status, second.text)
	}
	sid := v.get("/sid").text
	if sid == "" {
		t.Fatal("the provider has given the session no name")
	}
	// The provider ends its session, and tells the site.
	g.api(g.http, "DELETE", "oidc/session/"+sid, nil)
	select {
	case <-told:
	case <-time.After(time.Minute):
		t.Fatal("the provider has sent no logout token")
	}
	if user := v.user(); user != "" {
		t.Errorf("%q has outlived the provider's session", user)
	}
	// The site's own logout, with another session of the provider.
	g.signIn("/auth/login?next=/who")
	if v.user() == "" {
		t.Fatal("nobody is signed in again")
	}
	// The provider asks the user on a page that its script draws.
	if got := v.post("/auth/logout", nil); !strings.HasPrefix(got.at.String(), g.url) || got.status != http.StatusOK || v.user() != "" {
		t.Errorf("the logout leads to %s (%d), the user is %q", got.at, got.status, v.user())
	}
}
