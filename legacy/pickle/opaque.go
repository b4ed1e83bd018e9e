package pickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"sort"
	"strings"

	"github.com/sojourn-go/sojourn/legacy/value"
)

// expandObject turns an object into a value.Object, or into a value.Dict for
// the dictionaries of package collections.
func (e *expander) expandObject(o *objectNode, depth int) (any, error) {
	if d, ok, err := e.expandCollection(o, depth); ok || err != nil {
		return d, err
	}
	out := value.Object{Class: o.class, Args: value.Tuple{}}
	if e.inside == nil {
		program, err := e.program(o.region, o.elsewhere)
		if err != nil {
			return nil, err
		}
		out.Pickle = program
		e.inside = map[any]bool{o: true}
		defer func() { e.inside = nil }()
	}
	args, err := e.expandAll(o.args.items, depth)
	if err != nil {
		return nil, err
	}
	out.Args = args
	if out.State, err = e.expandState(o, depth); err != nil {
		return nil, err
	}
	out.Holds, err = e.held(o, out.Args, depth)
	return out, err
}

func (e *expander) expandState(o *objectNode, depth int) (any, error) {
	if o.class != value.EntityProto {
		return e.expand(o.state, depth+1)
	}
	if !o.built {
		return nil, broken("entity without content")
	}
	b, ok, err := e.m.bytesOf(o.state)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, broken("state of an entity is not bytes")
	}
	return b, e.spend(0, len(b))
}

// expandCollection expands an OrderedDict, a Counter or a defaultdict without
// further state.
func (e *expander) expandCollection(o *objectNode, depth int) (*value.Dict, bool, error) {
	if o.newed || o.built || o.isList {
		return nil, false, nil
	}
	members, factory := o.args.items, []any(nil)
	switch o.class {
	case "collections.OrderedDict", "collections.Counter":
	case "collections.defaultdict":
		members, factory = nil, o.args.items
	default:
		return nil, false, nil
	}
	items, ok := pairs(members)
	if !ok || len(factory) > 1 {
		return nil, false, nil
	}
	out := value.NewDict()
	out.Type = value.Object{Class: o.class, Args: value.Tuple{}}
	// None needs no module.
	program := "c" + strings.Replace(o.class, ".", "\n", 1) + "\n"
	switch {
	case len(factory) == 0:
		out.Type.Pickle = header(0, program+")R")
	case factory[0] == nil:
		out.Type.Args = value.Tuple{nil}
		out.Type.Pickle = header(0, program+"N\x85R")
	default:
		f, ok := factory[0].(*globalNode)
		if !ok {
			return nil, false, nil
		}
		if err := e.spend(8, len(f.class)); err != nil {
			return nil, false, err
		}
		out.Type.Args = value.Tuple{value.Object{Class: f.class}}
		made, err := e.program(f.region, false)
		if err != nil {
			return nil, false, err
		}
		out.Type.Pickle = header(max(e.m.proto, 2), program+string(made[2:len(made)-1])+"\x85R")
	}
	if err := e.expandInto(out, items, depth); err != nil {
		return nil, false, err
	}
	return out, true, e.expandInto(out, o.pairs, depth)
}

// pairs returns the members of a dictionary made from the only argument: a
// dictionary or a list of pairs.
func pairs(args []any) ([]value.Item, bool) {
	if len(args) == 1 {
		if d, ok := args[0].(*dictNode); ok {
			return d.items, true
		}
	}
	list, ok := sequence(args)
	if !ok {
		return nil, false
	}
	var out []value.Item
	for _, p := range list {
		pair, ok := sequence([]any{p})
		if !ok || len(pair) != 2 {
			return nil, false
		}
		out = append(out, value.Item{Key: pair[0], Value: pair[1]})
	}
	return out, true
}

