// Package pickle reads Python pickles as plain data and writes pickles that
// every Python reads.
//
// A pickle is a program for a small stack machine that may construct any object
// and call any function. [Decode] runs that machine without calling anything:
// plain data becomes values, and objects of other classes are kept as the part
// of the program that makes them. A pickle with names that no session needs is
// refused with [reason.HostilePickle]. Work and memory are bounded: see
// [Limits].
//
// The maintained pickle reader for Go, github.com/kisielk/og-rek v1.3.0, could
// not be used. Of this module's 329 recorded pickles it refuses 18 valid ones
// (it does not support BUILD, NEWOBJ, LONG4, EMPTY_SET and items set on an
// OrderedDict). It accepts 24 that must be refused, including all four that
// expand without bound, because it has no limits and returns shared and
// self-containing structures. It also calls nothing, but returns calls as
// values, which the caller must handle.
package pickle

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Limits bound the cost of one pickle. A zero field means its default.
type Limits struct {
	// Bytes is the maximum size of the input. Texts and byte strings may take
	// four times that, where shared ones count for each use, and members of a
	// set twice. Default 4 MiB.
	Bytes int
	// Nodes is the maximum number of values, counted likewise. A dictionary
	// counts as four, a set as sixteen and each value in it as two. The stack
	// and the memo also count. Default 250,000.
	Nodes int
	// Depth is how deeply values may be nested. Default and maximum
	// [value.MaxDepth].
	Depth int
}

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 4 << 20
	}
	if l.Nodes <= 0 {
		l.Nodes = 250_000
	}
	if l.Depth <= 0 || l.Depth > value.MaxDepth {
		l.Depth = value.MaxDepth
	}
	return l
}

// Decode reads one pickle of protocol 0 to 5 with the default [Limits] and
// returns it as one of the types of package value.
//
// Python 2 byte strings become text if they are valid UTF-8, and []byte
// otherwise; Python 3 bytes and both bytearrays always become []byte. Shared
// references become copies. Dates and times (with a time zone, if it is an
// offset or has an IANA name), decimals, UUIDs, complex numbers, sets and the
// dictionaries of package collections have their own types in package value.
//
// Everything else is a [value.Object]: an application's classes, those of App
// Engine, and others of the standard library, such as deques, fractions,
// addresses and paths. Its arguments and state can be read, and Holds has its
// plain value, if any. [Encode] writes it back byte for byte.
//
// Errors wrap [reason.Decode] for malformed pickles (also for bytes after the
// end), [reason.HostilePickle] for those with names that no session needs
// (functions that run code, system modules) or external references (persistent
// identifiers, extension codes), and [reason.ResourceLimit].
func Decode(data []byte) (any, error) { return Limits{}.Decode(data) }

// Decode is the function [Decode] with other limits.
func (l Limits) Decode(data []byte) (any, error) {
	l = l.withDefaults()
	if len(data) > min(l.Bytes, math.MaxInt32) {
		return nil, fmt.Errorf("%w: pickle of %d bytes", reason.ResourceLimit, len(data))
	}
	m := &machine{in: data, memo: make(map[uint64]*entry), budget: budget{nodes: l.Nodes, bytes: 4 * l.Bytes}}
	top, err := m.run()
	if err != nil {
		return nil, err
	}
	// The machine's values may be shared and may contain themselves. Its cost
	// does not count against the limits of the result.
	e := expander{budget: budget{nodes: l.Nodes, bytes: 4 * l.Bytes}, depth: l.Depth, m: m}
	return e.expand(top, 0)
}

// budget is the remaining budget.
type budget struct{ nodes, bytes int }

// spend takes from the budget. Each use or further reading of a value that may
// be shared is charged.
func (b *budget) spend(nodes, bytes int) error {
	b.nodes -= nodes
	b.bytes -= bytes
	if b.nodes < 0 || b.bytes < 0 {
		return tooMuch("too many values")
	}
	return nil
}

func py2(b []byte) any {
	if utf8.Valid(b) {
		return py2Text(b)
	}
	return py2Bytes(b)
}

func broken(what string) error { return fmt.Errorf("%w: pickle: %s", reason.Decode, what) }

func tooMuch(what string) error { return fmt.Errorf("%w: pickle: %s", reason.ResourceLimit, what) }

func hostile(what string) error { return fmt.Errorf("%w: %s", reason.HostilePickle, what) }

