package oidc

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/printtest"
)

func TestTokensPrintNoSecret(t *testing.T) {
	token := Token{"canary-access", "Bearer", "canary-refresh", "canary-identity", time.Now()}
	printtest.Silent(t, []printtest.Secret{
		{Name: "access token", Value: []byte(token.AccessToken)},
		{Name: "refresh token", Value: []byte(token.RefreshToken)},
		{Name: "ID token", Value: []byte(token.IDToken)},
	}, map[string]any{"a token": token, "its pointer": &token})
}
