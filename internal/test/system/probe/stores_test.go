package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// The tests in this file run several probes on one store behind one address,
// like a service: requests of one visitor go to all of them in turn, and one
// cookie jar keeps all cookies. Stores and caches are real servers.

// engine is a store that the probe can be started on.
type engine struct {
	name string
	// replicas is how many probes can share the store.
	replicas int
	// url starts the servers, if they do not run yet, and returns the store's URL.
	// Other tests may use the same servers,
	// with keys of their own, so that none meets a session of another one.
	url func(t *testing.T) string
}

var (
	postgres     = sync.OnceValue(func() *servers.Server { return servers.Postgres(&common) })
	redisCluster = sync.OnceValue(func() []*servers.Server { return servers.RedisCluster(&common, 3) })
	datastore    = sync.OnceValue(func() *servers.Server { return servers.Datastore(&common) })
)

var engines = []engine{
	{"memory", 1, func(*testing.T) string { return "memory:" }},
	{"sqlite", 3, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "sessions.db") }},
	{"postgres", 3, func(t *testing.T) string { return postgres().NewDatabase(t) }},
	{"redis", 3, func(t *testing.T) string { return "redis://" + servers.Redis(t).Addr }},
	{"rediscluster", 3, func(*testing.T) string {
		var hosts []string
		for _, s := range redisCluster()[:3] {
			hosts = append(hosts, s.Addr)
		}
		return "rediscluster://" + strings.Join(hosts, ",")
	}},
	{"datastore", 3, func(t *testing.T) string {
		servers.NeedsGoogle(t)
		datastore()
		return "datastore://probe-test"
	}},
	{"memcached", 3, func(t *testing.T) string { return "memcached://" + servers.Memcached(t, 64).Addr + "?timeout=10s" }},
}

// site is several probes behind one address.
type site struct {
	visitor   *browser   // whose requests go to all of them in turn
	direct    []*browser // the same visitor at each of them
	processes []*programs.Process
}

// newSite starts the engine's number of probes.
func newSite(t *testing.T, e engine, store string, args ...string) *site {
	t.Helper()
	args = append([]string{"-insecure", "-store", store, "-keys", filepath.Join(t.TempDir(), "keys")}, args...)
	var processes []*programs.Process
	for range e.replicas {
		processes = append(processes, startProcess(t, args...))
	}
	return siteOf(t, processes)
}

func siteOf(t *testing.T, processes []*programs.Process) *site {
	t.Helper()
	var targets []*url.URL
	for _, p := range processes {
		base, err := url.Parse(p.Base)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, base)
	}
	var next atomic.Int64
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // clients may disconnect
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(targets[int(next.Add(1))%len(targets)])
			r.Out.Host = r.In.Host
		},
	})
	t.Cleanup(front.Close)
	s := &site{visitor: newBrowser(t, front.URL), processes: processes}
	for _, target := range targets {
		s.direct = append(s.direct, s.visitor.at(target.String()))
	}
	return s
}

// count adds up a counter of all replicas.
func (s *site) count(name string) (n int) {
	for _, b := range s.direct {
		n += b.stats()[name]
	}
	return n
}

// patient probes wait for a store for as long as a busy machine may need: these
// tests are about what is kept, not about how fast.
var patient = []string{"-timeout", "1m"}

func TestEveryStoreWithAndWithoutCaches(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			store := e.url(t)
			t.Run("alone", func(t *testing.T) {
				s := newSite(t, e, store, patient...)
				keepsItsPromises(t, e, s)
				if n := s.count("cache_hits"); n != 0 {
					t.Errorf("without a cache there were %d cache hits", n)
				}
			})
			t.Run("behind memory and memcached", func(t *testing.T) {
				shared := "memcached://" + servers.Memcached(t, 64).Addr
				s := newSite(t, e, store, append(slices.Clone(patient), "-cache", "memory:1048576", "-cache", shared)...)
				keepsItsPromises(t, e, s)
				readsComeFromTheCaches(t, s)
			})
		})
	}
}

