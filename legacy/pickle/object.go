package pickle

import (
	"bytes"
	"math/big"
	"strings"
	"time"

	_ "time/tzdata" // for time zones on systems without a database of them

	"github.com/sojourn-go/sojourn/legacy/value"
)

// plainClass reports whether package value has a type for a class. Pickles make
// these values by calling the class.
func plainClass(class string) bool {
	switch class {
	case "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta",
		"builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.bytes",
		"_codecs.encode", "decimal.Decimal", "uuid.UUID":
		return true
	}
	return false
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
		class, err := m.named(module, name)
		if err != nil {
			return err
		}
		args, err := m.popMark()
		if err != nil {
			return err
		}
		return m.made(class, &tupleNode{args})
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
		c, ok := items[0].(*globalNode)
		if !ok {
			return broken("object of something that is no class")
		}
		return m.made(c.class, &tupleNode{items[1:]})
	case 'b':
		return m.build()
	case 'R':
		return m.reduce()
	case 0x81: // NEWOBJ
		items, err := m.popN(2)
		if err != nil {
			return err
		}
		return m.newObject(items[0], items[1], nil)
	default: // NEWOBJ_EX
		items, err := m.popN(3)
		if err != nil {
			return err
		}
		return m.newObject(items[0], items[1], items[2])
	}
}

// named returns the name of a global that a session may have.
func (m *machine) named(module, name string) (string, error) {
	if err := m.spend(0, len(module)+len(name)+1); err != nil {
		return "", err
	}
	class, ok := className(module, name)
	if !ok {
		return "", hostile("a global that is not data")
	}
	return class, nil
}

func (m *machine) global(module, name string) error {
	class, err := m.named(module, name)
	if err != nil {
		return err
	}
	return m.push(&globalNode{class: class, region: m.region()})
}

// region is the input that makes the value of the current opcode.
func (m *machine) region() region { return region{start: m.from, end: m.at} }

// made pushes an object of a class that its pickle calls.
func (m *machine) made(class string, args *tupleNode) error {
	if plainClass(class) || class == "builtins.getattr" || class == "builtins.type" && len(args.items) != 1 {
		return hostile("an object of a class that is not made this way")
	}
	return m.push(&objectNode{class: class, args: args, region: m.region()})
}

// newObject pushes an object whose pickle calls the __new__ of its class.
func (m *machine) newObject(callee, arguments, keywords any) error {
	c, ok := callee.(*globalNode)
	args, ok2 := arguments.(*tupleNode)
	if !ok || !ok2 {
		return broken("object of something that is no class")
	}
	kw, ok := keywords.(*dictNode)
	if keywords != nil && !ok {
		return broken("keyword arguments that are no dictionary")
	}
	if c.class == "uuid.UUID" && len(args.items) == 0 && (kw == nil || len(kw.items) == 0) {
		return m.push(&uuidNode{})
	}
	if plainClass(c.class) {
		return hostile("an object of a class that is not made this way")
	}
	return m.push(&objectNode{class: c.class, args: args, keywords: kw, newed: true, region: m.region()})
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
	m.changed()
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
	case *objectNode:
		target.state, target.built = state, true
		return nil
	}
	return broken("state for something that takes none")
}

// reduce makes the value of a call.
func (m *machine) reduce() error {
	items, err := m.popN(2)
	if err != nil {
		return err
	}
	args, ok := items[1].(*tupleNode)
	if !ok {
		return broken("arguments that are no tuple")
	}
	var class string
	switch callee := items[0].(type) {
	case *globalNode:
		class = callee.class
	case *objectNode:
		// Python 3's form of NEWOBJ_EX in old protocols: a partial call of a
		// __new__, which is then called without arguments.
		of, ok := callee.newOf()
		if !ok || len(args.items) != 0 {
			return broken("call of something that is no class")
		}
		return m.push(&objectNode{class: of, args: args, state: callee.state, built: callee.built, region: m.region()})
	default:
		return broken("call of something that is no class")
	}
	if class == "builtins.getattr" {
		return m.attribute(args.items)
	}
	if of, ok := strings.CutPrefix(class, "copyreg."); ok {
		return m.copied(of, args.items)
	}
	if plainClass(class) {
		v, ok, err := m.construct(class, args)
		if err != nil {
			return err
		}
		if !ok {
			return broken("bad arguments for " + class)
		}
		return m.push(v)
	}
	o := &objectNode{class: class, args: args, region: m.region()}
	if o.zone = m.zoneOf(class, args.items); o.zone == nil && class == "datetime.timezone" {
		return broken("bad arguments for a time zone")
	}
	if class == "zoneinfo.ZoneInfo._unpickle" {
		o.class = "zoneinfo.ZoneInfo"
	}
	if class == "functools.partial" {
		if _, ok := o.newOf(); !ok {
			return hostile("a deferred call")
		}
	}
	if class == "builtins.type" && len(args.items) != 1 {
		return hostile("a class to create")
	}
	return m.push(o)
}

