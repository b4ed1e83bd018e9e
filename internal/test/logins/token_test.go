package logins_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// An app keeps a token and no cookies, as mobile clients do.
type app struct {
	t     *testing.T
	token string
}

// ask sends a request to s as an API client does, and keeps a renewed token.
func (a *app) ask(s *sitetest.Lab, f func(*sojourn.Session), edit ...func(*http.Request)) *http.Response {
	a.t.Helper()
	r := httptest.NewRequest("POST", "https://api.example/", nil)
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { f(session) }).ServeHTTP(w, r)
	resp := w.Result()
	if lines, ok := resp.Header["Sojourn-Token"]; ok {
		a.token = lines[0]
	}
	return resp
}

func withTokens(c *sojourn.Config) { c.Bearer = true }

// loggedInApp is that of ada, with one item in the cart.
func loggedInApp(t *testing.T, s *sitetest.Lab) *app {
	t.Helper()
	a := &app{t: t}
	resp := a.ask(s, func(session *sojourn.Session) {
		session.Login("ada", "pwd")
		sitetest.CartKey.Set(session, 1)
		var err error
		if a.token, err = session.Token(t.Context()); err != nil {
			t.Fatalf("Token: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	if len(resp.Header["Set-Cookie"]) > 0 || len(resp.Header["Sojourn-Token"]) > 0 || !strings.HasPrefix(a.token, "sjn_") {
		t.Fatalf("the login was answered with %q", resp.Header)
	}
	return a
}

// It is asked for in alexedwards/scs#100 and #108.
func TestAClientWithoutCookiesHasATokenInstead(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a := loggedInApp(t, s)
	first := a.token
	for n := 1; n < 4; n++ {
		resp := a.ask(s, func(session *sojourn.Session) {
			if session.IsNew() || session.User() != "ada" || sitetest.CartKey.Get(session) != n {
				t.Errorf("request %d finds %q with %d items", n, session.User(), sitetest.CartKey.Get(session))
			}
			sitetest.CartKey.Update(session, sitetest.AddOne)
		})
		sitetest.WantStatus(t, resp, http.StatusOK)
		sitetest.WantCookies(t, resp)
		if got := resp.Header["Vary"]; !slices.Equal(got, []string{"Cookie, Authorization"}) {
			t.Errorf("Vary: %q", got)
		}
		if got := resp.Header.Get("Cache-Control"); got != "private" {
			t.Errorf("Cache-Control: %q", got)
		}
	}
	if a.token != first {
		t.Error("the token was replaced although it was not rotated")
	}
}

func TestASmallSessionWithATokenIsStoredToo(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a := &app{t: t}
	a.ask(s, func(session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		a.token, _ = session.Token(t.Context())
	})
	a.ask(s, func(session *sojourn.Session) {
		if got := session.Info().Placement; got != sojourn.PlacementStored || sitetest.ThemeKey.Get(session) != "dark" {
			t.Errorf("the session is %s, with %q", got, sitetest.ThemeKey.Get(session))
		}
		sitetest.ThemeKey.Set(session, "light")
	})
	resp := a.ask(s, func(session *sojourn.Session) {
		if got := sitetest.ThemeKey.Get(session); got != "light" {
			t.Errorf("the theme is %q", got)
		}
	})
	sitetest.WantCookies(t, resp)
}

func TestACookieIsNoTokenAndATokenIsNoCookie(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("ada") })
	a := &app{t: t, token: "sjn_" + v.Cookies[sitetest.RefCookie]}
	a.ask(s, func(session *sojourn.Session) {
		if session.User() != "" || !session.IsNew() {
			t.Error("a cookie's value is taken for a token")
		}
	})
	a = loggedInApp(t, s)
	for _, value := range []string{a.token, strings.TrimPrefix(a.token, "sjn_")} {
		v := sitetest.NewGuest(t)
		v.Cookies[sitetest.RefCookie] = value
		s.Do(v, func(session *sojourn.Session) {
			if session.User() != "" || !session.IsNew() {
				t.Error("a token is taken for a cookie's value")
			}
		})
	}
	if got := s.Stats().RejectedCookies; got != 3 {
		t.Errorf("%d credentials were rejected, want 3", got)
	}
}

func TestARequestWithATokenLeavesTheBrowsersCookiesAlone(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("bob") })
	a := loggedInApp(t, s)
	brings := func(r *http.Request) { r.Header.Set("Cookie", v.Header()) }
	resp := a.ask(s, func(session *sojourn.Session) {
		if session.User() != "ada" {
			t.Errorf("the user is %q", session.User())
		}
		session.Logout()
	}, brings)
	sitetest.WantCookies(t, resp)
	s.Do(v, func(session *sojourn.Session) {
		if session.User() != "bob" {
			t.Errorf("the browser's user is %q", session.User())
		}
	})
	// Other credentials are not the manager's, so the cookie is read.
	for _, other := range []string{"Bearer eyJhbGciOiJ.e30.x", "Basic c2puX2E6Yg==", "Bearer", "sjn_abc", "Bearer SJN_abc"} {
		a := &app{t: t}
		a.ask(s, func(session *sojourn.Session) {
			if session.User() != "bob" {
				t.Errorf("with Authorization: %s, the user is %q", other, session.User())
			}
		}, brings, func(r *http.Request) { r.Header.Set("Authorization", other) })
	}
}

