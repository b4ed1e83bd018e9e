// Command sim simulates visitors, replicas and caches by the rules of
// store/tiered, and prints how often the caches answer, how much work the store
// does, and how old an answer can be:
//
//	go run ./sim -h
//	go run ./sim -replicas 8 -views 0.033 -burst 6
//
// The same flags always print the same numbers.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	p := parameters{}
	flag.IntVar(&p.replicas, "replicas", 4, "`how many` processes serve; each request goes to any of them")
	flag.BoolVar(&p.sticky, "sticky", false, "a session's requests always go to the same replica")
	flag.IntVar(&p.sessions, "sessions", 1000, "`how many` visitors there are at any time")
	flag.Float64Var(&p.views, "views", 1.0/30, "page views `per second` of each visitor, at random (Poisson)")
	flag.IntVar(&p.burst, "burst", 6, "`requests` of a page view")
	flag.DurationVar(&p.gap, "gap", 100*time.Millisecond, "`time` between them")
	flag.Float64Var(&p.writes, "writes", 0.1, "`share` of the requests that change the session")
	flag.Float64Var(&p.logouts, "logouts", 0.01, "`share` of the page views that are a logout; somebody who copied the cookie goes on with it")
	flag.DurationVar(&p.local, "local", 30*time.Second, "MaxStale of the cache in each process; 0 = there is none")
	flag.DurationVar(&p.unheard, "unheard", 0, "Unheard of the cache in each process; 0 = the default, a second")
	flag.BoolVar(&p.noFeed, "no-feed", false, "no process reads the store's feed of ends")
	flag.DurationVar(&p.feedDelay, "feed-delay", 20*time.Millisecond, "`time` until the feed's answer is there")
	flag.DurationVar(&p.shared, "shared", 30*time.Second, "MaxStale of the cache that they share; 0 = there is none")
	flag.Float64Var(&p.deaf, "deaf", 0, "`share` of the logouts that the shared cache cannot be told of")
	flag.BoolVar(&p.noFloor, "no-floor", false, "leave out the floor that the browser sends, to see what it is good for")
	flag.DurationVar(&p.delay, "delay", 50*time.Millisecond, "`time` from an answer until the browser has it, and sends its floor")
	flag.DurationVar(&p.duration, "duration", 20*time.Minute, "`time` to simulate")
	seed := flag.Uint64("seed", 1, "another `number` gives another run")
	flag.Parse()
	if err := p.check(); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(2)
	}
	r := newSimulation(p, *seed).run()
	share := func(n int) float64 { return 100 * float64(n) / float64(r.requests) }
	perRequest := func(n int) float64 { return float64(n) / float64(r.requests) }
	fmt.Printf("requests                                  %d\n", r.requests)
	fmt.Printf("answered by the cache in the process      %.1f %%\n", share(r.localHits))
	fmt.Printf("answered by the shared cache              %.1f %%\n", share(r.sharedHits))
	fmt.Printf("answered by the store                     %.1f %%\n", share(r.answered))
	fmt.Printf("store: loads for each request             %.3f\n", perRequest(r.loads))
	fmt.Printf("store: saves for each request             %.3f\n", perRequest(r.saves+r.conflicts))
	fmt.Printf("store: readings of its feed of ends       %.2f a second in each process\n", float64(r.polls)/p.duration.Seconds()/float64(p.replicas))
	fmt.Printf("shared cache: calls for each request      %.3f\n", perRequest(r.sharedCalls))
	fmt.Printf("answers below what their browser had seen %d\n", r.belowFloor)
	fmt.Printf("answers older than the newest save        %d (%.4f %%), at most %v behind\n", r.old, share(r.old), r.oldest.Round(time.Millisecond))
	fmt.Printf("answers alive after the logout            %d of %d, at most %v after it\n", r.undead, r.afterLogout, r.latest.Round(time.Millisecond))
}
