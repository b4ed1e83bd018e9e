package providers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/oidc"
)

func newKeys(t *testing.T) *sojourn.KeyRing {
	t.Helper()
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// tokens is the key of package oidc for an issuer, by which tests make a token old.
func tokens(issuer string) sojourn.Key[oidc.Token] {
	of := sha256.Sum256([]byte(issuer + "\x00" + clientID))
	return sojourn.NewKey[oidc.Token]("oidc "+hex.EncodeToString(of[:8]), sojourn.ServerSide)
}

func TestSomebodySignsInAndOut(t *testing.T) {
	s := startSite(t, startProvider(t), 2)
	v := s.visitor()
	if got := v.signIn("/orders?page=2"); got.text != `/orders?page=2 for "user id2"` {
		t.Fatalf("signing in leads to %s (%d): %s", got.at, got.status, got.text)
	}
	if got := v.get("/token"); !strings.HasSuffix(got.text, " true true") {
		t.Errorf("the token: %s", got.text)
	}
	if got := v.get("/sid"); got.text == "" {
		t.Error("LoggedIn was not called")
	}
	r, err := http.NewRequest(http.MethodPost, s.URL+"/auth/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := v.read(v.http.Do(r)); got.status != http.StatusForbidden || v.user() == "" {
		t.Errorf("another site signs somebody out: %d", got.status)
	}
	if got := v.get("/auth/logout"); got.status != http.StatusMethodNotAllowed {
		t.Errorf("a link signs somebody out: %d", got.status)
	}
	got := v.post("/auth/logout", nil)
	if user := v.user(); user != "" {
		t.Errorf("after the logout %q is signed in", user)
	}
	if got.at.String() != s.URL+"/goodbye" || got.status != http.StatusOK {
		t.Errorf("the logout leads to %s (%d): %s", got.at, got.status, got.text)
	}
}

func TestALoginGoesWhereItWasAskedForOnThisSiteOnly(t *testing.T) {
	s := startSite(t, startProvider(t), 1, func(c *oidc.Config) { c.Home = "/home" })
	for _, next := range []string{"", "//evil.example", `/\evil.example`, `\\evil.example`, "https://evil.example", "/\t/evil.example", "/\n/evil.example", "javascript:alert(1)", "evil"} {
		if got := s.visitor().signIn(next); got.at.String() != s.URL+"/home" {
			t.Errorf("next %q leads to %s", next, got.at)
		}
	}
}

func TestSeveralTabsSignInAtOnce(t *testing.T) {
	s := startSite(t, startProvider(t), 2)
	v := s.visitor()
	v.post("/auth/logout", nil) // there is a session from here on
	v.signIn("/zero")
	one, two := v.get("/auth/login?next=/one"), v.get("/auth/login?next=/two")
	if got := v.fillIn(two); got.at.Path != "/two" {
		t.Errorf("the second tab is at %s (%d)", got.at, got.status)
	}
	// The first tab's ticket was of the session before the login.
	if got := v.fillIn(one); got.status >= 500 || v.user() == "" {
		t.Errorf("the first tab is at %s (%d), the user is %q", got.at, got.status, v.user())
	}
}

func TestAnAnswerIsGoodOnceAndInOneBrowser(t *testing.T) {
	s := startSite(t, startProvider(t), 2)
	v := s.visitor()
	var callback string
	v.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), s.URL+"/auth/callback") {
			callback = r.URL.String()
		}
		return nil
	}
	form := v.get("/auth/login?next=/x")
	v.fillIn(form)
	if got := v.get(callback); got.status != http.StatusOK || got.at.Path != "/" || v.user() != "user id2" {
		t.Errorf("the same answer again leads to %s (%d)", got.at, got.status)
	}
	other := s.visitor()
	if got := other.get(callback); got.status != http.StatusBadRequest || other.user() != "" {
		t.Errorf("another browser with the answer is at %s (%d)", got.at, got.status)
	}
	for name, query := range map[string]string{
		"nothing":         "",
		"a bad state":     "?state=xxxx&code=1",
		"a guessed state": "?state=AAAAAAAAAAAAAAAAAAAAAA&code=1",
	} {
		if got := other.get("/auth/callback" + query); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got.status)
		}
	}
}