func TestALogoutMakesTheTokenWorthless(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a := loggedInApp(t, s)
	before := *a
	resp := a.ask(s, func(session *sojourn.Session) { session.Logout() })
	if lines, ok := resp.Header["Sojourn-Token"]; !ok || lines[0] != "" {
		t.Errorf("Sojourn-Token: %q", lines)
	}
	resp = before.ask(s, func(session *sojourn.Session) {
		if session.User() != "" || !session.IsNew() {
			t.Error("the token still leads to the session")
		}
		sitetest.CartKey.Set(session, 1)
	})
	sitetest.WantStatus(t, resp, http.StatusUnauthorized)
	resp = before.ask(s, func(session *sojourn.Session) {
		session.Login("ada")
		if _, err := session.Token(t.Context()); err != nil {
			t.Errorf("Token: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	if live := sitetest.Rows(t, s.Store); live != 1 {
		t.Errorf("%d sessions are live", live)
	}
}

func TestARotatedTokenIsInTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []sojourn.Event
		s := sitetest.NewLab(t, withTokens, func(c *sojourn.Config) {
			c.Rotation = sojourn.Rotation{Every: time.Hour, Grace: time.Minute}
			c.Events = func(_ context.Context, e sojourn.Event) { events = append(events, e) }
		})
		a := loggedInApp(t, s)
		stolen := *a
		time.Sleep(2 * time.Hour)
		resp := a.ask(s, func(*sojourn.Session) {})
		if a.token == stolen.token {
			t.Fatal("the token was not rotated")
		}
		if got := resp.Header.Get("Access-Control-Expose-Headers"); got != "Sojourn-Token" {
			t.Errorf("Access-Control-Expose-Headers: %q", got)
		}
		sitetest.WantCookies(t, resp)
		for range 2 {
			a.ask(s, func(session *sojourn.Session) {
				if session.User() != "ada" {
					t.Error("the new token does not lead to the session")
				}
			})
		}
		time.Sleep(time.Hour / 2)
		stolen.ask(s, func(session *sojourn.Session) {
			if session.User() != "" {
				t.Error("the old token still leads to the session")
			}
		})
		if !slices.ContainsFunc(events, func(e sojourn.Event) bool { return e.Kind == sojourn.EventTheftSuspected }) {
			t.Error("no theft is suspected")
		}
	})
}

