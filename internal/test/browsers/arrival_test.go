package browsers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Browsers keep whatever Set-Cookie arrives last, and responses may arrive in
// any order. Each test makes the responses of parallel requests and delivers
// them in every order.

// named is a response with a name for failure messages.
type named struct {
	name string
	*sitetest.Answer
}

// inEveryOrder delivers the answers to a copy of the browser in every order,
// and checks each time what the browser has then.
func inEveryOrder(t *testing.T, b *sitetest.Browser, shop *sitetest.Site, answers []named, check func(t *testing.T, s *sojourn.Session)) {
	t.Helper()
	var permute func(done, left []named)
	permute = func(done, left []named) {
		if len(left) == 0 {
			browser, names := b.Clone(), make([]string, len(done))
			for i, a := range done {
				a.ArriveAt(browser)
				names[i] = a.name
			}
			t.Run(strings.Join(names, ", then "), func(t *testing.T) {
				if a := browser.Visit(shop, func(s *sojourn.Session) { check(t, s) }); a.Status != http.StatusOK {
					t.Errorf("got %d %s", a.Status, a.Body)
				}
			})
			return
		}
		for i, a := range left {
			permute(append(slices.Clone(done), a), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	permute(nil, answers)
}

func TestResponsesOfAStoredSessionAroundALoginInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Basket.Set(s, []string{"tea"}) })
	before, after, reader := anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)
	add := func(s *sojourn.Session) {
		sitetest.Basket.Update(s, func(b []string) []string { return append(b, "cake") })
	}
	answers := []named{
		{"a change before it", before.Finish(add)},
		{"the login", anna.Send(shop, func(s *sojourn.Session) { s.Login("anna") })},
		{"a change that was too slow", after.Finish(add)},
		{"a reader", reader.Finish(func(s *sojourn.Session) { sitetest.Basket.Get(s) })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if s.User() != "anna" || len(sitetest.Basket.Get(s)) != 2 {
			t.Errorf("the browser is %q with %v", s.User(), sitetest.Basket.Get(s))
		}
	})
}

func TestResponsesOfAnInlineSessionAroundALoginInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	before, after, growing := anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)
	answers := []named{
		{"a change before it", before.Finish(func(s *sojourn.Session) { sitetest.Essay.Set(s, "x") })},
		{"the login", anna.Send(shop, func(s *sojourn.Session) { s.Login("anna") })},
		{"a change after it", after.Finish(func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })},
		{"a growth that was too slow", growing.Finish(func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if s.User() != "anna" || sitetest.Colour.Get(s) != "red" || sitetest.Visits.Get(s) != 0 {
			t.Errorf("the browser is %q with %q and %d", s.User(), sitetest.Colour.Get(s), sitetest.Visits.Get(s))
		}
	})
}

func TestResponsesAroundAPromotionInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	before, after, growing := anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)
	answers := []named{
		{"a change before it", before.Finish(func(s *sojourn.Session) { sitetest.Essay.Set(s, "x") })},
		{"the promotion", anna.Send(shop, func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })},
		{"a change after it", after.Finish(func(s *sojourn.Session) { sitetest.Essay.Set(s, "y") })},
		{"another promotion", growing.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if sitetest.Colour.Get(s) != "red" || sitetest.Visits.Get(s) != 2 {
			t.Errorf("the session has %q and %d", sitetest.Colour.Get(s), sitetest.Visits.Get(s))
		}
	})
}

func TestResponsesAroundALogoutInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
	before, after, reader := anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)
	answers := []named{
		{"a rotation before it", before.Finish((*sojourn.Session).Rotate)},
		{"the logout", anna.Send(shop, (*sojourn.Session).Logout)},
		{"a change that was too slow", after.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })},
		{"a reader", reader.Finish(func(s *sojourn.Session) { sitetest.Visits.Get(s) })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if s.User() != "" || !s.IsNew() || len(s.Names()) > 0 {
			t.Errorf("the browser is %q with %v", s.User(), s.Names())
		}
	})
}

func TestResponsesAroundARotationInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Visits.Set(s, 1) })
	before, after, reader := anna.Begin(shop), anna.Begin(shop), anna.Begin(shop)
	answers := []named{
		{"a change before it", before.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })},
		{"the rotation", anna.Send(shop, (*sojourn.Session).Rotate)},
		{"a change after it", after.Finish(func(s *sojourn.Session) { sitetest.Visits.Update(s, sitetest.AddOne) })},
		{"a reader", reader.Finish(func(s *sojourn.Session) { sitetest.Visits.Get(s) })},
		{"a longer lifetime", anna.Send(shop, func(s *sojourn.Session) { s.SetExpiry(0, -1) })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if s.User() != "anna" || sitetest.Visits.Get(s) != 3 {
			t.Errorf("the browser is %q with %d", s.User(), sitetest.Visits.Get(s))
		}
	})
}

func TestResponsesOfALoginAsSomebodyElseInEveryOrder(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Essay.Set(s, "anna's") })
	before, after := anna.Begin(shop), anna.Begin(shop)
	answers := []named{
		{"a change before it", before.Finish(func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })},
		{"the login", anna.Send(shop, func(s *sojourn.Session) { s.Login("bob") })},
		{"a change that was too slow", after.Finish(func(s *sojourn.Session) { sitetest.Essay.Set(s, "anna's, too") })},
	}
	inEveryOrder(t, anna, shop, answers, func(t *testing.T, s *sojourn.Session) {
		if s.User() != "bob" || len(s.Names()) > 0 {
			t.Errorf("the browser is %q with %v", s.User(), s.Names())
		}
	})
}

// A server cannot prevent that an older reference arrives after a login, on
// another connection. It is invalid, and the visitor can log in again at once.
func TestReferenceFromBeforeALoginThatArrivesAfterItLeadsNowhere(t *testing.T) {
	shop := sitetest.OpenShop(t, memory.New())
	anna := sitetest.NewBrowser()
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	promoting, login := anna.Begin(shop), anna.Begin(shop)
	promotion := promoting.Finish(func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
	login.Finish(func(s *sojourn.Session) { s.Login("anna") }).Arrive()
	promotion.Arrive()
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "" || len(s.Names()) > 0 {
			t.Errorf("the browser is %q with %v", s.User(), s.Names())
		}
	})
	if a := anna.Visit(shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 2) }); a.Status != http.StatusUnauthorized {
		t.Errorf("a change got %d, want 401: it may be another tab's login that is under way", a.Status)
	}
	sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
	sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
		if s.User() != "anna" {
			t.Error("not logged in")
		}
	})
}
