package providers

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// claims of a logout token.
type claims map[string]any

const event = "http://schemas.openid.net/event/backchannel-logout"

func (s *site) claims(more claims) claims {
	c := claims{
		"iss": s.provider.URL, "aud": clientID, "jti": "1", "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(),
		"events": claims{event: claims{}},
	}
	for name, v := range more {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// signed signs claims with the provider's key.
func (p *provider) signed(t *testing.T, c claims) string {
	t.Helper()
	key, err := p.storage.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, key.SignatureAlgorithm(), jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()}, c)
}

func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, c claims) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, (&jose.SignerOptions{}).WithType("logout+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s *site) backChannel(token string) page {
	s.t.Helper()
	v := s.visitor()
	return v.post("/auth/backchannel-logout", url.Values{"logout_token": {token}})
}

func TestTheProviderEndsOneSession(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 3)
	one, two := s.visitor(), s.visitor()
	one.signIn("/")
	two.signIn("/")
	token := p.signed(t, s.claims(claims{"sid": one.get("/sid").text, "sub": subject}))
	for range 2 { // to repeat it is harmless
		if got := s.backChannel(token); got.status != http.StatusOK {
			t.Errorf("the logout is answered %d %s", got.status, got.text)
		}
		if a, b := one.user(), two.user(); a != "" || b != "user id2" {
			t.Errorf("signed in are %q and %q", a, b)
		}
	}
	if got := two.get("/auth/frontchannel-logout?" + url.Values{"iss": {p.URL}, "sid": {two.get("/sid").text}}.Encode()); got.status != http.StatusOK || two.user() != "" {
		t.Errorf("by the front channel: %d, the user is %q", got.status, two.user())
	}
}

func TestTheProviderEndsAllSessionsOfAUser(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 2)
	one, two := s.visitor(), s.visitor()
	one.signIn("/")
	two.signIn("/")
	if got := s.backChannel(p.signed(t, s.claims(claims{"sub": "id1"}))); got.status != http.StatusOK || one.user() == "" {
		t.Errorf("the logout of somebody else: %d", got.status)
	}
	if got := s.backChannel(p.signed(t, s.claims(claims{"sub": subject}))); got.status != http.StatusOK {
		t.Errorf("the logout is answered %d %s", got.status, got.text)
	}
	if a, b := one.user(), two.user(); a+b != "" {
		t.Errorf("signed in are %q and %q", a, b)
	}
}

func TestALogoutOvertakesItsLogin(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 2)
	v := s.visitor()
	var sid string
	got := v.callbackAfter(func(id string) {
		sid = id
		if got := s.backChannel(p.signed(t, s.claims(claims{"sid": id}))); got.status != http.StatusOK {
			t.Errorf("the logout is answered %d %s", got.status, got.text)
		}
	})
	if got.status != http.StatusForbidden || v.user() != "" || sid == "" {
		t.Errorf("a login after its logout: %d, the user is %q", got.status, v.user())
	}
}

// callbackAfter signs in, and runs f between the provider's answer and the
// site's, with the name of the provider's session.
func (v visitor) callbackAfter(f func(sid string)) page {
	v.t.Helper()
	form := v.get("/auth/login")
	_, rest, _ := strings.Cut(form.text, `name="id" value="`)
	id, _, _ := strings.Cut(rest, `"`)
	v.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), v.URL+"/auth/callback") {
			f(id)
		}
		return nil
	}
	defer func() { v.http.CheckRedirect = nil }()
	return v.fillIn(form)
}

