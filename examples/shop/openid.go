package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/oidc"
)

var errNoEmail = errors.New("the provider names no verified e-mail address")

// provider is who signs customers in with OpenID Connect.
type provider struct {
	issuer, clientID, secret string
	example                  bool // started by startProvider: the login page names its user
}

// openSignIn mounts package oidc, if there is a provider.
func (s *shop) openSignIn(p provider, shopURL string) (err error) {
	issuer, err := url.Parse(p.issuer)
	switch {
	case err != nil || p.issuer == "":
		return err
	case issuer.Host == "":
		return errors.New("the issuer has to be a URL, such as https://login.example")
	}
	s.providerOrigin, s.example = issuer.Scheme+"://"+issuer.Host, p.example
	s.signIn, err = oidc.New(oidc.Config{
		Sessions: s.sessions,
		Issuer:   p.issuer, ClientID: p.clientID, ClientSecret: p.secret,
		URL:          shopURL + "/auth",
		AfterLogout:  shopURL + "/",
		MaxAge:       s.recent, // a login counts as an authentication: see recently
		User:         s.userOfProvider,
		LoggedIn:     s.enterFromProvider,
		ErrorHandler: s.signInFailed,
	})
	return err
}

// userOfProvider returns the id of a provider's user, who becomes a customer at the
// first login. An address that another customer has is refused: it does not prove
// that both are the same person. The caller may have a logout token, which has no
// claims; then a user whom the shop does not know is an error, and nobody is added.
func (s *shop) userOfProvider(ctx context.Context, id *oidc.Identity) (string, error) {
	customer, err := s.ledger.customerOf(ctx, id.Issuer, id.Subject)
	if !errors.Is(err, errNoCustomer) {
		return customer, err
	}
	var claims struct {
		Name, Email string
		Verified    bool `json:"email_verified"`
	}
	if err := id.Claims(&claims); err != nil {
		return "", err
	}
	email, ok := tidyEmail(claims.Email)
	if !ok || !claims.Verified { // anyone may claim an operator's address
		return "", errNoEmail
	}
	return s.ledger.addCustomerOf(ctx, id.Issuer, id.Subject, cmp.Or(claims.Name, email), email)
}

// enterFromProvider is enter for a login with the provider. Name and address come
// from the ledger: at the provider, users may change theirs to an operator's.
func (s *shop) enterFromProvider(session *sojourn.Session, _ *oidc.Identity) {
	c, _, err := s.ledger.customer(context.Background(), session.User())
	if err != nil {
		s.logger.Error("reading a customer who signs in", "error", err)
	}
	session.Remember(false) // the provider knows the browser
	customerKey.Set(session, c)
	session.Flash(greeting, c.Name)
}

// signOutThere is logout for such customers. The provider is where it ends, so what
// follows the logout is set when the redirect to it starts.
func (s *shop) signOutThere(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	operator, err := s.support.Get(r.Context())
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	operator.Logout()
	restore := looks(session)
	s.signIn.ServeHTTP(&startWriter{w, func() {
		restore()
		session.Flash("info", s.pages.language(r, session).T("logout.done"))
	}}, r)
}

// startWriter calls a function before the response starts.
type startWriter struct {
	http.ResponseWriter
	starting func()
}

func (w *startWriter) WriteHeader(status int) {
	w.starting()
	w.ResponseWriter.WriteHeader(status)
}

// signedInThere reports whether the session began at the provider.
func (s *shop) signedInThere(session *sojourn.Session) bool {
	return s.signIn != nil && slices.Contains(session.Info().Methods, "oidc")
}

// signInFailed answers when somebody could not be signed in or out.
func (s *shop) signInFailed(w http.ResponseWriter, r *http.Request, err error) {
	session, noSession := s.sessions.Get(r.Context())
	if e := (*oidc.Error)(nil); !errors.As(err, &e) || noSession != nil {
		s.sessions.ServeError(w, r, err)
		return
	}
	status := oidc.Status(err)
	text := "openid.refused"
	switch {
	case errors.Is(err, errEmailTaken):
		text = "openid.taken"
	case errors.Is(err, errNoEmail):
		text = "openid.noemail"
	case status == http.StatusBadRequest:
		text = "openid.stale"
	case status == http.StatusBadGateway:
		text = "openid.away"
	}
	s.logger.Warn("not signed in", "status", status, "error", err)
	s.show(w, r, session, status, "message", message{"error.title", text, session.User() == ""})
}
