package browsers_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store/memory"
)

// These tests are about requests with several credentials, with an invalid one,
// or without one because the browser withholds it.

// redeploy returns sites of one service before and after a change of the
// cookies' attributes.
func redeploy(t *testing.T, before, after sojourn.Cookie, more ...func(*sojourn.Config)) (old, now *sitetest.Site) {
	t.Helper()
	db, keys := memory.New(), sitetest.Keys(t)
	site := func(c sojourn.Cookie, more ...func(*sojourn.Config)) *sitetest.Site {
		cfg := sojourn.Config{Store: db, Keys: keys, Cookie: c}
		for _, f := range more {
			f(&cfg)
		}
		return sitetest.LocalAt(sitetest.Manager(t, cfg), "https://studio.example.com")
	}
	return site(before), site(after, more...)
}

func former(c ...sojourn.Cookie) func(*sojourn.Config) {
	return func(cfg *sojourn.Config) { cfg.FormerCookies = c }
}

// changesOfPlace are changes after which a browser has cookies of both kinds.
var changesOfPlace = map[string]struct {
	before, after sojourn.Cookie
	renamed       bool // the prefix of the name changes, so FormerCookies is needed
}{
	"a narrower Domain": {before: sojourn.Cookie{Domain: "example.com"}, after: sojourn.Cookie{Domain: "studio.example.com"}},
	"a wider Domain":    {before: sojourn.Cookie{Domain: "studio.example.com"}, after: sojourn.Cookie{Domain: "example.com"}},
	"Partitioned":       {after: sojourn.Cookie{Partitioned: true}},
	"not Partitioned":   {before: sojourn.Cookie{Partitioned: true}},
	"another Path":      {before: sojourn.Cookie{Domain: "example.com"}, after: sojourn.Cookie{Domain: "example.com", Path: "/1"}},
	"no Domain":         {before: sojourn.Cookie{Domain: "example.com"}, renamed: true},
	"a Domain":          {after: sojourn.Cookie{Domain: "example.com"}, renamed: true},
	"no prefix":         {after: sojourn.Cookie{Insecure: true}, renamed: true},
}

func TestALoginHoldsAfterAChangeOfTheCookiesAttributes(t *testing.T) {
	for name, test := range changesOfPlace {
		for _, listed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, listed %v", name, listed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var more []func(*sojourn.Config)
					if listed || test.renamed {
						more = append(more, former(test.before))
					}
					old, now := redeploy(t, test.before, test.after, more...)
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, old, sitetest.Login("anna"))
					if got := sitetest.User(t, anna, now); got != "anna" {
						t.Fatalf("after the change the visitor is %q", got)
					}
					for round := range 3 {
						time.Sleep(time.Hour)
						sitetest.Does(t, anna, now, (*sojourn.Session).Logout)
						if got := sitetest.User(t, anna, now); got != "" {
							t.Errorf("round %d: after the logout the visitor is %q", round, got)
						}
						sitetest.Does(t, anna, now, sitetest.Login("bob"))
						if got := sitetest.User(t, anna, now); got != "bob" {
							t.Errorf("round %d: after the login the visitor is %q", round, got)
						}
					}
				})
			})
		}
	}
}

func TestALogoutEndsEverySessionThatTheBrowserPresents(t *testing.T) {
	for name, test := range changesOfPlace {
		for _, way := range []string{"logout", "login"} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var more []func(*sojourn.Config)
					if test.renamed {
						more = append(more, former(test.before))
					}
					old, now := redeploy(t, test.before, test.after, more...)
					// Two tabs, each with a login of its own: one before the change, and one
					// after it, by a browser that did not send the first one's cookie.
					anna, other := sitetest.NewBrowser(), sitetest.NewBrowser()
					sitetest.Does(t, anna, old, sitetest.Login("anna"))
					time.Sleep(time.Minute)
					other.Send(now, sitetest.Login("eve")).ArriveAt(anna)
					thief := anna.Steal()
					time.Sleep(3 * time.Minute)
					if way == "logout" {
						sitetest.Does(t, anna, now, (*sojourn.Session).Logout)
					} else {
						sitetest.Does(t, anna, now, sitetest.Login("bob"))
						if got := sitetest.User(t, anna, now); got != "bob" {
							t.Errorf("the visitor is %q", got)
						}
					}
					for _, site := range []*sitetest.Site{old, now} {
						if got := sitetest.User(t, thief.Clone(), site); got != "" {
							t.Errorf("a session is still %q's", got)
						}
					}
				})
			})
		}
	}
}

