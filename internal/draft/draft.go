// Package draft has one request's changes of a session: the session as the
// request sees it, and the changes in a form that can be applied again to a
// newer record. It has no I/O and no locks: a Draft is used by one goroutine at
// a time.
package draft

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
)

// Slot is how a key's values are kept.
type Slot struct {
	Name  string
	Flags record.Flags
	TTL   time.Duration // 0 = they do not expire by themselves
}

// An Update computes a value's new bytes from the current ones. nil removes the
// value. It may run again, on a newer value, in another goroutine.
type Update func(raw []byte, ok bool) ([]byte, error)

// Draft is a record and its changes. The zero value is an empty session.
type Draft struct {
	base *record.Record // the record before the changes; nil = none
	view record.Record  // base with the changes
	own  bool           // view's fields are not shared with base

	cleared bool // all values were removed before the changes of keys
	keys    []change
	index   map[string]int // places in keys, once there are many
	header  header

	// Now is the clock; nil = time.Now.
	Now func() time.Time
	// Run, if set, calls an Update, so that the caller can track it.
	Run func(f Update, raw []byte, ok bool) ([]byte, error)
}

// change is the changes of one key since the session was loaded.
type change struct {
	Slot
	taken   []byte // this value was taken, so it must still be there; nil = none
	base    changeBase
	value   []byte   // if base is baseSet
	updates []Update // then, in order
	found   []byte   // the input of the first of updates; nil = no value
}

type changeBase uint8

const (
	baseKept    changeBase = iota // the stored value
	baseSet                       // value
	baseRemoved                   // nothing
)

// manyChanges is the number of changed keys from which an index is used.
const manyChanges = 16

// Start drops all changes and starts from r, which must not change any more.
func (d *Draft) Start(r *record.Record) { *d = Draft{base: r, view: *r, Now: d.Now, Run: d.Run} }

// Clone returns an independent copy.
func (d *Draft) Clone() Draft {
	c := *d
	c.view, c.own = d.view.Clone(), true
	c.keys, c.index = slices.Clone(d.keys), maps.Clone(d.index)
	for i := range c.keys {
		c.keys[i].updates = slices.Clone(c.keys[i].updates)
	}
	return c
}

func (d *Draft) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// Rebase applies the changes to r, which becomes the new base.
func (d *Draft) Rebase(r *record.Record) error {
	now := d.now()
	view, err := d.Apply(r, now)
	if err != nil {
		return err
	}
	d.base, d.view, d.own = r, view, true
	for i := range d.keys {
		ch := &d.keys[i]
		f, ok := r.Find(ch.Name)
		if ok && !d.cleared {
			ch.Flags |= f.Flags
		}
		if ch.found = nil; ok && f.Live(now.UnixMilli()) && len(ch.updates) > 0 {
			ch.found = f.Value
		}
	}
	return nil
}

// View is the session as the request sees it. The caller must not change it.
func (d *Draft) View() *record.Record { return &d.view }

// Get returns the bytes of a value.
func (d *Draft) Get(name string) ([]byte, bool) {
	f, ok := d.view.Find(name)
	if !ok || f.Expiry != 0 && !f.Live(d.now().UnixMilli()) {
		return nil, false
	}
	return f.Value, true
}

// Set sets a value. An equal value is not recorded as a change, unless fresh
// means that the changes may be applied to an empty session.
func (d *Draft) Set(k Slot, raw []byte, fresh bool) (changed bool) {
	if raw == nil {
		raw = []byte{}
	}
	if !fresh && d.unchanged(k, raw) {
		return false
	}
	ch := d.of(k.Name)
	ch.keep(k)
	ch.base, ch.value, ch.updates = baseSet, raw, nil
	d.show(ch.Slot, raw)
	return true
}

// unchanged reports whether setting raw changes nothing. Each Set restarts a
// value's TTL. After another change of the same key, a Set may matter when both
// are applied to a newer state.
func (d *Draft) unchanged(k Slot, raw []byte) bool {
	f, ok := d.view.Find(k.Name)
	return ok && k.TTL == 0 && f.Expiry == 0 && f.Flags&k.Flags == k.Flags && string(f.Value) == string(raw) && d.find(k.Name) < 0
}

// Remove removes a value, if there is one.
func (d *Draft) Remove(name string) (changed bool) {
	if _, ok := d.view.Find(name); !ok {
		return false
	}
	ch := d.of(name)
	ch.base, ch.value, ch.updates = baseRemoved, nil, nil
	d.edit().Remove(name)
	return true
}

// Take removes a value that must still equal raw when the changes are saved. It
// reports whether it does now.
func (d *Draft) Take(name string, raw []byte) bool {
	have, ok := d.Get(name)
	if !ok || !bytes.Equal(have, raw) {
		return false
	}
	ch := d.of(name)
	// Only a value that existed when the session was loaded can have been taken
	// by another request, even if an Update has changed it since.
	if ch.base == baseKept {
		if ch.taken = raw; len(ch.updates) > 0 {
			ch.taken = ch.found
		}
	}
	ch.base, ch.value, ch.updates = baseRemoved, nil, nil
	d.edit().Remove(name)
	return true
}

// Update sets a value to the result of f, and returns it. fresh is as in Set.
func (d *Draft) Update(k Slot, f Update, fresh bool) (next []byte, changed bool, err error) {
	raw, ok := d.Get(k.Name)
	next, err = d.run(f, raw, ok)
	if err != nil || next != nil && !fresh && d.unchanged(k, next) || next == nil && !ok && d.find(k.Name) < 0 {
		return next, false, err
	}
	ch := d.of(k.Name)
	ch.keep(k)
	switch {
	case ch.base == baseKept:
		if len(ch.updates) == 0 && ok {
			ch.found = raw
		}
		ch.updates = append(ch.updates, f)
	// The current value is this request's own, so the result cannot differ later.
	case next == nil:
		ch.base, ch.value = baseRemoved, nil
	default:
		ch.base, ch.value = baseSet, next
	}
	d.show(ch.Slot, next)
	return next, true, nil
}

