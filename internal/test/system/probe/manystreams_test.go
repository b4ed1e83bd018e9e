package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// In make soak these are ten thousand streams, each of a session of its own, at
// one process; what they cost is logged. docs/run/scaling.md has the numbers.
func TestAllStreamsOfAUserEndWithThem(t *testing.T) {
	t.Parallel()
	streams, pause := 300, time.Second
	if soakTime(t) > 0 {
		streams, pause = 10_000, 10*time.Second
	}
	for _, e := range engines {
		if e.name != "postgres" && e.name != "redis" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			store := e.url(t)
			p := startProcess(t, "-insecure", "-store", store)
			u, err := url.Parse(p.Base)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{MaxIdleConnsPerHost: 32}
			direct := &http.Client{Transport: transport, Timeout: client.Patience}
			cookies := make([]string, streams)
			var next atomic.Int64
			together(32, func(int) {
				for i := next.Add(1) - 1; int(i) < streams; i = next.Add(1) - 1 {
					cookies[i] = loggedIn(t, direct, p.Base)
				}
			})
			transport.CloseIdleConnections()

			before := usageOf(t, p)
			done := make(chan time.Time, streams)
			next.Store(0)
			together(32, func(int) {
				for i := next.Add(1) - 1; int(i) < streams; i = next.Add(1) - 1 {
					listens(t, p, u.Host, cookies[i], done)
				}
			})
			if t.Failed() {
				return
			}
			open, asked := usageOf(t, p), redisCommands(t, store)
			<-time.After(pause) // nothing happens, and what that costs is measured
			idle := usageOf(t, p)
			if asked > 0 {
				asked = redisCommands(t, store) - asked - 1 // this one aside
				t.Logf("waiting takes %.1f commands a second in Redis", float64(asked)/pause.Seconds())
				if asked > streams/2 {
					t.Errorf("%d streams have asked Redis %d times: one poll is to serve all of them", streams, asked)
				}
			}
			t.Logf("%d streams: %d bytes of memory each; waiting takes %.1f%% of a processor",
				streams, (idle.memory-before.memory)/int64(streams), 100*float64(idle.cpu-open.cpu)/float64(pause))
			if len(done) > 0 {
				t.Fatalf("%d streams have ended before they should", len(done))
			}

			b := newBrowser(t, p.Base)
			b.HTTP.Timeout = 5 * time.Minute
			begin := time.Now()
			if r := b.mustPost("/revoke-user?user=ada"); r.Revoked != streams {
				t.Errorf("revoked: %s", r.Body)
			}
			answered := time.Since(begin)
			for i := range streams {
				select {
				case at := <-done:
					if at.IsZero() {
						t.Fatalf("stream %d was cut off without its end", i)
					}
				case <-time.After(client.Patience):
					t.Fatalf("%d of %d streams go on", streams-i, streams)
				}
			}
			t.Logf("revoke-user answered after %v, the last stream ended after %v", answered.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
		})
	}
}

// The same, with the sessions ended at another replica: each end comes through
// the feed.
func TestAllStreamsOfAUserEndWithThemAtAnotherReplica(t *testing.T) {
	t.Parallel()
	streams := 300
	if soakTime(t) > 0 {
		streams = 10_000
	}
	for _, e := range engines {
		if e.name != "postgres" && e.name != "redis" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, engine{replicas: 2}, e.url(t))
			p, other := s.processes[0], s.processes[1]
			u, err := url.Parse(p.Base)
			if err != nil {
				t.Fatal(err)
			}
			direct := &http.Client{Timeout: client.Patience}
			done := make(chan time.Time, streams)
			var next atomic.Int64
			together(32, func(int) {
				for int(next.Add(1)) <= streams {
					listens(t, p, u.Host, loggedIn(t, direct, p.Base), done)
				}
			})
			if t.Failed() {
				return
			}
			b := newBrowser(t, other.Base)
			b.HTTP.Timeout = 5 * time.Minute
			begin := time.Now()
			if r := b.mustPost("/revoke-user?user=ada"); r.Revoked != streams {
				t.Errorf("revoked: %s", r.Body)
			}
			answered := time.Now()
			for i := range streams {
				select {
				case at := <-done:
					if at.IsZero() {
						t.Fatalf("stream %d was cut off without its end", i)
					}
				case <-time.After(client.Patience):
					t.Fatalf("%d of %d streams go on", streams-i, streams)
				}
			}
			t.Logf("%d streams: revoke-user answered after %v, the last stream ended %v later", streams,
				answered.Sub(begin).Round(time.Millisecond), time.Since(answered).Round(time.Millisecond))
		})
	}
}

// loggedIn logs in a new visitor, and returns the Cookie header.
func loggedIn(t *testing.T, direct *http.Client, base string) string {
	res, err := direct.Post(base+"/login?user=ada", "", nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	var pairs []string
	for _, c := range res.Cookies() {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// listens opens a stream on a connection of its own. When it is over, done gets
// the time of its last event, or none if that was not the end of the session.
func listens(t *testing.T, p *programs.Process, host, cookies string, done chan<- time.Time) {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /stream?events=1000000&every=600000 HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", host, cookies)
	in := bufio.NewReaderSize(conn, 1024)
	status, err := in.ReadString('\n')
	for line := status; err == nil && line != "\r\n"; {
		line, err = in.ReadString('\n')
	}
	if err != nil || !strings.Contains(status, " 200 ") {
		t.Errorf("opening a stream: %q %v", status, err)
		return
	}
	go func() {
		for {
			line, err := in.ReadString('\n')
			switch {
			case err != nil:
				done <- time.Time{}
				return
			case line == "event: ended\n":
				done <- time.Now()
				return
			}
		}
	}()
}

// redisCommands is how many commands a Redis server has executed; 0 if the store
// is none.
func redisCommands(t *testing.T, store string) int {
	t.Helper()
	addr, ok := strings.CutPrefix(store, "redis://")
	if !ok {
		return 0
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "INFO stats\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "total_commands_processed:"); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("Redis does not say how many commands it has executed")
	return 0
}

// usage is a process's resource usage until now.
type usage struct {
	memory int64 // resident, in bytes
	cpu    time.Duration
}

func usageOf(t *testing.T, p *programs.Process) (u usage) {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/", p.ID())
	memory, err := os.ReadFile(folder + "statm")
	if os.IsNotExist(err) {
		return usage{} // a system without /proc: nothing is measured
	}
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(memory))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	u.memory = pages * int64(os.Getpagesize())
	times, err := os.ReadFile(folder + "stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(times), ") ")
	for _, field := range strings.Fields(rest)[11:13] { // user and system time
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(ticks) * time.Second / 100
	}
	return u
}
