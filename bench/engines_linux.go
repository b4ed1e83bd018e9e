package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// engineOptions are what to measure, and for how long.
type engineOptions struct {
	rounds   int
	turn     time.Duration
	visitors []int
	only     string // sides whose name contains it, beside ours
}

// benchEngines measures Sojourn and the others on real servers.
func benchEngines(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("engines", flag.ExitOnError)
	full := flags.Bool("full", false, "1, 16, 64 and 256 visitors, in longer and more rounds: about 20 minutes")
	rounds := flags.Int("rounds", 0, "how many `rounds` (0 = 3, with -full 5)")
	turn := flags.Duration("turn", 0, "how long each side has in a round (0 = 400ms, with -full 1s)")
	visitors := flags.String("visitors", "", "how many at once, such as 1,64 (\"\" = 64, with -full 1,16,64,256)")
	engine := flags.String("engine", "", "memory, sqlite, redis or postgres (\"\" = all)")
	_ = flags.Parse(args) // ExitOnError

	o := engineOptions{rounds: 3, turn: 400 * time.Millisecond, visitors: []int{64}, only: *engine}
	if *full {
		o.rounds, o.turn, o.visitors = 5, time.Second, []int{1, 16, 64, 256}
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	if *turn > 0 {
		o.turn = *turn
	}
	if *visitors != "" {
		o.visitors = nil
		for _, s := range strings.Split(*visitors, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("-visitors %q is not a list of numbers", *visitors)
			}
			o.visitors = append(o.visitors, n)
		}
	}

	temp, err := os.MkdirTemp("", "sojourn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := printMachine(temp); err != nil {
		return err
	}
	e, watched, stop, err := startEngines(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var sides []served
	for _, s := range engineSides() {
		if o.only != "" && s.engine != "" && s.engine != o.only {
			continue
		}
		one, err := serveApart(ctx, s, e)
		if err != nil {
			return err
		}
		defer one.stop()
		sides = append(sides, one)
	}
	for _, w := range []workload{reads, writes, mixed, pages, huge} {
		fmt.Printf("\n%s:\n\n", w.name)
		printEnginesHeader()
		for _, n := range o.visitors {
			if w.size == hugeSize && n > mostOfHuge {
				continue // each side keeps a session of 1 MB for each of them
			}
			results, err := compare(ctx, sides, watched, w, n, o)
			if err != nil {
				return fmt.Errorf("%s, %d visitors: %w", w.name, n, err)
			}
			printEngines(n, results)
		}
	}
	return nil
}

// mostOfHuge is how many visitors with huge sessions there are at most.
const mostOfHuge = 16

// startEngines starts Redis, with an append-only file that is synced every
// second, and PostgreSQL with its defaults (fsync and synchronous_commit are
// on), with pg_stat_statements to count statements.
func startEngines(ctx context.Context) (e engines, watched map[string]engine, stop func(), err error) {
	running := &servers.Package{}
	stops := []func(){running.Close}
	stop = func() {
		for _, f := range slices.Backward(stops) {
			f()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	var r, p *servers.Server
	if err := running.Try(func() {
		r = servers.Redis(running, "--appendonly", "yes", "--appendfsync", "everysec")
		p = servers.Postgres(running, "fsync=on", "full_page_writes=on", "max_connections=300", "shared_preload_libraries=pg_stat_statements")
	}); err != nil {
		return e, nil, nil, err
	}
	rw, err := watchRedis(r)
	if err != nil {
		return e, nil, nil, err
	}
	stops = append(stops, func() { _ = rw.conn.Close() })
	pw, err := watchPostgres(ctx, p)
	if err != nil {
		return e, nil, nil, err
	}
	stops = append(stops, func() { _ = pw.conn.Close(context.WithoutCancel(ctx)) })
	dir, err := os.MkdirTemp("", "sojourn-bench-")
	if err != nil {
		return e, nil, nil, err
	}
	stops = append(stops, func() { _ = os.RemoveAll(dir) })
	return engines{r.Addr, p.PostgresURL(), dir}, map[string]engine{
		"redis": rw, "postgres": pw, "memory": inProcess{}, "sqlite": inProcess{},
	}, stop, nil
}

// turnResult is the result of one side in one round. All but load is per
// request.
type turnResult struct {
	load
	cpu, engineCPU     time.Duration
	operations, logged float64
	hits               float64 // of the cache; negative = there is none
}

// engineResult is the result of one side.
type engineResult struct {
	engineSide
	turns []turnResult
}

func (r engineResult) perSecond() []float64 {
	return each(r.turns, func(t turnResult) float64 { return t.perSecond })
}

// median is the median over the rounds.
func (r engineResult) median(f func(turnResult) float64) float64 {
	return spreadOf(each(r.turns, f)).median
}

// compare lets n visitors at once work on each side, in turns.
func compare(ctx context.Context, sides []served, watched map[string]engine, w workload, n int, o engineOptions) ([]engineResult, error) {
	crowds := make([][]visitor, len(sides))
	results := make([]engineResult, len(sides))
	for i, s := range sides {
		results[i].engineSide = s.engineSide
		for range n {
			c, err := dial(ctx, s.addr, w)
			if err != nil {
				return nil, err
			}
			defer c.conn.Close()
			if err := c.start(); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			c.keeps = s.name != bare
			crowds[i] = append(crowds[i], c)
		}
	}
	for round := range o.rounds + 1 { // the first one warms up
		for k := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			i := (round + k) % len(sides)
			t, err := takeTurn(ctx, sides[i], watched, crowds[i], o.turn)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if round > 0 {
				results[i].turns = append(results[i].turns, t)
			}
		}
	}
	return results, nil
}

func takeTurn(ctx context.Context, s served, watched map[string]engine, visitors []visitor, turn time.Duration) (t turnResult, err error) {
	look := func() (u usage, w work, err error) {
		if u, err = s.usage(ctx); err != nil {
			return u, w, err
		}
		for _, name := range []string{s.engine, s.shared} {
			if name != "" {
				one, err := watched[name].work(ctx)
				if err != nil {
					return u, w, err
				}
				w = w.plus(one)
			}
		}
		return u, w, nil
	}
	before, workBefore, err := look()
	if err != nil {
		return t, err
	}
	if t.load, err = together(visitors, turn); err != nil {
		return t, err
	}
	after, workAfter, err := look()
	if err != nil {
		return t, err
	}
	n := t.requests
	done := workAfter.minus(workBefore)
	t.cpu = time.Duration(float64(after.CPU-before.CPU) / n)
	t.allocs = float64(after.Allocs-before.Allocs) / n
	t.engineCPU = time.Duration(float64(done.cpu) / n)
	t.operations, t.logged = done.operations/n, done.logged/n
	t.hits = -1
	if h, m := after.Hits-before.Hits, after.Misses-before.Misses; h+m > 0 {
		t.hits = float64(h) / float64(h+m)
	}
	return t, nil
}

func printEnginesHeader() {
	fmt.Println("| at once | sessions | requests/s | p50 | p99 | CPU, app + engine | operations | log | allocations | Sojourn is faster | … with its cache | Sojourn takes less CPU | … with its cache |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
}

func printEngines(n int, results []engineResult) {
	// The processor time of a request's session: in the serving process above
	// that of the bare handler, and in the engine.
	cost := func(r engineResult) []float64 {
		over := make([]float64, len(r.turns))
		for i, t := range r.turns {
			over[i] = float64(t.cpu + t.engineCPU)
			for _, b := range results {
				if b.name == bare {
					over[i] -= float64(b.turns[i].cpu)
				}
			}
		}
		return over
	}
	of := func(engine string, cached bool, f func(engineResult) []float64) []float64 {
		for _, r := range results {
			if r.ours && r.engine == engine && r.cached == cached && r.shared == "" {
				return f(r)
			}
		}
		return nil
	}
	title := strconv.Itoa(n)
	for _, r := range results {
		name, cpu, operations, logged, ratios := r.name, "–", "–", "–", "| | | "
		if r.engine != "" {
			inEngine := r.median(func(t turnResult) float64 { return float64(t.engineCPU) })
			cpu = fmt.Sprintf("%s + %s", nanos(spreadOf(cost(r)).median-inEngine), nanos(inEngine))
			operations = digits(r.median(func(t turnResult) float64 { return t.operations }))
			logged = fmt.Sprintf("%.0f", r.median(func(t turnResult) float64 { return t.logged }))
		}
		if hits := r.median(func(t turnResult) float64 { return t.hits }); hits >= 0 {
			name = fmt.Sprintf("%s (%.1f %% hits)", name, 100*hits)
		}
		if r.engine != "" && !r.ours {
			rate := engineResult.perSecond
			ratios = fmt.Sprintf("%s | %s | %s | %s",
				factor(of(r.engine, false, rate), rate(r)), factor(of(r.engine, true, rate), rate(r)),
				factor(cost(r), of(r.engine, false, cost)), factor(cost(r), of(r.engine, true, cost)))
		}
		fmt.Printf("| %s | %s | %.0f | %s | %s | %s | %s | %s | %.0f | %s |\n", title, name,
			r.median(func(t turnResult) float64 { return t.perSecond }),
			nanos(r.median(func(t turnResult) float64 { return float64(t.p50) })),
			nanos(r.median(func(t turnResult) float64 { return float64(t.p99) })),
			cpu, operations, logged,
			r.median(func(t turnResult) float64 { return t.allocs }), ratios)
		title = ""
	}
}
