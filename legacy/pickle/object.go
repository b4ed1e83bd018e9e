package pickle

import (
	"bytes"
	"math/big"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy/value"
)

// allowed returns the class for a global, under its Python 3 name.
func allowed(module, name string) (class, bool) {
	switch module {
	case "__builtin__":
		module = "builtins"
	case "copy_reg":
		module = "copyreg"
	}
	switch full := module + "." + name; full {
	case "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
		"builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.bytes", "builtins.object",
		"_codecs.encode", "decimal.Decimal", "uuid.UUID", "collections.OrderedDict", "copyreg._reconstructor",
		value.EntityProto:
		return class(full), true
	}
	return "", false
}

func (m *machine) objectOp(op byte) error {
	switch op {
	case 'c', 'i':
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		if op == 'c' {
			return m.global(module, name)
		}
		c, ok := allowed(module, name)
		if !ok {
			return hostile("a global that is not data")
		}
		args, err := m.popMark()
		if err != nil {
			return err
		}
		return m.instance(c, args)
	case 0x93: // STACK_GLOBAL
		names, err := m.popN(2)
		if err != nil {
			return err
		}
		module, ok1 := names[0].(string)
		name, ok2 := names[1].(string)
		if !ok1 || !ok2 {
			return broken("name of a global is not text")
		}
		return m.global(module, name)
	case 'o': // OBJ: class and arguments above the mark
		items, err := m.popMark()
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return broken("object without a class")
		}
		c, ok := items[0].(class)
		if !ok {
			return broken("object of something that is no class")
		}
		return m.instance(c, items[1:])
	case 'b':
		return m.build()
	}
	// REDUCE, NEWOBJ and NEWOBJ_EX: class and arguments on the stack
	n := 2
	if op == 0x92 {
		n = 3
	}
	items, err := m.popN(n)
	if err != nil {
		return err
	}
	c, ok := items[0].(class)
	args, ok2 := items[1].(*tupleNode)
	if !ok || !ok2 {
		return broken("call of something that is no class")
	}
	if op == 'R' {
		return m.reduce(c, args.items)
	}
	if op == 0x92 {
		if kw, ok := items[2].(*dictNode); !ok || len(kw.items) != 0 {
			return broken("keyword arguments")
		}
	}
	if c != "uuid.UUID" || len(args.items) != 0 {
		return hostile("an object of a class that is not made this way")
	}
	return m.push(&uuidNode{})
}

func (m *machine) global(module, name string) error {
	c, ok := allowed(module, name)
	if !ok {
		return hostile("a global that is not data")
	}
	return m.push(c)
}

// instance makes an object of an old-style class.
func (m *machine) instance(c class, args []any) error {
	if c != value.EntityProto || len(args) != 0 {
		return hostile("an object of a class that is not made this way")
	}
	return m.push(&entityNode{})
}

// build gives an object its state.
func (m *machine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	switch target := target.(type) {
	case *uuidNode:
		d, ok := state.(*dictNode)
		if !ok {
			return broken("state of a UUID is not a dictionary")
		}
		if err := m.spend(len(d.items), 0); err != nil {
			return err
		}
		for _, it := range d.items {
			if name, _ := textOf(it.Key); name == "int" {
				n, ok := asInt(it.Value)
				if !ok || n.Sign() < 0 || n.BitLen() > 128 {
					return broken("number of a UUID")
				}
				target.number = n
			}
		}
		return nil
	case *entityNode:
		b, ok, err := m.bytesOf(state)
		if err != nil {
			return err
		}
		if !ok {
			return broken("state of an entity is not bytes")
		}
		target.state, target.built = b, true
		return nil
	}
	return broken("state for something that takes none")
}

// reduce makes the value that a call of an allowed class stands for.
func (m *machine) reduce(c class, args []any) error {
	v, ok, err := m.construct(c, args)
	if err != nil {
		return err
	}
	if !ok {
		return broken("bad arguments for " + string(c))
	}
	return m.push(v)
}

