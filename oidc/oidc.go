// Package oidc signs users in with an OpenID Connect provider. It keeps the
// flow's state in a ticket of the session, the tokens in a value that never
// leaves the server, and a link by which the provider can end the session.
//
//	signIn, err := oidc.New(oidc.Config{
//		Sessions: sessions, // of type *sojourn.Manager
//		Issuer:   "https://login.example",
//		ClientID: "shop", ClientSecret: os.Getenv("CLIENT_SECRET"),
//		URL: "https://shop.example/auth",
//	})
//	…
//	mux.Handle("/auth/", signIn)
//
// The handler serves, below the path of URL:
//
//	GET  /login?next=/orders      sends the browser to the provider
//	GET  /callback                takes its answer, and logs the user in
//	POST /logout                  ends the session here and at the provider
//	POST /backchannel-logout      the provider ends a session, or all of a user
//	GET  /frontchannel-logout     the provider ends a session, from a frame in the browser
//
// Register the callback with the provider as the redirect URI, and the two
// logout URLs if the provider supports them. The handler works inside and
// outside of [sojourn.Manager.Wrap].
//
// Sources: OpenID Connect Core 1.0, RP-Initiated Logout 1.0, Back-Channel Logout 1.0,
// Front-Channel Logout 1.0; RFC 6749, RFC 7009, RFC 7636, RFC 9207.
package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sojourn-go/sojourn"
)

// Config describes the provider and the application.
type Config struct {
	// Sessions is the manager of the users' sessions. It needs a store; for
	// logouts by the provider, one that can list a user's sessions.
	Sessions *sojourn.Manager
	// Issuer is the provider's URL, as in its discovery document.
	Issuer string
	// ClientID and ClientSecret are the application's credentials with the
	// provider. A public client has no secret. PKCE is always used.
	ClientID, ClientSecret string
	// URL is the public URL where the handler is mounted: absolute and without
	// a query, such as "https://shop.example/auth".
	URL string
	// Scopes are requested in addition to "openid". nil = "profile" and
	// "email". Add "offline_access" if the provider requires it for refresh
	// tokens.
	Scopes []string
	// MaxAge is how long ago the provider may have authenticated the user: the
	// parameter max_age and the claim auth_time of OpenID Connect Core 1.0, in
	// seconds, rounded up. 0 = without a limit: a provider that still knows the
	// browser confirms a login without asking for a password. Set it to the time
	// that you give to [sojourn.Manager.RequireRecent], which counts a login as an
	// authentication.
	MaxAge time.Duration
	// Home is the page after a logout, and after a login without "next": a path
	// of the application. "" = "/". AfterLogout is the absolute URL to which
	// the provider sends the browser after a logout; register it with the
	// provider. "" = the provider shows its own page.
	Home, AfterLogout string

	// User returns the application's name of a user, for [sojourn.Session.Login].
	// An error refuses the login. nil = the issuer and the subject, with a space
	// between them: subjects are unique to their issuer only.
	//
	// For a logout token that names no session, User is called with an Identity
	// that has only Issuer and Subject. So the result must depend on these
	// alone.
	User func(ctx context.Context, id *Identity) (string, error)
	// Check, if set, is the check of [sojourn.Session.LoginIf]. It returns an
	// error if the user may no longer log in, such as after the account was
	// closed.
	Check func(ctx context.Context, user string) error
	// LoggedIn, if set, is called after the login, to set values in the user's
	// session.
	LoggedIn func(session *sojourn.Session, id *Identity)
	// ErrorHandler answers requests that failed; [Status] returns the status
	// code for an error. nil = a line in the log, and a short page with a link to
	// try again.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)
	// Logger is for requests that failed and that no ErrorHandler answers. nil =
	// slog.Default(). It gets no credentials.
	Logger *slog.Logger
	// Client sends requests to the provider. nil = one with a timeout of 10 seconds.
	Client *http.Client
}

// Identity is a user as the provider describes them.
type Identity struct {
	Issuer  string
	Subject string // the claim sub
	token   *oidc.IDToken
}

// Claims decodes the claims of the ID token into a struct with json tags.
func (id *Identity) Claims(into any) error {
	if id.token == nil {
		return errors.New("oidc: a logout token has no claims of an identity")
	}
	return id.token.Claims(into)
}

// SignIn is the handler for one provider. Make one with [New].
type SignIn struct {
	cfg     *Config
	mux     *http.ServeMux
	tickets sojourn.Ticket[started]
	tokens  sojourn.Key[Token]

	mu     sync.Mutex
	known  *provider
	asking *asking // nil = no request is under way
}