// The machine's own types, where those of package value do not suffice:
// containers must be shared while they grow, and Python 2 strings must keep
// their bytes.
type (
	listNode struct{ items []any }
	dictNode struct{ items []value.Item }
	setNode  struct {
		items  []any
		frozen bool
	}
	tupleNode struct{ items []any }
	// py2Text and py2Bytes are a Python 2 str, with and without valid UTF-8. It
	// may be used as text or as bytes.
	py2Text  string
	py2Bytes []byte
	// region is the part of the input that makes a value.
	region struct{ start, end int }
	// globalNode is a class or a function.
	globalNode struct {
		class string
		region
	}
	// objectNode is an object of a class without its own type.
	objectNode struct {
		class    string
		args     *tupleNode
		keywords *dictNode
		newed    bool // by its class's __new__: one argument may be the value of a type that it extends
		extends  bool // that is the only argument
		state    any
		built    bool // state is set
		items    []any
		isList   bool
		pairs    []value.Item
		isDict   bool
		holds    any
		zone     *zone // it is that time zone

		region
		elsewhere bool // input outside of region has changed it
	}
	// uuidNode is a UUID whose number comes with BUILD.
	uuidNode struct{ number *big.Int }
)

// expander turns the machine's values into those of package value, and shared
// values into copies.
type expander struct {
	budget
	depth int
	m     *machine
	// inside are the values that are being expanded within an object. An object
	// may contain itself; the inner reference is left out.
	inside map[any]bool
}

func (e *expander) expand(v any, depth int) (any, error) {
	if e.inside != nil {
		if depth > e.depth {
			return nil, nil
		}
		switch v.(type) {
		case *listNode, *dictNode, *tupleNode, *setNode, *objectNode:
			if e.inside[v] {
				return nil, nil
			}
			e.inside[v] = true
			defer delete(e.inside, v)
		}
	}
	if depth > e.depth {
		return nil, tooMuch("nested too deeply")
	}
	nodes, size := 1, 0
	switch v := v.(type) {
	case *dictNode:
		nodes = 4
	case *setNode:
		nodes = 16
	case string:
		size = len(v)
	case value.Surrogates:
		size = len(v)
	case []byte:
		size = len(v)
	case py2Text:
		size = len(v)
	case py2Bytes:
		size = len(v)
	case *big.Int:
		size = v.BitLen() / 4 // a key is copied once more
	case *globalNode:
		nodes, size = 8, len(v.class)
	case *objectNode:
		nodes, size = 16, len(v.class)
	case value.Decimal:
		size = len(v)
	}
	if err := e.spend(nodes, size); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case py2Text:
		return string(v), nil
	case py2Bytes:
		return []byte(v), nil
	case *listNode:
		return e.expandAll(v.items, depth)
	case *tupleNode:
		items, err := e.expandAll(v.items, depth)
		return value.Tuple(items), err
	case *setNode:
		before := e.budget
		items, err := e.expandAll(v.items, depth)
		if err != nil {
			return nil, err
		}
		// Comparing members reads them again completely.
		if err := e.spend(before.nodes-e.nodes, before.bytes-e.bytes); err != nil {
			return nil, err
		}
		set, err := newSet(items, v.frozen)
		if err != nil && e.inside != nil {
			return nil, nil //nolint:nilerr // a member contains the object itself
		}
		return set, err
	case *dictNode:
		return e.expandDict(v, depth)
	case *uuidNode:
		if v.number == nil {
			return nil, broken("UUID without a number")
		}
		var u value.UUID
		v.number.FillBytes(u[:])
		return u, nil
	case *globalNode:
		program, err := e.program(v.region, false)
		return value.Object{Class: v.class, Pickle: program}, err
	case *objectNode:
		return e.expandObject(v, depth)
	}
	return v, nil
}

func (e *expander) expandAll(items []any, depth int) ([]any, error) {
	out := make([]any, 0, min(len(items), e.nodes+1))
	for _, it := range items {
		v, err := e.expand(it, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (e *expander) expandDict(d *dictNode, depth int) (any, error) {
	out := value.NewDict()
	err := e.expandInto(out, d.items, depth)
	return out, err
}

func (e *expander) expandInto(out *value.Dict, items []value.Item, depth int) error {
	for _, it := range items {
		k, err := e.expand(it.Key, depth+1)
		if err != nil {
			return err
		}
		v, err := e.expand(it.Value, depth+1)
		if err != nil {
			return err
		}
		if err := out.SetKey(k, v); err != nil && e.inside == nil {
			return badKey(err)
		}
	}
	return nil
}

func badKey(err error) error {
	if errors.Is(err, reason.ResourceLimit) {
		return tooMuch("a key nested too deeply")
	}
	return broken("unhashable key")
}

// newSet drops members that Python considers equal, and keeps the first.
func newSet(items []any, frozen bool) (any, error) {
	distinct := value.NewDict()
	for _, it := range items {
		if err := distinct.SetKey(it, nil); err != nil {
			return nil, badKey(err)
		}
	}
	members := make([]any, 0, distinct.Len())
	for k := range distinct.All() {
		members = append(members, k)
	}
	return value.Set{Items: members, Frozen: frozen}, nil
}
