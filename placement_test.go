package sojourn_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// placeOf returns where v's session lives.
func placeOf(s *site, v *guest) (p sojourn.Placement) {
	s.t.Helper()
	s.do(v.copy(), func(session *sojourn.Session) { p = session.Info().Placement })
	return p
}

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
		"a ServerSide value":           {func(*sojourn.Config) {}, func(s *sojourn.Session) { cartKey.Set(s, 1) }, sojourn.PlacementStored},
		"a ServerSide value, removed":  {func(*sojourn.Config) {}, func(s *sojourn.Session) { small.Set(s, "a"); cartKey.Set(s, 1); cartKey.Delete(s) }, sojourn.PlacementInline},
		"a user":                       {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Login("anna") }, sojourn.PlacementStored},
		"a user, gone again":           {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Login("anna"); s.Logout() }, sojourn.PlacementNone},
		"StoredOnly, nothing in it":    {storedOnly, func(*sojourn.Session) {}, sojourn.PlacementNone},
		"StoredOnly, small":            {storedOnly, func(s *sojourn.Session) { small.Set(s, "a") }, sojourn.PlacementStored},
		"CookieOnly, small":            {cookieOnly, func(s *sojourn.Session) { small.Set(s, "a") }, sojourn.PlacementInline},
		"CookieOnly, a user":           {cookieOnly, func(s *sojourn.Session) { s.Login("anna") }, sojourn.PlacementInline},
		"CookieOnly, nothing in it":    {cookieOnly, func(*sojourn.Session) {}, sojourn.PlacementNone},
		"CookieOnly, nothing left":     {cookieOnly, func(s *sojourn.Session) { small.Set(s, "a"); s.Clear() }, sojourn.PlacementNone},
		"CookieOnly, larger than Auto": {func(c *sojourn.Config) { cookieOnly(c); c.InlineLimit = 4096 }, func(s *sojourn.Session) { large.Set(s, make([]byte, 2500)) }, sojourn.PlacementInline},
	} {
		s := newSite(t, test.config)
		v := newGuest(t)
		s.do(v, test.change)
		if got := placeOf(s, v); got != test.want {
			t.Errorf("%s: lives in %v, want %v", name, got, test.want)
		}
		if want := test.want != sojourn.PlacementNone; (len(v.cookies) > 0) != want {
			t.Errorf("%s: cookies %q", name, v.header())
		}
		if want := test.want == sojourn.PlacementStored; s.store != nil && (s.calls() > 0) != want {
			t.Errorf("%s: %d store calls", name, s.calls())
		}
	}
}

func TestAStoredSessionStaysStoredAndAnInlineOneThatIsEmptiedGoes(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
	s.do(v, func(session *sojourn.Session) { session.Clear() })
	if len(v.cookies) > 0 {
		t.Errorf("cookies %q", v.header())
	}
	s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark"); cartKey.Set(session, 1) })
	s.do(v, func(session *sojourn.Session) { cartKey.Delete(session) })
	if got := placeOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("without the ServerSide value it lives in %v", got)
	}
	s.do(v, func(session *sojourn.Session) { session.Clear() })
	if got := placeOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("emptied it lives in %v", got)
	}
}

func TestCookieOnlyRefusesServerSideValues(t *testing.T) {
	s := newSite(t, cookieOnly)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
	resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		cartKey.Set(session, 1)
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrNoStore) {
			t.Errorf("Save: %v", err)
		}
	})
	wantStatus(t, resp, http.StatusInternalServerError)
	wantCookies(t, resp)
	if !s.has(v, "theme") {
		t.Error("what was there is gone")
	}
}

// crossSitePost is what a form on another site sends: an unsafe method, and no
// cookie, because it is SameSite=Lax.
func crossSitePost(r *http.Request) {
	r.Method = http.MethodPost
	r.Header.Set("Sec-Fetch-Site", "cross-site")
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
			s := newSite(t, test.config)
			var saved error
			resp := newGuest(t).get(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				cartKey.Set(session, 1)
				saved = session.Save(r.Context())
			}), test.edit)
			if errors.Is(saved, sojourn.ErrCrossSite) != test.refused {
				t.Errorf("Save: %v", saved)
			}
			if test.refused {
				wantStatus(t, resp, http.StatusConflict)
				wantCookies(t, resp)
			} else {
				wantStatus(t, resp, http.StatusOK)
				wantCookies(t, resp, refCookie)
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
			s := newSite(t)
			var saved error
			want := false
			newGuest(t).request(s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				cartKey.Set(session, 1)
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
		"log in":                {func(s *sojourn.Session) { s.Login("anna") }, []string{refCookie}},
		"read":                  {func(s *sojourn.Session) { _ = themeKey.Get(s) }, nil},
		"pop what is not there": {func(s *sojourn.Session) { cartKey.Pop(s) }, nil},
	} {
		s := newSite(t)
		resp := newGuest(t).get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { test.change(session) }), crossSitePost)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if got := setNames(resp); !slices.Equal(got, test.want) && len(got)+len(test.want) > 0 {
			t.Errorf("%s: set %q, want %q", name, got, test.want)
		}
	}
}

