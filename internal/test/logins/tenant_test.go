package logins_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// byHost takes the first label of the host for the tenant.
func byHost(c *sojourn.Config) {
	c.Tenant = func(info *sojourn.RequestInfo) string {
		tenant, _, _ := strings.Cut(info.Host, ".")
		return tenant
	}
}

// at sends a request of v to a tenant's host.
func at(s *sitetest.Lab, v *sitetest.Guest, tenant string, f func(*http.Request, *sojourn.Session)) *http.Response {
	s.T.Helper()
	return v.Request(s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) { f(r, session) }),
		"GET", "https://"+tenant+".example/")
}

// It was, as reported in oauth2-proxy#1072.
func TestACookieOfOneTenantIsNoneOfAnother(t *testing.T) {
	for name, put := range map[string]func(*sojourn.Session){
		"inline": func(s *sojourn.Session) { sitetest.ThemeKey.Set(s, "dark") },
		"stored": func(s *sojourn.Session) { sitetest.CartKey.Set(s, 1) },
		"login":  func(s *sojourn.Session) { s.Login("ada") },
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t, byHost)
			v := sitetest.NewGuest(t)
			at(s, v, "acme", func(_ *http.Request, session *sojourn.Session) { put(session) })
			at(s, v.Copy(), "globex", func(_ *http.Request, session *sojourn.Session) {
				if !session.IsNew() || session.User() != "" || len(session.Names()) > 0 {
					t.Error("the other tenant has the session")
				}
			})
			at(s, v, "acme", func(_ *http.Request, session *sojourn.Session) {
				if session.IsNew() {
					t.Error("its own tenant does not have the session")
				}
			})
			if got := s.Stats().DamagedRecords; got != 0 {
				t.Errorf("%d records count as damaged", got)
			}
		})
	}
}

func TestATokenOfOneTenantIsNoneOfAnother(t *testing.T) {
	s := sitetest.NewLab(t, byHost, withTokens)
	a := &app{t: t}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h + ".example" } }
	a.ask(s, func(session *sojourn.Session) {
		session.Login("ada")
		a.token, _ = session.Token(t.Context())
	}, host("acme"))
	token := a.token
	a.ask(s, func(session *sojourn.Session) {
		if session.User() != "" {
			t.Error("the other tenant has the session")
		}
	}, host("globex"))
	a.token = token
	a.ask(s, func(session *sojourn.Session) {
		if session.User() != "ada" {
			t.Error("its own tenant does not have the session")
		}
	}, host("acme"))
}

func TestUsersOfOneNameInTwoTenantsAreTwo(t *testing.T) {
	s := sitetest.NewLab(t, byHost, func(c *sojourn.Config) { c.Limit = sojourn.Limit{Max: 2} })
	handles := map[string][]string{}
	guests := map[string]*sitetest.Guest{}
	for _, tenant := range []string{"acme", "globex", "", "acme", "globex", "", "acme"} {
		v := sitetest.NewGuest(t)
		guests[tenant] = v
		at(s, v, tenant, func(_ *http.Request, session *sojourn.Session) { session.Login("ada") })
		at(s, v, tenant, func(_ *http.Request, session *sojourn.Session) {
			handles[tenant] = append(handles[tenant], session.Handle())
		})
	}
	// The third login in one tenant has ended the oldest there, and none elsewhere.
	handles["acme"] = handles["acme"][1:]
	list := func(ctx context.Context) (all []string) {
		infos, err := s.Sessions(ctx, "ada")
		if err != nil {
			t.Errorf("Sessions: %v", err)
		}
		for _, info := range infos {
			all = append(all, info.Handle)
		}
		return all
	}
	same := func(got, want []string) bool {
		seen := map[string]bool{}
		for _, h := range got {
			seen[h] = true
		}
		for _, h := range want {
			if !seen[h] {
				return false
			}
		}
		return len(got) == len(want)
	}
	for tenant, want := range handles {
		if got := list(sojourn.WithTenant(t.Context(), tenant)); !same(got, want) {
			t.Errorf("tenant %q: %d sessions are listed, want %d", tenant, len(got), len(want))
		}
		at(s, guests[tenant], tenant, func(r *http.Request, _ *sojourn.Session) {
			if got := list(r.Context()); !same(got, want) {
				t.Errorf("tenant %q, in a request: %d sessions are listed, want %d", tenant, len(got), len(want))
			}
			if got := list(sojourn.WithTenant(r.Context(), "initech")); len(got) != 0 {
				t.Errorf("tenant %q sees %d sessions of another one", tenant, len(got))
			}
		})
	}
	acme, globex := sojourn.WithTenant(t.Context(), "acme"), sojourn.WithTenant(t.Context(), "globex")
	// A handle of one tenant names nothing in another.
	if err := s.Revoke(globex, "ada", handles["acme"][0]); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("Revoke in another tenant: %v", err)
	}
	if err := s.End(globex, handles["acme"][0]); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("End in another tenant: %v", err)
	}
	if _, err := s.Find(globex, handles["acme"][0]); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("Find in another tenant: %v", err)
	}
	if n, err := s.RevokeUser(globex, "ada"); n != 2 || err != nil {
		t.Errorf("RevokeUser: %d, %v", n, err)
	}
	if got := list(acme); len(got) != 2 {
		t.Errorf("%d sessions are left in the other tenant", len(got))
	}
	if err := s.Revoke(acme, "ada", handles["acme"][0]); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	exports, err := s.ExportUser(acme, "ada")
	if err != nil || len(exports) != 1 {
		t.Errorf("ExportUser: %d, %v", len(exports), err)
	}
	if n, err := s.EraseUser(acme, "ada"); n != 1 || err != nil {
		t.Errorf("EraseUser: %d, %v", n, err)
	}
	if got := s.Stats().DamagedRecords; got != 0 {
		t.Errorf("%d records count as damaged", got)
	}
}

