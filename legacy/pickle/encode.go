package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/legacy/value"
)

// Native is ASCII text that each Python reads as its own str: bytes in Python
// 2, text in Python 3. It is for formats in which Python 2 expects a str of
// ASCII letters; [Decode] never returns it.
type Native string

// Encode writes v as a pickle of protocol 2 without memo, which Python 2 and
// Python 3 both read: text as unicode, bytes and the states of dates as Latin-1
// text that is encoded on loading. Python 2 reads all text back as unicode, and
// cannot read aware times (it has no zone class), nor those with a fold.
//
// A [value.Object] is written as it was read. If Python 3 pickled it in a newer
// protocol, the whole pickle has that protocol.
//
// It accepts [Native] and what [value.Of] accepts, and returns [value.ErrUnsupported] for the
// rest.
func Encode(v any) ([]byte, error) {
	var e encoder
	if err := e.write(v, 0); err != nil {
		return nil, err
	}
	if e.newer {
		if e.older {
			return nil, fmt.Errorf("%w: an object of an old protocol beside one of a new protocol", value.ErrUnsupported)
		}
		e = encoder{builtins: "builtins"}
		if err := e.write(v, 0); err != nil {
			return nil, err
		}
		return slices.Concat([]byte{0x80, 4}, e.out, []byte{'.'}), nil
	}
	return slices.Concat([]byte{0x80, 2}, e.out, []byte{'.'}), nil
}

type encoder struct {
	out          []byte
	newer, older bool   // there are objects of such protocols
	builtins     string // the name of that module; empty = that of Python 2
}

// global writes the name of a class or a function.
func (e *encoder) global(module, name string) {
	if module == "__builtin__" && e.builtins != "" {
		module = e.builtins
	}
	e.op("c" + module + "\n" + name + "\n")
}

// object writes an object as it was read.
func (e *encoder) object(o value.Object) error {
	if o.Class == value.EntityProto && o.Pickle == nil {
		if state, ok := o.State.([]byte); ok {
			e.op("(cgoogle.appengine.datastore.entity_pb\nEntityProto\no")
			e.bytes(state)
			e.op("b")
			return nil
		}
	}
	program, proto, err := spliced(o)
	if err != nil {
		return err
	}
	e.newer = e.newer || proto > 2
	e.older = e.older || proto == 2
	e.op(program)
	return nil
}

// zone writes a zoneinfo.ZoneInfo.
func (e *encoder) zone(name string) {
	e.global("__builtin__", "getattr")
	e.global("zoneinfo", "ZoneInfo")
	e.text("_unpickle")
	e.op("\x86R")
	e.text(name)
	e.op("K\x01\x86R")
}

// offset writes a datetime.timezone.
func (e *encoder) offset(d time.Duration) {
	e.global("datetime", "timezone")
	e.delta(value.TimeDeltaOf(d))
	e.op("\x85R")
}

func (e *encoder) write(v any, depth int) error {
	if depth > value.MaxDepth {
		return fmt.Errorf("%w: nested too deeply", value.ErrUnsupported)
	}
	switch v := v.(type) {
	case nil:
		e.op("N")
	case bool:
		if v {
			e.op("\x88")
		} else {
			e.op("\x89")
		}
	case int64:
		e.int(v)
	case *big.Int:
		e.long(v)
	case float64:
		e.op("G")
		e.out = binary.BigEndian.AppendUint64(e.out, math.Float64bits(v))
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("%w: text that is not UTF-8 (use []byte)", value.ErrUnsupported)
		}
		e.text(v)
	case value.Surrogates:
		e.text(string(v))
	case Native:
		return e.native(string(v))
	case []byte:
		e.bytes(v)
	case []any:
		e.op("]")
		return e.items('e', v, depth)
	case value.Tuple:
		return e.tuple(v, depth)
	case *value.Dict:
		return e.dict(v, depth)
	case value.Set:
		name := "set"
		if v.Frozen {
			name = "frozenset"
		}
		e.global("__builtin__", name)
		e.op("]")
		if err := e.items('e', v.Items, depth); err != nil {
			return err
		}
		e.op("\x85R")
	case value.DateTime:
		return e.dateTime(v)
	case value.Date:
		if !v.Valid() {
			return fmt.Errorf("%w: a day that does not exist", value.ErrUnsupported)
		}
		e.op("cdatetime\ndate\n")
		e.bytes([]byte{byte(v.Year >> 8), byte(v.Year), byte(v.Month), byte(v.Day)})
		e.op("\x85R")
	case value.Time:
		if !v.Valid() {
			return fmt.Errorf("%w: a time that does not exist", value.ErrUnsupported)
		}
		us, hour := v.Microsecond, byte(v.Hour)
		if v.Fold {
			hour |= 0x80
		}
		e.op("cdatetime\ntime\n")
		e.bytes([]byte{hour, byte(v.Minute), byte(v.Second), byte(us >> 16), byte(us >> 8), byte(us)})
		return e.zoned(v.Aware, v.Offset, v.Zone)
	case value.TimeDelta:
		e.delta(v)
	case value.Decimal:
		if !isDecimal(string(v)) {
			return fmt.Errorf("%w: not a decimal number", value.ErrUnsupported)
		}
		e.op("cdecimal\nDecimal\n")
		e.text(string(v))
		e.op("\x85R")
	case value.UUID:
		e.op("cuuid\nUUID\n)\x81}")
		e.text("int")
		e.long(new(big.Int).SetBytes(v[:]))
		e.op("sb")
	case complex128:
		e.global("__builtin__", "complex")
		_ = e.write(real(v), depth) // floats cannot fail
		_ = e.write(imag(v), depth)
		e.op("\x86R")
	case value.Object:
		return e.object(v)
	default:
		converted, err := value.Of(v)
		if err != nil {
			return err
		}
		return e.write(converted, depth)
	}
	return nil
}