func TestACrossSiteRequestWithACookieIsLikeAnyOther(t *testing.T) {
	s := newSite(t, func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteNoneMode })
	lax := newSite(t, func(c *sojourn.Config) { c.Keys, c.Store = s.keys, s.store })
	for name, first := range map[string]func(*sojourn.Session){
		"stored": func(session *sojourn.Session) { cartKey.Set(session, 1) },
		"inline": func(session *sojourn.Session) { themeKey.Set(session, "dark") },
	} {
		v := newGuest(t)
		s.do(v, first)
		resp := v.get(lax.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			cartKey.Set(session, 2)
		}), crossSitePost)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if got := cartOf(lax, v); got != 2 {
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
			s := newSite(t, test.config)
			h := s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				if r.Method == http.MethodPost {
					themeKey.Set(session, "dark")
				}
			})
			newGuest(t).request(h, "GET", test.target, test.edit)
			if len(s.log.with(warning)) > 0 {
				t.Error("warned of a response without a cookie")
			}
			for range 3 {
				newGuest(t).request(h, "POST", test.target, test.edit)
			}
			want := 0
			if test.warned {
				want = 1
			}
			if got := s.log.with(warning); len(got) != want {
				t.Errorf("log: %q", got)
			}
		})
	}
}

func TestTwoManagersOverOneHandlerKeepTheirSessionsApart(t *testing.T) {
	shop := newSite(t)
	admin := newSite(t, storedOnly, func(c *sojourn.Config) {
		c.Keys, c.Name = shop.keys, "admin"
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
			themeKey.Set(visitor, "dark")
			themeKey.Set(staff, "light")
			staff.Login("root")
			return
		}
		if themeKey.Get(visitor) != "dark" || themeKey.Get(staff) != "light" || visitor.User() != "" || staff.User() != "root" {
			t.Errorf("shop: %q %q, admin: %q %q", themeKey.Get(visitor), visitor.User(), themeKey.Get(staff), staff.User())
		}
	})))
	v := newGuest(t)
	resp := v.request(h, "POST", "https://shop.example/admin")
	wantCookies(t, resp, "__Secure-admin", stateCookie) // the inner one commits first
	if got := resp.Header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary %q", got)
	}
	if line := resp.Header["Set-Cookie"][0]; !strings.Contains(line, "Path=/admin") || !strings.Contains(line, "SameSite=Strict") {
		t.Error(line)
	}
	v.get(h)
	if shop.calls() > 0 {
		t.Error("the shop's store was called")
	}
	if lines := append(shop.log.with("ERROR"), admin.log.with("ERROR")...); len(lines) > 0 {
		t.Errorf("log: %q", lines)
	}
}

func TestWhenOneOfTwoManagersFailsTheVisitorGetsOneError(t *testing.T) {
	for name, fail := range map[string]func(outer, inner *site){
		"inner": func(_, inner *site) { inner.store.saveDown.Store(true) },
		"outer": func(outer, _ *site) { outer.store.saveDown.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			outer := newSite(t)
			inner := newSite(t, func(c *sojourn.Config) { c.Name = "inner" })
			fail(outer, inner)
			resp := newGuest(t).get(outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, s := range []*site{outer, inner} {
					session, err := s.Get(r.Context())
					if err != nil {
						t.Fatal(err)
					}
					cartKey.Set(session, 1)
				}
				if _, err := w.Write([]byte("page")); !errors.Is(err, sojourn.ErrUnavailable) {
					t.Errorf("Write: %v", err)
				}
			}))))
			wantStatus(t, resp, http.StatusServiceUnavailable)
			if got := body(t, resp); strings.Contains(got, "page") || strings.Count(got, "\n") != 1 {
				t.Errorf("body %q", got)
			}
			// An error answer of the inner one is one for the outer one too.
			if live, _ := outer.store.rows(t); live != 0 {
				t.Error("the outer manager kept its changes")
			}
		})
	}
}

func TestNestedManagersWhoseCookiesCollideAreALoggedErrorOnce(t *testing.T) {
	outer := newSite(t)
	inner := newSite(t)
	v := newGuest(t)
	h := outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = inner.Get(r.Context())
	})))
	for range 3 {
		v.get(h)
	}
	if got := inner.log.with("ERROR two session managers with the same cookie name"); len(got) != 1 {
		t.Errorf("log: %q", inner.log.all())
	}
}