func TestANewerValueInTheCookieWinsAfterAChangeOfTheCookiesAttributes(t *testing.T) {
	for name, test := range changesOfPlace {
		for _, mode := range []sojourn.Mode{sojourn.Auto, sojourn.CookieOnly} {
			t.Run(fmt.Sprint(name, mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					kind := func(cfg *sojourn.Config) {
						if cfg.Mode = mode; mode == sojourn.CookieOnly {
							cfg.Store, cfg.InlineLimit = nil, 15000
						}
					}
					more := []func(*sojourn.Config){kind}
					if test.renamed {
						more = append(more, former(test.before))
					}
					cfg := sojourn.Config{Store: memory.New(), Cookie: test.before}
					kind(&cfg)
					cfg.Keys = nil
					keys := sitetest.Keys(t)
					cfg.Keys = keys
					old := sitetest.LocalAt(sitetest.Manager(t, cfg), "https://studio.example.com")
					after := sojourn.Config{Store: memory.New(), Keys: keys, Cookie: test.after}
					for _, f := range more {
						f(&after)
					}
					now := sitetest.LocalAt(sitetest.Manager(t, after), "https://studio.example.com")

					long := ""
					if mode == sojourn.CookieOnly {
						long = random(6000) // several numbered cookies of each kind
					}
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, old, func(s *sojourn.Session) { sitetest.Colour.Set(s, "light"+long) })
					sitetest.Does(t, anna, now, func(s *sojourn.Session) { sitetest.Colour.Set(s, "dark"+long) })
					time.Sleep(8 * time.Hour) // the cookie is refreshed
					for range 3 {
						sitetest.Look(t, anna, now, func(s *sojourn.Session) {
							if got := sitetest.Colour.Get(s); got != "dark"+long {
								t.Fatalf("the colour is %.5q", got)
							}
						})
					}
					sitetest.Does(t, anna, now, func(s *sojourn.Session) { sitetest.Colour.Set(s, "grey") })
					sitetest.Look(t, anna, now, func(s *sojourn.Session) {
						if got := sitetest.Colour.Get(s); got != "grey" {
							t.Errorf("the colour is %.5q", got)
						}
					})
					sitetest.Does(t, anna, now, (*sojourn.Session).Logout)
					sitetest.Does(t, anna, now, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
					sitetest.Look(t, anna, now, func(s *sojourn.Session) {
						if got := sitetest.Colour.Get(s); got != "blue" {
							t.Errorf("after a logout the colour is %.5q", got)
						}
					})
				})
			})
		}
	}
}

func random(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}

func TestFormerCookiesExpireOnlyWhenTheBrowserHasSeveral(t *testing.T) {
	before := sojourn.Cookie{Domain: "example.com"}
	after := sojourn.Cookie{Domain: "studio.example.com"}
	old, now := redeploy(t, before, after, former(before))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, old, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	expires := func(a *sitetest.Answer) bool {
		return slices.ContainsFunc(a.Header["Set-Cookie"], func(line string) bool {
			return strings.Contains(line, "Max-Age=0") && strings.Contains(line, "Domain=example.com;")
		})
	}
	first := sitetest.Does(t, anna, now, sitetest.Login("anna")) // which one it brought is not known
	if expires(first) {
		t.Errorf("a cookie that may be another application's expires: %q", first.Header["Set-Cookie"])
	}
	second := sitetest.Does(t, anna, now, sitetest.Login("anna"))
	if !expires(second) {
		t.Errorf("the browser has two, and the former one stays: %q", second.Header["Set-Cookie"])
	}
	if third := sitetest.Does(t, anna, now, sitetest.Login("anna")); expires(third) {
		t.Errorf("it expires once more: %q", third.Header["Set-Cookie"])
	}
}

