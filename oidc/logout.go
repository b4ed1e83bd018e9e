package oidc

import (
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
	to := s.Home
	if err == nil {
		if p, err := s.provider(r.Context()); err == nil { // otherwise it is enough to be signed out here
			to = s.endSession(p, token)
		}
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func (s *SignIn) endSession(p *provider, token Token) string {
	to, err := url.Parse(p.also.EndSession)
	if p.also.EndSession == "" || err != nil {
		return s.Home
	}
	query := to.Query()
	query.Set("client_id", s.ClientID)
	query.Set("id_token_hint", token.IDToken)
	if s.AfterLogout != "" {
		query.Set("post_logout_redirect_uri", s.AfterLogout)
	}
	to.RawQuery = query.Encode()
	return to.String()
}

// longestLogout is the most bytes that a back-channel request may have.
const longestLogout = 64 << 10

// clockSkew is how far the provider's clock may be ahead.
const clockSkew = 5 * time.Minute

// backChannelLogout answers the provider: 200 if the sessions have ended, 501 if it
// names a user and the store cannot list users' sessions, and 400 otherwise, as the
// specification says also for a logout that has failed. Back-Channel Logout 1.0,
// sections 2.6 to 2.8. To repeat one is harmless, so a token may come twice.
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
	token, err := p.verifier.VerifyLogout(s.with(r.Context()), raw)
	if err != nil || token.IssuedAt.IsZero() || time.Until(token.IssuedAt) > clockSkew {
		refuse(w, "invalid_request", "the logout_token is not good")
		return
	}
	if token.SessionID != "" {
		_, err = s.Sessions.RevokeLinked(r.Context(), token.Issuer, token.SessionID)
	} else {
		var user string
		if user, err = s.User(r.Context(), &Identity{Issuer: token.Issuer, Subject: token.Subject}); err == nil {
			_, err = s.Sessions.RevokeUser(r.Context(), user)
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

func refuse(w http.ResponseWriter, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(`{"error":"` + code + `","error_description":"` + text + `"}` + "\n"))
}

// frontChannelLogout is loaded in a frame of a page of the provider's, where the
// browser withholds the session's cookie. So the query has to name the provider's
// session: Front-Channel Logout 1.0. Whoever knows its sid can end it, and nothing
// else.
func (s *SignIn) frontChannelLogout(w http.ResponseWriter, r *http.Request) {
	iss, sid := r.FormValue("iss"), r.FormValue("sid")
	if iss != s.Issuer || sid == "" {
		http.Error(w, "The query has to name iss and sid.", http.StatusBadRequest)
		return
	}
	if _, err := s.Sessions.RevokeLinked(r.Context(), iss, sid); err != nil {
		s.Sessions.ServeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><title>Signed out</title>"))
}
