package main

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// visitors read one thing at a time, at random.
var visitors = parameters{
	replicas: 1, sessions: 100, views: 0.5, burst: 1, local: time.Second, duration: 15 * time.Minute,
}

func run(t *testing.T, p parameters) results {
	t.Helper()
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	return newSimulation(p, 1).run()
}

// A copy lives for a fixed time T. With requests at random, λ per second, each
// miss is followed by λT hits on the average.
func TestHitRateIsWhatTheFormulaSays(t *testing.T) {
	formula := func(lambda float64, maxStale time.Duration) float64 {
		x := lambda * maxStale.Seconds()
		return x / (1 + x)
	}
	with := func(change func(*parameters)) parameters {
		p := visitors
		change(&p)
		return p
	}
	for _, tt := range []struct {
		name string
		p    parameters
		want float64
	}{
		{"one replica", visitors, formula(0.5, time.Second)},
		{"often", with(func(p *parameters) { p.views, p.sessions = 10, 10 }), formula(10, time.Second)},
		{"four replicas share the requests", with(func(p *parameters) { p.replicas = 4 }), formula(0.5/4, time.Second)},
		{"four replicas, each with its own visitors", with(func(p *parameters) { p.replicas, p.sticky = 4, true }), formula(0.5, time.Second)},
		{"a cache shared by four replicas", with(func(p *parameters) { p.replicas, p.local, p.shared = 4, 0, 30*time.Second }), formula(0.5, 30*time.Second)},
		{"no cache", with(func(p *parameters) { p.local = 0 }), 0},
		{"the feed is heard", with(func(p *parameters) { p.local = 30 * time.Second }), formula(0.5, 30*time.Second)},
		{"the feed is heard by sixteen replicas", with(func(p *parameters) { p.replicas, p.views, p.local, p.duration = 16, 2, 30*time.Second, 20*time.Minute }), formula(2.0/16, 30*time.Second)},
		{"the feed is not heard", with(func(p *parameters) { p.local, p.noFeed = 30*time.Second, true }), formula(0.5, time.Second)},
		{"a feed that is too slow", with(func(p *parameters) { p.local, p.feedDelay = 30*time.Second, 10*time.Second }), formula(0.5, time.Second)},
		// Requests trigger the polls of the feed, and the only visitor comes too rarely.
		{"nobody else is there", with(func(p *parameters) { p.sessions, p.views, p.local, p.duration = 1, 0.02, 30*time.Second, 200*time.Hour }), formula(0.02, time.Second)},
	} {
		r := run(t, tt.p)
		got := float64(r.localHits+r.sharedHits) / float64(r.requests)
		if math.Abs(got-tt.want) > 0.01 {
			t.Errorf("%s: %.3f of %d requests are hits, want %.3f", tt.name, got, r.requests, tt.want)
		}
		if r.localHits+r.sharedHits+r.answered != r.requests || r.loads != r.answered {
			t.Errorf("%s: the numbers do not add up: %+v", tt.name, r)
		}
	}
}

// Visitors only read pages. Some of a page's requests go to a replica that has
// not answered one of them yet, but may have a copy from an earlier page.
func TestPagesOfManyReplicasAreWhatTheFormulaSays(t *testing.T) {
	for _, replicas := range []int{1, 4, 16} {
		p := parameters{replicas: replicas, sessions: 1000, views: 1.0 / 30, burst: 6, gap: 100 * time.Millisecond, local: 30 * time.Second, feedDelay: 20 * time.Millisecond, duration: 10 * time.Minute}
		n, r := float64(replicas), float64(p.burst)
		q := 1 - math.Pow(1-1/n, r)
		want := n * q / r / (1 + q*p.views*p.local.Seconds())
		got := run(t, p)
		if share := float64(got.loads) / float64(got.requests); math.Abs(share-want) > 0.015 {
			t.Errorf("%d replicas: %.3f loads for each request, want %.3f", replicas, share, want)
		}
		if polls := float64(got.polls) / n / p.duration.Seconds(); polls < 2 || polls > 2.5 {
			t.Errorf("%d replicas: each reads the feed %.2f times a second", replicas, polls)
		}
	}
}

// With both caches, the store's loads lie between those with one cache of the
// shared MaxStale, and with one of the sum of both.
func TestTwoCachesAreWorthMoreThanTheSharedOne(t *testing.T) {
	p := visitors
	p.replicas, p.shared = 4, 10*time.Second
	r := run(t, p)
	got := float64(r.loads) / float64(r.requests)
	least, most := 1/(1+p.views*11), 1/(1+p.views*10)
	if got < least-0.005 || got > most+0.005 {
		t.Errorf("%.4f loads for each request, want %.4f to %.4f", got, least, most)
	}
}