// keepsItsPromises tests the promises for every store, with any caches in front of it.
func keepsItsPromises(t *testing.T, e engine, s *site) {
	t.Run("parallel changes all count", func(t *testing.T) { parallelChangesAllCount(t, s) })
	t.Run("a visitor reads what he wrote", func(t *testing.T) { readsWhatHeWrote(t, s) })
	t.Run("a login changes the identifier", func(t *testing.T) { loginChangesTheIdentifier(t, s) })
	t.Run("a logout is final", func(t *testing.T) { logoutIsFinal(t, s) })
	t.Run("of parallel pops one wins", func(t *testing.T) { onePopWins(t, s) })
	t.Run("large values come back", func(t *testing.T) { largeValuesComeBack(t, s) })
	if e.name != "memcached" { // it has no index by user
		t.Run("a user's sessions are listed and ended", func(t *testing.T) { usersSessions(t, s) })
	}
	if n := s.count("store_errors"); n != 0 {
		t.Errorf("%d store errors", n)
	}
}

// somebodyNew is a new visitor at the same site.
func (s *site) somebodyNew(t *testing.T) *site {
	fresh := newBrowser(t, s.visitor.base)
	n := &site{visitor: fresh}
	for _, b := range s.direct {
		n.direct = append(n.direct, fresh.at(b.base))
	}
	n.processes = s.processes
	return n
}

func parallelChangesAllCount(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/set-serverside?key=k&value=v")
	const n = 30
	together(n, func(i int) {
		s.visitor.mustPost(fmt.Sprintf("/incr?key=n&delay=%d", 5*(i%4)))
		s.visitor.mustPost(fmt.Sprintf("/append?key=l&value=v%d.&delay=%d", i, 5*(i%3)))
	})
	// The browser kept the last answer, so a cache may be slightly behind the
	// newest state. A lost value never appears.
	cached := s.count("cache_misses") > 0
	for i, b := range s.direct {
		complete := func() bool {
			list := b.get("/get?key=l").Text()
			for v := range n {
				if !strings.Contains(list, fmt.Sprintf(`"v%d."`, v)) {
					return false
				}
			}
			return b.get("/get?key=n").Text() == fmt.Sprint(n)
		}
		if cached {
			client.Eventually(t, fmt.Sprintf("replica %d shows all %d changes", i, n), complete)
		}
		if !complete() {
			t.Errorf("replica %d has %s of %d increments, and these values: %s", i, b.get("/get?key=n").Text(), n, b.get("/get?key=l").Text())
		}
	}
}

func readsWhatHeWrote(t *testing.T, s *site) {
	// Several at once, so that caches and replicas could mix them up.
	together(4, func(who int) {
		s := s.somebodyNew(t)
		for i := range 15 {
			want := fmt.Sprintf("%d-%d", who, i)
			if r := s.visitor.post("/set-serverside?key=k&value=" + want); r.Status != http.StatusOK {
				t.Errorf("%d %s", r.Status, r.Body)
			}
			for at, b := range s.direct {
				if r := b.get("/get?key=k"); r.Text() != want {
					t.Errorf("after writing %s, replica %d answers %d %s", want, at, r.Status, r.Body)
				}
			}
		}
	})
}

func loginChangesTheIdentifier(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/set-serverside?key=cart&value=mug")
	for _, b := range s.direct {
		b.get("/get?key=cart") // into every cache
	}
	before := s.visitor.copied()
	s.visitor.mustPost("/login?user=ada")
	for i, b := range s.direct {
		if r := b.get("/get?key=cart"); r.Text() != "mug" {
			t.Errorf("at replica %d the visitor has %s", i, r.Body)
		}
		goneSoon(t, before.at(b.base), "the identifier from before the login")
	}
}

