// Package value models the data that other libraries keep in their sessions.
//
// A value is one of these Go types, and readers of this module return no
// other, except where a Go library stored the application's own types:
//
//	nil                 Python's None, JSON's null
//	bool
//	int64               an integer that fits
//	*big.Int            one that does not
//	float64             NaN and infinities included
//	string              text, always valid UTF-8
//	Surrogates          text with a lone surrogate, which UTF-8 cannot hold
//	[]byte              bytes that are not text
//	[]any               a list
//	Tuple               a tuple
//	*Dict               a dictionary, in its original order
//	Set                 a set or frozenset
//	DateTime Date Time TimeDelta
//	Decimal UUID complex128
//	Object              an object of any other class, kept as it is
//
// [Of] turns ordinary Go values into these.
package value

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrUnsupported means that a value has no form in the target format.
var ErrUnsupported = errors.New("value: type not supported by the format")

// MaxDepth is how deeply values may be nested, on reading and on writing.
const MaxDepth = 200

// Tuple is an immutable list.
type Tuple []any

// Set is a set of distinct hashable values, in the order in which they were
// stored.
type Set struct {
	Items  []any
	Frozen bool
}

// Decimal is the text of a decimal number, such as "8019.15" or "1E+3".
type Decimal string

// UUID holds the 16 bytes of a UUID in the order of its text form.
type UUID [16]byte

// String returns the 36-character form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Object is a value of a Python class without its own type in this package: a
// class of the application, App Engine or the standard library. Its code is not
// run. Its arguments and state can be read, and its pickle is written back byte
// for byte.
type Object struct {
	// Class is the dotted name of the class, or of the function that makes the
	// object, such as "google.appengine.api.users.User".
	Class string
	// Args are the arguments that make it. nil means that the value is the
	// class or the function itself.
	Args Tuple
	// State is the state that is set afterwards, usually a *Dict of its
	// attributes; nil if none.
	State any
	// Holds is the object's plain value, if it has one: a list for a deque,
	// text for a path, an address or a subclass of str, the members of a
	// subclass of dict. nil otherwise.
	Holds any
	// Pickle is a pickle of this object alone. Only it is written: changes of
	// the other fields have no effect. Objects inside of Args and State have
	// none and cannot be written separately.
	Pickle []byte
}

// EntityProto is the class of the datastore entities in gae-sessions.
const EntityProto = "google.appengine.datastore.entity_pb.EntityProto"

// Surrogates is text with at least one lone UTF-16 surrogate, which Python and
// JSON allow but UTF-8 does not. The bytes are UTF-8 with each surrogate
// encoded in three bytes like any other code point ("WTF-8"), so that a value
// survives a round trip.
type Surrogates string

// Text returns the text with every lone surrogate replaced by U+FFFD.
func (s Surrogates) Text() string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if _, ok := surrogateAt(string(s[i:])); ok {
			b.WriteRune(utf8.RuneError)
			i += 3
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:]))
		b.WriteRune(r)
		i += n
	}
	return b.String()
}

// TextOf returns a string or [Surrogates] value as valid UTF-8, and whether v
// is text at all.
func TextOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Surrogates:
		return v.Text(), true
	}
	return "", false
}

// FromWTF8 returns b as text: a string where it is valid UTF-8, [Surrogates]
// where only encoded surrogates make it invalid. Surrogates that form a pair
// are joined. It reports false for anything else.
func FromWTF8(b []byte) (any, bool) {
	if utf8.Valid(b) {
		return string(b), true
	}
	var out []byte
	lone := false
	for i := 0; i < len(b); {
		if hi, ok := surrogateAt(b[i:]); ok {
			if lo, ok := surrogateAt(b[i+3:]); ok && hi < 0xDC00 && lo >= 0xDC00 {
				out = utf8.AppendRune(out, 0x10000+(hi-0xD800)<<10+(lo-0xDC00))
				i += 6
				continue
			}
			out = append(out, b[i:i+3]...)
			lone = true
			i += 3
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return nil, false
		}
		out = append(out, b[i:i+n]...)
		i += n
	}
	if lone {
		return Surrogates(out), true
	}
	return string(out), true
}

// surrogateAt decodes a three-byte surrogate at the start of s.
func surrogateAt[T string | []byte](s T) (rune, bool) {
	if len(s) < 3 || s[0] != 0xED || s[1] < 0xA0 || s[1] > 0xBF || s[2]&0xC0 != 0x80 {
		return 0, false
	}
	return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F), true
}