// held returns the plain value of an object, or nil.
func (e *expander) held(o *objectNode, args value.Tuple, depth int) (any, error) {
	if o.holds != nil {
		return o.holds, nil
	}
	if o.isDict {
		d := value.NewDict()
		return d, e.expandInto(d, o.pairs, depth)
	}
	list, err := e.expandAll(o.items, depth)
	if err != nil {
		return nil, err
	}
	switch {
	case o.class == "collections.deque":
		first, _ := listOf(at(args, 0))
		return append(first, list...), nil
	case o.isList:
		return list, nil
	case o.extends:
		return args[0], nil
	case o.newed && o.keywords == nil && len(args) == 1:
		return scalar(args[0]), nil
	}
	switch o.class {
	case "fractions.Fraction":
		return e.fraction(args)
	case "builtins.range", "builtins.xrange":
		return e.numbers(args)
	case "array.array":
		if l, ok := listOf(at(args, 1)); ok {
			return l, nil
		}
	case "markupsafe.Markup", "werkzeug.datastructures.ImmutableList":
		return scalar(at(args, 0)), nil
	}
	module, name, _ := strings.Cut(o.class, ".")
	switch {
	case module == "ipaddress" && len(args) == 1:
		return address(name, args[0]), nil
	case module == "pathlib" && strings.HasSuffix(name, "Path"):
		return path(strings.Contains(name, "Windows"), args), nil
	}
	return nil, nil
}

func at(args value.Tuple, i int) any {
	if i < len(args) {
		return args[i]
	}
	return nil
}

func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case value.Tuple:
		return v, true
	}
	return nil, false
}

// scalar returns the value of the type that a class extends, or nil.
func scalar(v any) any {
	switch v.(type) {
	case nil, value.Object, []any, *value.Dict, value.Set:
		return nil
	}
	return v
}

// fraction formats a Fraction like Python.
func (e *expander) fraction(args value.Tuple) (any, error) {
	if text, ok := at(args, 0).(string); ok && len(args) == 1 {
		return text, nil
	}
	n, ok1 := asInt(at(args, 0))
	d, ok2 := asInt(at(args, 1))
	if !ok1 || !ok2 || d.Sign() == 0 {
		return nil, nil
	}
	// The time to format is quadratic in the digits.
	if err := e.spend(0, n.BitLen()+d.BitLen()); err != nil {
		return nil, err
	}
	if d.IsInt64() && d.Int64() == 1 {
		return n.String(), nil
	}
	return n.String() + "/" + d.String(), nil
}

// maxRange is the maximum number of elements of a range to list.
const maxRange = 10_000

// numbers returns those of a range; nil if there are too many.
func (e *expander) numbers(args value.Tuple) (any, error) {
	var n [3]int64
	for i := range n {
		v, ok := at(args, i).(int64)
		const limit = 1 << 62
		if !ok || v > limit || v < -limit {
			return nil, nil
		}
		n[i] = v
	}
	start, stop, step := new(big.Int).SetInt64(n[0]), new(big.Int).SetInt64(n[1]), new(big.Int).SetInt64(n[2])
	if len(args) != 3 || n[2] == 0 {
		return nil, nil
	}
	count := new(big.Int).Sub(stop, start)
	count.Add(count, step).Sub(count, big.NewInt(int64(step.Sign())))
	count.Quo(count, step)
	if count.Sign() <= 0 {
		return []any{}, nil
	}
	if count.Cmp(big.NewInt(maxRange)) > 0 {
		return nil, nil
	}
	out := make([]any, 0, count.Int64())
	if err := e.spend(cap(out), 0); err != nil {
		return nil, err
	}
	for i := range count.Int64() {
		out = append(out, n[0]+i*n[2])
	}
	return out, nil
}

// address formats an address of package ipaddress, kept as a number, bytes or text.
func address(name string, v any) any {
	size := 4
	if strings.HasPrefix(name, "IPv6") {
		size = 16
	}
	if text, ok := v.(string); ok && len(v.(string)) != size {
		return text
	}
	n, ok := asInt(v)
	if !ok || n.Sign() < 0 || n.BitLen() > 8*size {
		return nil
	}
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, size)))
	return a.String()
}

