package oidc

import (
	"slices"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/printtest"
)

func TestTheClientsOwnSecretSignsNoToken(t *testing.T) {
	for _, c := range [][2][]string{
		{{"HS256", "none", "ES256", "HS512", "EdDSA"}, {"ES256", "EdDSA"}},
		{{"HS256", "none"}, {"RS256"}},
		{nil, {"RS256"}},
	} {
		if got := asymmetric(c[0]); !slices.Equal(got, c[1]) {
			t.Errorf("of %v these are left: %v", c[0], got)
		}
	}
}

func TestTokensPrintNoSecret(t *testing.T) {
	token := Token{"canary-access", "Bearer", "canary-refresh", "canary-identity", time.Now()}
	printtest.Silent(t, []printtest.Secret{
		{Name: "access token", Value: []byte(token.AccessToken)},
		{Name: "refresh token", Value: []byte(token.RefreshToken)},
		{Name: "ID token", Value: []byte(token.IDToken)},
	}, map[string]any{"a token": token, "its pointer": &token})
}