// asking is a shared request for the discovery document.
type asking struct {
	done  chan struct{}
	found *provider
	err   error
}

// started is a login under way.
type started struct {
	Verifier string `cbor:"v"` // of PKCE, RFC 7636
	Next     string `cbor:"p"`
}

// flowTime is how long a user may take to sign in with the provider.
const flowTime = 30 * time.Minute

// New checks the configuration. It does not contact the provider: the first
// login does, and later ones until the provider has answered. So a service
// starts while its provider is unreachable.
func New(cfg Config) (*SignIn, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case cfg.Sessions == nil:
		return nil, errors.New("oidc: Config.Sessions is not set")
	case cfg.Issuer == "" || cfg.ClientID == "":
		return nil, errors.New("oidc: Config.Issuer and Config.ClientID have to be set")
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.RawQuery != "" || base.Fragment != "":
		return nil, errors.New(`oidc: Config.URL has to be an absolute URL without a query, such as "https://shop.example/auth"`)
	}
	if cfg.MaxAge < 0 {
		return nil, errors.New("oidc: Config.MaxAge must not be negative")
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if cfg.Scopes == nil {
		cfg.Scopes = []string{"profile", "email"}
	}
	if cfg.Home == "" {
		cfg.Home = "/"
	}
	if localPath(cfg.Home) == "" {
		return nil, errors.New(`oidc: Config.Home has to be a path, such as "/"`)
	}
	if cfg.User == nil {
		cfg.User = func(_ context.Context, id *Identity) (string, error) { return id.Issuer + " " + id.Subject, nil }
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 10 * time.Second}
	}
	// A session may have tokens of several providers with the same client ID.
	// Each provider only gets its own.
	of := sha256.Sum256([]byte(cfg.Issuer + "\x00" + cfg.ClientID))
	name := "oidc " + hex.EncodeToString(of[:8])
	s := &SignIn{
		cfg: &cfg, mux: http.NewServeMux(),
		tickets: sojourn.NewTicket[started](name, flowTime),
		tokens:  sojourn.NewKey[Token](name, sojourn.ServerSide),
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.Default()
	}
	if s.cfg.ErrorHandler == nil {
		s.cfg.ErrorHandler = s.showError
	}
	path := strings.TrimSuffix(base.Path, "/")
	with := func(h func(http.ResponseWriter, *http.Request, *sojourn.Session) error) http.Handler {
		return cfg.Sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			if err := h(w, r, session); err != nil {
				s.cfg.ErrorHandler(w, r, err)
			}
		})
	}
	s.mux.Handle("GET "+path+"/login", with(s.login))
	s.mux.Handle("GET "+path+"/callback", with(s.callback))
	// Another site must not sign users out.
	s.mux.Handle("POST "+path+"/logout", http.NewCrossOriginProtection().Handler(with(s.logout)))
	// Within Wrap the request determines the tenant.
	s.mux.Handle("POST "+path+"/backchannel-logout", cfg.Sessions.Wrap(http.HandlerFunc(s.backChannelLogout)))
	s.mux.Handle("GET "+path+"/frontchannel-logout", cfg.Sessions.Wrap(http.HandlerFunc(s.frontChannelLogout)))
	return s, nil
}

// ServeHTTP answers requests for the pages that the package names.
func (s *SignIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, r)
}

