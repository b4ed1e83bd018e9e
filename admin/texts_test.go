package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
	"github.com/sojourn-go/sojourn/store/memory"
)

// marked returns texts that each say «the name of their field», and the names.
func marked() (admin.DevicesTexts, map[string]bool) {
	var texts admin.DevicesTexts
	names := map[string]bool{}
	fields := reflect.ValueOf(&texts).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		names[name] = true
		mark := reflect.ValueOf("«" + name + "»")
		if field := fields.Field(i); field.Kind() == reflect.Func {
			field.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value { return []reflect.Value{mark} }))
		} else {
			field.Set(mark)
		}
	}
	return texts, names
}

var (
	markup    = regexp.MustCompile(`<[^>]*>`)
	spoken    = regexp.MustCompile(` (?:aria-label|title|alt|placeholder|lang)="([^"]*)"`)
	marks     = regexp.MustCompile(`«(\w+)»`)
	addresses = regexp.MustCompile(`192\.0\.2\.\d+|Example|·`)
)

// Every page of the devices, in every state: what is left when the texts of
// DevicesTexts are taken away is no word.
func TestEveryTextOfTheDevicesPageCanBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		texts, unused := marked()
		german := set{devices: func(o *admin.DevicesOptions) {
			o.Texts = func(*http.Request) admin.DevicesTexts { return texts }
		}}
		read := func(w *httptest.ResponseRecorder) {
			t.Helper()
			html := w.Body.String()
			said := markup.ReplaceAllString(html, " ")
			for _, m := range spoken.FindAllStringSubmatch(html, -1) {
				said += " " + m[1]
			}
			for _, m := range marks.FindAllStringSubmatch(said, -1) {
				delete(unused, m[1])
			}
			if rest := strings.TrimSpace(addresses.ReplaceAllString(marks.ReplaceAllString(said, ""), "")); rest != "" {
				t.Errorf("these texts are not in DevicesTexts: %q", strings.Join(strings.Fields(rest), " "))
			}
		}
		const page = "/account/devices/"
		s := open(t, german)
		here := s.login("ada", firefox, "192.0.2.1")
		read(here.get(page))
		there := s.login("ada", iphone, "192.0.2.2")
		post := func(target string, fields ...string) {
			t.Helper()
			here.post(page+target, fields...)
			read(here.get(page))
		}
		post("sign-out", "handle", here.handle())
		post("sign-out", "handle", there.handle())
		post("sign-out", "handle", "nobody's")
		post("sign-out-others")
		s.login("ada", "", "")
		read(here.get(page))
		for range 25 {
			s.login("ada", iphone, "192.0.2.3")
		}
		read(here.get(page + "?page=2"))
		read(here.get(page))
		read(here.get(page + "nowhere"))
		read(here.get(page + "sign-out"))
		here.header.Set("Sec-Fetch-Site", "cross-site")
		read(here.post(page + "sign-out-others"))

		s = open(t, german)
		here = s.login("ada", firefox, "192.0.2.1")
		there = s.login("ada", iphone, "192.0.2.2")
		thief := s.browser(firefox, "192.0.2.66")
		for name, value := range there.cookies {
			thief.cookies[name] = value
		}
		there.post("/rotate")
		there.get("/handle")
		time.Sleep(11 * time.Minute) // of the bubble's clock: beyond the grace, and no longer recent
		thief.get("/handle")
		read(here.get(page))
		read(there.get(page))

		closed := german
		closed.devices = func(o *admin.DevicesOptions) { german.devices(o); o.LoginURL, o.RecentWithin = "", -1 }
		read(open(t, closed).browser(firefox, "192.0.2.1").get(page))
		for _, db := range []func(c *sojourn.Config){
			func(c *sojourn.Config) { c.Store = plain{memory.New()} },
			func(c *sojourn.Config) { c.Store = broken{memory.New()} },
		} {
			away := german
			away.config = db
			read(open(t, away).login("ada", firefox, "192.0.2.1").get(page))
		}
		for name := range unused {
			t.Errorf("no page shows DevicesTexts.%s", name)
		}
	})
}

func TestTheDevicesPageSpeaksGerman(t *testing.T) {
	berlin := time.FixedZone("MEZ", 3600)
	s := open(t, set{devices: func(o *admin.DevicesOptions) {
		o.Texts = func(r *http.Request) admin.DevicesTexts {
			if !strings.HasPrefix(r.Header.Get("Accept-Language"), "de") {
				return admin.DevicesTexts{}
			}
			return admin.DevicesTexts{
				Language: "de", Title: "Deine Geräte", SignedIn: "Angemeldet",
				Time: func(t time.Time) string { return t.In(berlin).Format("2.1.2006, 15:04 MST") },
			}
		}
	}})
	ada := s.login("ada", firefox, "192.0.2.1")
	wants(t, ada.get("/account/devices/"), http.StatusOK, `<html lang="en">`, "<h1>Your devices</h1>", "IP address", " UTC</time>")
	ada.header.Set("Accept-Language", "de")
	w := ada.get("/account/devices/")
	wants(t, w, http.StatusOK, `<html lang="de">`, "<h1>Deine Geräte</h1>", "Angemeldet", " MEZ</time>", "This device") // what is not translated stays English
	lacks(t, w, "Your devices", " UTC</time>")
}

func TestTheStylesheetOfTheApplicationComesLast(t *testing.T) {
	s := open(t, set{devices: func(o *admin.DevicesOptions) { o.Stylesheet = "/static/devices.css" }})
	page := s.login("ada", firefox, "192.0.2.1").get("/account/devices/").Body.String()
	own, theirs := strings.Index(page, `href="style.css?`), strings.Index(page, `<link rel="stylesheet" href="/static/devices.css">`)
	if own < 0 || theirs < own {
		t.Errorf("the stylesheets are at %d and %d", own, theirs)
	}
	_, err := admin.Devices(s.sessions, admin.DevicesOptions{Path: "/x/", LoginURL: "/login", Stylesheet: "https://elsewhere.example/x.css"})
	if err == nil || !strings.Contains(err.Error(), "Stylesheet") {
		t.Errorf("a stylesheet from elsewhere: %v", err)
	}
}

// The README lists the variables with their defaults.
func TestTheREADMEListsTheVariables(t *testing.T) {
	style, err1 := os.ReadFile("static/style.css")
	readme, err2 := os.ReadFile("README.md")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	root, _, _ := strings.Cut(string(style), "}")
	documented := regexp.MustCompile(`(?m)^\| .(--[a-z-]+). \| .([^|]*). \| .([^|]*). \|`).FindAllStringSubmatch(string(readme), -1)
	if len(documented) < 15 {
		t.Errorf("the README lists %d variables", len(documented))
	}
	for _, d := range documented {
		if want := fmt.Sprintf("%s: light-dark(%s, %s);", d[1], d[2], d[3]); !strings.Contains(root, want) {
			t.Errorf("the stylesheet lacks %q", want)
		}
	}
	for _, m := range regexp.MustCompile(`(--[a-z-]+): light-dark\(#`).FindAllStringSubmatch(root, -1) {
		if !strings.Contains(string(readme), "| `"+m[1]+"` |") {
			t.Errorf("the README lacks %s", m[1])
		}
	}
}
