package outages

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// scenario is a site under load, and its servers' faults.
type scenario struct {
	// probes are the probe's flags that name the store and the caches.
	probes []string
	// env is added to their environment.
	env []string
	// fleet is used instead of new replicas, if it is not nil.
	fleet *fleet
	// lag is how long a cache that missed a change may answer.
	lag time.Duration
	// storeFails: the faults hit the store, so that requests may fail with 503
	// from their beginning until every replica has written again. Otherwise no
	// request may fail at all.
	storeFails bool
	// storeWaits: the store waits until the fault is over, so a request fails
	// only if a connection ends during a save, and so many other saves follow
	// that its outcome stays unknown.
	storeWaits bool
	// slow: the engine is an emulator, which may fail to answer in time at any
	// moment if the machine is busy.
	slow bool
	// readsAhead: a read may see a write that is not acknowledged yet, and that a
	// failover then takes back; so reads are left out of the histories.
	readsAhead bool
	// definite: the store refuses, so no outcome is unknown.
	definite bool
	// faults happen one after the other, each in a round of its own. A fault
	// returns when it has repaired what it broke.
	faults []fault
}

type fault struct {
	name string
	does func(t *testing.T)
}

const (
	replicas = 3
	visitors = 4
	tabs     = 3
	// pause is how long a visitor waits after an answer.
	pause = 25 * time.Millisecond
)

// afterFailure is how long a visitor waits after that many consecutive
// failures. The wait grows, because each request with an unknown outcome
// doubles the checker's work.
func afterFailure(times int) time.Duration {
	return min(200*time.Millisecond<<min(times-1, 10), 3*time.Second)
}

// run runs the rounds. In `make soak` it repeats them until the time has passed.
func (s scenario) run(t *testing.T) {
	t.Helper()
	if s.fleet == nil {
		s.fleet = startFleet(t, replicas, s.env, s.probes...)
	}
	for begin := time.Now(); ; {
		for _, f := range s.faults {
			if !t.Run(f.name, func(t *testing.T) { s.play(t, f) }) {
				return
			}
		}
		if time.Since(begin) >= soakTime(t) {
			return
		}
	}
}

// soakTime is how long a scenario is repeated; 0 = each fault once.
func soakTime(t testing.TB) time.Duration {
	text := os.Getenv("FAULT_TIME")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("FAULT_TIME: %v", err)
	}
	return d
}

// round is one fault under load.
type round struct {
	scenario
	t     *testing.T
	begin time.Time

	answered atomic.Int64
	broken   chan struct{} // closed when the fault begins
	breakAt  time.Duration
	backAt   time.Duration

	mu     sync.Mutex
	failed []failure
}

// failure is an answer that is an error.
type failure struct {
	op             operation
	result         result
	sent, answered time.Duration
	text           string
}

// visitor is one session.
type visitor struct {
	history
	first *browser
	// leaves: the session is ended during the fault.
	leaves bool
	// shared: the tabs have one cookie jar. Otherwise each has a copy, as if the
	// cookies had been copied to other browsers.
	shared bool
}

// play runs visitors, causes a fault, repairs it, and then checks the result.
func (s scenario) play(t *testing.T, f fault) {
	r := &round{scenario: s, t: t, begin: time.Now(), broken: make(chan struct{})}
	all := make([]*visitor, visitors)
	for i := range all {
		all[i] = r.arrives(i)
	}
	ctx, stop := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	breaks := sync.OnceFunc(func() {
		r.breakAt = time.Since(r.begin)
		close(r.broken)
	})
	defer func() { // also when the test fails: goroutines must not report to a finished test
		stop()
		breaks()
		busy.Wait()
	}()
	for _, v := range all {
		for tab := range tabs {
			b := v.first
			if !v.shared {
				b = v.first.copied()
			}
			busy.Go(func() { r.uses(ctx, v, b, tab) })
		}
		if v.leaves {
			busy.Go(func() { r.leaves(v, v.first.copied()) })
		}
	}

	r.await(100)
	breaks()
	f.does(t)
	r.recovers()
	r.backAt = time.Since(r.begin)
	r.await(100)
	stop()
	busy.Wait()

	for _, v := range all {
		if !v.leaves {
			r.counts(v)
			r.leaves(v, v.first.copied())
		}
	}
	r.stayEnded(all)
	r.judge()
	begin := time.Now()
	for _, v := range all {
		v.check(t)
	}
	t.Logf("checking took %v", time.Since(begin))
}