// newOf returns the class whose __new__ an object is a partial call of.
func (o *objectNode) newOf() (class string, ok bool) {
	if o.class != "functools.partial" || len(o.args.items) != 1 {
		return "", false
	}
	of, ok := o.args.items[0].(*globalNode)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(of.class, ".__new__")
}

// attribute is getattr, by which old protocols name attributes of a class.
func (m *machine) attribute(args []any) error {
	if len(args) != 2 {
		return broken("bad arguments for getattr")
	}
	name, ok := textOf(args[1])
	if !ok || strings.Contains(name, ".") || isInner(name) && name != "__new__" {
		return hostile("an attribute that is not data")
	}
	of, ok := args[0].(*globalNode)
	if !ok || plainClass(of.class) && name != "__new__" {
		return hostile("an attribute of something that is no class")
	}
	if err := m.spend(0, len(of.class)+len(name)+1); err != nil {
		return err
	}
	return m.push(&globalNode{class: of.class + "." + name, region: m.region()})
}

// copied makes the results of copyreg's functions.
func (m *machine) copied(function string, args []any) error {
	if function == "_reconstructor" {
		if len(args) != 3 {
			return broken("bad arguments for a reconstruction")
		}
		c, ok1 := args[0].(*globalNode)
		base, ok2 := args[1].(*globalNode)
		switch {
		case !ok1 || !ok2:
			return broken("reconstruction of something that is no class")
		case c.class == "uuid.UUID" && base.class == "builtins.object" && args[2] == nil:
			return m.push(&uuidNode{})
		case plainClass(c.class):
			return hostile("a reconstruction of a class that is not made this way")
		}
		o := &objectNode{class: c.class, args: &tupleNode{}, region: m.region()}
		if base.class != "builtins.object" {
			o.args, o.extends = &tupleNode{args[2:]}, true
		}
		return m.push(o)
	}
	if function == "__newobj_ex__" {
		if len(args) != 3 {
			return broken("bad arguments for a new object")
		}
		return m.newObject(args[0], args[1], args[2])
	}
	if len(args) == 0 {
		return broken("bad arguments for a new object")
	}
	return m.newObject(args[0], &tupleNode{args[1:]}, nil)
}

// extend adds values to an object that is a kind of list, set or dictionary.
func (o *objectNode) extend(op byte, items []any) error {
	if op != 's' && op != 'u' {
		o.items, o.isList = append(o.items, items...), true
		return nil
	}
	var d dictNode
	if err := d.add(items); err != nil {
		return err
	}
	o.pairs, o.isDict = append(o.pairs, d.items...), true
	return nil
}

func (m *machine) construct(class string, args *tupleNode) (v any, ok bool, err error) {
	switch class {
	case "datetime.datetime":
		v, ok = m.newDateTime(args)
	case "datetime.date":
		v, ok = newDate(args.items)
	case "datetime.time":
		v, ok = m.newTime(args)
	case "datetime.timedelta":
		v, ok = newTimeDelta(args.items)
	case "builtins.complex":
		v, ok = newComplex(args.items)
	case "decimal.Decimal":
		return m.newDecimal(args.items)
	case "builtins.set", "builtins.frozenset":
		items, good := sequence(args.items)
		if err := m.spend(len(items), 0); err != nil {
			return nil, false, err
		}
		return &setNode{items: append([]any(nil), items...), frozen: class == "builtins.frozenset"}, good, nil
	case "_codecs.encode", "builtins.bytearray", "builtins.bytes":
		return m.encode(class, args.items)
	default: // a UUID is not called
		return nil, false, hostile("an object of a class that is not made this way")
	}
	return v, ok, nil
}

// textOf reads a name in any form.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case py2Text:
		return string(v), true
	}
	return "", false
}

// bytesOf returns a copy of bytes in any form.
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

// sequence returns the members of the only argument, a list or a tuple; none
// without an argument.
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

