package main

import "time"

// place is the source of an answer.
type place int

const (
	inStore place = iota
	inShared
	inProcess
)

// pollInterval and pollIdle are those of store/tiered.
const (
	pollInterval = 400 * time.Millisecond
	pollIdle     = 30 * time.Second
)

// caches are the copies of sessions, in each replica and in the shared cache.
// They follow the rules of store/tiered for sequential calls; that package's
// own model tests overlapping calls.
type caches struct {
	process []layer   // by replica
	hearing []hearing // likewise
	shared  layer
	unheard clock
	ended   []int // the store's feed of ends
}

// layer is a cache: copies by the session's number.
type layer struct {
	maxStale clock // 0 = there is no such cache
	copies   map[int]copied
}

// copied is a copy of the store's state at asked or later.
type copied struct {
	version                int
	asked, filled, expires clock
}

// hearing is a replica's knowledge from the feed.
type hearing struct {
	on           bool
	due          clock
	polling      bool
	place        int   // in the feed
	since, until clock // every end in between was read; never = none
	known        map[int]clock
}

// never is before everything.
const never = clock(-1 << 62)

func newCaches(p parameters) caches {
	c := caches{shared: layer{p.shared, map[int]copied{}}, unheard: p.unheard}
	for range p.replicas {
		c.process = append(c.process, layer{p.local, map[int]copied{}})
		c.hearing = append(c.hearing, hearing{on: !p.noFeed && p.unheard < p.local, since: never, until: never, known: map[int]clock{}})
	}
	return c
}

func (l layer) get(now clock, number int) (copied, bool) {
	c, ok := l.copies[number]
	if ok && now > c.expires {
		delete(l.copies, number)
		return c, false
	}
	return c, ok
}

func (l layer) put(now, asked clock, number, version int) {
	if l.maxStale > 0 {
		l.copies[number] = copied{version, asked, now, now + l.maxStale}
	}
}

// oldest is the maximum age of a replica's copy from the shared cache.
func (c *caches) oldest() clock { return 2 * c.shared.maxStale }

// load answers from the nearest copy that is not below the floor. A copy from
// the shared cache goes into the process.
func (c *caches) load(now clock, replica, number, floor int) (version int, where place) {
	if e, ok := c.process[replica].get(now, number); ok && e.version >= floor && c.current(now, replica, e) {
		return e.version, inProcess
	}
	_, ended := c.hearing[replica].known[number]
	if e, ok := c.shared.get(now, number); ok && e.version >= floor && !ended {
		c.process[replica].put(now, now-c.oldest(), number, e.version)
		return e.version, inShared
	}
	return 0, inStore
}

// current reports whether a copy in the process may be used: its session cannot
// have ended long ago.
func (c *caches) current(now clock, replica int, e copied) bool {
	known := e.filled
	if h := c.hearing[replica]; h.since != never && e.asked > h.since {
		known = max(known, h.until)
	}
	return c.unheard >= c.process[replica].maxStale || now-known <= c.unheard
}

// ask begins a poll of the feed, if one is due. Pass its result to hear when
// the answer arrives.
func (c *caches) ask(now clock, replica int) (upto int, due bool) {
	h := &c.hearing[replica]
	if !h.on || h.polling || now < h.due {
		return 0, false
	}
	h.due, h.polling = now+pollInterval, true
	if h.until == never || now-h.until > pollIdle {
		h.place, h.since = len(c.ended), never
	}
	return len(c.ended), true
}

// hear processes the answer to a poll that began at asked.
func (c *caches) hear(now, asked clock, replica, upto int) {
	h := &c.hearing[replica]
	h.polling = false
	for number, at := range h.known {
		if now-at > max(2*c.process[replica].maxStale+c.oldest(), pollIdle) {
			delete(h.known, number)
		}
	}
	for _, number := range c.ended[h.place:upto] {
		h.known[number] = now
		delete(c.process[replica].copies, number)
	}
	if h.since == never {
		h.since = asked
	}
	h.place, h.until = upto, asked
}

// fill caches the store's answer.
func (c *caches) fill(now clock, replica, number, version int) {
	c.process[replica].put(now, now, number, version)
	c.shared.put(now, now, number, version)
}

// renew replaces older copies where there are any; a save adds none.
func (c *caches) renew(now clock, replica, number, version int) {
	for _, l := range []layer{c.process[replica], c.shared} {
		if e, ok := l.get(now, number); ok && e.version < version {
			l.put(now, now, number, version)
		}
	}
}

// end deletes the copies of an ended session in the caches that the replica can
// access, and adds the end to the feed for other processes.
func (c *caches) end(replica, number int, shared bool) {
	delete(c.process[replica].copies, number)
	if shared {
		delete(c.shared.copies, number)
	}
	c.ended = append(c.ended, number)
}
