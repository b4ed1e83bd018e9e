package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sojourn-go/sojourn"
)

// login sends the browser to the provider. The ticket's text is the state and
// the nonce: it cannot be guessed, and is valid once, in this session.
func (s *SignIn) login(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	p, err := s.provider(r.Context())
	if err != nil {
		return err
	}
	flow := started{Verifier: oauth2.GenerateVerifier(), Next: localPath(r.FormValue("next"))}
	state := s.tickets.Issue(session, flow)
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(flow.Verifier), oidc.Nonce(state)}
	if s.cfg.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.FormatFloat(math.Ceil(s.cfg.MaxAge.Seconds()), 'f', 0, 64)))
	}
	http.Redirect(w, r, p.oauth.AuthCodeURL(state, options...), http.StatusSeeOther)
	return nil
}

// callback handles the provider's answer.
func (s *SignIn) callback(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	query := r.URL.Query()
	state := query.Get("state")
	flow, err := s.tickets.Redeem(r.Context(), session, state)
	switch {
	case errors.Is(err, sojourn.ErrTaken): // a second click, or the same page reloaded
		http.Redirect(w, r, s.cfg.Home, http.StatusSeeOther)
		return nil
	case errors.Is(err, sojourn.ErrNoValue):
		return failed(http.StatusBadRequest, "the login was not begun in this browser, or more than 30 minutes ago", nil)
	case err != nil:
		return err
	}
	p, err := s.provider(r.Context())
	if err != nil {
		return err
	}
	// RFC 9207: refuse another provider's answer.
	if iss := query.Get("iss"); iss != s.cfg.Issuer && (iss != "" || p.also.SendsIss) {
		return failed(http.StatusBadRequest, "the answer is another provider's", nil)
	}
	if query.Has("error") {
		e := failed(http.StatusForbidden, "the provider has refused the login", nil)
		e.Code = code(query.Get("error"))
		return e
	}
	answer, err := p.oauth.Exchange(s.with(r.Context()), query.Get("code"), oauth2.VerifierOption(flow.Verifier))
	if err != nil {
		return refusedOr(err, "the provider does not give tokens for its answer")
	}
	token := tokenOf(answer)
	id, sid, err := s.verify(r.Context(), p, &token, state)
	if err != nil {
		return err
	}
	if err := s.logIn(r.Context(), session, id, sid); err != nil {
		return err
	}
	s.tokens.Set(session, token)
	if s.cfg.LoggedIn != nil {
		s.cfg.LoggedIn(session, id)
	}
	next := flow.Next
	if next == "" {
		next = s.cfg.Home
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// maxAgeSkew is how far the provider's clock may be behind, and how long its answer
// may take.
const maxAgeSkew = time.Minute

// recent reports whether a time in Unix seconds is at most maxAge ago, and not in
// the future.
func recent(at float64, maxAge time.Duration) bool {
	ago := float64(time.Now().Unix()) - at
	return ago <= maxAge.Seconds()+maxAgeSkew.Seconds() && ago >= -clockSkew.Seconds()
}

// refusedOr distinguishes a refusal, which has a code, from an unreachable provider.
func refusedOr(err error, text string) *Error {
	e := failed(http.StatusBadGateway, text, err)
	if e.Code != "" {
		e.Status = http.StatusForbidden
	}
	return e
}

// verify checks the ID token and returns its user and the provider's session:
// OpenID Connect Core 1.0, section 3.1.3.7.
func (s *SignIn) verify(ctx context.Context, p *provider, token *Token, nonce string) (id *Identity, sid string, err error) {
	if token.IDToken == "" {
		return nil, "", failed(http.StatusBadGateway, "the provider has sent no ID token", nil)
	}
	verified, err := p.verifier.Verify(s.with(ctx), token.IDToken)
	if err != nil {
		return nil, "", failed(http.StatusBadGateway, "the ID token is not good", err)
	}
	var claims struct {
		SID      string  `json:"sid"`
		AZP      string  `json:"azp"`
		AuthTime float64 `json:"auth_time"` // JSON numbers may have fractions; 0 = not said
	}
	if err := verified.Claims(&claims); err != nil {
		return nil, "", failed(http.StatusBadGateway, "the ID token cannot be read", err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(nonce)) != 1:
		return nil, "", failed(http.StatusBadRequest, "the ID token is of another login", nil)
	case claims.AZP != s.cfg.ClientID && (claims.AZP != "" || len(verified.Audience) > 1):
		return nil, "", failed(http.StatusBadGateway, "the ID token is for another client", nil)
	case s.cfg.MaxAge > 0 && !recent(claims.AuthTime, s.cfg.MaxAge):
		return nil, "", failed(http.StatusForbidden, "the provider has not authenticated the user recently", nil)
	case verified.AccessTokenHash != "" && verified.VerifyAccessToken(token.AccessToken) != nil:
		return nil, "", failed(http.StatusBadGateway, "the access token does not belong to the ID token", nil)
	}
	return &Identity{s.cfg.Issuer, verified.Subject, verified}, claims.SID, nil
}

// linkable is a sid in the form that Link takes: OpenID Connect does not limit its length.
func linkable(sid string) string {
	if len(sid) <= 255 {
		return sid
	}
	sum := sha256.Sum256([]byte(sid))
	return hex.EncodeToString(sum[:])
}

func (s *SignIn) logIn(ctx context.Context, session *sojourn.Session, id *Identity, sid string) error {
	user, err := s.cfg.User(ctx, id)
	if err != nil {
		return failed(http.StatusForbidden, "the application has refused the login", err)
	}
	if sid != "" {
		session.Link(id.Issuer, linkable(sid))
	}
	err = session.LoginIf(ctx, user, func(ctx context.Context) error {
		if s.cfg.Check == nil {
			return nil
		}
		if err := s.cfg.Check(ctx, user); err != nil {
			return failed(http.StatusForbidden, "the application has refused the login", err)
		}
		return nil
	}, "oidc")
	if errors.Is(err, sojourn.ErrEnded) {
		return failed(http.StatusForbidden, "the provider has ended this login already", err)
	}
	return err
}
