package complaints_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/sitetest"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
)

// Complaints from the trackers of other session libraries, about saving,
// cookies and their size, security defaults, and transports. Each test is named
// after what its reporter saw; here it must not happen.

// gorilla/sessions#39
func TestComplaintChangesAreSilentlyLostWhenTheBodyHasStarted(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		io.WriteString(w, "<html>")
		sitetest.ThemeKey.Set(session, "dark")
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLate) {
			t.Errorf("Save: %v", err)
		}
	})
	if len(s.Log.With("ERROR")) != 1 || s.Stats().LateChanges != 1 {
		t.Error("neither logged nor counted")
	}
	// A stored session needs no cookie, so its late changes are kept.
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		io.WriteString(w, "<html>")
		sitetest.CartKey.Set(session, 2)
	})
	if got := sitetest.CartOf(s, v); got != 2 {
		t.Errorf("the cart is %d", got)
	}
}

// gin-contrib/sessions#6
func TestComplaintEveryHandlerHasToCallSave(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("without Save the cart is %d", got)
	}
}

// gofiber/fiber#3016
func TestComplaintSaveHasToComeLastAndOnlyOnce(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		for n := range 3 {
			sitetest.CartKey.Set(session, n)
			sitetest.Save(t, session)
			sitetest.Save(t, session)
		}
		sitetest.CartKey.Set(session, 7)
	})
	if got := sitetest.CartOf(s, v); got != 7 {
		t.Errorf("the cart is %d", got)
	}
}

// alexedwards/scs#36
func TestComplaintEachChangeIsAWrite(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		for n := range 100 {
			sitetest.CartKey.Set(session, n)
			session.Flash("info", "hello")
		}
	})
	if n := s.Store.Saves.Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
}

// alexedwards/scs#32
func TestComplaintEachRequestIsAWriteToMoveTheIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		saves := s.Store.Saves.Load()
		for range 360 { // every ten seconds for an hour
			time.Sleep(10 * time.Second)
			_ = sitetest.CartOf(s, v)
		}
		if n := s.Store.Touches.Load(); n != 20 {
			t.Errorf("%d touches, want one for each twentieth of the timeout", n)
		}
		if s.Store.Saves.Load() != saves {
			t.Error("a touch rewrote the session")
		}
	})
}

// gorilla/sessions#186
func TestComplaintOneMoreFieldAndTheSessionIsSilentlyEmpty(t *testing.T) {
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
	if got := sitetest.PlaceOf(s, v); got != sojourn.PlacementStored {
		t.Errorf("5 KB live in %v", got)
	}
}

// gin-contrib/sessions#119
func TestComplaintTheValueIsTooLongAndNobodySaysWhich(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	v := sitetest.NewGuest(t)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Set("v", strings.Repeat("x", 4000))
		err := session.Save(r.Context())
		if !errors.Is(err, sojourn.ErrTooLarge) || !strings.Contains(err.Error(), "at most 2048") {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusRequestEntityTooLarge)
	sitetest.WantCookies(t, resp)
}

// markbates/goth#133, GoogleCloudPlatform/golang-samples#137, vouch/vouch-proxy#348
func TestComplaintTheTokensOfAnIdentityProviderOverflowTheCookie(t *testing.T) {
	type tokens struct{ Access, Refresh, ID string }
	key := sojourn.NewKey[tokens]("oidc")
	want := tokens{strings.Repeat("a", 2500), strings.Repeat("r", 2500), strings.Repeat("i", 3000)}
	for name, config := range map[string]func(*sojourn.Config){
		"Auto":       func(*sojourn.Config) {},
		"CookieOnly": func(c *sojourn.Config) { sitetest.CookieOnly(c); c.InlineLimit = 15000 },
	} {
		s := sitetest.NewLab(t, config)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { key.Set(session, want) })
		s.Do(v, func(session *sojourn.Session) {
			if key.Get(session) != want {
				t.Errorf("%s: the tokens are gone", name)
			}
		})
	}
}

// bradleypeabody/gorilla-sessions-memcache#12
func TestComplaintAServerSideSessionIsLimitedLikeACookie(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	key := sojourn.NewKey[[]byte]("blob", sojourn.ServerSide)
	blob := bytes.Repeat([]byte("blob"), 250_000)
	resp := s.Do(v, func(session *sojourn.Session) { key.Set(session, blob) })
	s.Do(v, func(session *sojourn.Session) {
		if !bytes.Equal(key.Get(session), blob) {
			t.Error("a megabyte did not come back")
		}
	})
	if n := len(resp.Header.Get("Set-Cookie")); n > 400 {
		t.Errorf("its cookie line has %d bytes", n)
	}
}

