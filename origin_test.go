package sojourn_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
)

// copyOf returns a browser that has only the legacy cookie of another one.
func copyOf(t *testing.T, v *guest) *guest { return bring(t, v.cookies["old"]) }

// copies makes the old application's cookies hold the sessions themselves.
func copies(c *sojourn.Config) { c.Adopt.From[0].(*oldApp).copies = true }

func TestAWrittenBackSessionDoesNotOutliveTheOneItIsACopyOf(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *site, v *guest){
		"a login elsewhere evicts it": func(t *testing.T, s *site, _ *guest) {
			s.do(newGuest(t), func(session *sojourn.Session) { session.Login("anna") })
		},
		"it is revoked": func(t *testing.T, s *site, v *guest) {
			handle := ""
			s.do(v, func(session *sojourn.Session) { handle = session.Handle() })
			if err := s.End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
		},
		"all of the user's are revoked": func(t *testing.T, s *site, _ *guest) {
			if _, err := s.RevokeUser(t.Context(), "anna"); err != nil {
				t.Fatal(err)
			}
		},
		"the user is erased": func(t *testing.T, s *site, _ *guest) {
			if _, err := s.EraseUser(t.Context(), "anna"); err != nil {
				t.Fatal(err)
			}
		},
		"its user logs out":           func(_ *testing.T, s *site, v *guest) { s.do(v, (*sojourn.Session).Logout) },
		"its user logs in once more":  func(_ *testing.T, s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("anna") }) },
		"somebody else logs in there": func(_ *testing.T, s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("bob") }) },
		"it is idle for too long":     func(*testing.T, *site, *guest) { time.Sleep(2*time.Hour + time.Second) },
		"its lifetime is over":        func(*testing.T, *site, *guest) { time.Sleep(10*time.Hour + time.Second) },
		"it is still live":            func(*testing.T, *site, *guest) {},
	} {
		for _, kind := range []string{"identifiers", "copies"} {
			for _, wait := range []time.Duration{0, 3 * time.Minute, 5 * time.Hour, 30 * time.Hour} {
				t.Run(fmt.Sprintf("%s, %s, and %v pass", name, kind, wait), func(t *testing.T) {
					inFakeTime(t, func(t *testing.T) {
						edits := []func(*sojourn.Config){back, func(c *sojourn.Config) {
							c.Limit.Max, c.IdleTimeout, c.Lifetime = 1, 2*time.Hour, 10*time.Hour
						}}
						if kind == "copies" {
							edits = append(edits, copies)
						}
						s, old := newMove(t, edits...)
						old.lasts = 400 * time.Hour
						v := newGuest(t)
						s.do(v, func(session *sojourn.Session) { session.Login("anna") })
						second := copyOf(t, v)
						kept := old.sessions[v.cookies["old"]]
						end(t, s, v)
						time.Sleep(wait)
						if name != "it is still live" || wait < 10*time.Hour {
							old.put(second.cookies["old"], kept) // as a slow request of the old application does
						}
						if user, _, _ := s.who(second); user != "" {
							t.Errorf("the copy is logged in as %q", user)
						}
					})
				})
			}
		}
	}
}

// A site that rolls back for a while and returns: its visitors were only seen by
// the old application in the meantime.
func TestAWrittenBackSessionThatTheOldApplicationUsedGoesOnUntilItsLifetimeEnds(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t, back, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = 2*time.Hour, 10*time.Hour })
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna"); cartKey.Set(session, 3) })
		began := time.Now()
		time.Sleep(6 * time.Hour)
		id := v.cookies["old"]
		used := old.sessions[id]
		used.Idle, used.Expires = 24*time.Hour, time.Now().Add(23*time.Hour) // an hour ago
		used.Values["cart"] = int64(4)
		old.put(id, used)
		s.do(v, func(session *sojourn.Session) {
			if session.User() != "anna" || cartKey.Get(session) != 4 {
				t.Fatalf("%q with %d", session.User(), cartKey.Get(session))
			}
			if info := session.Info(); !info.Expires.Equal(began.Add(10 * time.Hour).UTC().Truncate(time.Millisecond)) {
				t.Errorf("it lasts until %v after its login", info.Expires.Sub(began))
			}
		})
		time.Sleep(4*time.Hour + time.Second)
		used.Expires = time.Now().Add(24 * time.Hour)
		old.put(id, used)
		if user, _, _ := s.who(bring(t, id)); user != "" {
			t.Errorf("after the lifetime the copy is %q", user)
		}
	})
}

func TestALoginOfTheOldApplicationsOwnIsAdoptedAfterAnyEnd(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s, old := newMove(t, back)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.do(v, (*sojourn.Session).Logout)
		old.put("new", dayOld(anna())) // a login there
		if user, _, _ := s.who(bring(t, "new")); user != "anna" {
			t.Error("not adopted")
		}
	})
}

