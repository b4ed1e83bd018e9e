package tiered_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/race"
)

// The models run the real code through every interleaving of a few actors: each
// call to a cache or to the origin waits for a scheduler, which tries all
// orders.
//
// Of orders that differ only in independent steps, it tries one. A step is a
// call and the actor's code until its next call. Two steps are dependent if
// both use the same thing and one of them changes it: a key of a cache, the
// store, a process's memory, or the model's notes. Time is dependent with every
// step. This is the sleep sets of Godefroid (Partial-Order Methods for the
// Verification of Concurrent Systems, 1996), which miss no outcome.

// stage is the shared state of one run's actors.
type stage struct {
	orders *orders

	mu      sync.Mutex
	waiting map[string]chan struct{}
	trace   []string
	used    footprint // since the last step began
}

func newStage(o *orders) *stage { return &stage{orders: o, waiting: map[string]chan struct{}{}} }

type actorKey struct{}

// timeActor is the actor that advances time, by timeStep with each of its steps.
const (
	timeActor = "time"
	timeStep  = 600 * time.Millisecond
)

// step waits for the scheduler. Calls from outside an actor go ahead.
func (st *stage) step(ctx context.Context, what string) {
	name, _ := ctx.Value(actorKey{}).(string)
	if name == "" {
		return
	}
	st.mu.Lock()
	if st.waiting[name] != nil {
		panic(name + " is in two places")
	}
	turn := make(chan struct{})
	st.waiting[name] = turn
	st.mu.Unlock()
	<-turn
	st.mu.Lock()
	st.trace = append(st.trace, name+" "+what)
	st.mu.Unlock()
}

// call is the step of a process that uses a thing.
func (st *stage) call(ctx context.Context, what, process, thing string, a access) {
	st.step(ctx, what)
	st.uses(process, writes)
	st.uses(thing, a)
}

// sees records an actor's results.
func (st *stage) sees(ctx context.Context, what ...any) {
	name, _ := ctx.Value(actorKey{}).(string)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.trace = append(st.trace, name+" sees "+fmt.Sprint(what...))
}

// process is the name of a replica's memory as a thing.
func process(replica int) string { return "process " + strconv.Itoa(replica) }

type access bool

const (
	reads  access = false
	writes access = true
)

// uses records what the current step uses. All dependencies must be recorded; a
// step without a record depends on everything.
func (st *stage) uses(thing string, a access) {
	st.mu.Lock()
	defer st.mu.Unlock()
	bit := st.orders.bit(thing)
	st.used.reads |= bit
	if a == writes {
		st.used.writes |= bit
	}
}

// play starts the actors and runs them one call at a time, in the order to try.
func (st *stage) play(t *testing.T, actors map[string]func(ctx context.Context)) {
	for name, act := range actors {
		ctx := context.WithValue(t.Context(), actorKey{}, name)
		go func() {
			st.step(ctx, "starts")
			act(ctx)
		}()
	}
	synctest.Wait()
	for {
		st.mu.Lock()
		names := make([]string, 0, len(st.waiting))
		for name := range st.waiting {
			names = append(names, name)
		}
		if len(names) == 0 {
			st.mu.Unlock()
			return
		}
		slices.Sort(names)
		next := st.orders.next(names)
		turn := st.waiting[next]
		delete(st.waiting, next)
		st.used = footprint{}
		st.mu.Unlock()
		if next == timeActor {
			time.Sleep(timeStep)
		}
		close(turn)
		synctest.Wait()
		st.mu.Lock()
		used := st.used
		st.mu.Unlock()
		if next == timeActor {
			used = footprint{}
		}
		st.orders.did(used)
	}
}

// footprint is what a step uses, a bit for each thing; none = everything. A
// write also counts as a read.
type footprint struct{ reads, writes uint64 }

// sees reports whether the order of two steps matters.
func (f footprint) sees(g footprint) bool {
	return f.reads == 0 || g.reads == 0 || f.writes&g.reads != 0 || g.writes&f.reads != 0
}