func (e *encoder) op(s string) { e.out = append(e.out, s...) }

func (e *encoder) int(n int64) {
	switch {
	case n >= 0 && n <= math.MaxUint8:
		e.out = append(e.out, 'K', byte(n))
	case n >= 0 && n <= math.MaxUint16:
		e.op("M")
		e.out = binary.LittleEndian.AppendUint16(e.out, uint16(n))
	case n >= math.MinInt32 && n <= math.MaxInt32:
		e.op("J")
		e.out = binary.LittleEndian.AppendUint32(e.out, uint32(int32(n)))
	default:
		e.long(big.NewInt(n))
	}
}

// long writes two's complement, little-endian, with room for the sign.
func (e *encoder) long(n *big.Int) {
	size := n.BitLen()/8 + 1
	if n.Sign() < 0 { // to two's complement
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	b := n.FillBytes(make([]byte, size))
	if size <= math.MaxUint8 {
		e.out = append(e.out, 0x8a, byte(size))
	} else {
		e.op("\x8b")
		e.out = binary.LittleEndian.AppendUint32(e.out, uint32(size))
	}
	for i := size - 1; i >= 0; i-- {
		e.out = append(e.out, b[i])
	}
}

func (e *encoder) text(s string) {
	e.op("X")
	e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(s)))
	e.op(s)
}

func (e *encoder) native(s string) error {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return fmt.Errorf("%w: Native text that is not ASCII", value.ErrUnsupported)
		}
	}
	e.op("T")
	e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(s)))
	e.op(s)
	return nil
}

// bytes writes bytes in the only way that gives bytes in both Pythons.
func (e *encoder) bytes(b []byte) {
	latin1 := make([]byte, 0, len(b))
	for _, c := range b {
		latin1 = utf8.AppendRune(latin1, rune(c))
	}
	e.op("c_codecs\nencode\n")
	e.text(string(latin1))
	e.text("latin1")
	e.op("\x86R")
}

// items writes a mark, the values and the opcode that takes them; no values,
// nothing.
func (e *encoder) items(op byte, items []any, depth int) error {
	if len(items) == 0 {
		return nil
	}
	e.op("(")
	for _, it := range items {
		if err := e.write(it, depth+1); err != nil {
			return err
		}
	}
	e.out = append(e.out, op)
	return nil
}

func (e *encoder) tuple(t value.Tuple, depth int) error {
	if len(t) == 0 {
		e.op(")")
		return nil
	}
	if len(t) > 3 {
		return e.items('t', t, depth)
	}
	for _, it := range t {
		if err := e.write(it, depth+1); err != nil {
			return err
		}
	}
	e.out = append(e.out, 0x84+byte(len(t)))
	return nil
}

func (e *encoder) dict(d *value.Dict, depth int) error {
	if d != nil && d.Type.Class != "" {
		if err := e.object(d.Type); err != nil {
			return err
		}
	} else {
		e.op("}")
	}
	if d.Len() == 0 {
		return nil
	}
	e.op("(")
	for k, v := range d.All() {
		if err := e.write(k, depth+1); err != nil {
			return err
		}
		if err := e.write(v, depth+1); err != nil {
			return err
		}
	}
	e.op("u")
	return nil
}

func (e *encoder) dateTime(d value.DateTime) error {
	if !d.Valid() {
		return fmt.Errorf("%w: a time that does not exist", value.ErrUnsupported)
	}
	us, month := d.Microsecond, byte(d.Month)
	if d.Fold {
		month |= 0x80
	}
	e.op("cdatetime\ndatetime\n")
	e.bytes([]byte{
		byte(d.Year >> 8), byte(d.Year), month, byte(d.Day),
		byte(d.Hour), byte(d.Minute), byte(d.Second), byte(us >> 16), byte(us >> 8), byte(us),
	})
	return e.zoned(d.Aware, d.Offset, d.Zone)
}

// zoned writes the time zone of a time, and calls its class.
func (e *encoder) zoned(aware bool, offset time.Duration, zone *time.Location) error {
	named := zone != nil && zone != time.Local
	if named { // Python does not know the name of a program's own zone
		_, err := time.LoadLocation(zone.String())
		named = err == nil
	}
	switch {
	case named:
		e.zone(zone.String())
		e.op("\x86R")
	case aware:
		e.offset(offset)
		e.op("\x86R")
	case zone != nil:
		return fmt.Errorf("%w: a time zone without an IANA name", value.ErrUnsupported)
	default:
		e.op("\x85R")
	}
	return nil
}

func (e *encoder) delta(d value.TimeDelta) {
	e.op("cdatetime\ntimedelta\n")
	e.int(d.Days)
	e.int(d.Seconds)
	e.int(d.Microseconds)
	e.op("\x87R")
}