func TestOutsideARequestTheTenantHasToBeNamed(t *testing.T) {
	s := sitetest.NewLab(t, byHost)
	for name, call := range map[string]func(context.Context) error{
		"Sessions":     func(ctx context.Context) error { _, err := s.Sessions(ctx, "ada"); return err },
		"Revoke":       func(ctx context.Context) error { return s.Revoke(ctx, "ada", "x") },
		"RevokeUser":   func(ctx context.Context) error { _, err := s.RevokeUser(ctx, "ada"); return err },
		"EraseUser":    func(ctx context.Context) error { _, err := s.EraseUser(ctx, "ada"); return err },
		"ExportUser":   func(ctx context.Context) error { _, err := s.ExportUser(ctx, "ada"); return err },
		"RefuseLegacy": func(ctx context.Context) error { return s.RefuseLegacy(ctx, "ada") },
		"End":          func(ctx context.Context) error { return s.End(ctx, "x") },
		"Find":         func(ctx context.Context) error { _, err := s.Find(ctx, "x"); return err },
	} {
		if err := call(t.Context()); err == nil || !strings.Contains(err.Error(), "WithTenant") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDoneEndsInEveryTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, byHost, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		at(s, v, "acme", func(_ *http.Request, session *sojourn.Session) { session.Login("ada") })
		at(s, v, "acme", func(_ *http.Request, session *sojourn.Session) {
			done := session.Done()
			time.Sleep(time.Minute)
			select {
			case <-done:
				t.Errorf("it ended by itself: %v", session.Err())
			default:
			}
		})
		at(s, v, "acme", func(_ *http.Request, session *sojourn.Session) {
			done := session.Done()
			if n, err := s.RevokeUser(sojourn.WithTenant(t.Context(), "acme"), "ada"); n != 1 || err != nil {
				t.Errorf("RevokeUser: %d, %v", n, err)
			}
			time.Sleep(2 * time.Second)
			select {
			case <-done:
				if !errors.Is(session.Err(), sojourn.ErrEnded) {
					t.Errorf("Err: %v", session.Err())
				}
			default:
				t.Error("the stream goes on")
			}
		})
	})
}

// Events have their tenant, and a tenant may have any name.
func TestTenantsOfAnyNameAreApart(t *testing.T) {
	var events []sojourn.Event
	tenants := []string{"", "a", "a\x00b", "\x00", "session", strings.Repeat("x", 5000), "ö", " "}
	now := ""
	s := sitetest.NewLab(t, func(c *sojourn.Config) {
		c.Tenant = func(*sojourn.RequestInfo) string { return now }
		c.Events = func(_ context.Context, e sojourn.Event) { events = append(events, e) }
	})
	for i, one := range tenants {
		v := sitetest.NewGuest(t)
		now, events = one, nil
		s.Do(v, func(session *sojourn.Session) { session.Login(fmt.Sprint("user", i)) })
		if len(events) == 0 {
			t.Fatal("no event")
		}
		for _, e := range events {
			if e.Tenant != one {
				t.Errorf("the event's tenant is %.20q, want %.20q", e.Tenant, one)
			}
		}
		for _, other := range tenants {
			now = other
			events = nil
			s.Do(v.Copy(), func(session *sojourn.Session) {
				if (session.User() != "") != (one == other) {
					t.Errorf("a session of %.20q in %.20q has the user %q", one, other, session.User())
				}
			})
		}
	}
}
