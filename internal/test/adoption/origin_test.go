package adoption_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// copyOf returns a browser that has only the legacy cookie of another one.
func copyOf(t *testing.T, v *sitetest.Guest) *sitetest.Guest {
	return sitetest.Bring(t, v.Cookies["old"])
}

// copies makes the old application's cookies hold the sessions themselves.
func copies(c *sojourn.Config) { c.Adopt.From[0].(*sitetest.OldApp).Copies = true }

func TestAWrittenBackSessionDoesNotOutliveTheOneItIsACopyOf(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest){
		"a login elsewhere evicts it": func(t *testing.T, s *sitetest.Lab, _ *sitetest.Guest) {
			s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) { session.Login("anna") })
		},
		"it is revoked": func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			handle := ""
			s.Do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := s.End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
		},
		"all of the user's are revoked": func(t *testing.T, s *sitetest.Lab, _ *sitetest.Guest) {
			if _, err := s.RevokeUser(t.Context(), "anna"); err != nil {
				t.Fatal(err)
			}
		},
		"the user is erased": func(t *testing.T, s *sitetest.Lab, _ *sitetest.Guest) {
			if _, err := s.EraseUser(t.Context(), "anna"); err != nil {
				t.Fatal(err)
			}
		},
		"its user logs out": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) { s.Do(v, (*sojourn.Session).Logout) },
		"its user logs in once more": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("anna") })
		},
		"somebody else logs in there": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("bob") })
		},
		"it is idle for too long": func(*testing.T, *sitetest.Lab, *sitetest.Guest) { time.Sleep(2*time.Hour + time.Second) },
		"its lifetime is over":    func(*testing.T, *sitetest.Lab, *sitetest.Guest) { time.Sleep(10*time.Hour + time.Second) },
		"it is still live":        func(*testing.T, *sitetest.Lab, *sitetest.Guest) {},
	} {
		for _, kind := range []string{"identifiers", "copies"} {
			for _, wait := range []time.Duration{0, 3 * time.Minute, 5 * time.Hour, 30 * time.Hour} {
				t.Run(fmt.Sprintf("%s, %s, and %v pass", name, kind, wait), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						edits := []func(*sojourn.Config){back, func(c *sojourn.Config) {
							c.Limit.Max, c.IdleTimeout, c.Lifetime = 1, 2*time.Hour, 10*time.Hour
						}}
						if kind == "copies" {
							edits = append(edits, copies)
						}
						s, old := sitetest.NewMove(t, edits...)
						old.Lasts = 400 * time.Hour
						v := sitetest.NewGuest(t)
						s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
						second := copyOf(t, v)
						kept := old.Sessions[v.Cookies["old"]]
						end(t, s, v)
						time.Sleep(wait)
						if name != "it is still live" || wait < 10*time.Hour {
							old.Put(second.Cookies["old"], kept) // as a slow request of the old application does
						}
						if user, _, _ := s.Who(second); user != "" {
							t.Errorf("the copy is logged in as %q", user)
						}
					})
				})
			}
		}
	}
}

// A site rolls back for a while and returns: meanwhile its visitors only used
// the old application.
func TestAWrittenBackSessionThatTheOldApplicationUsedGoesOnUntilItsLifetimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t, back, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = 2*time.Hour, 10*time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 3) })
		began := time.Now()
		time.Sleep(6 * time.Hour)
		id := v.Cookies["old"]
		used := old.Sessions[id]
		used.Idle, used.Expires = 24*time.Hour, time.Now().Add(23*time.Hour) // an hour ago
		used.Values["cart"] = int64(4)
		old.Put(id, used)
		s.Do(v, func(session *sojourn.Session) {
			if session.User() != "anna" || sitetest.CartKey.Get(session) != 4 {
				t.Fatalf("%q with %d", session.User(), sitetest.CartKey.Get(session))
			}
			if info := session.Info(); !info.Expires.Equal(began.Add(10 * time.Hour).UTC().Truncate(time.Millisecond)) {
				t.Errorf("it lasts until %v after its login", info.Expires.Sub(began))
			}
		})
		time.Sleep(4*time.Hour + time.Second)
		used.Expires = time.Now().Add(24 * time.Hour)
		old.Put(id, used)
		if user, _, _ := s.Who(sitetest.Bring(t, id)); user != "" {
			t.Errorf("after the lifetime the copy is %q", user)
		}
	})
}

func TestALoginOfTheOldApplicationsOwnIsAdoptedAfterAnyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t, back)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.Do(v, (*sojourn.Session).Logout)
		old.Put("new", sitetest.DayOld(sitetest.Anna())) // a login there
		if user, _, _ := s.Who(sitetest.Bring(t, "new")); user != "anna" {
			t.Error("not adopted")
		}
	})
}

func TestADamagedOriginIsNoSession(t *testing.T) {
	for _, bad := range []any{"", "x", "!!", 7, []byte{1}, []any{}, nil, "gA", map[string]any{}} {
		s, old := sitetest.NewMove(t)
		values := sitetest.Anna()
		values["_sojourn"] = bad
		old.Put("a", sitetest.DayOld(values))
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Errorf("%v is adopted", bad)
		}
	}
}