func TestLogoutTokensThatAreNotGood(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 1)
	v := s.visitor()
	v.signIn("/")
	sid := v.get("/sid").text
	public, err := p.storage.KeySet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asSecret, err := json.Marshal(public[0].Key())
	if err != nil {
		t.Fatal(err)
	}
	for len(asSecret) < 64 {
		asSecret = append(asSecret, 0)
	}
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	null := p.signed(t, s.claims(claims{"sid": sid, "nonce": json.RawMessage("null")}))
	good := p.signed(t, s.claims(claims{"sid": sid, "nonce": "n"}))
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"nothing":               "",
		"no token":              "not a token",
		"another issuer":        p.signed(t, s.claims(claims{"sid": sid, "iss": "https://evil.example"})),
		"another client":        p.signed(t, s.claims(claims{"sid": sid, "aud": "another"})),
		"no audience":           p.signed(t, s.claims(claims{"sid": sid, "aud": nil})),
		"too old":               p.signed(t, s.claims(claims{"sid": sid, "exp": time.Now().Add(-time.Minute).Unix()})),
		"no end, and too old":   p.signed(t, s.claims(claims{"sid": sid, "exp": nil, "iat": time.Now().Add(-time.Hour).Unix()})),
		"an event that is null": p.signed(t, s.claims(claims{"sid": sid, "events": map[string]any{event: nil}})),
		"a nonce that is null":  null,
		"an empty nonce":        p.signed(t, s.claims(claims{"sid": sid, "nonce": ""})),
		"times that are texts":  p.signed(t, s.claims(claims{"sid": sid, "iat": "now"})),
		"no time":               p.signed(t, s.claims(claims{"sid": sid, "iat": nil})),
		"of the future":         p.signed(t, s.claims(claims{"sid": sid, "iat": time.Now().Add(time.Hour).Unix(), "exp": time.Now().Add(2 * time.Hour).Unix()})),
		"no jti":                p.signed(t, s.claims(claims{"sid": sid, "jti": nil})),
		"no events":             p.signed(t, s.claims(claims{"sid": sid, "events": nil})),
		"another event":         p.signed(t, s.claims(claims{"sid": sid, "events": claims{event + "x": claims{}}})),
		"a nonce":               good,
		"nobody":                p.signed(t, s.claims(nil)),
		"the algorithm none":    "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"signed by the client":  sign(t, jose.HS256, asSecret, s.claims(claims{"sid": sid})),
		"signed by a secret":    sign(t, jose.HS256, []byte(secret+strings.Repeat("x", 64)), s.claims(claims{"sid": sid})),
		"signed by another key": sign(t, jose.RS256, jose.JSONWebKey{Key: another, KeyID: public[0].ID()}, s.claims(claims{"sid": sid})),
		"changed":               parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"too long":              good + strings.Repeat("x", 100<<10),
	} {
		if got := s.backChannel(token); got.status != http.StatusBadRequest || token != "" && strings.Contains(got.text, token) {
			t.Errorf("%s: %d %s", name, got.status, got.text)
		}
		if v.user() == "" {
			t.Fatalf("%s: it has ended the session", name)
		}
	}
	token := p.signed(t, s.claims(claims{"sid": sid}))
	for name, send := range map[string]func() page{
		"a GET": func() page { return v.get("/auth/backchannel-logout?logout_token=" + token) },
		"JSON": func() page {
			return v.read(v.http.Post(s.URL+"/auth/backchannel-logout", "application/json", strings.NewReader(`{"logout_token":"`+token+`"}`)))
		},
		"in the query": func() page {
			return v.read(v.http.Post(s.URL+"/auth/backchannel-logout?logout_token="+token, "application/x-www-form-urlencoded", nil))
		},
		"the front channel, another issuer": func() page { return v.get("/auth/frontchannel-logout?iss=https://evil.example&sid=" + sid) },
		"the front channel, no sid":         func() page { return v.get("/auth/frontchannel-logout?iss=" + url.QueryEscape(p.URL)) },
	} {
		if got := send(); got.status < 400 || got.status > 405 || v.user() == "" {
			t.Errorf("%s: %d, the user is %q", name, got.status, v.user())
		}
	}
	if got := s.backChannel(token); got.status != http.StatusOK || v.user() != "" {
		t.Errorf("a good one: %d", got.status)
	}
}