func TestFormerCookiesAreChecked(t *testing.T) {
	for name, cfg := range map[string]sojourn.Config{
		"the same as now":      {FormerCookies: []sojourn.Cookie{{SameSite: http.SameSiteStrictMode}}},
		"no host name":         {FormerCookies: []sojourn.Cookie{{Domain: "a b"}}},
		"a bad one, not first": {FormerCookies: []sojourn.Cookie{{Domain: "example.com"}, {Path: "x"}}},
	} {
		cfg.Store, cfg.Keys = memory.New(), sitetest.Keys(t)
		if _, err := sojourn.New(cfg); err == nil || !strings.Contains(err.Error(), "FormerCookies[") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// crossSiteLink is a request by a link, a form or an image of another site.
var crossSiteRequests = map[string]struct {
	method, mode, dest string
	withheld           func(http.SameSite) bool
}{
	"a link":       {"GET", "navigate", "document", func(s http.SameSite) bool { return s == http.SameSiteStrictMode }},
	"a HEAD":       {"HEAD", "navigate", "document", func(s http.SameSite) bool { return s == http.SameSiteStrictMode }},
	"a form":       {"POST", "navigate", "document", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
	"a frame":      {"GET", "navigate", "iframe", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
	"an image":     {"GET", "no-cors", "image", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
	"a fetch":      {"GET", "cors", "empty", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
	"a DELETE":     {"DELETE", "cors", "empty", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
	"no metadata":  {"GET", "", "", func(s http.SameSite) bool { return s == http.SameSiteStrictMode }},
	"a PUT, plain": {"PUT", "", "", func(s http.SameSite) bool { return s != http.SameSiteNoneMode }},
}

// The browser withholds its cookies from these requests, so a cookie of the
// response could replace a login or a cart.
func TestARequestFromAnotherSiteReplacesNoWithheldCookie(t *testing.T) {
	changes := map[string]func(*sojourn.Session){
		"inline":      func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored":      func(s *sojourn.Session) { sitetest.CartKey.Update(s, func(n int) int { return n + 1 }) },
		"flash":       func(s *sojourn.Session) { s.Flash("info", "Paid") },
		"remembering": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark"); s.Remember(true) },
		"a logout":    func(s *sojourn.Session) { s.Logout(); s.Flash("info", "Signed out") },
	}
	for _, sameSite := range []http.SameSite{http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode} {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Cookie.SameSite = sameSite })
		for from, request := range crossSiteRequests {
			edit := func(r *http.Request) {
				r.Method = request.method
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				for name, value := range map[string]string{"Sec-Fetch-Mode": request.mode, "Sec-Fetch-Dest": request.dest} {
					if value != "" {
						r.Header.Set(name, value)
					}
				}
			}
			for name, change := range changes {
				t.Run(fmt.Sprint(sameSite, from, name), func(t *testing.T) {
					resp := sitetest.NewGuest(t).Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { change(session) }), edit)
					if !request.withheld(sameSite) {
						sitetest.WantStatus(t, resp, http.StatusOK)
						if len(resp.Header["Set-Cookie"]) == 0 {
							t.Error("nothing was kept")
						}
						return
					}
					sitetest.WantStatus(t, resp, http.StatusConflict)
					sitetest.WantCookies(t, resp)
				})
			}
			t.Run(fmt.Sprint(sameSite, from, "a login"), func(t *testing.T) {
				resp := sitetest.NewGuest(t).Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { session.Login("anna") }), edit)
				sitetest.WantStatus(t, resp, http.StatusOK)
				sitetest.WantCookies(t, resp, sitetest.RefCookie)
			})
			t.Run(fmt.Sprint(sameSite, from, "a reader"), func(t *testing.T) {
				resp := sitetest.NewGuest(t).Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { sitetest.ThemeKey.Get(session) }), edit)
				sitetest.WantStatus(t, resp, http.StatusOK)
				sitetest.WantCookies(t, resp)
			})
		}
	}
}

// The page reloads itself only if that cannot loop: in a sandbox every request
// counts as another site's; internal/test/system/browser shows the browsers'
// header.
func TestALinkFromAnotherSiteToAPageThatWritesIsAskedForAgain(t *testing.T) {
	for name, c := range map[string]struct {
		header  map[string]string
		refresh bool
	}{
		"a click":                            {map[string]string{"Sec-Fetch-User": "?1"}, true},
		"a click that names no page":         {map[string]string{"Sec-Fetch-User": "?1", "Referer": ""}, true},
		"a script":                           {map[string]string{"Referer": "https://other.test/"}, true},
		"a script at another port":           {map[string]string{"Referer": "https://example.com:8443/"}, true},
		"a script that names no page":        {nil, false},
		"a refresh":                          {map[string]string{"Referer": "https://example.com/cart"}, false},
		"a referrer that is no address":      {map[string]string{"Referer": "about:client"}, false},
		"a referrer that cannot be read":     {map[string]string{"Referer": "https://%zz/"}, false},
		"something that says it is no click": {map[string]string{"Sec-Fetch-User": "?0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteStrictMode })
			visit := s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				sitetest.CartKey.Set(session, 1)
			})
			resp := sitetest.NewGuest(t).Get(visit, func(r *http.Request) {
				r.Host = "example.com"
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header.Set("Sec-Fetch-Mode", "navigate")
				r.Header.Set("Sec-Fetch-Dest", "document")
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
			})
			sitetest.WantStatus(t, resp, http.StatusConflict)
			sitetest.WantCookies(t, resp)
			text := sitetest.Body(t, resp)
			if !strings.Contains(text, `<a id="continue" href="">`) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%v: %s", resp.Header, text)
			}
			if got := strings.Contains(text, "refresh"); got != c.refresh {
				t.Errorf("it asks again by itself: %v", got)
			}
		})
	}
}

