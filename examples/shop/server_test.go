package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

// TestMain lets the test binary run the shop, so that a test can start and stop
// it as a separate process.
func TestMain(m *testing.M) {
	if os.Getenv("SHOP_TEST_PROCESS") != "" {
		main()
		return
	}
	os.Exit(shared.Main(m))
}

// testShop is the shop on a free port, in this process.
type testShop struct {
	url    string
	db     *sqlite.Store
	ledger *ledger
	gates  *gates
	shop   *shop
}

func openShop(t *testing.T) *testShop {
	t.Helper()
	return openShopWith(t, parts{})
}

// ours is the issuer in parts for a test with the shop's own provider.
const ours = "the shop's own"

// openShopWith fills in the parts that are missing.
func openShopWith(t *testing.T, p parts) *testShop {
	t.Helper()
	dir := t.TempDir()
	keys, err := sojourn.LoadKeyFile(filepath.Join(dir, "session.keys"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(filepath.Join(dir, "sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := openLedger(filepath.Join(dir, "shop.db"))
	if err != nil {
		t.Fatal(err)
	}
	gates := &gates{}
	server := httptest.NewUnstartedServer(nil)
	p.url = urlOf(server.Listener.Addr())
	if p.provider.issuer == ours {
		var stop func() error
		if p.provider, stop, err = startProvider("localhost:0", p.url, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stop() })
	}
	p.keys, p.store, p.ledger, p.logger = keys, gatedStore{db}, ledger, slog.New(slog.NewTextHandler(t.Output(), nil))
	shop, err := newShop(p)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = gates.handler(shop.handler())
	server.Start()
	t.Cleanup(func() {
		gates.openAll()
		server.CloseClientConnections()
		server.Close()
		for _, close := range []func() error{shop.close, ledger.close, db.Close} {
			if err := close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		}
	})
	return &testShop{p.url, db, ledger, gates, shop}
}

// rows is how many sessions the store holds, ended ones included.
func (s *testShop) rows(t *testing.T) int {
	t.Helper()
	recs, _, err := s.db.Scan(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(recs)
}

// gates delay requests at chosen points, so that others can overtake them.
type gates struct {
	mu      sync.Mutex
	waiting []*gate
	all     []*gate
}

// point is where a request is held back.
type point string

const (
	afterLoad    point = "the session was loaded, nothing was changed yet"
	beforeAnswer point = "the changes were kept, the browser has not heard of it"
)

type gate struct {
	at      point
	route   string // method and path
	reached chan struct{}
	opened  chan struct{}
	arrive  sync.Once
	release sync.Once
}

// hold makes the next request to route wait at a point. Calls add up: two
// calls hold two requests.
func (g *gates) hold(at point, route string) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	added := &gate{at: at, route: route, reached: make(chan struct{}), opened: make(chan struct{})}
	g.waiting = append(g.waiting, added)
	g.all = append(g.all, added)
	return added
}

func (g *gates) openAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, gate := range g.all {
		gate.open()
	}
}

// pass gives a request the gate that waits for it, if there is one.
func (g *gates) pass(r *http.Request) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, gate := range g.waiting {
		if gate.route == r.Method+" "+r.URL.Path {
			g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
			return gate
		}
	}
	return nil
}

// awaitArrival returns when a request waits at the gate.
func (g *gate) awaitArrival(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(stuck):
		t.Fatalf("no request came to the gate: %s, %s", g.route, g.at)
	}
}

func (g *gate) open() { g.release.Do(func() { close(g.opened) }) }

func (g *gate) wait() {
	g.arrive.Do(func() { close(g.reached) }) // a request may load again
	<-g.opened
}

type gateContext struct{}

func (g *gates) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch gate := g.pass(r); {
		case gate == nil:
			next.ServeHTTP(w, r)
		case gate.at == afterLoad:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), gateContext{}, gate)))
		case gate.at == beforeAnswer:
			next.ServeHTTP(&gatedWriter{ResponseWriter: w, gate: gate}, r)
		}
	})
}

// gatedWriter waits before the header goes out. Sojourn has committed by then.
type gatedWriter struct {
	http.ResponseWriter
	gate *gate
}

func (w *gatedWriter) WriteHeader(status int) {
	w.gate.wait()
	w.ResponseWriter.WriteHeader(status)
}

// gatedStore waits after a load.
type gatedStore struct{ sessionStore }

func (s gatedStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	rec, err := s.sessionStore.Load(ctx, id)
	if gate, ok := ctx.Value(gateContext{}).(*gate); ok {
		gate.wait()
	}
	return rec, err
}

// shopProcess is the shop as a separate process.
type shopProcess struct {
	url string
	cmd *exec.Cmd
	err chan error
}

// startProcess runs the shop and returns when it says that it is open.
func startProcess(t *testing.T, listen, data string, more ...string) *shopProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-listen", listen, "-data", data}, more...)...)
	cmd.Env = append(os.Environ(), "SHOP_TEST_PROCESS=1")
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &shopProcess{cmd: cmd, err: make(chan error, 1)}
	url := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if _, rest, ok := strings.Cut(lines.Text(), "The shop is open: "); ok {
				address, _, _ := strings.Cut(rest, " ")
				url <- address
			}
		}
		close(url)
		p.err <- cmd.Wait()
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
	select {
	case p.url = <-url:
	case <-time.After(stuck):
	}
	if p.url == "" {
		t.Fatal("the shop did not say that it is open")
	}
	return p
}

// stop asks the shop to close, and fails the test unless it exits cleanly.
func (p *shopProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.err:
		if err != nil {
			t.Fatalf("the shop stopped with %v", err)
		}
	case <-time.After(stuck):
		t.Fatal("the shop does not stop")
	}
}

// runShop runs the shop's command line in this process and returns its exit
// status and output.
func runShop(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs strings.Builder
	status = run(ctx, args, io.Writer(&out), io.Writer(&errs))
	return status, out.String(), errs.String()
}
