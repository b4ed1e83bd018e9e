package sojourn_test

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

// The tests here are about requests that bring several credentials, one that is
// not good any more, or none because the browser withholds it.

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

func user(t *testing.T, b *sitetest.Browser, site *sitetest.Site) (user string) {
	t.Helper()
	look(t, b, site, func(s *sojourn.Session) { user = s.User() })
	return user
}

func login(name string) func(*sojourn.Session) {
	return func(s *sojourn.Session) { s.Login(name) }
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
					does(t, anna, old, login("anna"))
					if got := user(t, anna, now); got != "anna" {
						t.Fatalf("after the change the visitor is %q", got)
					}
					for round := range 3 {
						time.Sleep(time.Hour)
						does(t, anna, now, (*sojourn.Session).Logout)
						if got := user(t, anna, now); got != "" {
							t.Errorf("round %d: after the logout the visitor is %q", round, got)
						}
						does(t, anna, now, login("bob"))
						if got := user(t, anna, now); got != "bob" {
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
					does(t, anna, old, login("anna"))
					time.Sleep(time.Minute)
					other.Send(now, login("eve")).ArriveAt(anna)
					thief := anna.Steal()
					time.Sleep(3 * time.Minute)
					if way == "logout" {
						does(t, anna, now, (*sojourn.Session).Logout)
					} else {
						does(t, anna, now, login("bob"))
						if got := user(t, anna, now); got != "bob" {
							t.Errorf("the visitor is %q", got)
						}
					}
					for _, site := range []*sitetest.Site{old, now} {
						if got := user(t, thief.Clone(), site); got != "" {
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
					does(t, anna, old, func(s *sojourn.Session) { colour.Set(s, "light"+long) })
					does(t, anna, now, func(s *sojourn.Session) { colour.Set(s, "dark"+long) })
					time.Sleep(8 * time.Hour) // the cookie is refreshed
					for range 3 {
						look(t, anna, now, func(s *sojourn.Session) {
							if got := colour.Get(s); got != "dark"+long {
								t.Fatalf("the colour is %.5q", got)
							}
						})
					}
					does(t, anna, now, func(s *sojourn.Session) { colour.Set(s, "grey") })
					look(t, anna, now, func(s *sojourn.Session) {
						if got := colour.Get(s); got != "grey" {
							t.Errorf("the colour is %.5q", got)
						}
					})
					does(t, anna, now, (*sojourn.Session).Logout)
					does(t, anna, now, func(s *sojourn.Session) { colour.Set(s, "blue") })
					look(t, anna, now, func(s *sojourn.Session) {
						if got := colour.Get(s); got != "blue" {
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
	does(t, anna, old, func(s *sojourn.Session) { visits.Set(s, 1) })
	expires := func(a *sitetest.Answer) bool {
		return slices.ContainsFunc(a.Header["Set-Cookie"], func(line string) bool {
			return strings.Contains(line, "Max-Age=0") && strings.Contains(line, "Domain=example.com;")
		})
	}
	first := does(t, anna, now, login("anna")) // which one it brought is not known
	if expires(first) {
		t.Errorf("a cookie that may be another application's expires: %q", first.Header["Set-Cookie"])
	}
	second := does(t, anna, now, login("anna"))
	if !expires(second) {
		t.Errorf("the browser has two, and the former one stays: %q", second.Header["Set-Cookie"])
	}
	if third := does(t, anna, now, login("anna")); expires(third) {
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

// The browser withholds its cookies from these requests. So it may have a login
// or a cart that a cookie of the response would replace.
func TestARequestFromAnotherSiteReplacesNoWithheldCookie(t *testing.T) {
	changes := map[string]func(*sojourn.Session){
		"inline":      func(s *sojourn.Session) { themeKey.Set(s, "dark") },
		"stored":      func(s *sojourn.Session) { cartKey.Update(s, func(n int) int { return n + 1 }) },
		"flash":       func(s *sojourn.Session) { s.Flash("info", "Paid") },
		"remembering": func(s *sojourn.Session) { themeKey.Set(s, "dark"); s.Remember(true) },
		"a logout":    func(s *sojourn.Session) { s.Logout(); s.Flash("info", "Signed out") },
	}
	for _, sameSite := range []http.SameSite{http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode} {
		s := newSite(t, func(c *sojourn.Config) { c.Cookie.SameSite = sameSite })
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
					resp := newGuest(t).get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { change(session) }), edit)
					if !request.withheld(sameSite) {
						wantStatus(t, resp, http.StatusOK)
						if len(resp.Header["Set-Cookie"]) == 0 {
							t.Error("nothing was kept")
						}
						return
					}
					wantStatus(t, resp, http.StatusConflict)
					wantCookies(t, resp)
				})
			}
			t.Run(fmt.Sprint(sameSite, from, "a login"), func(t *testing.T) {
				resp := newGuest(t).get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { session.Login("anna") }), edit)
				wantStatus(t, resp, http.StatusOK)
				wantCookies(t, resp, refCookie)
			})
			t.Run(fmt.Sprint(sameSite, from, "a reader"), func(t *testing.T) {
				resp := newGuest(t).get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { themeKey.Get(session) }), edit)
				wantStatus(t, resp, http.StatusOK)
				wantCookies(t, resp)
			})
		}
	}
}

