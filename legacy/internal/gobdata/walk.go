package gobdata

import "errors"

// errBroken means that the bytes are not gob, or claim a map larger than they
// can hold.
var errBroken = errors.New("gobdata: broken")

// The predefined type IDs of gob.
const (
	idBool = iota + 1
	idInt
	idUint
	idFloat
	idBytes
	idString
	idComplex
	idInterface
)

// maxDepth bounds how deeply values and definitions are nested.
const maxDepth = 1000

// kind is the kind of a defined type.
type kind int

const (
	kindList kind = iota + 1 // array or slice: a count and elements
	kindMap                  // a count, then keys and elements
	kindStruct
	kindOpaque // a type that encodes itself: a length and bytes
)

type typeDef struct {
	kind      kind
	key, elem int64
	fields    []int64
}

// walker parses a gob stream without building values. encoding/gob allocates as
// many map entries as the stream claims before it reads the first, so a few
// bytes could claim all memory. It checks all other sizes itself.
type walker struct {
	rest  []byte // messages to come
	msg   []byte // what is left of this message
	types map[int64]typeDef
	depth int
}

// check returns an error unless b starts with a gob value whose maps can be as
// large as they claim.
func check(b []byte) error {
	w := &walker{rest: b, types: map[int64]typeDef{}}
	id, err := w.typeSequence(false)
	if err != nil {
		return err
	}
	return w.value(id)
}

func takeUint(b []byte) (n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errBroken
	}
	if b[0] <= 0x7F {
		return uint64(b[0]), b[1:], nil
	}
	size := -int(int8(b[0]))
	if size > 8 || len(b) < 1+size {
		return 0, nil, errBroken
	}
	for _, c := range b[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+size:], nil
}

func (w *walker) uint() (uint64, error) {
	n, rest, err := takeUint(w.msg)
	w.msg = rest
	return n, err
}

func (w *walker) int() (int64, error) {
	n, err := w.uint()
	if n&1 != 0 {
		return ^int64(n >> 1), err
	}
	return int64(n >> 1), err
}

// skip passes over a length and that many bytes.
func (w *walker) skip() error {
	n, err := w.uint()
	if err != nil || n > uint64(len(w.msg)) {
		return errBroken
	}
	w.msg = w.msg[n:]
	return nil
}

func (w *walker) nextMessage() error {
	n, rest, err := takeUint(w.rest)
	if err != nil || n > uint64(len(rest)) {
		return errBroken
	}
	w.msg, w.rest = rest[:n], rest[n:]
	return nil
}

// typeSequence reads definitions up to the id of a value that follows.
func (w *walker) typeSequence(inInterface bool) (int64, error) {
	for {
		if len(w.msg) == 0 {
			if err := w.nextMessage(); err != nil {
				return 0, err
			}
		}
		id, err := w.int()
		if err != nil || id >= 0 {
			return id, err
		}
		if err := w.define(-id); err != nil {
			return 0, err
		}
		if len(w.msg) > 0 {
			if !inInterface {
				return 0, errBroken
			}
			if _, err := w.uint(); err != nil {
				return 0, err
			}
		}
	}
}

// fields walks a struct and calls do with the number of each field in it.
func (w *walker) fields(do func(field int) error) error {
	if w.depth++; w.depth > maxDepth {
		return errBroken
	}
	defer func() { w.depth-- }()
	field := -1
	for {
		delta, err := w.uint()
		if err != nil {
			return err
		}
		if delta == 0 {
			return nil
		}
		if delta > uint64(len(w.msg)) {
			return errBroken
		}
		field += int(delta)
		if err := do(field); err != nil {
			return err
		}
	}
}

// define reads the definition of a type: a struct with one pointer set.
func (w *walker) define(id int64) error {
	var def typeDef
	err := w.fields(func(field int) error {
		switch field {
		case 0, 1: // array {CommonType; Elem; Len}, slice {CommonType; Elem}
			def.kind = kindList
			return w.numbers(&def.elem)
		case 2: // struct {CommonType; Field}
			def.kind = kindStruct
			return w.structDef(&def)
		case 3: // map {CommonType; Key; Elem}
			def.kind = kindMap
			return w.numbers(&def.key, &def.elem)
		case 4, 5, 6: // {CommonType}
			def.kind = kindOpaque
			return w.numbers()
		}
		return errBroken
	})
	if err == nil && def.kind == 0 {
		return errBroken
	}
	w.types[id] = def
	return err
}

// numbers walks a struct of a CommonType and integers, and stores the integers
// in into.
func (w *walker) numbers(into ...*int64) error {
	return w.fields(func(field int) error {
		if field == 0 {
			return w.commonType()
		}
		n, err := w.int()
		if field <= len(into) {
			*into[field-1] = n
		}
		return err
	})
}

// commonType walks {Name string; Id int}.
func (w *walker) commonType() error {
	return w.fields(func(field int) error {
		if field == 0 {
			return w.skip()
		}
		_, err := w.int()
		return err
	})
}

func (w *walker) structDef(def *typeDef) error {
	return w.fields(func(field int) error {
		if field == 0 {
			return w.commonType()
		}
		n, err := w.uint()
		if err != nil || n > uint64(len(w.msg)) {
			return errBroken
		}
		for range n {
			var id int64
			err := w.fields(func(field int) error { // {Name string; Id int}
				if field == 0 {
					return w.skip()
				}
				var err error
				id, err = w.int()
				return err
			})
			if err != nil {
				return err
			}
			def.fields = append(def.fields, id)
		}
		return nil
	})
}

// value walks a top-level value: a message's, or an interface's.
func (w *walker) value(id int64) error {
	if def, ok := w.types[id]; !ok || def.kind != kindStruct {
		if zero, err := w.uint(); err != nil || zero != 0 {
			return errBroken
		}
	}
	return w.walk(id)
}

func (w *walker) walk(id int64) error {
	if w.depth++; w.depth > maxDepth {
		return errBroken
	}
	defer func() { w.depth-- }()
	switch id {
	case idBool, idInt, idUint, idFloat:
		_, err := w.uint()
		return err
	case idComplex:
		if _, err := w.uint(); err != nil {
			return err
		}
		_, err := w.uint()
		return err
	case idBytes, idString:
		return w.skip()
	case idInterface:
		return w.iface()
	}
	def := w.types[id]
	switch def.kind {
	case kindOpaque:
		return w.skip()
	case kindStruct:
		return w.fields(func(field int) error {
			if field >= len(def.fields) {
				return errBroken
			}
			return w.walk(def.fields[field])
		})
	case kindList:
		return w.elements(1, def.elem)
	case kindMap:
		return w.elements(2, def.key, def.elem)
	}
	return errBroken
}

// elements walks a count and that many groups of values. Each value takes at
// least a byte.
func (w *walker) elements(size uint64, ids ...int64) error {
	n, err := w.uint()
	if err != nil || n > uint64(len(w.msg))/size {
		return errBroken
	}
	for range n {
		for _, id := range ids {
			if err := w.walk(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// iface walks an interface value: a type's name, definitions, its ID, an unused
// length, and the value.
func (w *walker) iface() error {
	n, err := w.uint()
	if err != nil || n > uint64(len(w.msg)) {
		return errBroken
	}
	if n == 0 {
		return nil
	}
	w.msg = w.msg[n:]
	id, err := w.typeSequence(true)
	if err != nil {
		return err
	}
	if _, err := w.uint(); err != nil {
		return err
	}
	return w.value(id)
}