func logoutIsFinal(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/login?user=ada")
	for _, b := range s.direct {
		b.get("/info") // into every cache
	}
	first, last := s.direct[0], s.direct[len(s.direct)-1]
	slow := last.copied()
	answer := make(chan client.Answer, 1)
	loads := last.stats()["loads"]
	go func() {
		r, err := slow.try("POST", "/set?key=k&value=late&delay=1000")
		if err != nil {
			r.Body = err.Error()
		}
		answer <- r
	}()
	client.Eventually(t, "the slow request has loaded its session", func() bool { return last.stats()["loads"] > loads })
	replayed := last.copied()

	first.mustPost("/logout")

	if r := <-answer; r.Status != http.StatusConflict || len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("the slow request got %d %s with cookies %v", r.Status, r.Body, r.Header["Set-Cookie"])
	}
	for _, b := range s.direct {
		goneSoon(t, replayed.at(b.base), "a copied cookie")
	}
	// Ended permanently: a write does not restore it.
	for i, b := range s.direct {
		if r := replayed.at(b.base).get("/info"); r.User != "" || r.Placement != "none" {
			t.Errorf("at replica %d a copied cookie leads to %s", i, r.Body)
		}
		if r := b.get("/info"); r.User != "" {
			t.Errorf("at replica %d the visitor is %s", i, r.Body)
		}
	}
}

// goneSoon waits until a session that has ended is gone: at once in the process
// that ended it and without caches; within Unheard, a second, where another
// process has a copy of its own.
func goneSoon(t *testing.T, b *browser, what string) {
	t.Helper()
	client.Eventually(t, what+" leads nowhere", func() bool {
		r := b.get("/info")
		return r.User == "" && r.Placement == "none"
	})
}

