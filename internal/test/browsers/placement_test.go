package browsers_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestASessionLivesWhereItIsCheapest(t *testing.T) {
	small, large := sojourn.NewKey[string]("small"), sojourn.NewKey[[]byte]("large")
	for name, test := range map[string]struct {
		config func(*sojourn.Config)
		change func(*sojourn.Session)
		want   sojourn.Placement
	}{
		"nothing in it":                {func(*sojourn.Config) {}, func(*sojourn.Session) {}, sojourn.PlacementNone},
		"nothing left in it":           {func(*sojourn.Config) {}, func(s *sojourn.Session) { small.Set(s, "a"); small.Delete(s) }, sojourn.PlacementNone},
		"only a setting":               {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Remember(false) }, sojourn.PlacementNone},
		"small":                        {func(*sojourn.Config) {}, func(s *sojourn.Session) { small.Set(s, "a") }, sojourn.PlacementInline},
		"an empty value":               {func(*sojourn.Config) {}, func(s *sojourn.Session) { small.Set(s, "") }, sojourn.PlacementInline},
		"a flash message":              {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Flash("info", "Hello") }, sojourn.PlacementInline},
		"large":                        {func(*sojourn.Config) {}, func(s *sojourn.Session) { large.Set(s, make([]byte, 3000)) }, sojourn.PlacementStored},
		"a ServerSide value":           {func(*sojourn.Config) {}, func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) }, sojourn.PlacementStored},
		"a ServerSide value, removed":  {func(*sojourn.Config) {}, func(s *sojourn.Session) { small.Set(s, "a"); sitetest.CartKey.Set(s, 1); sitetest.CartKey.Delete(s) }, sojourn.PlacementInline},
		"a user":                       {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Login("anna") }, sojourn.PlacementStored},
		"a user, gone again":           {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Login("anna"); s.Logout() }, sojourn.PlacementNone},
		"StoredOnly, nothing in it":    {sitetest.StoredOnly, func(*sojourn.Session) {}, sojourn.PlacementNone},
		"StoredOnly, small":            {sitetest.StoredOnly, func(s *sojourn.Session) { small.Set(s, "a") }, sojourn.PlacementStored},
		"CookieOnly, small":            {sitetest.CookieOnly, func(s *sojourn.Session) { small.Set(s, "a") }, sojourn.PlacementInline},
		"CookieOnly, a user":           {sitetest.CookieOnly, func(s *sojourn.Session) { s.Login("anna") }, sojourn.PlacementInline},
		"CookieOnly, nothing in it":    {sitetest.CookieOnly, func(*sojourn.Session) {}, sojourn.PlacementNone},
		"CookieOnly, nothing left":     {sitetest.CookieOnly, func(s *sojourn.Session) { small.Set(s, "a"); s.Clear() }, sojourn.PlacementNone},
		"CookieOnly, larger than Auto": {func(c *sojourn.Config) { sitetest.CookieOnly(c); c.InlineLimit = 4096 }, func(s *sojourn.Session) { large.Set(s, make([]byte, 2500)) }, sojourn.PlacementInline},
	} {
		s := sitetest.NewLab(t, test.config)
		v := sitetest.NewGuest(t)
		s.Do(v, test.change)
		if got := placeOf(s, v); got != test.want {
			t.Errorf("%s: lives in %v, want %v", name, got, test.want)
		}
		if want := test.want != sojourn.PlacementNone; (len(v.Cookies) > 0) != want {
			t.Errorf("%s: cookies %q", name, v.Header())
		}
		if want := test.want == sojourn.PlacementStored; s.Store != nil && (s.Calls() > 0) != want {
			t.Errorf("%s: %d store calls", name, s.Calls())
		}
	}
}

func TestAStoredSessionStaysStoredAndAnInlineOneThatIsEmptiedGoes(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	s.Do(v, func(session *sojourn.Session) { session.Clear() })
	if len(v.Cookies) > 0 {
		t.Errorf("cookies %q", v.Header())
	}
	s.Do(v, func(session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		sitetest.CartKey.Set(session, 1)
	})
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Delete(session) })
	if got := placeOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("without the ServerSide value it lives in %v", got)
	}
	s.Do(v, func(session *sojourn.Session) { session.Clear() })
	if got := placeOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("emptied it lives in %v", got)
	}
}

func TestCookieOnlyRefusesServerSideValues(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrNoStore) {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusInternalServerError)
	sitetest.WantCookies(t, resp)
	if !s.Has(v, "theme") {
		t.Error("what was there is gone")
	}
}