// A request with only the legacy cookie may be answered after the browser has
// received a newer credential.
func TestARefusedLegacyCredentialReplacesNoNewerOne(t *testing.T) {
	for name, later := range map[string]func(s *sitetest.Lab, v *sitetest.Guest){
		"its user logs out and in": func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, (*sojourn.Session).Logout)
			s.Do(v, func(x *sojourn.Session) { x.Login("anna"); sitetest.CartKey.Set(x, 7) })
		},
		"its user logs in once more": func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("anna"); sitetest.CartKey.Set(x, 7) })
		},
		"somebody else logs in there": func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("bob"); sitetest.CartKey.Set(x, 7) })
		},
		"its session is rotated": func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { sitetest.CartKey.Set(x, 7); x.Rotate() })
		},
	} {
		for kind, begin := range map[string]func(s *sitetest.Lab, old *sitetest.OldApp) *sitetest.Guest{
			"written back": func(s *sitetest.Lab, _ *sitetest.OldApp) *sitetest.Guest {
				v := sitetest.NewGuest(s.T)
				s.Do(v, func(x *sojourn.Session) { x.Login("anna") })
				return v
			},
			"of the old application's own": func(s *sitetest.Lab, old *sitetest.OldApp) *sitetest.Guest {
				old.Put("own", sitetest.DayOld(sitetest.Anna()))
				v := sitetest.Bring(s.T, "own")
				s.Who(v)
				return v
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, old := sitetest.NewMove(t, back)
					v := begin(s, old)
					id := v.Cookies["old"]
					kept := old.Sessions[id]
					later(s, v)
					old.Put(id, kept) // as a slow request of the old application does
					late := sitetest.Bring(t, id)
					newest := v.Copy()
					write := func(x *sojourn.Session) { sitetest.CartKey.Set(x, 1) }
					resp := late.Get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, x *sojourn.Session) { write(x) }))
					sitetest.WantStatus(t, resp, http.StatusUnauthorized)
					newest.Keep(resp)
					if user, cart, _ := s.Who(newest); user == "" || cart != 7 {
						t.Errorf("the browser has lost its session: %q with %d", user, cart)
					}
					// A browser without a newer credential starts a new session with the next request.
					s.Do(late, write)
					if user, cart, _ := s.Who(late); user != "" || cart != 1 {
						t.Errorf("the new session is %q's, with %d", user, cart)
					}
				})
			})
		}
	}
}

// The old application may have made several copies of a session that was idle
// here. One of them is adopted, and after its end no other copy is accepted.
func TestTheOtherCopiesOfASessionEndWithTheOneThatGoesOn(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest){
		"its user logs in once more": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("anna") })
		},
		"somebody else logs in there": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(x *sojourn.Session) { x.Login("bob") })
		},
		"its user logs out": func(_ *testing.T, s *sitetest.Lab, v *sitetest.Guest) { s.Do(v, (*sojourn.Session).Logout) },
		"a login elsewhere evicts it": func(t *testing.T, s *sitetest.Lab, _ *sitetest.Guest) {
			time.Sleep(time.Second)
			s.Do(sitetest.NewGuest(t), func(x *sojourn.Session) { x.Login("anna") })
			time.Sleep(3 * time.Hour) // there is room again
		},
		"it is revoked": func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			handle := ""
			s.Do(v, func(x *sojourn.Session) { handle = x.Handle() })
			if err := s.End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
		},
		"it goes on": func(*testing.T, *sitetest.Lab, *sitetest.Guest) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, old := sitetest.NewMove(t, back, copies, func(c *sojourn.Config) {
					if c.IdleTimeout = 2 * time.Hour; strings.Contains(name, "evicts") {
						c.Limit.Max = 1
					}
				})
				v := sitetest.NewGuest(t)
				s.Do(v, func(x *sojourn.Session) { x.Login("anna") })
				used := old.Sessions[v.Cookies["old"]]
				time.Sleep(3 * time.Hour)
				used.Issued = time.Now()
				old.Put("one", used)
				old.Put("two", used)
				v = sitetest.Bring(t, "one")
				if user, _, _ := s.Who(v); user != "anna" {
					t.Fatalf("the visitor is %q", user)
				}
				if user, _, _ := s.Who(sitetest.Bring(t, "one")); user != "anna" {
					t.Error("a second request at once is not the same visitor's")
				}
				end(t, s, v)
				for _, pause := range []time.Duration{0, 3 * time.Minute, time.Hour} {
					time.Sleep(pause)
					used.Issued = time.Now() // the old application keeps using them
					old.Put("one", used)
					old.Put("two", used)
					for _, id := range []string{"two", "one"} {
						if user, _, _ := s.Who(sitetest.Bring(t, id)); user != "" && (id == "two" || name != "it goes on") {
							t.Errorf("%v later the copy %q is logged in as %q", pause, id, user)
						}
					}
				}
			})
		})
	}
}