func TestNobodySeesLessThanHisBrowserHasSeen(t *testing.T) {
	p := parameters{
		replicas: 4, sessions: 200, views: 0.2, burst: 6, gap: 50 * time.Millisecond, writes: 0.3,
		local: time.Second, shared: 30 * time.Second, delay: 20 * time.Millisecond, duration: 10 * time.Minute,
	}
	if r := run(t, p); r.belowFloor != 0 || r.old == 0 || r.oldest > p.delay {
		t.Errorf("%d answers below the floor; %d older than the newest save, by up to %v: only those that crossed an answer on its way (%v) may be",
			r.belowFloor, r.old, r.oldest, p.delay)
	}
	p.noFloor = true
	if r := run(t, p); r.belowFloor == 0 || r.oldest <= p.delay || r.oldest > p.local {
		t.Errorf("without floors: %d answers below, by up to %v: the floor would be good for nothing", r.belowFloor, r.oldest)
	}
}

func TestALogoutIsFinalAfterMaxStale(t *testing.T) {
	p := parameters{
		replicas: 4, sessions: 100, views: 1, burst: 1, logouts: 0.05,
		local: time.Second, shared: 5 * time.Second, duration: 8 * time.Minute,
	}
	for _, tt := range []struct {
		name          string
		deaf          float64
		local, shared time.Duration
		least, most   time.Duration
	}{
		{"no cache", 0, 0, 0, 0, 0},
		{"a shared cache that was told", 0, 0, 5 * time.Second, 0, 0},
		{"other processes cannot be told", 0, time.Second, 0, 800 * time.Millisecond, time.Second},
		{"other processes, and a shared cache that was told", 0, time.Second, 5 * time.Second, 800 * time.Millisecond, time.Second},
		{"a shared cache that was not told", 1, 0, 5 * time.Second, 4 * time.Second, 5 * time.Second},
		{"nobody was told", 1, time.Second, 5 * time.Second, 5 * time.Second, 6 * time.Second},
		{"other processes hear of it", 0, 30 * time.Second, 0, 300 * time.Millisecond, time.Second},
		{"the shared cache was not told, and other processes hear of it", 1, 30 * time.Second, 5 * time.Second, 300 * time.Millisecond, time.Second},
	} {
		p.deaf, p.local, p.shared = tt.deaf, tt.local, tt.shared
		r := run(t, p)
		if r.afterLogout == 0 || r.latest < tt.least || r.latest > tt.most {
			t.Errorf("%s: alive for up to %v after a logout (%d requests), want %v to %v", tt.name, r.latest, r.afterLogout, tt.least, tt.most)
		}
	}
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	p := visitors
	p.replicas, p.writes, p.logouts, p.duration = 3, 0.2, 0.1, time.Minute
	if a, b := run(t, p), run(t, p); a != b {
		t.Errorf("%+v\n%+v", a, b)
	}
	if a, b := run(t, p), newSimulation(p, 2).run(); a == b {
		t.Error("another seed changes nothing")
	}
}

// The simulation's caches and those of store/tiered give the same answers, from
// the same places, to the same calls at the same times.
func TestTheSimulationDoesWhatTheRealCachesDo(t *testing.T) {
	for _, p := range []parameters{
		{replicas: 3, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.2, logouts: 0.05, local: time.Second, shared: 10 * time.Second, delay: 50 * time.Millisecond, duration: 3 * time.Minute},
		{replicas: 3, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.2, logouts: 0.05, shared: 10 * time.Second, delay: 50 * time.Millisecond, duration: 3 * time.Minute},
		{replicas: 2, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.2, logouts: 0.05, local: time.Second, noFloor: true, duration: 3 * time.Minute},
		// The same, with the feed; sometimes no visitor comes for a while.
		{replicas: 3, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.2, logouts: 0.05, local: 30 * time.Second, shared: 10 * time.Second, feedDelay: 20 * time.Millisecond, delay: 50 * time.Millisecond, duration: 3 * time.Minute},
		{replicas: 3, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.05, logouts: 0.05, local: 5 * time.Second, unheard: 2 * time.Second, feedDelay: 300 * time.Millisecond, delay: 50 * time.Millisecond, duration: 3 * time.Minute},
		{replicas: 2, sessions: 2, views: 0.1, burst: 5, gap: 300 * time.Millisecond, writes: 0.05, logouts: 0.1, local: 30 * time.Second, shared: 20 * time.Second, feedDelay: 20 * time.Millisecond, delay: 50 * time.Millisecond, duration: time.Hour},
		{replicas: 2, sessions: 40, views: 0.3, burst: 4, gap: 100 * time.Millisecond, writes: 0.05, logouts: 0.05, local: 30 * time.Second, noFeed: true, delay: 50 * time.Millisecond, duration: 3 * time.Minute},
	} {
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			var calls []call
			s := newSimulation(p, 1)
			s.trace = func(c call) { calls = append(calls, c) }
			s.run()
			w := newWorld(t, p, len(s.stored))
			seen := map[place]int{}
			for _, c := range calls {
				w.replay(t, c)
				if c.what == loads {
					seen[c.from]++
				}
			}
			if len(calls) < 1000 || seen[inStore] < 100 || p.local > 0 && seen[inProcess] < 100 || p.shared > 0 && seen[inShared] < 100 {
				t.Errorf("%d calls are too few: %v", len(calls), seen)
			}
			time.Sleep(time.Second) // the feed's last answer
		})
	}
}