// Browsers show plain text too small to read on a phone.
func TestAnErrorIsAPageForBrowsersAndTextForPrograms(t *testing.T) {
	const tooLarge = "What you sent does not fit into your session."
	s := sitetest.NewLab(t)
	h := s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Set("page", make([]byte, 2<<20))
	})
	for mode, page := range map[string]bool{"navigate": true, "cors": false, "same-origin": false, "": false} {
		resp := sitetest.NewGuest(t).Get(h, func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", mode) })
		sitetest.WantStatus(t, resp, http.StatusRequestEntityTooLarge)
		kind, text := resp.Header.Get("Content-Type"), sitetest.Body(t, resp)
		if page && (kind != "text/html; charset=utf-8" || !strings.Contains(text, `<meta name="viewport"`) || !strings.Contains(text, "<p>"+tooLarge)) ||
			!page && (kind != "text/plain; charset=utf-8" || text != tooLarge+"\n") {
			t.Errorf("Sec-Fetch-Mode %q is answered with %s: %s", mode, kind, text)
		}
	}
}

// endings are the ways to end a session other than by its own browser.
func endings(site *sitetest.Site, handle string) map[string]func(t *testing.T) {
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := site.Manager
	return map[string]func(t *testing.T){
		"revoked": func(t *testing.T) { check(t, m.Revoke(t.Context(), "anna", handle)) },
		"revoked with all of the user's": func(t *testing.T) {
			_, err := m.RevokeUser(t.Context(), "anna")
			check(t, err)
		},
		"erased": func(t *testing.T) {
			_, err := m.EraseUser(t.Context(), "anna")
			check(t, err)
		},
		"ended by an operator": func(t *testing.T) { check(t, ops.For(m).End(t.Context(), handle)) },
		"evicted by a login elsewhere": func(t *testing.T) {
			sitetest.Does(t, sitetest.NewBrowser(), site, sitetest.Login("anna"))
		},
	}
}

func TestARevokedBrowserStartsAnewAtOnce(t *testing.T) {
	for _, name := range []string{"revoked", "revoked with all of the user's", "erased", "ended by an operator", "evicted by a login elsewhere"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), Limit: sojourn.Limit{Max: 1}}))
				anna := sitetest.NewBrowser()
				var handle string
				sitetest.Does(t, anna, site, func(s *sojourn.Session) { s.Login("anna"); handle = s.Handle() })
				endings(site, handle)[name](t)
				sitetest.Does(t, anna, site, func(s *sojourn.Session) { // as /oauth/start does
					if s.User() != "" || !s.IsNew() {
						t.Errorf("the session is %q's", s.User())
					}
					sitetest.Visits.Set(s, 1)
				})
				sitetest.Look(t, anna, site, func(s *sojourn.Session) {
					if sitetest.Visits.Get(s) != 1 || s.Handle() == handle {
						t.Errorf("the new session has %d, handle changed %v", sitetest.Visits.Get(s), s.Handle() != handle)
					}
				})
			})
		})
	}
}

