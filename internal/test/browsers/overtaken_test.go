package browsers_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Requests that are overtaken by others of the same visitor: the effect of a
// slow request after a logout, a login or a promotion.

func TestSlowerRequestsOfAnEndedSession(t *testing.T) {
	for what, f := range map[string]func(*sojourn.Session){
		"set a value":                 func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"delete a value":              func(s *sojourn.Session) { sitetest.Colour.Delete(s) },
		"update a value":              func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) },
		"pop a value":                 func(s *sojourn.Session) { sitetest.Ticket.Pop(s) },
		"clear all values":            (*sojourn.Session).Clear,
		"add a flash message":         func(s *sojourn.Session) { s.Flash("info", "late") },
		"rotate":                      (*sojourn.Session).Rotate,
		"ask to be remembered":        func(s *sojourn.Session) { s.Remember(false) },
		"change the expiry":           func(s *sojourn.Session) { s.SetExpiry(time.Hour, 0) },
		"log in with a popped ticket": func(s *sojourn.Session) { sitetest.Ticket.Pop(s); s.Login("anna") },
	} {
		for end, finish := range map[string]func(*sojourn.Session){
			"a logout": (*sojourn.Session).Logout,
			"a login":  func(s *sojourn.Session) { s.Login("anna") },
		} {
			t.Run(what+" after "+end, func(t *testing.T) {
				db := memory.New()
				shop := sitetest.OpenShop(t, db)
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
					s.Login("anna")
					sitetest.Colour.Set(s, "blue")
					sitetest.Ticket.Set(s, "admit one")
				})
				slow := anna.Begin(shop)
				sitetest.Does(t, anna, shop, finish)
				want := sitetest.Rows(t, db)
				sitetest.Refused(t, slow.Finish(f))
				if got := sitetest.Rows(t, db); got != want {
					t.Errorf("there are %d sessions now, %d before", got, want)
				}
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if loggedIn := s.User() == "anna"; loggedIn != (end == "a login") || loggedIn && sitetest.Colour.Get(s) != "blue" {
						t.Errorf("the browser is %q with the colour %q now", s.User(), sitetest.Colour.Get(s))
					}
				})
			})
		}
	}
}

func TestSlowerLoginAfterALogoutOrALoginStands(t *testing.T) {
	for what, first := range map[string]func(*sojourn.Session){
		"a logout": (*sojourn.Session).Logout,
		"a login":  func(s *sojourn.Session) { s.Login("bob") },
	} {
		shop := sitetest.OpenShop(t, memory.New())
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Basket.Set(s, []string{"tea"}) })
		slow := anna.Begin(shop)
		sitetest.Does(t, anna, shop, first)
		if a := slow.Finish(func(s *sojourn.Session) { s.Login("anna") }).Arrive(); a.Status != http.StatusOK {
			t.Errorf("a login after %s got %d", what, a.Status)
		}
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if s.User() != "anna" || len(sitetest.Basket.Get(s)) != 1 {
				t.Errorf("after %s, a slower login is %q with %v", what, s.User(), sitetest.Basket.Get(s))
			}
		})
	}
}

func TestSlowerReloginOfAnEndedSessionBringsNoneOfItsValues(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Basket.Set(s, []string{"tea"}) })
	slow := anna.Begin(shop)
	sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
	if a := slow.Finish(func(s *sojourn.Session) { s.Login("anna") }).Arrive(); a.Status != http.StatusOK {
		t.Errorf("the login got %d", a.Status)
	}
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "anna" || len(s.Names()) != 0 {
			t.Errorf("logged in as %q with values %v", s.User(), s.Names())
		}
	})
}

func TestWhatIsSetAfterALoginIsInItsSessionWhateverTheOneBeforeHeld(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	login := func(s *sojourn.Session) { s.Login("anna"); sitetest.Colour.Set(s, "red") }
	sitetest.Does(t, anna, shop, login)
	slow := anna.Begin(shop)
	sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
	if a := slow.Finish(login).Arrive(); a.Status != http.StatusOK {
		t.Errorf("the login got %d", a.Status)
	}
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "anna" || sitetest.Colour.Get(s) != "red" {
			t.Errorf("%q has %q", s.User(), sitetest.Colour.Get(s))
		}
	})
}

func TestSlowerInlineAnswerDoesNotUndoALogin(t *testing.T) {
	db := memory.New()
	shop := sitetest.OpenShop(t, db)
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
	setting, growing := anna.Begin(shop), anna.Begin(shop)
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
	// It lives in the cookie, where the last response wins; but not over this.
	setting.Finish(func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") }).Arrive()
	sitetest.Refused(t, growing.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) }))
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "anna" || sitetest.Colour.Get(s) != "blue" || sitetest.Visits.Get(s) != 0 {
			t.Errorf("the browser is %q with %q and %d", s.User(), sitetest.Colour.Get(s), sitetest.Visits.Get(s))
		}
	})
	if n := sitetest.Rows(t, db); n != 1 {
		t.Errorf("there are %d sessions, want 1", n)
	}
}

