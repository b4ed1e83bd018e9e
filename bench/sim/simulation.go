package main

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"time"
)

// parameters describe visitors and caches. See the flags.
type parameters struct {
	replicas, sessions    int
	sticky                bool
	views                 float64
	burst                 int
	gap                   time.Duration
	writes, logouts, deaf float64
	local, shared         time.Duration
	unheard, feedDelay    time.Duration // unheard 0 = 1 s, or local if that is less
	noFeed, noFloor       bool
	delay, duration       time.Duration
}

func (p *parameters) check() error {
	if p.unheard == 0 {
		p.unheard = min(time.Second, p.local)
	}
	for _, share := range []float64{p.writes, p.logouts, p.deaf} {
		if share < 0 || share > 1 {
			return errors.New("a share is from 0 to 1")
		}
	}
	if p.replicas < 1 || p.sessions < 1 || p.views <= 0 || p.burst < 1 {
		return errors.New("replicas, sessions, views and burst have to be positive")
	}
	if p.gap < 0 || p.local < 0 || p.shared < 0 || p.unheard < 0 || p.feedDelay < 0 || p.delay < 0 || p.duration <= 0 {
		return errors.New("a time is negative, or the duration is not positive")
	}
	return nil
}

// results are counted over the whole run.
type results struct {
	requests                        int
	localHits, sharedHits, answered int // by source: a cache, or the store
	loads, saves, conflicts         int // the store's calls; a conflict is a further, refused save
	sharedCalls, polls              int

	belowFloor int // answers below the version that their browser had seen when it asked
	old        int // answers below the newest version at that time
	oldest     time.Duration
	// Requests with the cookie of an ended session, and those that were
	// answered as if it were live.
	afterLogout, undead int
	latest              time.Duration
}

// clock is simulated time since the start.
type clock = time.Duration

// simulation is one run. Events happen one after the other, and only the
// transfer of the answer to the browser takes time.
type simulation struct {
	p      parameters
	random *rand.Rand
	now    clock
	queue  events
	caches caches
	stored []session // by number; a visitor who has logged out gets a new one
	events int
	trace  func(call) // nil = no trace
	results
}

// call is one call to a replica's store, with its caches in front.
type call struct {
	at              clock
	replica, number int
	what            verb
	floor           int // of a load; 0 = from the store
	version         int // of a save, or found by a load; 0 = the session has ended
	from            place
}

type verb int

const (
	loads verb = iota
	saves
	ends
)

// session is a session in the store, and its visitor.
type session struct {
	version int
	saved   []clock // when version i+1 was saved
	ended   bool
	end     clock
	seen    int // the version that the browser has seen
	replica int // when sticky
}

func newSimulation(p parameters, seed uint64) *simulation {
	s := &simulation{p: p, random: rand.New(rand.NewPCG(seed, 0)), caches: newCaches(p)}
	for range p.sessions {
		s.arrive()
	}
	return s
}

// arrive starts a new visitor.
func (s *simulation) arrive() {
	s.stored = append(s.stored, session{version: 1, saved: []clock{s.now}, seen: 1, replica: s.random.IntN(s.p.replicas)})
	s.nextView(len(s.stored) - 1)
}

// nextView schedules the visitor's next page view.
func (s *simulation) nextView(number int) {
	pause := clock(s.random.ExpFloat64() / s.p.views * float64(time.Second))
	s.after(pause, func() { s.view(number) })
}

func (s *simulation) after(d clock, do func()) {
	s.events++
	heap.Push(&s.queue, event{s.now + d, s.events, do})
}