// The page asks again by itself only where that cannot go round in circles: in a
// sandbox every request is another site's, and internal/test/system/browser shows
// what browsers say then.
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
			s := newSite(t, func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteStrictMode })
			visit := s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) { cartKey.Set(session, 1) })
			resp := newGuest(t).get(visit, func(r *http.Request) {
				r.Host = "example.com"
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header.Set("Sec-Fetch-Mode", "navigate")
				r.Header.Set("Sec-Fetch-Dest", "document")
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
			})
			wantStatus(t, resp, http.StatusConflict)
			wantCookies(t, resp)
			text := body(t, resp)
			if !strings.Contains(text, `<a id="continue" href="">`) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%v: %s", resp.Header, text)
			}
			if got := strings.Contains(text, "refresh"); got != c.refresh {
				t.Errorf("it asks again by itself: %v", got)
			}
		})
	}
}

// Browsers show plain text in letters that nobody can read on a phone.
func TestAnErrorIsAPageForBrowsersAndTextForPrograms(t *testing.T) {
	const tooLarge = "What you sent does not fit into your session."
	s := newSite(t)
	h := s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Set("page", make([]byte, 2<<20))
	})
	for mode, page := range map[string]bool{"navigate": true, "cors": false, "same-origin": false, "": false} {
		resp := newGuest(t).get(h, func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", mode) })
		wantStatus(t, resp, http.StatusRequestEntityTooLarge)
		kind, text := resp.Header.Get("Content-Type"), body(t, resp)
		if page && (kind != "text/html; charset=utf-8" || !strings.Contains(text, `<meta name="viewport"`) || !strings.Contains(text, "<p>"+tooLarge)) ||
			!page && (kind != "text/plain; charset=utf-8" || text != tooLarge+"\n") {
			t.Errorf("Sec-Fetch-Mode %q is answered with %s: %s", mode, kind, text)
		}
	}
}

// ends are the ways in which a session ends that nobody in its browser asked for.
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
			does(t, sitetest.NewBrowser(), site, login("anna"))
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
				does(t, anna, site, func(s *sojourn.Session) { s.Login("anna"); handle = s.Handle() })
				endings(site, handle)[name](t)
				does(t, anna, site, func(s *sojourn.Session) { // as /oauth/start does
					if s.User() != "" || !s.IsNew() {
						t.Errorf("the session is %q's", s.User())
					}
					visits.Set(s, 1)
				})
				look(t, anna, site, func(s *sojourn.Session) {
					if visits.Get(s) != 1 || s.Handle() == handle {
						t.Errorf("the new session has %d, handle changed %v", visits.Get(s), s.Handle() != handle)
					}
				})
			})
		})
	}
}

