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
// call to a cache or to the origin waits until a scheduler lets it go, and the
// scheduler tries all orders.
//
// Of orders that differ only in steps that do not see each other, it tries one. A
// step is a call and what its actor does until its next one. Two steps see each
// other if both use the same thing and one of them changes it: a key of a cache,
// the store, all that a process has in its memory, or what the model notes. Time
// is seen by everyone. This is the sleep sets of Godefroid (Partial-Order Methods
// for the Verification of Concurrent Systems, 1996), which miss no outcome.

// stage is where the actors of one run meet.
type stage struct {
	orders *orders

	mu      sync.Mutex
	waiting map[string]chan struct{}
	trace   []string
	used    footprint // since the last step began
}

func newStage(o *orders) *stage { return &stage{orders: o, waiting: map[string]chan struct{}{}} }

type actorKey struct{}

// timeActor is whoever lets time go on, by timeStep with each of its steps.
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

// call is the step of a process that asks for a thing.
func (st *stage) call(ctx context.Context, what, process, thing string, a access) {
	st.step(ctx, what)
	st.uses(process, writes)
	st.uses(thing, a)
}

// sees notes what an actor was told.
func (st *stage) sees(ctx context.Context, what ...any) {
	name, _ := ctx.Value(actorKey{}).(string)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.trace = append(st.trace, name+" sees "+fmt.Sprint(what...))
}

// process is the name of what a replica has in its memory.
func process(replica int) string { return "process " + strconv.Itoa(replica) }

type access bool

const (
	reads  access = false
	writes access = true
)

// uses notes what the step that is under way uses. Whatever a step may see of
// another one has to be noted; a step without a note sees everything.
func (st *stage) uses(thing string, a access) {
	st.mu.Lock()
	defer st.mu.Unlock()
	bit := st.orders.bit(thing)
	st.used.reads |= bit
	if a == writes {
		st.used.writes |= bit
	}
}

// play starts the actors and lets them go one call at a time, in the order that is
// to be tried.
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

// footprint is what a step uses, a bit for each thing; none = everything. What it
// writes it reads as well.
type footprint struct{ reads, writes uint64 }

// sees reports whether the order of two steps matters.
func (f footprint) sees(g footprint) bool {
	return f.reads == 0 || g.reads == 0 || f.writes&g.reads != 0 || g.writes&f.reads != 0
}

// orders are those that have been tried and are still to be tried: a path in the
// tree of all of them.
type orders struct {
	dice *rand.Rand // for one order at random; nil = all, one after the other
	path []*point
	at   int // how much of path this run has behind it
	// known: what is left of this run has been tried in another order.
	known  bool
	things map[string]uint64
}

func newOrders() *orders { return &orders{things: map[string]uint64{}} }

// point is a moment at which somebody is to go on.
type point struct {
	options []string
	// tried are those who went on from here, and asleep those whose step here was
	// tried before the one that led here, which does not see it.
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

// next picks one of those who can go on.
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

// did notes what the last step used.
func (o *orders) did(used footprint) {
	if o.known || o.dice != nil {
		return
	}
	p := o.path[o.at-1]
	p.tried[p.pick] = used
}

// wake picks somebody who must be tried, if there is anybody.
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

// everyOrder calls run for every order, and returns how many there are; the first
// 100 in short tests, and under the race detector. run returns what came of it, as
// outcome does. An order at random must lead to nothing else: that a step uses
// what it has not noted would show there.
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

// outcome is what each actor has done, whoever was first, and what is left.
func (st *stage) outcome(left ...any) string {
	trace := slices.Clone(st.trace)
	slices.SortStableFunc(trace, func(a, b string) int {
		a, _, _ = strings.Cut(a, " ")
		b, _, _ = strings.Cut(b, " ")
		return strings.Compare(a, b)
	})
	return fmt.Sprintf("%s\n%v", strings.Join(trace, "\n"), left)
}