// path joins the parts of a path of package pathlib.
func path(windows bool, args value.Tuple) any {
	separator := "/"
	if windows {
		separator = `\`
	}
	var b strings.Builder
	for _, a := range args {
		part, ok := a.(string)
		if !ok {
			return nil
		}
		if b.Len() > 0 && !strings.HasSuffix(b.String(), separator) {
			b.WriteString(separator)
		}
		b.WriteString(part)
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// header makes a pickle of a program. The protocol decides whether Python 3
// maps Python 2 names, so it matters even if no opcode needs it.
func header(proto int, program string) []byte {
	switch {
	case proto > 2:
		proto = 4
	case proto > 0:
		proto = 2
	}
	return []byte("\x80" + string(rune(proto)) + program + ".")
}

// program returns a separate pickle for the value that a part of the input makes.
func (e *expander) program(r region, elsewhere bool) ([]byte, error) {
	if e.inside != nil {
		return nil, nil
	}
	c := capture{machine: e.m, budget: &e.budget, known: map[*entry]uint32{}}
	if elsewhere {
		return nil, broken("an object that no pickler writes like that")
	}
	if err := c.copy(r.start, r.end, 0); err != nil {
		return nil, err
	}
	return header(max(e.m.proto, 2), string(c.out)), nil
}

// capture copies a part of a program so that it is self-contained: a value from
// the memo is made where it is first fetched, unless the part itself has stored
// it.
type capture struct {
	machine *machine
	budget  *budget
	out     []byte
	known   map[*entry]uint32 // the indices in the copy
}

func (c *capture) copy(start, end, depth int) error {
	m := c.machine
	if depth > value.MaxDepth {
		return tooMuch("an object of too many others")
	}
	for at := start; at < end; {
		op := m.in[at]
		next := opEnd(m.in, at)
		if err := c.budget.spend(0, next-at); err != nil {
			return err
		}
		switch op {
		case 0x80, 0x95: // PROTO, FRAME
		case '2':
			return broken("an object that no pickler writes like that")
		case 'p', 'q', 'r', 0x94:
			i := sort.Search(len(m.puts), func(i int) bool { return m.puts[i].at >= at })
			n := uint32(len(c.known))
			c.known[m.puts[i].e] = n // again, if it was made here already
			c.memo('q', 'r', n)
		case 'g', 'h', 'j':
			e := m.entryAt(memoIndexAt(m.in, at), at)
			if n, ok := c.known[e]; ok {
				c.memo('h', 'j', n)
				break
			}
			if e.elsewhere {
				return broken("an object that no pickler writes like that")
			}
			if err := c.copy(e.start, e.end, depth+1); err != nil {
				return err
			}
		default:
			c.out = append(c.out, m.in[at:next]...)
		}
		at = next
	}
	return nil
}

// memo writes an opcode of the memo in its shorter or longer form.
func (c *capture) memo(short, long byte, index uint32) {
	if index <= 0xFF {
		c.out = append(c.out, short, byte(index))
		return
	}
	c.out = binary.LittleEndian.AppendUint32(append(c.out, long), index)
}

// memoIndexAt returns the index of an executed fetch from the memo.
func memoIndexAt(in []byte, at int) uint64 {
	m := machine{in: in, at: at + 1}
	index, _ := m.memoIndex(in[at])
	return index
}

// opEnd returns the end of an executed opcode with its argument.
func opEnd(in []byte, at int) int {
	m := machine{in: in, at: at + 1}
	skip := func(n int) int { return at + 1 + n }
	lines := func(n int) int {
		for range n {
			m.at += bytes.IndexByte(in[m.at:], '\n') + 1
		}
		return m.at
	}
	switch op := in[at]; op {
	case 'I', 'L', 'F', 'S', 'V', 'p', 'g':
		return lines(1)
	case 'c', 'i':
		return lines(2)
	case 'J', 'r', 'j':
		return skip(4)
	case 'K', 'q', 'h', 0x80:
		return skip(1)
	case 'M':
		return skip(2)
	case 'G', 0x95:
		return skip(8)
	case 0x8a, 0x8b, 'U', 'T', 'C', 'B', 0x8e, 0x96, 0x8c, 'X', 0x8d:
		n, _ := m.length(lengthSize(op))
		return m.at + n
	}
	return at + 1
}

// spliced returns the program of an object's pickle, without header and end,
// and its protocol.
func spliced(o value.Object) (program string, proto int, err error) {
	if len(o.Pickle) < 3 || o.Pickle[0] != 0x80 {
		return "", 0, fmt.Errorf("%w: an object without its pickle", value.ErrUnsupported)
	}
	got, err := Decode(o.Pickle)
	if err != nil {
		return "", 0, fmt.Errorf("%w: an object with a broken pickle: %w", value.ErrUnsupported, err)
	}
	if d, ok := got.(*value.Dict); ok { // what makes an empty one
		got = d.Type
	}
	if made, ok := got.(value.Object); !ok || made.Class != o.Class {
		return "", 0, fmt.Errorf("%w: an object with the pickle of something else", value.ErrUnsupported)
	}
	return string(o.Pickle[2 : len(o.Pickle)-1]), int(o.Pickle[1]), nil
}