func TestASessionHasOneCarrier(t *testing.T) {
	for name, before := range map[string]func(*sojourn.Session){
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"login":  func(s *sojourn.Session) { s.Login("ada") },
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t, withTokens)
			v := sitetest.NewGuest(t)
			s.Do(v, before)
			old := v.Copy()
			s.Do(v, func(session *sojourn.Session) {
				if token, err := session.Token(t.Context()); !errors.Is(err, sojourn.ErrHasCookie) || token != "" {
					t.Errorf("Token: %v", err)
				}
				if status, _ := sojourn.ErrorStatus(sojourn.ErrHasCookie); status != http.StatusConflict {
					t.Errorf("it is answered with %d", status)
				}
			})
			a := &app{t: t}
			s.Do(v, func(session *sojourn.Session) {
				session.Login("ada")
				var err error
				if a.token, err = session.Token(t.Context()); err != nil {
					t.Errorf("Token after a Login: %v", err)
				}
			})
			if len(v.Cookies) > 0 {
				t.Errorf("%d cookies are left", len(v.Cookies))
			}
			a.ask(s, func(session *sojourn.Session) {
				if session.User() != "ada" {
					t.Errorf("the token's user is %q", session.User())
				}
			})
			s.Do(old, func(session *sojourn.Session) {
				if session.User() != "" || sitetest.CartKey.Get(session) != 0 {
					t.Error("the old cookie still leads to a session")
				}
			})
		})
	}
}

func TestWhatHasNoToken(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*sojourn.Config)
		do   func(*sojourn.Session)
		want error
	}{
		"a session without values": {withTokens, func(*sojourn.Session) {}, sojourn.ErrNoValue},
		"a session that is over":   {withTokens, func(s *sojourn.Session) { s.Logout() }, sojourn.ErrNoValue},
		"a manager without tokens": {func(*sojourn.Config) {}, func(s *sojourn.Session) { s.Login("ada") }, nil},
	} {
		s := sitetest.NewLab(t, test.edit)
		resp := s.Serve(sitetest.NewGuest(t), func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			test.do(session)
			if token, err := session.Token(r.Context()); err == nil || token != "" || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		})
		sitetest.WantStatus(t, resp, http.StatusOK)
	}
	_, err := sojourn.New(sojourn.Config{Keys: sitetest.Keys(t), Mode: sojourn.CookieOnly, Bearer: true})
	if err == nil || !strings.Contains(err.Error(), "Bearer needs a Store") {
		t.Errorf("CookieOnly with Bearer: %v", err)
	}
}

func TestATokenThatCouldNotBeStoredIsNotHandedOut(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	resp := s.Serve(v, func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Login("ada")
		s.Store.SaveDown.Store(true)
		if token, err := session.Token(r.Context()); !errors.Is(err, sojourn.ErrUnavailable) || token != "" {
			t.Errorf("Token: %v", err)
		}
		s.Store.SaveDown.Store(false)
		session.Discard()
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	sitetest.WantCookies(t, resp) // the browser keeps what it has
	s.Do(v, func(session *sojourn.Session) {
		if sitetest.ThemeKey.Get(session) != "dark" {
			t.Error("the browser's session is gone")
		}
	})
}

func TestATokenIsNoCookieThatAnotherSiteCouldUse(t *testing.T) {
	s := sitetest.NewLab(t, withTokens, func(c *sojourn.Config) { c.Cookie.SameSite = http.SameSiteStrictMode })
	a := loggedInApp(t, s)
	fromElsewhere := func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://app.example")
	}
	resp := a.ask(s, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 9) }, fromElsewhere)
	sitetest.WantStatus(t, resp, http.StatusOK)
	b := &app{t: t, token: "sjn_of-long-ago"}
	resp = b.ask(s, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 7) }, fromElsewhere)
	sitetest.WantStatus(t, resp, http.StatusOK)
	b.ask(s, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 7 {
			t.Errorf("with its new token the app has %d items", got)
		}
	}, fromElsewhere)
	a.ask(s, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 9 {
			t.Errorf("the cart is %d", got)
		}
	})
}

func TestParallelRequestsWithOneTokenLoseNoUpdate(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a := loggedInApp(t, s)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			one := *a
			one.ask(s, func(session *sojourn.Session) { sitetest.CartKey.Update(session, sitetest.AddOne) })
		})
	}
	wg.Wait()
	a.ask(s, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 65 {
			t.Errorf("the cart is %d, want 65", got)
		}
	})
}

// shared is a cache that replicas share.
type shared struct{ store.Cache }

