package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/sojourn-go/sojourn"
)

// Token has a login's tokens. Unlike [oauth2.Token] it keeps the ID token when
// it is stored. It prints without its secrets.
type Token struct {
	AccessToken  string    `cbor:"a"`
	Type         string    `cbor:"t"` // of the access token, such as "Bearer"
	RefreshToken string    `cbor:"r"` // "" = none
	IDToken      string    `cbor:"i"`
	Expiry       time.Time `cbor:"e"` // of the access token; zero = unknown
	Obtained     time.Time `cbor:"o"` // when the provider gave it
}

func tokenOf(t *oauth2.Token) Token {
	id, _ := t.Extra("id_token").(string)
	return Token{t.AccessToken, t.Type(), t.RefreshToken, id, t.Expiry, time.Now()}
}

// OAuth2 returns the token for clients of package oauth2. That token cannot
// refresh itself; [SignIn.Token] refreshes, once for all requests.
func (t Token) OAuth2() *oauth2.Token {
	return &oauth2.Token{AccessToken: t.AccessToken, TokenType: t.Type, Expiry: t.Expiry}
}

// SetAuthHeader adds the access token to a request to an API.
func (t Token) SetAuthHeader(r *http.Request) { t.OAuth2().SetAuthHeader(r) }

func (t Token) text() string { return "oidc.Token(good until " + t.Expiry.Format(time.RFC3339) + ")" }

// Format prints when the token expires, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.text()) }

// LogValue is what Format prints.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.text()) }

// MarshalText is what Format prints, so that JSON has no secrets either.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.text()), nil }

// early is how long before its end an access token is refreshed; at most a
// quarter of its lifetime.
const early = time.Minute

func (t Token) stale() bool {
	before := early
	if whole := t.Expiry.Sub(t.Obtained); whole > 0 {
		before = min(before, whole/4)
	}
	return t.RefreshToken != "" && !t.Expiry.IsZero() && time.Until(t.Expiry) < before
}

// live reports whether an access token can still be used.
func (t Token) live() bool {
	return t.AccessToken != "" && (t.Expiry.IsZero() || time.Until(t.Expiry) > 0)
}

// ErrSignInAgain means that the provider issues no more tokens for a login, so
// the user must sign in again. Errors of [SignIn.Token] wrap it.
var ErrSignInAgain = errors.New("oidc: the user has to sign in again")

// Token returns the session's token, refreshed if it expires within a minute,
// or within a quarter of its lifetime if that is less. One request of the
// session, across all replicas, sends the refresh; the others wait for its
// result, see [sojourn.Key.Renew]. A refresh that has begun is finished and
// kept, even if the client disconnects. If a refresh fails but the provider has
// not refused it, Token returns the old token, without an error, until that
// expires.
//
// The error wraps one of these, or is another error of Renew:
//
//   - [sojourn.ErrNoValue]: the session has no token;
//   - [ErrSignInAgain]: the provider refuses, or the token has expired and the provider
//     gave no refresh token;
//   - [sojourn.ErrRenewFailed]: the refresh has failed. Requests on other replicas that
//     have waited for a refresh get this one also if the provider has refused.
func (s *SignIn) Token(ctx context.Context, session *sojourn.Session) (Token, error) {
	token, err := s.tokens.Renew(ctx, session, Token.stale, s.refresh)
	switch {
	case err == nil && token.RefreshToken == "" && !token.live():
		return Token{}, ErrSignInAgain
	case errors.Is(err, sojourn.ErrRenewFailed) && !errors.Is(err, ErrSignInAgain) && token.live():
		return token, nil
	case errors.Is(err, sojourn.ErrEnded) && token.RefreshToken != "":
		s.revoke(context.WithoutCancel(ctx), token)
		return Token{}, err
	}
	return token, err
}

func (s *SignIn) refresh(ctx context.Context, old Token) (Token, error) {
	p, err := s.provider(ctx)
	if err != nil {
		return Token{}, err
	}
	answer, err := p.oauth.TokenSource(s.with(ctx), &oauth2.Token{RefreshToken: old.RefreshToken}).Token()
	if err != nil {
		e := refusedOr(err, "the provider does not refresh the token")
		if e.Code == "invalid_grant" {
			return Token{}, fmt.Errorf("%w: %w", ErrSignInAgain, e)
		}
		return Token{}, e
	}
	token := tokenOf(answer)
	if token.RefreshToken == "" {
		token.RefreshToken = old.RefreshToken
	}
	if token.IDToken == "" {
		token.IDToken = old.IDToken
	}
	return token, nil
}

// revoke revokes the token with the provider: RFC 7009. If that fails, the
// token expires by itself.
func (s *SignIn) revoke(ctx context.Context, token Token) {
	p, err := s.provider(ctx)
	if err != nil || p.also.Revocation == "" {
		return
	}
	form := url.Values{"token": {token.RefreshToken}, "token_type_hint": {"refresh_token"}}
	if s.cfg.ClientSecret == "" {
		form.Set("client_id", s.cfg.ClientID)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.also.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if s.cfg.ClientSecret != "" {
		r.SetBasicAuth(url.QueryEscape(s.cfg.ClientID), url.QueryEscape(s.cfg.ClientSecret))
	}
	if res, err := s.cfg.Client.Do(r); err == nil {
		_ = res.Body.Close()
	}
}