// provider is the data of the discovery document.
type provider struct {
	*oidc.Provider
	verifier *oidc.IDTokenVerifier
	logout   *oidc.IDTokenVerifier // of logout tokens, whose times are checked separately
	oauth    oauth2.Config
	also     struct {
		EndSession string   `json:"end_session_endpoint"`
		Revocation string   `json:"revocation_endpoint"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
		SendsIss   bool     `json:"authorization_response_iss_parameter_supported"`
	}
}

// provider returns the data of the discovery document. Until it is known, one
// request at a time fetches it.
func (s *SignIn) provider(ctx context.Context) (*provider, error) {
	s.mu.Lock()
	known, a := s.known, s.asking
	if known == nil && a == nil {
		a = &asking{done: make(chan struct{})}
		s.asking = a
		go s.ask(context.WithoutCancel(ctx), a)
	}
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	select {
	case <-a.done:
		return a.found, a.err
	case <-ctx.Done():
		return nil, failed(http.StatusBadGateway, "the provider does not answer", ctx.Err())
	}
}

// longestAsking bounds the wait for the discovery document if the client has no
// timeout.
const longestAsking = 30 * time.Second

func (s *SignIn) ask(ctx context.Context, a *asking) {
	ctx, cancel := context.WithTimeout(ctx, longestAsking)
	defer cancel()
	defer func() {
		// No server recovers this goroutine, and Config.Client may panic.
		if p := recover(); p != nil {
			a.err = failed(http.StatusBadGateway, "Config.Client panicked", nil)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if a.err == nil {
			s.known = a.found
		}
		s.asking = nil
		close(a.done)
	}()
	a.found, a.err = s.discover(ctx)
}

func (s *SignIn) discover(ctx context.Context) (*provider, error) {
	found, err := oidc.NewProvider(s.with(ctx), s.cfg.Issuer)
	if err != nil {
		return nil, failed(http.StatusBadGateway, "the provider's discovery document cannot be had", err)
	}
	p := &provider{Provider: found}
	if err := found.Claims(&p.also); err != nil {
		return nil, failed(http.StatusBadGateway, "the provider's discovery document cannot be read", err)
	}
	check := oidc.Config{ClientID: s.cfg.ClientID, SupportedSigningAlgs: asymmetric(p.also.Algorithms)}
	p.verifier = found.VerifierContext(s.with(context.Background()), &check)
	later := check
	later.SkipExpiryCheck = true
	p.logout = found.VerifierContext(s.with(context.Background()), &later)
	p.oauth = oauth2.Config{
		ClientID: s.cfg.ClientID, ClientSecret: s.cfg.ClientSecret, Endpoint: found.Endpoint(),
		RedirectURL: s.cfg.URL + "/callback", Scopes: append([]string{oidc.ScopeOpenID}, s.cfg.Scopes...),
	}
	return p, nil
}

// asymmetric removes "none" and algorithms with which the application itself
// could sign. The default is RS256, which every provider supports.
func asymmetric(algorithms []string) (out []string) {
	for _, a := range algorithms {
		if a != "none" && !strings.HasPrefix(a, "HS") {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = []string{oidc.RS256}
	}
	return out
}

// with is ctx with the HTTP client, for both libraries.
func (s *SignIn) with(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, s.cfg.Client)
}

// localPath returns path if it is on this site, and "" otherwise: a link to the
// login must not redirect to another site.
func localPath(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || len(path) > 2000 {
		return ""
	}
	for _, c := range path {
		if c < ' ' || c == '\\' || c == 0x7f {
			return ""
		}
	}
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return ""
	}
	return path
}

// Error is an error of signing in or out. Its text contains no credentials.
type Error struct {
	// Status is the HTTP status: 400 for a bad request, 403 if the provider or
	// the application refuses, 502 if the provider does not answer.
	Status int
	// Code is the provider's error code, such as "access_denied" or
	// "invalid_grant"; "" = none.
	Code string
	text string
	err  error
}

func failed(status int, text string, err error) *Error {
	e := &Error{Status: status, text: text}
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		// Do not keep its text: it has the provider's whole answer.
		e.Code = code(refused.ErrorCode)
		return e
	}
	e.err = err
	return e
}

// code returns a provider's error code if it is well-formed by RFC 6749,
// section 5.2, because pages and logs show it.
func code(s string) string {
	for _, c := range s {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return ""
		}
	}
	if len(s) > 64 {
		return ""
	}
	return s
}

func (e Error) Error() string {
	text := "oidc: " + e.text
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	return text
}

// Unwrap returns the cause, if there is one.
func (e Error) Unwrap() error { return e.err }

// Status returns the HTTP status for an error of this package or of sojourn:
// 401 for [ErrSignInAgain].
func Status(err error) int {
	var e *Error
	switch {
	case errors.Is(err, ErrSignInAgain):
		return http.StatusUnauthorized
	case errors.As(err, &e):
		return e.Status
	}
	status, _ := sojourn.ErrorStatus(err)
	return status
}

func (s *SignIn) showError(w http.ResponseWriter, r *http.Request, err error) {
	if e := (*Error)(nil); !errors.As(err, &e) {
		s.cfg.Sessions.ServeError(w, r, err)
		return
	}
	status, text := Status(err), "The sign-in was interrupted, is too old, or was refused."
	if status == http.StatusBadGateway {
		text = "The service that signs you in cannot be reached, or does not work right now."
	}
	s.cfg.Logger.WarnContext(r.Context(), "sign-in failed", slog.Int("status", status), slog.Any("error", err))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	fmt.Fprintf(w, errorPage, text, html.EscapeString(s.cfg.URL))
}

const errorPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>You are not signed in</title>
<h1>You are not signed in</h1>
<p>%s</p>
<p><a href="%s/login">Try again</a></p>
</html>
`
