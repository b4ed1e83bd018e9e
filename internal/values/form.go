package values

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Form is the encoding of a type's values. It exists only for types whose
// values the decoder reads back equal.
type Form struct {
	typ  reflect.Type
	kind formKind
	elem *Form // of pointers, lists and maps
	key  *Form // of maps
	// plainKey: every key of the type reads back equal and needs no check.
	plainKey bool
	fields   []formField // of structs, in the order in which they are written
	toArray  bool        // a struct is an array of its fields
	gaps     bool        // some of its fields may be left out
	// beside are a struct's fields beside an embedded one whose encoding method
	// it may have inherited, which would omit them.
	beside []int
}

type formKind uint8

const (
	formBool formKind = iota
	formInt
	formUint
	formFloat
	formString
	formBytes // slices and arrays of bytes
	formList  // other slices and arrays
	formMap
	formStruct
	formPointer
	formAny
	formTime
	formBigInt
	formCBOR   // the type's own MarshalCBOR
	formBinary // the type's own MarshalBinary
)

// formField is one field of a struct, its own or an embedded struct's.
type formField struct {
	*Form
	name  string
	index []int
	head  []byte // its name as a map key
	omit  bool   // left out if zero
	gap   bool   // left out if an embedded pointer is nil
}

var (
	typeTime   = reflect.TypeFor[time.Time]()
	typeBigInt = reflect.TypeFor[big.Int]()
	typeTag    = reflect.TypeFor[cbor.Tag]()
)

// forms caches the results of FormOf, by type: a formEntry.
var forms sync.Map

type formEntry struct {
	form *Form
	err  error
}

// FormOf returns the form of values of type t, or why they cannot be kept.
func FormOf(t reflect.Type) (*Form, error) {
	if e, ok := forms.Load(t); ok {
		return e.(formEntry).form, e.(formEntry).err
	}
	b := formBuilder{}
	f, err := b.of(t)
	for _, later := range b.own {
		if err == nil {
			err = trySample(later)
		}
	}
	forms.Store(t, formEntry{f, err})
	return f, err
}

// formBuilder makes the forms of a type and of everything in it.
type formBuilder struct {
	made map[reflect.Type]*Form
	own  []*Form // to be tried with a sample
}

func (b *formBuilder) of(t reflect.Type) (*Form, error) {
	if f, ok := b.made[t]; ok {
		return f, nil
	}
	f := &Form{typ: t}
	if b.made == nil {
		b.made = map[reflect.Type]*Form{}
	}
	b.made[t] = f
	if err := b.fill(f); err != nil {
		delete(b.made, t)
		return nil, err
	}
	return f, nil
}

func (b *formBuilder) fill(f *Form) (err error) {
	t := f.typ
	own, err := ownForm(t)
	if err != nil {
		return err
	}
	if own != nil {
		f.kind = own.kind
		if t.Kind() == reflect.Struct {
			f.beside, err = besideOwn(t, own)
			if f.beside != nil {
				b.own = append(b.own, f)
			}
		}
		return err
	}
	switch t {
	case typeTime:
		f.kind = formTime
		return nil
	case typeBigInt:
		f.kind = formBigInt
		return nil
	case typeTag:
		return fmt.Errorf("%v cannot be kept; use a cbor.RawTag", t)
	}
	switch t.Kind() {
	case reflect.Bool:
		f.kind = formBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		f.kind = formInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		f.kind = formUint
	case reflect.Float32, reflect.Float64:
		f.kind = formFloat
	case reflect.String:
		f.kind = formString
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			f.kind = formBytes
			return nil
		}
		f.kind = formList
		f.elem, err = b.of(t.Elem())
	case reflect.Pointer:
		if endless(t) {
			return fmt.Errorf("%v is a pointer to itself", t)
		}
		f.kind = formPointer
		f.elem, err = b.of(t.Elem())
	case reflect.Map:
		f.kind = formMap
		if err := checkKey(t.Key()); err != nil {
			return fmt.Errorf("key of %v: %w", t, err)
		}
		if f.key, err = b.of(t.Key()); err != nil {
			return fmt.Errorf("key of %v: %w", t, err)
		}
		f.plainKey = slices.Contains([]formKind{formBool, formInt, formUint, formString}, f.key.kind)
		f.elem, err = b.of(t.Elem())
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%v: the concrete type behind an interface with methods would be lost", t)
		}
		f.kind = formAny
	case reflect.Struct:
		f.kind = formStruct
		return b.structure(f)
	default:
		return fmt.Errorf("%v cannot be kept", t)
	}
	return err
}

// endless reports whether t is a pointer type that only leads to pointers, for
// which the decoder would not terminate.
func endless(t reflect.Type) bool {
	for range maxHops {
		if t.Kind() != reflect.Pointer {
			return false
		}
		t = t.Elem()
	}
	return true
}