// A request whose session was just ended by a login or a logout may have begun
// before the browser received the new session.
func TestARequestWithAReplacedCredentialIsRefusedOnceAndThenStartsAnew(t *testing.T) {
	for name, end := range map[string]func(*sojourn.Session){
		"logout":          (*sojourn.Session).Logout,
		"login":           sitetest.Login("anna"),
		"login of others": sitetest.Login("bob"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, site, sitetest.Login("anna"))
				lost := anna.Clone() // a browser that never gets the answer
				sitetest.Does(t, anna, site, end)
				write := func(s *sojourn.Session) { sitetest.Visits.Set(s, 1); s.Flash("info", "Added") }
				sitetest.Look(t, lost, site, func(*sojourn.Session) {})
				a := lost.Visit(site, write)
				if a.Status != http.StatusUnauthorized || !strings.Contains(a.Body, "signed out") {
					t.Errorf("got %d %s", a.Status, a.Body)
				}
				if slices.Contains(a.SetCookies(), sitetest.RefCookie) {
					t.Errorf("it sets %q, and may replace a newer one", a.SetCookies())
				}
				sitetest.Does(t, lost, site, write)
				sitetest.Look(t, lost, site, func(s *sojourn.Session) {
					if sitetest.Visits.Get(s) != 1 || s.User() != "" {
						t.Errorf("the new session has %d, user %q", sitetest.Visits.Get(s), s.User())
					}
				})
			})
		})
	}
}

// outdated returns a browser with a credential that two rotations have
// invalidated, and one with the newest.
func outdated(t *testing.T, site *sitetest.Site, begin func(*sojourn.Session)) (old, newest *sitetest.Browser) {
	t.Helper()
	newest = sitetest.NewBrowser()
	sitetest.Does(t, newest, site, begin)
	old = newest.Clone()
	for range 2 {
		sitetest.Does(t, newest, site, (*sojourn.Session).Rotate)
		sitetest.Does(t, newest, site, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
		time.Sleep(3 * time.Minute)
	}
	return old, newest
}

func TestAnOutdatedCredentialReplacesNoNewerOne(t *testing.T) {
	for name, change := range map[string]func(*sojourn.Session){
		"a stored value":    func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
		"a value inline":    func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"a flash message":   func(s *sojourn.Session) { s.Flash("info", "Hello") },
		"the expiry":        func(s *sojourn.Session) { sitetest.Colour.Set(s, "red"); s.SetExpiry(time.Hour, 0) },
		"a logout and more": func(s *sojourn.Session) { s.Logout(); sitetest.Colour.Set(s, "red") },
	} {
		for kind, begin := range map[string]func(*sojourn.Session){
			"a login": sitetest.Login("anna"),
			"a cart":  func(s *sojourn.Session) { sitetest.Visits.Set(s, 7) },
		} {
			t.Run(name+" after "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
					old, newest := outdated(t, site, begin)
					a := old.Send(site, change)
					a.ArriveAt(newest)
					if a.Status != http.StatusUnauthorized {
						t.Errorf("got %d", a.Status)
					}
					sitetest.Look(t, newest, site, func(s *sojourn.Session) {
						if s.IsNew() || s.User() == "" && sitetest.Visits.Get(s) != 7 {
							t.Error("the browser has lost its session")
						}
					})
					// A browser without a newer credential starts a new session with the next request.
					a.Arrive()
					sitetest.Does(t, old, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
					sitetest.Look(t, old, site, func(s *sojourn.Session) {
						if sitetest.Visits.Get(s) != 1 || s.User() != "" {
							t.Errorf("the new session has %d, user %q", sitetest.Visits.Get(s), s.User())
						}
					})
				})
			})
		}
	}
	t.Run("but may log in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
			old, _ := outdated(t, site, sitetest.Login("anna"))
			sitetest.Does(t, old, site, sitetest.Login("anna"))
			if got := sitetest.User(t, old, site); got != "anna" {
				t.Errorf("the visitor is %q", got)
			}
		})
	})
}

// A replica may not have a new key yet. It must not replace credentials sealed with that key.
func TestAReferenceOfAnUnknownKeyIsReplacedOnlyWhenTheBrowserHasNothingBetter(t *testing.T) {
	db := memory.New()
	one := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
	other := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, one, sitetest.Login("anna"))
	sitetest.Does(t, anna, other, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") }) // in a cookie of its own
	a := anna.Visit(other, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), sitetest.RefCookie) {
		t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
	}
	if got := sitetest.User(t, anna, one); got != "anna" {
		t.Errorf("on the replica that knows the key the visitor is %q", got)
	}
	sitetest.Does(t, anna, other, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) }) // it has come again
	sitetest.Look(t, anna, other, func(s *sojourn.Session) {
		if sitetest.Visits.Get(s) != 1 {
			t.Error("the change was not kept")
		}
	})
}