// world is the real system: replicas with store/tiered, and one store.
type world struct {
	start    time.Time
	replicas []*tiered.Store
	origin   *countingStore
	shared   *countingCache
}

func newWorld(t *testing.T, p parameters, sessions int) *world {
	w := &world{start: time.Now(), origin: &countingStore{Store: memory.New(), noFeed: p.noFeed, feedDelay: p.feedDelay}, shared: &countingCache{Cache: tiered.NewMemory(1 << 30)}}
	for range p.replicas {
		var layers []tiered.Layer
		if p.local > 0 {
			layers = append(layers, tiered.Layer{Cache: tiered.NewMemory(1 << 30), MaxStale: p.local, Unheard: p.unheard})
		}
		if p.shared > 0 {
			layers = append(layers, tiered.Layer{Cache: w.shared, MaxStale: p.shared})
		}
		s, err := tiered.New(w.origin, layers...)
		if err != nil {
			t.Fatal(err)
		}
		w.replicas = append(w.replicas, s)
	}
	for i := range sessions {
		if err := w.origin.Save(t.Context(), w.record(number(i), 1), store.Base{}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func number(i int) store.ID { return store.ID{byte(i >> 8), byte(i), 1} }

func (w *world) replay(t *testing.T, c call) {
	t.Helper()
	time.Sleep(time.Until(w.start.Add(c.at)))
	s := w.replicas[c.replica]
	id := number(c.number)
	switch c.what {
	case loads:
		w.origin.loads, w.shared.gets = 0, 0
		rec, err := s.LoadFrom(t.Context(), id, uint64(c.floor))
		if err != nil {
			t.Fatal(err)
		}
		version := int(rec.Version)
		if rec.IsEnd() {
			version = 0
		}
		from := inProcess
		switch {
		case w.origin.loads > 0:
			from = inStore
		case w.shared.gets > 0:
			from = inShared
		}
		if version != c.version || from != c.from {
			t.Fatalf("%+v: really version %d from %d", c, version, from)
		}
	case saves, ends:
		rec := w.record(id, c.version)
		if c.what == ends {
			rec.Ended, rec.Data = rec.Seen, nil
		}
		old := w.record(id, c.version-1)
		if err := s.Save(t.Context(), rec, old.Base()); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
	}
}

func (w *world) record(id store.ID, version int) store.Record {
	later := w.start.Add(24 * time.Hour)
	return store.Record{
		ID: id, Version: uint64(version), SaveIDs: []store.SaveID{store.SaveID(version)},
		Created: w.start, Seen: w.start, Deadline: later, Expires: later, Data: []byte{1},
	}
}

type countingStore struct {
	*memory.Store
	loads     int
	noFeed    bool
	feedDelay time.Duration
}

func (s *countingStore) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	if s.noFeed {
		return store.EndPage{}, errors.ErrUnsupported
	}
	page, err := s.Store.Ends(ctx, cursor, limit)
	time.Sleep(s.feedDelay)
	return page, err
}

func (s *countingStore) Load(ctx context.Context, id store.ID) (store.Record, error) {
	s.loads++
	return s.Store.Load(ctx, id)
}

// countingCache counts calls, and tiered does not treat it as a cache in the process.
type countingCache struct {
	store.Cache
	gets int
}

func (c *countingCache) Get(ctx context.Context, id store.ID) ([]byte, uint64, error) {
	c.gets++
	return c.Cache.Get(ctx, id)
}
