package values

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Encode writes v in the form of its own type.
func Encode(v any) ([]byte, error) {
	if v == nil {
		return []byte{simpleNull}, nil
	}
	f, err := FormOf(reflect.TypeOf(v))
	if err != nil {
		return nil, &Error{reason: err.Error()}
	}
	return EncodeAs(reflect.ValueOf(v), f)
}

// EncodeAs writes v in the form of its static type. Its errors are valueErrors.
func EncodeAs(v reflect.Value, f *Form) ([]byte, error) {
	e := encoder{buf: make([]byte, 0, 64)}
	if err := e.value(v, f, 0, 0, true); err != nil {
		return nil, err
	}
	if e.foreign && valueDecoding().Wellformed(e.buf) != nil {
		return nil, tooNested() // together with what it is in
	}
	return e.buf[:len(e.buf):len(e.buf)], nil
}

// Error names the part of a value that would not read back equal. It contains
// only types, names of fields, positions, and keys of maps that look like
// names.
type Error struct {
	path   []string // from the inside to the outside
	reason string
	// always: the cause is the type, not the value.
	always bool
}

func (e *Error) Error() string { return e.describe("value") }

// describe returns the path from the value of that name, if there is one, and
// the reason.
func (e *Error) describe(name string) string {
	if len(e.path) == 0 {
		return e.reason
	}
	if !isWord(name, 64) {
		name = "…"
	}
	return name + e.segments() + ": " + e.reason
}

func (e *Error) segments() string {
	const most = 32
	path := slices.Clone(e.path[max(0, len(e.path)-most):])
	slices.Reverse(path)
	text := strings.Join(path, "")
	if len(e.path) > most {
		text += "…"
	}
	return text
}

// within adds a step to the path of err.
func within(err error, step string) error {
	var e *Error
	if errors.As(err, &e) {
		e.path = append(e.path, step)
	}
	return err
}

func lost(format string, args ...any) *Error {
	return &Error{reason: fmt.Sprintf(format, args...)}
}

func tooNested() error {
	return lost("it is nested deeper than %d levels, or contains itself", maxNesting)
}

func tooBig() error {
	return lost("it takes more than %d MiB, or contains itself", maxEncoded>>20)
}

// isWord reports whether s looks like a program's name for something, not like
// a visitor's input or a secret.
func isWord(s string, longest int) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || (c < '0' || '9' < c) && c != '-' && c != '.') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= longest
}

// keyStep is the step to an entry of a map.
func keyStep(k reflect.Value) string {
	if k.Kind() == reflect.Interface {
		k = k.Elem()
	}
	if k.Kind() == reflect.String && isWord(k.String(), 24) {
		return "." + k.String()
	}
	return "[…]"
}

// encoder writes one value.
type encoder struct {
	buf     []byte
	foreign bool // a type's own method wrote some of it
}

// maxHops bounds how many pointers and interfaces may follow each other with
// no array or map between them: a pointer may point to itself.
const maxHops = 100

// value writes v. depth is the number of enclosing arrays and maps, and hops
// the number of pointers and interfaces since the last of them. bare means that
// v has none: null then means v's own nil.
func (e *encoder) value(v reflect.Value, f *Form, depth, hops int, bare bool) error {
	switch f.kind {
	case formBool:
		e.bool(v.Bool())
	case formInt:
		e.buf = appendInt(e.buf, v.Int())
	case formUint:
		e.head(majorUint, v.Uint())
	case formFloat:
		e.float(v.Float())
	case formString:
		return e.string(v.String())
	case formBytes:
		return e.bytes(v, bare)
	case formTime:
		return e.time(v.Interface().(time.Time), bare)
	case formBigInt:
		n := v.Interface().(big.Int)
		return e.bigInt(&n)
	case formCBOR, formBinary:
		return e.own(v, f, bare)
	case formPointer:
		if v.IsNil() {
			return e.null(f, bare)
		}
		if hops == maxHops {
			return tooNested()
		}
		return e.value(v.Elem(), f.elem, depth, hops+1, false)
	case formAny:
		if v.IsNil() {
			return e.null(f, bare)
		}
		return e.untyped(v.Elem(), depth, hops, bare)
	case formList:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return e.null(f, bare)
		}
		if err := e.open(majorArray, v.Len(), depth); err != nil {
			return err
		}
		for i := range v.Len() {
			if err := e.value(v.Index(i), f.elem, depth+1, 0, true); err != nil {
				return within(err, fmt.Sprintf("[%d]", i))
			}
		}
	case formMap:
		if v.IsNil() {
			return e.null(f, bare)
		}
		return e.entries(v, depth,
			func(k reflect.Value) error { return e.key(k, f, depth+1) },
			func(v reflect.Value) error { return e.value(v, f.elem, depth+1, 0, true) })
	case formStruct:
		return e.structure(v, f, depth)
	}
	return nil
}