// callback returns what the provider would answer with, after change.
func (v visitor) callback(change func(url.Values)) page {
	v.t.Helper()
	redirect := v.http.CheckRedirect
	var to *url.URL
	v.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), v.URL+"/auth/callback") {
			to = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}
	v.fillIn(v.get("/auth/login"))
	v.http.CheckRedirect = redirect
	query := to.Query()
	change(query)
	return v.get("/auth/callback?" + query.Encode())
}

func TestWhatIsNoLogin(t *testing.T) {
	p := startProvider(t)
	refused := errors.New("not in this shop")
	for name, c := range map[string]struct {
		edit   func(*oidc.Config)
		change func(url.Values)
		status int
	}{
		"the provider refuses":     {nil, func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, http.StatusForbidden},
		"the code is another one":  {nil, func(q url.Values) { q.Set("code", "another") }, http.StatusForbidden},
		"another provider answers": {nil, func(q url.Values) { q.Set("iss", "https://evil.example") }, http.StatusBadRequest},
		"the application has no such": {func(c *oidc.Config) {
			c.User = func(context.Context, *oidc.Identity) (string, error) { return "", refused }
		}, func(url.Values) {}, http.StatusForbidden},
		"the account is closed": {func(c *oidc.Config) { c.Check = func(context.Context, string) error { return refused } }, func(url.Values) {}, http.StatusForbidden},
		"the secret is wrong":   {func(c *oidc.Config) { c.ClientSecret = "wrong" }, func(url.Values) {}, http.StatusForbidden},
	} {
		var heard error
		edit := func(cfg *oidc.Config) {
			cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) { heard = err; w.WriteHeader(oidc.Status(err)) }
			if c.edit != nil {
				c.edit(cfg)
			}
		}
		s := startSite(t, p, 1, edit)
		v := s.visitor()
		got := v.callback(c.change)
		if got.status != c.status || v.user() != "" {
			t.Errorf("%s: %d, %v, the user is %q", name, got.status, heard, v.user())
		}
		if text := heard.Error(); strings.Contains(text, secret) || strings.Contains(text, "code=") {
			t.Errorf("%s: the error has a secret: %s", name, text)
		}
	}
}

// forging changes claims of the ID tokens that the provider sends, and signs them
// with the provider's key.
type forging struct {
	t       *testing.T
	p       *provider
	instead claims // nil = the claim is left out
}

func (f forging) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/token") {
		return res, err
	}
	defer res.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, err
	}
	token, _ := answer["id_token"].(string)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return nil, err
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, err
	}
	for name, v := range f.instead {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	answer["id_token"] = f.p.signed(f.t, c)
	b, err := json.Marshal(answer)
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return res, err
}