// A request whose session a login or a logout has just ended may have begun
// before the browser got the successor.
func TestARequestWithAReplacedCredentialIsRefusedOnceAndThenStartsAnew(t *testing.T) {
	for name, end := range map[string]func(*sojourn.Session){
		"logout":          (*sojourn.Session).Logout,
		"login":           login("anna"),
		"login of others": login("bob"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
				anna := sitetest.NewBrowser()
				does(t, anna, site, login("anna"))
				lost := anna.Clone() // a browser that never gets the answer
				does(t, anna, site, end)
				write := func(s *sojourn.Session) { visits.Set(s, 1); s.Flash("info", "Added") }
				look(t, lost, site, func(*sojourn.Session) {})
				a := lost.Visit(site, write)
				if a.Status != http.StatusUnauthorized || !strings.Contains(a.Body, "signed out") {
					t.Errorf("got %d %s", a.Status, a.Body)
				}
				if slices.Contains(a.SetCookies(), refCookie) {
					t.Errorf("it sets %q, and may replace a newer one", a.SetCookies())
				}
				does(t, lost, site, write)
				look(t, lost, site, func(s *sojourn.Session) {
					if visits.Get(s) != 1 || s.User() != "" {
						t.Errorf("the new session has %d, user %q", visits.Get(s), s.User())
					}
				})
			})
		})
	}
}

// outdated returns a browser with a credential that two rotations have made
// worthless, and the one with the newest.
func outdated(t *testing.T, site *sitetest.Site, begin func(*sojourn.Session)) (old, newest *sitetest.Browser) {
	t.Helper()
	newest = sitetest.NewBrowser()
	does(t, newest, site, begin)
	old = newest.Clone()
	for range 2 {
		does(t, newest, site, (*sojourn.Session).Rotate)
		does(t, newest, site, func(s *sojourn.Session) { visits.Get(s) })
		time.Sleep(3 * time.Minute)
	}
	return old, newest
}

func TestAnOutdatedCredentialReplacesNoNewerOne(t *testing.T) {
	for name, change := range map[string]func(*sojourn.Session){
		"a stored value":    func(s *sojourn.Session) { visits.Update(s, addOne) },
		"a value inline":    func(s *sojourn.Session) { colour.Set(s, "red") },
		"a flash message":   func(s *sojourn.Session) { s.Flash("info", "Hello") },
		"the expiry":        func(s *sojourn.Session) { colour.Set(s, "red"); s.SetExpiry(time.Hour, 0) },
		"a logout and more": func(s *sojourn.Session) { s.Logout(); colour.Set(s, "red") },
	} {
		for kind, begin := range map[string]func(*sojourn.Session){
			"a login": login("anna"),
			"a cart":  func(s *sojourn.Session) { visits.Set(s, 7) },
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
					look(t, newest, site, func(s *sojourn.Session) {
						if s.IsNew() || s.User() == "" && visits.Get(s) != 7 {
							t.Error("the browser has lost its session")
						}
					})
					// Whoever has nothing better starts anew with the next request.
					a.Arrive()
					does(t, old, site, func(s *sojourn.Session) { visits.Set(s, 1) })
					look(t, old, site, func(s *sojourn.Session) {
						if visits.Get(s) != 1 || s.User() != "" {
							t.Errorf("the new session has %d, user %q", visits.Get(s), s.User())
						}
					})
				})
			})
		}
	}
	t.Run("but may log in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
			old, _ := outdated(t, site, login("anna"))
			does(t, old, site, login("anna"))
			if got := user(t, old, site); got != "anna" {
				t.Errorf("the visitor is %q", got)
			}
		})
	})
}

// Replicas may lack a key for a while. What it sealed is not theirs to replace.
func TestAReferenceOfAnUnknownKeyIsReplacedOnlyWhenTheBrowserHasNothingBetter(t *testing.T) {
	db := memory.New()
	one := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
	other := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
	anna := sitetest.NewBrowser()
	does(t, anna, one, login("anna"))
	does(t, anna, other, func(s *sojourn.Session) { colour.Set(s, "red") }) // in a cookie of its own
	a := anna.Visit(other, func(s *sojourn.Session) { visits.Set(s, 1) })
	if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), refCookie) {
		t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
	}
	if got := user(t, anna, one); got != "anna" {
		t.Errorf("on the replica that knows the key the visitor is %q", got)
	}
	does(t, anna, other, func(s *sojourn.Session) { visits.Set(s, 1) }) // it has come again
	look(t, anna, other, func(s *sojourn.Session) {
		if visits.Get(s) != 1 {
			t.Error("the change was not kept")
		}
	})
}

