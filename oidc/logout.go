package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/sojourn-go/sojourn"
)

// logout ends the session, and sends the browser to the provider to end that one as
// well: RP-Initiated Logout 1.0.
func (s *SignIn) logout(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	token, err := s.tokens.Lookup(session)
	session.Logout()
	to := s.cfg.Home
	if err == nil {
		// Do not wait long for the provider: the user is already signed out here.
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if p, err := s.provider(ctx); err == nil {
			to = s.endSession(p, token)
		}
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func (s *SignIn) endSession(p *provider, token Token) string {
	to, err := url.Parse(p.also.EndSession)
	if p.also.EndSession == "" || err != nil {
		return s.cfg.Home
	}
	query := to.Query()
	query.Set("client_id", s.cfg.ClientID)
	query.Set("id_token_hint", token.IDToken)
	if s.cfg.AfterLogout != "" {
		query.Set("post_logout_redirect_uri", s.cfg.AfterLogout)
	}
	to.RawQuery = query.Encode()
	return to.String()
}

// longestLogout is the maximum size of a back-channel request, in bytes.
const longestLogout = 64 << 10

// clockSkew is how far the provider's clock may be ahead.
const clockSkew = 5 * time.Minute

// backChannelLogout answers the provider: 200 if the sessions have ended, 501
// if it names a user and the store cannot list users' sessions, and 400
// otherwise, which the specification also requires for a failed logout.
// Back-Channel Logout 1.0, sections 2.6 to 2.8. A logout is idempotent, so the
// same token may come twice.
func (s *SignIn) backChannelLogout(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		refuse(w, "invalid_request", "a form is expected")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, longestLogout)
	raw := r.PostFormValue("logout_token")
	if raw == "" {
		refuse(w, "invalid_request", "there is no logout_token")
		return
	}
	p, err := s.provider(r.Context())
	if err != nil {
		refuse(w, "temporarily_unavailable", "the keys of the provider cannot be had")
		return
	}
	token, err := s.logoutToken(r.Context(), p, raw)
	if err != nil {
		refuse(w, "invalid_request", "the logout_token is not good")
		return
	}
	if token.SID != "" {
		_, err = s.cfg.Sessions.RevokeLinked(r.Context(), s.cfg.Issuer, linkable(token.SID))
	} else {
		var user string
		if user, err = s.cfg.User(r.Context(), &Identity{Issuer: s.cfg.Issuer, Subject: token.Subject}); err == nil {
			_, err = s.cfg.Sessions.RevokeUser(r.Context(), user)
		}
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		w.WriteHeader(http.StatusNotImplemented)
	case err != nil:
		refuse(w, "temporarily_unavailable", "the logout has failed; it can be repeated")
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// logoutToken is the claims of a logout token.
type logoutToken struct {
	ID      string          `json:"jti"`
	Subject string          `json:"sub"`
	SID     string          `json:"sid"`
	Nonce   json.RawMessage `json:"nonce"`
	Issued  float64         `json:"iat"` // in seconds
	Expiry  float64         `json:"exp"`
	Events  struct {
		Logout map[string]any `json:"http://schemas.openid.net/event/backchannel-logout"`
	} `json:"events"`
}

var errNoLogout = errors.New("oidc: no logout token")

// logoutToken checks a logout token: section 2.6. Providers that follow older
// drafts of the specification send no exp. Such a token is valid for a few
// minutes.
func (s *SignIn) logoutToken(ctx context.Context, p *provider, raw string) (t logoutToken, err error) {
	verified, err := p.logout.Verify(s.with(ctx), raw) // signature, issuer, audience
	if err == nil {
		err = verified.Claims(&t)
	}
	now := float64(time.Now().Unix())
	if t.Expiry == 0 {
		t.Expiry = t.Issued + clockSkew.Seconds()
	}
	switch {
	case err != nil:
		return t, err
	case t.ID == "", t.Subject == "" && t.SID == "", t.Nonce != nil, t.Events.Logout == nil,
		t.Issued == 0, t.Issued > now+clockSkew.Seconds(), t.Expiry < now:
		return t, errNoLogout
	}
	return t, nil
}

func refuse(w http.ResponseWriter, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(`{"error":"` + code + `","error_description":"` + text + `"}` + "\n"))
}

// frontChannelLogout is loaded in a frame of the provider's page, where the
// browser withholds the session's cookie. So the query must name the provider's
// session: Front-Channel Logout 1.0. Anyone who knows its sid can end that
// session, but do nothing else.
func (s *SignIn) frontChannelLogout(w http.ResponseWriter, r *http.Request) {
	iss, sid := r.FormValue("iss"), r.FormValue("sid")
	if iss != s.cfg.Issuer || sid == "" {
		http.Error(w, "The query has to name iss and sid.", http.StatusBadRequest)
		return
	}
	if _, err := s.cfg.Sessions.RevokeLinked(r.Context(), iss, linkable(sid)); err != nil {
		s.cfg.Sessions.ServeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><title>Signed out</title>"))
}
