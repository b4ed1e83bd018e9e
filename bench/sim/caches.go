package main

// place is where an answer comes from.
type place int

const (
	inStore place = iota
	inShared
	inProcess
)

// caches are the copies of sessions: in each replica, and in what they share.
// Their rules are those of store/tiered, as far as one call comes after the
// other; calls that overlap are the business of its own model.
type caches struct {
	process []layer // by replica
	shared  layer
}

// layer is a cache: copies by the session's number.
type layer struct {
	maxStale clock // 0 = there is no such cache
	copies   map[int]copied
}

type copied struct {
	version int
	expires clock
}

func newCaches(replicas int, local, shared clock) caches {
	c := caches{shared: layer{shared, map[int]copied{}}}
	for range replicas {
		c.process = append(c.process, layer{local, map[int]copied{}})
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

func (l layer) put(now clock, number, version int) {
	if l.maxStale > 0 {
		l.copies[number] = copied{version, now + l.maxStale}
	}
}

// load answers from the nearest copy that is not below the floor. A copy from
// the shared cache goes into the process, too.
func (c caches) load(now clock, replica, number, floor int) (version int, where place) {
	if e, ok := c.process[replica].get(now, number); ok && e.version >= floor {
		return e.version, inProcess
	}
	if e, ok := c.shared.get(now, number); ok && e.version >= floor {
		c.process[replica].put(now, number, e.version)
		return e.version, inShared
	}
	return 0, inStore
}

// fill keeps what the store answered.
func (c caches) fill(now clock, replica, number, version int) {
	c.process[replica].put(now, number, version)
	c.shared.put(now, number, version)
}

// renew replaces older copies where there are any; a save adds none.
func (c caches) renew(now clock, replica, number, version int) {
	for _, l := range []layer{c.process[replica], c.shared} {
		if e, ok := l.get(now, number); ok && e.version < version {
			l.put(now, number, version)
		}
	}
}

// drop deletes the copies of a session that has ended, as far as the replica
// can tell the caches: other processes never.
func (c caches) drop(replica, number int, shared bool) {
	delete(c.process[replica].copies, number)
	if shared {
		delete(c.shared.copies, number)
	}
}