// leodip/goiabada#266
func TestComplaintSplitCookiesPromiseMoreThanProxiesPass(t *testing.T) {
	_, err := sojourn.New(sojourn.Config{Keys: sitetest.Keys(t), Mode: sojourn.CookieOnly, InlineLimit: 190_000})
	if err == nil || !strings.Contains(err.Error(), "InlineLimit 190000: use 1 to 15000 bytes, or 0 for 2048") {
		t.Errorf("New: %v", err)
	}
	// By default all cookies of a response fit into one buffer of nginx (4 KiB).
	for _, config := range []func(*sojourn.Config){sitetest.CookieOnly, func(*sojourn.Config) {}} {
		s := sitetest.NewLab(t, config)
		for n := 0; n < 4096; n += 16 {
			resp := s.Serve(sitetest.NewGuest(t), func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				session.Set("v", make([]byte, n))
			})
			size := 0
			for name, lines := range resp.Header {
				for _, line := range lines {
					size += len(name) + len(": \r\n") + len(line)
				}
			}
			if size > 4096-1700 { // what is left is the program's
				t.Fatalf("%d bytes make a response header of %d", n, size)
			}
		}
	}
}

// alexedwards/scs#221
func TestComplaintThereIsNoEncryptedCookieSessionAnyMore(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.ThemeKey.Set(session, "PLAINTEXT") })
	if strings.Contains(v.Header(), "PLAIN") || strings.Contains(v.Header(), "UExBSU5") || strings.Contains(v.Header(), "anna") {
		t.Errorf("readable: %s", v.Header())
	}
	s.Do(v, func(session *sojourn.Session) {
		if session.User() != "anna" || sitetest.ThemeKey.Get(session) != "PLAINTEXT" {
			t.Errorf("%q %q", session.User(), sitetest.ThemeKey.Get(session))
		}
	})
}

// gorilla/sessions#256, #276, gin-contrib/sessions#102
func TestComplaintSameSiteIsUnsetAndLoginsBreak(t *testing.T) {
	s := sitetest.NewLab(t)
	resp := s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { session.Login("anna") })
	if line := resp.Header.Get("Set-Cookie"); !strings.Contains(line, "; SameSite=Lax") {
		t.Error(line)
	}
	// An identity provider posts the answer from its own site, so that Lax
	// withholds the cookie; the login is possible all the same.
	resp = sitetest.NewGuest(t).Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Login("anna")
		session.Flash("success", "Welcome")
	}), sitetest.CrossSitePost)
	sitetest.WantStatus(t, resp, http.StatusOK)
	sitetest.WantCookies(t, resp, sitetest.RefCookie)
}

// alexedwards/scs#195, #257
func TestComplaintWhoReadsTheDatabaseCanUseItsSessions(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	var handle string
	s.Do(v, func(session *sojourn.Session) {
		session.Login("anna")
		handle = session.Handle()
	})
	records, _, err := s.Store.Scan(t.Context(), "", 10)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	rec := records[0]
	for what, value := range map[string]string{
		"row key": string(rec.ID[:]), "row key, as text": rec.ID.String(), "handle": handle, "data": string(rec.Data),
	} {
		if strings.Contains(v.Header(), value) {
			t.Errorf("the cookie contains the %s", what)
		}
		thief := sitetest.NewGuest(t)
		thief.Raw = []string{sitetest.RefCookie + "=" + value, sitetest.StateCookie + "=" + value}
		s.Do(thief, func(session *sojourn.Session) {
			if !session.IsNew() {
				t.Errorf("the %s opens the session", what)
			}
		})
	}
	if parsed, err := store.ParseID(handle); err != nil || parsed != rec.ID {
		t.Errorf("the handle names another session: %v", err)
	}
}

// authelia/authelia#789
func TestComplaintValuesAreStoredInTheClear(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		session.Login("anna@example.com")
		sitetest.ThemeKey.Set(session, "PLAINTEXT")
		session.Flash("info", "PLAINTEXT")
	})
	records, _, err := s.Store.Scan(t.Context(), "", 10)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, text := range []string{"PLAINTEXT", "anna", "theme", "example"} {
		if bytes.Contains(records[0].Data, []byte(text)) || bytes.Contains(records[0].User[:], []byte(text)) {
			t.Errorf("the record shows %q", text)
		}
		for _, line := range s.Log.All() {
			if strings.Contains(line, text) {
				t.Errorf("the log shows %q", line)
			}
		}
	}
}

// kataras/iris#768
func TestComplaintTheIdentifierCannotBeRenewed(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 1) })
	before := v.Cookies[sitetest.RefCookie]
	s.Do(v, func(session *sojourn.Session) { session.Rotate() })
	if v.Cookies[sitetest.RefCookie] == before {
		t.Error("the credential is the same")
	}
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}

// goravel/goravel#925
func TestComplaintTheIdentifierIsNotRenewedAtLoginAndLogout(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	login := func(session *sojourn.Session) { session.Login("anna") }
	for _, step := range []struct {
		what   string
		change func(*sojourn.Session)
	}{
		{"login", login},
		{"login again", login},
		{"logout", func(session *sojourn.Session) { session.Logout(); sitetest.CartKey.Set(session, 2) }},
	} {
		what, change := step.what, step.change
		attacker := v.Copy() // knows the cookies from before
		handle := ""
		s.Do(v, func(session *sojourn.Session) { handle = session.Handle(); change(session) })
		s.Do(v, func(session *sojourn.Session) {
			if session.Handle() == handle || v.Header() == attacker.Header() {
				t.Errorf("%s: the identifier is the same", what)
			}
		})
		s.Do(attacker, func(session *sojourn.Session) {
			if !session.IsNew() || session.User() != "" || sitetest.CartKey.Get(session) != 0 {
				t.Errorf("%s: the identifier from before leads somewhere", what)
			}
		})
	}
}