// A token has no version, so its requests load from the store itself.
func TestATokenReadsWhatItHasWrittenOnAnotherReplica(t *testing.T) {
	db, between := memory.New(), shared{tiered.NewMemory(1 << 20)}
	visits := sojourn.NewKey[int]("volatile", sojourn.Volatile)
	replica := func(c *sojourn.Config) {
		layered, err := tiered.New(db, tiered.Layer{Cache: tiered.NewMemory(1 << 20)}, tiered.Layer{Cache: between})
		if err != nil {
			t.Fatal(err)
		}
		c.Bearer, c.Store = true, layered
	}
	one := sitetest.NewLab(t, replica)
	two := sitetest.NewLab(t, replica, func(c *sojourn.Config) { c.Keys = one.Keys })
	a := loggedInApp(t, one)
	for n := range 8 {
		at, other := one, two
		if n%2 == 1 {
			at, other = two, one
		}
		a.ask(other, func(session *sojourn.Session) { _ = sitetest.CartKey.Get(session) }) // has a copy now
		a.ask(at, func(session *sojourn.Session) {
			sitetest.CartKey.Set(session, 10+n)
		})
		a.ask(at, func(session *sojourn.Session) { visits.Set(session, 20+n) })
		a.ask(other, func(session *sojourn.Session) {
			if got := sitetest.CartKey.Get(session); got != 10+n {
				t.Errorf("the other replica has %d, want %d", got, 10+n)
			}
			if got := visits.Get(session); got != 20+n {
				t.Errorf("the other replica has %d volatile visits, want %d", got, 20+n)
			}
		})
	}
}

func TestANestedWrapWithAnotherTokenHasItsOwnSession(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a, b := loggedInApp(t, s), &app{t: t}
	b.ask(s, func(session *sojourn.Session) {
		session.Login("bob")
		b.token, _ = session.Token(t.Context())
	})
	a.ask(s, func(session *sojourn.Session) {
		b.ask(s, func(inner *sojourn.Session) {
			if inner.User() != "bob" || session.User() != "ada" {
				t.Errorf("the users are %q and %q", session.User(), inner.User())
			}
		})
	})
	r := httptest.NewRequest("GET", "https://api.example/", nil)
	r.Header.Set("Authorization", "Bearer "+a.token)
	s.Handler(func(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) {
		part := r.Clone(r.Context())
		part.Header.Set("Authorization", "Bearer "+b.token)
		s.Handler(func(_ http.ResponseWriter, _ *http.Request, inner *sojourn.Session) {
			if inner.User() != "bob" {
				t.Errorf("the clone's user is %q", inner.User())
			}
		}).ServeHTTP(w, part)
	}).ServeHTTP(httptest.NewRecorder(), r)
}

func TestATokenOfAnotherManagerIsOfNoUse(t *testing.T) {
	shop := sitetest.NewLab(t, withTokens)
	a := loggedInApp(t, shop)
	support := sitetest.NewLab(t, withTokens, func(c *sojourn.Config) { c.Name, c.Keys, c.Store = "support", shop.Keys, shop.Store })
	a.ask(support, func(session *sojourn.Session) {
		if !session.IsNew() {
			t.Error("the other manager takes it")
		}
	})
}

func TestStripRemovesTheToken(t *testing.T) {
	s := sitetest.NewLab(t, withTokens)
	a := loggedInApp(t, s)
	for _, test := range []struct{ before, after []string }{
		{[]string{"Bearer " + a.token}, nil},
		{[]string{"bearer  " + a.token}, nil},
		{[]string{"Basic YTpi", "Bearer " + a.token}, []string{"Basic YTpi"}},
		{[]string{"Bearer eyJ.e30.x"}, []string{"Bearer eyJ.e30.x"}},
	} {
		h := http.Header{"Authorization": slices.Clone(test.before)}
		before := h["Authorization"]
		s.Strip(h)
		if !slices.Equal(h["Authorization"], test.after) {
			t.Errorf("%d lines are left, want %d", len(h["Authorization"]), len(test.after))
		}
		if !slices.Equal(before, test.before) {
			t.Error("the slice that others may have was changed")
		}
	}
}