// await waits for that many further successful answers.
func (r *round) await(n int64) {
	r.t.Helper()
	enough := r.answered.Load() + n
	client.Eventually(r.t, "the visitors are served", func() bool { return r.answered.Load() >= enough })
}

// arrives returns a visitor who has logged in and has one value of each kind.
func (r *round) arrives(i int) *visitor {
	r.t.Helper()
	v := &visitor{first: r.fleet.browser(), leaves: i == visitors-1, shared: i%2 == 0}
	v.name, v.lag = fmt.Sprintf("visitor %d", i), r.lag
	must(r.t)(v.first.post(fmt.Sprintf("/login?user=user-%d-%d", r.begin.UnixNano(), i)))
	for _, op := range []operation{
		{kind: incr, key: "counter"},
		{kind: extend, key: "list", arg: "first"},
		{kind: set, key: "text", arg: "first"},
		{kind: set, key: "ticket", arg: "first"},
	} {
		if out, ok := r.does(v, v.first, op); !ok || out.result != done {
			r.t.Fatalf("%v: %v", op, out)
		}
	}
	return v
}

// does sends one operation and records its outcome. ok is false if there was no
// answer to record.
func (r *round) does(v *visitor, b *browser, op operation) (out outcome, ok bool) {
	sent := time.Since(r.begin)
	a, err := op.send(b)
	answered := time.Since(r.begin)
	if err == nil {
		out, err = outcomeOf(op, a)
	}
	if err != nil {
		r.t.Errorf("%s: %v", v.name, err)
		return out, false
	}
	if out.result == unknown || out.result == failed {
		r.mu.Lock()
		r.failed = append(r.failed, failure{op, out.result, sent, answered, a.Body})
		r.mu.Unlock()
	} else {
		r.answered.Add(1)
	}
	if op.kind != read || !r.readsAhead {
		v.add(op, out, sent, answered)
	}
	return out, true
}

