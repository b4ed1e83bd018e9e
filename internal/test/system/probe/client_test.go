package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/programs"
)

// waitLimit bounds every wait for something that must happen. It says nothing
// about speed: nothing waits that long unless it is broken.
const waitLimit = time.Minute

// startInside runs the whole program within the test, where the race detector
// sees it, and returns its address.
func startInside(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, ready := io.Pipe()
	var log programs.Output
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, args, ready, &log)
		ready.Close()
	}()
	base, err := programs.Address(stdout)
	if err != nil {
		cancel()
		t.Fatalf("the probe did not start: %v; it said: %s", err, log.String())
	}
	t.Cleanup(func() {
		cancel()
		if s := <-status; s != 0 {
			t.Errorf("the probe ended with status %d; it said: %s", s, log.String())
		}
	})
	return base
}

// built are the programs that run in processes of their own.
var built programs.Built

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// startProcess starts a probe in a process of its own.
func startProcess(t *testing.T, args ...string) *programs.Process {
	t.Helper()
	path, err := built.Program(".", "probe")
	if err != nil {
		t.Fatal(err)
	}
	return programs.Start(t, path, nil, args...)
}

// browser is one visitor. Its cookies go to every port of this machine, so it
// can talk to several probes in turn.
type browser struct {
	t    testing.TB
	base string
	http *http.Client
}

func newBrowser(t testing.TB, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, base: base, http: &http.Client{Jar: jar, Transport: transport, Timeout: waitLimit}}
}

// at returns the same visitor, talking to another probe.
func (b *browser) at(base string) *browser {
	c := *b
	c.base = base
	return &c
}

// copied returns a browser that has the same cookies now, and changes them for
// itself: somebody who copied them, or a second tab with a response on its way.
func (b *browser) copied() *browser {
	c := newBrowser(b.t, b.base)
	u, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	c.http.Jar.SetCookies(u, b.http.Jar.Cookies(u))
	return c
}

func (b *browser) cookies() []*http.Cookie {
	u, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.http.Jar.Cookies(u)
}

// reply is an answer of the probe.
type reply struct {
	status int
	header http.Header
	body   string

	Error     string            `json:"error"`
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
	Sessions []device `json:"sessions"`
}

// device is a session as /sessions lists it.
type device struct {
	Handle    string    `json:"handle"`
	Current   bool      `json:"current"`
	Created   time.Time `json:"created"`
	LastSeen  time.Time `json:"last_seen"`
	UserAgent string    `json:"user_agent"`
	IP        string    `json:"ip"`
}

// text returns a string value, number an integer one.
func (r reply) text() (s string) {
	_ = json.Unmarshal(r.Value, &s)
	return s
}

func (r reply) number() (n int) {
	_ = json.Unmarshal(r.Value, &n)
	return n
}

func (b *browser) get(path string) reply  { return b.send(http.MethodGet, path) }
func (b *browser) post(path string) reply { return b.send(http.MethodPost, path) }

// mustPost is for the steps that prepare what a test is about.
func (b *browser) mustPost(path string) reply {
	b.t.Helper()
	r := b.post(path)
	if r.status != http.StatusOK {
		b.t.Fatalf("POST %s: %d %s", path, r.status, r.body)
	}
	return r
}

func (b *browser) send(method, path string) reply {
	b.t.Helper()
	r, err := b.try(method, path)
	if err != nil {
		b.t.Errorf("%s %s: %v", method, path, err)
	}
	return r
}

// try is send for requests that may meet a dying server.
func (b *browser) try(method, path string) (reply, error) {
	req, err := http.NewRequest(method, b.base+path, nil)
	if err != nil {
		return reply{}, err
	}
	return b.do(req)
}

func (b *browser) do(req *http.Request) (reply, error) {
	res, err := b.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: res.StatusCode, header: res.Header, body: string(body)}
	if res.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, &r); err != nil {
			return r, fmt.Errorf("the answer %.200q: %w", body, err)
		}
	}
	return r, nil
}

// handles returns the handles of a user's live sessions, as this probe lists
// them.
func (b *browser) handles(user string) []string {
	b.t.Helper()
	r := b.get("/sessions?user=" + user)
	if r.status != http.StatusOK {
		b.t.Errorf("/sessions: %d %s", r.status, r.body)
	}
	handles := []string{}
	for _, d := range r.Sessions {
		handles = append(handles, d.Handle)
	}
	return handles
}

// watch opens a stream of this visitor, and returns what sends the last event
// once the stream is over: "ended" if its session ended.
func (b *browser) watch() <-chan string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", b.base+"/stream?events=1000000&every=100", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	streaming := *b.http
	streaming.Timeout = 0
	res, err := streaming.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	last := make(chan string, 1)
	go func() {
		defer res.Body.Close()
		event := ""
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if e, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				event = e
			}
		}
		last <- event
	}()
	return last
}

// stats returns the probe's counters.
func (b *browser) stats() map[string]int {
	b.t.Helper()
	r := b.get("/stats")
	var counts map[string]int
	if err := json.Unmarshal([]byte(r.body), &counts); err != nil {
		b.t.Fatalf("/stats: %v: %s", err, r.body)
	}
	return counts
}

// waitFor polls until done says so.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// together calls f n times at once and waits for all.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
