package outages

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

const (
	// maxStale is the probes' MaxStale for shared caches, and inProcess that of
	// the cache in the process.
	maxStale  = time.Second
	inProcess = time.Second
	// lagOfTwo: a copy in the process may have been taken from the shared cache.
	lagOfTwo = maxStale + inProcess
)

// withCaches are the flags of probes with caches.
func withCaches(flags ...string) []string {
	return append([]string{"-max-stale", maxStale.String()}, flags...)
}

// slowDisk is how long a save in a file may take: other programs may keep the
// disk busy for longer than the default timeout.
const slowDisk = "40s"

// embedded is a durable store that never fails here.
func embedded(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "sessions.db")
}

// killOrFreeze are the ends of a cache that keeps nothing.
func killOrFreeze(server *servers.Server) []fault {
	return []fault{
		{"killed and started again", func(_ *testing.T) {
			server.Kill()
			<-time.After(aWhile)
			server.Start()
		}},
		{"frozen", func(_ *testing.T) {
			server.Pause()
			<-time.After(aWhile)
			server.Resume()
		}},
	}
}

func TestMemcachedIsKilledOrFrozen(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	scenario{
		probes: withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memcached://"+cache.Addr),
		lag:    maxStale,
		faults: killOrFreeze(cache),
	}.run(t)
}

func TestMemcachedIsKilledOrFrozenBehindAnotherCache(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	scenario{
		probes: withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memory:4194304", "-cache", "memcached://"+cache.Addr),
		lag:    lagOfTwo,
		faults: killOrFreeze(cache),
	}.run(t)
}

func TestRedisAsACacheIsKilledOrFrozen(t *testing.T) {
	t.Parallel()
	cache := servers.Redis(t)
	scenario{
		probes: withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "redis://"+cache.Addr),
		lag:    maxStale,
		faults: killOrFreeze(cache),
	}.run(t)
}

// As the only store, memcached may lose records. Otherwise it is exact.
func TestMemcachedAsTheStoreIsFrozen(t *testing.T) {
	t.Parallel()
	server := servers.Memcached(t, 64)
	scenario{
		probes:     []string{"-store", "memcached://" + server.Addr},
		storeFails: true,
		faults:     killOrFreeze(server)[1:],
	}.run(t)
}

func TestTheWireToMemcachedIsBad(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	w := newWire(t, cache.Addr)
	scenario{
		probes: withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memcached://"+w.Addr),
		lag:    maxStale,
		faults: badWires(w),
	}.run(t)
}

// If one replica cannot invalidate the cache, the others keep reading the old
// copy until it expires.
func TestOneReplicaCannotReachMemcached(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	program, err := probe("probe")
	if err != nil {
		t.Fatal(err)
	}
	f, keys, store := newFleet(t), filepath.Join(t.TempDir(), "keys"), embedded(t)
	w := newWire(t, cache.Addr)
	for _, addr := range []string{w.Addr, cache.Addr, cache.Addr} {
		f.start(t, program, nil, keys, withCaches("-timeout", slowDisk, "-store", store, "-cache", "memcached://"+addr)...)
	}
	scenario{
		fleet: f,
		lag:   maxStale,
		faults: []fault{
			{"cut", func(_ *testing.T) {
				w.cut()
				<-time.After(2 * maxStale)
				w.plug()
			}},
			{"silent", func(_ *testing.T) {
				heal := w.poison("timeout", toServer, attributes{"timeout": 0})
				<-time.After(2 * maxStale)
				heal()
			}},
		},
	}.run(t)
}

// A full cache evicts leases and copies at random.
func TestMemcachedIsFull(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 2)
	scenario{
		probes: withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memcached://"+cache.Addr),
		lag:    maxStale,
		faults: []fault{{"as long as others push everything out", func(t *testing.T) {
			before := statOf(t, cache, "evictions")
			crowd(t, cache)
			if evicted := statOf(t, cache, "evictions") - before; evicted < 1000 {
				t.Errorf("%d entries were pushed out: not a full cache", evicted)
			}
		}}},
	}.run(t)
}