func TestAnOldInlineCookieDoesNotLeadToTheStoredSession(t *testing.T) {
	for name, later := range map[string]func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site){
		"after four rotations": func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site) {
			for range 4 {
				sitetest.Does(t, anna, site, (*sojourn.Session).Rotate)
				sitetest.Look(t, anna, site, func(*sojourn.Session) {})
				time.Sleep(3 * time.Minute)
			}
		},
		"after the grace": func(*testing.T, *sitetest.Browser, *sitetest.Site) {
			time.Sleep(2*time.Minute + time.Millisecond)
		},
		"after days of reading": func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site) {
			for range 5 {
				time.Sleep(24 * time.Hour)
				sitetest.Look(t, anna, site, func(*sojourn.Session) {})
			}
		},
	} {
		for change, f := range map[string]func(*sojourn.Session){
			"writes": func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
			"saves":  func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne); _ = s.Save(context.Background()) },
			"logs in": func(s *sojourn.Session) {
				s.Login("eve")
				sitetest.Visits.Update(s, sitetest.AddOne)
			},
		} {
			t.Run(name+" it "+change, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
					anna := sitetest.NewBrowser()
					sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
					thief := anna.Clone()
					var handle string
					sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 41); handle = s.Handle() })
					later(t, anna, site)
					if change != "logs in" {
						// The browser may have the session's reference, which the answer must
						// not replace.
						a := thief.Visit(site, f)
						if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), sitetest.RefCookie) {
							t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
						}
					}
					sitetest.Does(t, thief, site, f)
					sitetest.Look(t, thief, site, func(s *sojourn.Session) {
						if s.Handle() == handle || sitetest.Visits.Get(s) != 1 || sitetest.Colour.Get(s) != "red" {
							t.Errorf("the old cookie leads to the session: %v, count %d, %q", s.Handle() == handle, sitetest.Visits.Get(s), sitetest.Colour.Get(s))
						}
					})
					sitetest.Look(t, anna, site, func(s *sojourn.Session) {
						if s.IsNew() || s.Handle() != handle || sitetest.Visits.Get(s) != 41 {
							t.Errorf("the visitor's own session: new %v, count %d", s.IsNew(), sitetest.Visits.Get(s))
						}
					})
				})
			})
		}
	}
	t.Run("but requests under way join", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
			slow := anna.Begin(site)
			sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 41) })
			time.Sleep(time.Hour)
			slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }).Arrive()
			sitetest.Look(t, anna, site, func(s *sojourn.Session) {
				if sitetest.Visits.Get(s) != 42 {
					t.Errorf("the count is %d", sitetest.Visits.Get(s))
				}
			})
		})
	})
}

// The browser has learned of the end of every session that it presented.
func TestACredentialThatALoginEndedBesideItsOwnReplacesNoNewerOne(t *testing.T) {
	for name, test := range changesOfPlace {
		for way, end := range map[string]func(*sojourn.Session){
			"a login":             sitetest.Login("bob"),
			"a logout, and login": func(s *sojourn.Session) { s.Logout(); s.Login("bob") },
			"a login of the same": sitetest.Login("eve"),
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					old, now := redeploy(t, test.before, test.after, former(test.before))
					anna, other := sitetest.NewBrowser(), sitetest.NewBrowser()
					sitetest.Does(t, anna, old, sitetest.Login("anna"))
					lates := []*sitetest.Browser{anna.Clone(), other} // with one cookie each
					sitetest.Does(t, other, now, sitetest.Login("eve")).ArriveAt(anna)
					sitetest.Does(t, anna, now, end)
					for _, late := range lates {
						a := late.Send(now, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
						if a.Status != http.StatusUnauthorized {
							t.Errorf("got %d", a.Status)
						}
						a.ArriveAt(anna)
						if sitetest.User(t, anna, now) == "" {
							t.Error("the browser has lost its session")
						}
					}
				})
			})
		}
	}
}

