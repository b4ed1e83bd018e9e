package sojourntest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/sojourntest"
)

// Handlers were hard to test, as reported in alexedwards/scs#64.
func TestALoggedInRequestTakesOneLine(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		o := sojourntest.Serve(t, m, counter(m), sojourntest.LoggedIn(t, m, "ada", "GET", "/page", nil))
		o.WantUser("ada")
		o.WantSaved(true)
		sojourntest.WantValue(o, visits, 1)
	})
}

func TestSavedIsWhetherAnythingWasKept(t *testing.T) {
	placements(t, func(t *testing.T, cfg sojourn.Config) {
		m := sojourntest.NewManager(t, cfg)
		for name, c := range map[string]struct {
			do   func(w http.ResponseWriter, s *sojourn.Session)
			want bool
		}{
			"a change": {func(_ http.ResponseWriter, s *sojourn.Session) { theme.Set(s, "dark") }, true},
			"a logout": {func(_ http.ResponseWriter, s *sojourn.Session) { s.Logout() }, true},
			"reading":  {func(_ http.ResponseWriter, s *sojourn.Session) { theme.Get(s) }, false},
			"the same again": {func(_ http.ResponseWriter, s *sojourn.Session) {
				theme.Set(s, "light")
			}, false},
			"a cookie of the handler's own": {func(w http.ResponseWriter, _ *sojourn.Session) {
				http.SetCookie(w, &http.Cookie{Name: "session-tracking", Value: "1"})
			}, false},
			"an error answer": {func(w http.ResponseWriter, s *sojourn.Session) {
				theme.Set(s, "dark")
				w.WriteHeader(http.StatusInternalServerError)
			}, false},
		} {
			h := m.Handler(func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) { c.do(w, s) })
			r := sojourntest.Request(t, m, "POST", "/page", nil, func(s *sojourn.Session) { theme.Set(s, "light") })
			if o := sojourntest.Serve(t, m, h, r); o.Saved != c.want {
				t.Errorf("%s: saved %t", name, o.Saved)
			}
		}
	})
}

func TestAnOutcomeSaysWhatWasExpected(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{})
	handler := m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		if r.Method == "POST" {
			s.Flash("info", "Saved")
			theme.Set(s, "dark")
		}
	})
	for want, f := range map[string]func(o *sojourntest.Outcome){
		`logged in as "ada", want nobody`:             func(o *sojourntest.Outcome) { o.WantUser("") },
		`logged in as "ada", want "grace"`:            func(o *sojourntest.Outcome) { o.WantUser("grace") },
		`placement is stored, want inline`:            func(o *sojourntest.Outcome) { o.WantPlacement(sojourn.PlacementInline) },
		`messages are ["info: Saved"], want []`:       func(o *sojourntest.Outcome) { o.WantFlashes() },
		`session's "theme" is "dark", want "light"`:   func(o *sojourntest.Outcome) { sojourntest.WantValue(o, theme, "light") },
		`saved its session; it was to leave it alone`: func(o *sojourntest.Outcome) { o.WantSaved(false) },
		"": func(o *sojourntest.Outcome) {
			o.WantUser("ada")
			o.WantPlacement(sojourn.PlacementStored)
			o.WantFlashes("info: Saved")
			sojourntest.WantValue(o, theme, "dark")
			o.WantSaved(true)
		},
	} {
		rec := &recordingT{TB: t}
		f(sojourntest.Serve(rec, m, handler, sojourntest.LoggedIn(t, m, "ada", "POST", "/", nil)))
		if want == "" && rec.errors != "" || !strings.Contains(rec.errors, want) {
			t.Errorf("want a message with %q, got %q", want, rec.errors)
		}
	}
	rec := &recordingT{TB: t}
	o := sojourntest.Serve(rec, m, handler, sojourntest.Request(t, m, "GET", "/", nil, nil))
	o.WantSaved(true)
	o.WantUser("ada")
	if !strings.Contains(rec.errors, "kept nothing") || !strings.Contains(rec.errors, `nobody is logged in, want "ada"`) {
		t.Errorf("it said %q", rec.errors)
	}
}

func TestEventsAreRemembered(t *testing.T) {
	var events sojourntest.Events
	m := sojourntest.NewManager(t, sojourn.Config{Events: events.Record})
	b := sojourntest.NewBrowser(t, counter(m))
	b.Get("/page")
	b.Prepare(m, func(s *sojourn.Session) { s.Login("ada") })
	heard := events.Take()
	if len(heard) == 0 || heard[len(heard)-1].User != "ada" && heard[len(heard)-2].User != "ada" {
		t.Errorf("heard %v", heard)
	}
	b.Prepare(m, (*sojourn.Session).Logout)
	events.Want(t, sojourn.EventLogout)
	events.Want(t)

	rec := &recordingT{TB: t}
	events.Want(rec, sojourn.EventLogin)
	if !strings.Contains(rec.errors, "the events are [], want [login]") {
		t.Errorf("it said %q", rec.errors)
	}
}

// A test of a handler's changes.
func ExampleServe() {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	r := sojourntest.LoggedIn(t, sessions, "ada", "POST", "/cart?item=lamp", nil)
	o := sojourntest.Serve(t, sessions, shop(sessions), r)

	o.WantUser("ada")
	o.WantFlashes("success: Added to your cart")
	sojourntest.WantValue(o, cart, []string{"lamp"})
	fmt.Println(o.StatusCode, o.Saved)
	// Output: 303 true
}

// The events of handlers that end sessions.
func ExampleEvents() {
	var events sojourntest.Events
	sessions := sojourntest.NewManager(t, sojourn.Config{Events: events.Record})
	browser := sojourntest.NewBrowser(t, shop(sessions))
	browser.Prepare(sessions, func(s *sojourn.Session) { s.Login("ada") })
	events.Take()

	_, err := sessions.RevokeUser(t.Context(), "ada")
	for _, e := range events.Take() {
		fmt.Println(e.Kind, e.User, e.Reason, err)
	}
	// Output: revoked ada revoked_user <nil>
}

// TestStaffAreLoggedOutWhenIdle is an application's test of its own settings.
// In the bubble of synctest an hour passes at once.
func TestStaffAreLoggedOutWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := sojourntest.NewManager(t, sojourn.Config{IdleTimeout: 15 * time.Minute})
		browser := sojourntest.NewBrowser(t, shop(sessions))
		browser.Prepare(sessions, func(s *sojourn.Session) { s.Login("ada") })

		time.Sleep(14 * time.Minute)
		if browser.Session(sessions).User() != "ada" {
			t.Error("after 14 minutes she is logged out")
		}
		time.Sleep(2 * time.Minute)
		if user := browser.Session(sessions).User(); user != "" {
			t.Errorf("after 16 minutes %s is still logged in", user)
		}
	})
}
