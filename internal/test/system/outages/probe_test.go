package outages

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/programs"
)

// patience bounds every wait for something that must happen. It says nothing
// about speed: nothing waits that long unless it is broken.
const patience = 90 * time.Second

// built are the programs that the tests run.
var built programs.Built

func TestMain(m *testing.M) {
	// Most of a scenario is waiting.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(built.Main(m))
}

// probe builds the command from the tree, once for each name, with further
// arguments of go build.
func probe(name string, args ...string) (string, error) {
	return built.Program(filepath.Join("..", "probe"), name, args...)
}

// startReplica starts a probe. When the test ends it must stop in order.
func startReplica(t testing.TB, program string, env []string, args ...string) *programs.Process {
	t.Helper()
	r := programs.Start(t, program, env, args...)
	t.Cleanup(func() {
		if status := r.Terminate(t); status != 0 {
			t.Errorf("a probe ended with status %d; it said: %s", status, r.Log)
		}
		if strings.Contains(r.Log.String(), "panic") {
			t.Errorf("a probe panicked: %s", r.Log)
		}
	})
	return r
}

// fleet is several replicas, and what a load balancer in front of them does:
// each request goes to the next one.
type fleet struct {
	replicas []*programs.Process
	client   *http.Transport
	turn     atomic.Uint64
}

// startFleet starts that many replicas with the same keys.
func startFleet(t testing.TB, n int, env []string, args ...string) *fleet {
	t.Helper()
	program, err := probe("probe")
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	keys := filepath.Join(t.TempDir(), "keys")
	for range n {
		f.start(t, program, env, keys, args...)
	}
	return f
}

func newFleet(t testing.TB) *fleet {
	f := &fleet{client: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

// start adds a replica that keeps every session in the store.
func (f *fleet) start(t testing.TB, program string, env []string, keys string, args ...string) {
	t.Helper()
	args = append([]string{"-insecure", "-inline", "0", "-keys", keys}, args...)
	f.replicas = append(f.replicas, startReplica(t, program, env, args...))
}

// next is the replica whose turn it is.
func (f *fleet) next() *programs.Process {
	return f.replicas[f.turn.Add(1)%uint64(len(f.replicas))]
}

// count adds up one of the library's counters over all replicas.
func (f *fleet) count(t testing.TB, name string) (sum int) {
	t.Helper()
	for _, r := range f.replicas {
		a, err := f.browser().send(r, http.MethodGet, "/stats")
		var counts map[string]int
		if err == nil {
			err = json.Unmarshal([]byte(a.body), &counts)
		}
		if err != nil {
			t.Fatalf("/stats: %v", err)
		}
		sum += counts[name]
	}
	return sum
}

// browser has a cookie jar that all replicas share: jars know no ports.
type browser struct {
	fleet *fleet
	http  *http.Client
}

func (f *fleet) browser() *browser {
	jar, _ := cookiejar.New(nil) // has no error without options
	return &browser{fleet: f, http: &http.Client{Jar: jar, Transport: f.client, Timeout: patience / 2}}
}

// copied returns a browser that has the same cookies now, and changes them for
// itself.
func (b *browser) copied() *browser { return b.copyOf(func(string) bool { return true }) }

// withoutFloor returns a browser that has the credential alone, so that no cache
// may answer it.
func (b *browser) withoutFloor() *browser {
	return b.copyOf(func(name string) bool { return name == "session" })
}

func (b *browser) copyOf(wanted func(name string) bool) *browser {
	c := b.fleet.browser()
	u := &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/"}
	for _, cookie := range b.http.Jar.Cookies(u) {
		if wanted(cookie.Name) {
			c.http.Jar.SetCookies(u, []*http.Cookie{cookie})
		}
	}
	return c
}

// answer is what a probe answers.
type answer struct {
	status int
	body   string

	Error  string          `json:"error"`
	Found  bool            `json:"found"`
	Length int             `json:"length"`
	Value  json.RawMessage `json:"value"` // a string or a number
	User   string          `json:"user"`
}

func (a answer) text() (s string) {
	_ = json.Unmarshal(a.Value, &s)
	return s
}

func (a answer) number() (n int) {
	_ = json.Unmarshal(a.Value, &n)
	return n
}

// get and post send a request to the next replica.
func (b *browser) get(path string) (answer, error) {
	return b.send(b.fleet.next(), http.MethodGet, path)
}

func (b *browser) post(path string) (answer, error) {
	return b.send(b.fleet.next(), http.MethodPost, path)
}

func (b *browser) send(r *programs.Process, method, path string) (answer, error) {
	req, err := http.NewRequest(method, r.Base+path, nil)
	if err != nil {
		return answer{}, err
	}
	res, err := b.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, body: string(body)}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("the answer %.200q: %w", body, err)
	}
	return a, nil
}

// must is for the steps that prepare what a test is about.
func must(t testing.TB) func(a answer, err error) answer {
	return func(a answer, err error) answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if a.status != http.StatusOK {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		return a
	}
}

// eventually polls until is says so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited too long: %s", what)
		}
	}
}