func TestACrossSiteRequestWithoutACookieStartsNoStoredSession(t *testing.T) {
	post := func(edit func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { r.Method = http.MethodPost; edit(r) }
	}
	fetchSite := func(site string) func(*http.Request) {
		return post(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) })
	}
	origin := func(origin string) func(*http.Request) {
		return post(func(r *http.Request) { r.Header.Set("Origin", origin) })
	}
	none := func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteNoneMode }
	strict := func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteStrictMode }
	asIs := func(*sojourn.Config) {}
	for name, test := range map[string]struct {
		config  func(*sojourn.Config)
		edit    func(*http.Request)
		refused bool
	}{
		"cross-site POST":         {asIs, fetchSite("cross-site"), true},
		"cross-site POST, Strict": {strict, fetchSite("cross-site"), true},
		"cross-site POST, None":   {none, fetchSite("cross-site"), false},
		"same-origin POST":        {asIs, fetchSite("same-origin"), false},
		"a subdomain's POST":      {asIs, fetchSite("same-site"), false},
		"the user's own":          {asIs, fetchSite("none"), false},
		"Sec-Fetch-Site goes first": {asIs, post(func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}), false},
		"another origin":    {asIs, origin("https://evil.example"), true},
		"a hidden origin":   {asIs, origin("null"), true},
		"nonsense":          {asIs, origin("://"), true},
		"the same origin":   {asIs, origin("https://shop.example"), false},
		"no browser":        {asIs, post(func(*http.Request) {}), false},
		"cross-site GET":    {asIs, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, false},
		"cross-site DELETE": {asIs, func(r *http.Request) { crossSitePost(r); r.Method = http.MethodDelete }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t, test.config)
			var saved error
			resp := sitetest.NewGuest(t).Get(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				sitetest.CartKey.Set(session, 1)
				saved = session.Save(r.Context())
			}), test.edit)
			if errors.Is(saved, sojourn.ErrCrossSite) != test.refused {
				t.Errorf("Save: %v", saved)
			}
			if test.refused {
				sitetest.WantStatus(t, resp, http.StatusConflict)
				sitetest.WantCookies(t, resp)
			} else {
				sitetest.WantStatus(t, resp, http.StatusOK)
				sitetest.WantCookies(t, resp, sitetest.RefCookie)
			}
		})
	}
}

// Old browsers, and all browsers over plain HTTP to a name that is not
// localhost, send no Sec-Fetch-Site.
func TestAnOriginIsComparedWithTheHostAsTheStandardLibraryDoes(t *testing.T) {
	protection := http.NewCrossOriginProtection()
	hosts := []string{"shop.example", "shop.example:8080", "www.shop.example", "192.0.2.7:8080", "[2001:db8::1]:8080", "SHOP.example"}
	origins := []string{"", "null", "://", "http://%zz", "evil.example"}
	for _, host := range hosts {
		origins = append(origins, "http://"+host, "https://"+host)
	}
	for _, host := range hosts {
		for _, origin := range origins {
			s := sitetest.NewLab(t)
			var saved error
			want := false
			sitetest.NewGuest(t).Request(s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				sitetest.CartKey.Set(session, 1)
				saved = session.Save(r.Context())
			}), http.MethodPost, "http://shop.example/", func(r *http.Request) {
				r.Host = host
				r.Header.Set("Origin", origin)
				same := origin == "" || origin == "http://"+host || origin == "https://"+host
				if err := protection.Check(r); (err == nil) != same {
					t.Errorf("Origin %q, Host %q: the standard library says %v", origin, host, err)
				}
				want = !same
			})
			if refused := errors.Is(saved, sojourn.ErrCrossSite); refused != want {
				t.Errorf("Origin %q, Host %q: Save: %v", origin, host, saved)
			}
		}
	}
}

func TestACrossSiteRequestWithoutACookieMay(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*sojourn.Session)
		want   []string
	}{
		// An identity provider posts its answer from its own site, so that Lax
		// withholds the cookie, as reported in gin-contrib/sessions#102.
		"log in":                {func(s *sojourn.Session) { s.Login("anna"); s.Flash("success", "Welcome") }, []string{sitetest.RefCookie}},
		"read":                  {func(s *sojourn.Session) { _ = sitetest.ThemeKey.Get(s) }, nil},
		"pop what is not there": {func(s *sojourn.Session) { sitetest.CartKey.Pop(s) }, nil},
	} {
		s := sitetest.NewLab(t)
		resp := sitetest.NewGuest(t).Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { test.change(session) }), crossSitePost)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if got := sitetest.SetNames(resp); !slices.Equal(got, test.want) && len(got)+len(test.want) > 0 {
			t.Errorf("%s: set %q, want %q", name, got, test.want)
		}
	}
}

