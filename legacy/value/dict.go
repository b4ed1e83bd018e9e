package value

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

// ErrUnhashable means that a value cannot be the key of a [Dict] or a member of
// a [Set]: it is or contains a list, a dictionary or a set, or is a tuple
// nested more than 16 levels deep (then it wraps reason.ResourceLimit).
var ErrUnhashable = errors.New("value: not usable as a dictionary key")

// Dict is a dictionary that keeps its order. Keys are compared as in Python: 1,
// 1.0 and True are one key; text is compared as text, in any encoding. The zero
// value and nil are empty; only a non-nil Dict can be written to. It is not
// safe for concurrent use.
type Dict struct {
	// Type makes an empty dictionary of the same Python class, such as a
	// collections.OrderedDict or a defaultdict. The zero Object means dict.
	Type Object

	items []Item
	index map[any]int
}

// Item is one entry of a [Dict].
type Item struct{ Key, Value any }

// NewDict returns an empty dictionary.
func NewDict() *Dict { return &Dict{} }

// Len returns the number of entries.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.items)
}

// All iterates over the entries in order.
func (d *Dict) All() iter.Seq2[any, any] {
	return func(yield func(any, any) bool) {
		if d == nil {
			return
		}
		for _, it := range d.items {
			if !yield(it.Key, it.Value) {
				return
			}
		}
	}
}

// Get returns the value of a text key, or nil.
func (d *Dict) Get(name string) any {
	v, _ := d.Lookup(name)
	return v
}

// Lookup returns the value of a key of any type, and whether it is there.
func (d *Dict) Lookup(key any) (any, bool) {
	if d == nil {
		return nil, false
	}
	k, err := hashable(key, 0)
	if err != nil {
		return nil, false
	}
	i, ok := d.index[k]
	if !ok {
		return nil, false
	}
	return d.items[i].Value, true
}

// Set stores a value under a text key. An existing key keeps its position.
func (d *Dict) Set(name string, v any) { d.set(name, name, v) }

// SetKey stores a value under a key of any type. It returns [ErrUnhashable] for
// a key that a dictionary cannot have.
func (d *Dict) SetKey(key, v any) error {
	k, err := hashable(key, 0)
	if err != nil {
		return err
	}
	d.set(k, key, v)
	return nil
}

func (d *Dict) set(hash, key, v any) {
	if i, ok := d.index[hash]; ok {
		d.items[i].Value = v
		return
	}
	if d.index == nil {
		d.index = make(map[any]int)
	}
	d.index[hash] = len(d.items)
	d.items = append(d.items, Item{key, v})
}

// Delete removes a text key and reports whether it existed.
func (d *Dict) Delete(name string) bool {
	if d == nil {
		return false
	}
	i, ok := d.index[name]
	if !ok {
		return false
	}
	d.items = slices.Delete(d.items, i, i+1)
	delete(d.index, name)
	for k, at := range d.index {
		if at > i {
			d.index[k] = at - 1
		}
	}
	return true
}

// Clone returns a copy that shares no entry table with d. Values are shared.
func (d *Dict) Clone() *Dict {
	out := NewDict()
	if d != nil {
		out.Type = d.Type
	}
	for k, v := range d.All() {
		_ = out.SetKey(k, v) // the key is in d already
	}
	return out
}

// The types below stand for keys in a Dict's index, so that values which are
// not comparable in Go, or compare differently in Python, can be looked up.
type (
	noneKey   struct{}
	bytesKey  string
	bigKey    string
	tupleKey  string
	objectKey string
)

func newBigKey(n *big.Int) bigKey {
	b := make([]byte, 1+(n.BitLen()+7)/8)
	b[0] = byte(n.Sign())
	n.FillBytes(b[1:])
	return bigKey(b)
}

// maxKeyDepth is how deeply tuples and frozensets may be nested in a key. A key
// is walked once for each level of the frozensets around it, so this bounds the
// cost of hostile data.
const maxKeyDepth = 16

var errDeepKey = fmt.Errorf("%w: nested too deeply: %w", ErrUnhashable, reason.ResourceLimit)

// hashable returns a comparable stand-in for a key: two keys are equal in
// Python exactly if their stand-ins are.
func hashable(v any, depth int) (any, error) {
	if depth > maxKeyDepth {
		return nil, errDeepKey
	}
	switch v := v.(type) {
	case nil:
		return noneKey{}, nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case *big.Int:
		if v.IsInt64() {
			return v.Int64(), nil
		}
		return newBigKey(v), nil
	case float64:
		switch {
		case v == math.Trunc(v) && math.Abs(v) < 1<<63:
			return int64(v), nil
		case v == math.Trunc(v) && !math.IsInf(v, 0):
			n, _ := big.NewFloat(v).Int(nil)
			return newBigKey(n), nil
		}
		return v, nil
	case []byte:
		return bytesKey(v), nil
	case Tuple, Set:
		var b strings.Builder
		err := writeHash(&b, v, depth)
		return tupleKey(b.String()), err
	case Object:
		// Only the class's code could compare two of them.
		if v.Pickle == nil {
			return objectKey(v.Class + "\n" + string(MarshalTagged([]any{v.Args, v.State}))), nil
		}
		return objectKey(v.Class + "\n" + string(v.program())), nil
	case []any, *Dict:
		return nil, ErrUnhashable
	}
	if !reflect.ValueOf(v).Comparable() {
		return nil, ErrUnhashable
	}
	return v, nil
}

// writeHash writes a member of a tuple or frozenset unambiguously. Each byte of
// a member is written about once, however deeply it is nested.
func writeHash(b *strings.Builder, v any, depth int) error {
	if depth > maxKeyDepth {
		return errDeepKey
	}
	switch v := v.(type) {
	case Tuple:
		fmt.Fprintf(b, "tuple:%d:", len(v))
		for _, it := range v {
			if err := writeHash(b, it, depth+1); err != nil {
				return err
			}
		}
		return nil
	case Set:
		if !v.Frozen {
			return ErrUnhashable
		}
		sums := make([]string, len(v.Items))
		for i, it := range v.Items {
			var member strings.Builder
			if err := writeHash(&member, it, depth+1); err != nil {
				return err
			}
			sum := sha256.Sum256([]byte(member.String()))
			sums[i] = string(sum[:])
		}
		slices.Sort(sums)
		fmt.Fprintf(b, "set:%d:%s", len(sums), strings.Join(sums, ""))
		return nil
	}
	h, err := hashable(v, depth)
	if err != nil {
		return err
	}
	var text string
	switch h := h.(type) {
	case string:
		text = h
	case bytesKey:
		text = string(h)
	case bigKey:
		text = string(h)
	case objectKey:
		text = string(h)
	default:
		text = fmt.Sprint(h)
	}
	fmt.Fprintf(b, "%T:%d:", h, len(text))
	b.WriteString(text)
	return nil
}

// sortKeys puts the keys of a Go map into a stable order.
func sortKeys(keys []reflect.Value) {
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		return strings.Compare(fmt.Sprint(a.Interface()), fmt.Sprint(b.Interface()))
	})
}
