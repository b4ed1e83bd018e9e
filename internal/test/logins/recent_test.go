package logins_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
)

func TestRequireRecent(t *testing.T) {
	sitetest.Days(t, sojourn.Config{}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		answer := func(otherwise http.Handler) int {
			t.Helper()
			protected := shop.Manager.RequireRecent(10*time.Minute, otherwise)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusNoContent)
			}))
			return anna.VisitHTTP(shop, protected.ServeHTTP).Status
		}
		if got := answer(nil); got != http.StatusUnauthorized {
			t.Errorf("an anonymous visitor got %d, want 401", got)
		}
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna", "pwd"); sitetest.Visits.Set(s, 4) })
		time.Sleep(10 * time.Minute)
		if got := answer(nil); got != http.StatusNoContent {
			t.Errorf("ten minutes after the login: %d, want 204", got)
		}
		time.Sleep(time.Millisecond)
		sitetest.Does(t, anna, shop, sitetest.Reads) // activity does not count as authentication
		if got := answer(nil); got != http.StatusUnauthorized {
			t.Errorf("later: %d, want 401", got)
		}
		if got := answer(http.RedirectHandler("/login", http.StatusSeeOther)); got != http.StatusSeeOther {
			t.Errorf("with a handler of the app's own: %d, want 303", got)
		}
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna", "pwd", "otp") })
		if got := answer(nil); got != http.StatusNoContent {
			t.Errorf("after authenticating again: %d, want 204", got)
		}
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			info := s.Info()
			if sitetest.Visits.Get(s) != 4 || len(info.Methods) != 2 || info.Methods[1] != "otp" {
				t.Errorf("after authenticating again: %d visits, methods %q", sitetest.Visits.Get(s), info.Methods)
			}
		})
		if a := anna.Visit(shop, func(s *sojourn.Session) { s.Login("anna", "two words") }); a.Status != http.StatusInternalServerError {
			t.Errorf("a method of two words: %d, want 500", a.Status)
		}
	})
}

// status asks the status handler.
func status(t *testing.T, b *sitetest.Browser, shop *sitetest.Site) (st ops.Status) {
	t.Helper()
	a := b.VisitHTTP(shop, ops.For(shop.Manager).StatusHandler().ServeHTTP)
	if err := json.Unmarshal([]byte(a.Body), &st); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if len(a.SetCookies()) != 0 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("cookies %v, Cache-Control %q", a.SetCookies(), a.Header.Get("Cache-Control"))
	}
	return st
}

func TestStatusTellsTheEndAndExtendsNothing(t *testing.T) {
	for what, start := range map[string]func(*sojourn.Session){
		"inline":    func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored":    func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
		"logged in": func(s *sojourn.Session) { s.Login("anna") },
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: time.Hour, Lifetime: 10 * time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna := sitetest.NewBrowser()
			if got, want := status(t, anna, shop), (ops.Status{AuthAge: -1}); got != want {
				t.Errorf("without a session: %+v, want %+v", got, want)
			}
			sitetest.Does(t, anna, shop, start)
			time.Sleep(30 * time.Minute)
			want := ops.Status{Active: true, IdleExpiresIn: 30 * 60, ExpiresIn: 9*3600 + 30*60, AuthAge: -1}
			if what == "logged in" {
				want.LoggedIn, want.AuthAge = true, 30*60
			}
			if got := status(t, anna, shop); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
			time.Sleep(30*time.Minute + time.Millisecond)
			if got := status(t, anna, shop); got.Active {
				t.Errorf("%s: after the idle timeout: %+v: asking has extended it", what, got)
			}
		})
	}
}

func TestABackgroundRequestIsNoActivity(t *testing.T) {
	for what, start := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
	} {
		for change, f := range map[string]func(*sojourn.Session){
			"reading": sitetest.Reads,
			"writing": func(s *sojourn.Session) { sitetest.Note.Set(s, time.Now().String()) },
		} {
			sitetest.Days(t, sojourn.Config{IdleTimeout: time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, start)
				for range 5 {
					time.Sleep(12*time.Minute - time.Millisecond)
					sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Background(); f(s) })
				}
				time.Sleep(6 * time.Millisecond)
				if !sitetest.IsNew(t, anna, shop) {
					t.Errorf("%s in the background of a session that is %s kept it alive", change, what)
				}
			})
			sitetest.Days(t, sojourn.Config{IdleTimeout: time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, start)
				time.Sleep(30 * time.Minute)
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Background(); f(s) })
				sitetest.Does(t, anna, shop, f)
				time.Sleep(59 * time.Minute)
				if sitetest.IsNew(t, anna, shop) {
					t.Errorf("%s in a session that is %s: a background request has taken the activity of another one", change, what)
				}
			})
		}
	}
}

func TestARequestSaysItselfThatItIsInTheBackground(t *testing.T) {
	for value, background := range map[string]bool{"1": true, "": true, "true": true, "0": false, "false": false} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: time.Hour}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
			anna, handle := sitetest.LoginAs(t, shop, "anna")
			time.Sleep(30 * time.Minute)
			in, out := http.Header{}, http.Header{}
			in.Set("Cookie", reference+"="+anna.Cookies()[reference])
			in.Set("Sojourn-Background", value)
			s, x, err := sitetest.Begin(t.Context(), shop.Manager, in)
			if err != nil || s.Handle() != handle {
				t.Fatalf("Open: %v", err)
			}
			if err := x.Commit(http.StatusOK, out); err != nil {
				t.Fatal(err)
			}
			time.Sleep(31 * time.Minute)
			if got := sitetest.IsNew(t, anna, shop); got != background {
				t.Errorf("with %q: the session has ended: %t, want %t", value, got, background)
			}
		})
	}
}
