package outages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// wire is a connection between two programs that can be disturbed.
type wire struct {
	Addr  string
	t     testing.TB
	proxy *toxiproxy.Proxy
	last  int
}

// newWire returns a wire to that address.
func newWire(t testing.TB, to string) *wire {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &wire{t: t, proxy: toxiproxy.NewProxy(server, "wire", net.JoinHostPort("127.0.0.1", strconv.Itoa(servers.Port(t))), to)}
	w.plug()
	w.Addr = w.proxy.Listen
	t.Cleanup(w.cut)
	return w
}

// attributes of a toxic, as toxiproxy's README lists them.
type attributes map[string]any

// both directions, or one of them.
const (
	toServer   = "upstream"
	fromServer = "downstream"
)

// poison disturbs the wire in one direction, and returns the function that
// repairs it.
func (w *wire) poison(kind, direction string, a attributes) (heal func()) {
	w.t.Helper()
	w.last++
	name := kind + strconv.Itoa(w.last)
	text, err := json.Marshal(map[string]any{"name": name, "type": kind, "stream": direction, "toxicity": 1, "attributes": a})
	if err == nil {
		_, err = w.proxy.Toxics.AddToxicJson(bytes.NewReader(text))
	}
	if err != nil {
		w.t.Fatalf("poison the wire with %s: %v", kind, err)
	}
	return func() {
		if err := w.proxy.Toxics.RemoveToxic(w.t.Context(), name); err != nil {
			w.t.Errorf("heal the wire of %s: %v", kind, err)
		}
	}
}

// cut closes all connections and refuses new ones.
func (w *wire) cut() { w.proxy.Stop() }

// plug ends a cut. No other program uses the port, but a child process that is
// being started briefly inherits this process's listeners, including closed
// ones.
func (w *wire) plug() {
	w.t.Helper()
	client.Eventually(w.t, "the wire has its port again", func() bool {
		err := w.proxy.Start()
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			w.t.Fatalf("start the wire: %v", err)
		}
		return err == nil
	})
}

// connectionsTo returns the local addresses of this machine's open TCP
// connections to a loopback port.
func connectionsTo(t testing.TB, addr string) map[string]bool {
	t.Helper()
	open := map[string]bool{}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	want, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const established, synSent = "01", "02"
	// Most lines are about other connections, such as thousands that have ended.
	ours := fmt.Sprintf(":%04X ", want)
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, ours) {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != established && f[3] != synSent {
			continue
		}
		_, remote, _ := strings.Cut(f[2], ":")
		if p, err := strconv.ParseInt(remote, 16, 32); err == nil && int(p) == want {
			open[f[1]] = true
		}
	}
	return open
}
