package providers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	libop "github.com/zitadel/oidc/v3/pkg/op"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	liboidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/oidc"
	"github.com/sojourn-go/sojourn/sojourntest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

const (
	clientID = "shop"
	secret   = "a-secret-of-the-shop"
	person   = "test-user2"
	subject  = "id2"
	password = "verysecure"
)

// provider is the example server of zitadel/oidc, with its own login page.
type provider struct {
	*httptest.Server
	storage     *withSID
	clients     map[string]*storage.Client
	refreshes   atomic.Int64
	revoked     atomic.Int64
	away        atomic.Bool
	hang        chan struct{} // nil = it answers
	discoveries atomic.Int64
}

// withSID adds the session's name to ID tokens, which the example leaves out.
type withSID struct{ *storage.Storage }

func (s *withSID) SetUserinfoFromRequest(ctx context.Context, info *liboidc.UserInfo, r libop.IDTokenRequest, scopes []string) error {
	if login, ok := r.(libop.AuthRequest); ok {
		info.AppendClaims("sid", login.GetID())
	}
	return s.Storage.SetUserinfoFromRequest(ctx, info, r, scopes)
}

// withAfter is a client that has registered where browsers go after a logout.
type withAfter struct {
	libop.Client
	after string
}

func (c withAfter) PostLogoutRedirectURIs() []string { return []string{c.after} }

func (s *withSID) GetClientByClientID(ctx context.Context, id string) (libop.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return withAfter{c, strings.TrimSuffix(c.RedirectURIs()[0], "/auth/callback") + "/goodbye"}, nil
}

func startProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{clients: map[string]*storage.Client{}}
	var handler http.Handler
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/.well-known/") {
			if p.discoveries.Add(1); p.hang != nil {
				<-p.hang
			}
		}
		if p.away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			if strings.Contains(string(body), "grant_type=refresh_token") {
				p.refreshes.Add(1)
			}
			if strings.HasSuffix(r.URL.Path, "/revoke") {
				p.revoked.Add(1)
			}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	p.storage = &withSID{storage.NewStorageWithClients(storage.NewUserStore(p.URL), p.clients)}
	handler = exampleop.SetupServer(p.URL, p.storage, nil, false)
	return p
}

// site is an application on several replicas behind one address.
type site struct {
	*httptest.Server
	t        *testing.T
	provider *provider
	replicas []*replica
	issuer   string
	store    store.Store
	next     atomic.Int64
}

type replica struct {
	sessions *sojourn.Manager
	signIn   *oidc.SignIn
	handler  http.Handler
}

var name = sojourn.NewKey[string]("name")

func startSite(t *testing.T, p *provider, replicas int, edit ...func(*oidc.Config)) *site {
	t.Helper()
	s := &site{t: t, provider: p, issuer: p.URL, store: memory.New()}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.replicas[int(s.next.Add(1))%len(s.replicas)].handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	ring := newKeys(t)
	for range replicas {
		sessions := sojourntest.NewManager(t, sojourn.Config{Keys: ring, Store: s.store, Cookie: sojourn.Cookie{Insecure: true}})
		cfg := oidc.Config{
			Sessions: sessions, Issuer: p.URL, ClientID: clientID, ClientSecret: secret,
			URL: s.URL + "/auth", Scopes: []string{"profile", "offline_access"},
			AfterLogout: s.URL + "/goodbye",
			User:        func(_ context.Context, id *oidc.Identity) (string, error) { return "user " + id.Subject, nil },
			LoggedIn: func(session *sojourn.Session, id *oidc.Identity) {
				var claims struct{ SID string }
				if err := id.Claims(&claims); err != nil {
					t.Error(err)
				}
				name.Set(session, claims.SID)
			},
		}
		for _, f := range edit {
			f(&cfg)
		}
		signIn, err := oidc.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.replicas = append(s.replicas, &replica{sessions, signIn, app(sessions, signIn)})
	}
	p.clients[clientID] = storage.WebClient(clientID, secret, s.URL+"/auth/callback")
	return s
}

func app(sessions *sojourn.Manager, signIn *oidc.SignIn) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", signIn)
	mux.Handle("/", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		fmt.Fprintf(w, "%s for %q", r.URL.RequestURI(), session.User())
	}))
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><form method="post" action="/auth/logout"><button>Sign out</button></form>`)
	})
	mux.Handle("/sid", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		_, _ = io.WriteString(w, name.Get(session))
	}))
	mux.Handle("/token", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		token, err := signIn.Token(r.Context(), session)
		switch {
		case errors.Is(err, oidc.ErrSignInAgain):
			http.Error(w, "sign in again", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			fmt.Fprintf(w, "%s %t %t", token.AccessToken, token.IDToken != "", token.RefreshToken != "")
		}
	}))
	return mux
}

// visitor is a browser that fills in the provider's form.
type visitor struct {
	*site
	http *http.Client
}

func (s *site) visitor() visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return visitor{s, &http.Client{Jar: jar}}
}

// page is the page at the end of redirects.
type page struct {
	status int
	at     *url.URL
	text   string
}

func (v visitor) read(res *http.Response, err error) page {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return page{res.StatusCode, res.Request.URL, string(b)}
}

func (v visitor) get(path string) page {
	v.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = v.URL + path
	}
	return v.read(v.http.Get(path))
}

func (v visitor) post(path string, form url.Values) page {
	v.t.Helper()
	return v.read(v.http.PostForm(v.URL+path, form))
}

// signIn goes to the login, and through the provider's form.
func (v visitor) signIn(next string) page {
	v.t.Helper()
	return v.fillIn(v.get("/auth/login?next=" + url.QueryEscape(next)))
}

func (v visitor) fillIn(form page) page {
	v.t.Helper()
	_, rest, ok := strings.Cut(form.text, `name="id" value="`)
	id, _, _ := strings.Cut(rest, `"`)
	if !ok {
		v.t.Fatalf("no form of the provider's at %s (%d): %s", form.at, form.status, form.text)
	}
	return v.read(v.http.PostForm(v.provider.URL+"/login/username", url.Values{"id": {id}, "username": {person}, "password": {password}}))
}

func (v visitor) user() string {
	v.t.Helper()
	_, user, _ := strings.Cut(v.get("/who").text, " for ")
	return strings.Trim(user, `"`)
}