func TestADamagedOriginIsNoSession(t *testing.T) {
	for _, bad := range []any{"", "x", "!!", 7, []byte{1}, []any{}, nil, "gA", map[string]any{}} {
		s, old := newMove(t)
		values := anna()
		values["_sojourn"] = bad
		old.put("a", dayOld(values))
		if user, _, _ := s.who(bring(t, "a")); user != "" {
			t.Errorf("%v is adopted", bad)
		}
	}
}

// A request that was sent with the legacy cookie alone may be answered after the
// browser has got something newer.
func TestARefusedLegacyCredentialReplacesNoNewerOne(t *testing.T) {
	for name, later := range map[string]func(s *site, v *guest){
		"its user logs out and in": func(s *site, v *guest) {
			s.do(v, (*sojourn.Session).Logout)
			s.do(v, func(x *sojourn.Session) { x.Login("anna"); cartKey.Set(x, 7) })
		},
		"its user logs in once more":  func(s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("anna"); cartKey.Set(x, 7) }) },
		"somebody else logs in there": func(s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("bob"); cartKey.Set(x, 7) }) },
		"its session is rotated": func(s *site, v *guest) {
			s.do(v, func(x *sojourn.Session) { cartKey.Set(x, 7); x.Rotate() })
		},
	} {
		for kind, begin := range map[string]func(s *site, old *oldApp) *guest{
			"written back": func(s *site, _ *oldApp) *guest {
				v := newGuest(s.t)
				s.do(v, func(x *sojourn.Session) { x.Login("anna") })
				return v
			},
			"of the old application's own": func(s *site, old *oldApp) *guest {
				old.put("own", dayOld(anna()))
				v := bring(s.t, "own")
				s.who(v)
				return v
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				inFakeTime(t, func(t *testing.T) {
					s, old := newMove(t, back)
					v := begin(s, old)
					id := v.cookies["old"]
					kept := old.sessions[id]
					later(s, v)
					old.put(id, kept) // as a slow request of the old application does
					late := bring(t, id)
					newest := v.copy()
					write := func(x *sojourn.Session) { cartKey.Set(x, 1) }
					resp := late.get(s.Handler(func(_ http.ResponseWriter, _ *http.Request, x *sojourn.Session) { write(x) }))
					wantStatus(t, resp, http.StatusUnauthorized)
					newest.keep(resp)
					if user, cart, _ := s.who(newest); user == "" || cart != 7 {
						t.Errorf("the browser has lost its session: %q with %d", user, cart)
					}
					// Whoever has nothing better starts anew with the next request.
					s.do(late, write)
					if user, cart, _ := s.who(late); user != "" || cart != 1 {
						t.Errorf("the new session is %q's, with %d", user, cart)
					}
				})
			})
		}
	}
}

// The old application may have made several copies of a session that was idle
// here. One of them goes on, and when that one ends, no other one does.
func TestTheOtherCopiesOfASessionEndWithTheOneThatGoesOn(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *site, v *guest){
		"its user logs in once more":  func(_ *testing.T, s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("anna") }) },
		"somebody else logs in there": func(_ *testing.T, s *site, v *guest) { s.do(v, func(x *sojourn.Session) { x.Login("bob") }) },
		"its user logs out":           func(_ *testing.T, s *site, v *guest) { s.do(v, (*sojourn.Session).Logout) },
		"a login elsewhere evicts it": func(t *testing.T, s *site, _ *guest) {
			wait(time.Second)
			s.do(newGuest(t), func(x *sojourn.Session) { x.Login("anna") })
			wait(3 * time.Hour) // there is room again
		},
		"it is revoked": func(t *testing.T, s *site, v *guest) {
			handle := ""
			s.do(v, func(x *sojourn.Session) { handle = x.Handle() })
			if err := s.End(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
		},
		"it goes on": func(*testing.T, *site, *guest) {},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s, old := newMove(t, back, copies, func(c *sojourn.Config) {
					if c.IdleTimeout = 2 * time.Hour; strings.Contains(name, "evicts") {
						c.Limit.Max = 1
					}
				})
				v := newGuest(t)
				s.do(v, func(x *sojourn.Session) { x.Login("anna") })
				used := old.sessions[v.cookies["old"]]
				wait(3 * time.Hour)
				used.Issued = time.Now()
				old.put("one", used)
				old.put("two", used)
				v = bring(t, "one")
				if user, _, _ := s.who(v); user != "anna" {
					t.Fatalf("the visitor is %q", user)
				}
				if user, _, _ := s.who(bring(t, "one")); user != "anna" {
					t.Error("a second request at once is not the same visitor's")
				}
				end(t, s, v)
				for _, pause := range []time.Duration{0, 3 * time.Minute, time.Hour} {
					wait(pause)
					used.Issued = time.Now() // the old application goes on with them
					old.put("one", used)
					old.put("two", used)
					for _, id := range []string{"two", "one"} {
						if user, _, _ := s.who(bring(t, id)); user != "" && (id == "two" || name != "it goes on") {
							t.Errorf("%v later the copy %q is logged in as %q", pause, id, user)
						}
					}
				}
			})
		})
	}
}