func (e *encoder) head(major byte, n uint64) { e.buf = appendHead(e.buf, major, n) }

// open starts an array or map, one level below depth.
func (e *encoder) open(major byte, n, depth int) error {
	if depth == maxNesting {
		return tooNested()
	}
	if len(e.buf) > maxEncoded {
		return tooBig()
	}
	e.head(major, uint64(n))
	return nil
}

// null writes a nil of f's type.
func (e *encoder) null(f *Form, bare bool) error {
	if !bare {
		return lost("a pointer to a nil %v would come back as nil", f.typ)
	}
	e.buf = append(e.buf, simpleNull)
	return nil
}

func (e *encoder) bool(b bool) {
	if b {
		e.buf = append(e.buf, simpleTrue)
	} else {
		e.buf = append(e.buf, simpleFalse)
	}
}

// string writes a string. Long strings that are repeated must not add up.
func (e *encoder) string(s string) error {
	if len(e.buf)+len(s) > maxEncoded {
		return tooBig()
	}
	e.head(majorText, uint64(len(s)))
	e.buf = append(e.buf, s...)
	return nil
}

// bytes writes a slice or array of bytes.
func (e *encoder) bytes(v reflect.Value, bare bool) error {
	if v.Kind() == reflect.Slice {
		if v.IsNil() {
			if !bare {
				return lost("a pointer to a nil %v would come back as nil", v.Type())
			}
			e.buf = append(e.buf, simpleNull)
			return nil
		}
		return e.byteString(v.Bytes())
	}
	n := v.Len()
	if len(e.buf)+n > maxEncoded {
		return tooBig()
	}
	e.head(majorBytes, uint64(n))
	for i := range n {
		e.buf = append(e.buf, byte(v.Index(i).Uint()))
	}
	return nil
}

func (e *encoder) byteString(b []byte) error {
	if len(e.buf)+len(b) > maxEncoded {
		return tooBig()
	}
	e.head(majorBytes, uint64(len(b)))
	e.buf = append(e.buf, b...)
	return nil
}

// float writes the shortest of the forms that hold f.
func (e *encoder) float(f float64) {
	single := float32(f)
	switch {
	case math.IsNaN(f):
		e.buf = append(e.buf, headFloat16, 0x7e, 0)
		return
	case float64(single) != f:
		e.buf = binary.BigEndian.AppendUint64(append(e.buf, headFloat64), math.Float64bits(f))
		return
	}
	if half, ok := toHalf(single); ok {
		e.buf = binary.BigEndian.AppendUint16(append(e.buf, headFloat16), half)
		return
	}
	e.buf = binary.BigEndian.AppendUint32(append(e.buf, headFloat32), math.Float32bits(single))
}

// toHalf returns f, which is a number, as an IEEE 754 binary16, if that holds it.
func toHalf(f float32) (uint16, bool) {
	bits := math.Float32bits(f)
	sign, exponent, fraction := uint16(bits>>16&0x8000), int(bits>>23&0xff)-127, bits&(1<<23-1)
	switch {
	case bits<<1 == 0:
		return sign, true
	case exponent == 128:
		return sign | 0x7c00, true
	case -14 <= exponent && exponent <= 15:
		return sign | uint16(exponent+15)<<10 | uint16(fraction>>13), fraction&(1<<13-1) == 0
	case -24 <= exponent && exponent < -14: // without a leading one
		fraction |= 1 << 23
		shift := -exponent - 1
		return sign | uint16(fraction>>shift), fraction&(1<<shift-1) == 0
	default:
		return 0, false
	}
}

// The Unix times of the years 0 and 10000 in UTC: RFC 3339 has the years between.
const (
	firstSecond = -62167219200
	afterLast   = 253402300800
)