func TestAnOldInlineCookieDoesNotLeadToTheStoredSession(t *testing.T) {
	for name, later := range map[string]func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site){
		"after four rotations": func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site) {
			for range 4 {
				does(t, anna, site, (*sojourn.Session).Rotate)
				look(t, anna, site, func(*sojourn.Session) {})
				time.Sleep(3 * time.Minute)
			}
		},
		"after the grace": func(*testing.T, *sitetest.Browser, *sitetest.Site) {
			time.Sleep(2*time.Minute + time.Millisecond)
		},
		"after days of reading": func(t *testing.T, anna *sitetest.Browser, site *sitetest.Site) {
			for range 5 {
				time.Sleep(24 * time.Hour)
				look(t, anna, site, func(*sojourn.Session) {})
			}
		},
	} {
		for change, f := range map[string]func(*sojourn.Session){
			"writes": func(s *sojourn.Session) { visits.Update(s, addOne) },
			"saves":  func(s *sojourn.Session) { visits.Update(s, addOne); _ = s.Save(context.Background()) },
			"logs in": func(s *sojourn.Session) {
				s.Login("eve")
				visits.Update(s, addOne)
			},
		} {
			t.Run(name+" it "+change, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
					anna := sitetest.NewBrowser()
					does(t, anna, site, func(s *sojourn.Session) { colour.Set(s, "red") })
					thief := anna.Clone()
					var handle string
					does(t, anna, site, func(s *sojourn.Session) { visits.Set(s, 41); handle = s.Handle() })
					later(t, anna, site)
					if change != "logs in" {
						// The browser may have the session's reference, which the answer must
						// not replace.
						a := thief.Visit(site, f)
						if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), refCookie) {
							t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
						}
					}
					does(t, thief, site, f)
					look(t, thief, site, func(s *sojourn.Session) {
						if s.Handle() == handle || visits.Get(s) != 1 || colour.Get(s) != "red" {
							t.Errorf("the old cookie leads to the session: %v, count %d, %q", s.Handle() == handle, visits.Get(s), colour.Get(s))
						}
					})
					look(t, anna, site, func(s *sojourn.Session) {
						if s.IsNew() || s.Handle() != handle || visits.Get(s) != 41 {
							t.Errorf("the visitor's own session: new %v, count %d", s.IsNew(), visits.Get(s))
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
			does(t, anna, site, func(s *sojourn.Session) { colour.Set(s, "red") })
			slow := anna.Begin(site)
			does(t, anna, site, func(s *sojourn.Session) { visits.Set(s, 41) })
			time.Sleep(time.Hour)
			slow.Finish(func(s *sojourn.Session) { visits.Update(s, addOne) }).Arrive()
			look(t, anna, site, func(s *sojourn.Session) {
				if visits.Get(s) != 42 {
					t.Errorf("the count is %d", visits.Get(s))
				}
			})
		})
	})
}

// The browser was told of the end of every session that it presented.
func TestACredentialThatALoginEndedBesideItsOwnReplacesNoNewerOne(t *testing.T) {
	for name, test := range changesOfPlace {
		for way, end := range map[string]func(*sojourn.Session){
			"a login":             login("bob"),
			"a logout, and login": func(s *sojourn.Session) { s.Logout(); s.Login("bob") },
			"a login of the same": login("eve"),
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					old, now := redeploy(t, test.before, test.after, former(test.before))
					anna, other := sitetest.NewBrowser(), sitetest.NewBrowser()
					does(t, anna, old, login("anna"))
					lates := []*sitetest.Browser{anna.Clone(), other} // with one cookie each
					does(t, other, now, login("eve")).ArriveAt(anna)
					does(t, anna, now, end)
					for _, late := range lates {
						a := late.Send(now, func(s *sojourn.Session) { visits.Set(s, 1) })
						if a.Status != http.StatusUnauthorized {
							t.Errorf("got %d", a.Status)
						}
						a.ArriveAt(anna)
						if user(t, anna, now) == "" {
							t.Error("the browser has lost its session")
						}
					}
				})
			})
		}
	}
}