func (d *Draft) run(f Update, raw []byte, ok bool) ([]byte, error) {
	if d.Run != nil {
		return d.Run(f, raw, ok)
	}
	return f(raw, ok)
}

// Clear removes all values, and drops all changes of values except takes.
func (d *Draft) Clear() (changed bool) {
	if d.view.Len() == 0 && len(d.keys) == 0 {
		return false
	}
	d.cleared, d.index = true, nil
	d.keys = slices.DeleteFunc(d.keys, func(k change) bool { return k.taken == nil })
	for i := range d.keys {
		d.keys[i] = change{Slot: Slot{Name: d.keys[i].Name}, taken: d.keys[i].taken, base: baseRemoved}
	}
	d.edit().RemoveAll()
	return true
}

// Taken returns a draft that only requires the values that this one has taken.
func (d *Draft) Taken() Draft {
	out := Draft{base: d.base, view: d.view, Now: d.Now, Run: d.Run}
	for _, k := range d.keys {
		if k.taken != nil {
			out.keys = append(out.keys, change{Slot: k.Slot, taken: k.taken, base: baseRemoved})
		}
	}
	return out
}

// Empty reports whether nothing was changed.
func (d *Draft) Empty() bool { return !d.ChangesValues() && d.header == (header{}) }

// ChangesValues reports whether any value was changed.
func (d *Draft) ChangesValues() bool { return d.cleared || len(d.keys) > 0 }

// Takes reports whether any change took a value that other requests could also take.
func (d *Draft) Takes() bool {
	return slices.ContainsFunc(d.keys, func(k change) bool { return k.taken != nil })
}

// Repeatable reports whether the changes are idempotent.
func (d *Draft) Repeatable() bool {
	return !slices.ContainsFunc(d.keys, func(k change) bool { return k.taken != nil || len(k.updates) > 0 })
}

// Apply applies the changes to a copy of r at now. It returns fault.Taken if a
// taken value is no longer there, or an Update's error. Update functions run in
// the calling goroutine, unless they have already run on r.
func (d *Draft) Apply(r *record.Record, now time.Time) (record.Record, error) {
	ms := now.UnixMilli()
	if d.own && d.base != nil && r.Same(d.base) {
		out := d.view.Clone()
		out.Header = r.Header
		out.Expire(ms)
		d.header.apply(&out.Header, ms)
		return out, nil
	}
	out := r.Clone()
	out.Expire(ms)
	for i := range d.keys {
		if want := d.keys[i].taken; want != nil {
			f, ok := out.Find(d.keys[i].Name)
			if !ok || !bytes.Equal(f.Value, want) {
				return record.Record{}, fault.Taken
			}
		}
	}
	if d.cleared {
		out.RemoveAll()
	}
	for i := range d.keys {
		if err := d.apply(&d.keys[i], &out, ms); err != nil {
			return record.Record{}, err
		}
	}
	d.header.apply(&out.Header, ms)
	return out.Done(), nil
}

func (d *Draft) apply(c *change, r *record.Record, now int64) error {
	var raw []byte
	f, ok := r.Find(c.Name)
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
		if raw, err = d.run(f, raw, ok); err != nil {
			return err
		}
		ok = raw != nil
	}
	if !ok {
		r.Remove(c.Name)
		return nil
	}
	put(r, c.Slot, raw, now)
	return nil
}

// keep records how the value is kept from now on. A name that is set without a
// Key keeps the flags of an earlier Set with its Key.
func (c *change) keep(k Slot) {
	k.Flags |= c.Flags
	c.Slot = k
}

// show sets or removes a value in the view.
func (d *Draft) show(k Slot, raw []byte) {
	if raw == nil {
		d.edit().Remove(k.Name)
		return
	}
	now := int64(0) // used for values with a TTL
	if k.TTL > 0 {
		now = d.now().UnixMilli()
	}
	put(d.edit(), k, raw, now)
}

// put sets a value in r, with its flags there.
func put(r *record.Record, k Slot, raw []byte, now int64) {
	next := record.Field{Name: k.Name, Flags: k.Flags, Value: raw}
	if old, ok := r.Find(k.Name); ok {
		next.Flags |= old.Flags
	}
	if k.TTL > 0 {
		next.Expiry = now + k.TTL.Milliseconds()
	}
	r.Put(next)
}

// edit returns the view for changing.
func (d *Draft) edit() *record.Record {
	if !d.own {
		d.view, d.own = d.view.Clone(), true
	}
	return &d.view
}

// find returns the place of name in keys, or -1.
func (d *Draft) find(name string) int {
	if len(d.keys) <= manyChanges {
		return slices.IndexFunc(d.keys, func(k change) bool { return k.Name == name })
	}
	if d.index == nil {
		d.index = make(map[string]int, 2*len(d.keys))
		for i := range d.keys {
			d.index[d.keys[i].Name] = i
		}
	}
	if i, ok := d.index[name]; ok {
		return i
	}
	return -1
}

// of returns the change of name, and creates it if missing.
func (d *Draft) of(name string) *change {
	i := d.find(name)
	if i < 0 {
		i = len(d.keys)
		ch := change{Slot: Slot{Name: name}}
		if f, ok := d.view.Find(name); ok {
			ch.Flags = f.Flags
		}
		if d.cleared {
			ch.base = baseRemoved
		}
		d.keys = append(d.keys, ch)
		if d.index != nil {
			d.index[name] = i
		}
	}
	return &d.keys[i]
}