func onePopWins(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/set-serverside?key=state&value=xyz")
	var won atomic.Int32
	together(16, func(int) {
		switch r := s.visitor.post("/pop?key=state&delay=20"); {
		case r.Status == http.StatusOK && r.Found:
			won.Add(1)
		case r.Status == http.StatusOK, r.Status == http.StatusConflict:
		default:
			t.Errorf("got %d %s", r.Status, r.Body)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d requests got the value", won.Load())
	}
}

func usersSessions(t *testing.T, s *site) {
	laptop, phone := s.somebodyNew(t), s.somebodyNew(t)
	here := laptop.visitor.mustPost("/login?user=grace").Handle
	lost := phone.visitor.mustPost("/login?user=grace").Handle
	for i, b := range laptop.direct {
		r := b.get("/sessions?user=grace")
		if len(r.Sessions) != 2 {
			t.Fatalf("replica %d lists %s", i, r.Body)
		}
		for _, d := range r.Sessions {
			if d.Current != (d.Handle == here) || d.Handle != here && d.Handle != lost {
				t.Errorf("replica %d lists %+v", i, d)
			}
		}
	}
	streams := phone.watched(phone.visitor)
	if r := laptop.visitor.mustPost("/revoke?user=grace&handle=" + lost); r.Revoked != 1 {
		t.Errorf("revoked: %s", r.Body)
	}
	for _, b := range phone.direct {
		goneSoon(t, b, "a session that was revoked")
	}
	for i, stream := range streams {
		if last := <-stream; last != "ended" {
			t.Errorf("the stream at replica %d ended with %q", i, last)
		}
	}
	for i, b := range laptop.direct {
		if got := b.handles("grace"); len(got) != 1 || got[0] != here {
			t.Errorf("then replica %d lists %v", i, got)
		}
	}
	if r := phone.visitor.mustPost("/revoke-user?user=grace"); r.Revoked != 1 {
		t.Errorf("of all: %s", r.Body)
	}
	for _, b := range laptop.direct {
		goneSoon(t, b, "the last session")
	}
}

func largeValuesComeBack(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/set?key=k&size=200000")
	want := s.direct[0].get("/get?key=k").Text()
	if len(want) != 200000 {
		t.Fatalf("%d bytes", len(want))
	}
	for i, b := range s.direct {
		if b.get("/get?key=k").Text() != want {
			t.Errorf("replica %d has another value", i)
		}
	}
}

func readsComeFromTheCaches(t *testing.T, s *site) {
	s = s.somebodyNew(t)
	s.visitor.mustPost("/set-serverside?key=k&value=v")
	before := s.count("cache_hits")
	client.Eventually(t, "a read comes from a cache", func() bool {
		s.visitor.get("/get?key=k")
		return s.count("cache_hits") > before
	})
	if s.count("cache_misses") == 0 {
		t.Error("no miss was counted")
	}
}

func TestASharedCacheServesReplicasThatHaveNotSeenTheSession(t *testing.T) {
	t.Parallel()
	for name, cache := range map[string]string{
		"memcached": "memcached://" + servers.Memcached(t, 64).Addr + "?timeout=10s",
		"redis":     "redis://" + servers.Redis(t, "--save", "", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru").Addr,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := engines[1]
			s := newSite(t, e, e.url(t), "-cache", cache, "-max-stale", "1h")
			s.visitor.mustPost("/set-serverside?key=k&value=v")
			client.Eventually(t, "the cache has a copy", func() bool {
				before := s.direct[0].stats()["cache_hits"]
				s.direct[0].get("/get?key=k")
				return s.direct[0].stats()["cache_hits"] > before
			})
			client.Eventually(t, "another replica reads it", func() bool {
				s.direct[1].get("/get?key=k")
				return s.direct[1].stats()["cache_hits"] > 0
			})
		})
	}
}

func TestMaxStaleIsTheAgeOfCopiesInASharedCache(t *testing.T) {
	t.Parallel()
	cache := servers.Redis(t)
	p := startProcess(t, "-insecure", "-store", "memory:", "-cache", "redis://"+cache.Addr, "-max-stale", "1h")
	b := newBrowser(t, p.Base)
	b.mustPost("/set-serverside?key=k&value=v")
	client.Eventually(t, "there is a copy that may be an hour old", func() bool {
		b.get("/get?key=k")
		name := strings.TrimSpace(cache.RedisCommand("RANDOMKEY"))
		left, err := strconv.Atoi(strings.TrimSpace(cache.RedisCommand("TTL", name)))
		return err == nil && left > 1800
	})
}

func TestACacheThatIsNotThereAtTheStartIsUsedOnceItIs(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	cache.Kill()
	p := startProcess(t, "-insecure", "-store", "memory:", "-cache", "memcached://"+cache.Addr)
	client.Eventually(t, "the log says so", func() bool { return strings.Contains(p.Log.String(), "a cache does not answer") })
	b := newBrowser(t, p.Base)
	b.mustPost("/set-serverside?key=k&value=v")
	if r := b.get("/get?key=k"); r.Text() != "v" {
		t.Errorf("without its cache: %s", r.Body)
	}
	cache.Start()
	client.Eventually(t, "the cache is used", func() bool {
		b.get("/get?key=k")
		return b.stats()["cache_hits"] > 0
	})
}

func TestACacheThatDiesCostsNothingButItsHits(t *testing.T) {
	t.Parallel()
	cache := servers.Memcached(t, 64)
	e := engines[1]
	s := newSite(t, e, e.url(t), "-cache", "memory:1048576", "-cache", "memcached://"+cache.Addr)
	s.visitor.mustPost("/incr?key=n")
	s.visitor.mustPost("/set-serverside?key=k&value=v")
	var answered atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				s.visitor.mustPost("/incr?key=n")
				answered.Add(1)
			}
		})
	}
	client.Eventually(t, "the load runs", func() bool { return answered.Load() > 20 })
	cache.Pause()
	client.Eventually(t, "the load runs on", func() bool { return answered.Load() > 60 })
	cache.Kill()
	all.Wait()
	for i, b := range s.direct {
		if r := b.get("/get?key=n"); r.Text() != "161" {
			t.Errorf("at replica %d, 161 increments made %s", i, r.Text())
		}
	}
	s.visitor.mustPost("/logout")
	if r := s.visitor.get("/info"); r.Placement != "none" {
		t.Errorf("afterwards: %s", r.Body)
	}
}
