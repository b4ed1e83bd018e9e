package browser

import (
	"context"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// attributes are changes of Config.Cookie after which browsers keep the old
// cookies beside the new ones. Each is tried in both directions.
var attributes = map[string]struct {
	one, other sojourn.Cookie
	renamed    bool // the prefix of the name changes
}{
	"Domain":            {one: sojourn.Cookie{Domain: "example.com"}, other: sojourn.Cookie{Domain: host}},
	"Partitioned":       {one: sojourn.Cookie{}, other: sojourn.Cookie{Partitioned: true}},
	"Path":              {one: sojourn.Cookie{Domain: host}, other: sojourn.Cookie{Domain: host, Path: "/app"}},
	"prefix by Domain":  {one: sojourn.Cookie{}, other: sojourn.Cookie{Domain: "example.com"}, renamed: true},
	"prefix by Path":    {one: sojourn.Cookie{}, other: sojourn.Cookie{Path: "/app"}, renamed: true},
	"prefix and Secure": {one: sojourn.Cookie{}, other: sojourn.Cookie{Insecure: true}, renamed: true},
}

func attributesChange(t *testing.T, browser context.Context) {
	s := newSite(t, sojourn.Config{})
	v := newVisitor(t, s, browser)
	tb := v.tab()
	tb.open(s.url("/app/"))
	type rule func(v *visitor, tb *tab, before, after sojourn.Config)
	always := map[string]rule{
		"logins and logouts hold":     loginsAndLogoutsHold,
		"a login ends the one before": aLoginEndsTheOneBefore,
		"a logout ends all":           aLogoutEndsAll,
		"values are the newest":       valuesAreTheNewest,
	}
	listed := map[string]rule{"former cookies go with the next one that is set": formerCookiesGo}
	run := func(name string, before, after sojourn.Config, rules map[string]rule) {
		for rule, f := range rules {
			t.Run(name+", "+rule, func(t *testing.T) {
				v.forget()
				f(v, &tab{t, s, tb.ctx}, before, after)
			})
		}
	}
	for name, change := range attributes {
		for direction, pair := range map[string][2]sojourn.Cookie{
			" there": {change.one, change.other}, " back": {change.other, change.one},
		} {
			before, after := sojourn.Config{Cookie: pair[0]}, sojourn.Config{Cookie: pair[1]}
			if !change.renamed {
				run(name+direction, before, after, always)
			}
			before.FormerCookies, after.FormerCookies = []sojourn.Cookie{after.Cookie}, []sojourn.Cookie{before.Cookie}
			if change.renamed {
				run(name+direction+", listed", before, after, always)
			}
			run(name+direction+", listed", before, after, listed)
		}
	}
}

func loginsAndLogoutsHold(_ *visitor, tb *tab, before, after sojourn.Config) {
	s := tb.site
	s.deploy(before)
	tb.wants("before the change", "user ada", "login-ada")
	s.deploy(after)
	tb.wants("after the change", "user ada")
	tb.wants("after a logout", "", "logout")
	tb.wants("after a login", "user bob", "login-bob")
	s.deploy(before)
	tb.wants("rolled back", "user bob")
	tb.wants("rolled back, after a logout", "", "logout")
	s.deploy(after)
	tb.wants("changed again, after a logout", "")
	tb.wants("changed again, after a login", "user ada, cart 1", "login-ada", "add")
	tb.wants("changed again, after another logout", "", "logout")
}

func aLoginEndsTheOneBefore(_ *visitor, tb *tab, before, after sojourn.Config) {
	s := tb.site
	s.deploy(before)
	tb.wants("before the change", "user ada", "login-ada")
	s.deploy(after)
	tb.wants("after a login", "user bob", "login-bob")
	s.deploy(before)
	tb.wants("rolled back", "user bob")
	tb.wants("rolled back, after a login", "user ada", "login-ada")
	s.deploy(after)
	tb.wants("changed again", "user ada")
	tb.wants("changed again, after a logout", "", "logout")
	s.deploy(before)
	tb.wants("rolled back again, after a logout", "")
}

// A form on another site is sent without cookies, so the login that it leads to
// ends no other one.
func aLogoutEndsAll(_ *visitor, tb *tab, before, after sojourn.Config) {
	s, ctx := tb.site, tb.t.Context()
	users := []string{"ada", "bob"}
	for _, user := range users {
		if _, err := s.sessions().RevokeUser(ctx, user); err != nil {
			tb.t.Fatal(err)
		}
	}
	s.deploy(before)
	tb.wants("before the change", "user ada", "login-ada")
	s.deploy(after)
	tb.open(s.foreign("/", `<form method=post action="app:/app/login?user=bob"><button id=go>go</button></form>`))
	tb.press("go")
	tb.wants("after a logout", "", "logout")
	for _, user := range users {
		if live, err := s.sessions().Sessions(ctx, user); len(live) > 0 || err != nil {
			tb.t.Errorf("%s has %d sessions after the logout: %v", user, len(live), err)
		}
	}
	s.deploy(before)
	tb.wants("rolled back, after a logout", "")
}

func valuesAreTheNewest(_ *visitor, tb *tab, before, after sojourn.Config) {
	s := tb.site
	s.deploy(before)
	tb.wants("before the change", "theme light", "light")
	s.deploy(after)
	tb.wants("set after the change", "theme dark", "dark")
	s.deploy(before)
	tb.wants("rolled back", "theme dark")
	tb.wants("set after rolling back", "theme light", "light")
	s.deploy(after)
	tb.wants("moved to the store", "theme light, cart 1", "add")
	s.deploy(before)
	tb.wants("moved to the store, and rolled back", "theme light, cart 1")
}

// The attributes of a single cookie are unknown. After the first login there
// are two, and the second login can distinguish them.
func formerCookiesGo(v *visitor, tb *tab, before, after sojourn.Config) {
	s := tb.site
	s.deploy(before)
	tb.wants("before the change", "user ada", "login-ada")
	s.deploy(after)
	tb.wants("after two logins", "user ada", "login-bob", "login-ada")
	if got := v.cookies(); len(got) != 1 {
		tb.t.Errorf("the browser has %s", strings.Join(got, ", "))
	}
	tb.wants("after a logout", "", "logout")
	if got := v.cookies(); len(got) != 0 {
		tb.t.Errorf("after a logout the browser has %s", strings.Join(got, ", "))
	}
}
