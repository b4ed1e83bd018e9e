package outages

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// One replica renews a one-time token and is killed or stopped during the
// renewal, or the store fails.
func TestRenewalsOnPostgres(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	brokenRenewals(t, server.Addr, func(addr string) string {
		return "postgres://postgres@" + addr + "/postgres?sslmode=disable"
	})
}

func TestRenewalsOnRedis(t *testing.T) {
	t.Parallel()
	brokenRenewals(t, servers.Redis(t, durable...).Addr, func(addr string) string { return "redis://" + addr })
}

// leaseTime is how long a lease lives that does not change: twice the timeout.
const leaseTime = 4 * time.Second

func brokenRenewals(t *testing.T, addr string, url func(addr string) string) {
	for name, play := range map[string]func(r *renewal){
		"killed before the token is spent": func(r *renewal) {
			r.holder.Kill()
			// Before, its request would still spend the token.
			client.Eventually(r.t, "the provider knows that the holder is dead", func() bool { return r.issue.left() == 1 })
			r.issue.let(nil)
			r.all(1, 1, 2)
		},
		"stopped for less than a lease": func(r *renewal) {
			r.holder.Signal(syscall.SIGSTOP)
			<-time.After(leaseTime / 4)
			r.holder.Signal(syscall.SIGCONT)
			<-time.After(leaseTime / 4)
			r.issue.let(nil)
			r.all(1, 0, 1, 2)
		},
		"stopped for longer than a lease": func(r *renewal) {
			// Its request after it resumes is refused: the others have used the token.
			r.holder.Signal(syscall.SIGSTOP)
			r.issue.let(func(n int) bool { return n > 1 })
			r.all(1, 1, 2)
			r.holder.Signal(syscall.SIGCONT)
			r.issue.let(nil)
			r.all(1, 0, 1, 2)
		},
		"the store is away during the fetch": func(r *renewal) {
			r.wire.cut()
			<-time.After(leaseTime + time.Second)
			r.wire.plug()
			<-time.After(leaseTime / 2)
			r.issue.let(nil)
			r.all(1, 0, 1, 2)
		},
		"the store is away when the fetch is over": func(r *renewal) {
			r.wire.cut()
			r.issue.let(nil)
			<-time.After(leaseTime + time.Second)
			r.wire.plug()
			r.all(1, 0, 1, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(beginRenewal(t, addr, url))
		})
	}
}

// renewal is a fleet, the first replica of which is renewing a visitor's token,
// while requests at the others wait for it.
type renewal struct {
	t      *testing.T
	fleet  *fleet
	wire   *wire
	holder *programs.Process
	issue  *issuer
	v      *browser
	from   string
}

func beginRenewal(t *testing.T, addr string, storeURL func(addr string) string) *renewal {
	t.Helper()
	program, err := probe("probe")
	if err != nil {
		t.Fatal(err)
	}
	r := &renewal{t: t, fleet: newFleet(t), wire: newWire(t, addr), issue: newIssuer()}
	keys := filepath.Join(t.TempDir(), "keys")
	for range replicas {
		r.fleet.replicas = append(r.fleet.replicas, programs.Start(t, program, nil, "-insecure", "-inline", "0",
			"-keys", keys, "-timeout", (leaseTime/2).String(), "-store", storeURL(r.wire.Addr)))
	}
	provider := httptest.NewServer(r.issue)
	t.Cleanup(func() { // before it waits for its requests
		r.issue.let(nil)
		provider.CloseClientConnections()
		provider.Close()
	})
	r.holder, r.v, r.from = r.fleet.replicas[0], r.fleet.browser(), provider.URL
	must(t)(r.v.post(fmt.Sprintf("/login?user=user-%d", time.Now().UnixNano())))
	must(t)(r.v.post("/set-serverside?key=token&value=0"))

	var others sync.WaitGroup
	t.Cleanup(others.Wait)
	others.Go(func() { _, _ = r.ask(0, 0) }) // perhaps it fails
	client.Eventually(t, "the token is sent", func() bool { return r.issue.count() > 0 })
	for i := range replicas {
		others.Go(func() { _, _ = r.ask(i, 0) })
	}
	return r
}

// ask renews the token, if it is the one of that number, at a replica.
func (r *renewal) ask(replica, stale int) (client.Answer, error) {
	path := fmt.Sprintf("/renew?key=token&stale=%d&from=%s", stale, url.QueryEscape(r.from))
	return r.v.copied().send(r.fleet.replicas[replica], http.MethodPost, path)
}

// all checks that replicas finally get the token with that number, and that it
// is the last one issued.
func (r *renewal) all(token int, replicas ...int) {
	r.t.Helper()
	for _, i := range replicas {
		got := client.Answer{}
		client.Eventually(r.t, "a replica has the renewed token", func() bool {
			a, err := r.ask(i, 0)
			got = a
			return err == nil && a.Status == http.StatusOK
		})
		if got.Text() != strconv.Itoa(token) {
			r.t.Errorf("replica %d has token %q, want %d", i, got.Text(), token)
		}
	}
	if n := r.issue.last(); n != token {
		r.t.Errorf("token %d was issued, want %d", n, token)
	}
}

// issuer is an authorization server that accepts each token once. The test
// controls when it decides.
type issuer struct {
	mu     sync.Mutex
	sent   int // requests so far
	gone   int // of those: the sender died before the decision
	latest int
	may    func(n int) bool // which requests are decided; nil = none
	change chan struct{}    // closed when may changes
}

func newIssuer() *issuer { return &issuer{change: make(chan struct{})} }

// let releases the requests for which may is true, by their order from 1; nil = all.
func (p *issuer) let(may func(n int) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if may == nil {
		may = func(int) bool { return true }
	}
	p.may = may
	close(p.change)
	p.change = make(chan struct{})
}

func (p *issuer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *issuer) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

func (p *issuer) last() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

func (p *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	p.mu.Lock()
	p.sent++
	n := p.sent
	for p.may == nil || !p.may(n) {
		change := p.change
		p.mu.Unlock()
		select {
		case <-change:
		case <-r.Context().Done(): // the sender is dead
			p.mu.Lock()
			p.gone++
			p.mu.Unlock()
			return
		}
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	if err != nil || r.Context().Err() != nil || string(body) != strconv.Itoa(p.latest) {
		http.Error(w, "invalid_grant", http.StatusBadRequest)
		return
	}
	p.latest++
	_, _ = fmt.Fprint(w, p.latest)
}