// checkKey returns why a map's keys of type t would not read back equal: a
// pointer to an equal value is another pointer.
func checkKey(t reflect.Type) error {
	switch t.Kind() {
	case reflect.Pointer:
		return fmt.Errorf("a %v would come back as another pointer", t)
	case reflect.Array:
		return checkKey(t.Elem())
	default:
		return nil // other types are checked value by value
	}
}

// ownWay is a pair of methods with which a type encodes and decodes itself.
type ownWay struct {
	kind                   formKind
	marshaler, unmarshaler reflect.Type
}

// ownWays are in the decoder's order of precedence.
var ownWays = [...]ownWay{
	{formCBOR, reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[cbor.Unmarshaler]()},
	{formBinary, reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler]()},
}

// ownForm returns the pair of methods of type t, or nil.
func ownForm(t reflect.Type) (*ownWay, error) {
	if k := t.Kind(); k == reflect.Pointer || k == reflect.Interface || isSpecial(t) {
		return nil, nil
	}
	if t.PkgPath() == "" && t.Kind() != reflect.Struct {
		return nil, nil // has no methods
	}
	for i := range ownWays {
		way := &ownWays[i]
		writes, reads := reflect.PointerTo(t).Implements(way.marshaler), reflect.PointerTo(t).Implements(way.unmarshaler)
		switch {
		case writes && reads:
			return way, nil
		case writes:
			return nil, fmt.Errorf("%v is a %v, but no %v", t, way.marshaler, way.unmarshaler)
		case reads && (way.kind == formCBOR || isBytes(t)):
			return nil, fmt.Errorf("%v is a %v, but no %v", t, way.unmarshaler, way.marshaler)
		}
	}
	return nil, nil
}

// isSpecial reports whether the decoder has a special form for t.
func isSpecial(t reflect.Type) bool { return t == typeTime || t == typeBigInt || t == typeTag }

func isBytes(t reflect.Type) bool {
	return (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && t.Elem().Kind() == reflect.Uint8
}

// besideOwn returns the fields of the struct type t beside an embedded one
// whose methods t may have inherited. It returns nil if t certainly declares
// the methods itself.
func besideOwn(t reflect.Type, way *ownWay) ([]int, error) {
	beside, embedded := []int{}, false
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.Anonymous || !f.Type.Implements(way.marshaler) && !reflect.PointerTo(f.Type).Implements(way.marshaler) {
			if f.IsExported() && fieldTag(f) != "-" {
				beside = append(beside, i)
			}
			continue
		}
		embedded = true
		if f.Type.Kind() == reflect.Interface {
			return nil, fmt.Errorf("%v embeds %v: the concrete type behind an interface with methods would be lost", t, f.Type)
		}
	}
	if !embedded {
		return nil, nil
	}
	return beside, nil
}

// trySample encodes and decodes a made-up value of a struct type that may have
// inherited its methods, to detect early if values do not read back equal.
func trySample(f *Form) error {
	v := reflect.New(f.typ).Elem()
	for i := range f.typ.NumField() {
		field := f.typ.Field(i)
		if !field.IsExported() {
			continue
		}
		if slices.Contains(f.beside, i) || field.Anonymous && field.Type.Kind() == reflect.Pointer {
			makeUp(v.Field(i))
		}
	}
	err := (&encoder{}).own(v, f, true)
	if lost := (*Error)(nil); errors.As(err, &lost) && lost.always {
		return fmt.Errorf("%v%s: %s", f.typ, lost.segments(), lost.reason)
	}
	return nil // only this value may fail to encode
}

// makeUp sets v to a nonzero value, if possible.
func makeUp(v reflect.Value) {
	if !v.CanSet() {
		return
	}
	t := v.Type()
	switch t.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.String:
		v.SetString("x")
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 0, 0))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
	case reflect.Interface:
		if t.NumMethod() == 0 {
			v.Set(reflect.ValueOf("x"))
		}
	case reflect.Array:
		if t.Len() > 0 {
			makeUp(v.Index(0))
		}
	case reflect.Struct:
		if t == typeTime {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range t.NumField() {
			if v.IsZero() {
				makeUp(v.Field(i))
			}
		}
	}
}

// fieldTag returns the tag of a struct's field for its encoding; "-" = left out.
func fieldTag(f reflect.StructField) string {
	if tag := f.Tag.Get("cbor"); tag != "" {
		return tag
	}
	return f.Tag.Get("json")
}