func TestACrossSiteRequestWithACookieIsLikeAnyOther(t *testing.T) {
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteNoneMode })
	lax := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = s.Keys, s.Store })
	for name, first := range map[string]func(*sojourn.Session){
		"stored": func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) },
		"inline": func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") },
	} {
		v := sitetest.NewGuest(t)
		s.Do(v, first)
		resp := v.Get(lax.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			sitetest.CartKey.Set(session, 2)
		}), crossSitePost)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if got := sitetest.CartOf(lax, v); got != 2 {
			t.Errorf("%s: the cart is %d", name, got)
		}
	}
}

func TestASecureCookieOverPlainHTTPIsWarnedOfOnce(t *testing.T) {
	const warning = "WARN a Secure session cookie was set over plain HTTP"
	forwarded := func(lines ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["X-Forwarded-Proto"] = lines }
	}
	for name, test := range map[string]struct {
		target string
		edit   func(*http.Request)
		config func(*sojourn.Config)
		warned bool
	}{
		"plain HTTP":                          {"http://shop.example/", nil, nil, true},
		"a LAN address":                       {"http://192.168.1.7:8080/", nil, nil, true},
		"HTTPS":                               {"https://shop.example/", nil, nil, false},
		"behind a TLS proxy":                  {"http://shop.example/", func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, nil, false},
		"behind one that shouts":              {"http://shop.example/", forwarded("HTTPS"), nil, false},
		"behind two proxies":                  {"http://shop.example/", forwarded("https,http"), nil, false},
		"behind three, in their own spelling": {"http://shop.example/", forwarded("Https , http, http"), nil, false},
		"behind two that add lines":           {"http://shop.example/", forwarded("https", "http"), nil, false},
		"an empty element first":              {"http://shop.example/", forwarded("", " ,https"), nil, false},
		"a WebSocket's scheme":                {"http://shop.example/", forwarded("wss"), nil, false},
		"plain to the first of two proxies":   {"http://shop.example/", forwarded("http,https"), nil, true},
		"plain to the first, in two lines":    {"http://shop.example/", forwarded("HTTP", "https"), nil, true},
		"nothing forwarded":                   {"http://shop.example/", forwarded(""), nil, true},
		"a scheme that only begins like it":   {"http://shop.example/", forwarded("httpsx"), nil, true},
		"behind another proxy":                {"http://shop.example/", func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1;proto=https") }, nil, false},
		"localhost":                           {"http://localhost:8080/", nil, nil, false},
		"a name of localhost":                 {"http://shop.localhost:8080/", nil, nil, false},
		"loopback":                            {"http://127.0.0.1:8080/", nil, nil, false},
		"loopback, IPv6":                      {"http://[::1]:8080/", nil, nil, false},
		"insecure by choice":                  {"http://shop.example/", nil, func(c *sojourn.Config) { c.Cookie.Insecure = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if test.config == nil {
				test.config = func(*sojourn.Config) {}
			}
			if test.edit == nil {
				test.edit = func(*http.Request) {}
			}
			s := sitetest.NewLab(t, test.config)
			h := s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				if r.Method == http.MethodPost {
					sitetest.ThemeKey.Set(session, "dark")
				}
			})
			sitetest.NewGuest(t).Request(h, "GET", test.target, test.edit)
			if len(s.Log.With(warning)) > 0 {
				t.Error("warned of a response without a cookie")
			}
			for range 3 {
				sitetest.NewGuest(t).Request(h, "POST", test.target, test.edit)
			}
			want := 0
			if test.warned {
				want = 1
			}
			if got := s.Log.With(warning); len(got) != want {
				t.Errorf("log: %q", got)
			}
		})
	}
}

