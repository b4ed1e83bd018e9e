package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/appengine/v2"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
)

// instances starts the API server and n instances of the site.
func instances(t *testing.T, n int) []*httptest.Server {
	t.Helper()
	servers.AppEngine(t)
	keys := keys.Generate()
	sites := make([]*httptest.Server, n)
	for i := range sites {
		h, err := newSite(keys)
		if err != nil {
			t.Fatal(err)
		}
		// All have one name, as the instances of an app do, and HTTPS.
		sites[i] = httptest.NewTLSServer(h)
		t.Cleanup(sites[i].Close)
	}
	return sites
}

// visitor is a browser whose cookies every instance gets.
type visitor struct {
	t   *testing.T
	jar http.CookieJar
}

func newVisitor(t *testing.T) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, jar}
}

// send makes a request, follows redirects, and returns the page.
func (v *visitor) send(site *httptest.Server, method, path string, form url.Values) string {
	v.t.Helper()
	client := *site.Client()
	client.Jar = v.jar
	req, err := http.NewRequestWithContext(v.t.Context(), method, site.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		v.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		v.t.Errorf("%s %s: %s, %v", method, path, resp.Status, err)
	}
	return string(body)
}

func (v *visitor) sees(site *httptest.Server, want ...string) {
	v.t.Helper()
	page := v.send(site, http.MethodGet, "/", nil)
	for _, w := range want {
		if !strings.Contains(page, w) {
			v.t.Errorf("the page lacks %q:\n%s", w, page)
		}
	}
}

func TestAVisitorClicksSignsInAndSignsOut(t *testing.T) {
	sites := instances(t, 1)
	anna := newVisitor(t)
	anna.sees(sites[0], "clicked 0 times", "Sign in")
	anna.send(sites[0], http.MethodPost, "/click", nil)
	anna.sees(sites[0], "clicked 1 times", "lives here: stored")
	anna.send(sites[0], http.MethodPost, "/login", url.Values{"name": {"anna"}})
	anna.sees(sites[0], "clicked 1 times", "You are anna")
	anna.send(sites[0], http.MethodPost, "/logout", nil)
	anna.sees(sites[0], "clicked 0 times", "Sign in")
}

func TestParallelClicksOnTwoInstancesAllCount(t *testing.T) {
	sites := instances(t, 2)
	anna := newVisitor(t)
	anna.send(sites[0], http.MethodPost, "/click", nil)
	const clicks = 20
	var wg sync.WaitGroup
	for i := range clicks {
		wg.Go(func() { anna.send(sites[i%2], http.MethodPost, "/click", nil) })
	}
	wg.Wait()
	for _, site := range sites {
		anna.sees(site, fmt.Sprintf("clicked %d times", 1+clicks))
	}
}

func TestCronRemovesWhatIsOver(t *testing.T) {
	sites := instances(t, 1)
	// Old sessions of last week's visitors.
	db, err := gae.New(gae.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const old = 30
	leave := appengine.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		at := time.Now().Add(-7 * 24 * time.Hour)
		for i := range old {
			rec := store.Record{
				ID: store.HashIdentifier(fmt.Append(nil, i)), Version: 1, SaveIDs: []store.SaveID{1},
				Created: at, Seen: at, Deadline: at.Add(time.Hour), Expires: at.Add(time.Hour), Data: []byte("x"),
			}
			if err := db.Save(r.Context(), rec, store.Base{}); err != nil {
				t.Error(err)
			}
		}
	}))
	leave.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	anna := newVisitor(t)
	anna.send(sites[0], http.MethodPost, "/click", nil)

	sweep := func(header string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sites[0].URL+"/tasks/sweep", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Appengine-Cron", header)
		resp, err := sites[0].Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.TrimSpace(string(body))
	}
	if status, _ := sweep(""); status != http.StatusForbidden {
		t.Errorf("a visitor who asks for the sweep gets %d, want 403", status)
	}
	if status, body := sweep("true"); status != http.StatusOK || body != fmt.Sprintf("removed %d; none are left", old) {
		t.Errorf("the cron service gets %d %q, want %d removed", status, body, old)
	}
	anna.sees(sites[0], "clicked 1 times")
}

func TestWithoutKeysTheSiteSaysWhatIsMissing(t *testing.T) {
	if _, err := newSite(""); err == nil || !strings.Contains(err.Error(), "SOJOURN_KEYS") {
		t.Errorf("newSite without keys: %v, want an error that names SOJOURN_KEYS", err)
	}
}
