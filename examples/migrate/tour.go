package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy/cookies"
)

func tourInTemporaryFolder(kind string, out io.Writer) (err error) {
	data, err := os.MkdirTemp("", "migrate-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	s, err := openShop(kind, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.tour(out)
}

// tour makes the whole move, with visitors in the shop. Its error is the first
// failed check.
func (s *shop) tour(out io.Writer) error {
	server := httptest.NewServer(s.site)
	defer server.Close()
	t := &tour{shop: s, url: server.URL, out: out}
	t.say("The old shop is %s.%s", s.old.describe(), s.old.warning())
	t.say("The new shop is in Go. One address for both: each page is answered by one or the other.\n")
	if s.old.kind == oldRecorded {
		t.recordedVisitors()
	} else {
		t.sideBySide()
	}
	t.switchOff()
	return t.failed
}

// tour is the move under way.
type tour struct {
	shop     *shop
	url      string
	out      io.Writer
	failed   error
	visitors []*visitor
	// of a visitor who never comes back until the end
	stranger *visitor
}

// say prints the explanation, until a check fails.
func (t *tour) say(format string, args ...any) {
	if t.failed == nil {
		fmt.Fprintf(t.out, format+"\n", args...)
	}
}

// expect records a failed check. After the first one, nothing more is done.
func (t *tour) expect(ok bool, format string, args ...any) {
	if !ok && t.failed == nil {
		t.failed = fmt.Errorf(format, args...)
	}
}

// visitor is a browser, and the expected content of its pages.
type visitor struct {
	t    *tour
	name string
	jar  map[string]string // values as received
	want shown
}

func (t *tour) visitor(name string) *visitor {
	v := &visitor{t: t, name: name, jar: map[string]string{}, want: shown{Cart: map[string]int{}}}
	t.visitors = append(t.visitors, v)
	return v
}

// send sends a request and keeps the answer's cookies, like a browser. Cookies
// are Secure, and http://localhost counts as secure.
func (v *visitor) send(method, path string, form url.Values) (status int, body []byte) {
	if v.t.failed != nil {
		return 0, nil
	}
	r, err := http.NewRequest(method, v.t.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.expect(false, "%v", err)
		return 0, nil
	}
	r.Header.Set("Accept", "application/json")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, name := range slices.Sorted(maps.Keys(v.jar)) {
		r.Header.Set("Cookie", strings.TrimPrefix(r.Header.Get("Cookie")+"; "+name+"="+v.jar[name], "; "))
	}
	answer, err := http.DefaultTransport.RoundTrip(r) // follows no redirects
	if err != nil {
		v.t.expect(false, "%s %s: %v", method, path, err)
		return 0, nil
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	v.t.expect(err == nil, "%s %s: %v", method, path, err)
	for _, line := range answer.Header["Set-Cookie"] {
		name, value, removed := cookies.ParseSet(line)
		if removed {
			delete(v.jar, name)
		} else {
			v.jar[name] = value
		}
	}
	return answer.StatusCode, body
}

// sees loads a page, and expects it to come from that shop.
func (v *visitor) sees(path, answeredBy string) {
	if path == "/" {
		v.want.Visits++
	}
	status, body := v.send(http.MethodGet, path, nil)
	if v.t.failed != nil {
		return
	}
	var got shown
	err := json.Unmarshal(body, &got)
	v.t.expect(err == nil && status == http.StatusOK, "%s at %s: status %d, %.100s", v.name, path, status, body)
	want := v.want
	v.t.expect(strings.HasPrefix(got.AnsweredBy, answeredBy), "%s at %s is answered by %q, want %q", v.name, path, got.AnsweredBy, answeredBy)
	v.t.expect(got.User == want.User && got.Visits == want.Visits && maps.Equal(got.Cart, want.Cart),
		"%s at %s sees user %q, %d visits, cart %v; want %q, %d, %v", v.name, path, got.User, got.Visits, got.Cart, want.User, want.Visits, want.Cart)
	if v.t.failed == nil {
		v.t.say("  %-5s %-6s from %-20s user %q, %d visits, cart %v", v.name, path, got.AnsweredBy+":", got.User, got.Visits, got.Cart)
	}
}

func (v *visitor) post(path, field, value string) {
	status, body := v.send(http.MethodPost, path, url.Values{field: {value}})
	v.t.expect(status == http.StatusSeeOther || v.t.failed != nil, "%s posts to %s: status %d, %.100s", v.name, path, status, body)
}

func (v *visitor) buys(item string) {
	v.post("/cart", "item", item)
	v.want.Cart[item]++
}

func (v *visitor) logsIn() {
	v.post("/login", "user", v.name)
	v.want.User = v.name
}

// logsOut ends the session: the cart is empty in both shops.
func (v *visitor) logsOut() {
	v.post("/logout", "", "")
	v.want = shown{Cart: map[string]int{}}
}

func (t *tour) move(route string, toNew bool) {
	if t.failed == nil {
		t.failed = t.shop.front.move(route, toNew)
	}
}

func (t *tour) count() (s status) {
	if t.failed == nil {
		s, t.failed = t.shop.front.status()
	}
	left := "unknown, for they live in cookies"
	if s.Left != nil {
		left = fmt.Sprint(*s.Left)
	}
	t.say("  [old sessions left: %s; adopted: %d]", left, s.Sojourn)
	return s
}

const python = "Python"

// sideBySide has both shops work on the same sessions.
func (t *tour) sideBySide() {
	t.say("1. The old shop answers everything.")
	ada, ben, eve := t.visitor("ada"), t.visitor("ben"), t.visitor("eve")
	for _, v := range t.visitors {
		v.sees("/", python)
		v.logsIn()
		v.buys("tea")
		v.sees("/cart", python)
	}

	t.say("\n2. The cart moves to Go. Both work on the same session: changes go back and forth.")
	t.move("/cart", true)
	ada.sees("/cart", answeredByGo)
	ada.buys("pot")
	ada.sees("/", python)
	ada.sees("/cart", answeredByGo)
	ada.sees("/", python)

	t.say("\n3. It moves back, as a test of the way back.")
	t.move("/cart", false)
	ada.sees("/cart", python)
	ada.buys("cup")
	t.move("/cart", true)
	ada.sees("/cart", answeredByGo)

	t.say("\n4. Logins and logouts. First by Python, then by Go; each sees those of the other.")
	ben.logsOut()
	ben.sees("/cart", answeredByGo)
	ben.sees("/", python)
	t.move("/login", true)
	ben.logsIn()
	ben.sees("/", python)
	t.move("/logout", true)
	ben.buys("tin")
	before := maps.Clone(ben.jar)
	ben.logsOut()
	ben.sees("/", python)
	ben.sees("/cart", answeredByGo)
	if t.shop.old.folder != "" {
		thief := t.visitor("thief")
		thief.jar = before
		t.say("  The cookie from before the logout, used again:")
		thief.sees("/cart", answeredByGo)
		thief.sees("/", python)
	} else {
		t.say("  (A copy of a cookie that holds its values survives a logout. That ends with step 6.)")
	}
	t.move("/login", false)
	ben.logsIn()
	ben.sees("/cart", answeredByGo)
	t.move("/login", true)

	t.say("\n5. Everything has moved; the sessions are still the old ones.")
	t.move("/", true)
	for _, v := range []*visitor{ada, ben} {
		v.sees("/", answeredByGo)
	}
	t.stranger = eve // does not return for a while
}

// recordedVisitors has visitors whose cookies the real old shop has made.
func (t *tour) recordedVisitors() {
	t.say("1. Everything has moved to Go; the sessions are the old ones, of visitors that were recorded.")
	for _, route := range routes {
		t.move(route, true)
	}
	wants := []shown{
		{User: "ada", Visits: 1, Cart: map[string]int{"tea": 1}},
		{User: "ben", Visits: 1, Cart: map[string]int{"pot": 1, "tea": 2}},
		{User: "", Visits: 1, Cart: map[string]int{"cup": 1}},
	}
	t.expect(len(t.shop.old.visits) == len(wants), "%d recordings, want %d", len(t.shop.old.visits), len(wants))
	for i, rec := range t.shop.old.visits {
		name, value, _ := strings.Cut(rec.Cookie, "=")
		v := t.visitor([]string{"ada", "ben", "eve"}[i])
		v.jar[name], v.want = value, wants[i]
	}
	if t.failed != nil {
		return
	}
	t.visitors[0].sees("/", answeredByGo)
	t.visitors[0].buys("cup")
	t.visitors[0].sees("/cart", answeredByGo)
	t.stranger = t.visitors[2]
}

// switchOff stops accepting the old sessions.
func (t *tour) switchOff() {
	if t.failed != nil {
		return
	}
	before := t.count()
	t.say("\n6. The new shop gets sessions of its own, and adopts an old one when its visitor comes.")
	t.failed = t.shop.front.next(adopting)
	for _, v := range t.visitors {
		if v == t.stranger || v.want.Visits == 0 {
			continue
		}
		copied := maps.Clone(v.jar)
		v.sees("/cart", answeredByGo)
		v.sees("/", answeredByGo)
		_, kept := v.jar["shop"]
		t.expect(!kept, "%s still has the old cookie", v.name)
		v.buys("jam")
		v.sees("/cart", answeredByGo)
		again := *v
		again.jar = copied
		t.say("  The same visitor in a tab that was open meanwhile, with the old cookie:")
		again.sees("/cart", answeredByGo)
	}
	after := t.count()
	if before.Left != nil && after.Left != nil {
		t.expect(*after.Left < *before.Left, "still %d old sessions left", *after.Left)
	}
	t.expect(after.Sojourn > 0, "nothing was adopted")

	t.say("\n7. A logout is final: the old cookie brings nothing back, however often it was copied.")
	leaver := t.visitors[0]
	copied := maps.Clone(leaver.jar)
	leaver.logsOut()
	leaver.sees("/cart", answeredByGo)
	thief := *leaver
	thief.jar = copied
	thief.sees("/cart", answeredByGo)

	t.say("\n8. Somebody comes late, and is still logged in.")
	t.stranger.sees("/", answeredByGo)
	t.count()

	t.say("\n9. The old shop is switched off, and nothing is adopted any more. Adopted visitors stay.")
	if t.failed == nil {
		t.failed = t.shop.front.next(alone)
	}
	t.stranger.sees("/cart", answeredByGo)
	t.stranger.sees("/", answeredByGo)
	leaver.logsIn()
	leaver.sees("/", answeredByGo)
	if t.failed == nil {
		t.say("\nThe move is over. (%s)", time.Now().Format(time.DateOnly))
	}
}
