package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

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

// common are the servers of all tests.
var common servers.Package

func TestMain(m *testing.M) {
	status := built.Main(m)
	common.Close()
	os.Exit(status)
}

// startProcess starts a probe in a process of its own.
func startProcess(t *testing.T, args ...string) *programs.Process {
	t.Helper()
	path, err := built.Program(".", "probe")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "datastore:") }) {
		env = append(env, "DATASTORE_EMULATOR_HOST="+datastore().Addr)
	}
	return programs.Start(t, path, env, args...)
}

// browser is one visitor, who talks to one probe, or to several in turn.
type browser struct {
	*client.Browser
	t    testing.TB
	base string
}

func newBrowser(t testing.TB, base string) *browser {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{client.New(transport), t, base}
}

// at returns the same visitor, talking to another probe.
func (b *browser) at(base string) *browser { return &browser{b.Browser, b.t, base} }

// copied returns a browser that has the same cookies now, and changes them for
// itself.
func (b *browser) copied() *browser { return &browser{b.Copied(), b.t, b.base} }

func (b *browser) get(path string) client.Answer  { return b.send(http.MethodGet, path) }
func (b *browser) post(path string) client.Answer { return b.send(http.MethodPost, path) }

// mustPost is for a test's preparations.
func (b *browser) mustPost(path string) client.Answer {
	b.t.Helper()
	r := b.post(path)
	if r.Status != http.StatusOK {
		b.t.Fatalf("POST %s: %d %s", path, r.Status, r.Body)
	}
	return r
}

func (b *browser) send(method, path string) client.Answer {
	b.t.Helper()
	r, err := b.try(method, path)
	if err != nil {
		b.t.Errorf("%s %s: %v", method, path, err)
	}
	return r
}

// try is send for requests during a server's crash.
func (b *browser) try(method, path string) (client.Answer, error) {
	return b.Send(b.base, method, path)
}

// handles returns the handles of a user's live sessions, as this probe lists
// them.
func (b *browser) handles(user string) []string {
	b.t.Helper()
	r := b.get("/sessions?user=" + user)
	if r.Status != http.StatusOK {
		b.t.Errorf("/sessions: %d %s", r.Status, r.Body)
	}
	handles := []string{}
	for _, d := range r.Sessions {
		handles = append(handles, d.Handle)
	}
	return handles
}

// watch opens a stream of this visitor, and returns a channel that gets the
// last event once the stream is over: "ended" if its session ended.
func (b *browser) watch() <-chan string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", b.base+"/stream?events=1000000&every=100", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	streaming := *b.HTTP
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
	counts, err := b.Stats(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	return counts
}

// together calls f n times at once and waits for all.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