// alexedwards/scs#141
func TestComplaintServerSentEventsAreImpossible(t *testing.T) {
	s := sitetest.NewLab(t)
	events := make(chan string)
	address := sitetest.Listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		flusher, ok := w.(http.Flusher)
		if !ok {
			t.Error("the response writer cannot flush")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flusher.Flush()
		for event := range events {
			io.WriteString(w, "data: "+event+"\n\n")
			flusher.Flush()
		}
	}))
	resp := sitetest.Fetch(t, "GET", address)
	sitetest.WantCookies(t, resp, sitetest.RefCookie)
	events <- "one"
	got := make([]byte, len("data: one\n\n"))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "data: one\n\n" {
		t.Errorf("read %q, %v", got, err)
	}
	close(events)
}

// alexedwards/scs#57, #106, #132, #143
func TestComplaintItDoesNotWorkWithMyFramework(t *testing.T) {
	// A framework that calls handlers in its own way, with its own context, and
	// knows nothing but headers.
	type framework struct{ in, out http.Header }
	s := sitetest.NewLab(t)
	handle := func(c framework, f func(*sojourn.Session)) {
		session, err := s.Open(t.Context(), c.in, c.out)
		if err != nil {
			t.Fatal(err)
		}
		f(session)
		sitetest.Save(t, session)
	}
	c := framework{http.Header{}, http.Header{}}
	handle(c, func(session *sojourn.Session) { session.Login("anna") })
	pair, _, _ := strings.Cut(c.out.Get("Set-Cookie"), ";")
	handle(framework{http.Header{"Cookie": {pair}}, http.Header{}}, func(session *sojourn.Session) {
		if session.User() != "anna" {
			t.Errorf("user %q", session.User())
		}
	})
}

// alexedwards/scs#100, #108
func TestComplaintClientsWithoutCookiesHaveNoSessions(t *testing.T) {
	// A mobile client gets its credential in the body and sends it as a token.
	s := sitetest.NewLab(t, sitetest.StoredOnly)
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, out := http.Header{}, http.Header{}
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			in.Set("Cookie", sitetest.RefCookie+"="+token)
		}
		session, err := s.Open(r.Context(), in, out)
		if err != nil {
			s.ServeError(w, r, err)
			return
		}
		if r.URL.Path == "/login" {
			session.Login("anna")
		}
		if err := session.Save(r.Context()); err != nil {
			s.ServeError(w, r, err)
			return
		}
		if line := out.Get("Set-Cookie"); line != "" {
			c, err := http.ParseSetCookie(line)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(w, c.Value)
			return
		}
		io.WriteString(w, session.User())
	})
	client := sitetest.NewGuest(t)
	token := sitetest.Body(t, client.Request(api, "POST", "https://api.example/login"))
	resp := client.Request(api, "GET", "https://api.example/me", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	sitetest.WantCookies(t, resp)
	if got := sitetest.Body(t, resp); got != "anna" {
		t.Errorf("the API knows %q", got)
	}
	if got := sitetest.Body(t, client.Request(api, "GET", "https://api.example/me")); got != "" {
		t.Errorf("without a token the API knows %q", got)
	}
}

// alexedwards/scs#114
func TestComplaintWithoutTheMiddlewareItPanics(t *testing.T) {
	s := sitetest.NewLab(t)
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	if _, err := s.Get(r.Context()); !errors.Is(err, sojourn.ErrNoMiddleware) || !strings.Contains(err.Error(), "Manager.Wrap") {
		t.Errorf("Get: %v", err)
	} else {
		s.ServeError(w, r, err)
	}
	sitetest.WantStatus(t, w.Result(), http.StatusInternalServerError)
}

// alexedwards/scs#64
func TestComplaintAHandlerIsHardToTest(t *testing.T) {
	s := sitetest.NewLab(t)
	handler := func(w http.ResponseWriter, r *http.Request) {
		session, err := s.Get(r.Context())
		if err != nil {
			s.ServeError(w, r, err)
			return
		}
		io.WriteString(w, "Hello "+session.User())
	}
	out := http.Header{}
	session, err := s.Open(t.Context(), nil, out)
	if err != nil {
		t.Fatal(err)
	}
	session.Login("anna")
	sitetest.Save(t, session)
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "https://shop.example/", nil)
	pair, _, _ := strings.Cut(out.Get("Set-Cookie"), ";")
	r.Header.Set("Cookie", pair)
	s.Wrap(http.HandlerFunc(handler)).ServeHTTP(w, r)
	if got := w.Body.String(); got != "Hello anna" {
		t.Errorf("body %q", got)
	}
}