func TestSlowerInlineAnswerDoesNotUndoAPromotion(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
	slow := anna.Begin(shop)
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Basket.Set(s, []string{"tea"}) })
	slow.Finish(func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") }).Arrive()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) {
		sitetest.Basket.Update(s, func(b []string) []string { return append(b, "cake") })
	})
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if got := sitetest.Basket.Get(s); len(got) != 2 {
			t.Errorf("the basket holds %v", got)
		}
	})
}

func TestSavedPromotionOvertakenByALoginSetsNoCookie(t *testing.T) {
	for what, more := range map[string]func(*sojourn.Session){
		"and changes nothing more":   func(*sojourn.Session) {},
		"and changes something more": func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
	} {
		t.Run(what, func(t *testing.T) {
			shop := sitetest.OpenShop(t, memory.New())
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
			slow, saved, goOn := anna.Begin(shop), make(chan struct{}), make(chan struct{})
			answer := make(chan *sitetest.Answer)
			go func() {
				answer <- slow.Finish(func(s *sojourn.Session) {
					sitetest.Visits.Update(s, sitetest.AddOne)
					if err := s.Save(t.Context()); err != nil {
						t.Error(err)
					}
					close(saved)
					<-goOn
					more(s)
				})
			}()
			<-saved
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			close(goOn)
			if a := (<-answer).Arrive(); len(a.SetCookies()) > 0 {
				t.Errorf("it set cookies %v", a.SetCookies())
			}
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if s.User() != "anna" || sitetest.Visits.Get(s) != 1 {
					t.Errorf("the browser is %q with %d visits", s.User(), sitetest.Visits.Get(s))
				}
			})
		})
	}
}

func TestSlowerReaderOfAnEndedSessionRenewsNoCookie(t *testing.T) {
	text := keys.Generate()
	old, err := sojourn.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	other := keys.Generate()
	newer, err := sojourn.ParseKeys(sitetest.KeyText("active:20300101T000000Z:"+other[len(other)-43:], text))
	if err != nil {
		t.Fatal(err)
	}
	db := memory.New()
	before := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: old}))
	shop := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: newer}))

	resealed, rotated := sitetest.NewBrowser(), sitetest.NewBrowser()
	sitetest.Does(t, resealed, before, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	sitetest.Does(t, rotated, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	previous := rotated.Clone()
	sitetest.Does(t, rotated, shop, (*sojourn.Session).Rotate)

	for what, b := range map[string]*sitetest.Browser{"sealed with an old key": resealed, "of the generation before": previous} {
		live, slow := b.Clone(), b.Begin(shop)
		a := live.Visit(shop, func(s *sojourn.Session) { sitetest.Visits.Get(s) })
		if len(a.SetCookies()) != 1 {
			t.Errorf("a reader with a reference %s got cookies %v, want a newer one", what, a.SetCookies())
		}
		sitetest.Does(t, b, shop, func(s *sojourn.Session) { s.Login("anna") })
		if a := slow.Finish(func(s *sojourn.Session) { sitetest.Visits.Get(s) }).Arrive(); a.Status != http.StatusOK || len(a.SetCookies()) > 0 {
			t.Errorf("a slow reader with a reference %s got %d and cookies %v", what, a.Status, a.SetCookies())
		}
		sitetest.Look(t, b, shop, func(s *sojourn.Session) {
			if s.User() != "anna" {
				t.Errorf("a slow reader with a reference %s undid the login", what)
			}
		})
	}
}

func TestLogoutWithACredentialThatIsNewStartsNoSession(t *testing.T) {
	for what, db := range map[string]interface {
		store.Store
		store.Counter
	}{
		"that can touch": memory.New(),
		"that cannot":    untouchable{memory.New()},
	} {
		synctest.Test(t, func(t *testing.T) {
			shop := sitetest.OpenShop(t, db)
			anna := sitetest.NewBrowser()
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
			sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
			time.Sleep(48 * time.Hour) // so that activity is due
			a := sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
			if left := anna.Cookies(); len(left) != 0 {
				t.Errorf("with a store %s, cookies are left: %v", what, a.SetCookies())
			}
			if n := sitetest.Rows(t, db); n != 0 {
				t.Errorf("with a store %s, %d sessions are left", what, n)
			}
		})
	}
}

// untouchable is a store that cannot touch.
type untouchable struct{ *memory.Store }

func (untouchable) Touch(context.Context, store.ID, time.Time, time.Time) error {
	return errors.ErrUnsupported
}