func TestTwoManagersOverOneHandlerKeepTheirSessionsApart(t *testing.T) {
	shop := sitetest.NewLab(t)
	admin := sitetest.NewLab(t, sitetest.StoredOnly, func(c *sojourn.Config) {
		c.Keys, c.Name = shop.Keys, "admin"
		c.Cookie = sojourn.Cookie{Path: "/admin", SameSite: http.SameSiteStrictMode}
	})
	h := shop.Wrap(admin.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visitor, err := shop.Get(r.Context())
		if err != nil {
			t.Fatal(err)
		}
		staff, err := admin.Get(r.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Method == http.MethodPost {
			sitetest.ThemeKey.Set(visitor, "dark")
			sitetest.ThemeKey.Set(staff, "light")
			staff.Login("root")
			return
		}
		if sitetest.ThemeKey.Get(visitor) != "dark" || sitetest.ThemeKey.Get(staff) != "light" || visitor.User() != "" || staff.User() != "root" {
			t.Errorf("shop: %q %q, admin: %q %q", sitetest.ThemeKey.Get(visitor), visitor.User(), sitetest.ThemeKey.Get(staff), staff.User())
		}
	})))
	v := sitetest.NewGuest(t)
	resp := v.Request(h, "POST", "https://shop.example/admin")
	sitetest.WantCookies(t, resp, "__Secure-admin", sitetest.StateCookie) // the inner one commits first
	if got := resp.Header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary %q", got)
	}
	if line := resp.Header["Set-Cookie"][0]; !strings.Contains(line, "Path=/admin") || !strings.Contains(line, "SameSite=Strict") {
		t.Error(line)
	}
	v.Get(h)
	if shop.Calls() > 0 {
		t.Error("the shop's store was called")
	}
	if lines := append(shop.Log.With("ERROR"), admin.Log.With("ERROR")...); len(lines) > 0 {
		t.Errorf("log: %q", lines)
	}
}

func TestWhenOneOfTwoManagersFailsTheVisitorGetsOneError(t *testing.T) {
	for name, fail := range map[string]func(outer, inner *sitetest.Lab){
		"inner": func(_, inner *sitetest.Lab) { inner.Store.SaveDown.Store(true) },
		"outer": func(outer, _ *sitetest.Lab) { outer.Store.SaveDown.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			outer := sitetest.NewLab(t)
			inner := sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "inner" })
			fail(outer, inner)
			resp := sitetest.NewGuest(t).Get(outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, s := range []*sitetest.Lab{outer, inner} {
					session, err := s.Get(r.Context())
					if err != nil {
						t.Fatal(err)
					}
					sitetest.CartKey.Set(session, 1)
				}
				if _, err := w.Write([]byte("page")); !errors.Is(err, sojourn.ErrUnavailable) {
					t.Errorf("Write: %v", err)
				}
			}))))
			sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
			if got := sitetest.Body(t, resp); strings.Contains(got, "page") || strings.Count(got, "\n") != 1 {
				t.Errorf("body %q", got)
			}
			// An error answer of the inner manager also counts for the outer one.
			if live := sitetest.Rows(t, outer.Store); live != 0 {
				t.Error("the outer manager kept its changes")
			}
		})
	}
}

func TestNestedManagersWhoseCookiesCollideAreALoggedErrorOnce(t *testing.T) {
	outer := sitetest.NewLab(t)
	inner := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	h := outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = inner.Get(r.Context())
	})))
	for range 3 {
		v.Get(h)
	}
	if got := inner.Log.With("ERROR two session managers with the same cookie name"); len(got) != 1 {
		t.Errorf("log: %q", inner.Log.All())
	}
}

// One field more and it was silently empty, as reported in gorilla/sessions#186;
// the tokens of an identity provider overflow a cookie, as reported in
// markbates/goth#133.
func TestASessionThatGrowsFieldByFieldMovesToTheStoreAndKeepsThemAll(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	profile := sojourn.NewKey[map[string]string]("profile")
	for n := range 60 {
		s.Do(v, func(session *sojourn.Session) {
			profile.Update(session, func(m map[string]string) map[string]string {
				if m == nil {
					m = map[string]string{}
				}
				m[strings.Repeat("x", n+1)] = strings.Repeat("y", 80)
				return m
			})
		})
		s.Do(v, func(session *sojourn.Session) {
			if got := len(profile.Get(session)); got != n+1 {
				t.Fatalf("after %d fields there are %d", n+1, got)
			}
		})
	}
	if got := placeOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("5 KB live in %v", got)
	}
}

// placeOf returns where v's session lives.
func placeOf(s *sitetest.Lab, v *sitetest.Guest) (p sojourn.Placement) {
	s.T.Helper()
	s.Do(v.Copy(), func(session *sojourn.Session) { p = session.Info().Placement })
	return p
}

// crossSitePost is the request of a form on another site: an unsafe method, and
// no cookie, because it is SameSite=Lax.
func crossSitePost(r *http.Request) {
	r.Method = http.MethodPost
	r.Header.Set("Sec-Fetch-Site", "cross-site")
}