// time writes t with its offset from UTC if RFC 3339 supports that: whole
// minutes, less than a day. Otherwise it writes the same instant in UTC.
func (e *encoder) time(t time.Time, bare bool) error {
	_, offset := t.Zone()
	if bare && t.IsZero() && offset == 0 {
		e.buf = append(e.buf, simpleNull)
		return nil
	}
	inYears := func(seconds int64) bool { return firstSecond <= seconds && seconds < afterLast }
	if !inYears(t.Unix()) {
		return lost("a time before the year 0 or after 9999")
	}
	const day = 24 * 60 * 60
	if offset%60 != 0 || offset <= -day || day <= offset || !inYears(t.Unix()+int64(offset)) {
		t = t.UTC()
	}
	e.head(majorTag, 0)
	var text [40]byte
	return e.string(string(t.AppendFormat(text[:0], time.RFC3339Nano)))
}

func (e *encoder) bigInt(n *big.Int) error {
	major, tag := byte(majorUint), uint64(2)
	abs := new(big.Int).Set(n)
	if n.Sign() < 0 {
		major, tag = majorNegint, 3
		abs.Not(n) // -n-1
	}
	if abs.IsUint64() {
		e.head(major, abs.Uint64())
		return nil
	}
	e.head(majorTag, tag)
	return e.byteString(abs.Bytes())
}

// own writes v with its own method, and checks that the type's other method can
// read it.
func (e *encoder) own(v reflect.Value, f *Form, bare bool) error {
	e.foreign = true
	start := len(e.buf)
	item, err := callOwn(v, f.kind)
	if err != nil {
		return lost("%v cannot be written by its own method (%s)", f.typ, kindOf(err))
	}
	if f.kind == formBinary {
		err = e.byteString(item)
		item = e.buf[start:]
	} else if len(e.buf)+len(item) > maxEncoded {
		err = tooBig()
	} else {
		e.buf = append(e.buf, item...)
	}
	if err != nil {
		return err
	}
	back := reflect.New(f.typ)
	if err := Decode(item, back.Interface()); err != nil {
		var p *panicError
		panicked := errors.As(err, &p)
		return &Error{reason: fmt.Sprintf("%v cannot be read by its own method (%s)", f.typ, kindOf(err)), always: panicked}
	}
	if !bare && (item[0] == simpleNull || item[0] == simpleUndefined) {
		return lost("a pointer to a %v that is null would come back as nil", f.typ)
	}
	for _, i := range f.beside {
		if !v.Field(i).IsZero() && back.Elem().Field(i).IsZero() {
			return &Error{
				path:   []string{"." + f.typ.Field(i).Name},
				reason: fmt.Sprintf("the method that writes a %v leaves this field out; if it is an embedded field's, make that a named field", f.typ),
				always: true,
			}
		}
	}
	return nil
}

// callOwn calls v's own method. It may be one of the pointer to v.
func callOwn(v reflect.Value, kind formKind) (item []byte, err error) {
	defer Recovered(&err)
	if kind == formCBOR {
		if m, ok := v.Interface().(cbor.Marshaler); ok {
			return m.MarshalCBOR()
		}
		return pointerTo(v).(cbor.Marshaler).MarshalCBOR()
	}
	if m, ok := v.Interface().(encoding.BinaryMarshaler); ok {
		return m.MarshalBinary()
	}
	return pointerTo(v).(encoding.BinaryMarshaler).MarshalBinary()
}

// pointerTo returns a pointer to a copy of v.
func pointerTo(v reflect.Value) any {
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface()
}

// structure writes a struct.
func (e *encoder) structure(v reflect.Value, f *Form, depth int) error {
	n, major := len(f.fields), byte(majorMap)
	if f.toArray {
		major = majorArray
	} else if f.gaps {
		n = 0
		for i := range f.fields {
			if _, ok := f.fields[i].in(v); ok {
				n++
			}
		}
	}
	if err := e.open(major, n, depth); err != nil {
		return err
	}
	for i := range f.fields {
		field := &f.fields[i]
		fv, ok := field.in(v)
		if !ok && !f.toArray {
			continue
		}
		if !f.toArray {
			e.buf = append(e.buf, field.head...)
		}
		if err := e.value(fv, field.Form, depth+1, 0, true); err != nil {
			return within(err, "."+field.name)
		}
	}
	return nil
}

// in returns the field of the struct v, and whether it is written in a map.
func (f *formField) in(v reflect.Value) (reflect.Value, bool) {
	for i, n := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}, false
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v, !f.omit || !isZero(v)
}

