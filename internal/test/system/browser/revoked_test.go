package browser

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// A tab of a session that was ended from elsewhere starts again at once.
func revokedTabs(t *testing.T, browser context.Context) {
	s := newSite(t, lax)
	v, elsewhere := newVisitor(t, s, browser), newVisitor(t, s, browser)
	one, two, device := v.tab(), v.tab(), elsewhere.tab()
	for name, end := range map[string]func(t *testing.T){
		"from another device": func(*testing.T) { device.after("revoke") },
		"by an operator": func(t *testing.T) {
			if n, err := s.sessions().RevokeUser(t.Context(), "ada"); n == 0 || err != nil {
				t.Fatalf("%d sessions are ended: %v", n, err)
			}
		},
		"with the account": func(t *testing.T) {
			if _, err := s.sessions().EraseUser(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
		},
		"by a login elsewhere": func(*testing.T) {
			s.deploy(sojourn.Config{Limit: sojourn.Limit{Max: 1}})
			device.after("login-ada")
			s.deploy(lax)
		},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := &tab{t, s, one.ctx}, &tab{t, s, two.ctx}
			v.forget()
			elsewhere.forget()
			for _, tb := range []*tab{one, two, device} {
				tb.home()
			}
			device.after("login-ada")
			one.wants("at first", "user ada", "login-ada")
			end(t)
			// Whatever is clicked first, in a page from before.
			if got := one.press("add"); got != http.StatusOK || one.state() != "cart 1" {
				t.Errorf("a button is answered with %d: %s", got, one.text())
			}
			if got := two.press("visit"); got != http.StatusOK || two.state() != "cart 1, visits 1" {
				t.Errorf("the other tab is answered with %d: %s", got, two.text())
			}
			if two.reload(); two.state() != "cart 1, visits 2" {
				t.Errorf("loaded again, the page says %q", two.state())
			}
			if got := one.press("login-ada"); got != http.StatusOK || one.state() != "user ada, cart 1, visits 2" {
				t.Errorf("a login is answered with %d: %s", got, one.text())
			}
			if two.reload(); two.state() != "user ada, cart 1, visits 3" {
				t.Errorf("after a login the other tab says %q", two.state())
			}
		})
	}
}

// If a browser misses the answer to its login or logout, its next request is
// refused, once.
func lostAnswers(t *testing.T, browser context.Context) {
	s := newSite(t, lax)
	v := newVisitor(t, s, browser)
	one, two := v.tab(), v.tab()
	for _, lost := range []string{"logout", "login-bob"} {
		// begin returns two tabs of a visitor who has lost an answer.
		begin := func(t *testing.T) (*tab, *tab) {
			t.Helper()
			one, two := &tab{t, s, one.ctx}, &tab{t, s, two.ctx}
			v.forget()
			one.home()
			two.home()
			one.wants("at first", "user ada", "login-ada")
			address := buttons[lost] + "?lost"
			if strings.Contains(buttons[lost], "?") {
				address = buttons[lost] + "&lost"
			}
			if eval[bool](one, `fetch("`+address+`", {method: "POST"}).then(() => true, () => false)`) {
				t.Fatal("the answer arrives")
			}
			return one, two
		}
		isTold := func(t *testing.T, tb *tab, status int) {
			t.Helper()
			if got := tb.text(); status != http.StatusUnauthorized || !strings.Contains(got, "You have been signed out.") {
				t.Errorf("the answer is %d: %s", status, got)
			}
		}
		t.Run(lost+", then a button", func(t *testing.T) {
			one, two := begin(t)
			isTold(t, one, one.press("add"))
			if one.reload(); one.state() != "cart 1" {
				t.Errorf("loaded again, the page says %q", one.text())
			}
			if two.press("visit"); two.state() != "cart 1, visits 1" {
				t.Errorf("the other tab says %q", two.text())
			}
		})
		t.Run(lost+", then a page that writes", func(t *testing.T) {
			one, two := begin(t)
			isTold(t, two, two.press("visit"))
			if two.reload(); two.state() != "visits 1" {
				t.Errorf("loaded again, the page says %q", two.text())
			}
			if one.press("add"); one.state() != "cart 1, visits 1" {
				t.Errorf("the other tab says %q", one.text())
			}
		})
		t.Run(lost+", then a login", func(t *testing.T) {
			one, two := begin(t)
			if got := one.press("login-ada"); got != http.StatusOK || one.state() != "user ada" {
				t.Errorf("it is answered with %d: %s", got, one.text())
			}
			if two.press("add"); two.state() != "user ada, cart 1" {
				t.Errorf("the other tab says %q", two.text())
			}
		})
	}
}
