// Package client is the tests' client of the probe: browsers with cookies, and
// the probe's answers.
package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"testing"
	"time"
)

// Patience bounds every wait for something that must happen. It is not a speed
// limit: waits are shorter unless something is broken.
const Patience = 90 * time.Second

// Eventually polls until is reports true.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// Browser is one visitor: a cookie jar, whose cookies go to every probe on this
// machine, because jars ignore ports.
type Browser struct {
	HTTP *http.Client
}

// New returns a browser without cookies.
func New(transport http.RoundTripper) *Browser {
	jar, _ := cookiejar.New(nil) // has no error without options
	// Shorter than Patience, so that failures name the slow request.
	return &Browser{&http.Client{Jar: jar, Transport: transport, Timeout: Patience / 2}}
}

// here is every probe.
var here = &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/"}

// Cookies are those that the browser would send.
func (b *Browser) Cookies() []*http.Cookie { return b.HTTP.Jar.Cookies(here) }

// Copied returns a browser with an independent copy of the cookies, or of those
// with the names: an attacker who copied them, or a second tab with a response
// under way.
func (b *Browser) Copied(names ...string) *Browser {
	c := New(b.HTTP.Transport)
	for _, cookie := range b.Cookies() {
		if len(names) == 0 || slices.Contains(names, cookie.Name) {
			c.HTTP.Jar.SetCookies(here, []*http.Cookie{cookie})
		}
	}
	return c
}

// Answer is an answer of the probe; its README says which one has which fields.
type Answer struct {
	Status int         `json:"-"`
	Header http.Header `json:"-"`
	Body   string      `json:"-"`

	Error     string            `json:"error"`
	Unknown   bool              `json:"unknown"` // whether the change was kept
	OK        bool              `json:"ok"`
	Found     bool              `json:"found"`
	Length    int               `json:"length"`
	Value     json.RawMessage   `json:"value"` // a string or a number
	Values    map[string]string `json:"values"`
	Handle    string            `json:"handle"`
	Placement string            `json:"placement"`
	New       bool              `json:"new"`
	User      string            `json:"user"`
	Version   uint64            `json:"version"`
	Bytes     int               `json:"bytes"`
	Created   *time.Time        `json:"created"`
	Expires   *time.Time        `json:"expires"`
	Revoked   int               `json:"revoked"`
	Flashes   []struct {
		Level, Text string
	} `json:"flashes"`
	Sessions []Device `json:"sessions"`
}

// Device is a session as /sessions lists it.
type Device struct {
	Handle    string    `json:"handle"`
	Current   bool      `json:"current"`
	Created   time.Time `json:"created"`
	LastSeen  time.Time `json:"last_seen"`
	UserAgent string    `json:"user_agent"`
	IP        string    `json:"ip"`
}

// Text returns a string value.
func (a Answer) Text() (s string) {
	_ = json.Unmarshal(a.Value, &s)
	return s
}

// Number returns an integer value.
func (a Answer) Number() (n int) {
	_ = json.Unmarshal(a.Value, &n)
	return n
}

// Read fills in the fields of an answer that is JSON.
func (a *Answer) Read() error {
	if err := json.Unmarshal([]byte(a.Body), a); err != nil {
		return fmt.Errorf("the answer %.200q: %w", a.Body, err)
	}
	return nil
}

// Send sends a request to the probe at base.
func (b *Browser) Send(base, method, path string) (Answer, error) {
	req, err := http.NewRequest(method, base+path, nil)
	if err != nil {
		return Answer{}, err
	}
	return b.Do(req)
}

// Do sends a request. An error means that there was no complete answer.
func (b *Browser) Do(req *http.Request) (Answer, error) {
	res, err := b.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}
	if res.Header.Get("Content-Type") == "application/json" {
		err = a.Read()
	}
	return a, err
}

// Stats returns the counters of the probe at base.
func (b *Browser) Stats(base string) (counts map[string]int, err error) {
	a, err := b.Send(base, http.MethodGet, "/stats")
	if err == nil {
		err = json.Unmarshal([]byte(a.Body), &counts)
	}
	if err != nil {
		return nil, fmt.Errorf("/stats: %w in %s", err, a.Body)
	}
	return counts, nil
}