// structure makes the form of a struct.
func (b *formBuilder) structure(f *Form) error {
	t := f.typ
	if blank, ok := t.FieldByName("_"); ok { // like the decoder
		f.toArray = slices.Contains(strings.Split(blank.Tag.Get("cbor"), ",")[1:], "toarray")
	}
	if _, err := b.collect(f, t, nil, nil, false); err != nil {
		return err
	}
	if len(f.fields) == 0 && t.Size() > 0 {
		return fmt.Errorf("%v has no exported field", t)
	}
	heads := map[string]bool{}
	for i := range f.fields {
		ff := &f.fields[i]
		if heads[string(ff.head)] {
			return fmt.Errorf("%v has two fields of the name %s: one would be lost", t, ff.name)
		}
		heads[string(ff.head)] = true
		f.gaps = f.gaps || ff.gap || ff.omit
	}
	if !f.toArray {
		slices.SortFunc(f.fields, func(a, b formField) int { return bytes.Compare(a.head, b.head) })
	}
	return nil
}

// collect adds the fields of the struct type t, which is f's or is embedded in
// it at index. path is the types on the way there. It returns how many of the
// fields always exist if t does.
func (b *formBuilder) collect(f *Form, t reflect.Type, index []int, path []reflect.Type, behindPointer bool) (present int, err error) {
	if slices.Contains(path, t) {
		return 0, fmt.Errorf("%v embeds itself", t)
	}
	path = append(slices.Clip(path), t)
	before := len(f.fields)
	for i := range t.NumField() {
		sf := t.Field(i)
		base, pointer := sf.Type, false
		if base.Kind() == reflect.Pointer {
			base, pointer = base.Elem(), true
		}
		embeds := sf.Anonymous && base.Kind() == reflect.Struct
		if fieldTag(sf) == "-" || !sf.IsExported() && !embeds {
			continue
		}
		name, options, _ := strings.Cut(fieldTag(sf), ",")
		at := append(slices.Clip(index), i)
		if embeds && pointer && !sf.IsExported() {
			return 0, fmt.Errorf("%v embeds *%v, which is not exported and could not be set", t, base)
		}
		if embeds && (name == "" || !sf.IsExported()) {
			if own, err := ownForm(base); own != nil || err != nil || isSpecial(base) {
				return 0, fmt.Errorf("%v embeds %v, whose own form would be lost; make it a named field", t, base)
			}
		}
		if embeds && name == "" {
			if pointer && f.toArray {
				return 0, fmt.Errorf("%v embeds *%v in an array: nil would come back as an empty one", t, base)
			}
			n, err := b.collect(f, base, at, path, behindPointer || pointer)
			switch {
			case err != nil:
				return 0, err
			case !pointer:
				present += n
			case n == 0:
				return 0, fmt.Errorf("%v embeds *%v, which has no field that is always there: it would come back as nil", t, base)
			}
			continue
		}
		field := formField{name: name, index: at, gap: behindPointer}
		if field.Form, err = b.of(sf.Type); err != nil {
			return 0, fmt.Errorf("field %s: %w", sf.Name, err)
		}
		if name == "" {
			field.name = sf.Name
		}
		field.head = append(appendHead(nil, majorText, uint64(len(field.name))), field.name...)
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty", "omitzero":
				// Fields that show that an embedded pointer is not nil are
				// kept. So are structs and arrays, in which a negative zero
				// would count as zero.
				k := sf.Type.Kind()
				field.omit = !behindPointer && (k != reflect.Struct && k != reflect.Array || sf.Type == typeTime)
			case "keyasint":
				n, err := strconv.Atoi(field.name)
				if err != nil {
					return 0, fmt.Errorf("field %s: its name %q is no int", sf.Name, field.name)
				}
				field.name, field.head = sf.Name, appendInt(nil, int64(n))
			}
		}
		f.fields = append(f.fields, field)
		present++
	}
	if len(index) > 0 && len(f.fields) == before && t.Size() > 0 {
		return 0, fmt.Errorf("%v is embedded and has no exported field", t)
	}
	return present, nil
}

const (
	majorUint   = 0 << 5
	majorNegint = 1 << 5
	majorBytes  = 2 << 5
	majorText   = 3 << 5
	majorArray  = 4 << 5
	majorMap    = 5 << 5
	majorTag    = 6 << 5

	simpleFalse     = 0xf4
	simpleTrue      = 0xf5
	simpleNull      = 0xf6
	simpleUndefined = 0xf7
	headFloat16     = 0xf9
	headFloat32     = 0xfa
	headFloat64     = 0xfb
)

// appendHead appends the head of an item in its shortest form.
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n < 1<<8:
		return append(dst, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, major|27), n)
	}
}

func appendInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendHead(dst, majorNegint, uint64(^n))
	}
	return appendHead(dst, majorUint, uint64(n))
}