func (s *simulation) run() results {
	for len(s.queue) > 0 && s.queue[0].at <= s.p.duration {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
	return s.results
}

// afterlife is how long the cookie of an ended session is still used.
func (s *simulation) afterlife() clock { return 2*(s.p.local+s.p.shared) + time.Second }

func (s *simulation) view(number int) {
	st := &s.stored[number]
	if st.ended && s.now > st.end+s.afterlife() {
		return
	}
	if !st.ended && s.random.Float64() < s.p.logouts {
		s.logout(number)
	} else {
		for i := range s.p.burst {
			s.after(clock(i)*s.p.gap, func() { s.request(number) })
		}
	}
	s.nextView(number)
}

func (s *simulation) route(number int) int {
	if s.p.sticky {
		return s.stored[number].replica
	}
	return s.random.IntN(s.p.replicas)
}

// request reads the session, and may change it.
func (s *simulation) request(number int) {
	st := &s.stored[number]
	replica := s.route(number)
	if st.ended {
		// A request with a copied cookie: it is not counted elsewhere.
		s.afterLogout++
		if version, _ := s.ask(replica, number, s.floor(st)); version > 0 {
			s.undead++
			s.latest = max(s.latest, s.now-st.end)
		}
		return
	}
	version := s.load(replica, number)
	if version < st.seen {
		s.belowFloor++
	}
	if version < st.version {
		s.old++
		s.oldest = max(s.oldest, s.now-st.saved[version]) // since the next one was saved
	}
	if s.random.Float64() < s.p.writes {
		if version < st.version {
			// The store refuses a change of an old version. The session manager
			// loads the newest one and tries again.
			s.conflicts++
			s.read(replica, number, 0)
		}
		version = s.save(replica, number)
	}
	s.after(s.p.delay, func() { st := &s.stored[number]; st.seen = max(st.seen, version) })
}

// floor is the version that the browser sends.
func (s *simulation) floor(st *session) int {
	if s.p.noFloor {
		return 1
	}
	return st.seen
}

// load reads for a request, and counts.
func (s *simulation) load(replica, number int) (version int) {
	s.requests++
	version, from := s.ask(replica, number, s.floor(&s.stored[number]))
	if from != inProcess && s.p.shared > 0 {
		s.sharedCalls++
	}
	switch from {
	case inProcess:
		s.localHits++
	case inShared:
		s.sharedHits++
	case inStore:
		s.answered++
	}
	return version
}

// ask reads from the nearest place that may answer.
func (s *simulation) ask(replica, number, floor int) (version int, from place) {
	if upto, due := s.caches.ask(s.now, replica); due {
		s.polls++
		asked := s.now
		s.after(s.p.feedDelay, func() { s.caches.hear(s.now, asked, replica, upto) })
	}
	if version, from = s.caches.load(s.now, replica, number, floor); from == inStore {
		return s.read(replica, number, floor), inStore
	}
	s.note(call{replica: replica, number: number, what: loads, floor: floor, version: version, from: from})
	return version, from
}

// read reads from the store.
func (s *simulation) read(replica, number, floor int) (version int) {
	st := &s.stored[number]
	if !st.ended {
		version = st.version
		s.loads++
		s.caches.fill(s.now, replica, number, version)
		if s.p.shared > 0 {
			s.sharedCalls += 2 // a lease, and the copy in its place
		}
	}
	s.note(call{replica: replica, number: number, what: loads, floor: floor, version: version, from: inStore})
	return version
}

// save makes the next version.
func (s *simulation) save(replica, number int) int {
	st := &s.stored[number]
	st.version++
	st.saved = append(st.saved, s.now)
	s.saves++
	s.caches.renew(s.now, replica, number, st.version)
	if s.p.shared > 0 {
		s.sharedCalls += 2 // what is there, and the new copy in its place
	}
	s.note(call{replica: replica, number: number, what: saves, version: st.version})
	return st.version
}

func (s *simulation) logout(number int) {
	replica := s.route(number)
	version := s.load(replica, number)
	st := &s.stored[number]
	if version < st.version {
		s.conflicts++
		s.read(replica, number, 0)
	}
	st.ended, st.end = true, s.now
	s.saves++
	s.caches.end(replica, number, s.random.Float64() >= s.p.deaf)
	if s.p.shared > 0 {
		s.sharedCalls++
	}
	s.note(call{replica: replica, number: number, what: ends, version: st.version + 1})
	s.arrive()
}

func (s *simulation) note(c call) {
	if s.trace != nil {
		c.at = s.now
		s.trace(c)
	}
}

// event is an event at a time. Events at the same time happen in the order in
// which they were scheduled.
type event struct {
	at    clock
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }

func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}