func TestAnIDTokenIsOfThisLoginAndThisClient(t *testing.T) {
	p := startProvider(t)
	for name, c := range map[string]struct {
		instead claims
		good    bool
	}{
		"as it is":                  {claims{}, true},
		"another login's":           {claims{"nonce": "another"}, false},
		"no login's":                {claims{"nonce": nil}, false},
		"another client's":          {claims{"aud": "another"}, false},
		"for another client":        {claims{"azp": "another"}, false},
		"for nobody of two clients": {claims{"aud": []string{clientID, "another"}, "azp": nil}, false},
		"for us of two clients":     {claims{"aud": []string{clientID, "another"}, "azp": clientID}, true},
		"another issuer's":          {claims{"iss": "https://evil.example"}, false},
		"of the past":               {claims{"exp": time.Now().Add(-time.Hour).Unix()}, false},
		"with another access token": {claims{"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}, false},
	} {
		s := startSite(t, p, 1, func(cfg *oidc.Config) { cfg.Client = &http.Client{Transport: forging{t, p, c.instead}} })
		v := s.visitor()
		if got := v.signIn("/"); (got.status < 400) != c.good || (v.user() != "") != c.good {
			t.Errorf("an ID token %s: %d, the user is %q", name, got.status, v.user())
		}
	}
}

func TestTheProviderHasToAuthenticateTheUserRecently(t *testing.T) {
	p := startProvider(t)
	old := time.Now().Add(-time.Hour).Unix()
	for name, c := range map[string]struct {
		most    time.Duration
		instead claims
		good    bool
	}{
		"no limit, an hour ago":         {0, claims{"auth_time": old}, true},
		"no limit, nobody knows":        {0, claims{"auth_time": nil}, true},
		"ten minutes, now":              {10 * time.Minute, claims{}, true},
		"ten minutes, a minute more":    {10 * time.Minute, claims{"auth_time": time.Now().Add(-10*time.Minute - 30*time.Second).Unix()}, true},
		"ten minutes, an hour ago":      {10 * time.Minute, claims{"auth_time": old}, false},
		"ten minutes, nobody knows":     {10 * time.Minute, claims{"auth_time": nil}, false},
		"ten minutes, in an hour":       {10 * time.Minute, claims{"auth_time": time.Now().Add(time.Hour).Unix()}, false},
		"ten minutes, in milliseconds":  {10 * time.Minute, claims{"auth_time": time.Now().UnixMilli()}, false},
		"ten minutes, never":            {10 * time.Minute, claims{"auth_time": 1e300}, false},
		"ten minutes, a clock is ahead": {10 * time.Minute, claims{"auth_time": time.Now().Add(time.Minute).Unix()}, true},
		"ten minutes, long before that": {10 * time.Minute, claims{"auth_time": -1e300}, false},
	} {
		asked := ""
		s := startSite(t, p, 1, func(cfg *oidc.Config) {
			cfg.MaxAge, cfg.Client = c.most, &http.Client{Transport: forging{t, p, c.instead}}
		})
		v := s.visitor()
		v.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			if q := r.URL.Query(); q.Has("client_id") {
				asked = q.Get("max_age")
			}
			return nil
		}
		if got := v.signIn("/"); (got.status < 400) != c.good || (v.user() != "") != c.good {
			t.Errorf("%s: %d, the user is %q", name, got.status, v.user())
		}
		if want := map[bool]string{true: "600"}[c.most > 0]; asked != want {
			t.Errorf("%s: max_age is %q, want %q", name, asked, want)
		}
	}
}

func TestAProviderThatIsAwayIsAskedAgain(t *testing.T) {
	p := startProvider(t)
	p.away.Store(true)
	s := startSite(t, p, 1)
	v := s.visitor()
	if got := v.get("/auth/login"); got.status != http.StatusBadGateway || !strings.Contains(got.text, "Try again") {
		t.Errorf("while the provider is away: %d %s", got.status, got.text)
	}
	p.away.Store(false)
	if got := v.signIn("/"); v.user() != "user id2" {
		t.Errorf("once it is back: %s (%d)", got.at, got.status)
	}
}

// makeOld makes the token of the user's sessions expire now.
func (s *site) makeOld(user string) { s.t.Helper(); s.leave(user, -time.Second) }

// leave makes the tokens of a user's sessions expire after that time.
func (s *site) leave(user string, left time.Duration) {
	s.t.Helper()
	n, err := s.replicas[0].sessions.EditUser(s.t.Context(), user, func(session *sojourn.Session) error {
		token := tokens(s.issuer).Get(session)
		token.Expiry = time.Now().Add(left)
		tokens(s.issuer).Set(session, token)
		return nil
	})
	if n == 0 || err != nil {
		s.t.Fatalf("%d tokens were made old, %v", n, err)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("a fault of the client") }

func TestAClientThatPanicsFailsOnlyItsRequests(t *testing.T) {
	p := startProvider(t)
	var log bytes.Buffer
	s := startSite(t, p, 1, func(cfg *oidc.Config) {
		cfg.Client, cfg.Logger = &http.Client{Transport: panicking{}}, slog.New(slog.NewTextHandler(&log, nil))
	})
	for n := 1; n <= 2; n++ {
		got := s.visitor().get("/auth/login")
		if got.status != http.StatusBadGateway || !strings.Contains(got.text, "cannot be reached") || strings.Count(log.String(), "status=502") != n {
			t.Errorf("the login: %d %s; the log: %s", got.status, got.text, &log)
		}
	}
}

func TestAProviderThatHangsHoldsUpNobodyForLong(t *testing.T) {
	p := startProvider(t)
	p.hang = make(chan struct{})
	defer sync.OnceFunc(func() { close(p.hang) })()
	s := startSite(t, p, 1)
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/auth/login", nil)
			w := httptest.NewRecorder()
			s.replicas[0].handler.ServeHTTP(w, r)
			if w.Code != http.StatusBadGateway {
				t.Errorf("the login is answered %d", w.Code)
			}
		})
	}
	wg.Wait()
	if n := p.discoveries.Load(); n != 1 {
		t.Errorf("the provider was asked %d times in %v", n, time.Since(begin))
	}
}

