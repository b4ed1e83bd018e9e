package sojourn

import (
	"bytes"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// slot is how a key's values are kept.
type slot struct {
	name  string
	flags record.Flags
	ttl   time.Duration
}

// updateFunc computes a value's new bytes from the ones that are there. Nil
// bytes remove the value.
type updateFunc func(raw []byte, ok bool) ([]byte, error)

// caller calls an updateFunc: Session.call.
type caller func(f updateFunc, raw []byte, ok bool) ([]byte, error)

// change is what a request did to one key since the session was loaded, in the
// form that can be done again to a newer state of the session.
type change struct {
	slot
	taken   []byte // a Pop returned this value: it must still be there; nil = no Pop
	base    changeBase
	value   []byte       // if base is baseSet
	updates []updateFunc // then, in order
	found   []byte       // what the first of updates was given; nil = nothing
}

type changeBase uint8

const (
	baseKept    changeBase = iota // whatever is there
	baseSet                       // value
	baseRemoved                   // nothing
)

// changes is everything that a request did to a session, as far as it can be
// re-applied. The zero value changes nothing.
type changes struct {
	cleared bool // all values were removed before the keys were changed
	keys    []change
	header  headerChange
	index   map[string]int // places in keys, once there are many
}

// manyChanges is how many changed keys are looked up in an index.
const manyChanges = 16

// headerChange is what a request did to a session's header; nil = nothing.
type headerChange struct {
	idle, lifetime *int64
	persist        *record.Persist
	presented      uint64 // the credential of this generation came back for the first time; 0 = none
	rotate         *rotation
	legacy         *string // where the session's legacy form is
}

// rotation replaces the credential of one generation.
type rotation struct {
	from  uint64
	grace int64 // in ms
}

func (c *changes) empty() bool {
	return !c.cleared && len(c.keys) == 0 && c.header == headerChange{}
}

// hasPops reports whether any change took a value that others could take too.
func (c *changes) hasPops() bool {
	return slices.ContainsFunc(c.keys, func(k change) bool { return k.taken != nil })
}

// repeatable reports whether doing the changes a second time makes no
// difference.
func (c *changes) repeatable() bool {
	return !slices.ContainsFunc(c.keys, func(k change) bool { return k.taken != nil || len(k.updates) > 0 })
}

// find returns the place of name in keys, or -1.
func (c *changes) find(name string) int {
	if len(c.keys) <= manyChanges {
		return slices.IndexFunc(c.keys, func(k change) bool { return k.name == name })
	}
	if c.index == nil {
		c.index = make(map[string]int, 2*len(c.keys))
		for i := range c.keys {
			c.index[c.keys[i].name] = i
		}
	}
	if i, ok := c.index[name]; ok {
		return i
	}
	return -1
}

// has reports whether anything was done to that key by itself.
func (c *changes) has(name string) bool { return c.find(name) >= 0 }

// of returns the change list's entry for name, made if missing.
func (c *changes) of(name string) *change {
	i := c.find(name)
	if i < 0 {
		i = len(c.keys)
		ch := change{slot: slot{name: name}}
		if c.cleared {
			ch.base = baseRemoved
		}
		c.keys = append(c.keys, ch)
		if c.index != nil {
			c.index[name] = i
		}
	}
	return &c.keys[i]
}

// clear forgets every change but the pops, and removes all values.
func (c *changes) clear() {
	c.cleared, c.index = true, nil
	c.keys = slices.DeleteFunc(c.keys, func(k change) bool { return k.taken == nil })
	for i := range c.keys {
		c.keys[i] = change{slot: c.keys[i].slot, taken: c.keys[i].taken, base: baseRemoved}
	}
}

// apply does the changes to a copy of r at now. It returns ErrTaken if a popped
// value is no longer there, and an Update function's error.
func (c *changes) apply(r *record.Record, now time.Time, call caller) (record.Record, error) {
	ms := now.UnixMilli()
	out := r.Clone()
	out.Expire(ms)
	for i := range c.keys {
		if want := c.keys[i].taken; want != nil {
			f, ok := out.Find(c.keys[i].name)
			if !ok || !bytes.Equal(f.Value, want) {
				return record.Record{}, ErrTaken
			}
		}
	}
	if c.cleared {
		out.RemoveAll()
	}
	for i := range c.keys {
		if err := c.keys[i].apply(&out, ms, call); err != nil {
			return record.Record{}, err
		}
	}
	c.header.apply(&out.Header, ms)
	return out.Done(), nil
}

func (c *change) apply(r *record.Record, now int64, call caller) error {
	var raw []byte
	f, ok := r.Find(c.name)
	switch {
	case c.base == baseSet:
		raw, ok = c.value, true
	case c.base == baseRemoved || c.taken != nil:
		ok = false
	case ok:
		raw = f.Value
	}
	for _, f := range c.updates {
		var err error
		if raw, err = call(f, raw, ok); err != nil {
			return err
		}
		ok = raw != nil
	}
	if !ok {
		r.Remove(c.name)
		return nil
	}
	next := record.Field{Name: c.name, Flags: c.flags, Value: raw}
	if f != nil {
		// A name that was set without a Key keeps what its Key said before.
		next.Flags |= f.Flags
	}
	if c.ttl > 0 {
		next.Expiry = now + c.ttl.Milliseconds()
	}
	r.Put(next)
	return nil
}

func (h *headerChange) apply(to *record.Header, now int64) {
	if h.idle != nil {
		to.Idle = *h.idle
	}
	if h.lifetime != nil {
		to.Lifetime = *h.lifetime
	}
	if h.persist != nil {
		to.Persist = *h.persist
	}
	if h.legacy != nil {
		to.Legacy = *h.legacy
	}
	if h.presented != 0 && to.Generation == h.presented && to.Presented == 0 {
		to.Presented = now
	}
	// One successor, whoever is first. And one at a time: until its credential
	// has come back, another rotation would leave slower requests of this visitor
	// two behind.
	if r := h.rotate; r != nil && to.Generation == r.from && (to.Generation == 0 || to.Presented != 0) {
		to.OlderUntil = 0
		if to.Presented != 0 {
			to.OlderUntil = to.Presented + r.grace
		}
		to.Generation++
		to.Presented, to.Rotated = 0, now
	}
}
