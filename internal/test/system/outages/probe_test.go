package outages

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// built are the programs that the tests run.
var built programs.Built

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

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

// fleet is several replicas, with round-robin load balancing.
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
		counts, err := f.browser().Stats(r.Base)
		if err != nil {
			t.Fatal(err)
		}
		sum += counts[name]
	}
	return sum
}

// browser has cookies that all replicas share.
type browser struct {
	*client.Browser
	fleet *fleet
}

func (f *fleet) browser() *browser { return &browser{client.New(f.client), f} }

// copied returns a browser that has the same cookies now, and changes them for
// itself.
func (b *browser) copied() *browser { return &browser{b.Copied(), b.fleet} }

// withoutFloor returns a browser with only the credential, so that no cache may
// answer it.
func (b *browser) withoutFloor() *browser { return &browser{b.Copied("session"), b.fleet} }

// get and post send a request to the next replica.
func (b *browser) get(path string) (client.Answer, error) {
	return b.send(b.fleet.next(), http.MethodGet, path)
}

func (b *browser) post(path string) (client.Answer, error) {
	return b.send(b.fleet.next(), http.MethodPost, path)
}

func (b *browser) send(r *programs.Process, method, path string) (client.Answer, error) {
	return b.Send(r.Base, method, path)
}

// must is for a test's preparations.
func must(t testing.TB) func(a client.Answer, err error) client.Answer {
	return func(a client.Answer, err error) client.Answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != http.StatusOK {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		return a
	}
}