// uses runs a tab until the visit is over or its session has ended.
func (r *round) uses(ctx context.Context, v *visitor, b *browser, tab int) {
	mine := 0 // the last sum that this browser made
	failures := 0
	for i := 0; ctx.Err() == nil; i++ {
		op := anything(fmt.Sprintf("%d-%d.", tab, i))
		out, ok := r.does(v, b, op)
		if !ok || out.result == refused && op.kind != pop || op.kind == read && out.result == done && !out.found && op.key != "ticket" {
			return // it has ended
		}
		if op.key == "counter" && out.result == done && !v.shared {
			if out.n < mine {
				r.t.Errorf("%s: a browser that had counted to %d was shown %d", v.name, mine, out.n)
			}
			if op.kind == incr {
				mine = out.n
			}
		}
		wait := pause
		if out.result == unknown || out.result == failed {
			failures++
			wait = afterFailure(failures)
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// anything is a random operation, with a unique text.
func anything(text string) operation {
	switch n := rand.IntN(100); {
	case n < 35:
		return operation{kind: incr, key: "counter"}
	case n < 50:
		return operation{kind: read, key: "counter"}
	case n < 62:
		return operation{kind: extend, key: "list", arg: text}
	case n < 67:
		return operation{kind: read, key: "list"}
	case n < 77:
		return operation{kind: set, key: "text", arg: text}
	case n < 87:
		return operation{kind: read, key: "text"}
	case n < 93:
		return operation{kind: set, key: "ticket", arg: text}
	default:
		return operation{kind: pop, key: "ticket"}
	}
}

// leaves ends the session once the fault has begun, however often that takes.
// The cookies are copied each time: a logout that fails takes them away. Slow
// requests are under way meanwhile, and save after the end.
func (r *round) leaves(v *visitor, b *browser) {
	<-r.broken
	var slow sync.WaitGroup
	defer slow.Wait()
	for i := range 2 * replicas {
		op := operation{kind: incr, key: "counter", delay: 200 * time.Millisecond}
		if i%2 == 0 {
			op.kind, op.key, op.arg = set, "text", fmt.Sprintf("late-%d", i)
		}
		slow.Go(func() { r.does(v, b.copied(), op) })
	}
	<-time.After(100 * time.Millisecond)
	deadline := time.Now().Add(client.Patience)
	for failures := 1; time.Now().Before(deadline); failures++ {
		if out, ok := r.does(v, b.copied(), operation{kind: logout}); !ok || out.result == done {
			return
		}
		<-time.After(afterFailure(failures))
	}
	r.t.Errorf("%s cannot log out", v.name)
}

// recovers waits until every replica writes again, wherever sessions lie.
func (r *round) recovers() {
	r.t.Helper()
	for _, replica := range r.fleet.replicas {
		for range 8 {
			client.Eventually(r.t, "a replica writes again", func() bool {
				a, err := r.fleet.browser().send(replica, http.MethodPost, "/incr?key=counter")
				return err == nil && a.Status == http.StatusOK
			})
		}
	}
}

// judge checks the failures against the policy.
func (r *round) judge() {
	r.t.Helper()
	wrong, open := 0, 0
	for _, f := range r.failed {
		if f.result == unknown {
			open++
		}
		if r.definite && f.result == unknown {
			r.t.Errorf("the store has refused %v, and its outcome is said to be unknown: %s", f.op, f.text)
		}
		if (r.storeFails || r.storeWaits && f.result == unknown) && (r.slow || f.answered >= r.breakAt && f.sent <= r.backAt) {
			continue
		}
		if wrong++; wrong <= 3 {
			r.t.Errorf("the fault lasted from %v to %v, and %v failed from %v to %v: %s", r.breakAt, r.backAt, f.op, f.sent, f.answered, f.text)
		}
	}
	if wrong > 3 {
		r.t.Errorf("and %d more", wrong-3)
	}
	r.t.Logf("%d answers, %d failures, %d of them with an unknown outcome, from %v to %v", r.answered.Load(), len(r.failed), open, r.breakAt.Round(time.Millisecond), r.backAt.Round(time.Millisecond))
}

// counts reads the session from the store, at every replica, and counts.
func (r *round) counts(v *visitor) {
	r.t.Helper()
	for range r.fleet.replicas {
		for _, key := range names {
			// It is part of the history, though no cache can answer it.
			b := v.first.withoutFloor()
			sent := time.Since(r.begin)
			op := operation{kind: read, key: key}
			out, err := outcomeOf(op, must(r.t)(op.send(b)))
			if err != nil {
				r.t.Fatal(err)
			}
			v.add(op, out, sent+v.lag, time.Since(r.begin)) // add takes the lag off again
			k, what := incr, "increments"
			switch key {
			case "counter":
			case "list":
				k, what = extend, "additions to the list"
			default:
				continue
			}
			if sure, perhaps := v.count(k, done), v.count(k, unknown); out.n < sure || out.n > sure+perhaps {
				r.t.Errorf("%s: %d %s are acknowledged, and %d more were tried: there are %d", v.name, sure, what, perhaps, out.n)
			}
		}
	}
}

// stayEnded checks that no replica accepts the ended sessions, once copies in
// caches that missed their end must have expired.
func (r *round) stayEnded(all []*visitor) {
	r.t.Helper()
	<-time.After(r.lag)
	for _, v := range all {
		for _, replica := range r.fleet.replicas {
			a, err := v.first.copied().send(replica, http.MethodGet, "/info")
			if err != nil || a.Status != http.StatusOK || a.User != "" {
				r.t.Errorf("%s has logged out; %d %s, %v", v.name, a.Status, a.Body, err)
			}
			if out, ok := r.does(v, v.first.copied(), operation{kind: incr, key: "counter"}); ok && out.result != refused {
				r.t.Errorf("%s has logged out, and goes on counting: %v", v.name, out)
			}
		}
	}
}
