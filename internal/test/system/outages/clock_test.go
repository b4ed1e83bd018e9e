package outages

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// A Go program reads the machine's clock directly, so a test cannot change it
// from outside. These replicas are built with a copy of the standard library's
// time.Now that adds an offset from the environment: the whole program has that
// clock, including drivers, while its timers and timeouts are unchanged.
var probeWithClock = sync.OnceValues(func() (string, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed, err := withOffset(string(text))
	if err != nil {
		return "", err
	}
	dir, err := built.Dir()
	if err != nil {
		return "", err
	}
	replacement := filepath.Join(dir, "time.go")
	if err := os.WriteFile(replacement, []byte(changed), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	return probe("probe-with-clock", "-overlay", file)
})

var readsClock = regexp.MustCompile(`(?s)(\nfunc Now\(\) Time \{\n\tsec, nsec, mono := \w+\(\)\n)`)

// withOffset adds an offset to time.Now in the source of package time.
func withOffset(source string) (string, error) {
	if !readsClock.MatchString(source) || !strings.Contains(source, "import (\n") {
		return "", fmt.Errorf("this version of Go reads the clock in another way")
	}
	source = readsClock.ReplaceAllString(source, "$1\tsec += clockOffset\n")
	source = strings.Replace(source, "import (\n", "import (\n\t\"syscall\"\n", 1)
	return source + `
var clockOffset = func() (seconds int64) {
	text, _ := syscall.Getenv("CLOCK_OFFSET")
	sign := int64(1)
	for _, c := range []byte(text) {
		if c == '-' {
			sign = -1
			continue
		}
		seconds = 10*seconds + int64(c-'0')
	}
	return sign * seconds
}()
`, nil
}

// apart is the difference between the clocks of the outer two replicas.
const apart = time.Minute

// startFleetWithClocks starts three replicas: one is behind, one ahead.
func startFleetWithClocks(t testing.TB, args ...string) *fleet {
	t.Helper()
	program, err := probeWithClock()
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	keys := filepath.Join(t.TempDir(), "keys")
	for _, offset := range []time.Duration{-apart / 2, 0, apart / 2} {
		f.start(t, program, []string{fmt.Sprintf("CLOCK_OFFSET=%d", offset/time.Second)}, keys, args...)
		if got := f.clock(t, f.replicas[len(f.replicas)-1]); (got - offset).Abs() > apart/5 {
			t.Fatalf("a replica's clock is off by %v, want %v", got, offset)
		}
	}
	return f
}

// clock is how far a replica's clock is off.
func (f *fleet) clock(t testing.TB, r *programs.Process) time.Duration {
	t.Helper()
	res, err := (&http.Client{Transport: f.client}).Get(r.Base + "/untouched")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	date, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(date)
}

func TestClocksDifferWhileCachesDie(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	scenario{
		fleet: startFleetWithClocks(t, withCaches("-idle", "2m", "-store", servers.Postgres(t).PostgresURL(),
			"-cache", "memory:4194304", "-cache", "memcached://"+cache.Addr)...),
		lag:    lagOfTwo,
		faults: killOrFreeze(cache)[:1],
	}.run(t)
}

func TestClocksDifferWhileTheStoreDies(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t, durable...)
	scenario{
		fleet:      startFleetWithClocks(t, "-idle", "2m", "-store", "redis://"+server.Addr),
		storeFails: true,
		faults: []fault{{"killed and started again", func(_ *testing.T) {
			server.Kill()
			<-time.After(aWhile)
			server.Start()
		}}},
	}.run(t)
}

// Use at a replica with a slow clock must not shorten a session's life at a
// replica with a correct clock.
func TestAClockThatIsBehindShortensNoSession(t *testing.T) {
	t.Parallel()
	f := startFleetWithClocks(t, "-idle", "50s", "-store", "redis://"+servers.Redis(t).Addr)
	behind, ahead := f.replicas[0], f.replicas[2]
	b := f.browser()
	must(t)(b.send(ahead, http.MethodPost, "/login?user=ada"))
	for range 3 {
		must(t)(b.send(behind, http.MethodPost, "/incr?key=counter"))
	}
	if a := must(t)(b.send(ahead, http.MethodGet, "/info")); a.User != "ada" {
		t.Errorf("after it was used at a replica whose clock is behind, the session is %s", a.Body)
	}
}