// encode makes bytes from Latin-1 text, Python 3's form of bytes in old
// protocols. Other codecs are refused: a codec's name makes Python load code.
func (m *machine) encode(c string, args []any) (any, bool, error) {
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

// newDateTime returns a DateTime, or an object that holds one if its time zone
// has more than an offset or a name.
func (m *machine) newDateTime(args *tupleNode) (any, bool) {
	if len(args.items) < 1 || len(args.items) > 2 {
		return nil, false
	}
	b, ok := packed(args.items[0], 10)
	if !ok {
		return nil, false
	}
	d := value.DateTime{
		Year: int(b[0])<<8 | int(b[1]), Month: int(b[2] & 0x7F), Day: int(b[3]),
		Hour: int(b[4]), Minute: int(b[5]), Second: int(b[6]), Microsecond: int(b[7])<<16 | int(b[8])<<8 | int(b[9]),
		Fold: b[2]&0x80 != 0,
	}
	if !d.Valid() {
		return nil, false
	}
	if len(args.items) == 1 || args.items[1] == nil {
		return d, true
	}
	z, ok := args.items[1].(*objectNode)
	if !ok {
		return nil, false
	}
	o := &objectNode{class: "datetime.datetime", args: args, region: m.region()}
	switch {
	case z.zone == nil:
		return o, true
	case z.zone.location != nil:
		return d.In(z.zone.location), true
	}
	d.Aware, d.Offset = true, z.zone.offset
	if z.zone.more {
		o.holds = d
		return o, true
	}
	return d, true
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

// newTime returns a Time, or an object as newDateTime does.
func (m *machine) newTime(args *tupleNode) (any, bool) {
	if len(args.items) < 1 || len(args.items) > 2 {
		return nil, false
	}
	b, ok := packed(args.items[0], 6)
	if !ok {
		return nil, false
	}
	t := value.Time{
		Hour: int(b[0] & 0x7F), Minute: int(b[1]), Second: int(b[2]), Microsecond: int(b[3])<<16 | int(b[4])<<8 | int(b[5]),
		Fold: b[0]&0x80 != 0,
	}
	if !t.Valid() {
		return nil, false
	}
	if len(args.items) == 1 || args.items[1] == nil {
		return t, true
	}
	z, ok := args.items[1].(*objectNode)
	if !ok {
		return nil, false
	}
	o := &objectNode{class: "datetime.time", args: args, region: m.region()}
	switch {
	case z.zone == nil:
		return o, true
	case z.zone.location != nil:
		t.Zone = z.zone.location
		return t, true
	}
	t.Aware, t.Offset = true, z.zone.offset
	if z.zone.more {
		o.holds = t
		return o, true
	}
	return t, true
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

// zone is a time zone, as far as known.
type zone struct {
	offset   time.Duration
	more     bool           // than that offset, such as its own name
	location *time.Location // of a zone with an IANA name; then offset is unused
}

// zoneOf returns the time zone that a call makes, or nil.
func (m *machine) zoneOf(class string, args []any) *zone {
	switch class {
	case "datetime.timezone":
		if len(args) < 1 || len(args) > 2 {
			return nil
		}
		off, ok := args[0].(value.TimeDelta)
		d, fits := off.Duration()
		if !ok || !fits || d <= -24*time.Hour || d >= 24*time.Hour {
			return nil
		}
		return &zone{offset: d, more: len(args) == 2}
	case "zoneinfo.ZoneInfo._unpickle":
		if len(args) != 2 {
			return nil
		}
		if name, ok := textOf(args[0]); ok {
			return m.location(name)
		}
	case "pytz._UTC", "dateutil.tz.tz.tzutc", "dateutil.tz.tzutc", "iso8601.iso8601.Utc", "django.utils.timezone.UTC":
		return &zone{more: true}
	case "pytz._FixedOffset": // minutes
		if len(args) == 1 {
			return fixed(args[0], time.Minute)
		}
	case "pytz._p": // name, and the offset in seconds, both for one side of a change to or from summer time
		if len(args) == 4 {
			return fixed(args[1], time.Second)
		}
	}
	return nil
}

func fixed(n any, unit time.Duration) *zone {
	const day = int64(24 * time.Hour)
	v, ok := n.(int64)
	if !ok || v <= -day/int64(unit) || v >= day/int64(unit) {
		return nil
	}
	return &zone{offset: time.Duration(v) * unit, more: true}
}

// location returns the time zone with that IANA name, or nil if there is none.
func (m *machine) location(name string) *zone {
	loc, known := m.zones[name]
	if !known && name != "" && name != "Local" && len(name) < 100 {
		loc, _ = time.LoadLocation(name)
	}
	if !known && m.zones == nil {
		m.zones = map[string]*time.Location{}
	}
	m.zones[name] = loc
	if loc == nil {
		return nil
	}
	return &zone{location: loc}
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