// appendSurrogate is the opposite of surrogateAt.
func appendSurrogate(b []byte, r rune) []byte {
	return append(b, 0xED, 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
}

// Equal reports whether two values are the same. Lists and tuples with equal
// members are equal, the order of dictionaries and sets does not matter, NaN
// equals NaN, an integer never equals a float, and a time zone given by its
// offset only equals another with that offset.
//
// Two objects are equal if their classes and their pickles are, except for the
// protocol. An object equals its Holds.
func Equal(a, b any) bool {
	if oa, ok := a.(Object); ok {
		if ob, ok := b.(Object); ok {
			return oa.equal(ob)
		}
		return oa.Holds != nil && Equal(oa.Holds, b)
	}
	if ob, ok := b.(Object); ok {
		return ob.Holds != nil && Equal(a, ob.Holds)
	}
	switch a := a.(type) {
	case []any:
		return equalSequence(a, b)
	case Tuple:
		return equalSequence(a, b)
	case *Dict:
		b, ok := b.(*Dict)
		if !ok || a.Len() != b.Len() {
			return false
		}
		for i, it := range a.items {
			other, ok := b.Lookup(it.Key)
			if f, isFloat := it.Key.(float64); isFloat && f != f { // no lookup finds NaN
				other, ok = b.items[i].Value, Equal(f, b.items[i].Key)
			}
			if !ok || !Equal(it.Value, other) {
				return false
			}
		}
		return true
	case Set:
		b, ok := b.(Set)
		if !ok || a.Frozen != b.Frozen || len(a.Items) != len(b.Items) {
			return false
		}
		members := NewDict()
		for _, it := range b.Items {
			if members.SetKey(it, nil) != nil {
				return false
			}
		}
		for _, it := range a.Items {
			if _, ok := members.Lookup(it); !ok {
				return false
			}
		}
		return true
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || a != a && b != b)
	case *big.Int:
		b, ok := b.(*big.Int)
		return ok && a.Cmp(b) == 0
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case DateTime:
		b, ok := b.(DateTime)
		same := ok && (a.Zone == nil || b.Zone == nil || a.Zone.String() == b.Zone.String())
		a.Zone, b.Zone = nil, nil
		return same && a == b
	case Time:
		b, ok := b.(Time)
		same := ok && (a.Zone == nil) == (b.Zone == nil) && a.Zone.String() == b.Zone.String()
		a.Zone, b.Zone = nil, nil
		return same && a == b
	}
	return reflect.DeepEqual(a, b)
}

func (o Object) equal(other Object) bool {
	if o.Class != other.Class {
		return false
	}
	if o.Pickle == nil || other.Pickle == nil {
		return Equal(o.Args, other.Args) && Equal(o.State, other.State) && Equal(o.Holds, other.Holds)
	}
	return bytes.Equal(o.program(), other.program())
}

// program is the pickle without its protocol header.
func (o Object) program() []byte { return o.Pickle[min(2, len(o.Pickle)):] }

func equalSequence(a []any, b any) bool {
	var other []any
	switch b := b.(type) {
	case []any:
		other = b
	case Tuple:
		other = b
	default:
		return false
	}
	if len(a) != len(other) {
		return false
	}
	for i := range a {
		if !Equal(a[i], other[i]) {
			return false
		}
	}
	return true
}

// Of returns v as one of the types of this package. Integers of all sizes,
// float32, named string types, slices, arrays, maps, pointers and time.Time (as
// naive UTC, which is what these libraries keep) are converted; values of this
// package's types are returned unchanged. It returns [ErrUnsupported] for
// everything else.
func Of(v any) (any, error) { return of(v, 0) }

func of(v any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: nested too deeply", ErrUnsupported)
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string, Surrogates, []byte, DateTime, Date, Time, TimeDelta, Decimal, UUID, complex128, Object:
		return v, nil
	case *big.Int:
		if v == nil {
			return nil, nil
		}
		if v.IsInt64() {
			return v.Int64(), nil
		}
		return v, nil
	case big.Int:
		return of(&v, depth)
	case []any:
		return ofSlice(v, depth)
	case Tuple:
		out, err := ofSlice(v, depth)
		return Tuple(out), err
	case Set:
		out, err := ofSlice(v.Items, depth)
		return Set{Items: out, Frozen: v.Frozen}, err
	case *Dict:
		if v == nil {
			return nil, nil
		}
		out := NewDict()
		out.Type = v.Type
		for _, it := range v.items {
			val, err := of(it.Value, depth+1)
			if err != nil {
				return nil, err
			}
			if err := out.SetKey(it.Key, val); err != nil {
				return nil, err
			}
		}
		return out, nil
	case time.Time:
		return DateTimeOf(v), nil
	case time.Duration:
		return TimeDeltaOf(v), nil
	}
	return ofReflect(reflect.ValueOf(v), depth)
}

func ofSlice(in []any, depth int) ([]any, error) {
	out := make([]any, len(in))
	for i, v := range in {
		var err error
		if out[i], err = of(v, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func ofReflect(v reflect.Value, depth int) (any, error) {
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n := new(big.Int).SetUint64(v.Uint())
		return of(n, depth)
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Complex64, reflect.Complex128:
		return v.Complex(), nil
	case reflect.String:
		return v.String(), nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return of(v.Elem().Interface(), depth+1)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
			return v.Bytes(), nil
		}
		out := make([]any, v.Len())
		for i := range out {
			var err error
			if out[i], err = of(v.Index(i).Interface(), depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case reflect.Map:
		out := NewDict()
		keys := v.MapKeys()
		sortKeys(keys)
		for _, k := range keys {
			key, err := of(k.Interface(), depth+1)
			if err != nil {
				return nil, err
			}
			val, err := of(v.MapIndex(k).Interface(), depth+1)
			if err != nil {
				return nil, err
			}
			if err := out.SetKey(key, val); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnsupported, v.Type())
}

// AppendWTF8 appends a code point in UTF-8, surrogates included.
func AppendWTF8(b []byte, r rune) []byte {
	if r >= 0xD800 && r <= 0xDFFF {
		return appendSurrogate(b, r)
	}
	return utf8.AppendRune(b, r)
}