func (m *machine) construct(c class, args []any) (v any, ok bool, err error) {
	switch c {
	case "datetime.datetime":
		v, ok = newDateTime(args)
	case "datetime.date":
		v, ok = newDate(args)
	case "datetime.time":
		v, ok = newTime(args)
	case "datetime.timedelta":
		v, ok = newTimeDelta(args)
	case "datetime.timezone":
		v, ok = newZone(args)
	case "builtins.complex":
		v, ok = newComplex(args)
	case "decimal.Decimal":
		return m.newDecimal(args)
	case "builtins.set", "builtins.frozenset":
		items, good := sequence(args)
		if err := m.spend(len(items), 0); err != nil {
			return nil, false, err
		}
		return &setNode{items: append([]any(nil), items...), frozen: c == "builtins.frozenset"}, good, nil
	case "collections.OrderedDict":
		return m.orderedDict(args)
	case "_codecs.encode", "builtins.bytearray", "builtins.bytes":
		return m.encode(c, args)
	case "copyreg._reconstructor":
		if len(args) != 3 || args[2] != nil || args[0] != class("uuid.UUID") || args[1] != class("builtins.object") {
			return nil, false, hostile("a reconstruction of something other than a UUID")
		}
		return &uuidNode{}, true, nil
	default: // object, UUID and EntityProto are not called
		return nil, false, hostile("an object of a class that is not made this way")
	}
	return v, ok, nil
}

// textOf reads a name, however the pickle spells it.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case py2Text:
		return string(v), true
	}
	return "", false
}

// bytesOf returns a copy of bytes, however the pickle spells them.
func (m *machine) bytesOf(v any) (b []byte, ok bool, err error) {
	switch v := v.(type) {
	case []byte:
		err = m.spend(0, len(v))
		return bytes.Clone(v), true, err
	case py2Text:
		err = m.spend(0, len(v))
		return []byte(v), true, err
	case py2Bytes:
		err = m.spend(0, len(v))
		return bytes.Clone(v), true, err
	}
	return nil, false, nil
}

// packed returns the n bytes that a date or a time is packed into.
func packed(v any, n int) ([]byte, bool) {
	switch v := v.(type) {
	case []byte:
		return v, len(v) == n
	case py2Text:
		if len(v) == n {
			return []byte(v), true
		}
	case py2Bytes:
		return v, len(v) == n
	}
	return nil, false
}

func asInt(v any) (*big.Int, bool) {
	switch v := v.(type) {
	case int64:
		return big.NewInt(v), true
	case *big.Int:
		return v, true
	}
	return nil, false
}

// sequence returns the members of the only argument, a list or a tuple; no
// argument has none.
func sequence(args []any) ([]any, bool) {
	if len(args) == 0 {
		return nil, true
	}
	if len(args) != 1 {
		return nil, false
	}
	switch v := args[0].(type) {
	case *listNode:
		return v.items, true
	case *tupleNode:
		return v.items, true
	}
	return nil, false
}

func (m *machine) orderedDict(args []any) (any, bool, error) {
	pairs, ok := sequence(args)
	if !ok {
		return nil, false, nil
	}
	if err := m.spend(len(pairs), 0); err != nil {
		return nil, false, err
	}
	d := &dictNode{}
	for _, p := range pairs {
		pair, ok := sequence([]any{p})
		if !ok || len(pair) != 2 {
			return nil, false, nil
		}
		d.items = append(d.items, value.Item{Key: pair[0], Value: pair[1]})
	}
	return d, true, nil
}

// encode makes bytes from the text with the same Latin-1 characters, which is
// how Python 3 spells bytes in old protocols. No other codec is allowed: the
// name alone makes Python load code.
func (m *machine) encode(c class, args []any) (any, bool, error) {
	if len(args) == 0 && c != "_codecs.encode" {
		return []byte{}, true, nil
	}
	if len(args) == 1 && c == "builtins.bytearray" {
		return m.bytesOf(args[0]) // protocol 3 and 4
	}
	if len(args) != 2 || c == "builtins.bytes" {
		return nil, false, nil
	}
	codec, ok := textOf(args[1])
	if !ok {
		return nil, false, nil
	}
	if codec != "latin1" && codec != "latin-1" {
		return nil, false, hostile("a codec other than latin1")
	}
	text, ok := textOf(args[0])
	if !ok {
		return nil, false, nil
	}
	if err := m.spend(0, len(text)); err != nil {
		return nil, false, err
	}
	out := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xFF {
			return nil, false, nil
		}
		out = append(out, byte(r))
	}
	return out, true, nil
}