// As when the answer to a login was lost, and the browser tries something else.
func TestAnInlineCookieOfAnEndedSessionIsRefusedOnce(t *testing.T) {
	for name, end := range map[string]struct {
		do      func(*sojourn.Session)
		handle  bool // end it by its handle then
		refused bool
	}{
		"a login":       {do: login("anna"), refused: true},
		"a logout":      {do: (*sojourn.Session).Logout, refused: true},
		"an operator":   {do: func(*sojourn.Session) {}, handle: true},
		"another login": {do: login("bob"), refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
				anna := sitetest.NewBrowser()
				does(t, anna, site, func(s *sojourn.Session) { colour.Set(s, "red") })
				lost := anna.Clone()
				var handle string
				does(t, anna, site, func(s *sojourn.Session) { visits.Set(s, 41); handle = s.Handle() })
				does(t, anna, site, end.do)
				if end.handle {
					if err := ops.For(site.Manager).End(t.Context(), handle); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				write := func(s *sojourn.Session) { visits.Update(s, addOne) }
				if end.refused {
					a := lost.Visit(site, write)
					if a.Status != http.StatusUnauthorized || slices.Contains(a.SetCookies(), refCookie) {
						t.Errorf("got %d, cookies %q", a.Status, a.SetCookies())
					}
				}
				does(t, lost, site, write)
				look(t, lost, site, func(s *sojourn.Session) {
					if visits.Get(s) != 1 || s.User() != "" || s.Handle() == handle {
						t.Errorf("the new session is %q's, with %d", s.User(), visits.Get(s))
					}
				})
			})
		})
	}
}

// The tombstone of a session that came out of a cookie outlives every such
// cookie, however often that is refreshed: its old references would be good
// again if anything was stored under its identifier.
func TestNoOldCookieRevivesAnEndedSessionsReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), IdleTimeout: 100 * time.Hour}))
		anna := sitetest.NewBrowser()
		does(t, anna, site, func(s *sojourn.Session) { colour.Set(s, "red") })
		inline := anna.Clone()
		does(t, anna, site, func(s *sojourn.Session) { visits.Set(s, 1) })
		reference := anna.Steal()
		does(t, anna, site, (*sojourn.Session).Logout)
		for range 5 {
			time.Sleep(80 * time.Hour)
			look(t, inline, site, func(*sojourn.Session) {})
		}
		does(t, inline, site, func(s *sojourn.Session) { visits.Set(s, 2) })
		look(t, reference, site, func(s *sojourn.Session) {
			if !s.IsNew() {
				t.Error("a reference from before the logout leads to a session")
			}
		})
	})
}

func TestCredentialsUnderClocksThatDifferByAMinute(t *testing.T) {
	// A replica whose clock is a minute ahead or behind is played by waiting
	// that much less or longer: nothing but the clocks tells them apart.
	synctest.Test(t, func(t *testing.T) {
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New(), Rotation: sojourn.Rotation{Grace: 20 * time.Second}}))
		anna := sitetest.NewBrowser()
		does(t, anna, site, login("anna"))
		slow := anna.Clone()
		does(t, anna, site, (*sojourn.Session).Rotate)
		look(t, anna, site, func(*sojourn.Session) {})
		time.Sleep(20*time.Second + time.Minute)
		if user(t, slow, site) != "anna" {
			t.Error("a request within the grace is refused by a clock that is a minute ahead")
		}
	})
}

// A page may be kept and shown by anybody; a credential in it, or in a header
// that scripts can read, would be as good as the cookie.
func TestACookiesValueLeavesOnlyBySetCookie(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	for _, change := range []func(*sojourn.Session){
		func(x *sojourn.Session) { themeKey.Set(x, "dark") },
		func(x *sojourn.Session) { cartKey.Set(x, 1) },
		func(x *sojourn.Session) { x.Login("anna") },
		(*sojourn.Session).Rotate,
		(*sojourn.Session).Logout,
	} {
		resp := v.get(s.Handler(func(w http.ResponseWriter, _ *http.Request, x *sojourn.Session) {
			change(x)
			fmt.Fprint(w, "a page")
		}))
		text := body(t, resp)
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
			"stored": login("anna"),
			"inline": func(s *sojourn.Session) { colour.Set(s, "red") },
		} {
			anna := sitetest.NewBrowser()
			does(t, anna, site, begin)
			polls := anna.Clone()
			polls.Header.Set("Sojourn-Background", "1")
			for range 5 {
				time.Sleep(11 * time.Minute)
				polls.Send(site, func(s *sojourn.Session) { s.User() }).ArriveAt(anna)
			}
			time.Sleep(6 * time.Minute)
			if !isNew(t, anna, site) {
				t.Errorf("%s: a page that polls kept its session alive", kind)
			}
		}
	})
}