// As after a lost answer to a login, when the browser sends another request.
func TestAnInlineCookieOfAnEndedSessionIsRefusedOnce(t *testing.T) {
	for name, end := range map[string]struct {
		do      func(*sojourn.Session)
		handle  bool // end it by its handle then
		refused bool
	}{
		"a login":       {do: sitetest.Login("anna"), refused: true},
		"a logout":      {do: (*sojourn.Session).Logout, refused: true},
		"an operator":   {do: func(*sojourn.Session) {}, handle: true},
		"another login": {do: sitetest.Login("bob"), refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
				lost := anna.Clone()
				var handle string
				sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 41); handle = s.Handle() })
				sitetest.Does(t, anna, site, end.do)
				if end.handle {
					if err := ops.For(site.Manager).End(t.Context(), handle); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				write := func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }
				if end.refused {
					a := lost.Visit(site, write)
					if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), sitetest.RefCookie) {
						t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
					}
				}
				sitetest.Does(t, lost, site, write)
				sitetest.Look(t, lost, site, func(s *sojourn.Session) {
					if sitetest.Visits.Get(s) != 1 || s.User() != "" || s.Handle() == handle {
						t.Errorf("the new session is %q's, with %d", s.User(), sitetest.Visits.Get(s))
					}
				})
			})
		})
	}
}

// The tombstone of a formerly inline session outlives every cookie with it,
// even refreshed ones: if a session was stored again under its identifier, its
// old references would be valid again.
func TestNoOldCookieRevivesAnEndedSessionsReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), IdleTimeout: 100 * time.Hour}))
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		inline := anna.Clone()
		sitetest.Does(t, anna, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		reference := anna.Steal()
		sitetest.Does(t, anna, site, (*sojourn.Session).Logout)
		for range 5 {
			time.Sleep(80 * time.Hour)
			sitetest.Look(t, inline, site, func(*sojourn.Session) {})
		}
		sitetest.Does(t, inline, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) })
		sitetest.Look(t, reference, site, func(s *sojourn.Session) {
			if !s.IsNew() {
				t.Error("a reference from before the logout leads to a session")
			}
		})
	})
}

func TestCredentialsUnderClocksThatDifferByAMinute(t *testing.T) {
	// Waiting a minute less or longer simulates a replica whose clock is a
	// minute ahead or behind.
	synctest.Test(t, func(t *testing.T) {
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), Rotation: sojourn.Rotation{Grace: 20 * time.Second}}))
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, site, sitetest.Login("anna"))
		slow := anna.Clone()
		sitetest.Does(t, anna, site, (*sojourn.Session).Rotate)
		sitetest.Look(t, anna, site, func(*sojourn.Session) {})
		time.Sleep(20*time.Second + time.Minute)
		if sitetest.User(t, slow, site) != "anna" {
			t.Error("a request within the grace is refused by a clock that is a minute ahead")
		}
	})
}

// A page may be stored or shown to others, so a credential in it, or in a
// header that scripts can read, would be as dangerous as a leaked cookie.
func TestACookiesValueLeavesOnlyBySetCookie(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	for _, change := range []func(*sojourn.Session){
		func(x *sojourn.Session) { sitetest.ThemeKey.Set(x, "dark") },
		func(x *sojourn.Session) { sitetest.CartKey.Set(x, 1) },
		func(x *sojourn.Session) { x.Login("anna") },
		(*sojourn.Session).Rotate,
		(*sojourn.Session).Logout,
	} {
		resp := v.Get(s.Handler(func(w http.ResponseWriter, _ *http.Request, x *sojourn.Session) {
			change(x)
			fmt.Fprint(w, "a page")
		}))
		text := sitetest.Body(t, resp)
		for _, c := range resp.Cookies() {
			if c.Value == "" {
				continue
			}
			for name, lines := range resp.Header {
				if name != "Set-Cookie" && strings.Contains(strings.Join(lines, "\n"), c.Value) {
					t.Errorf("the value of %s is in the header %s", c.Name, name)
				}
			}
			if strings.Contains(text, c.Value) {
				t.Errorf("the value of %s is in the page", c.Name)
			}
		}
	}
}

func TestARequestThatDeclaresItselfBackgroundIsNoActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), IdleTimeout: time.Hour}))
		for kind, begin := range map[string]func(*sojourn.Session){
			"stored": sitetest.Login("anna"),
			"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		} {
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, site, begin)
			polls := anna.Clone()
			polls.Header.Set("Sojourn-Background", "1")
			for range 5 {
				time.Sleep(11 * time.Minute)
				polls.Send(site, func(s *sojourn.Session) { s.User() }).ArriveAt(anna)
			}
			time.Sleep(6 * time.Minute)
			if !sitetest.IsNew(t, anna, site) {
				t.Errorf("%s: a page that polls kept its session alive", kind)
			}
		}
	})
}