// orders are the tried and the remaining orders: a path in the tree of all
// orders.
type orders struct {
	dice *rand.Rand // for one order at random; nil = all, one after the other
	path []*point
	at   int // how much of path this run has behind it
	// known: what is left of this run has been tried in another order.
	known  bool
	things map[string]uint64
}

func newOrders() *orders { return &orders{things: map[string]uint64{}} }

// point is a moment at which the scheduler chooses an actor.
type point struct {
	options []string
	// tried are the actors already chosen here. asleep are actors whose step
	// was tried earlier and is independent of the steps since.
	tried, asleep map[string]footprint
	pick          string
}

// bit returns the bit of a thing.
func (o *orders) bit(thing string) uint64 {
	bit, ok := o.things[thing]
	if !ok {
		bit = 1 << len(o.things)
		if bit == 0 {
			panic("more things than bits")
		}
		o.things[thing] = bit
	}
	return bit
}

// next picks one of the actors that can continue.
func (o *orders) next(options []string) string {
	switch {
	case o.dice != nil:
		return options[o.dice.IntN(len(options))]
	case o.known:
		return options[0]
	}
	if o.at == len(o.path) {
		p := &point{options: options, tried: map[string]footprint{}, asleep: map[string]footprint{}}
		if o.at > 0 {
			before := o.path[o.at-1]
			step := before.tried[before.pick]
			for _, others := range []map[string]footprint{before.asleep, before.tried} {
				for name, used := range others {
					if name != before.pick && !used.sees(step) {
						p.asleep[name] = used
					}
				}
			}
		}
		if !p.wake() {
			o.known = true
			return options[0]
		}
		o.path = append(o.path, p)
	}
	p := o.path[o.at]
	if !slices.Equal(p.options, options) {
		panic(fmt.Sprintf("the same steps lead to %v and to %v", p.options, options))
	}
	o.at++
	return p.pick
}

// did records what the last step used.
func (o *orders) did(used footprint) {
	if o.known || o.dice != nil {
		return
	}
	p := o.path[o.at-1]
	p.tried[p.pick] = used
}

// wake picks an actor that must still be tried, if there is one.
func (p *point) wake() bool {
	for _, name := range p.options {
		_, tried := p.tried[name]
		_, asleep := p.asleep[name]
		if !tried && !asleep {
			p.pick = name
			return true
		}
	}
	return false
}

// again prepares the next run, if there is one.
func (o *orders) again() bool {
	o.at, o.known = 0, false
	for n := len(o.path); n > 0; n-- {
		if o.path = o.path[:n]; o.path[n-1].wake() {
			return true
		}
	}
	return false
}

// everyOrder calls run for every order, and returns how many there are; the
// first 100 in short tests, and under the race detector. run returns its
// outcome. Random orders must give the same outcomes, which would reveal
// dependencies that a step has not recorded.
func everyOrder(t *testing.T, run func(o *orders) string) int {
	o := newOrders()
	outcomes := map[string]bool{}
	n := 0
	for more := true; more; more = o.again() {
		if n++; (race.Enabled || testing.Short()) && n > 100 {
			return n
		}
		outcomes[run(o)] = true
	}
	for range sample {
		o := newOrders()
		o.dice = rand.New(rand.NewPCG(rand.Uint64(), 0))
		if got := run(o); !outcomes[got] {
			t.Fatalf("no order that was tried leads to this:\n%s", got)
		}
	}
	return n
}

// sample is how many orders at random are compared with those that were tried.
const sample = 100

// outcome is each actor's results, independent of their order, and the final state.
func (st *stage) outcome(left ...any) string {
	trace := slices.Clone(st.trace)
	slices.SortStableFunc(trace, func(a, b string) int {
		a, _, _ = strings.Cut(a, " ")
		b, _, _ = strings.Cut(b, " ")
		return strings.Compare(a, b)
	})
	return fmt.Sprintf("%s\n%v", strings.Join(trace, "\n"), left)
}