func TestTokensOfTwoProvidersAreApart(t *testing.T) {
	a, b := startProvider(t), startProvider(t)
	s := startSite(t, a, 1)
	v := s.visitor()
	v.signIn("/")
	s.makeOld("user id2")
	other, err := oidc.New(oidc.Config{Sessions: s.replicas[0].sessions, Issuer: b.URL, ClientID: clientID, ClientSecret: secret, URL: s.URL + "/other"})
	if err != nil {
		t.Fatal(err)
	}
	s.replicas[0].handler = app(s.replicas[0].sessions, other)
	if got := v.get("/token"); got.status == http.StatusOK || b.refreshes.Load() > 0 || v.user() == "" {
		t.Errorf("the other provider's token: %d %s, %d refreshes", got.status, got.text, b.refreshes.Load())
	}
}

func TestOneOfAllRequestsRefreshesTheToken(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 3)
	v := s.visitor()
	v.signIn("/")
	first := v.get("/token").text
	for round := range 2 {
		s.makeOld("user id2")
		var wg sync.WaitGroup
		got := make([]string, 12)
		for i := range got {
			wg.Go(func() { got[i] = v.get("/token").text })
		}
		wg.Wait()
		for _, text := range got {
			if text != got[0] || text == first || !strings.HasSuffix(text, " true true") {
				t.Errorf("round %d: the tokens are %q", round, got)
				break
			}
		}
		first = got[0]
		if n := p.refreshes.Load(); n != int64(round)+1 {
			t.Errorf("round %d: the provider was asked %d times", round, n)
		}
	}
}

func TestATokenThatTheProviderHasTakenBackNeedsALogin(t *testing.T) {
	p := startProvider(t)
	s := startSite(t, p, 2)
	v := s.visitor()
	v.signIn("/")
	if err := p.storage.TerminateSession(t.Context(), subject, clientID); err != nil {
		t.Fatal(err)
	}
	s.makeOld("user id2")
	if got := v.get("/token"); got.status != http.StatusUnauthorized {
		t.Errorf("a token of a session that is over: %d %s", got.status, got.text)
	}
	v.signIn("/")
	if got := v.get("/token"); got.status != http.StatusOK {
		t.Errorf("after another login: %d %s", got.status, got.text)
	}
	s.makeOld("user id2")
	p.away.Store(true)
	if got := v.get("/token"); got.status != http.StatusBadGateway {
		t.Errorf("while the provider is away: %d %s", got.status, got.text)
	}
	s.leave("user id2", 30*time.Second)
	if got := v.get("/token"); got.status != http.StatusOK {
		t.Errorf("a token that is still good, while the provider is away: %d %s", got.status, got.text)
	}
	s.makeOld("user id2")
	p.away.Store(false)
	if got := v.get("/token"); got.status != http.StatusOK {
		t.Errorf("once it is back: %d %s", got.status, got.text)
	}
}