// crowd stores other entries in the same memcached for a while, of the same
// size as the sessions', because memcached evicts entries of the same size.
func crowd(t testing.TB, server *servers.Server) {
	t.Helper()
	c, err := net.Dial("tcp", server.Addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	w := bufio.NewWriterSize(c, 1<<20)
	filler := strings.Repeat("x", 2000)
	for end, i := time.Now().Add(aWhile), 0; i < 20_000 || time.Now().Before(end); i++ {
		size := 50 + rand.IntN(len(filler)-50)
		fmt.Fprintf(w, "set other-%d 0 0 %d noreply\r\n%s\r\n", i, size, filler[:size])
		if i%1000 == 0 {
			<-time.After(10 * time.Millisecond) // the visitors go on meanwhile
		}
	}
	fmt.Fprint(w, "version\r\n") // answered when all of that is stored
	err = w.Flush()
	if err == nil {
		_, err = bufio.NewReader(c).ReadString('\n')
	}
	if err != nil {
		t.Error(err)
	}
}

// statOf asks memcached for one of its numbers.
func statOf(t testing.TB, server *servers.Server, name string) (n int) {
	t.Helper()
	c, err := net.Dial("tcp", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "stats\r\n"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != "END"; {
		if text, ok := strings.CutPrefix(lines.Text(), "STAT "+name+" "); ok {
			if _, err := fmt.Sscan(text, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("memcached has no number %q", name)
	return 0
}

func TestALogoutIsFinalAtOnceWhereTheCacheWasTold(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	f := startFleet(t, replicas, nil, withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memcached://"+cache.Addr)...)
	for range 20 {
		b := f.browser()
		must(t)(b.post("/login?user=ada"))
		must(t)(b.post("/set-serverside?key=text&value=v"))
		for _, r := range f.replicas { // the cache has a copy
			must(t)(b.send(r, http.MethodGet, "/get?key=text"))
		}
		copied := b.copied()
		must(t)(b.post("/logout"))
		for _, r := range f.replicas {
			if a := must(t)(copied.copied().send(r, http.MethodGet, "/info")); a.User != "" {
				t.Fatalf("a copied cookie leads to %s", a.Body)
			}
		}
	}
	if hits := f.count(t, "cache_hits"); hits == 0 {
		t.Error("the cache was never asked")
	}
}

// While the store is unreachable, caches answer until their copies expire, and
// writes fail.
func TestWithoutItsStoreACacheAnswersForAWhile(t *testing.T) {
	t.Parallel()
	db, cache := servers.Redis(t, durable...), servers.Memcached(t, 64)
	f := startFleet(t, 1, nil, "-max-stale", "5s", "-store", "redis://"+db.Addr, "-cache", "memcached://"+cache.Addr)
	b := f.browser()
	must(t)(b.post("/login?user=ada"))
	must(t)(b.post("/set-serverside?key=text&value=v"))
	must(t)(b.get("/get?key=text"))
	db.Kill()
	if a := must(t)(b.get("/get?key=text")); a.Text() != "v" {
		t.Errorf("right after the store was lost, the cache answers with %s", a.Body)
	}
	status := func(a client.Answer, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		return a.Status
	}
	if got := status(b.copied().post("/incr?key=counter")); got != http.StatusServiceUnavailable {
		t.Errorf("a write without a store is answered with %d", got)
	}
	if got := status(b.withoutFloor().get("/get?key=text")); got != http.StatusServiceUnavailable {
		t.Errorf("a read that no cache may answer is answered with %d", got)
	}
	client.Eventually(t, "the copy is too old", func() bool { return status(b.get("/get?key=text")) == http.StatusServiceUnavailable })
	db.Start()
	client.Eventually(t, "the store is back", func() bool { return status(b.get("/get?key=text")) == http.StatusOK })
	if a := must(t)(b.get("/info")); a.User != "ada" {
		t.Errorf("afterwards the session is %s", a.Body)
	}
}

// A frozen cache may cost an occasional timeout, but not one per request: after
// the first one, few requests may call it.
func TestAFrozenCacheIsAskedNowAndThen(t *testing.T) {
	t.Parallel()
	hole := newHole(t)
	f := startFleet(t, 1, nil, withCaches("-timeout", slowDisk, "-store", embedded(t), "-cache", "memcached://"+hole.Addr)...)
	b := f.browser()
	must(t)(b.post("/login?user=ada"))
	must(t)(b.post("/set-serverside?key=text&value=v"))

	before, begin := hole.lines.Load(), time.Now()
	const requests = 300
	for range requests {
		must(t)(b.get("/get?key=text"))
	}
	asked, elapsed := hole.lines.Load()-before, time.Since(begin)
	// After each failure the cache rests for a quarter of a second at least.
	if limit := 1 + int64(elapsed/(250*time.Millisecond)); asked > limit {
		t.Errorf("%d requests asked a frozen cache %d times in %v, want at most %d", requests, asked, elapsed, limit)
	}
	if asked > requests/10 {
		t.Errorf("%d requests asked a frozen cache %d times", requests, asked)
	}
}

// hole is a server that accepts everything and never answers.
type hole struct {
	Addr  string
	lines atomic.Int64 // commands that it was sent
}

func newHole(t testing.TB) *hole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	h := &hole{Addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					h.lines.Add(1)
				}
			}()
		}
	}()
	return h
}