func newDateTime(args []any) (any, bool) {
	if len(args) < 1 || len(args) > 2 {
		return nil, false
	}
	b, ok := packed(args[0], 10)
	if !ok {
		return nil, false
	}
	d := value.DateTime{
		Year: int(b[0])<<8 | int(b[1]), Month: int(b[2] & 0x7F), Day: int(b[3]),
		Hour: int(b[4]), Minute: int(b[5]), Second: int(b[6]), Microsecond: int(b[7])<<16 | int(b[8])<<8 | int(b[9]),
		Fold: b[2]&0x80 != 0,
	}
	if len(args) == 2 && args[1] != nil {
		z, ok := args[1].(zone)
		if !ok || z.offset.Microseconds != 0 {
			return nil, false
		}
		off, _ := z.offset.Duration() // a zone is less than a day
		d.Aware, d.Offset = true, off
	}
	return d, d.Valid()
}

func newDate(args []any) (any, bool) {
	if len(args) != 1 {
		return nil, false
	}
	b, ok := packed(args[0], 4)
	if !ok {
		return nil, false
	}
	d := value.Date{Year: int(b[0])<<8 | int(b[1]), Month: int(b[2]), Day: int(b[3])}
	return d, d.Valid()
}

func newTime(args []any) (any, bool) {
	if len(args) != 1 {
		return nil, false
	}
	b, ok := packed(args[0], 6)
	if !ok {
		return nil, false
	}
	t := value.Time{
		Hour: int(b[0] & 0x7F), Minute: int(b[1]), Second: int(b[2]), Microsecond: int(b[3])<<16 | int(b[4])<<8 | int(b[5]),
		Fold: b[0]&0x80 != 0,
	}
	return t, t.Valid()
}

func newTimeDelta(args []any) (any, bool) {
	if len(args) > 3 {
		return nil, false
	}
	var n [3]int64
	for i, a := range args {
		v, ok := a.(int64)
		if !ok {
			return nil, false
		}
		n[i] = v
	}
	return value.NewTimeDelta(n[0], n[1], n[2])
}

func newZone(args []any) (any, bool) {
	if len(args) < 1 || len(args) > 2 {
		return nil, false
	}
	off, ok := args[0].(value.TimeDelta)
	if !ok {
		return nil, false
	}
	d, ok := off.Duration()
	return zone{off}, ok && d > -24*time.Hour && d < 24*time.Hour
}

func newComplex(args []any) (any, bool) {
	if len(args) != 2 {
		return nil, false
	}
	var part [2]float64
	for i, a := range args {
		switch a := a.(type) {
		case float64:
			part[i] = a
		case int64:
			part[i] = float64(a)
		default:
			return nil, false
		}
	}
	return complex(part[0], part[1]), true
}

// maxDecimal is the longest decimal number that is read, in characters.
const maxDecimal = 10_000

func (m *machine) newDecimal(args []any) (any, bool, error) {
	if len(args) != 1 {
		return nil, false, nil
	}
	text, ok := textOf(args[0])
	if err := m.spend(0, len(text)); err != nil {
		return nil, false, err
	}
	return value.Decimal(text), ok && isDecimal(text), nil
}

// isDecimal reports whether text is what str gives for a Decimal: digits with
// at most one point and an exponent, or a special value.
func isDecimal(text string) bool {
	rest := strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")
	if len(text) > maxDecimal || len(text)-len(rest) > 1 {
		return false
	}
	for _, special := range []string{"Infinity", "sNaN", "NaN"} {
		if payload, ok := strings.CutPrefix(rest, special); ok {
			return strings.Trim(payload, "0123456789") == "" && (special != "Infinity" || payload == "")
		}
	}
	mantissa, exponent, scientific := strings.Cut(strings.ToUpper(rest), "E")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole+fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return false
	}
	if !scientific {
		return true
	}
	exponent = strings.TrimPrefix(strings.TrimPrefix(exponent, "-"), "+")
	return exponent != "" && len(exponent) <= len("999999999999999999") && strings.Trim(exponent, "0123456789") == ""
}
