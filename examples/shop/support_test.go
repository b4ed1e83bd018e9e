package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// person is a browser without pages: it keeps cookies and follows redirects.
type person struct {
	t    *testing.T
	shop *testShop
	http *http.Client
}

func (s *testShop) person(t *testing.T, name, email string) person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := person{t, s, &http.Client{Jar: jar}}
	p.post("/signup", url.Values{"name": {name}, "email": {email}, "password": {"correct horse"}})
	return p
}

// response returns the path on which redirects end, and the page.
func (p person) response(res *http.Response, err error) (path, page string) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.Request.URL.Path, string(b)
}

func (p person) get(path string) (where, page string) {
	p.t.Helper()
	return p.response(p.http.Get(p.shop.url + path))
}

func (p person) post(path string, form url.Values) (where, page string) {
	p.t.Helper()
	return p.response(p.http.PostForm(p.shop.url+path, form))
}

// sees returns the customer whose orders the page shows.
func (p person) sees(numbers map[string]string) string {
	p.t.Helper()
	where, page := p.get("/orders")
	if where != "/orders" {
		return where
	}
	var seen []string
	for name, number := range numbers {
		if strings.Contains(page, number) {
			seen = append(seen, name)
		}
	}
	return strings.Join(seen, " and ")
}

// support opens a shop in which Olga, its operator, acts for Ida.
func support(t *testing.T) (shop *testShop, ida, olga_ person, numbers map[string]string) {
	t.Helper()
	shop = openShopWith(t, parts{insecure: true, operator: olga})
	ida, olga_ = shop.person(t, "Ida", "ida@example.com"), shop.person(t, "Olga", olga)
	numbers = map[string]string{}
	for name, email := range map[string]string{"Ida": "ida@example.com", "Olga": olga} {
		number, err := shop.ledger.placeOrder(t.Context(), shop.userOf(t, email), name, delivery{name, "Track 1", "Somewhere", "story"}, billFor([]Line{{"mug", 1}}))
		if err != nil {
			t.Fatal(err)
		}
		numbers[name] = number
	}
	if where, page := olga_.post("/support", url.Values{"email": {"ida@example.com"}}); where != "/orders" || !strings.Contains(page, "You see what Ida sees.") {
		t.Fatalf("acting leads to %s: %s", where, page)
	}
	return shop, ida, olga_, numbers
}

func TestAnOperatorSeesWhatACustomerSees(t *testing.T) {
	t.Parallel()
	_, ida, olga, numbers := support(t)
	if got := olga.sees(numbers); got != "Ida" {
		t.Errorf("the operator sees the orders of %q", got)
	}
	if _, page := olga.get("/orders/" + numbers["Ida"]); !strings.Contains(page, "Track 1") || !strings.Contains(page, "You see what Ida sees.") {
		t.Error("the operator does not see an order")
	}
	if _, page := olga.get("/account"); !strings.Contains(page, "Olga") || strings.Contains(page, "Ida") {
		t.Error("the operator's account is not her own")
	}
	olga.post("/support/stop", nil)
	if got := olga.sees(numbers); got != "Olga" {
		t.Errorf("after Stop, the operator sees the orders of %q", got)
	}
	if where, page := ida.post("/support", url.Values{"email": {"olga@example.com"}}); where != "/support" || strings.Contains(page, "Show their orders") {
		t.Errorf("a customer who acts for somebody is on %s", where)
	}
	if got := ida.sees(numbers); got != "Ida" {
		t.Errorf("the customer sees the orders of %q", got)
	}
}

func TestACustomersSessionsStayWhatTheyWereWhileAnOperatorActs(t *testing.T) {
	t.Parallel()
	shop, _, olga, numbers := support(t)
	list := func() string {
		sessions, err := shop.shop.sessions.Sessions(t.Context(), shop.userOf(t, "ida@example.com"))
		if err != nil || len(sessions) != 1 {
			t.Fatalf("the customer has %d sessions, %v", len(sessions), err)
		}
		s := sessions[0]
		return s.Handle + s.LastSeen.String() + s.IP + s.UserAgent
	}
	before := list()
	olga.sees(numbers)
	olga.post("/support/stop", nil)
	if after := list(); after != before {
		t.Errorf("the customer's session was %s and is %s", before, after)
	}
	if sessions, err := shop.shop.support.Sessions(t.Context(), shop.userOf(t, "ida@example.com")); len(sessions) != 0 || err != nil {
		t.Errorf("the customer has %d sessions with support, %v", len(sessions), err)
	}
}

func TestAnOperatorWhoseSessionsEndActsForNobody(t *testing.T) {
	t.Parallel()
	form := url.Values{"email": {olga}, "password": {"correct horse"}}
	for name, end := range map[string]func(*testing.T, *testShop, person){
		"the shop's": func(t *testing.T, s *testShop, _ person) {
			if n, err := s.shop.sessions.RevokeUser(t.Context(), s.userOf(t, olga)); n != 1 || err != nil {
				t.Errorf("%d sessions ended, %v", n, err)
			}
		},
		"both managers'": func(t *testing.T, s *testShop, _ person) {
			if n, err := s.shop.endSessions(t.Context(), s.userOf(t, olga), ""); n != 1 || err != nil {
				t.Errorf("%d sessions ended, %v", n, err)
			}
		},
		"by herself": func(_ *testing.T, _ *testShop, olga person) { olga.post("/logout", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			shop, _, olga, numbers := support(t)
			end(t, shop, olga)
			if got := olga.sees(numbers); got != "/login" {
				t.Errorf("the operator sees %q", got)
			}
			shop.shop.operator = "" // she was fired
			olga.post("/login", form)
			if got := olga.sees(numbers); got != "Olga" {
				t.Errorf("once more signed in, she sees the orders of %q", got)
			}
		})
	}
}

func TestSigningOutEndsActing(t *testing.T) {
	t.Parallel()
	_, _, olga_, numbers := support(t)
	olga_.post("/logout", nil)
	olga_.post("/login", url.Values{"email": {olga}, "password": {"correct horse"}})
	if got := olga_.sees(numbers); got != "Olga" {
		t.Errorf("the operator sees the orders of %q", got)
	}
}

func TestAnotherOperatorInTheSameBrowserActsForNobody(t *testing.T) {
	t.Parallel()
	shop, _, olga_, numbers := support(t)
	if _, err := shop.shop.sessions.RevokeUser(t.Context(), shop.userOf(t, olga)); err != nil {
		t.Fatal(err)
	}
	olga_.post("/signup", url.Values{"name": {"Otto"}, "email": {"otto@example.com"}, "password": {"correct horse"}})
	shop.shop.operator = "otto@example.com"
	if got := olga_.sees(numbers); got != "" {
		t.Errorf("the other operator sees the orders of %q", got)
	}
}