// isZero reports whether v reads back equal when it is left out. A negative
// zero does not.
func isZero(v reflect.Value) bool {
	if v.CanFloat() {
		return math.Float64bits(v.Float()) == 0
	}
	return v.IsZero()
}

// entries writes the map v in the order of its encoded keys.
func (e *encoder) entries(v reflect.Value, depth int, key, value func(reflect.Value) error) error {
	if err := e.open(majorMap, v.Len(), depth); err != nil {
		return err
	}
	type entry struct{ start, value, end int }
	list := make([]entry, 0, v.Len())
	first := len(e.buf)
	for it := v.MapRange(); it.Next(); {
		at := entry{start: len(e.buf)}
		if err := key(it.Key()); err != nil {
			return within(err, keyStep(it.Key()))
		}
		at.value = len(e.buf)
		if err := value(it.Value()); err != nil {
			return within(err, keyStep(it.Key()))
		}
		at.end = len(e.buf)
		list = append(list, at)
	}
	if len(list) < 2 {
		return nil
	}
	unsorted := slices.Clone(e.buf[first:])
	part := func(from, to int) []byte { return unsorted[from-first : to-first] }
	slices.SortFunc(list, func(a, b entry) int {
		return bytes.Compare(part(a.start, a.value), part(b.start, b.value))
	})
	e.buf = e.buf[:first]
	for _, at := range list {
		e.buf = append(e.buf, part(at.start, at.end)...)
	}
	return nil
}

// key writes a key of the map type f. It must read back equal: otherwise it is
// not found, or two keys become one.
func (e *encoder) key(k reflect.Value, f *Form, depth int) error {
	start := len(e.buf)
	if err := e.value(k, f.key, depth, 0, true); err != nil || f.plainKey {
		return err
	}
	back := reflect.New(k.Type())
	if err := Decode(e.buf[start:], back.Interface()); err != nil || !back.Elem().Equal(k) {
		if k.Kind() == reflect.Interface && !k.IsNil() {
			k = k.Elem()
		}
		return lost("a key, a %v, would come back as another one", k.Type())
	}
	return nil
}

// untyped writes the value of an interface. The decoder chooses the type, so
// only types that read back equal are written: nil, booleans, numbers, strings,
// bytes, times, lists, and maps with string keys.
func (e *encoder) untyped(v reflect.Value, depth, hops int, bare bool) error {
	for ; v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface; hops++ {
		if hops == maxHops {
			return tooNested()
		}
		if v.IsNil() {
			break
		}
		v = v.Elem()
	}
	t := v.Type()
	switch t {
	case typeTime:
		return e.time(v.Interface().(time.Time), false) // null is nil, not a time
	case typeBigInt:
		n := v.Interface().(big.Int)
		return e.bigInt(&n)
	}
	if own, err := ownForm(t); own != nil || err != nil {
		return lost("a %v in an interface would come back without its type", t)
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			if !bare {
				return lost("a pointer to a nil %v would come back as nil", t)
			}
			e.buf = append(e.buf, simpleNull)
			return nil
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		e.bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.buf = appendInt(e.buf, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.head(majorUint, v.Uint())
	case reflect.Float32, reflect.Float64:
		e.float(v.Float())
	case reflect.String:
		return e.string(v.String())
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return e.bytes(v, bare)
		}
		if err := e.open(majorArray, v.Len(), depth); err != nil {
			return err
		}
		for i := range v.Len() {
			if err := e.untyped(v.Index(i), depth+1, 0, true); err != nil {
				return within(err, fmt.Sprintf("[%d]", i))
			}
		}
	case reflect.Map:
		return e.entries(v, depth, e.untypedKey, func(v reflect.Value) error { return e.untyped(v, depth+1, 0, true) })
	case reflect.Struct:
		return lost("a struct, a %v, in an interface would come back as a map", t)
	default:
		return lost("%v cannot be kept", t)
	}
	return nil
}

func (e *encoder) untypedKey(k reflect.Value) error {
	inside := k.Kind() == reflect.Interface
	if inside {
		k = k.Elem()
	}
	if !k.IsValid() || k.Kind() != reflect.String || inside && k.Type() != reflect.TypeFor[string]() {
		return lost("a map in an interface needs keys that are strings")
	}
	if own, err := ownForm(k.Type()); own != nil || err != nil {
		return lost("a map in an interface needs keys that are strings")
	}
	return e.string(k.String())
}
